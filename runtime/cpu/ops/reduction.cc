#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/axis.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

constexpr int64_t kReductionGrain = 16384;  // Minimum elements of a chunk.
constexpr int64_t kMostPartials = 16;       // Upper limit of partial results; each belongs to a chunk.

// Views x as axes that are alternately kept and reduced: neighbours of one kind are joined and axes
// of size 1 dropped. sizes[0] is kept, sizes[1] reduced, sizes[2] kept, and so on; sizes[0] may be
// 1.
struct ReductionView {
  explicit ReductionView(const KernelRequest& request) {
    const Integers& axes = request.attribute<Integers>("axes");
    const Shape& shape = request.operand(0).shape;
    sizes.push_back(1);
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis].size() == 1) continue;
      const bool reduced = std::find(axes.begin(), axes.end(), axis) != axes.end();
      const bool last_reduced = sizes.size() % 2 == 0;
      if (reduced == last_reduced) {
        sizes.back() *= shape[axis].size();
      } else {
        sizes.push_back(shape[axis].size());
      }
    }
  }

  absl::InlinedVector<int64_t, 6> sizes;
};

// An operation defines its start value, the combination of two values, and reductions of rows and
// columns.
template <typename T>
struct SumOf {
  static T Start() { return T(0); }
  static T Combine(T a, T b) { return formulas::Add()(a, b); }
  static T Row(const T* x, int64_t n) {
    if constexpr (std::is_floating_point_v<T>) {
      return RowSum(GetRowLoops<T>(), x, n);
    } else {
      T sum = 0;
      for (int64_t i = 0; i < n; ++i) sum = Combine(sum, x[i]);
      return sum;
    }
  }
  static void Columns(const T* x, T* y, int64_t n) {
    if constexpr (std::is_floating_point_v<T>) {
      GetRowLoops<T>().accumulate(x, y, n);
    } else {
      for (int64_t i = 0; i < n; ++i) y[i] = Combine(y[i], x[i]);
    }
  }
};

template <typename T>
bool IsNaN(T x) {
  if constexpr (std::is_floating_point_v<T>) return std::isnan(x);
  return false;
}

// Completes an operation that has no special loops.
template <typename T, typename Operation>
struct PlainReduction : Operation {
  static T Row(const T* x, int64_t n) {
    T result = Operation::Start();
    for (int64_t i = 0; i < n; ++i) result = Operation::Combine(result, x[i]);
    return result;
  }
  static void Columns(const T* x, T* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = Operation::Combine(y[i], x[i]);
  }
};
template <typename T>
struct ProdBase {
  static T Start() { return T(1); }
  static T Combine(T a, T b) { return formulas::Mul()(a, b); }
};
template <typename T>
struct MaxBase {
  static T Start() {
    return std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::min();
  }
  static T Combine(T a, T b) { return b > a || IsNaN(b) ? b : a; }
};
template <typename T>
struct MinBase {
  static T Start() {
    return std::is_floating_point_v<T> ? std::numeric_limits<T>::infinity() : std::numeric_limits<T>::max();
  }
  static T Combine(T a, T b) { return b < a || IsNaN(b) ? b : a; }
};

// A NaN stays once found: comparisons with it fail, so no later element replaces it. The start
// value is infinite, so any element replaces it.
template <typename T>
using ProdOf = PlainReduction<T, ProdBase<T>>;
template <typename T>
struct MaxOf : PlainReduction<T, MaxBase<T>> {
  // Softmax and row regions use the same loop, which gives the same bits for NaNs and for zeros of
  // both signs.
  static T Row(const T* x, int64_t n) {
    if constexpr (std::is_floating_point_v<T>) {
      if (n > 0) return GetRowLoops<T>().max(x, n);
    }
    return PlainReduction<T, MaxBase<T>>::Row(x, n);
  }
};
template <typename T>
using MinOf = PlainReduction<T, MinBase<T>>;

// The loops of an operation on elements of one dtype. Kernels depend on nothing else, so each pair
// of operation and dtype only adds these loops to the program.
struct ReductionLoops {
  size_t element_bytes = 0;
  // Reduces [outer, reduced, inner] to [outer, inner], for the slices [begin, end) of outer.
  void (*reduce_middle)(const std::byte* x, std::byte* y, int64_t reduced, int64_t inner, int64_t begin,
                        int64_t end) = nullptr;
  // Sets n elements to the operation's start value.
  void (*start)(std::byte* y, int64_t n) = nullptr;
};

