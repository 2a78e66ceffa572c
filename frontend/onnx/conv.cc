// ONNX's convolutions.
#include "gradweave/ops/conv.h"

#include <algorithm>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/frontend/onnx/windows.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {

Dim NumWindows(const Windows& windows, size_t axis, const Dim& size) {
  return FloorDivide(size + (windows.low[axis] + windows.high[axis] - windows.Extent(axis)), windows.stride[axis]) + 1;
}

absl::StatusOr<Windows> WindowsOf(const Call& call, const Shape& x, Integers kernel) {
  if (x.rank() < 3) return call.Wrong("its input has to have a batch, channels and at least one axis more");
  const auto axes = static_cast<size_t>(x.rank() - 2);
  Windows windows{.kernel = call.Ints("kernel_shape").value_or(std::move(kernel)),
                  .stride = call.Ints("strides").value_or(Integers(axes, 1)),
                  .dilation = call.Ints("dilations").value_or(Integers(axes, 1)),
                  .low = Integers(axes, 0),
                  .high = Integers(axes, 0)};
  for (const Integers* list : {&windows.kernel, &windows.stride, &windows.dilation}) {
    if (list->size() != axes)
      return call.Wrong("its kernel, strides and dilations need one number for each of ", axes, " axes");
    // Products of such numbers are far from any overflow.
    if (std::any_of(list->begin(), list->end(), [](int64_t n) { return n < 1 || n > (1 << 24); }))
      return call.Wrong("its kernel, strides and dilations have to be in [1, 2^24]");
  }
  const std::string mode = call.Text("auto_pad", "NOTSET");
  if (mode == "NOTSET" || mode.empty()) {
    const Integers pads = call.Ints("pads").value_or(Integers(2 * axes, 0));
    if (pads.size() != 2 * axes) return call.Wrong("it needs two paddings for each of ", axes, " axes");
    if (std::any_of(pads.begin(), pads.end(), [](int64_t n) { return n < 0 || n > (1 << 24); }))
      return call.Wrong("its paddings have to be in [0, 2^24]");
    windows.low.assign(pads.begin(), pads.begin() + static_cast<int64_t>(axes));
    windows.high.assign(pads.begin() + static_cast<int64_t>(axes), pads.end());
  } else if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
    for (size_t i = 0; i < axes; ++i) {
      const Dim& size = x[static_cast<int>(i) + 2];
      const int64_t stride = windows.stride[i];
      if (!size.is_known() && stride != 1) return call.Refuse("its padding depends on a size that only a run knows");
      const int64_t n = size.is_known() ? size.size() : 1;
      const int64_t total = std::max<int64_t>(((n + stride - 1) / stride - 1) * stride + windows.Extent(i) - n, 0);
      windows.low[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      windows.high[i] = total - windows.low[i];
    }
  } else if (mode != "VALID") {
    return call.Wrong("its auto_pad is unknown");
  }
  if (call.Int("ceil_mode", 0) != 0) {
    for (size_t i = 0; i < axes; ++i) {
      const Dim& size = x[static_cast<int>(i) + 2];
      if (!size.is_known() && windows.stride[i] != 1)
        return call.Refuse("its last window depends on a size that only a run knows");
      if (!size.is_known()) continue;
      const int64_t rest = size.size() + windows.low[i] + windows.high[i] - windows.Extent(i);
      int64_t count = (rest + windows.stride[i] - 1) / windows.stride[i];
      // A window that would begin behind x is left out.
      if (count * windows.stride[i] >= size.size() + windows.low[i]) --count;
      windows.high[i] = std::max(windows.high[i], windows.high[i] + count * windows.stride[i] - rest);
    }
  }
  return windows;
}

Value WithTwoAxes(Value x) { return ExpandDims(x, {2}); }
Value WithOneAxis(Value x) { return Squeeze(x, {2}); }

Windows WithTwoAxes(Windows windows) {
  windows.kernel.insert(windows.kernel.begin(), 1);
  windows.stride.insert(windows.stride.begin(), 1);
  windows.dilation.insert(windows.dilation.begin(), 1);
  windows.low.insert(windows.low.begin(), 0);
  windows.high.insert(windows.high.begin(), 0);
  return windows;
}

