// Ops that rearrange elements. Shapes may contain symbols: Reshape(x, {64 * Dim("batch"), 128}).
// Negative axes count from the end. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_SHAPE_OPS_H_
#define GRADWEAVE_OPS_SHAPE_OPS_H_

#include <source_location>
#include <vector>

#include "gradweave/ops/builder.h"

namespace gradweave {

// Keeps the order of the elements. One dimension may be -1; it is computed from the others.
Value Reshape(Operand x, Shape shape);
// Axis i of the result is axis permutation[i] of x; an empty permutation reverses the axes.
Value Transpose(Operand x, Integers permutation = {});
// Broadcasts x to the shape by NumPy's rules.
Value BroadcastTo(Operand x, Shape shape);
// Removes axes of size 1: those given, or all if none are given.
Value Squeeze(Operand x, Integers axes = {});
// Inserts axes of size 1 at these positions of the result.
Value ExpandDims(Operand x, Integers axes);
// Merges all axes from `axis` on into one.
Value Flatten(Operand x, int64_t axis = 1);
// Concatenates the values along an axis. All other dimensions must be equal.
Value Concat(const std::vector<Value>& values, int64_t axis,
             std::source_location location = std::source_location::current());
// Splits x along an axis into parts of these sizes. The sizes must add up to the dimension.
std::vector<Value> Split(Operand x, const std::vector<Dim>& sizes, int64_t axis);

// Selects elements start, start + step, ... below `limit` along each axis. With a negative step,
// selects start, start + step, ... above `limit`; the limit -1 then includes element 0. Starts and
// limits are inside the dimension and do not wrap around. Known dimensions are checked.
struct SliceOptions {
  Shape start;          // One element per axis.
  Shape limit;          // One element per axis.
  Integers steps = {};  // One nonzero step per axis; empty means ones.
};
Value Slice(Operand x, SliceOptions options);
// Slices along one axis.
Value SliceAxis(Operand x, int64_t axis, Dim start, Dim limit, int64_t step = 1);
// Reverses the order of the elements along the axes.
Value Reverse(Operand x, Integers axes);

// Adds elements with the value `value` around x: `low` before and `high` after it along each axis,
// and `interior` between neighbours. Negative `low` and `high` remove elements.
struct PadOptions {
  Shape low;               // One number per axis.
  Shape high;              // One number per axis.
  Integers interior = {};  // One number per axis, at least 0; empty means zeros.
  double value = 0;
};
Value Pad(Operand x, PadOptions options);

// Repeats x multiples[i] times along axis i.
Value Tile(Operand x, Integers multiples);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_SHAPE_OPS_H_
