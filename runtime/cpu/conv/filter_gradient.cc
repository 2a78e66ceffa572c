#include "gradweave/runtime/cpu/conv/filter_gradient.h"

#include <algorithm>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/implicit_conv.h"
#include "gradweave/runtime/cpu/product/bfloat16_kernels.h"
#include "gradweave/runtime/cpu/product/product.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// Most rows of df^T that are gathered and multiplied at a time.
constexpr int64_t kMostRows = 96;
// Panels of more outputs would leave the cache.
constexpr int64_t kMostOutputs = 4096;
// Most ranges of outputs, least chunks of a range, and most floats of all sums.
constexpr int64_t kMostRanges = 16, kLeastRangeChunks = 4, kMostSumFloats = 512 << 10;
constexpr int64_t kRowsWritten = 16;  // Rows of df that are written at a time.
// Tasks of each thread: delayed threads leave some to others.
constexpr int64_t kTasksOfThread = 2;

// Rows that are multiplied together: those of a register block, or of a tile.
int64_t UnitRows(bool bfloat16) { return bfloat16 ? kTileRows : GetProductKernels().rows; }

Chunks DivideChunks(const ColumnMatrix& columns, int64_t floats) {
  const int64_t most = std::max<int64_t>(1, std::min(kMostRanges, kMostSumFloats / std::max<int64_t>(floats, 1)));
  return Chunks(columns.chunks(), kLeastRangeChunks, most);
}

}  // namespace

bool FilterGradient::Fits(const ConvGeometry& g) {
  return g.group_outputs() <= kMostOutputs && ImplicitConvolution::Fits(g, false);
}

FilterGradient::FilterGradient(const ConvGeometry& g, int threads, bool bfloat16)
    : bfloat16_(bfloat16),
      lanes_(bfloat16 ? kTileColumns : ProductLanes()),
      groups_(g.groups),
      outputs_(g.group_outputs()),
      pixels_(g.pixels()),
      row_columns_(g.output_width),
      x_group_step_(g.group_channels() * g.height * g.width),
      width_(RoundUp(outputs_, lanes_)),
      columns_(ForwardCorrelation(g), kMostRows / UnitRows(bfloat16) * UnitRows(bfloat16), UnitRows(bfloat16), lanes_),
      ranges_(DivideChunks(columns_, groups_ * GroupFloats())),
      parts_(columns_.blocks(), 1,
             std::clamp<int64_t>(DivideUp(kTasksOfThread * threads, groups_ * ranges_.number), 1, columns_.blocks())),
      // Copies write up to a vector beyond a row.
      left_step_(RoundUp(columns_.most_columns(), bfloat16 ? kTileTerms : kLineFloats) + kLineFloats),
      stage_floats_(RoundUp(columns_.stage_floats(), kLineFloats)),
      left_floats_(RoundUp(std::min(columns_.terms(), kMostRows), kTileRows) * left_step_ + kLineFloats),
      panel_floats_(RoundUp(columns_.most_columns() * width_, kLineFloats)),
      wide_floats_(0) {
  if (!bfloat16) return;
  const int64_t terms = RoundUp(columns_.most_columns(), kTileTerms);
  panel_floats_ = terms * width_ / 2;
  wide_floats_ = terms * kTileColumns + kMostRows * terms / 2;
}

Work FilterGradient::work() const {
  const double taps = static_cast<double>(columns_.terms()), width = static_cast<double>(width_);
  double products = 0, gathered = columns_.staged_moves(), calls = 0;
  for (int64_t block = 0; block < columns_.blocks(); ++block) {
    products += BlockProducts(columns_.block_terms(block), width_ / ProductLanes());
    calls += static_cast<double>(DivideUp(columns_.block_terms(block), GetProductKernels().rows) *
                                 DivideUp(width_, PanelColumns()));
  }
  const double chunks = static_cast<double>(columns_.chunks()), groups = static_cast<double>(groups_);
  const double terms = (chunks - 1) * static_cast<double>(columns_.most_columns()) +
                       static_cast<double>(columns_.chunk_columns(columns_.chunks() - 1));
  gathered += (taps + width) * terms;
  const Work sums =
      Moved((2 * chunks + static_cast<double>(ranges_.number)) * taps * width, static_cast<double>(sums_bytes()));
  return {.calls = groups * calls * chunks,
          .products = groups * products * terms,
          .moved = groups * (gathered + sums.moved),
          .far = groups * sums.far};
}

void FilterGradient::PackPanels(const float* dy, int64_t group, int64_t chunk, float* panels) const {
  const int64_t terms = columns_.chunk_columns(chunk);
  for (int64_t output = 0; output < width_; output += PanelColumns()) {
    const int64_t width = std::min(PanelColumns(), width_ - output), count = std::min(width, outputs_ - output);
    float* const panel = panels + output * terms;
    if (count < width) std::fill_n(panel, terms * width, 0.0f);
    CopyOutputs(dy, group, output, count, chunk, panel, width);
  }
}

