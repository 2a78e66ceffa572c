#include "gradweave/runtime/cpu/cpu_device.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/device_name.h"
#include "gradweave/runtime/cpu/bfloat16_products.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/cpu/region_steps.h"

namespace gradweave {
namespace {

class CpuDevice : public BackendDevice {
 public:
  CpuDevice() : BackendDevice(kCpuDevice) {}

  absl::Status CheckSupports(const Graph&, const Node&) const override { return absl::OkStatus(); }

  absl::Status Adapt(Graph& graph) const override { return UseBFloat16Products(graph); }

  absl::StatusOr<std::vector<PartSteps>> MakeSteps(const Graph&, absl::Span<const DevicePart* const> parts,
                                                   const StepOptions& options) override {
    std::vector<PartSteps> made;
    for (const DevicePart* part : parts) {
      GW_ASSIGN_OR_RETURN(made.emplace_back(), FindRegionSteps(part->graph, options));
    }
    return made;
  }

  Kernel MakeCopyKernel(size_t bytes) override {
    return {.name = "copy", .run = [bytes](const KernelArguments& arguments) {
              std::memcpy(arguments.outputs[0], arguments.operands[0], bytes);
              return absl::OkStatus();
            }};
  }

  absl::StatusOr<std::shared_ptr<std::byte>> Allocate(size_t bytes) override {
    std::shared_ptr<void> memory = AllocateAligned(bytes);
    if (memory != nullptr) return std::shared_ptr<std::byte>(memory, static_cast<std::byte*>(memory.get()));
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the plan's ", bytes, " bytes on the CPU; a smaller batch needs less"));
  }

  absl::Status Copy(void* to, const void* from, size_t bytes, CopyDirection) override {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
};

absl::Status CheckAvailable(int index) {
  if (index == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the device cpu(", index, ") is not available: there is one CPU device, cpu:0"));
}

}  // namespace

Backend MakeCpuBackend() {
  return {.name = "cpu",
          .check_available = CheckAvailable,
          .open = [](int, const std::any&) -> absl::StatusOr<std::shared_ptr<BackendDevice>> {
            return std::make_shared<CpuDevice>();
          }};
}

}  // namespace gradweave
