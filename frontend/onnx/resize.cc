// ONNX's ops that resample: Resize, Upsample and GridSample. Sizes are known, so interpolation
// along an axis is a product with a constant matrix.
#include <algorithm>
#include <cmath>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

// The map from positions in the result to positions in the input, along one axis.
struct Resampling {
  std::string coordinates = "half_pixel";
  std::string mode = "nearest";
  std::string rounding = "round_prefer_floor";
  double cubic = -0.75;
  bool exclude_outside = false;
  bool antialias = false;
  double scale = 1;
  int64_t in = 1, out = 1;
  double start = 0, end = 1;  // The part of the axis for tf_crop_and_resize.
};

double Position(const Resampling& r, int64_t at) {
  const auto x = static_cast<double>(at), in = static_cast<double>(r.in);
  const double out = r.scale * in;  // As ONNX's reference, without rounding down.
  if (r.coordinates == "asymmetric") return x / r.scale;
  if (r.coordinates == "tf_half_pixel_for_nn") return (x + 0.5) / r.scale;
  if (r.coordinates == "align_corners") return r.out == 1 ? 0 : x * (in - 1) / (out - 1);
  if (r.coordinates == "pytorch_half_pixel") return r.out > 1 ? (x + 0.5) / r.scale - 0.5 : 0;
  if (r.coordinates == "half_pixel_symmetric") {
    const double adjust = static_cast<double>(r.out) / out, centre = in / 2;
    return centre * (1 - adjust) + (x + 0.5) / r.scale - 0.5;
  }
  if (r.coordinates == "tf_crop_and_resize") {
    return r.out > 1 ? r.start * (in - 1) + x * (r.end - r.start) * (in - 1) / static_cast<double>(r.out - 1)
                     : (r.start + r.end) * (in - 1) / 2;
  }
  return (x + 0.5) / r.scale - 0.5;
}

double RoundTo(const std::string& mode, double x) {
  if (mode == "floor") return std::floor(x);
  if (mode == "ceil") return std::ceil(x);
  if (mode == "round_prefer_ceil") return std::floor(x + 0.5);
  return std::ceil(x - 0.5);
}

// Keys, "Cubic convolution interpolation for digital image processing", 1981.
double CubicWeight(double a, double distance) {
  const double d = std::abs(distance);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return 0;
}

// The weights [out, in] of one axis.
Tensor WeightsOf(const Resampling& r) {
  Tensor weights(kFloat64, {r.out, r.in});
  const double shrink = r.antialias && r.scale < 1 ? r.scale : 1;
  const double support = (r.mode == "cubic" ? 2 : 1) / shrink;
  for (int64_t i = 0; i < r.out; ++i) {
    double* row = weights.mutable_data<double>() + i * r.in;
    const double x = Position(r, i);
    double sum = 0;
    auto add = [&](int64_t at, double weight) {
      const bool outside = at < 0 || at >= r.in;
      if (outside && (r.exclude_outside || r.antialias)) return;
      row[std::clamp<int64_t>(at, 0, r.in - 1)] += weight;
      sum += weight;
    };
    for (auto at = static_cast<int64_t>(std::floor(x - support)) + 1; static_cast<double>(at) < x + support; ++at) {
      const double distance = (static_cast<double>(at) - x) * shrink;
      add(at, r.mode == "cubic" ? CubicWeight(r.cubic, distance) : std::max(0.0, 1 - std::abs(distance)));
    }
    if (r.exclude_outside || r.antialias) {
      for (int64_t j = 0; j < r.in; ++j) row[j] /= sum == 0 ? 1 : sum;
    }
  }
  return weights;
}

