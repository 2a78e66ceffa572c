#include "gradweave/ops/pool_nd.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gradweave/ops/windows.h"

namespace gradweave {
namespace {

// The windows, with the elements that ceil_mode adds behind the padding of each axis; none are
// negative.
struct PoolWindows {
  Windows windows;
  Integers beyond;
};

std::optional<PoolWindows> CompletePool(absl::string_view function, const Operand& x, const PoolNDOptions& options) {
  ConvNDOptions given = {.stride = options.stride.empty() ? options.window : options.stride,
                         .dilation = options.dilation,
                         .padding_low = options.padding_low,
                         .padding_high = options.padding_high,
                         .auto_padding = options.auto_padding};
  if (!IsReal(x.dtype())) {
    BuilderError(function, {x}, "x has to be floating; Cast converts");
    return std::nullopt;
  }
  std::optional<Windows> windows = CompleteWindows(function, x, options.window, given);
  if (!windows.has_value()) return std::nullopt;
  PoolWindows result = {*std::move(windows), {}};
  for (int axis = 0; axis < x.rank() - 2; ++axis) {
    const Windows& all = result.windows;
    const Dim& size = x.shape()[axis + 2];
    result.beyond.push_back(0);
    if (!size.is_known()) {
      if (!options.ceil_mode && all.dilation[axis] == 1) continue;
      BuilderError(function, {x}, "ceil_mode and dilation need known sizes of x");
      return std::nullopt;
    }
    const int64_t room = size.size() + all.low[axis] + all.high[axis] - all.Reach(axis), stride = all.stride[axis];
    if (room < 0) {
      BuilderError(function, {x},
                   absl::StrCat("the windows of spatial axis ", axis, " reach over ", all.Reach(axis),
                                " elements, and x with its padding has fewer"));
      return std::nullopt;
    }
    if (!options.ceil_mode) continue;
    int64_t steps = (room + stride - 1) / stride;
    if (steps * stride >= size.size() + all.low[axis]) --steps;
    result.beyond.back() = std::max<int64_t>(steps * stride - room, 0);
  }
  return result;
}

// Tables have the places of the windows' elements along an axis, or what is known of them.
constexpr int64_t kMostPlaces = int64_t{1} << 26;

Value TooManyPlaces(const Operand& x, int64_t windows, int64_t elements) {
  return BuilderError("Pool", {x},
                      absl::StrCat(windows, " windows of ", elements,
                                   " elements along an axis are too many; together they have to have at most 2^26 "
                                   "elements"));
}

// The elements of each window side by side along the axis of x, which a pool with windows of that
// many adjacent elements then reduces. `fill` is the number of the padding.
Value SideBySide(const Operand& x, const Value& value, int axis, const Windows& windows, int at, int64_t beyond,
                 double fill) {
  PadOptions pad = {.low = Shape(std::vector<Dim>(value.rank(), Dim(0))), .value = fill};
  pad.high = pad.low;
  pad.low[axis] = Dim(windows.low[at]);
  pad.high[axis] = Dim(windows.high[at] + beyond);
  const Value padded = Pad(value, pad);
  if (!padded.valid()) return padded;
  const int64_t steps = (padded.shape()[axis].size() - windows.Reach(at)) / windows.stride[at] + 1;
  if (steps > kMostPlaces / windows.taps[at]) return TooManyPlaces(x, steps, windows.taps[at]);
  std::vector<int64_t> places;
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t tap = 0; tap < windows.taps[at]; ++tap)
      places.push_back(step * windows.stride[at] + tap * windows.dilation[at]);
  }
  return Gather(padded, Numbers(x, {static_cast<int64_t>(places.size())}, places), axis);
}

// A pool over height and width: images [n, c, h, w], prepared for an op with these options. Without
// dilation and with padding below the window, the images are those that were given; else elements
// of a window lie side by side.
struct Pool2D {
  Pool2DOptions options;
  Value x;
  bool side_by_side[2] = {false, false};
};

// Prepares x [n, c, h, w] for a pool over two axes of the windows: -1 is an axis that is not
// pooled.
Pool2D Prepare(const Operand& operand, const Value& x, const PoolWindows& pool, int height, int width, double fill) {
  const Windows& windows = pool.windows;
  Pool2D result = {.options = {.window = {1, 1}, .stride = {1, 1}}, .x = x};
  const int axes[] = {height, width};
  for (int side = 0; side < 2; ++side) {
    const int at = axes[side];
    if (at < 0) continue;
    const int64_t taps = windows.taps[at], high = windows.high[at] + pool.beyond[at];
    result.side_by_side[side] = windows.dilation[at] != 1 || windows.low[at] >= taps || high >= taps;
    if (result.side_by_side[side]) {
      result.x = SideBySide(operand, result.x, side + 2, windows, at, pool.beyond[at], fill);
      result.options.window[side] = result.options.stride[side] = taps;
    } else {
      result.options.window[side] = taps;
      result.options.stride[side] = windows.stride[at];
      result.options.padding[2 * side] = windows.low[at];
      result.options.padding[2 * side + 1] = high;
    }
  }
  return result;
}