template <typename T, typename Operation>
void ReduceMiddle(const std::byte* x_bytes, std::byte* y_bytes, int64_t reduced, int64_t inner, int64_t begin,
                  int64_t end) {
  const T* x = reinterpret_cast<const T*>(x_bytes);
  T* y = reinterpret_cast<T*>(y_bytes);
  for (int64_t i = begin; i < end; ++i) {
    const T* from = x + i * reduced * inner;
    if (inner == 1) {
      y[i] = Operation::Row(from, reduced);
      continue;
    }
    T* to = y + i * inner;
    std::fill(to, to + inner, Operation::Start());
    for (int64_t k = 0; k < reduced; ++k) Operation::Columns(from + k * inner, to, inner);
  }
}

template <typename T, typename Operation>
void FillWithStart(std::byte* y, int64_t n) {
  std::fill_n(reinterpret_cast<T*>(y), n, Operation::Start());
}

// The result if x has no elements, for any sizes of its other axes.
Kernel StartKernel(const KernelRequest& request, const ReductionLoops& loops) {
  const int64_t total = request.output().shape.num_elements().size();
  return {.name = "no_elements", .run = [=](const KernelArguments& arguments) {
            auto* y = arguments.output<std::byte>();
            ParallelForRange(*arguments.pool, total, kReductionGrain, [&](int64_t begin, int64_t end) {
              loops.start(y + begin * loops.element_bytes, end - begin);
            });
            return absl::OkStatus();
          }};
}

// Reduces axes 1, 3, ... of the view one after the other from the last. Each pass reduces [outer,
// reduced, inner] to [outer, inner], and results between passes are in scratch. The first pass
// reads all of x and is split into chunks over outer. If outer is small, it is split over the
// reduced axis, and partial results are combined in order.
Kernel ReductionKernel(const KernelRequest& request, const ReductionLoops& loops) {
  if (request.operand(0).shape.num_elements() == Dim(0)) return StartKernel(request, loops);
  const ReductionView view(request);
  struct Pass {
    int64_t outer, reduced, inner;
  };
  std::vector<Pass> passes;
  absl::InlinedVector<int64_t, 6> sizes = view.sizes;
  while (sizes.size() > 1) {
    const int last = static_cast<int>(sizes.size() / 2 * 2) - 1;  // The last reduced axis.
    Pass pass{1, sizes[last], 1};
    for (int i = 0; i < last; ++i) pass.outer *= sizes[i];
    for (size_t i = last + 1; i < sizes.size(); ++i) pass.inner *= sizes[i];
    passes.push_back(pass);
    sizes[last - 1] *= pass.inner;
    sizes.resize(last);
  }
  const bool empty = passes.empty();
  const int64_t total = request.operand(0).shape.num_elements().size();
  // Scratch holds two areas for results between passes, or the partial results of a single pass.
  int64_t largest = 0;
  for (size_t i = 0; i + 1 < passes.size(); ++i) largest = std::max(largest, passes[i].outer * passes[i].inner);
  const bool split = passes.size() == 1 && passes[0].outer == 1 && passes[0].reduced > 1 && total > 2 * kReductionGrain;
  Kernel kernel{.name = split ? "partial_results" : "passes"};
  const Chunks parts(split ? passes[0].reduced : 0, split ? std::max<int64_t>(1, kReductionGrain / passes[0].inner) : 1,
                     kMostPartials);
  const auto bytes = static_cast<int64_t>(loops.element_bytes);
  kernel.scratch_bytes = bytes * (split ? parts.number * passes[0].inner : 2 * largest);
  kernel.run = [=, passes = std::make_shared<const std::vector<Pass>>(passes)](const KernelArguments& arguments) {
    const auto* x = arguments.operand<std::byte>(0);
    auto* y = arguments.output<std::byte>();
    std::byte* scratch = reinterpret_cast<std::byte*>(arguments.scratch);
    if (empty) {
      std::memcpy(y, x, total * bytes);
      return absl::OkStatus();
    }
    if (split) {
      const int64_t inner = (*passes)[0].inner;
      arguments.pool->ParallelFor(parts.number, [&](int64_t part, int) {
        loops.reduce_middle(x + parts.begin(part) * inner * bytes, scratch + part * inner * bytes,
                            parts.end(part) - parts.begin(part), inner, 0, 1);
      });
      loops.reduce_middle(scratch, y, parts.number, inner, 0, 1);
      return absl::OkStatus();
    }
    for (size_t i = 0; i < passes->size(); ++i) {
      const Pass& pass = (*passes)[i];
      std::byte* to = i + 1 == passes->size() ? y : scratch + i % 2 * largest * bytes;
      const int64_t grain = std::max<int64_t>(1, kReductionGrain / std::max<int64_t>(pass.reduced * pass.inner, 1));
      ParallelForRange(*arguments.pool, pass.outer, grain, [&](int64_t begin, int64_t end) {
        loops.reduce_middle(x, to, pass.reduced, pass.inner, begin, end);
      });
      x = to;
    }
    return absl::OkStatus();
  };
  return kernel;
}

