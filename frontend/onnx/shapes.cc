// ONNX's ops that rearrange elements.
#include <algorithm>
#include <limits>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/index_functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/padding.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

// Shape and Size are followed as dimensions (elements.cc).
absl::Status Followed(Call& call) { return call.Wrong("its input has no shape"); }

absl::Status ReshapeRow(Call& call) {
  const Value x = call.In(0);
  const bool allows_zero = call.Int("allowzero", 0) != 0;
  Elements target;
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(target, call.KnownElements(1));
  } else {
    const Integers shape = call.Ints("shape").value_or(Integers());
    target.assign(shape.begin(), shape.end());
  }
  Shape shape;
  for (size_t i = 0; i < target.size(); ++i) {
    const bool copied = target[i] == Dim(0) && !allows_zero;
    if (copied && static_cast<int>(i) >= x.rank())
      return call.Wrong("size ", i, " is that of an axis that the input lacks");
    shape.Append(copied ? SizeAt(x.shape(), i) : target[i]);
  }
  call.Set(0, Reshape(x, shape));
  return absl::OkStatus();
}

absl::Status TransposeRow(Call& call) {
  call.Set(0, Transpose(call.In(0), call.Ints("perm").value_or(Integers())));
  return absl::OkStatus();
}

absl::Status SqueezeRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const std::optional<Integers> axes, call.IntsOrInput("axes", 1));
  if (!axes.has_value() && !call.Type(0).shape.is_static())
    return call.Refuse("it removes axes of size 1, and only a run knows its sizes");
  call.Set(0, Squeeze(call.In(0), axes.value_or(Integers())));
  return absl::OkStatus();
}

absl::Status UnsqueezeRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const std::optional<Integers> axes, call.IntsOrInput("axes", 1));
  if (!axes.has_value()) return call.Wrong("it has no axes");
  call.Set(0, axes->empty() ? call.In(0) : ExpandDims(call.In(0), *axes));
  return absl::OkStatus();
}

absl::Status FlattenRow(Call& call) {
  const Value x = call.In(0);
  int64_t axis = call.Int("axis", 1);
  if (axis < 0) axis += x.rank();
  if (axis < 0 || axis > x.rank()) return call.Wrong("its axis is outside of the ", x.rank(), " axes");
  Dim rows(1), columns(1);
  for (int i = 0; i < x.rank(); ++i) (i < axis ? rows : columns) = (i < axis ? rows : columns) * SizeAt(x.shape(), i);
  call.Set(0, Reshape(x, {rows, columns}));
  return absl::OkStatus();
}

absl::Status ConcatRow(Call& call) {
  call.Set(0, Concat(call.Ins(), call.Int("axis", call.opset() < 4 ? 1 : 0)));
  return absl::OkStatus();
}

absl::Status SplitRow(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", 0), x.rank()));
  const Dim size = SizeAt(x.shape(), axis);
  std::vector<Dim> sizes;
  call.Ignore({"num_outputs"});
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(sizes, call.KnownElements(1));
  } else if (const std::optional<Integers> given = call.Ints("split"); given.has_value()) {
    sizes.assign(given->begin(), given->end());
  } else {
    const int64_t parts = call.Int("num_outputs", call.num_outputs());
    if (parts < 1 || parts > call.num_outputs()) return call.Wrong("it cannot make ", parts, " parts");
    // Parts of equal size; from opset 18 on, the last one may be smaller.
    const Dim part = size.is_known() ? Dim((size.size() + parts - 1) / parts)
                                     : DivideExactly(size, parts).value_or(FloorDivide(size + (parts - 1), parts));
    sizes.assign(static_cast<size_t>(parts), part);
    sizes.back() = size - part * (parts - 1);
  }
  if (static_cast<int>(sizes.size()) < call.num_outputs()) return call.Wrong("it has more outputs than sizes");
  const std::vector<Value> parts = Split(x, sizes, axis);
  for (size_t i = 0; i < parts.size(); ++i) call.Set(static_cast<int>(i), parts[i]);
  return absl::OkStatus();
}

// A bound of Slice, counted from the beginning. Numbers beyond any size mean the end.
Dim Bound(const Dim& at, const Dim& size, int64_t low, int64_t high_offset) {
  if (!at.is_known()) return at;
  const int64_t n = at.size();
  constexpr int64_t kFar = 1000000000;  // Exporters write it, and the largest int32 and int64.
  if (size.is_known()) {
    const int64_t high = size.size() + high_offset;
    return std::clamp<int64_t>(n < 0 ? (n < -size.size() ? low : n + size.size()) : n, low, std::max(low, high));
  }
  if (n >= kFar) return size + high_offset;
  if (n <= -kFar) return low;
  return n < 0 ? size + n : Dim(n);
}