Value AlongLast(Value x, int64_t axis, Value matrix) {
  Integers order, back(static_cast<size_t>(x.rank()));
  for (int64_t i = 0; i < x.rank(); ++i) {
    if (i != axis) order.push_back(i);
  }
  order.push_back(axis);
  for (size_t i = 0; i < order.size(); ++i) back[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  const bool moves = axis != x.rank() - 1;
  if (x.rank() == 1) return Reshape(MatMul(Reshape(x, {1, x.shape()[0]}), matrix, {.transpose_b = true}), {-1});
  const Value y = MatMul(moves ? Transpose(x, order) : x, matrix, {.transpose_b = true});
  return moves ? Transpose(y, back) : y;
}

absl::StatusOr<Value> ResizeAxis(Call& call, Value x, int64_t axis, const Resampling& r) {
  if (r.mode == "nearest") {
    Tensor places(kInt64, {r.out});
    for (int64_t i = 0; i < r.out; ++i) {
      const double at = RoundTo(r.rounding, Position(r, i));
      places.mutable_data<int64_t>()[i] = std::clamp<int64_t>(static_cast<int64_t>(at), 0, r.in - 1);
    }
    return Gather(x, call.scope().Constant(places), axis);
  }
  if (r.mode != "linear" && r.mode != "cubic") return call.Wrong("its mode is unknown");
  if (!IsFloating(x.dtype())) return call.Refuse("interpolation of integers is not imported");
  constexpr int64_t kMostWeights = int64_t{1} << 26;
  if (r.out > kMostWeights / r.in)
    return call.Refuse("it interpolates ", r.in, " elements to ", r.out, ", which is too many");
  return AlongLast(x, axis, call.scope().Constant(WeightsOf(r).Cast(x.dtype())));
}

// Each element of an axis of unknown size several times.
Value Repeat(Value x, int64_t axis, int64_t times) {
  Shape shape = x.shape(), merged = x.shape();
  shape.Insert(static_cast<int>(axis) + 1, times);
  merged[static_cast<int>(axis)] = x.shape()[static_cast<int>(axis)] * times;
  return Reshape(BroadcastTo(ExpandDims(x, {axis + 1}), shape), merged);
}

struct Request {
  std::vector<double> scales;  // One for each axis; empty if sizes are given.
  Elements sizes;
  std::vector<double> roi;
  Resampling how;
};

absl::Status ResizeTo(Call& call, Request request) {
  Value x = call.In(0);
  const auto rank = static_cast<size_t>(x.rank());
  Integers axes;
  for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  if (const std::optional<Integers> given = call.Ints("axes"); given.has_value()) {
    GW_ASSIGN_OR_RETURN(axes, call.Axes(*given, x.rank()));
  }
  const bool by_size = request.scales.empty();
  if ((by_size ? request.sizes.size() : request.scales.size()) != axes.size())
    return call.Wrong("it needs a scale or a size for each axis");
  const bool crops = request.how.coordinates == "tf_crop_and_resize";
  if (crops && request.roi.size() != 2 * axes.size())
    return call.Wrong("its part of the input needs two numbers for each axis");
  Value inside;
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = axes[i];
    const Dim size = x.shape()[static_cast<int>(axis)];
    Resampling r = request.how;
    if (crops) {
      r.start = request.roi[i];
      r.end = request.roi[axes.size() + i];
    }
    if (by_size ? size == request.sizes[i] : request.scales[i] == 1) {
      if (!crops || (r.start == 0 && r.end == 1)) continue;
    }
    if (!size.is_known()) {
      const double scale = by_size ? 0 : request.scales[i];
      const bool repeats = r.mode == "nearest" && scale >= 1 && scale == std::floor(scale) &&
                           ((r.coordinates == "asymmetric" && r.rounding == "floor") || r.coordinates == "half_pixel" ||
                            r.coordinates == "pytorch_half_pixel");
      if (!repeats)
        return call.Refuse("axis ", axis,
                           " has a size that only a run knows, and only its repetition by whole numbers is imported");
      x = Repeat(x, axis, static_cast<int64_t>(scale));
      continue;
    }
    r.in = size.size();
    if (r.in < 1) return call.Refuse("axis ", axis, " is empty");
    if (by_size) {
      if (!request.sizes[i].is_known()) return call.Refuse("its sizes depend on sizes that only a run knows");
      r.out = request.sizes[i].size();
      r.scale = static_cast<double>(r.out) / static_cast<double>(r.in);
    } else {
      r.scale = request.scales[i];
      const double out = std::floor(static_cast<double>(r.in) * r.scale);
      if (!(out >= 0 && out < 1e9)) return call.Wrong("its scale ", r.scale, " is out of range");
      r.out = static_cast<int64_t>(out);
    }
    if (r.out < 1 || r.out > 1000000000) return call.Wrong("a size of the result is out of range");
    GW_ASSIGN_OR_RETURN(x, ResizeAxis(call, x, axis, r));
    if (!crops) continue;
    // Places outside of the input get another value.
    Tensor in_range(kBool, {r.out});
    for (int64_t j = 0; j < r.out; ++j) {
      const double at = Position(r, j);
      in_range.mutable_data<bool>()[j] = at >= 0 && at <= static_cast<double>(r.in - 1);
    }
    Shape shape;
    for (int j = 0; j < x.rank(); ++j) shape.Append(j == axis ? Dim(r.out) : Dim(1));
    const Value mask = Reshape(call.scope().Constant(in_range), shape);
    inside = inside.valid() ? LogicalAnd(inside, mask) : mask;
  }
  if (inside.valid()) x = Where(inside, x, call.Float("extrapolation_value", 0));
  call.Set(0, x);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> Numbers(const Call& call, int i) {
  GW_ASSIGN_OR_RETURN(const Tensor tensor, call.Known(i));
  return tensor.ToDoubles();
}

absl::Status ResizeRow(Call& call) {
  Request request;
  Resampling& how = request.how;
  how.mode = call.Text("mode", "nearest");
  if (call.opset() < 11) {
    how.coordinates = "asymmetric";
    how.rounding = "floor";
    GW_ASSIGN_OR_RETURN(request.scales, Numbers(call, 1));
    return ResizeTo(call, std::move(request));
  }
  how.coordinates = call.Text("coordinate_transformation_mode", "half_pixel");
  how.rounding = call.Text("nearest_mode", "round_prefer_floor");
  how.cubic = call.Float("cubic_coeff_a", -0.75);
  how.exclude_outside = call.Int("exclude_outside", 0) != 0;
  how.antialias = call.Int("antialias", 0) != 0;
  if (call.Text("keep_aspect_ratio_policy", "stretch") != "stretch")
    return call.Refuse("its keep_aspect_ratio_policy is not imported");
  if (how.coordinates == "tf_crop_and_resize") {
    if (!call.Has(1)) return call.Wrong("it has no part of the input");
    GW_ASSIGN_OR_RETURN(request.roi, Numbers(call, 1));
  }
  // An empty tensor of scales is none.
  if (call.Has(2) && !(call.Type(2).shape == Shape{0})) {
    GW_ASSIGN_OR_RETURN(request.scales, Numbers(call, 2));
  }
  if (request.scales.empty()) {
    if (!call.Has(3)) return call.Wrong("it has neither scales nor sizes");
    GW_ASSIGN_OR_RETURN(request.sizes, call.KnownElements(3));
  }
  return ResizeTo(call, std::move(request));
}

absl::Status Upsample(Call& call) {
  Request request;
  request.how = {.coordinates = "asymmetric", .mode = call.Text("mode", "nearest"), .rounding = "floor"};
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(request.scales, Numbers(call, 1));
  } else if (const proto::Attribute* scales = call.Find("scales"); scales != nullptr) {
    request.scales.assign(scales->floats().begin(), scales->floats().end());
  } else {
    return call.Wrong("it has no scales");
  }
  return ResizeTo(call, std::move(request));
}

