// Reductions: one pass for each group of neighbouring axes, [outer, reduced, inner] -> [outer, inner]. Which elements a
// thread combines, and in which order partial results come together, depends on sizes alone: the same bits in every
// run.
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "gradweave/runtime/cuda/device.h"
#include "gradweave/runtime/cuda/factories.h"
#include "gradweave/runtime/formulas.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

using formulas::IsNaN;

template <typename T>
__host__ __device__ T LowestOf() {
  if constexpr (formulas::kIsFloating<T>) {
    return -std::numeric_limits<T>::infinity();
  } else {
    return formulas::TypeTraits<T>::kLowest;
  }
}
template <typename T>
__host__ __device__ T HighestOf() {
  if constexpr (formulas::kIsFloating<T>) {
    return std::numeric_limits<T>::infinity();
  } else {
    return formulas::TypeTraits<T>::kHighest;
  }
}

// ---- Operations: a state, how it starts, takes an element at a place, joins another state, and ends ----

// An elementwise formula from element to element; no place matters.
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

// The best element and the first place where it is; NaN is best.
template <typename T, bool largest, typename Index>
struct ArgOf {
  using Element = T;
  using Result = Index;
  struct State {
    T value;
    int32_t place;  // -1: none yet.
  };
  __device__ static State Start() { return {T(0), -1}; }
  __device__ static State Of(T x, int32_t place) { return {x, place}; }
  __device__ State operator()(State a, State b) const {
    if (a.place < 0) return b;
    if (b.place < 0) return a;
    const bool nan_a = IsNaN(a.value), nan_b = IsNaN(b.value);
    if (nan_a || nan_b) return nan_a && nan_b ? (a.place < b.place ? a : b) : (nan_a ? a : b);
    if (a.value == b.value) return a.place < b.place ? a : b;
    return (largest ? a.value > b.value : a.value < b.value) ? a : b;
  }
  __device__ static Result End(State state) { return static_cast<Index>(state.place); }
};

// ---- Kernels ----

struct Pass {
  uint32_t outer, reduced, inner;
};

constexpr uint32_t kShortRow = 512;  // A warp for each row up to this length, a block for each longer one.

// [outer, reduced] -> [outer] by a warp or a block for each row. `parts` blocks share a row where there are few rows:
// then `partial` gets [outer, parts] states.
template <typename Operation, int threads_per_row>
__global__ void __launch_bounds__(kBlock)
    ReduceRows(const typename Operation::Element* x, typename Operation::Result* y, typename Operation::State* partial,
               uint32_t outer, uint32_t reduced, uint32_t parts) {
  using State = typename Operation::State;
  const Operation combine{};
  const uint32_t lane = threadIdx.x % threads_per_row;
  const uint32_t row = blockIdx.x * (kBlock / threads_per_row) + threadIdx.x / threads_per_row;
  State state = Operation::Start();
  if (row < outer) {
    const typename Operation::Element* from = x + static_cast<size_t>(row) * reduced;
    const uint32_t size = (reduced + parts - 1) / parts;
    const uint32_t begin = blockIdx.y * size, end = begin + size < reduced ? begin + size : reduced;
    for (uint32_t i = begin + lane; i < end; i += threads_per_row) {
      state = combine(state, Operation::Of(from[i], static_cast<int32_t>(i)));
    }
  }
  if constexpr (threads_per_row == kWarp) {
    state = CombineWarp(state, combine);
  } else {
    GRADWEAVE_SHARED(State, shared, [kBlock / kWarp]);
    state = CombineBlock(state, &shared[0], combine);
  }
  if (lane != 0 || row >= outer) return;
  if (partial != nullptr) {
    partial[static_cast<size_t>(row) * parts + blockIdx.y] = state;
  } else {
    y[row] = Operation::End(state);
  }
}

constexpr int kColumns = 32, kColumnThreads = 8;

