// ONNX's ops on images: resampling, blocks of pixels and places in them.
#include "gradweave/ops/image.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/frontend/onnx/windows.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/resize.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

// The value of a name in a table of names.
template <typename T, size_t kSize>
absl::StatusOr<T> Named(const Call& call, const std::pair<const char*, T> (&table)[kSize], const std::string& name) {
  for (const auto& [known, value] : table) {
    if (name == known) return value;
  }
  return call.Wrong("'", name, "' is not a valid value of its attributes");
}

constexpr std::pair<const char*, ResizeMethod> kMethods[] = {
    {"nearest", ResizeMethod::kNearest},
    {"linear", ResizeMethod::kLinear},
    {"bilinear", ResizeMethod::kLinear},
    {"cubic", ResizeMethod::kCubic},
};
constexpr std::pair<const char*, ResizeCoordinates> kCoordinates[] = {
    {"half_pixel", ResizeCoordinates::kHalfPixel},
    {"half_pixel_symmetric", ResizeCoordinates::kHalfPixelSymmetric},
    {"pytorch_half_pixel", ResizeCoordinates::kPytorchHalfPixel},
    {"align_corners", ResizeCoordinates::kAlignCorners},
    {"asymmetric", ResizeCoordinates::kAsymmetric},
    {"tf_crop_and_resize", ResizeCoordinates::kTfCropAndResize},
    {"tf_half_pixel_for_nn", ResizeCoordinates::kHalfPixel},
};
constexpr std::pair<const char*, ResizeNearest> kNearest[] = {
    {"round_prefer_floor", ResizeNearest::kRoundPreferFloor},
    {"round_prefer_ceil", ResizeNearest::kRoundPreferCeil},
    {"floor", ResizeNearest::kFloor},
    {"ceil", ResizeNearest::kCeil},
};

// True if the nearest element is that of a repetition, for any size and a whole scale.
bool Repeats(const ResizeOptions& options) {
  using enum ResizeCoordinates;
  const bool floors = options.coordinates == kAsymmetric && options.nearest == ResizeNearest::kFloor;
  return options.method == ResizeMethod::kNearest &&
         (floors || options.coordinates == kHalfPixel || options.coordinates == kPytorchHalfPixel);
}

// The request of a node: a scale or a size of each axis.
struct Request {
  Integers axes;
  std::vector<double> scales;
  Elements sizes;
  std::vector<double> region;
  std::string policy = "stretch";
};

// Sizes that keep the ratio of the axes, by one scale for all.
absl::Status KeepRatio(const Call& call, const Shape& shape, Request& request) {
  const bool larger = request.policy == "not_smaller";
  if (!larger && request.policy != "not_larger") return call.Wrong("its keep_aspect_ratio_policy is unknown");
  std::optional<double> scale;
  for (size_t i = 0; i < request.axes.size(); ++i) {
    const Dim& size = shape[static_cast<int>(request.axes[i])];
    if (!size.is_known() || !request.sizes[i].is_known() || size.size() < 1)
      return call.Refuse("its sizes depend on sizes that only a run knows");
    const double ratio = static_cast<double>(request.sizes[i].size()) / static_cast<double>(size.size());
    scale = !scale.has_value() ? ratio : larger ? std::max(*scale, ratio) : std::min(*scale, ratio);
  }
  for (size_t i = 0; i < request.axes.size(); ++i) {
    const auto size = static_cast<double>(shape[static_cast<int>(request.axes[i])].size());
    request.sizes[i] = ToInteger(std::floor(size * scale.value_or(1) + 0.5));
  }
  return absl::OkStatus();
}

