#include "gradweave/ops/conv_nd.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/windows.h"

namespace gradweave {
namespace {

// The sizes of the filter's spatial axes; nullopt, after an error, if one is not known.
std::optional<Integers> TapsOf(absl::string_view function, const Operand& x, const Operand& filter) {
  Integers taps;
  bool known = x.rank() == filter.rank();
  for (int axis = 2; known && axis < filter.rank(); ++axis) {
    known = filter.shape()[axis].is_known();
    taps.push_back(filter.shape()[axis].size());
  }
  if (known) return taps;
  BuilderError(function, {x, filter},
               "x and the filter have to have the same number of axes, and the filter known sizes");
  return std::nullopt;
}

// The numbers of the last two axes, as for a Conv2D. A single axis is the width.
Integers LastTwo(const Integers& numbers, int64_t otherwise) {
  const size_t count = numbers.size();
  return {count > 1 ? numbers[count - 2] : otherwise, numbers.back()};
}
Integers FourOf(const Windows& windows) {
  const Integers low = LastTwo(windows.low, 0), high = LastTwo(windows.high, 0);
  return {low[0], high[0], low[1], high[1]};
}

// x [n, c, depth, h, w] -> [n*depths, c*taps, h, w]: the slices of depth that each step of the
// filter sees are channels.
Value DepthAsChannels(const Value& x, const Windows& windows) {
  const int64_t taps = windows.taps[0], stride = windows.stride[0], dilation = windows.dilation[0];
  const Value padded = Pad(x, {.low = {0, 0, windows.low[0], 0, 0}, .high = {0, 0, windows.high[0], 0, 0}});
  if (!padded.valid()) return padded;
  const Shape& shape = padded.shape();
  const Dim steps = FloorDivide(shape[2] - Dim(windows.Reach(0)), stride) + Dim(1);
  std::vector<Value> slices;
  for (int64_t tap = 0; tap < taps; ++tap) {
    const Dim first(tap * dilation);
    const Value slice = SliceAxis(padded, 2, first, first + (steps - Dim(1)) * Dim(stride) + Dim(1), stride);
    slices.push_back(ExpandDims(slice, {2}));
  }
  const Value stacked = taps == 1 ? slices[0] : Concat(slices, 2);  // [n, c, taps, steps, h, w].
  return Reshape(Transpose(stacked, {0, 3, 1, 2, 4, 5}), {shape[0] * steps, shape[1] * Dim(taps), shape[3], shape[4]});
}

// [n*depth, c, h, w] -> [n, c, depth, h, w].
Value DepthAsAxis(const Value& x, const Dim& samples, const Dim& depth) {
  if (!x.valid()) return x;
  const Shape& shape = x.shape();
  return Transpose(Reshape(x, {samples, depth, shape[1], shape[2], shape[3]}), {0, 2, 1, 3, 4});
}

Value WithBias(absl::string_view function, const Operand& x, const Value& y, const Operand& bias) {
  if (!AllValid(function, {x, bias})) return Invalid(x);
  if (bias.is_number() || !(bias.shape() == Shape{y.shape()[1]})) {
    return BuilderError(function, {y, bias},
                        absl::StrCat("the bias has to have shape [", y.shape()[1].ToString(), "]"));
  }
  return Add(y, WithAxesBehind(bias.value(), y.rank() - 2));
}

}  // namespace

Value ConvND(Operand x, Operand filter, const ConvNDOptions& options) {
  if (!x.is_value()) return NeedsValue("ConvND", x);
  if (!filter.is_value()) return NeedsValue("ConvND", filter);
  const std::optional<Integers> taps = TapsOf("ConvND", x, filter);
  if (!taps.has_value()) return Invalid(x);
  const std::optional<Windows> windows = CompleteWindows("ConvND", x, *taps, options);
  if (!windows.has_value()) return Invalid(x);
  const CallLocation location(x);
  const Conv2DOptions flat = {.stride = LastTwo(windows->stride, 1),
                              .padding = FourOf(*windows),
                              .dilation = LastTwo(windows->dilation, 1),
                              .groups = options.groups};
  const Shape &shape = x.shape(), &weights = filter.shape();
  switch (x.rank()) {
    case 3: {
      const Value y = Conv2D(ExpandDims(x, {2}), ExpandDims(filter, {2}), flat);
      return y.valid() ? Squeeze(y, {2}) : y;
    }
    case 4:
      return Conv2D(x, filter, flat);
    default: {
      // The channels of a group and the taps of depth are neighbours in the filter, as in the
      // images.
      const Value images = DepthAsChannels(x.value(), *windows);
      if (!images.valid()) return images;
      const Value y = Conv2D(
          images, Reshape(filter, {weights[0], weights[1] * Dim(windows->taps[0]), weights[3], weights[4]}), flat);
      const Dim depth = shape[2] + Dim(windows->low[0]) + Dim(windows->high[0]) - Dim(windows->Reach(0));
      return DepthAsAxis(y, shape[0], FloorDivide(depth, windows->stride[0]) + Dim(1));
    }
  }
}

Value ConvND(Operand x, Operand filter, Operand bias, const ConvNDOptions& options) {
  const Value y = ConvND(x, filter, options);
  if (!y.valid()) return y;
  const CallLocation location(x);
  return WithBias("ConvND", x, y, bias);
}

namespace {

// Pads the result so that it has the wanted sizes; `extra` is output padding. False, after an
// error, if they need sizes of x that are not known.
bool FitToSizes(const Operand& x, const Operand& filter, const ConvTransposeNDOptions& options, const Integers& extra,
                const Integers& sizes, Windows& windows) {
  for (int i = 0; i < static_cast<int>(windows.taps.size()); ++i) {
    const Dim& size = x.shape()[i + 2];
    if (!size.is_known()) {
      BuilderError("ConvTransposeND", {x, filter}, "sizes of the result need known sizes of x");
      return false;
    }
    const int64_t whole = (size.size() - 1) * windows.stride[i] + windows.Reach(i) + extra[i];
    const int64_t wanted = options.output_sizes.empty() ? size.size() * windows.stride[i] : sizes[i];
    // Negative padding adds zeros behind the result.
    const int64_t total = whole - wanted, half = total < 0 ? 0 : total / 2;
    const bool upper = options.auto_padding == AutoPadding::kSameUpper;
    windows.low[i] = upper || total < 0 ? half : total - half;
    windows.high[i] = total - windows.low[i];
  }
  return true;
}

// The convolution of x [n, c, depth, h, w]. Each slice of depth gives the slices of all taps as
// channels, which are added where they overlap.
Value TransposeWithDepth(const Operand& x, const Operand& filter, const Windows& windows,
                         const ConvTranspose2DOptions& flat) {
  const Shape &shape = x.shape(), &weights = filter.shape();
  const int64_t depth_taps = windows.taps[0], stride = windows.stride[0], dilation = windows.dilation[0];
  const Value images = Reshape(Transpose(x, {0, 2, 1, 3, 4}), {shape[0] * shape[2], shape[1], shape[3], shape[4]});
  const Value slices = ConvTranspose2D(
      images, Reshape(filter, {weights[0], weights[1] * Dim(depth_taps), weights[3], weights[4]}), flat);
  if (!slices.valid()) return slices;
  const Dim channels = weights[1] * Dim(flat.groups);
  const Value parts =
      Transpose(Reshape(slices, {shape[0], shape[2], channels, depth_taps, slices.shape()[2], slices.shape()[3]}),
                {0, 2, 3, 1, 4, 5});
  Value y;
  for (int64_t tap = 0; tap < depth_taps; ++tap) {
    const Value part =
        Pad(Squeeze(SliceAxis(parts, 2, tap, tap + 1), {2}), {.low = {0, 0, tap * dilation, 0, 0},
                                                              .high = {0, 0, (depth_taps - 1 - tap) * dilation, 0, 0},
                                                              .interior = {0, 0, stride - 1, 0, 0}});
    y = y.valid() ? y + part : part;
  }
  return y;
}

}  // namespace

Value ConvTransposeND(Operand x, Operand filter, const ConvTransposeNDOptions& options) {
  if (!x.is_value()) return NeedsValue("ConvTransposeND", x);
  if (!filter.is_value()) return NeedsValue("ConvTransposeND", filter);
  const std::optional<Integers> taps = TapsOf("ConvTransposeND", x, filter);
  if (!taps.has_value()) return Invalid(x);
  const bool same = options.auto_padding == AutoPadding::kSameUpper || options.auto_padding == AutoPadding::kSameLower;
  // The padding follows from the sizes of the result, and not from those of x.
  ConvNDOptions given = {options.stride, options.dilation, options.padding_low, options.padding_high};
  given.auto_padding = same || !options.output_sizes.empty() ? AutoPadding::kValid : options.auto_padding;
  std::optional<Windows> windows = CompleteWindows("ConvTransposeND", x, *taps, given);
  if (!windows.has_value()) return Invalid(x);
  const size_t axes = taps->size();
  Integers extra = options.output_padding, sizes = options.output_sizes;
  bool fits = CompleteNumbers(extra, axes, 0, 0) && CompleteNumbers(sizes, axes, 1, 1) && options.groups >= 1 &&
              filter.shape()[0] == x.shape()[1];
  for (size_t i = 0; fits && i < axes; ++i) fits = extra[i] < std::max(windows->stride[i], windows->dilation[i]);
  if (!fits) {
    return BuilderError(
        "ConvTransposeND", {x, filter},
        "the filter has to be [channels of x, output channels/groups, taps...], groups at least 1, each "
        "output padding in [0, max(stride, dilation)), and each output size at least 1");
  }
  if ((same || !options.output_sizes.empty()) && !FitToSizes(x, filter, options, extra, sizes, *windows))
    return Invalid(x);
  const CallLocation location(x);
  // Without any padding, so that all padding is one slice or pad of the result.
  const ConvTranspose2DOptions flat = {
      .stride = LastTwo(windows->stride, 1), .dilation = LastTwo(windows->dilation, 1), .groups = options.groups};
  Value y;
  if (axes == 1) {
    y = ConvTranspose2D(ExpandDims(x, {2}), ExpandDims(filter, {2}), flat);
    if (y.valid()) y = Squeeze(y, {2});
  } else if (axes == 2) {
    y = ConvTranspose2D(x, filter, flat);
  } else {
    y = TransposeWithDepth(x, filter, *windows, flat);
  }
  if (!y.valid()) return y;
  PadOptions pad = {.low = {0, 0}, .high = {0, 0}};
  bool padded = false;
  for (size_t i = 0; i < axes; ++i) {
    pad.low.Append(Dim(-windows->low[i]));
    pad.high.Append(Dim(extra[i] - windows->high[i]));
    padded |= windows->low[i] != 0 || extra[i] != windows->high[i];
  }
  return padded ? Pad(y, pad) : y;
}

Value ConvTransposeND(Operand x, Operand filter, Operand bias, const ConvTransposeNDOptions& options) {
  const Value y = ConvTransposeND(x, filter, options);
  if (!y.valid()) return y;
  const CallLocation location(x);
  return WithBias("ConvTransposeND", x, y, bias);
}

}  // namespace gradweave