// [outer, reduced, inner] -> [outer, inner] by blocks of 32 neighbouring columns and 8 threads along the reduced axis;
// with parts, as above, partial is [outer, parts, inner].
template <typename Operation>
__global__ void __launch_bounds__(kColumns* kColumnThreads)
    ReduceColumns(const typename Operation::Element* x, typename Operation::Result* y,
                  typename Operation::State* partial, Pass pass, uint32_t parts, Divider column_blocks) {
  using State = typename Operation::State;
  const Operation combine{};
  GRADWEAVE_SHARED(State, shared, [kColumnThreads][kColumns]);
  uint32_t column_block = blockIdx.x;
  const uint32_t outer = column_blocks.Split(column_block);
  const uint32_t column = column_block * kColumns + threadIdx.x;
  const uint32_t size = (pass.reduced + parts - 1) / parts;
  const uint32_t begin = blockIdx.y * size, end = begin + size < pass.reduced ? begin + size : pass.reduced;
  State state = Operation::Start();
  if (column < pass.inner) {
    const typename Operation::Element* from = x + static_cast<size_t>(outer) * pass.reduced * pass.inner + column;
    for (uint32_t k = begin + threadIdx.y; k < end; k += kColumnThreads) {
      state = combine(state, Operation::Of(from[static_cast<size_t>(k) * pass.inner], static_cast<int32_t>(k)));
    }
  }
  shared[threadIdx.y][threadIdx.x] = state;
  __syncthreads();
  if (threadIdx.y != 0 || column >= pass.inner) return;
  for (int k = 1; k < kColumnThreads; ++k) state = combine(state, shared[k][threadIdx.x]);
  if (partial != nullptr) {
    partial[(static_cast<size_t>(outer) * parts + blockIdx.y) * pass.inner + column] = state;
  } else {
    y[static_cast<size_t>(outer) * pass.inner + column] = Operation::End(state);
  }
}

// The partial states [outer, parts, inner] of each result, in order.
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

// Blocks that fill a large GPU; passes with fewer split the reduced axis, into parts of kLeastPart elements at least.
constexpr uint32_t kFullGrid = 264, kLeastPart = 2048, kMostParts = 256;

uint32_t BlocksOf(const Pass& pass) {
  if (pass.inner == 1) return pass.reduced <= kShortRow ? (pass.outer + 7) / 8 : pass.outer;
  return pass.outer * ((pass.inner + kColumns - 1) / kColumns);
}

uint32_t PartsOf(const Pass& pass) {
  const uint32_t blocks = std::max<uint32_t>(BlocksOf(pass), 1);
  // A row is read by a block at once, a column by 8 threads.
  const uint32_t least = pass.inner == 1 ? kLeastPart : 64;
  return std::clamp<uint32_t>(kFullGrid / blocks, 1, std::clamp<uint32_t>(pass.reduced / least, 1, kMostParts));
}

template <typename Operation>
size_t PartialBytes(const Pass& pass) {
  const uint32_t parts = PartsOf(pass);
  return parts == 1 ? 0 : sizeof(typename Operation::State) * parts * pass.outer * pass.inner;
}

template <typename Operation>
absl::Status RunPass(const CudaContext& context, const Pass& pass, const typename Operation::Element* x,
                     typename Operation::Result* y, std::byte* scratch) {
  const uint32_t parts = PartsOf(pass), total = pass.outer * pass.inner;
  if (total == 0) return absl::OkStatus();
  auto* partial = parts == 1 ? nullptr : reinterpret_cast<typename Operation::State*>(scratch);
  const CudaDim3 grid{BlocksOf(pass), parts};
  if (pass.inner != 1) {
    GW_RETURN_IF_ERROR(Launch(context, "reduce_columns", ReduceColumns<Operation>, grid, {kColumns, kColumnThreads}, 0,
                              x, y, partial, pass, parts,
                              Divider(std::max<uint32_t>((pass.inner + kColumns - 1) / kColumns, 1))));
  } else if (pass.reduced <= kShortRow) {
    GW_RETURN_IF_ERROR(Launch(context, "reduce_short_rows", ReduceRows<Operation, kWarp>, grid, {kBlock}, 0, x, y,
                              partial, pass.outer, pass.reduced, parts));
  } else {
    GW_RETURN_IF_ERROR(Launch(context, "reduce_rows", ReduceRows<Operation, kBlock>, grid, {kBlock}, 0, x, y, partial,
                              pass.outer, pass.reduced, parts));
  }
  if (parts == 1) return absl::OkStatus();
  return Launch(context, "combine_parts", CombineParts<Operation>, {BlocksFor(total)}, {kBlock}, 0,
                static_cast<const typename Operation::State*>(partial), y, total, parts, Divider(pass.inner));
}

