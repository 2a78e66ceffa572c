// What reductions add up, and in which order: the one definition for reduction.cu and for the kernels that are
// generated for chains of elementwise ops with reductions at their end. Which elements a thread combines, and in which
// order partial results come together, depends on a pass's sizes alone: the same bits in every run, and in both
// kernels.
//
// For .cu files, and for the text of generated kernels, which NVRTC compiles without a standard library.
#ifndef GRADWEAVE_RUNTIME_CUDA_REDUCE_H_
#define GRADWEAVE_RUNTIME_CUDA_REDUCE_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <cstring>

#include "gradweave/runtime/cuda/reduction_pass.h"
#include "gradweave/runtime/cuda/warp.h"
#include "gradweave/runtime/formulas.h"
#endif

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// The bounds of a type; of floating types the infinities, by their bits, since NVRTC has no <limits>.
template <typename T>
__device__ T HighestOf() {
  if constexpr (formulas::kIsSame<T, float>) {
    const uint32_t bits = 0x7f800000u;
    float infinity;
    memcpy(&infinity, &bits, sizeof bits);
    return infinity;
  } else if constexpr (formulas::kIsSame<T, double>) {
    const uint64_t bits = uint64_t{0x7ff00000u} << 32;
    double infinity;
    memcpy(&infinity, &bits, sizeof bits);
    return infinity;
  } else {
    return formulas::TypeTraits<T>::kHighest;
  }
}
template <typename T>
__device__ T LowestOf() {
  if constexpr (formulas::kIsFloating<T>) {
    return -HighestOf<T>();
  } else {
    return formulas::TypeTraits<T>::kLowest;
  }
}

// ---- Operations: a state, how it starts, takes an element at a place, joins another state, and ends ----

// An elementwise formula from element to element, which is also the type of sums; no place matters.
template <typename T, typename Formula>
struct Fold {
  using Element = T;
  using Result = T;
  using State = T;
  __device__ static State Of(T x, int32_t) { return x; }
  __device__ State operator()(State a, State b) const { return Formula()(a, b); }
  __device__ static Result End(State state) { return state; }
};

template <typename T>
struct SumOf : Fold<T, formulas::Add> {
  __device__ static T Start() { return T(0); }
};

template <typename T>
struct ProdOf : Fold<T, formulas::Mul> {
  __device__ static T Start() { return T(1); }
};

// A NaN stays.
template <typename T>
struct MaxOf : Fold<T, formulas::Maximum> {
  __device__ static T Start() { return LowestOf<T>(); }
};

template <typename T>
struct MinOf : Fold<T, formulas::Minimum> {
  __device__ static T Start() { return HighestOf<T>(); }
};

// The largest element so far and the sum of e^(x - largest). An infinite or NaN largest is the result.
template <typename T>
struct LogSumExpOf {
  using Element = T;
  using Result = T;
  struct State {
    T largest, sum;
  };
  __device__ static State Start() { return {LowestOf<T>(), T(0)}; }
  __device__ static State Of(T x, int32_t) { return {x, T(1)}; }
  __device__ State operator()(State a, State b) const {
    // Of two equal infinities, the difference is NaN; the sum is of no use then.
    const T largest = formulas::Maximum()(a.largest, b.largest);
    const T part_a = a.largest == largest ? a.sum : a.sum * formulas::ExpOf(a.largest - largest);
    const T part_b = b.largest == largest ? b.sum : b.sum * formulas::ExpOf(b.largest - largest);
    return {largest, part_a + part_b};
  }
  __device__ static Result End(State state) {
    const bool finite = state.largest > LowestOf<T>() && state.largest < HighestOf<T>();
    return finite ? state.largest + formulas::LogOf(state.sum) : state.largest;
  }
};

// ---- Passes ----

// A part of a pass's reduced axis.
struct PartOfPass {
  uint32_t begin, end;
  __device__ PartOfPass(const ReductionPass& pass, uint32_t part) {
    const uint32_t size = (pass.reduced + pass.parts - 1) / pass.parts;
    begin = part * size;
    end = begin + size < pass.reduced ? begin + size : pass.reduced;
  }
};

// Where a part's state belongs among a pass's results.
struct ResultPlace {
  uint32_t outer, part, column;
};

// The result of a pass with one part, or the state of one of several.
template <typename Operation>
__device__ void StoreResult(void* to, const ReductionPass& pass, ResultPlace place, typename Operation::State state) {
  const size_t row = pass.parts == 1 ? place.outer : static_cast<size_t>(place.outer) * pass.parts + place.part;
  const size_t at = row * pass.inner + place.column;
  if (pass.parts == 1) {
    static_cast<typename Operation::Result*>(to)[at] = Operation::End(state);
  } else {
    static_cast<typename Operation::State*>(to)[at] = state;
  }
}

// A pass over rows by a grid of BlocksOf(pass) x parts blocks of kBlock threads: a warp or a block for each row.
// load(i, place) is called once for each element, in the place along the reduced axis, and gives its state;
// store(place, state) once for each result and part.
template <typename Operation, int threads_per_row, typename Load, typename Store>
__device__ void ReduceRows(const ReductionPass& pass, Load load, Store store) {
  using State = typename Operation::State;
  const Operation combine{};
  const uint32_t lane = threadIdx.x % threads_per_row;
  const uint32_t row = blockIdx.x * (kBlock / threads_per_row) + threadIdx.x / threads_per_row;
  State state = Operation::Start();
  if (row < pass.outer) {
    const size_t from = static_cast<size_t>(row) * pass.reduced;
    const PartOfPass part(pass, blockIdx.y);
    for (uint32_t i = part.begin + lane; i < part.end; i += threads_per_row) state = combine(state, load(from + i, i));
  }
  if constexpr (threads_per_row == kWarp) {
    state = CombineWarp(state, combine);
  } else {
    GRADWEAVE_SHARED(State, shared, [kBlock / kWarp]);
    state = CombineBlock(state, &shared[0], combine);
  }
  if (lane == 0 && row < pass.outer) store(ResultPlace{row, blockIdx.y, 0}, state);
}

// The same over columns, by blocks of kReducedColumns x kReducedColumnThreads threads.
template <typename Operation, typename Load, typename Store>
__device__ void ReduceColumns(const ReductionPass& pass, Load load, Store store) {
  using State = typename Operation::State;
  const Operation combine{};
  GRADWEAVE_SHARED(State, shared, [kReducedColumnThreads][kReducedColumns]);
  const uint32_t column_blocks = (pass.inner + kReducedColumns - 1) / kReducedColumns;
  const uint32_t outer = blockIdx.x / column_blocks;
  const uint32_t column = blockIdx.x % column_blocks * kReducedColumns + threadIdx.x;
  State state = Operation::Start();
  if (column < pass.inner) {
    const size_t from = static_cast<size_t>(outer) * pass.reduced * pass.inner + column;
    const PartOfPass part(pass, blockIdx.y);
    for (uint32_t k = part.begin + threadIdx.y; k < part.end; k += kReducedColumnThreads) {
      state = combine(state, load(from + static_cast<size_t>(k) * pass.inner, k));
    }
  }
  shared[threadIdx.y][threadIdx.x] = state;
  __syncthreads();
  if (threadIdx.y != 0 || column >= pass.inner) return;
  for (int k = 1; k < kReducedColumnThreads; ++k) state = combine(state, shared[k][threadIdx.x]);
  store(ResultPlace{outer, blockIdx.y, column}, state);
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_REDUCE_H_