absl::Status ResizeTo(Call& call, Request request, ResizeOptions options) {
  Value x = call.In(0);
  if (request.axes.empty()) {
    for (int64_t i = 0; i < x.rank(); ++i) request.axes.push_back(i);
  } else {
    GW_ASSIGN_OR_RETURN(request.axes, call.Axes(request.axes, x.rank()));
  }
  const bool by_size = request.scales.empty();
  if ((by_size ? request.sizes.size() : request.scales.size()) != request.axes.size())
    return call.Wrong("it needs a scale or a size for each axis");
  const bool crops = options.coordinates == ResizeCoordinates::kTfCropAndResize;
  if (crops && request.region.size() != 2 * request.axes.size())
    return call.Wrong("its part of the input needs two numbers for each axis");
  if (by_size && request.policy != "stretch") GW_RETURN_IF_ERROR(KeepRatio(call, x.shape(), request));
  for (size_t i = 0; i < request.axes.size(); ++i) {
    const int64_t axis = request.axes[i];
    const Dim size = SizeAt(x.shape(), axis);
    if (!crops && (by_size ? size == request.sizes[i] : request.scales[i] == 1)) continue;
    if (!size.is_known()) {
      double scale = by_size ? 0 : request.scales[i];
      if (const std::optional<Dim> ratio = by_size ? DivideExactly(request.sizes[i], size) : std::nullopt;
          ratio.has_value() && ratio->is_known())
        scale = static_cast<double>(ratio->size());
      if (!Repeats(options) || scale < 1 || scale != std::floor(scale) || scale > 1e6) {
        return call.Refuse("axis ", axis,
                           " has a size that only a run knows, and only its repetition by whole numbers is imported");
      }
      x = Repeat(x, axis, ToInteger(scale));
      continue;
    }
    options.axes.push_back(axis);
    if (!by_size) {
      options.scales.push_back(request.scales[i]);
    } else if (request.sizes[i].is_known()) {
      options.sizes.push_back(request.sizes[i].size());
    } else {
      return call.Refuse("its sizes depend on sizes that only a run knows");
    }
    if (!crops) continue;
    options.region_start.push_back(request.region[i]);
    options.region_end.push_back(request.region[request.axes.size() + i]);
  }
  // Tables have the places and the weights of the elements that each element of the result is a
  // sum of.
  constexpr double kBytesOfElement = 512, kMostElements = 0x1p40;
  for (size_t i = 0; i < options.axes.size(); ++i) {
    const double size = static_cast<double>(SizeAt(x.shape(), options.axes[i]).size());
    const double to = by_size ? static_cast<double>(options.sizes[i]) : size * options.scales[i];
    if (!(to >= 0 && to <= kMostElements)) return call.Wrong("a size or a scale is out of range");
    GW_RETURN_IF_ERROR(call.importer().Take(ToInteger((size + to) * kBytesOfElement)));
  }
  call.Set(0, options.axes.empty() ? x : Resize(x, options));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> Numbers(const Call& call, int i) {
  GW_ASSIGN_OR_RETURN(const Tensor tensor, call.Known(i));
  return tensor.ToDoubles();
}

absl::Status ResizeRow(Call& call) {
  Request request;
  ResizeOptions options;
  GW_ASSIGN_OR_RETURN(options.method, Named(call, kMethods, call.Text("mode", "nearest")));
  if (call.opset() < 11) {
    options.coordinates = ResizeCoordinates::kAsymmetric;
    options.nearest = ResizeNearest::kFloor;
    GW_ASSIGN_OR_RETURN(request.scales, Numbers(call, 1));
    return ResizeTo(call, std::move(request), std::move(options));
  }
  const std::string coordinates = call.Text("coordinate_transformation_mode", "half_pixel");
  GW_ASSIGN_OR_RETURN(options.coordinates, Named(call, kCoordinates, coordinates));
  GW_ASSIGN_OR_RETURN(options.nearest, Named(call, kNearest, call.Text("nearest_mode", "round_prefer_floor")));
  if (coordinates == "tf_half_pixel_for_nn") {
    // Its places lie half an element behind those of half_pixel.
    if (options.nearest != ResizeNearest::kFloor && options.nearest != ResizeNearest::kRoundPreferFloor)
      return call.Refuse("tf_half_pixel_for_nn is imported with floor and round_prefer_floor");
    options.nearest = options.nearest == ResizeNearest::kFloor ? ResizeNearest::kRoundPreferCeil : ResizeNearest::kCeil;
  }
  options.cubic_coefficient = call.Float("cubic_coeff_a", -0.75);
  options.exclude_outside = call.Int("exclude_outside", 0) != 0;
  options.antialias = call.Int("antialias", 0) != 0 && options.method != ResizeMethod::kNearest;
  options.extrapolation = call.Float("extrapolation_value", 0);
  request.policy = call.Text("keep_aspect_ratio_policy", "stretch");
  request.axes = call.Ints("axes").value_or(Integers());
  if (options.coordinates == ResizeCoordinates::kTfCropAndResize) {
    if (!call.Has(1)) return call.Wrong("it has no part of the input");
    GW_ASSIGN_OR_RETURN(request.region, Numbers(call, 1));
  }
  // An empty tensor of scales is none.
  if (call.Has(2) && !(call.Type(2).shape == Shape{0})) {
    GW_ASSIGN_OR_RETURN(request.scales, Numbers(call, 2));
  }
  if (request.scales.empty()) {
    if (!call.Has(3)) return call.Wrong("it has neither scales nor sizes");
    GW_ASSIGN_OR_RETURN(request.sizes, call.KnownElements(3));
  }
  return ResizeTo(call, std::move(request), std::move(options));
}

absl::Status Upsample(Call& call) {
  Request request;
  ResizeOptions options{.coordinates = ResizeCoordinates::kAsymmetric, .nearest = ResizeNearest::kFloor};
  GW_ASSIGN_OR_RETURN(options.method, Named(call, kMethods, call.Text("mode", "nearest")));
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(request.scales, Numbers(call, 1));
  } else if (const proto::Attribute* scales = call.Find("scales"); scales != nullptr) {
    request.scales.assign(scales->floats().begin(), scales->floats().end());
  } else {
    return call.Wrong("it has no scales");
  }
  return ResizeTo(call, std::move(request), std::move(options));
}

