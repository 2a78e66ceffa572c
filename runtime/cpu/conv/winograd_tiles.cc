#include "gradweave/runtime/cpu/conv/winograd_tiles.h"

#include <algorithm>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/even_chunks.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// The most tiles of a strip: its inputs, for one vector of channels, stay in a first-level cache.
constexpr int64_t kStripTiles = 16;

}  // namespace

TileStrips::TileStrips(int64_t samples, int64_t height, int64_t width, int64_t size)
    : samples(samples),
      size(size),
      rows(DivideUp(height, size)),
      columns(EvenChunks(DivideUp(width, size), kStripTiles)) {}

TileStrip TileStrips::At(int64_t index) const {
  const int64_t part = index % columns.number, row = index / columns.number;
  return {.sample = row / rows,
          .row = row % rows,
          .column = columns.begin(part),
          .tiles = columns.end(part) - columns.begin(part)};
}

void FillStrip(const float* image, int64_t height, int64_t width, const ImagePart& part, float* to) {
  const ProductKernels& kernels = GetProductKernels();
  const int64_t lanes = kernels.lanes;
  const int64_t begin = std::clamp<int64_t>(-part.left, 0, part.columns);
  const int64_t end = std::clamp(width - part.left, begin, part.columns);
  for (int64_t row = part.top; row < part.top + part.rows; ++row, to += part.columns * lanes) {
    const bool inside = row >= 0 && row < height && begin < end;
    std::fill_n(to, (inside ? begin : part.columns) * lanes, 0.0f);
    if (!inside) continue;
    kernels.transpose(image + row * width + part.left + begin, part.channels, end - begin, height * width,
                      to + begin * lanes, lanes);
    std::fill_n(to + end * lanes, (part.columns - end) * lanes, 0.0f);
  }
}

}  // namespace gradweave