// Bounds are attributes, and inputs from opset 10 on.
absl::Status SliceRow(Call& call) {
  const Value x = call.In(0);
  Elements starts, ends;
  if (call.opset() < 10) {
    const Integers s = call.Ints("starts").value_or(Integers()), e = call.Ints("ends").value_or(Integers());
    starts.assign(s.begin(), s.end());
    ends.assign(e.begin(), e.end());
  } else {
    if (!call.Has(1) || !call.Has(2)) return call.Wrong("it has no bounds");
    GW_ASSIGN_OR_RETURN(starts, call.KnownElements(1));
    GW_ASSIGN_OR_RETURN(ends, call.KnownElements(2));
  }
  GW_ASSIGN_OR_RETURN(std::optional<Integers> given_axes, call.IntsOrInput("axes", 3));
  Integers steps(starts.size(), 1);
  if (call.Has(4)) {
    GW_ASSIGN_OR_RETURN(steps, call.KnownIntegers(4));
  }
  Integers axes(starts.size());
  for (size_t i = 0; i < axes.size(); ++i) axes[i] = static_cast<int64_t>(i);
  if (given_axes.has_value()) axes = *given_axes;
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size()) {
    return call.Wrong("its starts, ends, axes and steps differ in number");
  }
  SliceOptions options{.limit = x.shape(), .steps = Integers(static_cast<size_t>(x.rank()), 1)};
  for (int i = 0; i < x.rank(); ++i) options.start.Append(0);
  for (size_t i = 0; i < axes.size(); ++i) {
    GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(axes[i], x.rank()));
    const int a = static_cast<int>(axis);
    const Dim& size = SizeAt(x.shape(), a);
    if (steps[i] == 0) return call.Wrong("a step is 0");
    const bool forward = steps[i] > 0;
    Dim start = forward ? Bound(starts[i], size, 0, 0) : Bound(starts[i], size, -1, -1);
    Dim limit = forward ? Bound(ends[i], size, 0, 0) : Bound(ends[i], size, -1, -1);
    int64_t step = steps[i];
    if (start.is_known() && limit.is_known() &&
        (forward ? limit.size() <= start.size() : limit.size() >= start.size())) {
      start = limit = 0;  // No elements.
      step = 1;
    }
    options.start[a] = start;
    options.limit[a] = limit;
    options.steps[static_cast<size_t>(a)] = step;
  }
  call.Set(0, Slice(x, options));
  return absl::OkStatus();
}

// Paddings are an attribute, and an input from opset 11 on; axes come with opset 18.
absl::Status PadRow(Call& call) {
  const Value x = call.In(0);
  Elements pads;
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(pads, call.KnownElements(1));
  } else {
    const Integers given = call.Ints(call.opset() < 2 ? "paddings" : "pads").value_or(Integers());
    pads.assign(given.begin(), given.end());
  }
  double value = call.Float("value", 0);
  if (call.Has(2)) {
    GW_ASSIGN_OR_RETURN(value, call.KnownNumber(2));
  }
  Integers axes;
  for (int64_t i = 0; i < x.rank(); ++i) axes.push_back(i);
  if (call.Has(3)) {
    GW_ASSIGN_OR_RETURN(axes, call.KnownIntegers(3));
    GW_ASSIGN_OR_RETURN(axes, call.Axes(axes, x.rank()));
  }
  if (pads.size() != 2 * axes.size()) return call.Wrong("it has not two paddings for each axis");
  Shape low, high;
  for (int i = 0; i < x.rank(); ++i) {
    low.Append(0);
    high.Append(0);
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    low[static_cast<int>(axes[i])] = pads[i];
    high[static_cast<int>(axes[i])] = pads[axes.size() + i];
  }
  const std::string mode = call.Text("mode", "constant");
  if (mode == "constant") {
    call.Set(0, Pad(x, {.low = low, .high = high, .value = value}));
    return absl::OkStatus();
  }
  if (mode != "edge" && mode != "reflect" && mode != "wrap") return call.Wrong("its mode is unknown");
  if (!low.is_static() || !high.is_static()) return call.Refuse("its paddings depend on sizes that only a run knows");
  const std::vector<int64_t> before = low.sizes(), behind = high.sizes();
  call.Set(0, PadBorder(x, {.low = {before.begin(), before.end()},
                            .high = {behind.begin(), behind.end()},
                            .mode = mode == "edge"   ? BorderMode::kEdge
                                    : mode == "wrap" ? BorderMode::kWrap
                                                     : BorderMode::kReflect}));
  return absl::OkStatus();
}

absl::Status ExpandRow(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const Elements target, call.KnownElements(1));
  const int rank = std::max(x.rank(), static_cast<int>(target.size()));
  Shape shape;
  for (int i = 0; i < rank; ++i) {
    const int from_x = i - (rank - x.rank()), from_target = i - (rank - static_cast<int>(target.size()));
    const Dim own = from_x < 0 ? Dim(1) : SizeAt(x.shape(), from_x);
    const Dim wanted = from_target < 0 ? Dim(1) : target[static_cast<size_t>(from_target)];
    shape.Append(own == Dim(1) ? wanted : wanted == Dim(1) ? own : wanted);
  }
  call.Set(0, BroadcastTo(x, shape));
  return absl::OkStatus();
}

