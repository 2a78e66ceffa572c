#include "gradweave/runtime/cpu/product/bfloat16_product.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// A part of y, and a part of the packing, take as long as many wake-ups of a thread.
constexpr double kPartFlops = 4'000'000;
constexpr int64_t kMostParts = 16, kPackedElements = 1 << 15;
// Rows that are packed at a time fill a part of the second-level cache.
constexpr int64_t kPackedRowElements = 1 << 17, kMostRowTiles = 16;

struct Extent {
  int64_t rows, columns;
};

// Packs a block of `have` rows and columns as a tile, with zeros behind them. If `transpose` is true,
// the block is stored as columns and rows. Stored rows are `step` floats apart.
void PackTile(void (*pack)(const float*, int64_t, uint16_t*), const float* from, int64_t step, bool transpose,
              const Extent& have, const Extent& tile, uint16_t* packed) {
  const bool is_whole = have.rows == tile.rows && have.columns == tile.columns;
  if (is_whole && !transpose) return pack(from, step, packed);
  alignas(64) float whole[kTileElements];
  if (!is_whole) std::fill_n(whole, kTileElements, 0.0f);
  if (transpose) {
    GetProductKernels().transpose(from, have.columns, have.rows, step, whole, tile.columns);
  } else {
    for (int64_t row = 0; row < have.rows; ++row)
      std::copy_n(from + row * step, have.columns, whole + row * tile.columns);
  }
  pack(whole, tile.columns, packed);
}

}  // namespace

void BFloat16Product::PackLeft(const float* a, int64_t row_tile, uint16_t* packed) const {
  const int64_t row = row_tile * kTileRows, rows = std::min(sizes_.rows - row, kTileRows);
  const bool transpose = sizes_.transpose_a;
  for (int64_t term = 0; term < sizes_.terms; term += kTileTerms, packed += kTileElements) {
    PackTile(GetBFloat16Kernels().pack_left, a + (transpose ? term * sizes_.a_step + row : row * sizes_.a_step + term),
             sizes_.a_step, transpose, {rows, std::min(sizes_.terms - term, kTileTerms)}, {kTileRows, kTileTerms},
             packed);
  }
}

void BFloat16Product::PackRight(const float* b, int64_t column_tile, uint16_t* packed) const {
  const int64_t column = column_tile * kTileColumns, columns = std::min(sizes_.columns - column, kTileColumns);
  const bool transpose = sizes_.transpose_b;
  packed += column_tile * term_tiles() * kTileElements;
  for (int64_t term = 0; term < sizes_.terms; term += kTileTerms, packed += kTileElements) {
    PackTile(GetBFloat16Kernels().pack_right,
             b + (transpose ? column * sizes_.b_step + term : term * sizes_.b_step + column), sizes_.b_step, transpose,
             {std::min(sizes_.terms - term, kTileTerms), columns}, {kTileTerms, kTileColumns}, packed);
  }
}

int64_t BFloat16Product::row_tiles_at_a_time() const {
  const int64_t tiles = kPackedRowElements / std::max<int64_t>(term_tiles() * kTileElements, 1);
  // An even number, because AMX multiplies tiles two by two.
  return std::min(row_tiles(), std::clamp<int64_t>(tiles / 2 * 2, 2, kMostRowTiles));
}

void BFloat16Product::Multiply(const float* a, const uint16_t* b, Range row_tiles, Range column_tiles, uint16_t* rows,
                               float* y) const {
  const int64_t column = column_tiles.first * kTileColumns, at_a_time = row_tiles_at_a_time();
  for (int64_t first = row_tiles.first; first < row_tiles.end; first += at_a_time) {
    const int64_t end = std::min(first + at_a_time, row_tiles.end), row = first * kTileRows;
    for (int64_t tile = first; tile < end; ++tile)
      PackLeft(a, tile, rows + (tile - first) * term_tiles() * kTileElements);
    GetBFloat16Kernels().multiply({.a = rows,
                                   .a_step = term_tiles() * kTileElements,
                                   .b = b + column_tiles.first * term_tiles() * kTileElements,
                                   .term_tiles = term_tiles(),
                                   .rows = std::min(end * kTileRows, sizes_.rows) - row,
                                   .columns = std::min(column_tiles.end * kTileColumns, sizes_.columns) - column,
                                   .add = false,
                                   .y = y + row * sizes_.columns + column,
                                   .y_step = sizes_.columns});
  }
}

