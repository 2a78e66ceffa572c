#include "gradweave/ops/image.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gradweave/ops/windows.h"

namespace gradweave {
namespace {

// ---- GridSample ----

// A size of x as a number of its dtype.
Operand SizeNumber(const Value& x, int axis) {
  const Dim& dim = x.shape()[axis];
  return dim.is_known() ? Operand(dim.size()) : Operand(DimSize(x, axis, x.dtype()));
}

// Reflects places at the borders low and low + width until they are between them.
Value Reflected(const Value& place, const Operand& low, const Operand& width) {
  // All places are reflected to the only one if the borders are the same.
  const Value period = Maximum(ToValue(width, place) * 2, 1e-30), rest = Mod(place - low, period);
  return low + Minimum(Minimum(rest, period - rest), width);
}

// The neighbours of the places along one axis: the index, in range, and the weight.
struct Neighbours {
  std::vector<Value> indices;  // int64.
  std::vector<Value> weights;  // They have the dtype of the grid.
};

// The weight of a neighbour at this distance, from 1 to 2 or below 1.
Value CubicWeight(const Value& distance, bool is_far) {
  constexpr double a = -0.75;
  if (is_far) return ((distance * a - 5 * a) * distance + 8 * a) * distance - 4 * a;
  return (distance * (a + 2) - (a + 3)) * distance * distance + 1;
}

Neighbours FindNeighbours(const Value& coordinate, const Operand& size, const GridSampleOptions& options) {
  const Value last = ToValue(size, coordinate) - 1;
  // The borders at which places are reflected.
  const Value low = options.align_corners ? ZerosLike(last) : ZerosLike(last) - 0.5;
  const Value width = options.align_corners ? last : last + 1;
  Value place = options.align_corners ? (coordinate + 1) * 0.5 * last : ((coordinate + 1) * size - 1) * 0.5;
  if (options.mode == GridMode::kNearest) place = Round(place);
  if (options.padding == GridPadding::kBorder) {
    // Inside of the outer pixels, places stay where they are.
    const Value outside = place < low || place > low + width;
    place = Where(outside, Minimum(Maximum(place, 0), last), place);
  }
  if (options.padding == GridPadding::kReflection) place = Reflected(place, low, width);
  const Value base = options.mode == GridMode::kNearest ? Round(place) : Floor(place), rest = place - base;
  std::vector<std::pair<int, Value>> taps;  // The distance from the base, and the weight.
  if (options.mode == GridMode::kNearest) {
    taps = {{0, OnesLike(place)}};
  } else if (options.mode == GridMode::kLinear) {
    taps = {{0, 1 - rest}, {1, rest}};
  } else {
    taps = {{-1, CubicWeight(rest + 1, true)},
            {0, CubicWeight(rest, false)},
            {1, CubicWeight(1 - rest, false)},
            {2, CubicWeight(2 - rest, true)}};
  }
  Neighbours result;
  for (const auto& [distance, weight] : taps) {
    const Value at = base + distance;
    const Value reflected = options.padding == GridPadding::kReflection ? Reflected(at, low, width) : at;
    result.indices.push_back(Cast(Minimum(Maximum(reflected, 0), last), kInt64));
    const bool zeros = options.padding == GridPadding::kZeros;
    result.weights.push_back(zeros ? Where(at >= 0 && at <= last, weight, 0) : weight);
  }
  return result;
}

}  // namespace

Value DepthToSpace(Operand x, int64_t block, BlockOrder order) {
  if (!x.is_value()) return NeedsValue("DepthToSpace", x);
  const Shape& shape = x.shape();
  const bool fits = x.rank() == 4 && block >= 1 && block < (int64_t{1} << 20);
  const std::optional<Dim> channels = fits ? DivideExactly(shape[1], Dim(block * block)) : std::nullopt;
  if (!channels.has_value()) {
    return BuilderError("DepthToSpace", {x},
                        absl::StrCat("x has to be [batch, channels, height, width], with channels that ", block,
                                     "^2, the "
                                     "square of the block's size, divides"));
  }
  const CallLocation location(x);
  const bool blocks_first = order == BlockOrder::kDepthColumnRow;
  const Shape parts = blocks_first ? Shape{shape[0], block, block, *channels, shape[2], shape[3]}
                                   : Shape{shape[0], *channels, block, block, shape[2], shape[3]};
  const Integers moved = blocks_first ? Integers{0, 3, 4, 1, 5, 2} : Integers{0, 1, 4, 2, 5, 3};
  return Reshape(Transpose(Reshape(x, parts), moved),
                 {shape[0], *channels, shape[2] * Dim(block), shape[3] * Dim(block)});
}

Value SpaceToDepth(Operand x, int64_t block) {
  if (!x.is_value()) return NeedsValue("SpaceToDepth", x);
  const Shape& shape = x.shape();
  const bool fits = x.rank() == 4 && block >= 1 && block < (int64_t{1} << 20);
  const std::optional<Dim> height = fits ? DivideExactly(shape[2], Dim(block)) : std::nullopt;
  const std::optional<Dim> width = fits ? DivideExactly(shape[3], Dim(block)) : std::nullopt;
  if (!height.has_value() || !width.has_value()) {
    return BuilderError("SpaceToDepth", {x},
                        absl::StrCat("x has to be [batch, channels, height, width], with a height and a width that ",
                                     block, ", the size of the block, divides"));
  }
  const CallLocation location(x);
  const Value parts = Reshape(x, {shape[0], shape[1], *height, block, *width, block});
  return Reshape(Transpose(parts, {0, 3, 5, 1, 2, 4}), {shape[0], shape[1] * Dim(block * block), *height, *width});
}

Value Col2Im(Operand x, const Integers& image, const Integers& block, const Col2ImOptions& options) {
  if (!x.is_value()) return NeedsValue("Col2Im", x);
  const size_t axes = image.size();
  Integers sizes = image, taps = block, stride = options.stride, dilation = options.dilation;
  Integers low = options.padding_low, high = options.padding_high;
  if (axes < 1 || x.rank() != 3 || !CompleteNumbers(sizes, axes, 1, 1) || !CompleteNumbers(taps, axes, 1, 1) ||
      block.empty() || !CompleteNumbers(stride, axes, 1, 1) || !CompleteNumbers(dilation, axes, 1, 1) ||
      !CompleteNumbers(low, axes, 0, 0) || !CompleteNumbers(high, axes, 0, 0)) {
    return BuilderError(
        "Col2Im", {x},
        "x has to be [batch, channels * elements of a block, places], image and block have one number of "
        "at least 1 for each spatial axis, and so have stride and dilation; padding has numbers of at "
        "least 0");
  }
  int64_t elements = 1, places = 1;
  Integers counts;
  for (size_t i = 0; i < axes; ++i) {
    const int64_t room = sizes[i] + low[i] + high[i] - dilation[i] * (taps[i] - 1) - 1;
    counts.push_back(room < 0 ? 0 : room / stride[i] + 1);
    elements *= taps[i];
    places *= counts.back();
  }
  const std::optional<Dim> channels = DivideExactly(x.shape()[1], Dim(elements));
  if (!channels.has_value() || !(x.shape()[2] == Dim(places)) || places == 0) {
    return BuilderError("Col2Im", {x},
                        absl::StrCat("axis 1 of x has to be a multiple of the ", elements,
                                     " elements of a block, and axis 2 has to be the number of places of blocks, ",
                                     places, ", which is at least 1"));
  }
  const CallLocation location(x);
  const Shape of_block = {x.shape()[0], *channels, elements, places};
  const Value blocks = Reshape(x, of_block);
  Shape at_places = {x.shape()[0], *channels};
  for (int64_t count : counts) at_places.Append(Dim(count));
  Value sum;
  for (int64_t element = 0; element < elements; ++element) {
    PadOptions pad = {.low = {0, 0}, .high = {0, 0}, .interior = {0, 0}};
    int64_t rest = element;
    std::vector<int64_t> tap(axes);
    for (size_t i = axes; i-- > 0; rest /= taps[i]) tap[i] = rest % taps[i];
    for (size_t i = 0; i < axes; ++i) {
      const int64_t before = tap[i] * dilation[i] - low[i], spread = (counts[i] - 1) * stride[i] + 1;
      pad.low.Append(Dim(before));
      pad.high.Append(Dim(sizes[i] - before - spread));
      pad.interior.push_back(stride[i] - 1);
    }
    const Value part = Pad(Reshape(SliceAxis(blocks, 2, element, element + 1), at_places), pad);
    sum = sum.valid() ? sum + part : part;
  }
  return sum;
}

Value GridSample(Operand x, Operand grid, const GridSampleOptions& options) {
  if (!x.is_value()) return NeedsValue("GridSample", x);
  if (!grid.is_value()) return NeedsValue("GridSample", grid);
  const int axes = x.rank() - 2, last = grid.rank() - 1;
  if (axes < 1 || axes > 3 || last != axes + 1 || !(grid.shape()[last] == Dim(axes)) ||
      !(grid.shape()[0] == x.shape()[0]) || !IsFloating(x.dtype()) || grid.dtype() != x.dtype()) {
    return BuilderError(
        "GridSample", {x, grid},
        "x has to be [batch, channels, 1 to 3 spatial axes], and the grid [batch, as many axes, number of "
        "spatial axes], of one floating dtype");
  }
  const CallLocation location(x);
  std::vector<Neighbours> neighbours;
  for (int axis = 0; axis < axes; ++axis) {
    const int64_t column = axes - 1 - axis;
    const Value coordinate = Squeeze(SliceAxis(grid, last, column, column + 1), {last});
    neighbours.push_back(FindNeighbours(coordinate, SizeNumber(x.value(), axis + 2), options));
  }
  // The pixels as rows of channels.
  Integers channels_last = {0};
  Dim pixels = x.shape()[0];
  for (int axis = 2; axis < x.rank(); ++axis) {
    channels_last.push_back(axis);
    pixels = pixels * x.shape()[axis];
  }
  channels_last.push_back(1);
  const Value rows = Reshape(Transpose(x, channels_last), {pixels, x.shape()[1]});
  const Value image = WithAxesBehind(RangeLike(x, x.shape()[0]), axes);
  // Every choice of one neighbour along each axis.
  const size_t taps = neighbours[0].indices.size();
  size_t choices = 1;
  for (int axis = 0; axis < axes; ++axis) choices *= taps;
  Value sum;
  for (size_t choice = 0; choice < choices; ++choice) {
    Value row = image, weight;
    size_t rest = choice;
    for (int axis = 0; axis < axes; ++axis, rest /= taps) {
      row = row * SizeOf(x.value(), axis + 2) + neighbours[axis].indices[rest % taps];
      const Value& own = neighbours[axis].weights[rest % taps];
      weight = weight.valid() ? weight * own : own;
    }
    const Value part = Gather(rows, row) * ExpandDims(weight, {last});
    sum = sum.valid() ? sum + part : part;
  }
  Integers channels_second = {0, last};
  for (int axis = 1; axis < last; ++axis) channels_second.push_back(axis);
  return Transpose(sum, channels_second);
}

}  // namespace gradweave
