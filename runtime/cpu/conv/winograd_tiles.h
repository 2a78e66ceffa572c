// Tiles of images for minimal filtering (winograd.h).
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_TILES_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_TILES_H_

#include <cstdint>

#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// Neighbouring tiles of one row of tiles. `row` and `column` count tiles.
struct TileStrip {
  int64_t sample, row, column, tiles;
};

// The tiles of a batch of images, each of `size` rows and columns of the image, as strips that are
// short enough for a first-level cache.
struct TileStrips {
  TileStrips(int64_t samples, int64_t height, int64_t width, int64_t size);
  int64_t number() const { return samples * rows * columns.number; }
  TileStrip At(int64_t index) const;

  int64_t samples, size;
  int64_t rows;    // Rows of tiles of an image.
  Chunks columns;  // Columns of tiles, in strips.
};

// A part of one vector of channels of an image: rows [top, top + rows) and columns [left, left +
// columns), which may be outside.
struct ImagePart {
  int64_t top, rows, left, columns, channels;
};
// Copies it to [row][column][channel], with zeros outside of the image. Channels beyond the last
// one are left as they are. `image` points to the first channel.
void FillStrip(const float* image, int64_t height, int64_t width, const ImagePart& part, float* to);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_TILES_H_
