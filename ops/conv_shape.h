// The common part of the definitions of convolutions.
#ifndef GRADWEAVE_OPS_CONV_SHAPE_H_
#define GRADWEAVE_OPS_CONV_SHAPE_H_

#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/op.h"
#include "gradweave/ops/conv.h"

namespace gradweave {

inline constexpr const char* kConvSides[] = {"height", "width"};

// The attributes stride, padding, dilation and groups.
std::vector<AttributeDefinition> ConvAttributes();

// Returns the options that a node with these attributes has.
Conv2DOptions ConvOptionsOf(const Node& node);

// Expands {height, width} to four numbers: top, bottom, left, right.
Integers FourPaddings(const Integers& padding);

// Returns the shape of a convolution's result, [n, o, oh, ow], for x [n, c, h, w] and a filter [o,
// c/groups, kh, kw]. Returns the op's error if the shapes or the attributes are wrong.
absl::StatusOr<Shape> ConvOutputShape(const OpView& op, const Shape& x, const Shape& filter);

// Counts two operations for each pair of a filter weight and an output element.
double ConvFlops(const Shape& filter, const Shape& output);

// A batch rule: the batch is axis 0 of the first operand, and no other operand has a batch.
absl::InlinedVector<BatchAxis, 2> SamplesOfFirstOperand(const OpView& op, absl::Span<const BatchAxis> operands);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_CONV_SHAPE_H_
