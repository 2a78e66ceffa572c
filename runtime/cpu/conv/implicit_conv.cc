#include "gradweave/runtime/cpu/conv/implicit_conv.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cpu/product/bfloat16_kernels.h"
#include "gradweave/runtime/cpu/product/product.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// Most floats of the rows of the filter that stay in the second-level cache while panels pass them.
constexpr int64_t kMostPassingFloats = 32 << 10;
// Most rows of a block of y, which stays in the second-level cache beside the panels.
constexpr int64_t kMostBlockRows = 768;
// With fewer columns than this, reading the filter in place is faster than packing it in each run.
constexpr int64_t kLeastPackedColumns = 1024;
// Most parts of a filter's channels that are packed by themselves, and least channels of a part.
constexpr int64_t kMostPackParts = 16, kPackedChannels = 8;
// Moved floats that take as long as a result that is stored with a stride.
constexpr double kMovesPerScattered = 6;
// Gathering a panel takes as long as multiplying it with this share of a register block.
constexpr double kBlocksPerPanel = 0.5;

// Floats between terms of `columns` columns that become tiles, and of a tile of such terms. Copies
// write up to a vector behind it.
int64_t TileStep(int64_t columns) { return RoundUp(columns, kTileColumns); }
int64_t WideTileFloats(int64_t columns) { return kTileTerms * TileStep(columns) + kLineFloats; }

// A correlation, the first row and column of its results, and the offsets of its taps in a channel
// of the filter.
struct PhaseTaps {
  Correlation correlation;
  int64_t y_row, y_column;
  std::vector<int64_t> offsets;
};

// Returns the taps that reach output (residue + i*stride) of an input gradient along one axis:
// pairs of an index in the filter and the element of dy that it reads for i = 0. With stride 1, the
// window of dy is that of the flipped filter.
std::vector<std::pair<int64_t, int64_t>> TapsOfResidue(int64_t kernel, int64_t dilation, int64_t before, int64_t stride,
                                                       int64_t residue) {
  std::vector<std::pair<int64_t, int64_t>> taps;
  for (int64_t k = 0; k < kernel; ++k) {
    const int64_t distance = residue + before - k * dilation;
    if (distance % stride == 0) taps.emplace_back(k, distance / stride);
  }
  return taps;
}

std::vector<PhaseTaps> PhasesOf(const ConvGeometry& g, bool input_gradient) {
  std::vector<PhaseTaps> phases;
  if (!input_gradient) {
    std::vector<int64_t> offsets(g.kernel_height * g.kernel_width);
    std::iota(offsets.begin(), offsets.end(), 0);
    phases.push_back({ForwardCorrelation(g), 0, 0, std::move(offsets)});
    return phases;
  }
  for (int64_t y = 0; y < std::min(g.stride_y, g.height); ++y) {
    for (int64_t x = 0; x < std::min(g.stride_x, g.width); ++x) {
      Correlation c{g.samples,
                    g.group_outputs(),
                    g.output_height,
                    g.output_width,
                    g.output_size(),
                    DivideUp(g.height - y, g.stride_y),
                    DivideUp(g.width - x, g.stride_x),
                    1,
                    1,
                    {}};
      std::vector<int64_t> offsets;
      for (const auto& [k, row] : TapsOfResidue(g.kernel_height, g.dilation_y, g.top, g.stride_y, y)) {
        for (const auto& [l, column] : TapsOfResidue(g.kernel_width, g.dilation_x, g.left, g.stride_x, x)) {
          c.taps.push_back({row, column});
          offsets.push_back(k * g.kernel_width + l);
        }
      }
      phases.push_back({std::move(c), y, x, std::move(offsets)});
    }
  }
  return phases;
}

}  // namespace

bool ImplicitConvolution::Fits(const ConvGeometry& g, bool input_gradient) {
  constexpr int64_t kMostPhases = 64, kMostTaps = 4096, kMostRows = 1 << 20;
  if (g.filter_size() == 0 || g.output_size() == 0 || g.sample_size() == 0 || g.samples == 0) return false;
  // PhasesOf lists taps and phases.
  if (std::max(g.kernel_height, g.kernel_width) > kMostTaps || g.kernel_height * g.kernel_width > kMostTaps)
    return false;
  if (std::max(g.outputs, g.channels) > kMostRows) return false;
  const bool many_phases = std::max(g.stride_y, g.stride_x) > kMostPhases || g.stride_y * g.stride_x > kMostPhases;
  if (input_gradient && many_phases) return false;
  const std::vector<PhaseTaps> phases = PhasesOf(g, input_gradient);
  return std::all_of(phases.begin(), phases.end(),
                     [](const PhaseTaps& phase) { return ColumnMatrix::Fits(phase.correlation); });
}

