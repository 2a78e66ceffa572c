// The im2col matrix of a correlation, of which only panels exist, in a cache.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_COLUMN_MATRIX_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_COLUMN_MATRIX_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// Sums over windows of x. Output (i, j) of a sample reads channel c at row i*stride_y + tap.y and
// column j*stride_x + tap.x for each tap; elements outside x are 0.
struct Correlation {
  struct Tap {
    int64_t y, x;
  };
  int64_t samples, channels, height, width;  // The sizes of x; the channels are those of one group.
  int64_t sample_step;                       // Floats between samples of x.
  int64_t rows, columns;                     // The size of an output image.
  int64_t stride_y, stride_x;
  std::vector<Tap> taps;
};

// Returns the correlation of a convolution with one group of channels of x.
Correlation ForwardCorrelation(const ConvGeometry& g);

// Maximum terms of a block: a panel of two vectors stays in a first-level cache of 48 KB, or
// streams from the second level.
inline constexpr int64_t kMostBlockTerms = 320;
// Maximum columns of a chunk, so that the panels of a block of terms stay in the second-level
// cache.
inline constexpr int64_t kMostChunkColumns = 256;

// The matrix [terms, columns] with one term for each channel and tap, taps innermost, and one
// column for each output, in the order of samples, rows and columns of the output. Columns are
// divided into chunks, whose number depends on the sizes alone. A chunk is read in two steps: Stage
// copies what the chunk reads of some channels of x, with zeros around it and by residues of the
// strides; Copy then takes rows of the matrix from there, which are contiguous except at the ends
// of rows of the output. If there is no padding and no stride, Copy reads x itself.
class ColumnMatrix {
 public:
  // Returns false for sizes that are empty, or so large that tables of taps or the staged copy
  // leave the cache.
  static bool Fits(const Correlation& correlation);
  // Terms are divided into blocks of nearly equal size and at most `most_terms`, which is at most
  // kMostBlockTerms and a multiple of `grain`. All blocks but the last one are multiples of it.
  // Chunks are divided for vectors of `lanes` columns.
  ColumnMatrix(Correlation correlation, int64_t most_terms, int64_t grain, int64_t lanes);

  int64_t terms() const { return terms_.count; }
  int64_t blocks() const { return terms_.number; }
  int64_t first_term(int64_t block) const { return terms_.begin(block); }
  int64_t block_terms(int64_t block) const { return terms_.end(block) - terms_.begin(block); }
  int64_t chunks() const { return rows_.number * columns_.number; }
  int64_t most_columns() const { return rows_.size * columns_.size; }
  int64_t chunk_columns(int64_t chunk) const {
    return (rows_.end(chunk / columns_.number) - rows_.begin(chunk / columns_.number)) * WidthOf(chunk);
  }
  // Floats that Stage writes for a block of terms.
  int64_t stage_floats() const;
  // Moved floats that take as long as Stage for all blocks and chunks.
  double staged_moves() const;

  // Part of a chunk in one sample: rows and columns of the output, the first of which is column
  // `first` of the chunk.
  struct Piece {
    int64_t sample, row, rows, column, columns, first;
    int64_t from;  // Copy reads tap (0, 0) of that output at this offset, in floats.
  };
  template <typename Body>
  void ForPieces(int64_t chunk, Body body) const {
    const int64_t part = chunk % columns_.number, end = rows_.end(chunk / columns_.number);
    const int64_t column = columns_.begin(part), width = WidthOf(chunk);
    int64_t first = 0, staged = 0;
    for (int64_t row = rows_.begin(chunk / columns_.number); row < end;) {
      const int64_t sample = row / correlation_.rows, top = row % correlation_.rows;
      const int64_t count = std::min(correlation_.rows - top, end - row);
      const int64_t from =
          stages_ ? staged * row_step_ : sample * correlation_.sample_step + top * correlation_.width + column;
      body(Piece{sample, top, count, column, width, first, from});
      first += count * width;
      staged += count + extra_rows_;
      row += count;
    }
  }

  // Returns what Copy reads for a block of terms of a chunk. `stage` has stage_floats() floats.
  const float* Stage(const float* x, int64_t block, int64_t chunk, float* stage) const;
  // Copies columns [first, first + count) of `terms` terms of a block, beginning with term `term`
  // of the block. The element of term t and column c goes to to[t*to_step + c - first]. What is
  // behind the last column is overwritten up to the next multiple of a vector, and so are that many
  // floats behind the last term. `count` is at most kMostChunkColumns.
  void Copy(const float* from, int64_t block, int64_t term, int64_t terms, int64_t chunk, int64_t first, int64_t count,
            float* to, int64_t to_step) const;

 private:
  int64_t WidthOf(int64_t chunk) const {
    return columns_.end(chunk % columns_.number) - columns_.begin(chunk % columns_.number);
  }
  // The channels of x that a block of terms reads.
  int64_t FirstChannel(int64_t block) const { return terms_.begin(block) / taps(); }
  int64_t EndChannel(int64_t block) const { return (terms_.end(block) - 1) / taps() + 1; }
  int64_t taps() const { return static_cast<int64_t>(correlation_.taps.size()); }
  // Rows and columns of x with equal remainders by the strides, which the stage holds together.
  struct Residue {
    int64_t y, x;
  };

  Correlation correlation_;
  Chunks terms_;
  bool stages_;
  // The stage has the least quotients of taps by strides, and the excess of the greatest over them.
  int64_t least_y_ = 0, least_x_ = 0, extra_rows_ = 0, extra_columns_ = 0;
  std::vector<Residue> residues_;
  // Distances in what Copy reads: between rows of the output, and between channels.
  int64_t row_step_ = 0, plane_ = 0, channel_step_ = 0;
  int64_t most_channels_ = 0;     // The most channels that a block has.
  std::vector<int64_t> offsets_;  // Copy reads a term at this distance from the block's first channel.
  Chunks rows_, columns_;         // Rows of all samples, columns of a row.
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_COLUMN_MATRIX_H_