absl::Status TileRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const Integers repeats, call.KnownIntegers(1));
  call.Set(0, Tile(call.In(0), repeats));
  return absl::OkStatus();
}

// Each sequence up to its length in reverse order.
absl::Status ReverseSequence(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const int64_t time, call.Axis(call.Int("time_axis", 0), x.rank()));
  GW_ASSIGN_OR_RETURN(const int64_t batch, call.Axis(call.Int("batch_axis", 1), x.rank()));
  if (time == batch) return call.Wrong("its two axes are one");
  Shape steps, samples;
  for (int i = 0; i < x.rank(); ++i) {
    steps.Append(i == time ? SizeAt(x.shape(), i) : Dim(1));
    samples.Append(i == batch ? SizeAt(x.shape(), i) : Dim(1));
  }
  const Value step = Reshape(RangeLike(x, SizeAt(x.shape(), time)), steps);
  const Value length = Reshape(Cast(call.In(1), kInt64), samples);
  call.Set(0, TakeAlong(x, Where(Less(step, length), Sub(Sub(length, 1), step), step), time));
  return absl::OkStatus();
}

absl::Status Trilu(Call& call) {
  double diagonal = 0;
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(diagonal, call.KnownNumber(1));
  }
  const Value x = call.In(0);
  call.Set(0, Triangle(x, {.upper = call.Int("upper", 1) != 0, .diagonal = ToInteger(diagonal)}));
  return absl::OkStatus();
}

absl::Status EyeLikeRow(Call& call) {
  EyeOptions options{.diagonal = call.Int("k", 0), .dtype = call.Type(0).dtype};
  if (const int64_t given = call.Int("dtype", 0); given != 0) {
    GW_ASSIGN_OR_RETURN(options.dtype, DTypeFromOnnx(given));
  }
  call.Set(0, EyeLike(call.In(0), options));
  return absl::OkStatus();
}

// The condition determines the shape, so it has to be known.
absl::Status Compress(Call& call) {
  Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const Tensor condition, call.Known(1));
  if (condition.dtype() != kBool || condition.rank() != 1)
    return call.Wrong("its condition has to be bool with one axis");
  int64_t axis = 0;
  if (call.Find("axis") == nullptr) {
    x = Reshape(x, {-1});
  } else {
    GW_ASSIGN_OR_RETURN(axis, call.Axis(call.Int("axis", 0), x.rank()));
  }
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < condition.num_elements(); ++i) {
    if (condition.data<bool>()[i]) kept.push_back(i);
  }
  const Tensor places = Tensor::Of<int64_t>({static_cast<int64_t>(kept.size())}, absl::Span<const int64_t>(kept));
  call.Set(0, Gather(x, call.scope().Constant(places), axis));
  return absl::OkStatus();
}

// The places of elements that are not zero, of a known tensor: the result's shape depends on them.
absl::Status NonZero(Call& call) {
  GW_ASSIGN_OR_RETURN(const Tensor x, call.Known(0));
  const std::vector<double> values = x.ToDoubles();
  std::vector<int64_t> places;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] != 0) places.push_back(static_cast<int64_t>(i));
  }
  const auto count = static_cast<int64_t>(places.size());
  Tensor result(kInt64, {x.rank(), count});
  int64_t stride = 1;
  for (int axis = x.rank() - 1; axis >= 0; --axis) {
    for (int64_t i = 0; i < count; ++i)
      result.mutable_data<int64_t>()[axis * count + i] = places[static_cast<size_t>(i)] / stride % x.size(axis);
    stride *= x.size(axis);
  }
  call.Set(0, std::move(result));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"Compress", 9, 2, Compress},
    {"Concat", 1, 1, ConcatRow},
    {"Expand", 8, 2, ExpandRow},
    {"EyeLike", 9, 1, EyeLikeRow},
    {"Flatten", 1, 1, FlattenRow},
    {"NonZero", 9, 1, NonZero},
    {"Pad", 1, 1, PadRow},
    {"Reshape", 1, 1, ReshapeRow},
    {"ReverseSequence", 10, 2, ReverseSequence},
    {"Shape", 1, 1, Followed},
    {"Size", 1, 1, Followed},
    {"Slice", 1, 1, SliceRow},
    {"Split", 2, 1, SplitRow},
    {"Squeeze", 1, 1, SqueezeRow},
    {"Tile", 6, 2, TileRow},
    {"Transpose", 1, 1, TransposeRow},
    {"Trilu", 14, 1, Trilu},
    {"Unsqueeze", 1, 1, UnsqueezeRow},
};

}  // namespace

absl::Span<const OpRow> ShapeRows() { return kRows; }

}  // namespace gradweave::onnx