// Sampling of images at positions.
struct Sampler {
  Value rows;   // [n*h*w, c].
  Value first;  // The number of an image's first row, [n, 1, 1].
  Value h, w;   // Sizes as floating scalars.
  std::string padding;
  bool align_corners;
};

// Positions outside of the image are moved to its border, or reflected at it.
Value PadPosition(const Sampler& s, Value x, Value size) {
  const Value last = Sub(size, 1);
  if (s.padding == "reflection") {
    // Between the centres of the first and the last pixel, or their outer edges.
    const Value low = s.align_corners ? Mul(last, 0) : Add(Mul(last, 0), -0.5);
    const Value span = s.align_corners ? Maximum(last, 1e-20) : size;
    const Value distance = Abs(Sub(x, low)), turns = Floor(Div(distance, span)), rest = Sub(distance, Mul(turns, span));
    const Value odd = NotEqual(Sub(turns, Mul(Floor(Mul(turns, 0.5)), 2)), 0);
    x = Add(Where(odd, Sub(span, rest), rest), low);
  }
  return s.padding == "zeros" ? x : Minimum(Maximum(x, 0), last);
}

// The pixels at whole positions [n, ho, wo], [n, ho, wo, c]; zeros outside.
Value PixelsAt(const Sampler& s, Value y, Value x) {
  const Value inside =
      LogicalAnd(LogicalAnd(GreaterEqual(x, 0), Less(x, s.w)), LogicalAnd(GreaterEqual(y, 0), Less(y, s.h)));
  const Value safe_x = Where(inside, x, 0), safe_y = Where(inside, y, 0);
  const Value place = Add(Cast(Add(Mul(safe_y, s.w), safe_x), kInt64), s.first);
  return Where(ExpandDims(inside, {3}), Gather(s.rows, place), 0);
}