// Calls pool(images [n, c, h, w], axis of the height, axis of the width) for all spatial axes of x.
// Three axes take two calls: first the last two axes, then the first one.
template <typename Pool>
Value OverAxes(const Value& x, Pool pool) {
  const Shape& shape = x.shape();
  if (x.rank() == 3) {
    const Value y = pool(ExpandDims(x, {2}), -1, 0);
    return y.valid() ? Squeeze(y, {2}) : y;
  }
  if (x.rank() == 4) return pool(x, 0, 1);
  const Value flat = pool(Reshape(x, {shape[0], shape[1] * shape[2], shape[3], shape[4]}), 1, 2);
  if (!flat.valid()) return flat;
  const Dim height = flat.shape()[2], width = flat.shape()[3];
  const Value y = pool(Reshape(flat, {shape[0], shape[1], shape[2], height * width}), 0, -1);
  if (!y.valid()) return y;
  return Reshape(y, {shape[0], shape[1], y.shape()[2], height, width});
}

int64_t Product(const Integers& numbers) {
  int64_t product = 1;
  for (int64_t number : numbers) product *= number;
  return product;
}

// The sums of the windows.
Value SumOverWindows(const Operand& x, const Value& value, const PoolWindows& pool) {
  return OverAxes(value, [&](const Value& images, int height, int width) {
    Pool2D flat = Prepare(x, images, pool, height, width, 0);
    flat.options.count_padding = true;
    return AvgPool2D(flat.x, flat.options) * Product(flat.options.window);
  });
}

// Counts the elements of each window along an axis: those in x, or those in its padding too.
Value CountsOf(const Operand& x, const PoolWindows& pool, int axis, bool count_padding) {
  const Windows& windows = pool.windows;
  const int64_t low = windows.low[axis], size = x.shape()[axis + 2].size();
  const int64_t padded = low + size + windows.high[axis];
  const int64_t begin = count_padding ? 0 : low, end = count_padding ? padded : low + size;
  const int64_t most = (padded + pool.beyond[axis]) / windows.stride[axis] + 1;
  if (most > kMostPlaces / windows.taps[axis]) return TooManyPlaces(x, most, windows.taps[axis]);
  std::vector<double> counts;
  for (int64_t first = 0; first + windows.Reach(axis) <= padded + pool.beyond[axis]; first += windows.stride[axis]) {
    double count = 0;
    for (int64_t tap = 0; tap < windows.taps[axis]; ++tap) {
      const int64_t place = first + tap * windows.dilation[axis];
      count += place >= begin && place < end;
    }
    counts.push_back(count);
  }
  return WithAxesBehind(Numbers(x, {static_cast<int64_t>(counts.size())}, counts), x.rank() - 3 - axis);
}

// A maximum's coordinates along the spatial axes, as int64.
using Coordinates = std::vector<Value>;

}  // namespace

Value SumPoolND(Operand x, const PoolNDOptions& options) {
  if (!x.is_value()) return NeedsValue("SumPoolND", x);
  const std::optional<PoolWindows> pool = CompletePool("SumPoolND", x, options);
  if (!pool.has_value()) return Invalid(x);
  const CallLocation location(x);
  return SumOverWindows(x, x.value(), *pool);
}

Value AvgPoolND(Operand x, const PoolNDOptions& options) {
  if (!x.is_value()) return NeedsValue("AvgPoolND", x);
  const std::optional<PoolWindows> pool = CompletePool("AvgPoolND", x, options);
  if (!pool.has_value()) return Invalid(x);
  const CallLocation location(x);
  bool by_op = true;
  for (int axis = 0; axis < x.rank() - 2; ++axis) {
    const Windows& windows = pool->windows;
    by_op = by_op && windows.dilation[axis] == 1 && windows.low[axis] < windows.taps[axis] &&
            windows.high[axis] + pool->beyond[axis] < windows.taps[axis] &&
            (pool->beyond[axis] == 0 || !options.count_padding);
  }
  if (by_op) {
    return OverAxes(x.value(), [&](const Value& images, int height, int width) {
      Pool2D flat = Prepare(x, images, *pool, height, width, 0);
      flat.options.count_padding = options.count_padding;
      return AvgPool2D(flat.x, flat.options);
    });
  }
  Value y = SumOverWindows(x, x.value(), *pool);
  for (int axis = 0; axis < x.rank() - 2; ++axis) {
    if (!x.shape()[axis + 2].is_known())
      return BuilderError("AvgPoolND", {x}, "padding as large as the window needs known sizes of x");
    y = y / CountsOf(x, *pool, axis, options.count_padding);
  }
  return y;
}

