#include "gradweave/ops/resize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"

namespace gradweave {
namespace {

// One axis to resize, from n elements to m.
struct AxisResize {
  int64_t n, m;
  double scale, start, end;
};

// The place in x of element i of the result.
double PlaceOf(int64_t i, const AxisResize& axis, ResizeCoordinates coordinates) {
  const double n = static_cast<double>(axis.n), width = axis.scale * n, x = static_cast<double>(i);
  const double half_pixel = (x + 0.5) / axis.scale - 0.5;
  switch (coordinates) {
    case ResizeCoordinates::kHalfPixel:
      return half_pixel;
    case ResizeCoordinates::kHalfPixelSymmetric:
      return n / 2 * (1 - static_cast<double>(axis.m) / width) + half_pixel;
    case ResizeCoordinates::kPytorchHalfPixel:
      return width == 1 ? -0.5 : half_pixel;
    case ResizeCoordinates::kAlignCorners:
      return width == 1 ? 0 : x * (n - 1) / (width - 1);
    case ResizeCoordinates::kAsymmetric:
      return x / axis.scale;
    case ResizeCoordinates::kTfCropAndResize:
      break;
  }
  const double region = (axis.end - axis.start) * (n - 1);
  return axis.start * (n - 1) + (width == 1 ? region / 2 : x * region / (width - 1));
}

// The piecewise cubic of Keys at a distance; 0 from 2 on.
double Cubic(double distance, double a) {
  const double x = std::abs(distance);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

// The weights of the neighbours of a place, which lies `ratio` in (0, 1] behind neighbour 0. Sets
// the number of the first neighbour.
std::vector<double> Weights(double ratio, double scale, const ResizeOptions& options, int64_t* first) {
  *first = 0;
  if (options.method == ResizeMethod::kNearest) {
    bool second = ratio == 1;
    if (options.nearest == ResizeNearest::kRoundPreferFloor) second |= ratio > 0.5;
    if (options.nearest == ResizeNearest::kRoundPreferCeil) second |= ratio >= 0.5;
    if (options.nearest == ResizeNearest::kCeil) second = true;
    return second ? std::vector<double>{0, 1} : std::vector<double>{1, 0};
  }
  const bool cubic = options.method == ResizeMethod::kCubic;
  const double stretch = options.antialias ? std::min(scale, 1.0) : 1;
  const int64_t start = static_cast<int64_t>(std::floor((cubic ? -2 : -1) / stretch)) + 1;
  std::vector<double> weights;
  for (int64_t i = start; i < 2 - start; ++i) {
    const double distance = (static_cast<double>(i) - ratio) * stretch;
    weights.push_back(cubic ? Cubic(distance, options.cubic_coefficient) : std::max(1 - std::abs(distance), 0.0));
  }
  *first = start;
  if (options.antialias) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (double& weight : weights) weight /= sum;
  }
  return weights;
}

// Each element of the result is a sum of weighted elements of x.
struct Interpolation {
  int64_t size = 0;  // The size of the result.
  std::vector<std::vector<std::pair<int64_t, double>>> elements;
  std::vector<bool> outside;  // The elements that get the extrapolation's number.
  bool has_outside = false;
};

Interpolation Interpolate(const AxisResize& axis, const ResizeOptions& options) {
  Interpolation result = {.size = axis.m};
  for (int64_t i = 0; i < axis.m; ++i) {
    const double place = PlaceOf(i, axis, options.coordinates);
    const bool outside = options.coordinates == ResizeCoordinates::kTfCropAndResize &&
                         (place < 0 || place > static_cast<double>(axis.n - 1));
    result.outside.push_back(outside);
    result.has_outside |= outside;
    const double before = std::ceil(place) - 1;
    int64_t first = 0;
    std::vector<double> weights = Weights(place - before, axis.scale, options, &first);
    std::map<int64_t, double> elements;
    double sum = 0;
    for (size_t k = 0; k < weights.size(); ++k) {
      const double at = before + static_cast<double>(first + static_cast<int64_t>(k));
      if (weights[k] == 0 || (options.exclude_outside && (at < 0 || at >= static_cast<double>(axis.n)))) continue;
      elements[static_cast<int64_t>(std::clamp(at, 0.0, static_cast<double>(axis.n - 1)))] += weights[k];
      sum += weights[k];
    }
    if (elements.empty()) elements[0] = sum = 1;
    for (auto& [at, weight] : elements) weight /= options.exclude_outside ? sum : 1;
    result.elements.emplace_back(elements.begin(), elements.end());
  }
  return result;
}

// Adds the k-th weighted elements of all sums, for each k: as many gathers as the longest sum has
// elements. Sums with fewer repeat their first element with the weight 0.
Value Apply(const Operand& x, const Value& value, int axis, const Interpolation& interpolation, double extrapolation) {
  size_t most = 0;
  for (const auto& elements : interpolation.elements) most = std::max(most, elements.size());
  const int behind = value.rank() - 1 - axis;
  Value sum;
  for (size_t k = 0; k < most; ++k) {
    std::vector<int64_t> places;
    std::vector<double> weights;
    for (const auto& elements : interpolation.elements) {
      places.push_back(elements[k < elements.size() ? k : 0].first);
      weights.push_back(k < elements.size() ? elements[k].second : 0);
    }
    Value part = Gather(value, Numbers(x, {interpolation.size}, places), axis);
    if (std::any_of(weights.begin(), weights.end(), [](double weight) { return weight != 1; }))
      part = part * WithAxesBehind(Numbers(x, {interpolation.size}, weights), behind);
    sum = sum.valid() ? sum + part : part;
  }
  if (!interpolation.has_outside) return sum;
  const std::vector<int64_t> outside(interpolation.outside.begin(), interpolation.outside.end());
  const Value mask = Equal(Numbers(x, {interpolation.size}, outside), 1);
  return Where(WithAxesBehind(mask, behind), extrapolation, sum);
}

}  // namespace

Value Resize(Operand x, const ResizeOptions& options) {
  if (!x.is_value()) return NeedsValue("Resize", x);
  const auto mistake = [&](absl::string_view message) { return BuilderError("Resize", {x}, message); };
  const size_t count = options.axes.size();
  const bool by_size = !options.sizes.empty();
  const bool crops = options.coordinates == ResizeCoordinates::kTfCropAndResize;
  if (!IsReal(x.dtype()) && (options.method != ResizeMethod::kNearest || crops))
    return mistake("x has to be floating to be interpolated or extrapolated");
  if (by_size == !options.scales.empty() || (by_size ? options.sizes.size() : options.scales.size()) != count) {
    return mistake(count == 0 ? "there has to be at least one axis"
                              : "either sizes or scales have to be given, one number for each axis");
  }
  if (crops && (options.region_start.size() != count || options.region_end.size() != count))
    return mistake("the region needs a start and an end for each axis");
  if (options.antialias && options.method == ResizeMethod::kNearest)
    return mistake("the nearest element is not interpolated, so it cannot be with antialias");
  if (!std::isfinite(options.cubic_coefficient)) return mistake("the cubic coefficient has to be finite");
  const CallLocation location(x);
  Value y = x.value();
  Integers seen;
  for (size_t i = 0; i < count; ++i) {
    const int64_t axis = NormalizedAxis(options.axes[i], x.rank());
    if (axis < 0) return mistake(AxisError(x, options.axes[i]));
    if (std::find(seen.begin(), seen.end(), axis) != seen.end())
      return mistake(absl::StrCat("axis ", options.axes[i], " is given twice"));
    seen.push_back(axis);
    const Dim& size = x.shape()[static_cast<int>(axis)];
    const double scale = by_size ? static_cast<double>(options.sizes[i]) : options.scales[i];
    // A scale of 1 changes nothing, with any method.
    if (!crops && (by_size ? size == Dim(options.sizes[i]) : scale == 1)) continue;
    if (!size.is_known() || size.size() < 1)
      return mistake(absl::StrCat("axis ", options.axes[i], " has to have a known size of at least 1"));
    AxisResize resize = {.n = size.size(), .m = 0, .scale = scale, .start = 0, .end = 1};
    if (crops) resize.start = options.region_start[i], resize.end = options.region_end[i];
    constexpr double kMost = std::numeric_limits<int32_t>::max();
    const double n = static_cast<double>(resize.n), m = by_size ? scale : std::floor(n * scale);
    if (!(scale > 0) || !(m >= 1 && m <= kMost) || !std::isfinite(resize.start) || !std::isfinite(resize.end)) {
      return mistake(absl::StrCat("axis ", options.axes[i], " gets ", m,
                                  " elements, and has to get at least 1 and fewer than 2^31; a region is finite"));
    }
    resize.m = static_cast<int64_t>(m);
    if (by_size) resize.scale = m / n;
    y = Apply(x, y, static_cast<int>(axis), Interpolate(resize, options), options.extrapolation);
  }
  return y;
}

}  // namespace gradweave