template <template <typename> class Operation>
absl::StatusOr<Kernel> MakeReduction(const KernelRequest& request) {
  return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, bool>) {
      return absl::UnimplementedError("no kernel for this dtype");
    } else {
      return ReductionKernel(request, {sizeof(T), ReduceMiddle<T, Operation<T>>, FillWithStart<T, Operation<T>>});
    }
  });
}

// The elements of x along the axes of one kind, in order.
struct AxesOfKind {
  AxesOfKind(const ReductionView& view, bool reduced) {
    int64_t stride = 1;
    for (int i = static_cast<int>(view.sizes.size()) - 1; i >= 0; --i) {
      if ((i % 2 == 1) == reduced) {
        sizes.push_back(view.sizes[i]);
        strides.push_back(stride);
        count *= view.sizes[i];
      }
      stride *= view.sizes[i];
    }
    if (sizes.empty()) sizes = strides = {1};
  }

  int64_t OffsetOf(int64_t index) const {
    int64_t offset = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      offset += index % sizes[i] * strides[i];
      index /= sizes[i];
    }
    return offset;
  }
  // Calls body(offset) for each element.
  template <typename Body>
  void ForEach(Body body) const {
    for (int64_t first = 0; first < count; first += sizes[0]) {
      const int64_t offset = OffsetOf(first);
      for (int64_t k = 0; k < sizes[0]; ++k) body(offset + k * strides[0]);
    }
  }

  absl::InlinedVector<int64_t, 3> sizes, strides;  // The last axis first.
  int64_t count = 1;
};

// max + log(sum(e^(x - max))) over the reduced elements of each kept element. If the maximum is
// infinite, it is the result, since only a finite number can be subtracted.
template <typename T>
Kernel LogSumExpKernel(const KernelRequest& request) {
  const ReductionView view(request);
  const AxesOfKind kept(view, false), reduced(view, true);
  const bool contiguous = view.sizes.size() == 2;
  return {.name = contiguous ? "rows" : "offsets", .run = [=](const KernelArguments& arguments) {
            const T* x = arguments.operand<T>(0);
            T* y = arguments.output<T>();
            const int64_t grain = std::max<int64_t>(1, kReductionGrain / 4 / std::max<int64_t>(reduced.count, 1));
            ParallelForRange(*arguments.pool, kept.count, grain, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const T* row = x + kept.OffsetOf(i);
                T largest = MaxBase<T>::Start();
                reduced.ForEach([&](int64_t offset) { largest = MaxBase<T>::Combine(largest, row[offset]); });
                if (!std::isfinite(largest)) {
                  y[i] = largest;
                  continue;
                }
                if (contiguous) {
                  y[i] = largest + LogSumOfShifted(GetRowLoops<T>(), row, largest, reduced.count);
                  continue;
                }
                T sum = 0, rest = 0;  // The rest is without the largest element.
                reduced.ForEach([&](int64_t offset) {
                  const T shifted = row[offset] - largest, term = std::exp(shifted);
                  sum += term;
                  if (shifted < 0) rest += term;
                });
                y[i] = largest + (sum < T(formulas::kDominatedSum) ? std::log1p(rest) : std::log(sum));
              }
            });
            return absl::OkStatus();
          }};
}

// Writes the position of the largest or smallest of the n elements of row i, for the rows [begin,
// end). Neighbours of a row are `inner` elements apart.
using ArgLoop = void (*)(const std::byte* x, std::byte* y, int64_t n, int64_t inner, int64_t begin, int64_t end);