namespace {

// One product, whose packing and parts are tasks for all threads.
Kernel OneProduct(const MatMulSizes& sizes, int threads) {
  const BFloat16Product product(sizes);
  // Parts have an even number of tiles. More rows are better than more columns, which each pack
  // their rows.
  const int64_t wanted = std::clamp<int64_t>(static_cast<int64_t>(sizes.flops() / kPartFlops), 1, kMostParts);
  const Chunks rows((product.row_tiles() + 1) / 2, 1, wanted);
  const Chunks columns((product.column_tiles() + 1) / 2, 1,
                       (wanted + rows.number - 1) / std::max(rows.number, int64_t{1}));
  const Chunks packing(
      product.column_tiles(),
      std::max<int64_t>(kPackedElements / std::max<int64_t>(product.term_tiles() * kTileElements, 1), 1));
  const size_t a_bytes = ScratchBytes(threads, product.packed_a(), sizeof(uint16_t)),
               b_bytes = ScratchBytes(1, product.packed_b(), sizeof(uint16_t));
  const auto run = [=](const KernelArguments& arguments) {
    auto* const a = reinterpret_cast<uint16_t*>(arguments.scratch);
    const bool keeps = arguments.kept != nullptr;
    auto* const b = reinterpret_cast<uint16_t*>(keeps ? arguments.kept : arguments.scratch + a_bytes);
    if (!keeps || !arguments.kept_is_current) {
      arguments.pool->ParallelFor(packing.number, [&](int64_t task, int) {
        for (int64_t i = packing.begin(task); i < packing.end(task); ++i)
          product.PackRight(arguments.operand<float>(1), i, b);
      });
    }
    arguments.pool->ParallelFor(rows.number * columns.number, [&](int64_t task, int thread) {
      if (arguments.stopped()) return;
      const int64_t row = task / columns.number, column = task % columns.number;
      product.Multiply(arguments.operand<float>(0), b,
                       {2 * rows.begin(row), std::min(2 * rows.end(row), product.row_tiles())},
                       {2 * columns.begin(column), std::min(2 * columns.end(column), product.column_tiles())},
                       a + thread * product.packed_a(), arguments.output<float>());
    });
    return absl::OkStatus();
  };
  return {.name = "bfloat16 product",
          .run = run,
          .scratch_bytes = a_bytes + b_bytes,
          .kept_bytes = b_bytes,
          .scratch_bytes_with_kept = a_bytes,
          .kept_operands = {1},
          .kept_layout =
              absl::StrCat("bfloat16 ", sizes.terms, "x", sizes.columns, sizes.transpose_b ? " transposed" : "")};
}

// Several products, some of which are a task.
Kernel SeveralProducts(const MatMulSizes& sizes, int threads) {
  const BFloat16Product product(sizes);
  const int64_t size_a = sizes.rows * sizes.terms, size_b = sizes.terms * sizes.columns,
                size_y = sizes.rows * sizes.columns;
  const Chunks matrices(sizes.matrices.total,
                        std::max<int64_t>(1, static_cast<int64_t>(kPartFlops / std::max(1.0, sizes.flops()))));
  const int64_t packed = product.packed_a() + product.packed_b();
  const auto run = [=](const KernelArguments& arguments) {
    arguments.pool->ParallelFor(matrices.number, [&](int64_t task, int thread) {
      if (arguments.stopped()) return;
      uint16_t* const b = reinterpret_cast<uint16_t*>(arguments.scratch) + thread * packed;
      uint16_t* const rows = b + product.packed_b();
      sizes.matrices.ForRuns(
          matrices.begin(task), matrices.end(task), [&](const auto& offsets, int64_t first, int64_t count) {
            for (int64_t i = 0; i < count; ++i) {
              const int64_t from_a = (offsets[0] + i * sizes.matrices.is_vector(0)) * size_a,
                            from_b = (offsets[1] + i * sizes.matrices.is_vector(1)) * size_b;
              for (int64_t tile = 0; tile < product.column_tiles(); ++tile)
                product.PackRight(arguments.operand<float>(1) + from_b, tile, b);
              product.Multiply(arguments.operand<float>(0) + from_a, b, {0, product.row_tiles()},
                               {0, product.column_tiles()}, rows, arguments.output<float>() + (first + i) * size_y);
            }
          });
    });
    return absl::OkStatus();
  };
  return {.name = "bfloat16 products", .run = run, .scratch_bytes = ScratchBytes(threads, packed, sizeof(uint16_t))};
}

}  // namespace

Kernel BFloat16ProductKernel(const MatMulSizes& sizes, int threads) {
  return sizes.matrices.total == 1 ? OneProduct(sizes, threads) : SeveralProducts(sizes, threads);
}

}  // namespace gradweave