absl::Status GridSampleRow(Call& call) {
  constexpr std::pair<const char*, GridMode> kModes[] = {
      {"nearest", GridMode::kNearest}, {"bilinear", GridMode::kLinear}, {"linear", GridMode::kLinear},
      {"bicubic", GridMode::kCubic},   {"cubic", GridMode::kCubic},
  };
  constexpr std::pair<const char*, GridPadding> kPaddings[] = {
      {"zeros", GridPadding::kZeros}, {"border", GridPadding::kBorder}, {"reflection", GridPadding::kReflection}};
  GridSampleOptions options{.align_corners = call.Int("align_corners", 0) != 0};
  GW_ASSIGN_OR_RETURN(options.mode, Named(call, kModes, call.Text("mode", "bilinear")));
  GW_ASSIGN_OR_RETURN(options.padding, Named(call, kPaddings, call.Text("padding_mode", "zeros")));
  call.Set(0, GridSample(call.In(0), call.In(1), options));
  return absl::OkStatus();
}

// The places of an image's pixels, moved by an affine map: theta [n, 2, 3] or [n, 3, 4].
absl::Status AffineGrid(Call& call) {
  const Value theta = call.In(0);
  GW_ASSIGN_OR_RETURN(const Elements sizes, call.KnownElements(1));
  const bool corners = call.Int("align_corners", 0) != 0;
  const auto axes = static_cast<int64_t>(sizes.size()) - 2;
  if (theta.rank() != 3 || (axes != 2 && axes != 3)) return call.Wrong("it needs maps and sizes of 2 or 3 axes");
  Shape shape(absl::Span<const Dim>(sizes).subspan(2));
  Dim count(1);
  for (const Dim& size : shape) count = count * size;
  std::vector<Value> parts;  // Coordinates of each pixel, the last axis first, and 1.
  for (int64_t axis = axes - 1; axis >= 0; --axis) {
    const Dim& size = shape[static_cast<int>(axis)];
    if (!size.is_known() || size.size() < 1) return call.Refuse("a size is not known");
    const auto n = static_cast<double>(size.size());
    const double step = corners ? (n > 1 ? 2 / (n - 1) : 0) : 2 / n, start = corners ? -1 : -1 + 1 / n;
    const Value along = Range(call.scope(), size, {.start = 0, .step = 1, .dtype = theta.dtype()});
    Shape placed;
    for (int64_t i = 0; i < axes; ++i) placed.Append(i == axis ? size : Dim(1));
    parts.push_back(Reshape(BroadcastTo(Reshape(Add(Mul(along, step), start), placed), shape), {count, 1}));
  }
  parts.push_back(call.scope().Full(1, {count, 1}, theta.dtype()));
  const Value grid = MatMul(ExpandDims(Concat(parts, 1), {0}), theta, {.transpose_b = true});  // [n, count, axes].
  shape.Insert(0, SizeAt(theta.shape(), 0));
  shape.Append(axes);
  call.Set(0, Reshape(grid, shape));
  return absl::OkStatus();
}

