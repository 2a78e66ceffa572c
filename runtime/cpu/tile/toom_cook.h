// Convolutions with fewer multiplications: rows of a tile by the algorithm of Toom and Cook, as minimal filtering
// (Winograd, "Arithmetic Complexity of Computations", 1980, section IV; Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks", 2016, section 4.1, here in one dimension).
//
// `outputs` neighbouring columns of an output row are the values at points of a product of polynomials: transform
// `points` = outputs + kernel width - 1 neighbouring columns of the input and each row of the filter, multiply and sum
// over channels and rows of the filter point by point, and transform back. The sums are weighted sums like those of the
// direct convolution, with points/outputs in place of kernel width products a column.
//
// Where the output is wider than the input, as the gradient of an input is, the algorithm's other form takes fewer
// products: `outputs` neighbouring columns of the input and a row of the filter are polynomials; multiply their values
// at the points, and add the products' coefficients to the output, where those of neighbours overlap. One form is the
// other's transpose.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_H_

#include <cstdint>

#include "gradweave/runtime/cpu/tile/tile_program.h"

namespace gradweave {

// A convolution with strides and dilations of one, as Conv2D and Conv2DInputGrad lower to:
// y[o][r][c] = bias[o] + sum over i, k, l of w[o][i][k][l] * x[i][r + k - top][c + l - left], zero outside x.
struct UnitConvolution {
  TileValueId x, y;
  int64_t groups, inputs, outputs;  // Channels of one group.
  int64_t kernel_height, kernel_width;
  int64_t top, left;
  int weights;  // Operand of the region.
  // Where w[o][i][k][l] of a group is, in elements: start + group*group_step + o*output_step + ...
  int64_t start, group_step, output_step, input_step, row_step, column_step;
  int bias;  // Operand; -1: none.
};

// Lowers the convolution, if that is expected to be quicker than the direct one and its results are as good: the points
// are such that an element's error stays within 1e-6 of the largest sum of absolute terms in its row, for kernels 2 to
// 7 wide. (Columns that are computed together share their rounding errors, so that one of few or small terms may have
// more error than a sum of its own would.)
bool LowerToomCook(TileBuilder& builder, NodeId node, const UnitConvolution& convolution);

// The gradient of such a convolution's filter, [o][i][k][l] =
// sum over samples, r and c of dy[o][r][c] * x[i][r + k - top][c + l - left].
struct UnitFilterGrad {
  TileValueId x, dy;
  int64_t groups, inputs, outputs;  // Channels of one group.
  int64_t kernel_height, kernel_width;
  int64_t top, left;
};

// The same for the gradient: `outputs` columns of dy take the filter's part, and the filter's columns that of the
// results. Products are summed at the points, over all samples, before they are transformed back.
bool LowerToomCookFilterGrad(TileBuilder& builder, NodeId node, const UnitFilterGrad& gradient);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_H_