ImplicitConvolution ImplicitConvolution::Forward(const ConvGeometry& g, int threads, bool bfloat16) {
  return ImplicitConvolution(g, false, threads, bfloat16);
}

ImplicitConvolution ImplicitConvolution::InputGradient(const ConvGeometry& g, int threads, bool bfloat16) {
  return ImplicitConvolution(g, true, threads, bfloat16);
}

ImplicitConvolution::ImplicitConvolution(const ConvGeometry& g, bool input_gradient, int threads, bool bfloat16)
    : bfloat16_(bfloat16),
      unit_(bfloat16 ? kTileRows : GetProductKernels().rows),
      groups_(g.groups),
      outputs_(input_gradient ? g.group_channels() : g.group_outputs()),
      rows_(input_gradient ? g.height : g.output_height),
      columns_(input_gradient ? g.width : g.output_width),
      stride_y_(input_gradient ? g.stride_y : 1),
      stride_x_(input_gradient ? g.stride_x : 1),
      x_group_step_(input_gradient ? g.group_outputs() * g.pixels() : g.group_channels() * g.height * g.width),
      filter_row_(input_gradient ? g.kernel_height * g.kernel_width : g.taps()),
      filter_channel_(input_gradient ? g.taps() : g.kernel_height * g.kernel_width),
      filter_group_(g.group_outputs() * g.taps()),
      filter_taps_(g.kernel_height * g.kernel_width),
      pack_parts_(input_gradient ? g.group_outputs() : g.group_channels(), kPackedChannels, kMostPackParts),
      reads_in_place_(!bfloat16 && !input_gradient && filter_row_ % kCacheWay != 0 &&
                      g.samples * g.pixels() < kLeastPackedColumns) {
  for (PhaseTaps& phase : PhasesOf(g, input_gradient)) {
    phases_.push_back(
        {ColumnMatrix(std::move(phase.correlation), kMostBlockTerms, bfloat16 ? kTileTerms : 1, ProductLanes()),
         phase.y_row, phase.y_column, packed_floats_, std::move(phase.offsets)});
    const ColumnMatrix& columns = phases_.back().columns;
    packed_floats_ += groups_ * PackedGroup(phases_.back());
    chunks_ += columns.chunks();
    stage_floats_ = std::max(stage_floats_, RoundUp(columns.stage_floats() + ProductLanes(), kLineFloats));
    const int64_t width = RoundUp(columns.most_columns(), ProductLanes());
    const int64_t terms = std::min(columns.terms(), kMostBlockTerms);
    // Tiles follow a tile of terms in float32.
    const int64_t panel =
        bfloat16 ? WideTileFloats(width) + RoundUp(terms, kTileTerms) * TileStep(width) / 2 : terms * width;
    panel_floats_ = std::max(panel_floats_, RoundUp(panel + ProductLanes(), kLineFloats));
    block_columns_ = std::max(block_columns_, width);
  }
  // Rows are divided if some threads would have no task otherwise, or if a block would leave the
  // cache. Each part gathers the columns again.
  const int64_t units = DivideUp(outputs_, unit_), least_parts = DivideUp(outputs_, kMostBlockRows);
  double least = std::numeric_limits<double>::infinity();
  for (int64_t parts = least_parts; parts <= std::max(least_parts, std::min<int64_t>(units, threads)); ++parts) {
    const int64_t part_units = DivideUp(units, parts);
    const double rounds = static_cast<double>(DivideUp(groups_ * chunks_ * parts, threads));
    const double time = rounds * (static_cast<double>(part_units) + kBlocksPerPanel);
    if (time >= least) continue;
    least = time;
    row_parts_ = DivideUp(units, part_units);
    part_rows_ = part_units * unit_;
  }
}