namespace {

// The two last axes of the windows: of the planes that a volume consists of.
Windows Planes(const Windows& windows) {
  Windows planes = windows;
  for (Integers* list : {&planes.kernel, &planes.stride, &planes.dilation, &planes.low, &planes.high})
    list->erase(list->begin());
  return planes;
}

Integers Sides(const Windows& windows) { return {windows.low[0], windows.high[0], windows.low[1], windows.high[1]}; }

// [n, c, d, h, w] as planes [n*d, c, h, w], and back.
Value ToPlanes(Value x) {
  const Shape& s = x.shape();
  return Reshape(Transpose(x, {0, 2, 1, 3, 4}), {s[0] * s[2], s[1], s[3], s[4]});
}
Value FromPlanes(Value x, const Dim& n, const Dim& depth) {
  const Shape& s = x.shape();
  return Transpose(Reshape(x, {n, depth, s[1], s[2], s[3]}), {0, 2, 1, 3, 4});
}
// The plane of a filter [o, c, d, h, w] at a depth.
Value FilterPlane(Value filter, int64_t depth) { return Squeeze(SliceAxis(filter, 2, depth, depth + 1), {2}); }

Value AddBias(Call& call, Value y, int input) {
  if (!call.Has(input)) return y;
  Shape shape = call.Type(input).shape;
  for (int i = 2; i < y.rank(); ++i) shape.Append(1);
  return Add(y, Reshape(call.In(input), shape));
}

}  // namespace

absl::StatusOr<Value> Convolve(const Call& call, Value x, Value filter, const Windows& windows, int64_t groups) {
  if (x.rank() == 3) {
    GW_ASSIGN_OR_RETURN(const Value y,
                        Convolve(call, WithTwoAxes(x), WithTwoAxes(filter), WithTwoAxes(windows), groups));
    return WithOneAxis(y);
  }
  if (x.rank() == 4) {
    return Conv2D(
        x, filter,
        {.stride = windows.stride, .padding = Sides(windows), .dilation = windows.dilation, .groups = groups});
  }
  if (x.rank() != 5) return call.Refuse("it has ", x.rank() - 2, " spatial axes, and up to 3 are imported");
  // A volume is the sum over the filter's planes of convolutions of planes.
  const Windows planes = Planes(windows);
  const Dim depth = NumWindows(windows, 0, x.shape()[2]);
  const Value padded = Pad(x, {.low = {0, 0, windows.low[0], 0, 0}, .high = {0, 0, windows.high[0], 0, 0}});
  Value sum;
  for (int64_t i = 0; i < windows.kernel[0]; ++i) {
    const int64_t first = i * windows.dilation[0];
    const Value part = SliceAxis(padded, 2, first, (depth - 1) * windows.stride[0] + (first + 1), windows.stride[0]);
    GW_ASSIGN_OR_RETURN(const Value y, Convolve(call, ToPlanes(part), FilterPlane(filter, i), planes, groups));
    sum = i == 0 ? y : Add(sum, y);
  }
  return FromPlanes(sum, x.shape()[0], depth);
}

namespace {

Integers KernelOf(const Shape& filter) {
  Integers kernel;
  for (int i = 2; i < filter.rank(); ++i) kernel.push_back(filter[i].is_known() ? filter[i].size() : 0);
  return kernel;
}

absl::Status Conv(Call& call) {
  const Value x = call.In(0), filter = call.In(1);
  if (filter.rank() != x.rank()) return call.Wrong("its filter has ", filter.rank(), " axes and its input ", x.rank());
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), KernelOf(filter.shape())));
  if (x.rank() == 4 && call.Has(2)) {
    call.Set(0, Conv2D(x, filter, call.In(2),
                       {.stride = windows.stride,
                        .padding = Sides(windows),
                        .dilation = windows.dilation,
                        .groups = call.Int("group", 1)}));
    return absl::OkStatus();
  }
  GW_ASSIGN_OR_RETURN(const Value y, Convolve(call, x, filter, windows, call.Int("group", 1)));
  call.Set(0, AddBias(call, y, 2));
  return absl::OkStatus();
}

