// Convolutions with fewer multiplications: the Toom-Cook algorithm on rows of a tile, as minimal
// filtering (Winograd, "Arithmetic Complexity of Computations", 1980, section IV; Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.1, here in one dimension).
//
// A tile of a row is `outputs` neighbouring columns of the output. They are coefficients of a
// product of polynomials, which the algorithm computes from values at points: it transforms
// `points` = outputs + kernel width - 1 neighbouring columns of the input and each row of the
// filter, multiplies and sums over channels and filter rows point by point, and transforms the sums
// back. The sums have the form of the direct convolution's weighted sums, with points/outputs
// instead of kernel-width products for each column.
//
// If the output is wider than the input, as for the gradient of an input, the transposed form of
// the algorithm takes fewer products. A tile is then `outputs` neighbouring columns of the input.
// These and a row of the filter are polynomials; the algorithm multiplies their values at the
// points and adds the coefficients of the products to the output, where neighbouring tiles overlap.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_H_

#include <cstdint>

#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"
#include "gradweave/runtime/kernel/conv_geometry.h"

namespace gradweave {

// A convolution with strides and dilations of 1, the form to which Conv2D and Conv2DInputGrad
// lower: y[o][r][c] = bias[o] + sum over i, k, l of w[o][i][k][l] * x[i][r + k - top][c + l -
// left], where x is zero outside its bounds.
struct UnitConvolution {
  TileValueId x = -1, y = -1;
  int64_t groups, inputs, outputs;  // Channels of one group.
  int64_t kernel_height, kernel_width;
  int64_t top, left;
  int weights = -1;  // Index of the region's operand.
  // Address of w[o][i][k][l] in elements: start + group*group_step + o*output_step + i*input_step +
  // k*row_step + l*column_step.
  int64_t start, group_step, output_step, input_step, row_step, column_step;
  int bias = -1;  // Index of the operand; -1 means none.
  // How often weights are packed for each row of the output: 1 / (rows * tiles) in a plan that
  // packs them in each run, 0 in others.
  double packings = 0;
};
// Return Conv2D and Conv2DInputGrad with unit strides as such a convolution, without values and
// operands, which the caller adds. dx is the convolution of dy with the flipped filter, whose
// channels and outputs trade places.
UnitConvolution UnitConvolutionOf(const ConvGeometry& g);
UnitConvolution UnitInputGradOf(const ConvGeometry& g);

// Lowers the convolution and returns true if that is expected to be faster than the direct form and
// as accurate. The points keep the error of an element within 1e-6 of the largest sum of absolute
// terms in its row, for kernels 2 to 7 wide. Columns of a tile share their rounding errors, so an
// element with few or small terms may have a larger error than a separate sum would.
bool LowerToomCook(TileBuilder& builder, NodeId node, const UnitConvolution& convolution);

// The filter gradient of such a convolution: [o][i][k][l] = sum over samples, r and c of
// dy[o][r][c] * x[i][r + k - top][c + l - left].
struct UnitFilterGrad {
  TileValueId x = -1, dy = -1;
  int64_t groups, inputs, outputs;  // Channels of one group.
  int64_t kernel_height, kernel_width;
  int64_t top, left;
};
// Returns the gradient of the filter with unit strides, without values.
UnitFilterGrad UnitFilterGradOf(const ConvGeometry& g);

// Lowers the filter gradient under the same conditions. `outputs` columns of dy take the role of
// the filter, and the filter's columns the role of the results. Products are summed at the points
// over all samples before they are transformed back.
bool LowerToomCookFilterGrad(TileBuilder& builder, NodeId node, const UnitFilterGrad& gradient);

// Return the cost of one group's row of the output, or of dy, by the cheaper of the direct form and
// the best transform. `toom_cook` allows transforms.
Estimate RowEstimate(const TileKernels& kernels, const UnitConvolution& convolution, int64_t input_columns,
                     int64_t columns, bool toom_cook);
Estimate RowEstimate(const TileKernels& kernels, const UnitFilterGrad& gradient, int64_t rows, int64_t columns,
                     bool toom_cook);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_H_
