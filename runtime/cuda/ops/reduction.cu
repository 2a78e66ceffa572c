// Reductions as passes of reduction.h, and recurrences along the last axis.
#include <memory>
#include <type_traits>
#include <vector>

#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/cuda/ops/reduction.h"
#include "gradweave/runtime/kernel/formulas.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

using formulas::IsNaN;

// ArgMax or ArgMin: the best element and its first place. NaN counts as the best.
template <typename T, bool largest, typename Index>
struct ArgOf {
  using Element = T;
  using Result = Index;
  struct State {
    T value;
    int32_t place;  // -1 if there is none yet.
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

template <typename Operation>
Kernel PassesKernel(const char* name, std::vector<ReductionPass> passes) {
  auto all = std::make_shared<const ReductionPassesOf<Operation>>(std::move(passes));
  return {.name = name,
          .run =
              [all](const KernelArguments& arguments) {
                return all->Run(arguments.device<CudaContext>(), arguments.operand<typename Operation::Element>(0),
                                arguments.outputs[0], arguments.scratch);
              },
          .scratch_bytes = all->scratch_bytes()};
}

template <typename Operation>
Kernel ReductionKernel(const KernelRequest& request) {
  std::vector<ReductionPass> passes = ReductionPasses(request.operand(0).shape, request.attribute<Integers>("axes"));
  if (passes.empty()) {
    Kernel kernel = CopyKernel(request.output().byte_size());
    kernel.overwrites.clear();
    return kernel;
  }
  const char* name = passes.size() == 1 ? "one_pass" : "passes";
  return PassesKernel<Operation>(name, std::move(passes));
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
    const ReductionPass pass = MakeReductionPass(axis.outer, axis.size, axis.inner);
    return VisitDType(request.operand(0).dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      auto with_index = [&](auto index_zero) -> Kernel {
        return PassesKernel<ArgOf<T, largest, decltype(index_zero)>>("one_pass", {pass});
      };
      if constexpr (std::is_same_v<T, bool>) {
        return absl::UnimplementedError("no kernel for this dtype");
      } else {
        return request.output().dtype == kInt32 ? with_index(int32_t{}) : with_index(int64_t{});
      }
    });
  });
}

// ---- Recurrences along the last axis, one warp per row ----

// The number of threads may exceed 32 bits, so GlobalThread() does not serve here.
__device__ uint32_t GlobalWarp() { return blockIdx.x * (kBlock / kWarp) + threadIdx.x / kWarp; }

// The effect of a run of elements on the incoming number: y = scale*x + shift.
template <typename T>
struct Affine {
  T scale, shift;
};

// y[i] = x[0]*...*x[i-1]. A warp scans 32 elements at a time.
template <typename T>
__global__ void __launch_bounds__(kBlock) ExclusiveProducts(const T* x, T* y, uint32_t rows, uint32_t n) {
  const uint32_t row = GlobalWarp();
  const int lane = threadIdx.x % kWarp;
  if (row >= rows) return;
  const size_t begin = static_cast<size_t>(row) * n;
  T before = 1;
  for (uint32_t start = 0; start < n; start += kWarp) {
    const bool inside = start + lane < n;
    const T own = inside ? x[begin + start + lane] : T(1);
    T product = own;  // Product of this chunk up to and including this lane.
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const T other = __shfl_up_sync(kAllLanes, product, distance);
      if (lane >= distance) product = other * product;
    }
    const T previous = __shfl_up_sync(kAllLanes, product, 1);
    if (inside) y[begin + start + lane] = before * (lane == 0 ? T(1) : previous);
    before = before * __shfl_sync(kAllLanes, product, kWarp - 1);
  }
}

// s[n-1] = 0 and s[j] = a[j+1] + x[j+1]*s[j+1], computed from the end.
template <typename T>
__global__ void __launch_bounds__(kBlock) SuffixSums(const T* a, const T* x, T* s, uint32_t rows, uint32_t n) {
  const uint32_t row = GlobalWarp();
  const int lane = threadIdx.x % kWarp;
  if (row >= rows) return;
  const size_t begin = static_cast<size_t>(row) * n;
  T after = 0;
  // Step k computes element n - 1 - k.
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
              return Launch(arguments.device<CudaContext>(), "exclusive_products", ExclusiveProducts<T>, rows.grid(),
                            {kBlock}, 0, arguments.operand<T>(0), arguments.output<T>(), rows.count, rows.size);
            }};
  });
  AddFloating(registry, "SuffixSum", [](const KernelRequest& request, auto zero) -> Kernel {
    using T = decltype(zero);
    const Rows rows(request);
    return {.name = "warp_scan", .run = [rows](const KernelArguments& arguments) {
              return Launch(arguments.device<CudaContext>(), "suffix_sums", SuffixSums<T>, rows.grid(), {kBlock}, 0,
                            arguments.operand<T>(0), arguments.operand<T>(1), arguments.output<T>(), rows.count,
                            rows.size);
            }};
  });
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
