#include "gradweave/runtime/cpu/conv/column_matrix.h"

#include <cstring>
#include <utility>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/even_chunks.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// Limits of the tables of a matrix and of the staged part of x, in taps, terms and floats.
constexpr int64_t kMostTaps = 4096, kMostTableTerms = 1 << 20, kMostStageFloats = 1 << 20;
// Moved floats that take as long as one that is read with a stride.
constexpr double kMovesPerStrided = 3;
// Each chunk reads the filter once more. That takes as long as this many vectors.
constexpr int64_t kVectorsOfChunk = 1;

int64_t FloorDivide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// Divides the rows of all samples so that the last vectors of chunks have few empty lanes.
Chunks DivideRows(const Correlation& c, int64_t lanes) {
  const int64_t all = c.samples * c.rows, most = std::clamp<int64_t>(kMostChunkColumns / c.columns, 1, all);
  int64_t best = 1, least = 0;
  for (int64_t rows = 1; rows <= most; ++rows) {
    const int64_t rest = all % rows;
    const int64_t vectors = all / rows * (DivideUp(rows * c.columns, lanes) + kVectorsOfChunk) +
                            (rest == 0 ? 0 : DivideUp(rest * c.columns, lanes) + kVectorsOfChunk);
    if (rows == 1 || vectors <= least) least = vectors, best = rows;
  }
  return Chunks(all, best, all);
}

Chunks DivideColumns(const Correlation& c, int64_t lanes) {
  return EvenChunks(c.columns, kMostChunkColumns, c.columns > kMostChunkColumns ? lanes : 1);
}

// to[q] = row[(first + q)*stride + residue], or 0 outside x, for q < count.
void CopyStrided(const float* row, int64_t width, int64_t first, int64_t stride, int64_t residue, int64_t count,
                 float* to) {
  const int64_t begin = std::clamp<int64_t>(-FloorDivide(residue, stride) - first, 0, count);
  const int64_t end = std::clamp<int64_t>(FloorDivide(width - 1 - residue, stride) + 1 - first, begin, count);
  std::fill(to, to + begin, 0.0f);
  const float* from = row + first * stride + residue;
  if (stride == 1) {
    std::memcpy(to + begin, from + begin, (end - begin) * sizeof(float));
  } else if (stride == 2) {
    GetProductKernels().every_second(from + 2 * begin, end - begin, to + begin);
  } else {
    for (int64_t q = begin; q < end; ++q) to[q] = from[q * stride];
  }
  std::fill(to + end, to + count, 0.0f);
}

}  // namespace

Correlation ForwardCorrelation(const ConvGeometry& g) {
  Correlation c{g.samples,       g.group_channels(), g.height,   g.width,    g.sample_size(),
                g.output_height, g.output_width,     g.stride_y, g.stride_x, {}};
  for (int64_t k = 0; k < g.kernel_height; ++k) {
    for (int64_t l = 0; l < g.kernel_width; ++l)
      c.taps.push_back({k * g.dilation_y - g.top, l * g.dilation_x - g.left});
  }
  return c;
}

bool ColumnMatrix::Fits(const Correlation& c) {
  // Products of these sizes may exceed int64_t.
  const double taps = static_cast<double>(c.taps.size());
  if (c.samples == 0 || c.rows == 0 || c.columns == 0) return false;
  if (c.taps.empty() || c.channels == 0) return true;
  if (c.taps.size() > kMostTaps || taps * static_cast<double>(c.channels) > kMostTableTerms) return false;
  const auto [top, bottom] =
      std::minmax_element(c.taps.begin(), c.taps.end(), [](const auto& a, const auto& b) { return a.y < b.y; });
  const auto [left, right] =
      std::minmax_element(c.taps.begin(), c.taps.end(), [](const auto& a, const auto& b) { return a.x < b.x; });
  const double window_rows = static_cast<double>(bottom->y - top->y) + 1;
  const double window_columns = static_cast<double>(right->x - left->x) + 1;
  // Each sample of a chunk has rows around it.
  const double chunk_rows = std::min(static_cast<double>(c.rows), static_cast<double>(kMostChunkColumns));
  const double rows = static_cast<double>(kMostChunkColumns) /
                          static_cast<double>(std::min(c.columns, kMostChunkColumns)) *
                          (static_cast<double>(c.stride_y) + window_rows / chunk_rows) +
                      window_rows;
  const double columns =
      static_cast<double>(std::min(c.columns, kMostChunkColumns)) * static_cast<double>(c.stride_x) + window_columns;
  const double channels = std::min(static_cast<double>(c.channels), static_cast<double>(kMostBlockTerms) / taps + 2);
  return rows * columns * channels <= kMostStageFloats;
}

