#include <cmath>

#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/axis.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/label_check.h"

namespace gradweave {
namespace {

constexpr int64_t kSoftmaxGrain = 8192;  // In elements.

int64_t RowsPerGrain(int64_t row) { return std::max<int64_t>(1, kSoftmaxGrain / std::max<int64_t>(row, 1)); }

// The largest element is subtracted from x before the logarithm, because large logits would absorb
// it.
template <typename T>
void LogSoftmaxRow(const RowLoops<T>& loops, const T* x, T* y, int64_t n) {
  const T largest = loops.max(x, n), log_sum = LogSumOfShifted(loops, x, largest, n);
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - largest) - log_sum;
}

// Computes softmax along an axis other than the last. Rows are gathered into scratch, with one area
// for each chunk.
template <typename T>
Kernel AlongAxis(const KernelRequest& request, void (*row)(const RowLoops<T>&, const T*, T*, int64_t)) {
  const AxisSizes axis(request.operand(0).shape, request.attribute<int64_t>("axis"));
  const int64_t outer = axis.outer, n = axis.size, inner = axis.inner;
  const Chunks chunks(n == 0 ? 0 : outer * inner, RowsPerGrain(n));
  Kernel kernel{.name = inner == 1 ? "rows" : "gathered_rows"};
  kernel.overwrites.push_back({0, 0});
  if (inner > 1) kernel.scratch_bytes = chunks.number * n * sizeof(T);
  kernel.run = [=](const KernelArguments& arguments) {
    const RowLoops<T>& loops = GetRowLoops<T>();
    const T* x = arguments.operand<T>(0);
    T* y = arguments.output<T>();
    arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int) {
      T* buffer = reinterpret_cast<T*>(arguments.scratch) + chunk * n;
      for (int64_t i = chunks.begin(chunk); i < chunks.end(chunk); ++i) {
        if (inner == 1) {
          row(loops, x + i * n, y + i * n, n);
          continue;
        }
        const int64_t start = i / inner * n * inner + i % inner;
        for (int64_t k = 0; k < n; ++k) buffer[k] = x[start + k * inner];
        row(loops, buffer, buffer, n);
        for (int64_t k = 0; k < n; ++k) y[start + k * inner] = buffer[k];
      }
    });
    return absl::OkStatus();
  };
  return kernel;
}

// Calls make(T(), Label()) for the dtypes of logits and labels.
template <typename Make>
absl::StatusOr<Kernel> ForLogitsAndLabels(const KernelRequest& request, Make make) {
  auto with_label = [&](auto label) -> Kernel {
    return request.operand(0).dtype == kFloat32 ? make(float{}, label) : make(double{}, label);
  };
  return WithLabelType(request.operand(1).dtype, with_label);
}

absl::StatusOr<Kernel> MakeCrossEntropy(const KernelRequest& request) {
  const Shape& logits = request.operand(0).shape;
  const int64_t classes = logits[logits.rank() - 1].size(), count = request.operand(1).shape.num_elements().size();
  return ForLogitsAndLabels(request, [&](auto zero, auto label_zero) -> Kernel {
    using T = decltype(zero);
    using Label = decltype(label_zero);
    return {.name = "rows",
            .run =
                [=](const KernelArguments& arguments) {
                  const Label* labels = arguments.operand<Label>(1);
                  if (absl::Status status = CheckLabels(labels, count, classes); !status.ok()) return status;
                  const RowLoops<T>& loops = GetRowLoops<T>();
                  const T* x = arguments.operand<T>(0);
                  T* y = arguments.output<T>();
                  ParallelForRange(*arguments.pool, count, RowsPerGrain(classes), [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                      const T* row = x + i * classes;
                      const T largest = loops.max(row, classes);
                      y[i] = LogSumOfShifted(loops, row, largest, classes) - (row[labels[i]] - largest);
                    }
                  });
                  return absl::OkStatus();
                },
            .fallible = true};
  });
}

absl::StatusOr<Kernel> MakeCrossEntropyGrad(const KernelRequest& request) {
  const Shape& logits = request.operand(0).shape;
  const int64_t classes = logits[logits.rank() - 1].size(), count = request.operand(1).shape.num_elements().size();
  return ForLogitsAndLabels(request, [&](auto zero, auto label_zero) -> Kernel {
    using T = decltype(zero);
    using Label = decltype(label_zero);
    return {.name = "rows",
            .run =
                [=](const KernelArguments& arguments) {
                  const Label* labels = arguments.operand<Label>(1);
                  if (absl::Status status = CheckLabels(labels, count, classes); !status.ok()) return status;
                  const RowLoops<T>& loops = GetRowLoops<T>();
                  const T* x = arguments.operand<T>(0);
                  const T* dy = arguments.operand<T>(2);
                  T* dx = arguments.output<T>();
                  ParallelForRange(*arguments.pool, count, RowsPerGrain(classes), [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                      T* row = dx + i * classes;
                      SoftmaxRow(loops, x + i * classes, row, classes);
                      row[labels[i]] -= 1;
                      loops.scale(row, dy[i], row, classes);
                    }
                  });
                  return absl::OkStatus();
                },
            .fallible = true,
            .overwrites = {{0, 0}}};
  });
}

}  // namespace

void RegisterSoftmaxKernels(KernelRegistry& registry) {
  registry.Add("Softmax", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? AlongAxis<float>(request, SoftmaxRow<float>)
                                              : AlongAxis<double>(request, SoftmaxRow<double>);
  });
  registry.Add("LogSoftmax", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? AlongAxis<float>(request, LogSoftmaxRow<float>)
                                              : AlongAxis<double>(request, LogSoftmaxRow<double>);
  });
  registry.Add("SparseSoftmaxCrossEntropy", MakeCrossEntropy);
  registry.Add("SparseSoftmaxCrossEntropyGrad", MakeCrossEntropyGrad);
}

}  // namespace gradweave
