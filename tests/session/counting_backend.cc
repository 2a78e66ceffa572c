#include "tests/session/counting_backend.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/session/backends.h"

namespace gradweave {
namespace {

// Device memory, by address. Each allocation has a margin that belongs to no device.
std::map<const std::byte*, size_t>& Allocations() {
  static auto* const allocations = new std::map<const std::byte*, size_t>();
  return *allocations;
}

bool IsDeviceMemory(const void* pointer) {
  const auto* address = static_cast<const std::byte*>(pointer);
  const auto after = Allocations().upper_bound(address);
  if (after == Allocations().begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return address < begin + bytes;
}

class CountingDevice : public BackendDevice {
 public:
  explicit CountingDevice(int index) : BackendDevice(absl::StrCat("counting:", index)) { ++CountedCalls().opened; }

  absl::Status CheckSupports(const Graph&, const Node& node) const override {
    constexpr absl::string_view kOps[] = {"MatMul", "Add", "Sub", "Mul", "Tanh"};
    if (std::find(std::begin(kOps), std::end(kOps), node.op->name) != std::end(kOps)) return absl::OkStatus();
    return absl::UnimplementedError("the counting device has few kernels");
  }

  absl::StatusOr<std::vector<PartSteps>> MakeSteps(const Graph&, absl::Span<const DevicePart* const> parts,
                                                   const StepOptions& options) override {
    std::vector<PartSteps> made;
    for (const DevicePart* part : parts) {
      PartSteps& steps = made.emplace_back();
      for (const Node& node : part->graph.nodes()) {
        if (node.op->is_source() || AliasedOperand(node) >= 0) continue;
        GW_ASSIGN_OR_RETURN(PartStep step, MakeNodeStep(CpuKernels(), part->graph, node, options.threads));
        step.kernel.name = absl::StrCat("counted ", node.op->name);
        step.kernel.kept_bytes = 0;
        step.kernel.fallible = CountedCalls().failing_op == node.op->name;
        step.kernel.run = [run = step.kernel.run, op = node.op->name,
                           scratch = step.kernel.scratch_bytes](const KernelArguments& arguments) {
          BackendCalls& calls = CountedCalls();
          ++calls.kernels[op];
          for (const void* operand : arguments.operands) calls.stray_pointers += IsDeviceMemory(operand) ? 0 : 1;
          for (const void* output : arguments.outputs) calls.stray_pointers += IsDeviceMemory(output) ? 0 : 1;
          if (scratch > 0) calls.stray_pointers += IsDeviceMemory(arguments.scratch) ? 0 : 1;
          GW_RETURN_IF_ERROR(run(arguments));
          return op == calls.failing_op ? calls.failure : absl::OkStatus();
        };
        steps.steps.push_back(std::move(step));
      }
    }
    return made;
  }

  Kernel MakeCopyKernel(size_t bytes) override {
    return {.name = "counted copy", .run = [bytes](const KernelArguments& arguments) {
              std::memcpy(arguments.outputs[0], arguments.operands[0], bytes);
              return absl::OkStatus();
            }};
  }

  absl::StatusOr<std::shared_ptr<std::byte>> Allocate(size_t bytes) override {
    const size_t rounded = (bytes + 63) / 64 * 64;
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(64, rounded + 64));
    Allocations()[memory] = rounded;
    CountedCalls().bytes_in_use += static_cast<int64_t>(rounded);
    return std::shared_ptr<std::byte>(memory, [rounded](std::byte* freed) {
      Allocations().erase(freed);
      CountedCalls().bytes_in_use -= static_cast<int64_t>(rounded);
      std::free(freed);
    });
  }

  absl::Status Copy(void* to, const void* from, size_t bytes, CopyDirection direction) override {
    BackendCalls& calls = CountedCalls();
    const bool to_device = direction != CopyDirection::kToHost, from_device = direction != CopyDirection::kToDevice;
    if (IsDeviceMemory(to) != to_device || IsDeviceMemory(from) != from_device) {
      return absl::InternalError("a copy in the wrong direction");
    }
    ++(!from_device ? calls.copies_to_device : !to_device ? calls.copies_to_host : calls.copies_on_device);
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
};

}  // namespace

BackendCalls& CountedCalls() {
  static auto* const calls = new BackendCalls();
  return *calls;
}

void RegisterCountingBackend() {
  static const bool once = [] {
    RegisterBackend({.name = "counting",
                     .check_available =
                         [](int index) {
                           return index < 2 ? absl::OkStatus()
                                            : absl::UnavailableError("there are two counting devices");
                         },
                     .open = [](int index, const std::any&) -> absl::StatusOr<std::shared_ptr<BackendDevice>> {
                       return std::make_shared<CountingDevice>(index);
                     }});
    return true;
  }();
  (void)once;
}

}  // namespace gradweave
