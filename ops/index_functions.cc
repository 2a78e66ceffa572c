#include "gradweave/ops/index_functions.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

// Numbers the elements of axes in row-major order: coordinates are added from the first axis to the
// last.
struct Places {
  Value number;  // int64. Not valid before the first axis.
  Value inside;  // bool: where all indices are in range. Not valid if none has been checked.

  void Add(const Value& coordinate, const Operand& size) {
    number = number.valid() ? number * size + coordinate : coordinate;
  }
  // Adds coordinates from the user.
  void AddChecked(const Value& index, const Operand& size) {
    const Value wrapped = Where(index < 0, index + size, index), fits = wrapped >= 0 && wrapped < size;
    inside = inside.valid() ? inside && fits : fits;
    Add(wrapped, size);
  }
  // The numbers, and -1, which no gather or scatter takes, where an index is out of range.
  Value Checked() const { return Where(inside, number, -1); }
};

bool IsIndex(const Operand& indices) { return indices.is_value() && IsInteger(indices.dtype()); }

// The result if the indices are invalid.
Value NoIndices(absl::string_view name, const Operand& x, const Operand& indices) {
  if (!AllValid(name, {x, indices})) return Invalid(x);
  return BuilderError(name, {x, indices}, "the indices have to be int32, int64 or uint8");
}

// The places in x as one row of the elements that GatherElements takes, of the shape of the
// indices. Returns nullopt after an error.
std::optional<Value> ElementPlaces(absl::string_view name, const Operand& x, const Operand& indices, int64_t axis) {
  const int64_t at = NormalizedAxis(axis, x.rank());
  if (at < 0) {
    BuilderError(name, {x, indices}, AxisError(x, axis));
    return std::nullopt;
  }
  bool fits = indices.rank() == x.rank();
  for (int i = 0; fits && i < x.rank(); ++i) {
    const Dim &size = x.shape()[i], &taken = indices.shape()[i];
    fits = i == at || !size.is_known() || !taken.is_known() || taken.size() <= size.size();
  }
  if (!fits) {
    BuilderError(name, {x, indices},
                 absl::StrCat("the indices need the rank of x, and at most its sizes on all axes but axis ", axis));
    return std::nullopt;
  }
  Places places;
  for (int i = 0; i < x.rank(); ++i) {
    if (i == at) {
      places.AddChecked(Cast(indices, kInt64), SizeOf(x.value(), i));
    } else {
      places.Add(WithAxesBehind(RangeLike(x, indices.shape()[i]), x.rank() - 1 - i), SizeOf(x.value(), i));
    }
  }
  return places.Checked();
}

// Slices that indices [..., k] name.
struct SlicePlaces {
  Value places;    // In x with its first axes as one: int64 [...].
  Shape flat;      // The shape of x with its first axes as one.
  Shape gathered;  // The shape of the result: [...] and that of a slice.
};

std::optional<SlicePlaces> FindSlices(absl::string_view name, const Operand& x, const Operand& indices,
                                      int64_t batch_axes) {
  const int last = indices.rank() - 1;
  const Dim count = last >= 0 ? indices.shape()[last] : Dim(0);
  bool fits = last >= 0 && count.is_known() && count.size() >= 1 && batch_axes >= 0 && batch_axes <= last &&
              batch_axes + count.size() <= x.rank();
  for (int i = 0; fits && i < batch_axes; ++i) fits = x.shape()[i] == indices.shape()[i];
  if (!fits) {
    BuilderError(name, {x, indices},
                 absl::StrCat("the indices have to be [..., k], with a known k of at least 1, and x needs the first ",
                              batch_axes, " axes of the indices and k axes behind them"));
    return std::nullopt;
  }
  Places places;
  for (int i = 0; i < batch_axes; ++i)
    places.Add(WithAxesBehind(RangeLike(x, indices.shape()[i]), last - 1 - i), SizeOf(x.value(), i));
  const Value numbers = Cast(indices, kInt64);
  const int named = static_cast<int>(batch_axes + count.size());
  for (int i = static_cast<int>(batch_axes); i < named; ++i) {
    const int64_t column = i - batch_axes;
    places.AddChecked(Squeeze(SliceAxis(numbers, last, column, column + 1), {last}), SizeOf(x.value(), i));
  }
  SlicePlaces slices = {.places = places.Checked()};
  Dim joined(1);
  for (int i = 0; i < named; ++i) joined = joined * x.shape()[i];
  slices.flat = {joined};
  for (int i = 0; i < last; ++i) slices.gathered.Append(indices.shape()[i]);
  for (int i = named; i < x.rank(); ++i) {
    slices.flat.Append(x.shape()[i]);
    slices.gathered.Append(x.shape()[i]);
  }
  return slices;
}

}  // namespace

Value WrapIndices(Operand indices, Operand x, int64_t axis) {
  if (!x.is_value()) return NeedsValue("WrapIndices", x);
  if (!IsIndex(indices)) return NoIndices("WrapIndices", x, indices);
  const int64_t at = NormalizedAxis(axis, x.rank());
  if (at < 0) return BuilderError("WrapIndices", {x, indices}, AxisError(x, axis));
  const CallLocation location(x);
  const Value index = Cast(indices, kInt64);
  return Where(index < 0, index + SizeOf(x.value(), static_cast<int>(at)), index);
}

