// Reduction operations and the order in which they combine elements. This is the one definition for
// reduction.cu and for generated kernels of elementwise chains that end in a reduction. The
// elements that a thread combines and the order of partial results depend only on the sizes of a
// pass, so every run and both kinds of kernel give the same bits.
//
// For .cu files and for the source of generated kernels, which NVRTC compiles without a standard
// library.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_REDUCE_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_REDUCE_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <cstring>

#include "gradweave/runtime/cuda/ops/reduction_pass.h"
#include "gradweave/runtime/cuda/ops/warp.h"
#include "gradweave/runtime/kernel/formulas.h"
#endif

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Bounds of a type; infinities for floating types. They are made from bits, since NVRTC has no
// <limits>.
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

// ---- Operations ----
// An operation defines a state: its start value, the state for one element at a place of the
// reduced axis, the combination of two states, and the result of a final state.

// An elementwise formula as an operation. Elements, states and results have one type, and places do
// not matter.
template <typename T, typename Formula>
struct Fold {
  using Element = T;
  using Result = T;
  using State = T;
  __device__ static State Of(T x, int32_t) { return x; }
  __device__ State operator()(State a, State b) const { return Formula()(a, b); }
  __device__ static Result End(State state) { return state; }
};

// The sum of all elements. Integers wrap around.
template <typename T>
struct SumOf : Fold<T, formulas::Add> {
  __device__ static T Start() { return T(0); }
};

// The product of all elements. Integers wrap around.
template <typename T>
struct ProdOf : Fold<T, formulas::Mul> {
  __device__ static T Start() { return T(1); }
};

// Propagates NaN.
template <typename T>
struct MaxOf : Fold<T, formulas::Maximum> {
  __device__ static T Start() { return LowestOf<T>(); }
};

// The smallest element. Propagates NaN.
template <typename T>
struct MinOf : Fold<T, formulas::Minimum> {
  __device__ static T Start() { return HighestOf<T>(); }
};

// log(sum(e^x)). The state holds the largest element so far and the sum of e^(x - largest) over all
// other elements: with the largest element's 1, small terms would be lost. If the largest element
// is infinite or NaN, it is the result.
template <typename T>
struct LogSumExpOf {
  using Element = T;
  using Result = T;
  struct State {
    T largest, rest;
  };
  // No elements are an element of -infinity less 1 element.
  __device__ static State Start() { return {LowestOf<T>(), T(-1)}; }
  __device__ static State Of(T x, int32_t) { return {x, T(0)}; }
  __device__ State operator()(State a, State b) const {
    if (a.largest == b.largest) return {a.largest, a.rest + b.rest + 1};
    // The difference with an infinity or NaN may be NaN, but End ignores the rest then.
    const bool first = a.largest > b.largest || formulas::IsNaN(a.largest);
    const State large = first ? a : b, small = first ? b : a;
    return {formulas::Maximum()(a.largest, b.largest),
            large.rest + (small.rest + 1) * formulas::ExpOf(small.largest - large.largest)};
  }
  __device__ static Result End(State state) {
    const bool finite = state.largest > LowestOf<T>() && state.largest < HighestOf<T>();
    return finite ? state.largest + formulas::Log1pOf(state.rest) : state.largest;
  }
};

// ---- Passes ----

// Range of the reduced axis for one part of a pass.
struct PartOfPass {
  uint32_t begin, end;
  __device__ PartOfPass(const ReductionPass& pass, uint32_t part) {
    const uint32_t size = (pass.reduced + pass.parts - 1) / pass.parts;
    begin = part * size;
    end = begin + size < pass.reduced ? begin + size : pass.reduced;
  }
};

// Position of a part's state among the results of a pass.
struct ResultPlace {
  uint32_t outer, part, column;
};

// Stores the result of a pass with one part, or the state of one part of several.
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

// Elements of one thread: every step-th element of the tensor, starting at `at`. On the reduced
// axis they are every place_step-th, starting at `place`.
struct ElementRun {
  size_t at, step;
  uint32_t place, place_step;
};

// Combines the states of a run up to the place `end`, in order. Each thread keeps several loads in
// flight, because fewer would not keep a GPU's memory busy.
template <typename Operation, typename Load>
__device__ typename Operation::State ReduceRun(ElementRun run, uint32_t end, Load load) {
  constexpr uint32_t kAhead = 4;
  using State = typename Operation::State;
  const Operation combine{};
  State state = Operation::Start();
  for (; run.place + (kAhead - 1) * run.place_step < end; run.place += kAhead * run.place_step) {
    State next[kAhead];
    load(run, next);
    for (uint32_t k = 0; k < kAhead; ++k) state = combine(state, next[k]);
    run.at += kAhead * run.step;
  }
  for (; run.place < end; run.place += run.place_step) {
    State next[1];
    load(run, next);
    state = combine(state, next[0]);
    run.at += run.step;
  }
  return state;
}

// Runs a pass over rows in a grid of BlocksOf(pass) x parts blocks of kBlock threads, with a warp
// or a block for each row. load(run, states) fills an array with the states of the run's first
// elements and loads each element once. store(place, state) is called once for each result and
// part.
template <typename Operation, int threads_per_row, typename Load, typename Store>
__device__ void ReduceRows(const ReductionPass& pass, Load load, Store store) {
  using State = typename Operation::State;
  const Operation combine{};
  const uint32_t lane = threadIdx.x % threads_per_row;
  const uint32_t row = blockIdx.x * (kBlock / threads_per_row) + threadIdx.x / threads_per_row;
  State state = Operation::Start();
  if (row < pass.outer) {
    const PartOfPass part(pass, blockIdx.y);
    const uint32_t place = part.begin + lane;
    const size_t at = static_cast<size_t>(row) * pass.reduced + place;
    state = ReduceRun<Operation>(ElementRun{at, threads_per_row, place, threads_per_row}, part.end, load);
  }
  if constexpr (threads_per_row == kWarp) {
    state = CombineWarp(state, combine);
  } else {
    GRADWEAVE_SHARED(State, shared, [kBlock / kWarp]);
    state = CombineBlock(state, shared, combine);
  }
  if (lane == 0 && row < pass.outer) store(ResultPlace{row, blockIdx.y, 0}, state);
}

// Runs a pass over columns, with blocks of kReducedColumns x kReducedColumnThreads threads.
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
    const PartOfPass part(pass, blockIdx.y);
    const uint32_t place = part.begin + threadIdx.y;
    const size_t at = (static_cast<size_t>(outer) * pass.reduced + place) * pass.inner + column;
    const size_t step = static_cast<size_t>(kReducedColumnThreads) * pass.inner;
    state = ReduceRun<Operation>(ElementRun{at, step, place, kReducedColumnThreads}, part.end, load);
  }
  shared[threadIdx.y][threadIdx.x] = state;
  __syncthreads();
  if (threadIdx.y != 0 || column >= pass.inner) return;
  for (int k = 1; k < kReducedColumnThreads; ++k) state = combine(state, shared[k][threadIdx.x]);
  store(ResultPlace{outer, blockIdx.y, column}, state);
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_REDUCE_H_
