// Softmax and its cross-entropy, each as one kernel. A warp takes a short row, a block a long one.
// Along an axis other than the last, each thread takes a row, since neighbouring rows are adjacent
// in memory.
#include "gradweave/runtime/cuda/ops/device.h"

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/cuda/ops/reduction_pass.h"
#include "gradweave/runtime/kernel/formulas.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

// Decides as reductions of such rows do, for equal bits: a row kernel computes softmax from a
// maximum and a sum of its row.
bool IsShortRow(uint32_t n) { return FormOf({1, n, 1, 1}) == PassForm::kShortRows; }

// Reductions over the threads of a row, which are one warp or one block.
template <typename T, int threads>
struct RowThreads {
  // Two halves of an element for each warp of the block; unused by rows of one warp. Consecutive
  // reductions take different halves: when one begins, threads may still read the half of the last.
  SharedPointer<T> shared;

  __device__ static uint32_t lane() { return threadIdx.x % threads; }
  __device__ static uint32_t row() { return blockIdx.x * (kBlock / threads) + threadIdx.x / threads; }

  __device__ T Sum(T value, int half) const {
    const auto add = [](T a, T b) { return a + b; };
    if constexpr (threads == kWarp) {
      return CombineWarp(value, add);
    } else {
      return CombineBlock(value, shared + half * (kBlock / kWarp), add);
    }
  }
  __device__ T Max(T value, int half) const {
    const auto larger = [](T a, T b) { return formulas::Maximum()(a, b); };
    if constexpr (threads == kWarp) {
      return CombineWarp(value, larger);
    } else {
      return CombineBlock(value, shared + half * (kBlock / kWarp), larger);
    }
  }
};

// The largest element of a row, the sum of e^(x - largest), and the rest of this sum without the
// largest element, which only logarithms need.
template <typename T>
struct RowSums {
  T largest, sum = 0, rest = 0;

  __device__ void Add(T x, bool logarithm) {
    const T shifted = x - largest, term = formulas::ExpOf(shifted);
    sum += term;
    if (logarithm && shifted < 0) rest += term;
  }
  // log(sum), with a small relative error.
  __device__ T LogSum() const {
    return sum < T(formulas::kDominatedSum) ? formulas::Log1pOf(rest) : formulas::LogOf(sum);
  }
};
template <bool logarithm, typename T, int threads>
__device__ RowSums<T> SumsOfRow(const RowThreads<T, threads>& group, const T* x, uint32_t n) {
  T largest = x[0];
  for (uint32_t i = group.lane(); i < n; i += threads) largest = formulas::Maximum()(largest, x[i]);
  RowSums<T> sums{group.Max(largest, 0)};
  for (uint32_t i = group.lane(); i < n; i += threads) sums.Add(x[i], logarithm);
  sums.sum = group.Sum(sums.sum, 1);
  if (logarithm) sums.rest = group.Sum(sums.rest, 0);
  return sums;
}

// The classes below map an element once its row's sums are known.
template <typename T>
struct SoftmaxOf {
  static constexpr bool kLogarithm = false;
  RowSums<T> sums;
  T scale;  // The common factor of the row.
  __device__ explicit SoftmaxOf(RowSums<T> of) : sums(of), scale(1 / of.sum) {}
  __device__ T operator()(T x) const { return formulas::ExpOf(x - sums.largest) * scale; }
};
// Subtracts the largest element before the logarithm, because large logits would absorb the
// logarithm.
template <typename T>
struct LogSoftmaxOf {
  static constexpr bool kLogarithm = true;
  RowSums<T> sums;
  T log_sum;
  __device__ explicit LogSoftmaxOf(RowSums<T> of) : sums(of), log_sum(of.LogSum()) {}
  __device__ T operator()(T x) const { return (x - sums.largest) - log_sum; }
};

// y may alias x: the whole row is read before any of it is written, and then each thread reads only
// what it writes.
template <typename T, template <typename> class Function, int threads>
__global__ void __launch_bounds__(kBlock) MapRows(const T* x, T* y, uint32_t rows, uint32_t n) {
  GRADWEAVE_SHARED(T, shared, [2 * kBlock / kWarp]);
  const RowThreads<T, threads> group{shared};
  // All threads of a row leave together: a row is a warp or the whole block.
  const uint32_t row = group.row();
  if (row >= rows) return;
  x += static_cast<size_t>(row) * n;
  y += static_cast<size_t>(row) * n;
  const Function<T> function(SumsOfRow<Function<T>::kLogarithm>(group, x, n));
  for (uint32_t i = group.lane(); i < n; i += threads) y[i] = function(x[i]);
}