Value GatherElements(Operand x, Operand indices, int64_t axis) {
  if (!x.is_value()) return NeedsValue("GatherElements", x);
  if (!IsIndex(indices)) return NoIndices("GatherElements", x, indices);
  const CallLocation location(x);
  const std::optional<Value> places = ElementPlaces("GatherElements", x, indices, axis);
  return places.has_value() ? Gather(Flatten(x, 0), *places) : Invalid(x);
}

Value ScatterElements(Operand x, Operand indices, Operand updates, ScatterOptions options) {
  if (!x.is_value()) return NeedsValue("ScatterElements", x);
  if (!IsIndex(indices)) return NoIndices("ScatterElements", x, indices);
  if (!updates.is_value()) return NeedsValue("ScatterElements", updates);
  if (!(updates.shape() == indices.shape()) || updates.dtype() != x.dtype()) {
    return BuilderError("ScatterElements", {x, indices, updates},
                        "the updates have to have the shape of the indices and the dtype of x");
  }
  const CallLocation location(x);
  const std::optional<Value> places = ElementPlaces("ScatterElements", x, indices, options.axis);
  if (!places.has_value()) return Invalid(x);
  const Value flat = Scatter(Flatten(x, 0), *places, updates, {.reduction = options.reduction});
  return Reshape(flat, x.shape());
}

Value GatherND(Operand x, Operand indices, int64_t batch_axes) {
  if (!x.is_value()) return NeedsValue("GatherND", x);
  if (!IsIndex(indices)) return NoIndices("GatherND", x, indices);
  const CallLocation location(x);
  const std::optional<SlicePlaces> slices = FindSlices("GatherND", x, indices, batch_axes);
  return slices.has_value() ? Gather(Reshape(x, slices->flat), slices->places) : Invalid(x);
}

Value ScatterND(Operand x, Operand indices, Operand updates, ScatterReduction reduction) {
  if (!x.is_value()) return NeedsValue("ScatterND", x);
  if (!IsIndex(indices)) return NoIndices("ScatterND", x, indices);
  if (!updates.is_value()) return NeedsValue("ScatterND", updates);
  const CallLocation location(x);
  const std::optional<SlicePlaces> slices = FindSlices("ScatterND", x, indices, 0);
  if (!slices.has_value()) return Invalid(x);
  if (!(updates.shape() == slices->gathered) || updates.dtype() != x.dtype()) {
    return BuilderError("ScatterND", {x, indices, updates},
                        absl::StrCat("the updates have to be ", TensorType{x.dtype(), slices->gathered}.ToString()));
  }
  return Reshape(Scatter(Reshape(x, slices->flat), slices->places, updates, {.reduction = reduction}), x.shape());
}

Value OneHot(Operand indices, const Dim& depth, Operand on, Operand off, OneHotOptions options) {
  if (!indices.is_value()) return NeedsValue("OneHot", indices);
  const int64_t axis = NormalizedAxis(options.axis, indices.rank() + 1);
  if (axis < 0 || (depth.is_known() && depth.size() < 0) || !kNumeric.Contains(indices.dtype()) || on.rank() != 0 ||
      off.rank() != 0) {
    return BuilderError("OneHot", {indices, on, off},
                        absl::StrCat("axis ", options.axis, " has to be one of the ", indices.rank() + 1,
                                     " axes of the result, the depth ", depth.ToString(),
                                     " at least 0, the indices numbers, and on and off scalars"));
  }
  const CallLocation location(indices);
  const Value classes = RangeLike(indices, depth), index = ExpandDims(Cast(indices, kInt64), {axis});
  const Value wrapped = Where(index < 0, index + SizeOf(classes, 0), index);
  const Value hot = Equal(wrapped, WithAxesBehind(classes, indices.rank() - static_cast<int>(axis)));
  return Where(hot, on, off);
}

Value Hardmax(Operand x, int64_t axis) {
  if (!x.is_value()) return NeedsValue("Hardmax", x);
  const int64_t at = NormalizedAxis(axis, x.rank());
  if (at < 0) return BuilderError("Hardmax", {x}, AxisError(x, axis));
  const CallLocation location(x);
  const Value first = ArgMax(x, {.axis = at, .keep_dims = true});
  if (!first.valid()) return first;
  const Value places = RangeLike(x, x.shape()[static_cast<int>(at)]);
  return Cast(Equal(first, WithAxesBehind(places, x.rank() - 1 - static_cast<int>(at))), x.dtype());
}

Value EyeLike(Operand x, EyeOptions options) {
  if (!x.is_value()) return NeedsValue("EyeLike", x);
  if (x.rank() != 2) return BuilderError("EyeLike", {x}, "x has to be a matrix");
  const CallLocation location(x);
  const Value row = ExpandDims(RangeLike(x, x.shape()[0]), {1}), column = RangeLike(x, x.shape()[1]);
  return Cast(Equal(column, row + options.diagonal), options.dtype);
}

}  // namespace gradweave