absl::Status CenterCropPad(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const Elements target, call.KnownElements(1));
  Integers axes;
  for (int64_t i = 0; i < x.rank(); ++i) axes.push_back(i);
  if (const std::optional<Integers> given = call.Ints("axes"); given.has_value()) {
    GW_ASSIGN_OR_RETURN(axes, call.Axes(*given, x.rank()));
  }
  if (target.size() != axes.size()) return call.Wrong("it needs a size for each of its axes");
  PadOptions pad;
  for (int i = 0; i < x.rank(); ++i) {
    pad.low.Append(0);
    pad.high.Append(0);
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<int>(axes[i]);
    const Dim more = target[i] - SizeAt(x.shape(), axis);
    if (!more.is_known()) return call.Refuse("it cuts or pads a size that only a run knows");
    // The odd element is added or cut at the end.
    pad.low[axis] = more.size() / 2;
    pad.high[axis] = more.size() - more.size() / 2;
  }
  call.Set(0, Pad(x, pad));
  return absl::OkStatus();
}

absl::Status Col2ImRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const Integers image, call.KnownIntegers(1));
  GW_ASSIGN_OR_RETURN(const Integers block, call.KnownIntegers(2));
  const Integers pads = call.Ints("pads").value_or(Integers(2 * image.size(), 0));
  if (pads.size() != 2 * image.size()) return call.Wrong("it needs two paddings for each axis");
  const auto middle = pads.begin() + static_cast<int64_t>(image.size());
  call.Set(0, Col2Im(call.In(0), image, block,
                     {.stride = call.Ints("strides").value_or(Integers()),
                      .dilation = call.Ints("dilations").value_or(Integers()),
                      .padding_low = Integers(pads.begin(), middle),
                      .padding_high = Integers(middle, pads.end())}));
  return absl::OkStatus();
}

