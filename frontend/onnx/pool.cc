// ONNX's pools.
#include "gradweave/ops/pool.h"

#include <algorithm>
#include <limits>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/frontend/onnx/windows.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::onnx {
namespace {

constexpr int64_t kMostTaps = 1024;  // In a window along an axis that is computed tap by tap.

// True if the engine's two-dimensional ops compute these windows.
bool IsPlain(const Value& x, const Windows& windows) {
  if (x.rank() > 4 || !IsFloating(x.dtype())) return false;
  for (size_t i = 0; i < windows.kernel.size(); ++i) {
    if (windows.dilation[i] != 1 || std::max(windows.low[i], windows.high[i]) >= windows.kernel[i]) return false;
  }
  return true;
}

Pool2DOptions OptionsOf(const Windows& windows) {
  return {.window = windows.kernel,
          .stride = windows.stride,
          .padding = {windows.low[0], windows.high[0], windows.low[1], windows.high[1]}};
}

// x [n, c, ...] with `value` around it.
Value PadWindows(Value x, const Windows& windows, double value) {
  PadOptions options{.value = value};
  for (int i = 0; i < x.rank(); ++i) {
    options.low.Append(i < 2 ? 0 : windows.low[static_cast<size_t>(i) - 2]);
    options.high.Append(i < 2 ? 0 : windows.high[static_cast<size_t>(i) - 2]);
  }
  return Pad(x, options);
}

// Combines the elements of each window of a padded x: along one axis after another, tap by tap,
// each of which is a slice with strides.
absl::StatusOr<Value> CombineTaps(const Call& call, Value padded, const Shape& shape, const Windows& windows,
                                  Value (*combine)(Operand, Operand)) {
  Value result = padded;
  for (int i = 2; i < padded.rank(); ++i) {
    const auto axis = static_cast<size_t>(i) - 2;
    if (windows.kernel[axis] > kMostTaps) return call.Refuse("its windows are longer than ", kMostTaps);
    const Dim last = (NumWindows(windows, axis, shape[i]) - 1) * windows.stride[axis];
    Value along;
    for (int64_t tap = 0; tap < windows.kernel[axis]; ++tap) {
      const int64_t first = tap * windows.dilation[axis];
      const Value part = SliceAxis(result, i, first, last + (first + 1), windows.stride[axis]);
      along = tap == 0 ? part : combine(along, part);
    }
    result = along;
  }
  return result;
}

double LowestOf(DType dtype) {
  switch (dtype) {
    case kInt32:
      return std::numeric_limits<int32_t>::min();
    case kInt64:
      return static_cast<double>(std::numeric_limits<int64_t>::min());
    case kUint8:
    case kBool:
      return 0;
    default:
      return -std::numeric_limits<double>::infinity();
  }
}

absl::Status MaxPool(Call& call) {
  Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(Windows windows, WindowsOf(call, x.shape(), {}));
  if (!IsPlain(x, windows)) {
    if (call.Wants(1))
      return call.Refuse("the indices of windows with dilation, three axes or integers are not imported");
    const Value padded = PadWindows(x, windows, LowestOf(x.dtype()));
    GW_ASSIGN_OR_RETURN(const Value y, CombineTaps(call, padded, x.shape(), windows, Maximum));
    call.Set(0, y);
    return absl::OkStatus();
  }
  const bool one_axis = x.rank() == 3;
  if (one_axis) {
    x = WithTwoAxes(x);
    windows = WithTwoAxes(windows);
  }
  const Value y = MaxPool2D(x, OptionsOf(windows));
  call.Set(0, one_axis ? WithOneAxis(y) : y);
  if (!call.Wants(1)) return absl::OkStatus();
  // ONNX counts through the whole tensor; with storage_order 1, columns come first.
  const Value index = Cast(Output(y, 1), kInt64);
  const Dim height = x.shape()[2], width = x.shape()[3], planes = x.shape()[0] * x.shape()[1];
  if (!x.shape()[2].is_known() || !x.shape()[3].is_known())
    return call.Refuse("its indices depend on sizes that only a run knows");
  Value place = index;
  if (call.Int("storage_order", 0) != 0) {
    const Value row = Div(index, width.size());
    place = Add(Mul(Sub(index, Mul(row, width.size())), height.size()), row);
  }
  const Value plane = Reshape(RangeLike(x, planes), {x.shape()[0], x.shape()[1], 1, 1});
  place = Add(place, Mul(plane, height.size() * width.size()));
  call.Set(1, one_axis ? WithOneAxis(place) : place);
  return absl::OkStatus();
}

absl::Status AveragePool(Call& call) {
  Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(Windows windows, WindowsOf(call, x.shape(), {}));
  const bool count_padding = call.Int("count_include_pad", 0) != 0;
  const bool ceil_mode = call.Int("ceil_mode", 0) != 0;
  if (IsPlain(x, windows) && !(count_padding && ceil_mode)) {
    const bool one_axis = x.rank() == 3;
    Pool2DOptions options = OptionsOf(one_axis ? WithTwoAxes(windows) : windows);
    options.count_padding = count_padding;
    const Value y = AvgPool2D(one_axis ? WithTwoAxes(x) : x, options);
    call.Set(0, one_axis ? WithOneAxis(y) : y);
    return absl::OkStatus();
  }
  // The padding that ceil_mode adds does not count.
  Windows counted = windows;
  if (count_padding) {
    const Integers pads = call.Ints("pads").value_or(Integers(2 * windows.low.size(), 0));
    for (size_t i = 0; i < windows.high.size() && call.Text("auto_pad", "NOTSET") == "NOTSET"; ++i) {
      counted.high[i] = windows.high[i] - pads[windows.high.size() + i];
    }
  }
  Value ones = OnesLike(x);
  if (count_padding) {
    Windows inner = windows;
    for (size_t i = 0; i < inner.high.size(); ++i) inner.high[i] -= counted.high[i];
    Windows rest = counted;
    rest.low.assign(rest.low.size(), 0);
    ones = PadWindows(PadWindows(ones, inner, 1), rest, 0);
  } else {
    ones = PadWindows(ones, windows, 0);
  }
  GW_ASSIGN_OR_RETURN(const Value sum, CombineTaps(call, PadWindows(x, windows, 0), x.shape(), windows, Add));
  GW_ASSIGN_OR_RETURN(const Value count, CombineTaps(call, ones, x.shape(), windows, Add));
  call.Set(0, Div(sum, count));
  return absl::OkStatus();
}

absl::Status LpPool(Call& call) {
  const Value x = call.In(0);
  const double p = call.opset() < 2 ? call.Float("p", 2) : static_cast<double>(call.Int("p", 2));
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), {}));
  const Value padded = PadWindows(Pow(Abs(x), p), windows, 0);
  GW_ASSIGN_OR_RETURN(const Value sum, CombineTaps(call, padded, x.shape(), windows, Add));
  call.Set(0, Pow(sum, 1 / p));
  return absl::OkStatus();
}

