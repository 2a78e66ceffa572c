#include "gradweave/runtime/cpu/conv/winograd_tiles.h"

#include <algorithm>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// The most tiles of a strip: its inputs, for one vector of channels, stay in a first-level cache.
constexpr int64_t kStripTiles = 16;

}  // namespace

int64_t Lanes() { return GetProductKernels().lanes; }

int64_t PanelWidth() { return GetProductKernels().panel_vectors * Lanes(); }

double ProductsOfBlock(double rows) {
  // Small blocks are limited by their loads, or by the latency of a product.
  constexpr double kProductsPerLoad = 1.3;
  const double vectors = GetProductKernels().panel_vectors;
  return std::max(
      {rows * vectors, kProductsPerLoad * (rows + vectors), static_cast<double>(ThisMachine().products_in_flight)});
}

Chunks EvenChunks(int64_t count, int64_t most) {
  const int64_t number = std::max<int64_t>(DivideUp(count, std::max<int64_t>(most, 1)), 1);
  return Chunks(count, DivideUp(count, number), number);
}

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