// Neighbouring axes of one kind joined, axes of size 1 dropped: the passes from the last reduced axis to the first.
std::vector<Pass> PassesOf(const KernelRequest& request) {
  const Integers& axes = request.attribute<Integers>("axes");
  const Shape& shape = request.operand(0).shape;
  absl::InlinedVector<int64_t, 6> sizes = {1};  // Kept, reduced, kept, ...
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis].size() == 1) continue;
    const bool reduced = std::find(axes.begin(), axes.end(), axis) != axes.end();
    if (reduced == (sizes.size() % 2 == 0)) {
      sizes.back() *= shape[axis].size();
    } else {
      sizes.push_back(shape[axis].size());
    }
  }
  std::vector<Pass> passes;
  while (sizes.size() > 1) {
    const size_t last = sizes.size() / 2 * 2 - 1;
    int64_t outer = 1, inner = 1;
    for (size_t i = 0; i < last; ++i) outer *= sizes[i];
    for (size_t i = last + 1; i < sizes.size(); ++i) inner *= sizes[i];
    passes.push_back({static_cast<uint32_t>(outer), static_cast<uint32_t>(sizes[last]), static_cast<uint32_t>(inner)});
    sizes[last - 1] *= inner;
    sizes.resize(last);
  }
  return passes;
}

constexpr size_t kAlignment = 256;
size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Scratch: the partial states of a pass, then two areas for results between passes.
template <typename Operation>
Kernel ReductionKernel(const KernelRequest& request) {
  using T = typename Operation::Element;
  const std::vector<Pass> passes = PassesOf(request);
  if (passes.empty()) {
    Kernel kernel = CopyKernel(request.output().byte_size());
    kernel.overwrites.clear();
    return kernel;
  }
  size_t partial_bytes = 0, between = 0;
  for (size_t i = 0; i < passes.size(); ++i) {
    partial_bytes = std::max(partial_bytes, Aligned(PartialBytes<Operation>(passes[i])));
    if (i + 1 < passes.size())
      between = std::max(between, Aligned(size_t{passes[i].outer} * passes[i].inner * sizeof(T)));
  }
  return {.name = passes.size() == 1 ? "one_pass" : "passes",
          .run =
              [=, passes = std::make_shared<const std::vector<Pass>>(passes)](const KernelArguments& arguments) {
                const T* x = arguments.operand<T>(0);
                for (size_t i = 0; i < passes->size(); ++i) {
                  T* to = i + 1 == passes->size()
                              ? arguments.output<T>()
                              : reinterpret_cast<T*>(arguments.scratch + partial_bytes + i % 2 * between);
                  GW_RETURN_IF_ERROR(RunPass<Operation>(*arguments.cuda, (*passes)[i], x, to, arguments.scratch));
                  x = to;
                }
                return absl::OkStatus();
              },
          .scratch_bytes = partial_bytes + 2 * between};
}

template <template <typename> class Operation>
void AddReduction(KernelRegistry& registry, const char* op) {
  Add(registry, op, [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (std::is_same_v<T, bool>) {
        return absl::UnimplementedError("no kernel for this dtype");
      } else {
        return ReductionKernel<Operation<T>>(request);
      }
    });
  });
}

template <bool largest>
void AddArg(KernelRegistry& registry, const char* op) {
  Add(registry, op, [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const AxisSizes axis(request.operand(0).shape, request.attribute<int64_t>("axis"));
    const Pass pass{static_cast<uint32_t>(axis.outer), static_cast<uint32_t>(axis.size),
                    static_cast<uint32_t>(axis.inner)};
    return VisitDType(request.operand(0).dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      auto with_index = [&](auto index_zero) -> Kernel {
        using Operation = ArgOf<T, largest, decltype(index_zero)>;
        return {.name = "one_pass",
                .run =
                    [pass](const KernelArguments& arguments) {
                      return RunPass<Operation>(*arguments.cuda, pass, arguments.operand<T>(0),
                                                arguments.output<typename Operation::Result>(), arguments.scratch);
                    },
                .scratch_bytes = PartialBytes<Operation>(pass)};
      };
      if constexpr (std::is_same_v<T, bool>) {
        return absl::UnimplementedError("no kernel for this dtype");
      } else {
        return request.output().dtype == kInt32 ? with_index(int32_t{}) : with_index(int64_t{});
      }
    });
  });
}

// ---- Recurrences along the last axis, each row by a warp ----

// What a run of elements does to the number that comes in: y = scale*x + shift.
template <typename T>
struct Affine {
  T scale, shift;
};