Value LpPoolND(Operand x, double p, const PoolNDOptions& options) {
  if (!x.is_value()) return NeedsValue("LpPoolND", x);
  if (!(p >= 1) || !std::isfinite(p))
    return BuilderError("LpPoolND", {x}, absl::StrCat("p is ", p, " and has to be finite and at least 1"));
  const std::optional<PoolWindows> pool = CompletePool("LpPoolND", x, options);
  if (!pool.has_value()) return Invalid(x);
  const CallLocation location(x);
  const Value powers = p == 1 ? Abs(x) : p == 2 ? Square(x) : Pow(Abs(x), p);
  const Value sums = SumOverWindows(x, powers, *pool);
  if (p == 1 || !sums.valid()) return sums;
  // Where the sum is 0, neither its root nor the root's infinite derivative is taken; NaN goes
  // through.
  const Value is_zero = Equal(sums, 0), safe = Where(is_zero, 1, sums);
  return Where(is_zero, 0, p == 2 ? Sqrt(safe) : Pow(safe, 1 / p));
}

MaxPoolResult MaxPoolND(Operand x, const PoolNDOptions& options) {
  auto refused = [](const Value& value) { return MaxPoolResult{value, value}; };
  if (!x.is_value()) return refused(NeedsValue("MaxPoolND", x));
  const std::optional<PoolWindows> pool = CompletePool("MaxPoolND", x, options);
  if (!pool.has_value()) return refused(Invalid(x));
  const CallLocation location(x);
  const Windows& windows = pool->windows;
  const int axes = x.rank() - 2;
  // The coordinates in x of the maxima of each call below.
  std::vector<Coordinates> coordinates;
  const Value values = OverAxes(x.value(), [&](const Value& images, int height, int width) {
    const Pool2D flat = Prepare(x, images, *pool, height, width, -std::numeric_limits<double>::infinity());
    if (!flat.x.valid()) return flat.x;
    const Value y = MaxPool2D(flat.x, flat.options);
    if (!y.valid()) return y;
    const Value index = Cast(Output(y, 1), kInt64);
    const Operand row = SizeOf(flat.x, 3);
    const Value top = index / row;
    Coordinates places = {top, index - top * row};
    const int at[] = {height, width};
    for (int side = 0; side < 2; ++side) {
      if (!flat.side_by_side[side]) continue;
      // Element `tap` of window `step` lies side by side with the others of its window.
      const int axis = at[side];
      const Value step = places[side] / windows.taps[axis], tap = places[side] - step * windows.taps[axis];
      places[side] = step * windows.stride[axis] + tap * windows.dilation[axis] - windows.low[axis];
    }
    coordinates.push_back(std::move(places));
    return y;
  });
  if (!values.valid()) return refused(values);
  Coordinates places;
  if (axes == 1) {
    places = {Squeeze(coordinates[0][1], {2})};
  } else if (axes == 2) {
    places = coordinates[0];
  } else {
    // The second call chose a depth, at which the first one chose a row and a column.
    const Value& depth = coordinates[1][0];
    const Shape& before = coordinates[0][0].shape();
    const Shape slices = {x.shape()[0], x.shape()[1], x.shape()[2], before[2] * before[3]};
    places.push_back(Reshape(depth, values.shape()));
    for (const Value& place : coordinates[0])
      places.push_back(Reshape(TakeAlong(Reshape(place, slices), depth, 2), values.shape()));
  }
  Value index;
  for (int i = 0; i < axes; ++i) {
    const int axis = options.column_major ? axes - 1 - i : i;
    index = index.valid() ? index * SizeOf(x.value(), axis + 2) + places[axis] : places[axis];
  }
  Operand elements(1);
  for (int axis = 2; axis < x.rank(); ++axis)
    elements = elements.is_number() && x.shape()[axis].is_known()
                   ? Operand(elements.number() * static_cast<double>(x.shape()[axis].size()))
                   : Operand(ToValue(elements, index) * SizeOf(x.value(), axis));
  const Value image = Reshape(RangeLike(x, x.shape()[0] * x.shape()[1]), {x.shape()[0], x.shape()[1]});
  return {values, WithAxesBehind(image, axes) * elements + index};
}

Value MaxUnpoolND(Operand x, Operand indices, const Shape& shape) {
  if (!x.is_value()) return NeedsValue("MaxUnpoolND", x);
  if (!indices.is_value()) return NeedsValue("MaxUnpoolND", indices);
  if (!(indices.shape() == x.shape()) || (indices.dtype() != kInt32 && indices.dtype() != kInt64))
    return BuilderError("MaxUnpoolND", {x, indices}, "the indices have to be int32 or int64, of the shape of x");
  const CallLocation location(x);
  const Value zero = ConstantLike(x.value(), Tensor::ScalarOf(x.dtype(), 0), x.location());
  const Value zeros = BroadcastTo(zero, Shape{shape.num_elements()});
  return Reshape(Scatter(zeros, Flatten(indices, 0), Flatten(x, 0)), shape);
}

}  // namespace gradweave