std::string ImplicitConvolution::packed_layout() const {
  std::string layout = absl::StrCat(bfloat16_ ? "bfloat16 " : "", "convolution ", groups_, " ", outputs_, " ",
                                    filter_row_, " ", filter_channel_);
  for (const Phase& phase : phases_) {
    absl::StrAppend(&layout, " /");
    for (int64_t tap : phase.taps) absl::StrAppend(&layout, " ", tap);
  }
  return layout;
}

int64_t ImplicitConvolution::PackedGroup(const Phase& phase) const {
  const int64_t rows = RoundUp(outputs_, unit_), terms = phase.columns.terms();
  return bfloat16_ ? rows * RoundUp(terms, kTileTerms) / 2 : rows * terms;
}

void ImplicitConvolution::PackTile(const float* filter, int64_t task, float* packed) const {
  const int64_t row_tiles = DivideUp(outputs_, unit_), group = task / row_tiles, row = task % row_tiles * unit_;
  const int64_t rows = std::min(unit_, outputs_ - row);
  const float* const from = filter + group * filter_group_ + row * filter_row_;
  alignas(64) float tile[kTileElements];
  for (const Phase& phase : phases_) {
    const int64_t taps = static_cast<int64_t>(phase.taps.size()), terms = phase.columns.terms();
    auto* to = reinterpret_cast<uint16_t*>(packed + phase.packed + group * PackedGroup(phase)) +
               row * RoundUp(terms, kTileTerms);
    for (int64_t first = 0; first < terms; first += kTileTerms, to += kTileElements) {
      const int64_t count = std::min(kTileTerms, terms - first);
      std::fill_n(tile, kTileElements, 0.0f);
      for (int64_t term = 0; term < count; ++term) {
        const int64_t channel = (first + term) / taps, tap = phase.taps[(first + term) % taps];
        const float* const column = from + channel * filter_channel_ + tap;
        for (int64_t i = 0; i < rows; ++i) tile[i * kTileTerms + term] = column[i * filter_row_];
      }
      GetBFloat16Kernels().pack_left(tile, kTileTerms, to);
    }
  }
}

void ImplicitConvolution::Pack(const float* filter, int64_t task, float* packed) const {
  if (bfloat16_) return PackTile(filter, task, packed);
  const ProductKernels& kernels = GetProductKernels();
  const int64_t unit = unit_, group = task / pack_parts_.number, part = task % pack_parts_.number;
  const float* const from = filter + group * filter_group_;
  for (const Phase& phase : phases_) {
    const int64_t taps = static_cast<int64_t>(phase.taps.size()), terms = phase.columns.terms();
    float* const to = packed + phase.packed + group * RoundUp(outputs_, unit) * terms;
    // The terms of neighbouring channels are neighbours in a filter of a forward convolution.
    const bool of_points = filter_row_ == 1 && taps == 1;
    const int64_t end = pack_parts_.end(part), step = filter_channel_ == taps || of_points ? pack_parts_.size : 1;
    for (int64_t channel = pack_parts_.begin(part); channel < end; channel += step) {
      const int64_t columns = std::min(step, end - channel) * taps;
      for (int64_t row = 0; row < outputs_; row += unit) {
        const int64_t rows = std::min(unit, outputs_ - row);
        const float* const block = from + channel * filter_channel_ + row * filter_row_;
        float* at = to + row * terms + channel * taps * unit;
        if (of_points) {
          kernels.pack(block, columns, rows, filter_channel_, unit, unit, at);
          continue;
        }
        if (taps == filter_taps_) {
          kernels.transpose(block, rows, columns, filter_row_, at, unit);
          continue;
        }
        for (int64_t tap : phase.taps) {
          for (int64_t i = 0; i < rows; ++i) at[i] = block[i * filter_row_ + tap];
          at += unit;
        }
      }
    }
  }
}

int64_t ImplicitConvolution::tasks() const { return groups_ * chunks_ * row_parts_; }

size_t ImplicitConvolution::workspace_bytes() const {
  return (stage_floats_ + panel_floats_ + RoundUp(std::min(part_rows_, outputs_) * block_columns_, kLineFloats)) *
         sizeof(float);
}

