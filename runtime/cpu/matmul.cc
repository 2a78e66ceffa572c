#include <algorithm>
#include <memory>
#include <new>
#include <type_traits>

#include "gradweave/runtime/broadcast.h"
#include "gradweave/runtime/cpu/gemm.h"
#include "gradweave/runtime/cpu/product/product.h"
#include "gradweave/runtime/kernel.h"

namespace gradweave {
namespace {

constexpr double kChunkFlops = 500'000;  // Worth the wake-up of a thread many times over.
constexpr double kColumnFlops = 40'000;  // Of a few rows: a thread that is awake starts in a tenth of that time.
constexpr int64_t kPartsOfThread = 2;    // Of one product: threads that are held up leave them to others.

// Products of many pairs of matrices, small ones several at a time, large ones in parts. No element depends on that.
template <typename T>
Kernel MatMulKernel(const KernelRequest& request) {
  const Shape& a = request.operand(0).shape;
  const Shape& b = request.operand(1).shape;
  const Shape& y = request.output().shape;
  const bool transpose_a = request.attribute<bool>("transpose_a"), transpose_b = request.attribute<bool>("transpose_b");
  const int64_t m = y[y.rank() - 2].size(), n = y[y.rank() - 1].size();
  const int64_t lda = a[a.rank() - 1].size(), ldb = b[b.rank() - 1].size();
  const int64_t k = transpose_a ? a[a.rank() - 2].size() : lda;

  // The leading axes broadcast like the elements of an elementwise op.
  auto leading = [](const Shape& shape) { return Shape(absl::Span<const Dim>(shape.dims().data(), shape.rank() - 2)); };
  const TensorType operands[] = {{request.output().dtype, leading(a)}, {request.output().dtype, leading(b)}};
  auto walk = std::make_shared<const BroadcastWalk>(leading(y), operands);

  const double flops = std::max(1.0, 2.0 * m * n * k);
  const bool single = walk->total == 1;
  const int64_t wanted = std::clamp<int64_t>(static_cast<int64_t>(flops / (single ? kColumnFlops : kChunkFlops)), 1,
                                             kPartsOfThread * request.threads);
  std::shared_ptr<const Product> product;
  Product::Parts parts{Chunks(m, std::max<int64_t>(m, 1)), Chunks(n, (n / wanted + 15) / 16 * 16 + 16, wanted)};
  size_t workspace_bytes = 0;
  if constexpr (std::is_same_v<T, float>) {
    if (Product::Pays(m, n, k)) {
      const MatrixLayout by_rows_a{lda, 1}, by_columns_a{1, lda}, by_rows_b{ldb, 1}, by_columns_b{1, ldb};
      product = std::make_shared<const Product>(m, n, k, transpose_a ? by_columns_a : by_rows_a,
                                                transpose_b ? by_columns_b : by_rows_b);
      parts = product->Split(wanted, request.threads);
      workspace_bytes = product->workspace_bytes(parts);
    }
  }
  // Small products are taken several at a time.
  const Chunks matrices(walk->total,
                        parts.number() > 1 ? 1 : std::max<int64_t>(1, static_cast<int64_t>(kChunkFlops / flops)));
  return {
      .name = product == nullptr ? "gemm" : "product",
      .run =
          [=](const KernelArguments& arguments) {
            const int64_t size_a = m * k, size_b = k * n, size_y = m * n;
            if (size_y == 0 || walk->total == 0) return absl::OkStatus();
            if (k == 0) {
              std::fill(arguments.output<T>(), arguments.output<T>() + walk->total * size_y, T(0));
              return absl::OkStatus();
            }
            const auto workspace = [&](int thread) {
              return reinterpret_cast<Product::Workspace*>(arguments.scratch + thread * workspace_bytes);
            };
            for (int thread = 0; product != nullptr && thread < arguments.pool->num_threads(); ++thread)
              new (workspace(thread)) Product::Workspace();
            arguments.pool->ParallelFor(matrices.number * parts.number(), [&](int64_t task, int thread) {
              const int64_t chunk = task / parts.number();
              const int64_t row_part = task % parts.rows.number,
                            column_part = task / parts.rows.number % parts.columns.number;
              const int64_t row = parts.rows.begin(row_part), rows = parts.rows.end(row_part) - row;
              const int64_t column = parts.columns.begin(column_part),
                            columns = parts.columns.end(column_part) - column;
              walk->ForRuns(
                  matrices.begin(chunk), matrices.end(chunk), [&](const auto& offsets, int64_t first, int64_t count) {
                    for (int64_t i = 0; i < count; ++i) {
                      const T* from_a = arguments.operand<T>(0) + (offsets[0] + i * walk->is_vector(0)) * size_a;
                      const T* from_b = arguments.operand<T>(1) + (offsets[1] + i * walk->is_vector(1)) * size_b;
                      T* to = arguments.output<T>() + (first + i) * size_y;
                      if constexpr (std::is_same_v<T, float>) {
                        if (product != nullptr) {
                          product->Run(from_a, from_b, parts, task % parts.number(), false, to, n, *workspace(thread));
                          continue;
                        }
                      }
                      Gemm(transpose_a, transpose_b, rows, columns, k, T(1), from_a + row * (transpose_a ? 1 : lda),
                           lda, from_b + column * (transpose_b ? ldb : 1), ldb, T(0), to + row * n + column, n);
                    }
                  });
            });
            return absl::OkStatus();
          },
      .scratch_bytes = workspace_bytes * request.threads};
}

}  // namespace

void RegisterMatMulKernels(KernelRegistry& registry) {
  registry.Add("MatMul", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? MatMulKernel<float>(request) : MatMulKernel<double>(request);
  });
}

}  // namespace gradweave