template <bool largest, typename T, typename Index>
void RunArg(const std::byte* x_bytes, std::byte* y_bytes, int64_t n, int64_t inner, int64_t begin, int64_t end) {
  const T* x = reinterpret_cast<const T*>(x_bytes);
  Index* y = reinterpret_cast<Index*>(y_bytes);
  for (int64_t i = begin; i < end; ++i) {
    const T* row = x + i / inner * n * inner + i % inner;
    int64_t best = 0;
    for (int64_t k = 1; k < n && !IsNaN(row[best * inner]); ++k) {
      const T value = row[k * inner], leader = row[best * inner];
      if ((largest ? value > leader : value < leader) || IsNaN(value)) best = k;
    }
    y[i] = static_cast<Index>(best);
  }
}

template <bool largest>
absl::StatusOr<Kernel> MakeArg(const KernelRequest& request) {
  const AxisSizes axis(request.operand(0).shape, request.attribute<int64_t>("axis"));
  const int64_t rows = axis.outer * axis.inner, n = axis.size, inner = axis.inner;
  const bool is_short = request.output().dtype == kInt32;
  const ArgLoop loop = VisitDType(request.operand(0).dtype, [&](auto zero) -> ArgLoop {
    using T = decltype(zero);
    return is_short ? RunArg<largest, T, int32_t> : RunArg<largest, T, int64_t>;
  });
  return Kernel{.name = "scalar", .run = [=](const KernelArguments& arguments) {
                  const auto* x = arguments.operand<std::byte>(0);
                  auto* y = arguments.output<std::byte>();
                  ParallelForRange(*arguments.pool, rows, std::max<int64_t>(1, kReductionGrain / n),
                                   [&](int64_t begin, int64_t end) { loop(x, y, n, inner, begin, end); });
                  return absl::OkStatus();
                }};
}

// Makes a kernel for recurrences along the last axis, which treats each row separately.
template <typename T, typename Row>
Kernel RowKernel(const KernelRequest& request, Row row) {
  const Shape& shape = request.output().shape;
  const int64_t n = shape[shape.rank() - 1].size(), rows = n == 0 ? 0 : shape.num_elements().size() / n;
  return {.name = "rows", .run = [=](const KernelArguments& arguments) {
            ParallelForRange(*arguments.pool, rows, std::max<int64_t>(1, kReductionGrain / std::max<int64_t>(n, 1)),
                             [&](int64_t begin, int64_t end) {
                               for (int64_t i = begin; i < end; ++i) row(arguments, i * n, n);
                             });
            return absl::OkStatus();
          }};
}

template <typename T>
Kernel ExclusiveProdKernel(const KernelRequest& request) {
  return RowKernel<T>(request, [](const KernelArguments& arguments, int64_t start, int64_t n) {
    const T* x = arguments.operand<T>(0) + start;
    T* y = arguments.output<T>() + start;
    T product = 1;
    for (int64_t i = 0; i < n; ++i) {
      y[i] = product;
      product *= x[i];
    }
  });
}

template <typename T>
Kernel SuffixSumKernel(const KernelRequest& request) {
  return RowKernel<T>(request, [](const KernelArguments& arguments, int64_t start, int64_t n) {
    const T* a = arguments.operand<T>(0) + start;
    const T* x = arguments.operand<T>(1) + start;
    T* s = arguments.output<T>() + start;
    T sum = 0;
    for (int64_t j = n - 1; j >= 0; --j) {
      s[j] = sum;
      sum = a[j] + x[j] * sum;
    }
  });
}

}  // namespace

void RegisterReductionKernels(KernelRegistry& registry) {
  registry.Add("Sum", MakeReduction<SumOf>);
  registry.Add("Prod", MakeReduction<ProdOf>);
  registry.Add("Max", MakeReduction<MaxOf>);
  registry.Add("Min", MakeReduction<MinOf>);
  registry.Add("ArgMax", MakeArg<true>);
  registry.Add("ArgMin", MakeArg<false>);
  registry.Add("LogSumExp", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? LogSumExpKernel<float>(request) : LogSumExpKernel<double>(request);
  });
  registry.Add("ExclusiveProd", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? ExclusiveProdKernel<float>(request)
                                              : ExclusiveProdKernel<double>(request);
  });
  registry.Add("SuffixSum", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? SuffixSumKernel<float>(request) : SuffixSumKernel<double>(request);
  });
}

}  // namespace gradweave