template <typename T, template <typename> class Function>
__global__ void __launch_bounds__(kBlock) MapColumns(const T* x, T* y, uint32_t rows, uint32_t n, Divider inner) {
  for (uint32_t row = GlobalThread(); row < rows; row += GlobalThreads()) {
    uint32_t column = row;
    const uint32_t outer = inner.Split(column);
    const size_t start = static_cast<size_t>(outer) * n * inner.divisor + column;
    T largest = x[start];
    for (uint32_t k = 1; k < n; ++k) {
      largest = formulas::Maximum()(largest, x[start + static_cast<size_t>(k) * inner.divisor]);
    }
    RowSums<T> sums{largest};
    for (uint32_t k = 0; k < n; ++k) {
      sums.Add(x[start + static_cast<size_t>(k) * inner.divisor], Function<T>::kLogarithm);
    }
    const Function<T> function(sums);
    for (uint32_t k = 0; k < n; ++k) {
      const size_t at = start + static_cast<size_t>(k) * inner.divisor;
      y[at] = function(x[at]);
    }
  }
}

unsigned BlocksForRows(uint32_t rows, uint32_t n) {
  return IsShortRow(n) ? (rows + kBlock / kWarp - 1) / (kBlock / kWarp) : rows;
}

template <typename T, template <typename> class Function>
Kernel AlongAxis(const KernelRequest& request) {
  const AxisSizes axis(request.operand(0).shape, request.attribute<int64_t>("axis"));
  const uint32_t n = static_cast<uint32_t>(axis.size);
  const uint32_t rows = n == 0 ? 0 : static_cast<uint32_t>(axis.outer * axis.inner);
  const bool last = axis.inner == 1;
  return {.name = last ? "rows" : "columns",
          .run =
              [=](const KernelArguments& arguments) {
                const CudaContext& context = arguments.device<CudaContext>();
                const T* x = arguments.operand<T>(0);
                T* y = arguments.output<T>();
                if (!last) {
                  return Launch(context, "map_columns", MapColumns<T, Function>, {BlocksFor(rows)}, {kBlock}, 0, x, y,
                                rows, n, Divider(std::max<int64_t>(axis.inner, 1)));
                }
                auto kernel = IsShortRow(n) ? MapRows<T, Function, kWarp> : MapRows<T, Function, kBlock>;
                return Launch(context, "map_rows", kernel, {BlocksForRows(rows, n)}, {kBlock}, 0, x, y, rows, n);
              },
          .overwrites = {{0, 0}}};
}

template <typename Label>
__device__ bool IsClass(Label label, uint32_t classes) {
  return label >= 0 && static_cast<int64_t>(label) < static_cast<int64_t>(classes);
}

// y [rows] = -log(softmax(x)[label]) for x [rows, classes].
template <typename T, typename Label, int threads>
__global__ void __launch_bounds__(kBlock) CrossEntropyRows(const T* x, const Label* labels, T* y, uint32_t rows,
                                                           uint32_t classes, int32_t* error, int32_t code) {
  GRADWEAVE_SHARED(T, shared, [2 * kBlock / kWarp]);
  const RowThreads<T, threads> group{shared};
  const uint32_t row = group.row();
  if (row >= rows) return;
  const Label label = labels[row];
  if (!IsClass(label, classes)) {
    ReportError(error, code);
    return;
  }
  x += static_cast<size_t>(row) * classes;
  const RowSums<T> sums = SumsOfRow<true>(group, x, classes);
  if (group.lane() == 0) y[row] = sums.LogSum() - (x[label] - sums.largest);
}