Integers SpatialAxes(const Value& x) {
  Integers axes;
  for (int64_t i = 2; i < x.rank(); ++i) axes.push_back(i);
  return axes;
}

template <Value (*kReduction)(Operand, ReductionOptions)>
absl::Status Global(Call& call) {
  const Value x = call.In(0);
  if (x.rank() < 3) return call.Wrong("its input has to have a batch, channels and at least one axis more");
  call.Set(0, kReduction(x, {.axes = SpatialAxes(x), .keep_dims = true}));
  return absl::OkStatus();
}

// The indices count through the whole tensor that the pool saw, whose size follows from the
// windows.
absl::Status MaxUnpool(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), {}));
  Shape shape = x.shape();
  for (int i = 2; i < x.rank(); ++i) {
    const auto axis = static_cast<size_t>(i) - 2;
    shape[i] = (shape[i] - 1) * windows.stride[axis] + (windows.Extent(axis) - windows.low[axis] - windows.high[axis]);
  }
  const Value zeros = Reshape(call.scope().Full(0, shape, x.dtype()), {-1});
  Value y = Reshape(ScatterAdd(zeros, Reshape(Cast(call.In(1), kInt64), {-1}), Reshape(x, {-1})), shape);
  if (call.Has(2)) {
    GW_ASSIGN_OR_RETURN(const Elements wanted, call.KnownElements(2));
    if (static_cast<int>(wanted.size()) != y.rank()) return call.Wrong("its output_shape needs a size for each axis");
    PadOptions options;
    for (int i = 0; i < y.rank(); ++i) {
      options.low.Append(0);
      options.high.Append(wanted[static_cast<size_t>(i)] - y.shape()[i]);
    }
    y = Pad(y, options);
  }
  call.Set(0, y);
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"AveragePool", 1, 1, AveragePool},   {"GlobalAveragePool", 1, 1, Global<Mean>},
    {"GlobalMaxPool", 1, 1, Global<Max>}, {"LpPool", 1, 1, LpPool},
    {"MaxPool", 1, 1, MaxPool},           {"MaxUnpool", 9, 2, MaxUnpool},
};

}  // namespace

absl::Span<const OpRow> PoolRows() { return kRows; }

}  // namespace gradweave::onnx