Work ImplicitConvolution::work() const {
  Work work;
  for (const Phase& phase : phases_) {
    const ColumnMatrix& m = phase.columns;
    const double terms = static_cast<double>(m.terms());
    for (int64_t last = 0; last < 2; ++last) {
      // All chunks but the last one are equal.
      const int64_t chunk = last == 0 ? 0 : m.chunks() - 1;
      const double times = static_cast<double>(last == 0 ? m.chunks() - 1 : 1);
      const int64_t vectors = DivideUp(m.chunk_columns(chunk), ProductLanes());
      work.products += times * BlockProducts(outputs_, vectors) * terms;
      work.calls += times * static_cast<double>(DivideUp(outputs_, unit_) *
                                                DivideUp(m.chunk_columns(chunk), PanelColumns()) * m.blocks());
      const double panels = static_cast<double>(vectors * ProductLanes());
      const double results = static_cast<double>(m.blocks()) + (stride_x_ > 1 ? kMovesPerScattered : 0);
      work.moved += times * panels * (terms + static_cast<double>(outputs_) * results);
    }
    work.moved += m.staged_moves();
  }
  Work all;
  const double groups = static_cast<double>(groups_);
  all.calls = groups * work.calls;
  all.products = groups * work.products;
  all.moved = groups * work.moved;
  const double filter = static_cast<double>(packed_floats_);
  const Work packing = Moved(reads_in_place_ ? filter : 2 * filter, filter * sizeof(float));
  all.moved += packing.moved;
  all.far += packing.far;
  return all;
}

void ImplicitConvolution::AddTerms(const Phase& phase, const float* from, const Filter& filter, int64_t group,
                                   int64_t block_number, int64_t chunk, int64_t first, int64_t rows, bool add,
                                   float* panels, float* y, int64_t y_step) const {
  const ColumnMatrix& m = phase.columns;
  const int64_t terms = m.block_terms(block_number), before = m.first_term(block_number);
  const int64_t columns = RoundUp(m.chunk_columns(chunk), ProductLanes());
  for (int64_t column = 0; column < columns; column += PanelColumns()) {
    const int64_t count = std::min(PanelColumns(), columns - column);
    m.Copy(from, block_number, 0, terms, chunk, column, std::min(count, m.chunk_columns(chunk) - column),
           panels + column * terms, count);
  }
  const int64_t at_a_time = std::max<int64_t>(1, kMostPassingFloats / terms / unit_) * unit_;
  for (int64_t i = 0; i < rows; i += at_a_time) {
    const int64_t row = first + i, all_rows = RoundUp(outputs_, unit_);
    const LeftRows left =
        filter.packed != nullptr
            ? LeftRows{filter.packed + phase.packed + (group * all_rows + row) * m.terms() + before * unit_,
                       unit_ * m.terms(), 1, unit_}
            : LeftRows{filter.filter + group * filter_group_ + row * filter_row_ + before, unit_ * filter_row_,
                       filter_row_, 1};
    MultiplyPanels(left, panels, terms, std::min(at_a_time, rows - i), columns, add, y + i * y_step, y_step);
  }
}

void ImplicitConvolution::AddTiles(const Phase& phase, const float* from, const Filter& filter, int64_t group,
                                   int64_t block_number, int64_t chunk, int64_t first, int64_t rows, bool add,
                                   float* panels, float* y, int64_t y_step) const {
  const BFloat16Kernels& kernels = GetBFloat16Kernels();
  const ColumnMatrix& m = phase.columns;
  const int64_t terms = m.block_terms(block_number), before = m.first_term(block_number);
  const int64_t columns = m.chunk_columns(chunk), step = TileStep(columns), tiles = DivideUp(terms, kTileTerms);
  auto* const packed = reinterpret_cast<uint16_t*>(panels + WideTileFloats(columns));
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t count = std::min(kTileTerms, terms - tile * kTileTerms);
    m.Copy(from, block_number, tile * kTileTerms, count, chunk, 0, columns, panels, step);
    for (int64_t term = 0; term < count; ++term)
      std::fill(panels + term * step + columns, panels + (term + 1) * step, 0.0f);
    std::fill(panels + count * step, panels + kTileTerms * step, 0.0f);
    for (int64_t column = 0; column < columns; column += kTileColumns)
      kernels.pack_right(panels + column, step, packed + (column / kTileColumns * tiles + tile) * kTileElements);
  }
  const int64_t row_step = RoundUp(m.terms(), kTileTerms);  // Elements of a packed row of the filter.
  kernels.multiply({.a = reinterpret_cast<const uint16_t*>(filter.packed + phase.packed + group * PackedGroup(phase)) +
                         first * row_step + before * kTileRows,
                    .a_step = kTileRows * row_step,
                    .b = packed,
                    .term_tiles = tiles,
                    .rows = rows,
                    .columns = columns,
                    .add = add,
                    .y = y,
                    .y_step = y_step});
}

