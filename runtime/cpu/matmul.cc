#include <algorithm>
#include <memory>

#include "gradweave/runtime/broadcast.h"
#include "gradweave/runtime/cpu/gemm.h"
#include "gradweave/runtime/kernel.h"

namespace gradweave {
namespace {

constexpr double kChunkFlops = 500'000;  // Worth the wake-up of a thread many times over.
constexpr double kColumnFlops = 40'000;  // Of a few rows: a thread that is awake starts in a tenth of that time.
constexpr int64_t kRowGrain = 16;        // Rows of a product that belong together in OpenBLAS' kernels.

struct Product {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  int64_t lda, ldb;
};

// Products of many pairs of matrices, each split by rows where it is large; a single one of few rows by columns. Which
// elements belong together depends on sizes alone.
template <typename T>
Kernel MatMulKernel(const KernelRequest& request) {
  const Shape& a = request.operand(0).shape;
  const Shape& b = request.operand(1).shape;
  const Shape& y = request.output().shape;
  Product product{request.attribute<bool>("transpose_a"),
                  request.attribute<bool>("transpose_b"),
                  y[y.rank() - 2].size(),
                  y[y.rank() - 1].size(),
                  0,
                  0,
                  0};
  product.lda = a[a.rank() - 1].size();
  product.ldb = b[b.rank() - 1].size();
  product.k = product.transpose_a ? a[a.rank() - 2].size() : product.lda;

  // The leading axes broadcast like the elements of an elementwise op.
  auto leading = [](const Shape& shape) { return Shape(absl::Span<const Dim>(shape.dims().data(), shape.rank() - 2)); };
  const TensorType operands[] = {{request.output().dtype, leading(a)}, {request.output().dtype, leading(b)}};
  auto walk = std::make_shared<const BroadcastWalk>(leading(y), operands);

  const double flops = 2.0 * product.m * product.n * product.k;
  const double per_row = std::max(1.0, flops / std::max<int64_t>(product.m, 1));
  const int64_t grain =
      std::max<int64_t>(kRowGrain, static_cast<int64_t>(kChunkFlops / per_row) / kRowGrain * kRowGrain);
  const Chunks rows(product.m, grain, 16);
  const int64_t parts = rows.number > 1 || walk->total != 1 ? 1 : static_cast<int64_t>(flops / kColumnFlops);
  const Chunks columns(product.n, parts <= 1 ? std::max<int64_t>(product.n, 1) : (product.n / parts + 8) / 8 * 8, 16);
  // Small products are taken several at a time.
  const Chunks matrices(
      walk->total,
      rows.number > 1 ? 1 : std::max<int64_t>(1, static_cast<int64_t>(kChunkFlops / std::max(1.0, flops))));
  return {.name = "gemm", .run = [=](const KernelArguments& arguments) {
            const int64_t size_a = product.m * product.k, size_b = product.k * product.n,
                          size_y = product.m * product.n;
            if (size_y == 0 || walk->total == 0) return absl::OkStatus();
            if (product.k == 0) {
              std::fill(arguments.output<T>(), arguments.output<T>() + walk->total * size_y, T(0));
              return absl::OkStatus();
            }
            arguments.pool->ParallelFor(matrices.number * rows.number * columns.number, [&](int64_t part, int) {
              const int64_t chunk = part / rows.number / columns.number;
              const int64_t begin = rows.begin(part % rows.number), end = rows.end(part % rows.number);
              const int64_t column = columns.begin(part % columns.number);
              const int64_t width = columns.end(part % columns.number) - column;
              walk->ForRuns(
                  matrices.begin(chunk), matrices.end(chunk), [&](const auto& offsets, int64_t first, int64_t count) {
                    for (int64_t i = 0; i < count; ++i) {
                      const T* from_a = arguments.operand<T>(0) + (offsets[0] + i * walk->is_vector(0)) * size_a;
                      const T* from_b = arguments.operand<T>(1) + (offsets[1] + i * walk->is_vector(1)) * size_b;
                      Gemm(product.transpose_a, product.transpose_b, end - begin, width, product.k, T(1),
                           from_a + (product.transpose_a ? begin : begin * product.k), product.lda,
                           from_b + (product.transpose_b ? column * product.k : column), product.ldb, T(0),
                           arguments.output<T>() + (first + i) * size_y + begin * product.n + column, product.n);
                    }
                  });
            });
            return absl::OkStatus();
          }};
}

}  // namespace

void RegisterMatMulKernels(KernelRegistry& registry) {
  registry.Add("MatMul", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? MatMulKernel<float>(request) : MatMulKernel<double>(request);
  });
}

}  // namespace gradweave