void FilterGradient::PackTiles(const float* dy, int64_t group, int64_t chunk, float* panels, float* wide) const {
  const int64_t terms = columns_.chunk_columns(chunk), all_terms = RoundUp(terms, kTileTerms);
  auto* tile = reinterpret_cast<uint16_t*>(panels);
  for (int64_t output = 0; output < width_; output += kTileColumns) {
    const int64_t count = std::min(kTileColumns, outputs_ - output);
    std::fill(wide + (count < kTileColumns ? 0 : terms * kTileColumns), wide + all_terms * kTileColumns, 0.0f);
    CopyOutputs(dy, group, output, count, chunk, wide, kTileColumns);
    for (int64_t term = 0; term < all_terms; term += kTileTerms, tile += kTileElements)
      GetBFloat16Kernels().pack_right(wide + term * kTileColumns, kTileColumns, tile);
  }
}

// Copies what a chunk has of `count` outputs of dy: one row of `to` for each term of the chunk.
void FilterGradient::CopyOutputs(const float* dy, int64_t group, int64_t output, int64_t count, int64_t chunk,
                                 float* to, int64_t to_step) const {
  columns_.ForPieces(chunk, [&](const ColumnMatrix::Piece& piece) {
    const float* from =
        dy + ((piece.sample * groups_ + group) * outputs_ + output) * pixels_ + piece.row * row_columns_ + piece.column;
    GetProductKernels().transpose(from, count, piece.rows * piece.columns, pixels_, to + piece.first * to_step,
                                  to_step);
  });
}

void FilterGradient::MultiplyTiles(float* left, const float* panels, float* tiles, int64_t rows, int64_t terms,
                                   bool add, float* sum) const {
  const int64_t all_terms = RoundUp(terms, kTileTerms), all_rows = RoundUp(rows, kTileRows);
  for (int64_t row = 0; row < rows; ++row)
    std::fill(left + row * left_step_ + terms, left + row * left_step_ + all_terms, 0.0f);
  for (int64_t row = rows; row < all_rows; ++row) std::fill_n(left + row * left_step_, all_terms, 0.0f);
  auto* const packed = reinterpret_cast<uint16_t*>(tiles);
  uint16_t* tile = packed;
  for (int64_t row = 0; row < all_rows; row += kTileRows) {
    for (int64_t term = 0; term < all_terms; term += kTileTerms, tile += kTileElements)
      GetBFloat16Kernels().pack_left(left + row * left_step_ + term, left_step_, tile);
  }
  GetBFloat16Kernels().multiply({.a = packed,
                                 .a_step = all_terms * kTileRows,
                                 .b = reinterpret_cast<const uint16_t*>(panels),
                                 .term_tiles = all_terms / kTileTerms,
                                 .rows = rows,
                                 .columns = width_,
                                 .add = add,
                                 .y = sum,
                                 .y_step = width_});
}

void FilterGradient::Run(const float* x, const float* dy, int64_t task, std::byte* workspace, float* sums) const {
  const int64_t part = task % parts_.number, range = task / parts_.number % ranges_.number,
                group = task / parts_.number / ranges_.number;
  float* const stage = reinterpret_cast<float*>(workspace);
  float* const left = stage + stage_floats_;
  float* const panels = left + left_floats_;
  float* const wide = panels + panel_floats_;
  float* const tiles = wide + RoundUp(columns_.most_columns(), kTileTerms) * kTileColumns;
  float* const sum = sums + (range * groups_ + group) * GroupFloats();
  for (int64_t chunk = ranges_.begin(range); chunk < ranges_.end(range); ++chunk) {
    const int64_t terms = columns_.chunk_columns(chunk);
    bfloat16_ ? PackTiles(dy, group, chunk, panels, wide) : PackPanels(dy, group, chunk, panels);
    for (int64_t block = parts_.begin(part); block < parts_.end(part); ++block) {
      const int64_t rows = columns_.block_terms(block);
      const float* from = columns_.Stage(x + group * x_group_step_, block, chunk, stage);
      columns_.Copy(from, block, 0, rows, chunk, 0, terms, left, left_step_);
      const bool add = chunk > ranges_.begin(range);
      float* const to = sum + columns_.first_term(block) * width_;
      if (bfloat16_) {
        MultiplyTiles(left, panels, tiles, rows, terms, add, to);
      } else {
        MultiplyPanels({left, GetProductKernels().rows * left_step_, left_step_, 1}, panels, terms, rows, width_, add,
                       to, width_);
      }
    }
  }
}

void FilterGradient::Add(int64_t task, float* sums, float* df) const {
  const int64_t group = task / columns_.blocks(), block = task % columns_.blocks();
  const int64_t first = columns_.first_term(block), rows = columns_.block_terms(block);
  float* const sum = sums + group * GroupFloats() + first * width_;
  for (int64_t range = 1; range < ranges_.number; ++range) {
    const float* const other = sum + range * groups_ * GroupFloats();
    for (int64_t i = 0; i < rows * width_; ++i) sum[i] += other[i];
  }
  // Rows of df may map to the same sets of a cache, so few of them are written at a time.
  for (int64_t output = 0; output < outputs_; output += kRowsWritten) {
    GetProductKernels().transpose(sum + output, rows, std::min(kRowsWritten, outputs_ - output), width_,
                                  df + (group * outputs_ + output) * columns_.terms() + first, columns_.terms());
  }
}

}  // namespace gradweave
