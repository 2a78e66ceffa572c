// Sizes of a convolution.
#ifndef GRADWEAVE_RUNTIME_KERNEL_CONV_GEOMETRY_H_
#define GRADWEAVE_RUNTIME_KERNEL_CONV_GEOMETRY_H_

#include <cstdint>
#include <limits>

#include "gradweave/graph/graph.h"

namespace gradweave {

// Sizes of a Conv2D node, in elements: x [samples, channels, height, width], the filter [outputs,
// channels / groups, kernel_height, kernel_width] and y [samples, outputs, output_height,
// output_width].
struct ConvGeometry {
  int64_t samples, channels, height, width;
  int64_t outputs, kernel_height, kernel_width;
  int64_t output_height, output_width;
  // `top` and `left` are the padding before the first row and column.
  int64_t stride_y, stride_x, dilation_y, dilation_x, top, left, groups;

  // The shapes must be fully known.
  ConvGeometry(const Node& node, const Shape& x, const Shape& filter, const Shape& y)
      : samples(x[0].size()),
        channels(x[1].size()),
        height(x[2].size()),
        width(x[3].size()),
        outputs(filter[0].size()),
        kernel_height(filter[2].size()),
        kernel_width(filter[3].size()),
        output_height(y[2].size()),
        output_width(y[3].size()) {
    const Integers& stride = node.attribute<Integers>("stride");
    const Integers& dilation = node.attribute<Integers>("dilation");
    const Integers& padding = node.attribute<Integers>("padding");
    stride_y = stride[0];
    stride_x = stride[1];
    dilation_y = dilation[0];
    dilation_x = dilation[1];
    top = padding[0];
    left = padding[2];
    groups = node.attribute<int64_t>("groups");
    pointwise = kernel_height == 1 && kernel_width == 1 && stride_y == 1 && stride_x == 1 && output_height == height &&
                output_width == width && top == 0 && left == 0;
  }

  // A product [rows, terms] x [terms, columns] as a 1x1 convolution of an image with one pixel for
  // each row.
  ConvGeometry(int64_t rows, int64_t terms, int64_t columns)
      : samples(1),
        channels(terms),
        height(rows),
        width(1),
        outputs(columns),
        kernel_height(1),
        kernel_width(1),
        output_height(rows),
        output_width(1),
        stride_y(1),
        stride_x(1),
        dilation_y(1),
        dilation_x(1),
        top(0),
        left(0),
        groups(1),
        pointwise(true) {}

  int64_t group_channels() const { return channels / groups; }
  int64_t group_outputs() const { return outputs / groups; }
  // Number of multiply-adds for one element of y.
  int64_t taps() const { return group_channels() * kernel_height * kernel_width; }
  // Returns true if strides and dilations are 1.
  bool unit_strides() const { return stride_y == 1 && stride_x == 1 && dilation_y == 1 && dilation_x == 1; }
  // Number of elements of one channel of y, and of one sample of x and of y.
  int64_t pixels() const { return output_height * output_width; }
  int64_t sample_size() const { return channels * height * width; }
  int64_t output_size() const { return outputs * pixels(); }
  int64_t filter_size() const { return outputs * taps(); }
  // Elements of the im2col matrix for one group of one sample; 0 where x itself serves as the
  // matrix, and where there is nothing to convolve. The filter and y may each have as many elements
  // as a tensor can, so their product saturates.
  int64_t columns_size() const {
    if (pointwise || samples == 0 || outputs == 0) return 0;
    int64_t elements;
    const bool overflows = __builtin_mul_overflow(taps(), pixels(), &elements);
    return overflows ? std::numeric_limits<int64_t>::max() : elements;
  }

  // True if x itself is the im2col matrix: a 1x1 kernel with stride 1 and no padding.
  bool pointwise;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_CONV_GEOMETRY_H_