Value CubicWeightOf(Value distance) {
  constexpr double a = -0.75;
  const Value d = Abs(distance);
  const Value near = Add(Mul(Mul(Sub(Mul(d, a + 2), a + 3), d), d), 1);
  const Value far = Sub(Mul(Add(Mul(Sub(Mul(d, a), 5 * a), d), 8 * a), d), 4 * a);
  return Where(LessEqual(d, 1), near, far);
}

absl::Status GridSample(Call& call) {
  const Value x = call.In(0), grid = call.In(1);
  if (x.rank() != 4 || grid.rank() != 4) return call.Refuse("it is imported for images [n, c, h, w]");
  const Dim n = x.shape()[0], c = x.shape()[1], h = x.shape()[2], w = x.shape()[3];
  if (!h.is_known() || !w.is_known()) return call.Refuse("it needs images of known size");
  Sampler s{.padding = call.Text("padding_mode", "zeros"), .align_corners = call.Int("align_corners", 0) != 0};
  s.rows = Reshape(Transpose(x, {0, 2, 3, 1}), {n * h * w, c});
  s.first = Reshape(Mul(RangeLike(x, n), h.size() * w.size()), {n, 1, 1});
  s.h = call.scope().Constant(Tensor::ScalarOf(x.dtype(), static_cast<double>(h.size())));
  s.w = call.scope().Constant(Tensor::ScalarOf(x.dtype(), static_cast<double>(w.size())));
  const Dim ho = grid.shape()[1], wo = grid.shape()[2];
  auto position = [&](int64_t part, Value size) {
    const Value at = Add(Reshape(SliceAxis(grid, 3, part, part + 1), {grid.shape()[0], ho, wo}), 1);
    return s.align_corners ? Mul(Mul(at, Sub(size, 1)), 0.5) : Mul(Sub(Mul(at, size), 1), 0.5);
  };
  Value px = position(0, s.w), py = position(1, s.h);
  const std::string mode = call.Text("mode", "bilinear");
  Value y;
  auto add = [&](Value pixels, Value weight) {
    const Value part = Mul(pixels, ExpandDims(weight, {3}));
    y = y.valid() ? Add(y, part) : part;
  };
  if (mode == "nearest") {
    y = PixelsAt(s, Round(PadPosition(s, py, s.h)), Round(PadPosition(s, px, s.w)));
  } else if (mode == "bilinear" || mode == "linear") {
    px = PadPosition(s, px, s.w);
    py = PadPosition(s, py, s.h);
    const Value x0 = Floor(px), y0 = Floor(py), fx = Sub(px, x0), fy = Sub(py, y0);
    for (int j = 0; j < 2; ++j) {
      for (int i = 0; i < 2; ++i)
        add(PixelsAt(s, Add(y0, j), Add(x0, i)), Mul(j == 0 ? Sub(1, fy) : fy, i == 0 ? Sub(1, fx) : fx));
    }
  } else if (mode == "bicubic" || mode == "cubic") {
    const Value x0 = Floor(px), y0 = Floor(py), fx = Sub(px, x0), fy = Sub(py, y0);
    for (int j = -1; j <= 2; ++j) {
      for (int i = -1; i <= 2; ++i) {
        const Value pixels = PixelsAt(s, PadPosition(s, Add(y0, j), s.h), PadPosition(s, Add(x0, i), s.w));
        add(pixels, Mul(CubicWeightOf(Sub(fy, j)), CubicWeightOf(Sub(fx, i))));
      }
    }
  } else {
    return call.Wrong("its mode is unknown");
  }
  call.Set(0, Transpose(y, {0, 3, 1, 2}));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"GridSample", 16, 2, GridSample},
    {"Resize", 10, 1, ResizeRow},
    {"Upsample", 7, 1, Upsample},
};

}  // namespace

absl::Span<const OpRow> ResizeRows() { return kRows; }

}  // namespace gradweave::onnx
