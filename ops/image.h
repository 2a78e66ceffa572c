// Functions on images [batch, channels, spatial axes...], composed of ops. Errors are recorded in
// the graph.
#ifndef GRADWEAVE_OPS_IMAGE_H_
#define GRADWEAVE_OPS_IMAGE_H_

#include <cstdint>

#include "gradweave/ops/builder.h"

namespace gradweave {

// The parts of a channel's number: the channel of the block comes first (depth, column, row) or
// last (column, row, depth).
enum class BlockOrder { kDepthColumnRow, kColumnRowDepth };
// Moves channels to blocks of block x block pixels: [n, c*block^2, h, w] -> [n, c, h*block,
// w*block] (Shi et al., "Real-time single image and video super-resolution", 2016).
Value DepthToSpace(Operand x, int64_t block, BlockOrder order = BlockOrder::kDepthColumnRow);
// The inverse of DepthToSpace with kDepthColumnRow: [n, c, h*block, w*block] -> [n, c*block^2, h,
// w].
Value SpaceToDepth(Operand x, int64_t block);

// Options of Col2Im. Empty lists mean ones, or zeros for the padding.
struct Col2ImOptions {
  Integers stride, dilation;           // One number for each spatial axis, at least 1.
  Integers padding_low, padding_high;  // Elements that are cut from the image, at least 0.
};
// Adds blocks to an image where they overlap: x [n, c*k, l], where k is the number of elements of a
// block and l is the number of blocks, gives [n, c, image sizes...]. Blocks begin `stride` apart,
// and their elements lie `dilation` apart. It is the transpose of taking blocks from images.
Value Col2Im(Operand x, const Integers& image, const Integers& block, const Col2ImOptions& options = {});

enum class GridMode { kNearest, kLinear, kCubic };  // Cubic: Keys' a is -0.75.
enum class GridPadding {
  kZeros,       // Numbers outside of x are 0.
  kBorder,      // A place outside is moved to the border.
  kReflection,  // A place outside is reflected at the border.
};
struct GridSampleOptions {
  GridMode mode = GridMode::kLinear;
  GridPadding padding = GridPadding::kZeros;
  // If true, -1 and 1 are the middles of the outer pixels, else their outer edges.
  bool align_corners = false;
};
// Samples x [n, c, spatial axes...], 1 to 3 of them, at the places of grid [n, sizes..., axes]:
// gives [n, c, sizes...]. The last axis of the grid has the coordinates, from -1 to 1, in reverse
// order of the spatial axes (Jaderberg et al., "Spatial transformer networks", 2015). Both operands
// have one floating dtype, and both have gradients.
Value GridSample(Operand x, Operand grid, const GridSampleOptions& options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_IMAGE_H_
