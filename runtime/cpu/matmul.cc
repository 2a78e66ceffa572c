#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "gradweave/runtime/broadcast.h"
#include "gradweave/runtime/cpu/gemm.h"
#include "gradweave/runtime/cpu/tile/blocks.h"
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

// A panel of b of that many bytes stays in the first caches while rows of a pass by.
constexpr int64_t kPanelBytes = 32 << 10;
// A matrix that is copied into another order first is worth it for that many products with each of its elements.
constexpr int64_t kLeastUses = 24;

// Rows of a product as sums of vectors along its columns, weighted by numbers of a. Columns of b are copied, as many as
// there are accumulators for, so that they lie together; a is read where it lies, or turned around first. For short
// sums this is faster than OpenBLAS, which copies both matrices whole.
class DirectProduct {
 public:
  // Whether it is expected to be faster for that many rows at a time.
  static bool Pays(const Product& p, int64_t rows) {
    return p.n > 0 && p.n % GetTileKernels().lanes == 0 && p.k > 0 && rows >= kLeastUses &&
           WidestPanel(p.k) >= kLeastPanel && (!p.transpose_a || p.n >= kLeastUses);
  }

  DirectProduct(const Product& p, int64_t most_rows) : p_(p), lanes_(GetTileKernels().lanes) {
    const int64_t widest = WidestPanel(p.k);
    const Blocks blocks = ChooseBlocks(most_rows, p.n / lanes_, [&](int a, int b) {
      return b <= widest && GetTileKernels().direct_sum[a][b] != nullptr;
    });
    block_rows_ = *std::max_element(blocks.rows.begin(), blocks.rows.end());
    columns_ = blocks.columns;
    panel_step_ = *std::max_element(columns_.begin(), columns_.end()) * lanes_;
    for (int64_t r = 0; r < p.k; ++r) offsets_.push_back(static_cast<int32_t>(r * panel_step_));
    scratch_ = p.k * panel_step_ + (p.transpose_a ? most_rows * p.k : 0);
  }

  // In floats, of one thread.
  int64_t scratch_floats() const { return scratch_; }

  // y = a*b for `rows` rows of y, with a and b where the first of these and the first column need them.
  void Run(const float* a, const float* b, int64_t rows, float* y, float* scratch) const {
    DirectSumArguments sums;
    sums.x = scratch;
    sums.offsets = offsets_.data();
    sums.terms = p_.k;
    sums.weight_step = p_.lda;
    sums.bias = nullptr;
    sums.y_step_a = p_.n;
    if (p_.transpose_a) {
      Transpose(a, p_.k, rows, p_.lda, scratch + p_.k * panel_step_, p_.k);
      a = scratch + p_.k * panel_step_;
      sums.weight_step = p_.k;
    }
    int64_t column = 0;
    for (int width : columns_) {
      const int64_t count = width * lanes_;
      if (p_.transpose_b) {
        Transpose(b + column * p_.ldb, count, p_.k, p_.ldb, scratch, panel_step_);
      } else {
        for (int64_t r = 0; r < p_.k; ++r) std::copy_n(b + r * p_.ldb + column, count, scratch + r * panel_step_);
      }
      for (int64_t row = 0; row < rows; row += block_rows_) {
        const int64_t height = std::min<int64_t>(block_rows_, rows - row);
        sums.weights = a + row * sums.weight_step;
        sums.y = y + row * p_.n + column;
        GetTileKernels().direct_sum[height][width](sums);
      }
      column += count;
    }
  }

 private:
  static constexpr int64_t kLeastPanel = 2;  // Vectors: with one, every product needs a load of its own.

  static int64_t WidestPanel(int64_t terms) {
    return kPanelBytes / (terms * GetTileKernels().lanes * static_cast<int64_t>(sizeof(float)));
  }

  // to[j*to_step + i] = from[i*step + j], in blocks that stay in the cache.
  static void Transpose(const float* from, int64_t rows, int64_t columns, int64_t step, float* to, int64_t to_step) {
    constexpr int64_t kBlock = 16;
    for (int64_t i = 0; i < rows; i += kBlock) {
      const int64_t end = std::min(rows, i + kBlock);
      for (int64_t j = 0; j < columns; ++j) {
        for (int64_t k = i; k < end; ++k) to[j * to_step + k] = from[k * step + j];
      }
    }
  }

  Product p_;
  int64_t lanes_, block_rows_, panel_step_, scratch_;
  std::vector<int> columns_;
  std::vector<int32_t> offsets_;  // Of rows of a panel.
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
  std::shared_ptr<const DirectProduct> direct;
  if constexpr (std::is_same_v<T, float>) {
    if (columns.number == 1 && DirectProduct::Pays(product, rows.size)) {
      direct = std::make_shared<const DirectProduct>(product, rows.size);
    }
  }
  const size_t scratch = direct == nullptr ? 0 : direct->scratch_floats() * sizeof(float) * request.threads;
  return {
      .name = direct == nullptr ? "gemm" : "direct",
      .run =
          [=](const KernelArguments& arguments) {
            const int64_t size_a = product.m * product.k, size_b = product.k * product.n,
                          size_y = product.m * product.n;
            if (size_y == 0 || walk->total == 0) return absl::OkStatus();
            if (product.k == 0) {
              std::fill(arguments.output<T>(), arguments.output<T>() + walk->total * size_y, T(0));
              return absl::OkStatus();
            }
            arguments.pool->ParallelFor(matrices.number * rows.number * columns.number, [&](int64_t part, int thread) {
              const int64_t chunk = part / rows.number / columns.number;
              const int64_t begin = rows.begin(part % rows.number), end = rows.end(part % rows.number);
              const int64_t column = columns.begin(part % columns.number);
              const int64_t width = columns.end(part % columns.number) - column;
              walk->ForRuns(
                  matrices.begin(chunk), matrices.end(chunk), [&](const auto& offsets, int64_t first, int64_t count) {
                    for (int64_t i = 0; i < count; ++i) {
                      const T* from_a = arguments.operand<T>(0) + (offsets[0] + i * walk->is_vector(0)) * size_a;
                      const T* from_b = arguments.operand<T>(1) + (offsets[1] + i * walk->is_vector(1)) * size_b;
                      if constexpr (std::is_same_v<T, float>) {
                        if (direct != nullptr) {
                          direct->Run(from_a + (product.transpose_a ? begin : begin * product.k), from_b, end - begin,
                                      arguments.output<float>() + (first + i) * size_y + begin * product.n,
                                      reinterpret_cast<float*>(arguments.scratch) + thread * direct->scratch_floats());
                          continue;
                        }
                      }
                      Gemm(product.transpose_a, product.transpose_b, end - begin, width, product.k, T(1),
                           from_a + (product.transpose_a ? begin : begin * product.k), product.lda,
                           from_b + (product.transpose_b ? column * product.k : column), product.ldb, T(0),
                           arguments.output<T>() + (first + i) * size_y + begin * product.n + column, product.n);
                    }
                  });
            });
            return absl::OkStatus();
          },
      .scratch_bytes = scratch};
}

}  // namespace

void RegisterMatMulKernels(KernelRegistry& registry) {
  registry.Add("MatMul", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? MatMulKernel<float>(request) : MatMulKernel<double>(request);
  });
}

}  // namespace gradweave