// y[i] = x[0]*...*x[i-1]. A warp multiplies 32 elements up at a time.
template <typename T>
__global__ void __launch_bounds__(kBlock) ExclusiveProducts(const T* x, T* y, uint32_t rows, uint32_t n) {
  const uint32_t row = GlobalThread() / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= rows) return;
  const size_t begin = static_cast<size_t>(row) * n;
  T before = 1;
  for (uint32_t start = 0; start < n; start += kWarp) {
    const bool inside = start + lane < n;
    const T own = inside ? x[begin + start + lane] : T(1);
    T product = own;  // Of this chunk up to the lane.
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const T other = __shfl_up_sync(kAllLanes, product, distance);
      if (lane >= distance) product = other * product;
    }
    const T previous = __shfl_up_sync(kAllLanes, product, 1);
    if (inside) y[begin + start + lane] = before * (lane == 0 ? T(1) : previous);
    before = before * __shfl_sync(kAllLanes, product, kWarp - 1);
  }
}

// s[n-1] = 0 and s[j] = a[j+1] + x[j+1]*s[j+1], from the end.
template <typename T>
__global__ void __launch_bounds__(kBlock) SuffixSums(const T* a, const T* x, T* s, uint32_t rows, uint32_t n) {
  const uint32_t row = GlobalThread() / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= rows) return;
  const size_t begin = static_cast<size_t>(row) * n;
  T after = 0;
  // Step k is that of element n - 1 - k.
  for (uint32_t start = 0; start < n; start += kWarp) {
    const uint32_t k = start + lane;
    const bool inside = k < n;
    const size_t at = begin + (inside ? n - 1 - k : 0);
    Affine<T> step = inside ? Affine<T>{x[at], a[at]} : Affine<T>{T(1), T(0)};
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const T scale = __shfl_up_sync(kAllLanes, step.scale, distance);
      const T shift = __shfl_up_sync(kAllLanes, step.shift, distance);
      if (lane >= distance) step = {scale * step.scale, step.shift + step.scale * shift};
    }
    const T scale = __shfl_up_sync(kAllLanes, step.scale, 1), shift = __shfl_up_sync(kAllLanes, step.shift, 1);
    if (inside) s[at] = lane == 0 ? after : shift + scale * after;
    const T last_scale = __shfl_sync(kAllLanes, step.scale, kWarp - 1);
    const T last_shift = __shfl_sync(kAllLanes, step.shift, kWarp - 1);
    after = last_shift + last_scale * after;
  }
}

struct Rows {
  uint32_t count, size;
  explicit Rows(const KernelRequest& request) {
    const Shape& shape = request.output().shape;
    size = static_cast<uint32_t>(shape[shape.rank() - 1].size());
    count = size == 0 ? 0 : static_cast<uint32_t>(NumElements(request.output())) / size;
  }
  CudaDim3 grid() const { return {(count + kBlock / kWarp - 1) / (kBlock / kWarp)}; }
};

}  // namespace

void RegisterReductionKernels(KernelRegistry& registry) {
  AddReduction<SumOf>(registry, "Sum");
  AddReduction<ProdOf>(registry, "Prod");
  AddReduction<MaxOf>(registry, "Max");
  AddReduction<MinOf>(registry, "Min");
  AddArg<true>(registry, "ArgMax");
  AddArg<false>(registry, "ArgMin");
  AddFloating(registry, "LogSumExp", [](const KernelRequest& request, auto zero) {
    return ReductionKernel<LogSumExpOf<decltype(zero)>>(request);
  });
  AddFloating(registry, "ExclusiveProd", [](const KernelRequest& request, auto zero) -> Kernel {
    using T = decltype(zero);
    const Rows rows(request);
    return {.name = "warp_scan", .run = [rows](const KernelArguments& arguments) {
              return Launch(*arguments.cuda, "exclusive_products", ExclusiveProducts<T>, rows.grid(), {kBlock}, 0,
                            arguments.operand<T>(0), arguments.output<T>(), rows.count, rows.size);
            }};
  });
  AddFloating(registry, "SuffixSum", [](const KernelRequest& request, auto zero) -> Kernel {
    using T = decltype(zero);
    const Rows rows(request);
    return {.name = "warp_scan", .run = [rows](const KernelArguments& arguments) {
              return Launch(*arguments.cuda, "suffix_sums", SuffixSums<T>, rows.grid(), {kBlock}, 0,
                            arguments.operand<T>(0), arguments.operand<T>(1), arguments.output<T>(), rows.count,
                            rows.size);
            }};
  });
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
