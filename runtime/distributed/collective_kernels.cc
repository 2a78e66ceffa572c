#include "gradweave/runtime/distributed/collective_kernels.h"

#include <cstdint>
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

}  // namespace gradweave::distributed