// dx = dy * (softmax(x) - onehot(label)). dx may alias x.
template <typename T, typename Label, int threads>
__global__ void __launch_bounds__(kBlock)
    CrossEntropyGradRows(const T* x, const Label* labels, const T* dy, T* dx, uint32_t rows, uint32_t classes,
                         int32_t* error, int32_t code) {
  GRADWEAVE_SHARED(T, shared, [2 * kBlock / kWarp]);
  const RowThreads<T, threads> group{shared};
  const uint32_t row = group.row();
  if (row >= rows) return;
  const Label label = labels[row];
  if (!IsClass(label, classes)) {
    ReportError(error, code);
    return;
  }
  x += static_cast<size_t>(row) * classes;
  dx += static_cast<size_t>(row) * classes;
  const SoftmaxOf<T> softmax(SumsOfRow<false>(group, x, classes));
  const T factor = dy[row];
  for (uint32_t i = group.lane(); i < classes; i += threads) {
    const T p = softmax(x[i]);
    dx[i] = (static_cast<int64_t>(i) == static_cast<int64_t>(label) ? p - 1 : p) * factor;
  }
}

// Makes a kernel over rows of logits [rows, classes], each with a label; there may be no rows.
// run_rows(T(), Label(), arguments, rows, classes, error code) enqueues it.
template <typename RunRows>
absl::StatusOr<Kernel> MakeRowsWithLabels(const KernelRequest& request, RunRows run_rows) {
  const Shape& logits = request.operand(0).shape;
  const uint32_t classes = static_cast<uint32_t>(logits[logits.rank() - 1].size());
  const uint32_t rows = static_cast<uint32_t>(NumElements(request.operand(1)));
  const int32_t code = ErrorCode(request);
  auto make = [&](auto zero, auto label) -> Kernel {
    return {
        .name = "rows",
        .run = [=](const KernelArguments& arguments) { return run_rows(zero, label, arguments, rows, classes, code); },
        .fallible = true};
  };
  return VisitIndices(request.operand(1).dtype, [&](auto label) -> Kernel {
    return request.operand(0).dtype == kFloat32 ? make(float{}, label) : make(double{}, label);
  });
}

absl::StatusOr<Kernel> MakeCrossEntropy(const KernelRequest& request) {
  return MakeRowsWithLabels(request, [](auto zero, auto label, const KernelArguments& arguments, uint32_t rows,
                                        uint32_t classes, int32_t code) {
    using T = decltype(zero);
    using Label = decltype(label);
    auto kernel = IsShortRow(classes) ? CrossEntropyRows<T, Label, kWarp> : CrossEntropyRows<T, Label, kBlock>;
    return Launch(arguments.device<CudaContext>(), "cross_entropy_rows", kernel, {BlocksForRows(rows, classes)},
                  {kBlock}, 0, arguments.operand<T>(0), arguments.operand<Label>(1), arguments.output<T>(), rows,
                  classes, arguments.device<CudaContext>().error, code);
  });
}

absl::StatusOr<Kernel> MakeCrossEntropyGrad(const KernelRequest& request) {
  GW_ASSIGN_OR_RETURN(
      Kernel kernel, MakeRowsWithLabels(request, [](auto zero, auto label, const KernelArguments& arguments,
                                                    uint32_t rows, uint32_t classes, int32_t code) {
        using T = decltype(zero);
        using Label = decltype(label);
        auto kernel =
            IsShortRow(classes) ? CrossEntropyGradRows<T, Label, kWarp> : CrossEntropyGradRows<T, Label, kBlock>;
        return Launch(arguments.device<CudaContext>(), "cross_entropy_grad_rows", kernel,
                      {BlocksForRows(rows, classes)}, {kBlock}, 0, arguments.operand<T>(0), arguments.operand<Label>(1),
                      arguments.operand<T>(2), arguments.output<T>(), rows, classes,
                      arguments.device<CudaContext>().error, code);
      }));
  kernel.overwrites = {{0, 0}};
  return kernel;
}

}  // namespace

void RegisterSoftmaxKernels(KernelRegistry& registry) {
  AddFloating(registry, "Softmax",
              [](const KernelRequest& request, auto zero) { return AlongAxis<decltype(zero), SoftmaxOf>(request); });
  AddFloating(registry, "LogSoftmax",
              [](const KernelRequest& request, auto zero) { return AlongAxis<decltype(zero), LogSoftmaxOf>(request); });
  Add(registry, "SparseSoftmaxCrossEntropy", MakeCrossEntropy);
  Add(registry, "SparseSoftmaxCrossEntropyGrad", MakeCrossEntropyGrad);
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
