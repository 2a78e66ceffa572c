// Ops that rearrange elements. Shapes may hold symbols: Reshape(x, {64 * Dim("batch"), 128}).
#ifndef GRADWEAVE_OPS_SHAPE_OPS_H_
#define GRADWEAVE_OPS_SHAPE_OPS_H_

#include <source_location>
#include <vector>

#include "gradweave/ops/builder.h"

namespace gradweave {

// One dimension may be -1: what is left of the elements.
Value Reshape(Operand x, Shape shape);
// Axis i of the result is axis permutation[i] of x; an empty permutation reverses the axes.
Value Transpose(Operand x, Integers permutation = {});
// NumPy broadcasting to the shape.
Value BroadcastTo(Operand x, Shape shape);
// Removes the axes, which have size 1; all such where none are given.
Value Squeeze(Operand x, Integers axes = {});
// Inserts axes of size 1; the axes are those of the result.
Value ExpandDims(Operand x, Integers axes);
// All axes from `axis` on become one.
Value Flatten(Operand x, int64_t axis = 1);
// Joins along an axis; the other dimensions are equal.
Value Concat(const std::vector<Value>& values, int64_t axis,
             std::source_location location = std::source_location::current());
// Parts of these sizes along an axis; the sizes add up to the dimension.
std::vector<Value> Split(Operand x, const std::vector<Dim>& sizes, int64_t axis);

// Elements start, start + step, ... before limit along each axis. A negative step goes from start down to, and without,
// limit; -1 as limit then includes element 0. Starts and limits lie inside the dimension (no wrapping): for known
// dimensions that is checked.
struct SliceOptions {
  Shape start;          // One per axis.
  Shape limit;          // One per axis.
  Integers steps = {};  // Ones where empty; not zero.
};
Value Slice(Operand x, SliceOptions options);
// The same along one axis.
Value SliceAxis(Operand x, int64_t axis, Dim start, Dim limit, int64_t step = 1);
// The axes in opposite order of elements.
Value Reverse(Operand x, Integers axes);

// Adds elements of the value around x, and `interior` elements between neighbours. Negative low and high remove.
struct PadOptions {
  Shape low;               // One per axis.
  Shape high;              // One per axis.
  Integers interior = {};  // Zeros where empty.
  double value = 0;
};
Value Pad(Operand x, PadOptions options);

// x repeated multiples[i] times along axis i.
Value Tile(Operand x, Integers multiples);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_SHAPE_OPS_H_
