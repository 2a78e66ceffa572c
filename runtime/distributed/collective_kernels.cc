#include "gradweave/runtime/distributed/collective_kernels.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/distributed/collectives.h"
#include "gradweave/runtime/distributed/group.h"

namespace gradweave::distributed {
namespace {

// The types of the node's operand and output, and its elements.
struct Sizes {
  DType dtype;
  int64_t operand_elements, output_elements;
  size_t operand_bytes() const { return static_cast<size_t>(operand_elements) * DTypeSize(dtype); }
};

Sizes SizesOf(const KernelRequest& request) {
  return {request.output().dtype, request.operand(0).shape.num_elements().size(),
          request.output().shape.num_elements().size()};
}

// Adds a factory for kernels that call run(call, arguments) with the communicator. make(request)
// returns `run`, and sets scratch_bytes and overwrites of the kernel.
template <typename Make>
void AddCollective(const std::shared_ptr<Communicator>& communicator, absl::string_view op, Make make,
                   KernelRegistry& registry) {
  registry.Add(op, [communicator, make](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const int64_t shards = request.attribute<int64_t>("shards");
    if (shards != communicator->shards()) {
      return absl::InvalidArgumentError(absl::StrCat("it is for ", shards, " shards, and the session's group has ",
                                                     communicator->shards(),
                                                     "; SessionOptions::group gives a session its group"));
    }
    Kernel kernel{.name = shards == 1 ? "one shard" : absl::StrCat("over ", shards, " shards"), .fallible = true};
    auto run = make(request, kernel);
    kernel.run = [communicator, run, what = request.node.display_name()](const KernelArguments& arguments) {
      const auto stopped = [&arguments] { return arguments.stopped(); };
      communicator->thread().WaitForAll();
      return run(Call{*communicator, what, stopped}, arguments);
    };
    return kernel;
  });
}

}  // namespace

void RegisterCollectiveKernels(std::shared_ptr<Communicator> communicator, KernelRegistry& registry) {
  if (communicator == nullptr) {
    const absl::StatusOr<std::vector<std::shared_ptr<Group>>> alone = ThreadGroups(1, {});
    GW_CHECK(alone.ok(), alone.status().message());
    communicator = (*alone)[0]->communicator();
  }
  const int shards = communicator->shards();
  AddCollective(
      communicator, "AllReduce",
      [shards](const KernelRequest& request, Kernel& kernel) {
        const Sizes sizes = SizesOf(request);
        kernel.scratch_bytes = AllReduceScratch(shards, sizes.dtype, sizes.operand_elements);
        kernel.overwrites = {{0, 0}};
        return [sizes](const Call& call, const KernelArguments& arguments) {
          return AllReduceSum(call, sizes.dtype, sizes.operand_elements, arguments.operands[0], arguments.outputs[0],
                              arguments.scratch);
        };
      },
      registry);
  AddCollective(
      communicator, "AllGather",
      [](const KernelRequest& request, Kernel&) {
        return [bytes = SizesOf(request).operand_bytes()](const Call& call, const KernelArguments& arguments) {
          return AllGather(call, bytes, arguments.operands[0], arguments.outputs[0]);
        };
      },
      registry);
  AddCollective(
      communicator, "ReduceScatter",
      [shards](const KernelRequest& request, Kernel& kernel) {
        const Sizes sizes = SizesOf(request);
        kernel.scratch_bytes = ReduceScatterScratch(shards, sizes.dtype, sizes.output_elements);
        return [sizes](const Call& call, const KernelArguments& arguments) {
          return ReduceScatterSum(call, sizes.dtype, sizes.output_elements, arguments.operands[0], arguments.outputs[0],
                                  arguments.scratch);
        };
      },
      registry);
  AddCollective(
      communicator, "Broadcast",
      [](const KernelRequest& request, Kernel& kernel) {
        kernel.overwrites = {{0, 0}};
        return [bytes = SizesOf(request).operand_bytes(), root = static_cast<int>(request.attribute<int64_t>("root"))](
                   const Call& call, const KernelArguments& arguments) {
          return Broadcast(call, root, bytes, arguments.operands[0], arguments.outputs[0]);
        };
      },
      registry);
  AddCollective(
      communicator, "ShardIndex",
      [](const KernelRequest&, Kernel& kernel) {
        kernel.fallible = false;
        return [](const Call& call, const KernelArguments& arguments) {
          *arguments.output<int64_t>() = call.communicator.shard();
          return absl::OkStatus();
        };
      },
      registry);
}

OverlappedKernels MakeOverlappedAllReduce(std::shared_ptr<Communicator> communicator, DType dtype, int64_t count,
                                          std::string what, bool is_first, std::shared_ptr<OverlappedRow> row) {
  // The state of a run's sum, at a fixed address.
  struct Sum {
    CommunicationThread::Job job;
    // Copies of the arguments of `start`, whose lists of operands and outputs do not outlive it.
    KernelArguments arguments;
    void* out = nullptr;
    std::atomic<bool> ends{false};  // True if the run has to stop.
    double begin = 0, end = 0;      // Microseconds of the profile.
  };
  auto sum = std::make_shared<Sum>();
  sum->job.run = [sum = sum.get(), communicator, dtype, count, what] {
    const Profiler* const profiler = sum->arguments.profiler;
    if (profiler != nullptr) sum->begin = profiler->Now();
    const auto stopped = [sum] { return sum->ends || sum->arguments.stopped(); };
    const absl::Status status =
        AllReduceSum(Call{*communicator, what, stopped}, dtype, count, sum->out, sum->out, sum->arguments.scratch);
    if (profiler != nullptr) sum->end = profiler->Now();
    return status;
  };
  const size_t bytes = static_cast<size_t>(count) * DTypeSize(dtype);
  OverlappedKernels kernels;
  kernels.start = {.name = absl::StrCat("over ", communicator->shards(), " shards, starts"),
                   .run =
                       [sum, communicator, bytes, is_first, row](const KernelArguments& arguments) {
                         if (is_first) row->profiler = nullptr;
                         sum->arguments = arguments;
                         sum->out = arguments.outputs[0];
                         sum->ends = false;
                         if (bytes > 0 && sum->out != arguments.operands[0]) {
                           std::memcpy(sum->out, arguments.operands[0], bytes);
                         }
                         communicator->thread().Start(sum->job);
                         return absl::OkStatus();
                       },
                   .scratch_bytes = AllReduceScratch(communicator->shards(), dtype, count),
                   .overwrites = {{0, 0}}};
  kernels.wait = {.name = "waits for the sum",
                  .run =
                      [sum, communicator, what, row](const KernelArguments& arguments) {
                        if (arguments.stopped()) sum->ends = true;
                        absl::Status status = communicator->thread().Wait(sum->job);
                        if (Profiler* const profiler = arguments.profiler; profiler != nullptr && status.ok()) {
                          if (row->profiler != profiler) *row = {profiler, profiler->AddRow("communication")};
                          profiler->AddSpan(row->row, what, sum->begin, sum->end);
                        }
                        return status;
                      },
                  .fallible = true};
  return kernels;
}

}  // namespace gradweave::distributed
