// Functions that show elements in another shape: Reshape, and functions composed of it.
#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/builder.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave {

Value Reshape(Operand x, Shape shape) {
  if (!x.is_value()) return NeedsValue("Reshape", x);
  int open = -1;
  Dim known(1);
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (!(shape[axis] == Dim(-1))) {
      known = known * shape[axis];
      continue;
    }
    if (open >= 0)
      return BuilderError("Reshape", {x}, absl::StrCat("the shape ", shape.ToString(), " has more than one -1"));
    open = axis;
  }
  if (open >= 0) {
    const Dim elements = x.shape().num_elements();
    std::optional<Dim> rest = known == Dim(0) ? std::nullopt : DivideExactly(elements, known);
    if (!rest.has_value()) {
      return BuilderError("Reshape", {x},
                          absl::StrCat("the ", elements.ToString(), " elements are not a multiple of ",
                                       known.ToString(), ", so no size fits the -1 in ", shape.ToString()));
    }
    shape[open] = *rest;
  }
  return AddOp("Reshape", {x}, {{"shape", shape}});
}

Value Squeeze(Operand x, Integers axes) {
  if (!x.is_value()) return NeedsValue("Squeeze", x);
  std::vector<bool> removed(x.rank(), false);
  for (int64_t axis : axes) {
    const int64_t normalized = NormalizedAxis(axis, x.rank());
    if (normalized < 0 || !(x.shape()[normalized] == Dim(1))) {
      return BuilderError("Squeeze", {x}, absl::StrCat("axis ", axis, " is not an axis of size 1"));
    }
    removed[normalized] = true;
  }
  Shape shape;
  for (int axis = 0; axis < x.rank(); ++axis) {
    const bool drop = axes.empty() ? x.shape()[axis] == Dim(1) : removed[axis];
    if (!drop) shape.Append(x.shape()[axis]);
  }
  return AddOp("Reshape", {x}, {{"shape", shape}});
}

Value ExpandDims(Operand x, Integers axes) {
  if (!x.is_value()) return NeedsValue("ExpandDims", x);
  const int rank = x.rank() + static_cast<int>(axes.size());
  for (int64_t& axis : axes) {
    const int64_t normalized = NormalizedAxis(axis, rank);
    if (normalized < 0)
      return BuilderError("ExpandDims", {x}, absl::StrCat("axis ", axis, " is outside [-", rank, ", ", rank, ")"));
    axis = normalized;
  }
  std::sort(axes.begin(), axes.end());
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end())
    return BuilderError("ExpandDims", {x}, "an axis is given twice");
  Shape shape = x.shape();
  for (int64_t axis : axes) shape.Insert(static_cast<int>(axis), Dim(1));
  return AddOp("Reshape", {x}, {{"shape", shape}});
}

Value Flatten(Operand x, int64_t axis) {
  if (!x.is_value()) return NeedsValue("Flatten", x);
  // Flatten(x, rank) adds an axis of size 1.
  const int64_t first = axis == x.rank() ? axis : NormalizedAxis(axis, x.rank());
  if (first < 0)
    return BuilderError("Flatten", {x}, absl::StrCat("axis ", axis, " is outside [", -x.rank(), ", ", x.rank(), "]"));
  Shape shape;
  Dim rest(1);
  for (int i = 0; i < x.rank(); ++i) {
    if (i < first)
      shape.Append(x.shape()[i]);
    else
      rest = rest * x.shape()[i];
  }
  shape.Append(rest);
  return AddOp("Reshape", {x}, {{"shape", shape}});
}

// [.., n, ..] -> [.., 1, n, ..] -> [.., multiple, n, ..] -> [.., multiple*n, ..].
Value Tile(Operand x, Integers multiples) {
  if (!x.is_value()) return NeedsValue("Tile", x);
  if (static_cast<int>(multiples.size()) != x.rank()) {
    return BuilderError(
        "Tile", {x},
        absl::StrCat("there have to be ", x.rank(), " multiples, one for each axis, and there are ", multiples.size()));
  }
  Shape apart, repeated, joined;
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (multiples[axis] < 0)
      return BuilderError("Tile", {x}, absl::StrCat("the multiple of axis ", axis, " is negative"));
    const Dim& size = x.shape()[axis];
    for (const Dim& dim : {Dim(1), size}) apart.Append(dim);
    for (const Dim& dim : {Dim(multiples[axis]), size}) repeated.Append(dim);
    joined.Append(Dim(multiples[axis]) * size);
  }
  const CallLocation location(x);
  return Reshape(BroadcastTo(Reshape(x, apart), repeated), joined);
}

}  // namespace gradweave