ColumnMatrix::ColumnMatrix(Correlation correlation, int64_t most_terms, int64_t grain, int64_t lanes)
    : correlation_(std::move(correlation)),
      terms_(EvenChunks(correlation_.channels * static_cast<int64_t>(correlation_.taps.size()), most_terms, grain)),
      rows_(DivideRows(correlation_, lanes)),
      columns_(DivideColumns(correlation_, lanes)) {
  const Correlation& c = correlation_;
  stages_ = c.stride_y != 1 || c.stride_x != 1;
  int64_t most_y = 0, most_x = 0;
  for (size_t i = 0; i < c.taps.size(); ++i) {
    const auto& [y, x] = c.taps[i];
    stages_ |= y < 0 || x < 0 || c.rows - 1 + y >= c.height || c.columns - 1 + x >= c.width;
    const int64_t q_y = FloorDivide(y, c.stride_y), q_x = FloorDivide(x, c.stride_x);
    least_y_ = i == 0 ? q_y : std::min(least_y_, q_y);
    least_x_ = i == 0 ? q_x : std::min(least_x_, q_x);
    most_y = i == 0 ? q_y : std::max(most_y, q_y);
    most_x = i == 0 ? q_x : std::max(most_x, q_x);
  }
  if (stages_) {
    extra_rows_ = most_y - least_y_;
    extra_columns_ = most_x - least_x_;
    row_step_ = columns_.size + extra_columns_;
    // A chunk has rows of at most this many samples.
    const int64_t samples = std::min(c.samples, (rows_.size - 1) / c.rows + 2);
    plane_ = (std::min(rows_.size, rows_.count) + samples * extra_rows_) * row_step_;
  } else {
    row_step_ = c.width;
    channel_step_ = c.height * c.width;
  }
  std::vector<int64_t> of_taps;
  for (const auto& [y, x] : c.taps) {
    if (!stages_) {
      of_taps.push_back(y * c.width + x);
      continue;
    }
    const int64_t q_y = FloorDivide(y, c.stride_y), q_x = FloorDivide(x, c.stride_x);
    const Residue residue{y - q_y * c.stride_y, x - q_x * c.stride_x};
    auto found = std::find_if(residues_.begin(), residues_.end(),
                              [&](const Residue& r) { return r.y == residue.y && r.x == residue.x; });
    if (found == residues_.end()) found = residues_.insert(found, residue);
    of_taps.push_back((found - residues_.begin()) * plane_ + (q_y - least_y_) * row_step_ + q_x - least_x_);
  }
  if (stages_) channel_step_ = static_cast<int64_t>(residues_.size()) * plane_;
  for (int64_t block = 0; block < blocks(); ++block) {
    const int64_t channel = FirstChannel(block);
    most_channels_ = std::max(most_channels_, EndChannel(block) - channel);
    for (int64_t term = terms_.begin(block); term < terms_.end(block); ++term)
      offsets_.push_back((term / taps() - channel) * channel_step_ + of_taps[term % taps()]);
  }
}

int64_t ColumnMatrix::stage_floats() const { return stages_ ? most_channels_ * channel_step_ : 0; }

double ColumnMatrix::staged_moves() const {
  if (!stages_) return 0;
  const double moves = correlation_.stride_x == 1 ? 1 : kMovesPerStrided;
  return moves * static_cast<double>(chunks()) * static_cast<double>(correlation_.channels) *
         static_cast<double>(channel_step_);
}

const float* ColumnMatrix::Stage(const float* x, int64_t block, int64_t chunk, float* stage) const {
  const Correlation& c = correlation_;
  const int64_t first = FirstChannel(block), end = EndChannel(block);
  if (!stages_) return x + first * channel_step_;
  ForPieces(chunk, [&](const Piece& piece) {
    for (int64_t channel = first; channel < end; ++channel) {
      const float* plane = x + piece.sample * c.sample_step + channel * c.height * c.width;
      float* to = stage + (channel - first) * channel_step_ + piece.from;
      for (const Residue& residue : residues_) {
        for (int64_t i = 0; i < piece.rows + extra_rows_; ++i) {
          const int64_t y = (piece.row + i + least_y_) * c.stride_y + residue.y;
          const int64_t count = piece.columns + extra_columns_;
          if (y < 0 || y >= c.height) {
            std::fill_n(to + i * row_step_, count, 0.0f);
          } else {
            CopyStrided(plane + y * c.width, c.width, piece.column + least_x_, c.stride_x, residue.x, count,
                        to + i * row_step_);
          }
        }
        to += plane_;
      }
    }
  });
  return stage;
}

void ColumnMatrix::Copy(const float* from, int64_t block, int64_t term, int64_t terms, int64_t chunk, int64_t first,
                        int64_t count, float* to, int64_t to_step) const {
  const int64_t lanes = ProductLanes();
  VectorCopy copies[kMostChunkColumns];
  int64_t number = 0, run_end = -1;  // A copy from run_end continues the one before.
  ForPieces(chunk, [&](const Piece& piece) {
    const int64_t begin = std::max(first, piece.first),
                  end = std::min(first + count, piece.first + piece.rows * piece.columns);
    for (int64_t column = begin; column < end;) {
      const int64_t row = (column - piece.first) / piece.columns, in_row = (column - piece.first) % piece.columns;
      int64_t source = piece.from + row * row_step_ + in_row;
      int64_t rest = std::min(piece.columns - in_row, end - column);
      int64_t target = column - first;
      column += rest;
      if (source == run_end) {
        VectorCopy& last = copies[number - 1];
        const int64_t more = std::min(lanes - last.count, rest);
        last.count += more, source += more, target += more, rest -= more, run_end += more;
      }
      for (; rest > 0; source += lanes, target += lanes, rest -= lanes) {
        copies[number++] = {source, target, std::min(lanes, rest)};
        run_end = source + copies[number - 1].count;
      }
    }
  });
  GetProductKernels().copy_rows(from, offsets_.data() + first_term(block) + term, terms, copies, number, to, to_step);
}

}  // namespace gradweave
