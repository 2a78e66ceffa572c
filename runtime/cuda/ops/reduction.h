// Launches of the passes of a reduction. For .cu files.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_H_

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/reduce.h"
#include "gradweave/runtime/cuda/ops/reduction_pass.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Loads a tensor's elements for the passes of reduce.h.
template <typename Operation>
struct TensorLoad {
  const typename Operation::Element* x;
  template <int n>
  __device__ void operator()(const ElementRun& run, typename Operation::State (&states)[n]) const {
    for (int k = 0; k < n; ++k) {
      states[k] = Operation::Of(x[run.at + k * run.step], static_cast<int32_t>(run.place + k * run.place_step));
    }
  }
};

// Computes one pass over the rows of a tensor.
template <typename Operation, int threads_per_row>
__global__ void __launch_bounds__(kBlock)
    ReduceTensorRows(const typename Operation::Element* x, void* to, ReductionPass pass) {
  ReduceRows<Operation, threads_per_row>(
      pass, TensorLoad<Operation>{x},
      [=](ResultPlace place, typename Operation::State state) { StoreResult<Operation>(to, pass, place, state); });
}

// Computes one pass over the columns of a tensor.
template <typename Operation>
__global__ void __launch_bounds__(kReducedColumns* kReducedColumnThreads)
    ReduceTensorColumns(const typename Operation::Element* x, void* to, ReductionPass pass) {
  ReduceColumns<Operation>(pass, TensorLoad<Operation>{x}, [=](ResultPlace place, typename Operation::State state) {
    StoreResult<Operation>(to, pass, place, state);
  });
}

// Combines the partial states [outer, parts, inner] of each result, in order.
template <typename Operation>
__global__ void __launch_bounds__(kBlock)
    CombineParts(const typename Operation::State* partial, typename Operation::Result* y, uint32_t total,
                 uint32_t parts, Divider inner) {
  const Operation combine{};
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t column = i;
    const uint32_t outer = inner.Split(column);
    const typename Operation::State* from = partial + static_cast<size_t>(outer) * parts * inner.divisor + column;
    typename Operation::State state = from[0];
    for (uint32_t k = 1; k < parts; ++k) state = combine(state, from[static_cast<size_t>(k) * inner.divisor]);
    y[i] = Operation::End(state);
  }
}

// Returns the size of the blocks of a pass.
inline CudaDim3 BlockOf(const ReductionPass& pass) {
  if (pass.inner == 1) return {kBlock};
  return {kReducedColumns, kReducedColumnThreads};
}

// All passes of one reduction. Another kernel may compute the first pass. Scratch holds the partial
// states of one pass, then two areas for results between passes.
template <typename Operation>
class ReductionPassesOf {
 public:
  using Element = typename Operation::Element;
  using State = typename Operation::State;
  using Result = typename Operation::Result;

  explicit ReductionPassesOf(std::vector<ReductionPass> passes) : passes_(std::move(passes)) {
    for (size_t i = 0; i < passes_.size(); ++i) {
      const size_t results = size_t{passes_[i].outer} * passes_[i].inner;
      if (passes_[i].parts > 1)
        partial_bytes_ = std::max(partial_bytes_, RoundUp(results * passes_[i].parts * sizeof(State), kCudaAlignment));
      if (i + 1 < passes_.size())
        between_bytes_ = std::max(between_bytes_, RoundUp(results * sizeof(Element), kCudaAlignment));
    }
  }

  // Scratch memory in bytes.
  size_t scratch_bytes() const { return partial_bytes_ + 2 * between_bytes_; }

  // Enqueues all passes over x.
  absl::Status Run(const CudaContext& context, const Element* x, void* y, std::byte* scratch) const {
    GW_RETURN_IF_ERROR(RunPass(context, 0, x, y, scratch));
    return RunAfterFirst(context, y, scratch);
  }

  // Returns where another kernel that computes the first pass stores its results, or the states of
  // its parts.
  void* FirstTarget(void* y, std::byte* scratch) const { return Target(0, y, scratch); }
  // Enqueues the rest of the reduction after such a kernel.
  absl::Status RunAfterFirst(const CudaContext& context, void* y, std::byte* scratch) const {
    GW_RETURN_IF_ERROR(Combine(context, 0, y, scratch));
    for (size_t i = 1; i < passes_.size(); ++i) {
      GW_RETURN_IF_ERROR(
          RunPass(context, i, reinterpret_cast<const Element*>(ResultOf(i - 1, y, scratch)), y, scratch));
      GW_RETURN_IF_ERROR(Combine(context, i, y, scratch));
    }
    return absl::OkStatus();
  }

 private:
  void* ResultOf(size_t i, void* y, std::byte* scratch) const {
    return i + 1 == passes_.size() ? y : scratch + partial_bytes_ + i % 2 * between_bytes_;
  }
  void* Target(size_t i, void* y, std::byte* scratch) const {
    return passes_[i].parts == 1 ? ResultOf(i, y, scratch) : scratch;
  }

  absl::Status RunPass(const CudaContext& context, size_t i, const Element* x, void* y, std::byte* scratch) const {
    const ReductionPass& pass = passes_[i];
    if (pass.outer == 0 || pass.inner == 0) return absl::OkStatus();
    auto launch = [&](const char* name, auto kernel) {
      return Launch(context, name, kernel, {BlocksOf(pass), pass.parts}, BlockOf(pass), 0, x, Target(i, y, scratch),
                    pass);
    };
    switch (FormOf(pass)) {
      case PassForm::kShortRows:
        return launch("reduce_short_rows", ReduceTensorRows<Operation, kWarp>);
      case PassForm::kLongRows:
        return launch("reduce_rows", ReduceTensorRows<Operation, kBlock>);
      case PassForm::kColumns:
        return launch("reduce_columns", ReduceTensorColumns<Operation>);
    }
    return absl::OkStatus();
  }

  absl::Status Combine(const CudaContext& context, size_t i, void* y, std::byte* scratch) const {
    const ReductionPass& pass = passes_[i];
    const uint32_t total = pass.outer * pass.inner;
    if (pass.parts == 1 || total == 0) return absl::OkStatus();
    return Launch(context, "combine_parts", CombineParts<Operation>, {BlocksFor(total)}, {kBlock}, 0,
                  reinterpret_cast<const State*>(scratch), static_cast<Result*>(ResultOf(i, y, scratch)), total,
                  pass.parts, Divider(pass.inner));
  }

  std::vector<ReductionPass> passes_;
  size_t partial_bytes_ = 0, between_bytes_ = 0;
};

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_H_
