// Chains that end in reductions. A generated kernel computes the chain and the first pass of its
// reductions. The remaining passes run as for a reduction alone.
#include "gradweave/runtime/cuda/fusion/fused_reduction.h"

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "gradweave/runtime/cuda/api/loaded_kernel.h"
#include "gradweave/runtime/cuda/ops/reduction.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

static_assert(kFusedThreads == kBlock && kReducedColumns * kReducedColumnThreads == kBlock,
              "generated kernels have one number of threads");
static_assert(sizeof(FusedReductionParameters<double>) <= 4096, "a kernel has 4 KiB of parameters");

// ReductionPassesOf without its type parameter.
struct Passes {
  size_t scratch_bytes;
  std::function<void*(void* y, std::byte* scratch)> first_target;
  std::function<absl::Status(const CudaContext& context, void* y, std::byte* scratch)> run_after_first;
};

template <typename Operation>
Passes MakePassesOf(const FusedReduction& reduction) {
  auto all = std::make_shared<const ReductionPassesOf<Operation>>(reduction.passes);
  return {all->scratch_bytes(), [all](void* y, std::byte* scratch) { return all->FirstTarget(y, scratch); },
          [all](const CudaContext& context, void* y, std::byte* scratch) {
            return all->RunAfterFirst(context, y, scratch);
          }};
}

template <typename T>
Passes MakePasses(const FusedReduction& reduction) {
  switch (reduction.kind) {
#define GRADWEAVE_CASE(name)        \
  case FusedReductionKind::k##name: \
    return MakePassesOf<name##Of<T>>(reduction);
    GRADWEAVE_FUSED_REDUCTIONS(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
  }
  return {};
}

template <typename T>
Kernel Make(const FusedBatch& batch, const std::shared_ptr<const LoadedKernel>& generated) {
  std::vector<Passes> passes;
  size_t scratch_bytes = 0;
  for (const FusedReduction& reduction : batch.reductions) {
    passes.push_back(MakePasses<T>(reduction));
    scratch_bytes += passes.back().scratch_bytes;
  }
  Kernel kernel{.name = "generated_reduction", .scratch_bytes = scratch_bytes};
  kernel.run = [batch = std::make_shared<const FusedBatch>(batch), passes = std::move(passes),
                generated](const KernelArguments& arguments) {
    const ReductionPass& pass = batch->reductions[0].passes[0];
    FusedReductionParameters<T> parameters = {.pass = pass};
    for (int i = 0; i < batch->program.num_numbers; ++i) {
      parameters.numbers[i] = static_cast<T>(batch->program.numbers[i]);
    }
    const FusedBatch::Member& member = batch->members[0];
    parameters.chain.total = member.total;
    int count = 0;
    for (int i : member.operands) parameters.chain.tensors[count++] = const_cast<void*>(arguments.operands[i]);
    for (int i : member.outputs) parameters.chain.tensors[count++] = arguments.outputs[i];
    std::byte* scratch = arguments.scratch;
    for (size_t k = 0; k < passes.size(); ++k) {
      parameters.results[k] = passes[k].first_target(arguments.outputs[batch->reductions[k].output], scratch);
      scratch += passes[k].scratch_bytes;
    }
    void* addresses[] = {&parameters};
    GW_RETURN_IF_ERROR(arguments.device<CudaContext>().api->Launch({.name = "generated_reduction",
                                                                    .kernel = generated->function(),
                                                                    .grid = {BlocksOf(pass), pass.parts},
                                                                    .block = BlockOf(pass),
                                                                    .arguments = addresses},
                                                                   arguments.device<CudaContext>().stream));
    scratch = arguments.scratch;
    for (size_t k = 0; k < passes.size(); ++k) {
      GW_RETURN_IF_ERROR(passes[k].run_after_first(arguments.device<CudaContext>(),
                                                   arguments.outputs[batch->reductions[k].output], scratch));
      scratch += passes[k].scratch_bytes;
    }
    return absl::OkStatus();
  };
  return kernel;
}

}  // namespace

Kernel MakeFusedReduction(const FusedGroup& group, const std::shared_ptr<const LoadedKernel>& generated) {
  GW_CHECK(generated != nullptr, "a chain with reductions has no generated kernel");
  const FusedBatch& batch = group.batches[0];
  return batch.dtype == kFloat32 ? Make<float>(batch, generated) : Make<double>(batch, generated);
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