// The transpose of Convolve. The size of the result is that of the windows over it, without the
// padding.
absl::StatusOr<Value> ConvolveTranspose(const Call& call, Value x, Value filter, const Windows& windows,
                                        const Integers& more, int64_t groups) {
  if (x.rank() == 3) {
    Integers both = more;
    both.insert(both.begin(), 0);
    GW_ASSIGN_OR_RETURN(const Value y, ConvolveTranspose(call, WithTwoAxes(x), WithTwoAxes(filter),
                                                         WithTwoAxes(windows), both, groups));
    return WithOneAxis(y);
  }
  // The whole result, without padding; elements of the padding are removed from it, and more may be
  // added.
  auto crop = [&](Value y, size_t first) {
    PadOptions options;
    for (int i = 0; i < y.rank(); ++i) {
      const int axis = i - (y.rank() - static_cast<int>(windows.low.size() - first));
      options.low.Append(axis < 0 ? 0 : -windows.low[static_cast<size_t>(axis) + first]);
      options.high.Append(
          axis < 0 ? 0 : more[static_cast<size_t>(axis) + first] - windows.high[static_cast<size_t>(axis) + first]);
    }
    return Pad(y, options);
  };
  if (x.rank() == 4) {
    const bool plain = std::all_of(more.begin(), more.end(), [](int64_t n) { return n == 0; });
    const ConvTranspose2DOptions options{.stride = windows.stride,
                                         .padding = plain ? Sides(windows) : Integers{0, 0, 0, 0},
                                         .dilation = windows.dilation,
                                         .groups = groups};
    const Value y = ConvTranspose2D(x, filter, options);
    return plain ? y : crop(y, 0);
  }
  if (x.rank() != 5) return call.Refuse("it has ", x.rank() - 2, " spatial axes, and up to 3 are imported");
  Windows planes = Planes(windows);
  const Integers plane_more(more.begin() + 1, more.end());
  const int64_t extent = windows.Extent(0), stride = windows.stride[0];
  Value sum;
  for (int64_t i = 0; i < windows.kernel[0]; ++i) {
    GW_ASSIGN_OR_RETURN(const Value y,
                        ConvolveTranspose(call, ToPlanes(x), FilterPlane(filter, i), planes, plane_more, groups));
    const int64_t first = i * windows.dilation[0];
    const Value placed = Pad(FromPlanes(y, x.shape()[0], x.shape()[2]),
                             {.low = {0, 0, first - windows.low[0], 0, 0},
                              .high = {0, 0, extent - 1 - first - windows.high[0] + more[0], 0, 0},
                              .interior = {0, 0, stride - 1, 0, 0}});
    sum = i == 0 ? placed : Add(sum, placed);
  }
  return sum;
}

absl::Status ConvTranspose(Call& call) {
  const Value x = call.In(0), filter = call.In(1);
  if (filter.rank() != x.rank()) return call.Wrong("its filter has ", filter.rank(), " axes and its input ", x.rank());
  const std::string mode = call.Text("auto_pad", "NOTSET");
  const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  const std::optional<Integers> shape = call.Ints("output_shape");
  const auto axes = static_cast<size_t>(x.rank() - 2);
  Integers more = call.Ints("output_padding").value_or(Integers(axes, 0));
  if (x.rank() < 3 || more.size() != axes) return call.Wrong("its output_padding needs a number for each of its axes");
  GW_ASSIGN_OR_RETURN(Windows windows, WindowsOf(call, x.shape(), KernelOf(filter.shape())));
  if (same || shape.has_value()) {
    // The padding follows from the size of the output.
    if (shape.has_value() && shape->size() < axes)
      return call.Wrong("its output_shape needs a number for each of its axes");
    for (size_t i = 0; i < axes; ++i) {
      const Dim& size = x.shape()[static_cast<int>(i) + 2];
      if (!size.is_known()) return call.Refuse("its padding depends on a size that only a run knows");
      const int64_t wanted = shape.has_value() ? (*shape)[shape->size() - axes + i] : size.size() * windows.stride[i];
      const int64_t total = windows.stride[i] * (size.size() - 1) + more[i] + windows.Extent(i) - wanted;
      if (total < 0) {
        windows.low[i] = windows.high[i] = 0;
        more[i] -= total;
      } else {
        windows.low[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
        windows.high[i] = total - windows.low[i];
      }
    }
  }
  GW_ASSIGN_OR_RETURN(const Value y, ConvolveTranspose(call, x, filter, windows, more, call.Int("group", 1)));
  call.Set(0, AddBias(call, y, 2));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"Conv", 1, 2, Conv},
    {"ConvTranspose", 1, 2, ConvTranspose},
};

}  // namespace

absl::Span<const OpRow> ConvRows() { return kRows; }

}  // namespace gradweave::onnx