template <typename Body>
void ImplicitConvolution::Compute(const float* x, const Filter& filter, const float* bias, int64_t task,
                                  std::byte* workspace, float* y, Body take) const {
  const int64_t part = task % row_parts_, group = task / row_parts_ / chunks_;
  int64_t chunk = task / row_parts_ % chunks_;
  const Phase* phase = phases_.data();
  for (; chunk >= phase->columns.chunks(); ++phase) chunk -= phase->columns.chunks();
  const ColumnMatrix& m = phase->columns;
  const int64_t first = part * part_rows_, rows = std::min(part_rows_, outputs_ - first);
  float* const stage = reinterpret_cast<float*>(workspace);
  float* const panels = stage + stage_floats_;

  // A chunk that is contiguous in y is computed there, others in the workspace.
  const int64_t columns = RoundUp(m.chunk_columns(chunk), ProductLanes());
  float* block = panels + panel_floats_;
  int64_t step = columns;
  if (y != nullptr && phases_.size() == 1) {
    m.ForPieces(chunk, [&](const ColumnMatrix::Piece& piece) {
      if (piece.rows * piece.columns != columns || (piece.rows > 1 && piece.columns < columns_)) return;
      step = rows_ * columns_;
      block = y + ((piece.sample * groups_ + group) * outputs_ + first) * step + piece.row * columns_ + piece.column;
    });
  }
  for (int64_t i = 0; i < rows && (bias != nullptr || m.blocks() == 0); ++i)
    std::fill_n(block + i * step, columns, bias == nullptr ? 0.0f : bias[group * outputs_ + first + i]);

  for (int64_t b = 0; b < m.blocks(); ++b) {
    const float* from = m.Stage(x + group * x_group_step_, b, chunk, stage);
    const auto add_terms = bfloat16_ ? &ImplicitConvolution::AddTiles : &ImplicitConvolution::AddTerms;
    (this->*add_terms)(*phase, from, filter, group, b, chunk, first, rows, b > 0 || bias != nullptr, panels, block,
                       step);
  }
  if (step == columns && block == panels + panel_floats_) {
    m.ForPieces(chunk, [&](const ColumnMatrix::Piece& piece) {
      take(*phase,
           Block{piece.sample, group * outputs_ + first, rows, piece.row, piece.rows, piece.column, piece.columns},
           block + piece.first, step);
    });
  }
}

void ImplicitConvolution::Run(const float* x, const Filter& filter, const float* bias, int64_t task,
                              std::byte* workspace, float* y) const {
  Compute(x, filter, bias, task, workspace, y,
          [&](const Phase& phase, const Block& block, const float* from, int64_t step) {
            for (int64_t c = 0; c < block.channels; ++c, from += step) {
              float* const plane = y + (block.sample * groups_ * outputs_ + block.channel + c) * rows_ * columns_;
              for (int64_t i = 0; i < block.rows; ++i) {
                float* const to = plane + (phase.y_row + (block.row + i) * stride_y_) * columns_ + phase.y_column +
                                  block.column * stride_x_;
                const float* const row = from + i * block.columns;
                if (stride_x_ == 1) {
                  std::copy_n(row, block.columns, to);
                } else {
                  for (int64_t j = 0; j < block.columns; ++j) to[j * stride_x_] = row[j];
                }
              }
            }
          });
}

void ImplicitConvolution::RunInBlocks(const float* x, const Filter& filter, const float* bias, int64_t task,
                                      std::byte* workspace, TakeBlock take) const {
  Compute(x, filter, bias, task, workspace, nullptr,
          [&](const Phase&, const Block& block, float* y, int64_t step) { take(block, y, step); });
}

}  // namespace gradweave