// A convolution whose taps are moved by offsets [n, groups*taps*2, h, w], and weighted by a mask
// (Dai et al., "Deformable convolutional networks", 2017): the taps are sampled, and a filter of
// 1x1 adds them.
absl::Status DeformConv(Call& call) {
  const Value x = call.In(0), filter = call.In(1), offset = call.In(2);
  if (x.rank() != 4 || filter.rank() != 4 || offset.rank() != 4 || !filter.shape().is_static())
    return call.Refuse("it is imported for images [n, c, h, w] and filters of known size");
  const int64_t kh = SizeAt(filter.shape(), 2).size(), kw = SizeAt(filter.shape(), 3).size(), taps = kh * kw;
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), {kh, kw}));
  const int64_t groups = call.Int("offset_group", 1);
  const Dim n = SizeAt(x.shape(), 0), h = SizeAt(x.shape(), 2), w = SizeAt(x.shape(), 3),
            oh = SizeAt(offset.shape(), 2), ow = SizeAt(offset.shape(), 3);
  const std::optional<Dim> channels = DivideExactly(SizeAt(x.shape(), 1), groups < 1 ? 1 : groups);
  if (!h.is_known() || !w.is_known()) return call.Refuse("its image has a size that only a run knows");
  if (groups < 1 || !channels.has_value() || !(SizeAt(offset.shape(), 1) == Dim(groups * taps * 2)))
    return call.Wrong("its offsets do not fit its groups");
  const Value moves = Reshape(offset, {n, groups, taps, 2, oh, ow});
  // The place of a tap along an axis as GridSample counts it, [n, taps, oh, ow].
  auto places = [&](int64_t group, int64_t axis, const Dim& size, const Dim& steps) {
    Tensor first(kFloat64, {1, taps, 1, 1});
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t at = axis == 0 ? tap / kw : tap % kw;
      first.mutable_data<double>()[tap] = static_cast<double>(at * windows.dilation[static_cast<size_t>(axis)] -
                                                              windows.low[static_cast<size_t>(axis)]);
    }
    const Value step = Mul(RangeLike(x, steps, x.dtype()), windows.stride[static_cast<size_t>(axis)]);
    const Value moved = Reshape(SliceAxis(SliceAxis(moves, 1, group, group + 1), 3, axis, axis + 1), {n, taps, oh, ow});
    const Value at = Add(Add(moved, call.scope().Constant(first.Cast(x.dtype()))),
                         Reshape(step, axis == 0 ? Shape{steps, 1} : Shape{1, steps}));
    return Sub(Div(Add(Mul(at, 2), 1), static_cast<double>(size.size())), 1);
  };
  std::vector<Value> sampled;
  for (int64_t group = 0; group < groups; ++group) {
    const Value grid = Concat({ExpandDims(places(group, 1, w, ow), {4}), ExpandDims(places(group, 0, h, oh), {4})}, 4);
    const Value part = SliceAxis(x, 1, *channels * group, *channels * (group + 1));
    Value samples = Reshape(GridSample(part, Reshape(grid, {n, oh * taps, ow, 2})), {n, *channels, taps, oh, ow});
    if (call.Has(4)) {
      const Value mask = SliceAxis(Reshape(call.In(4), {n, groups, taps, oh, ow}), 1, group, group + 1);
      samples = Mul(samples, mask);
    }
    sampled.push_back(Reshape(samples, {n, *channels * taps, oh, ow}));
  }
  const Value columns = sampled.size() == 1 ? sampled[0] : Concat(sampled, 1);
  const Value flat = Reshape(filter, {SizeAt(filter.shape(), 0), SizeAt(filter.shape(), 1) * taps, 1, 1});
  Value y = Conv2D(columns, flat, {.groups = call.Int("group", 1)});
  if (call.Has(3)) y = Add(y, Reshape(call.In(3), {SizeAt(filter.shape(), 0), 1, 1}));
  call.Set(0, y);
  return absl::OkStatus();
}

absl::StatusOr<BlockOrder> OrderOf(const Call& call) {
  constexpr std::pair<const char*, BlockOrder> kOrders[] = {{"DCR", BlockOrder::kDepthColumnRow},
                                                            {"CRD", BlockOrder::kColumnRowDepth}};
  return Named(call, kOrders, call.Text("mode", "DCR"));
}

absl::Status DepthToSpaceRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const BlockOrder order, OrderOf(call));
  call.Set(0, DepthToSpace(call.In(0), call.Int("blocksize", 0), order));
  return absl::OkStatus();
}

absl::Status SpaceToDepthRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const BlockOrder order, OrderOf(call));
  const int64_t block = call.Int("blocksize", 0);
  const Value x = call.In(0), y = SpaceToDepth(x, block);
  if (order == BlockOrder::kDepthColumnRow || !y.valid()) {
    call.Set(0, y);
    return absl::OkStatus();
  }
  // The channel comes before the place in the block.
  const Dim n = SizeAt(y.shape(), 0), c = SizeAt(x.shape(), 1), h = SizeAt(y.shape(), 2), w = SizeAt(y.shape(), 3);
  call.Set(0, Reshape(Transpose(Reshape(y, {n, block * block, c, h, w}), {0, 2, 1, 3, 4}), y.shape()));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"AffineGrid", 20, 2, AffineGrid}, {"CenterCropPad", 18, 2, CenterCropPad}, {"Col2Im", 18, 3, Col2ImRow},
    {"DeformConv", 19, 3, DeformConv}, {"DepthToSpace", 1, 1, DepthToSpaceRow}, {"GridSample", 16, 2, GridSampleRow},
    {"Resize", 10, 1, ResizeRow},      {"SpaceToDepth", 1, 1, SpaceToDepthRow}, {"Upsample", 7, 1, Upsample},
};

}  // namespace

absl::Span<const OpRow> ImageRows() { return kRows; }

}  // namespace gradweave::onnx
