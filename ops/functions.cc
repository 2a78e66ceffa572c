#include "gradweave/ops/functions.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/sorting.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

// The sums of the elements after each one along the last axis.
Value SumsAfter(const Value& x) { return AddOp("SuffixSum", {x, OnesLike(x)}); }

Value InTriangle(const Value& like, const Dim& rows, const Dim& columns, const TriangleOptions& options) {
  const Value row = ExpandDims(RangeLike(like, rows), {1}), column = RangeLike(like, columns);
  const Value last = row + options.diagonal;
  return options.upper ? column >= last : column <= last;
}

// A range of more elements is computed in the run: as a constant it would take time and memory
// here, and room in files.
constexpr int64_t kMostConstantElements = int64_t{1} << 20;
// No tensor has more elements (Graph::AddNode).
constexpr int64_t kMostElements = int64_t{1} << 48;

// For at most this many of the largest elements, each takes one pass over all elements; for more,
// the elements are sorted.
constexpr int64_t kMostPasses = 8;

}  // namespace

Value RangeLike(Operand x, const Dim& size, DType dtype) {
  if (!x.is_value()) return NeedsValue("RangeLike", x);
  const CallLocation location(x);
  if (size.is_known() && size.size() < 0)
    return BuilderError("Range", {x}, absl::StrCat("the size ", size.size(), " is negative"));
  if (size.is_known() && size.size() > kMostElements)
    return BuilderError("Range", {x}, absl::StrCat("a tensor cannot have the shape [", size.size(), "]"));
  if (size.is_known() && size.size() <= kMostConstantElements) {
    Tensor range(dtype, {size.size()});
    VisitAnyDType(dtype, [&](auto zero) {
      using T = decltype(zero);
      auto elements = range.mutable_values<T>();
      for (size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<T>(i);
    });
    return ConstantLike(x.value(), std::move(range), x.location());
  }
  // Each element is the number of elements before it.
  const Value one = ConstantLike(x.value(), Tensor::ScalarOf(kFloat64, 1), x.location());
  return Cast(Reverse(SumsAfter(BroadcastTo(one, Shape{size})), {0}), dtype);
}

Value Range(Scope& scope, const Dim& size, RangeOptions options, std::source_location location) {
  const Value start = scope.Constant(Tensor::ScalarOf(options.dtype, options.start), location);
  if (!start.valid()) return start;
  const LocationGuard guard(
      scope.graph(), scope.graph().builder().location.file != nullptr ? SourceLocation() : ToSourceLocation(location));
  const bool whole = options.start == std::floor(options.start) && options.step == std::floor(options.step);
  if (!std::isfinite(options.start) || !std::isfinite(options.step) || !kNumeric.Contains(options.dtype) ||
      (!IsFloating(options.dtype) && !whole)) {
    return BuilderError("Range", {Operand(options.start), Operand(options.step), Operand(start)},
                        "start and step have to be finite, and whole numbers for integers; there is no range of bool");
  }
  // The product and the sum are rounded once each.
  const bool counts = options.start == 0 && options.step == 1;
  if (counts || !size.is_known()) {
    const Value range = RangeLike(Operand(start), size, options.dtype);
    return counts ? range : range * options.step + start;
  }
  if (size.size() < 0)
    return BuilderError("Range", {Operand(start)}, absl::StrCat("the size ", size.size(), " is negative"));
  if (size.size() > kMostConstantElements) {
    const Value first = scope.Constant(Tensor::Scalar(options.start));
    return Cast(RangeLike(first, size, kFloat64) * options.step + first, options.dtype);
  }
  Tensor range(kFloat64, {size.size()});
  const absl::Span<double> numbers = range.mutable_values<double>();
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = options.start + static_cast<double>(i) * options.step;
  return Cast(scope.Constant(std::move(range), location), options.dtype);
}

Value TriangleMask(Scope& scope, const Dim& rows, const Dim& columns, TriangleOptions options,
                   std::source_location location) {
  const Value like = scope.Constant(Tensor::Scalar(int64_t{0}), location);
  if (!like.valid()) return like;
  const CallLocation guard{Operand(like, location)};
  return InTriangle(like, rows, columns, options);
}

Value Triangle(Operand x, TriangleOptions options) {
  if (!x.is_value()) return NeedsValue("Triangle", x);
  if (x.rank() < 2) return BuilderError("Triangle", {x}, "x has to be a matrix, or have one along its last two axes");
  const CallLocation location(x);
  const Shape& shape = x.shape();
  return Where(InTriangle(x.value(), shape[x.rank() - 2], shape[x.rank() - 1], options), x, 0);
}

namespace {

// The sums or products of CumSumOptions. scan(rows) gives along the last axis those of the elements
// after each one, or before each one.
template <typename Scan, typename Combine>
Value Cumulative(const char* name, const Operand& x, const CumSumOptions& options, bool scans_after, Scan scan,
                 Combine combine) {
  if (!x.is_value()) return NeedsValue(name, x);
  const int64_t axis = NormalizedAxis(options.axis, x.rank());
  if (axis < 0) return BuilderError(name, {x}, AxisError(x, options.axis));
  if (x.dtype() == kBool) {
    return BuilderError(name, {x}, "there are no sums and products of bool; Cast converts to a number");
  }
  const CallLocation location(x);
  const Integers to_last = WithLast(x.rank(), axis);
  const bool is_last = axis == x.rank() - 1, turned = options.reverse != scans_after;
  const Value numbers = IsFloating(x.dtype()) ? x.value() : Cast(x, kFloat64);
  Value rows = is_last ? numbers : Transpose(numbers, to_last);
  if (turned) rows = Reverse(rows, {-1});
  Value results = scan(rows);
  if (!options.exclusive) results = combine(results, rows);
  if (turned) results = Reverse(results, {-1});
  return Cast(is_last ? results : Transpose(results, to_last), x.dtype());
}

}  // namespace

Value CumSum(Operand x, CumSumOptions options) { return Cumulative("CumSum", x, options, true, SumsAfter, Add); }

Value CumProd(Operand x, CumSumOptions options) {
  auto products_before = [](const Value& rows) { return AddOp("ExclusiveProd", {rows}); };
  return Cumulative("CumProd", x, options, false, products_before, Mul);
}

Value TakeAlong(Operand x, Operand indices, int64_t axis) {
  if (!x.is_value()) return NeedsValue("TakeAlong", x);
  if (!AllValid("TakeAlong", {x, indices})) return Invalid(x);
  if (indices.is_number() || !IsInteger(indices.dtype()))
    return BuilderError("TakeAlong", {x, indices}, "the indices have to be int32, int64 or uint8");
  const int64_t normalized = NormalizedAxis(axis, x.rank());
  if (normalized < 0) return BuilderError("TakeAlong", {x, indices}, AxisError(x, axis));
  const int at = static_cast<int>(normalized), rank = x.rank();
  Shape expected = x.shape();
  bool fits = indices.rank() == rank;
  for (int i = 0; fits && i < rank; ++i) {
    const Dim& dim = indices.shape()[i];
    fits = i == at || dim == x.shape()[i] || dim == Dim(1);
    if (i == at) expected[i] = dim;
  }
  if (!fits) {
    return BuilderError("TakeAlong", {x, indices},
                        absl::StrCat("the indices have to have the sizes of x, or 1, on all axes but axis ", axis));
  }
  const CallLocation location(x);
  // Gathers from x as one row. Elements are numbered by the axes before, at and after `axis`.
  Dim before(1), after(1);
  for (int i = 0; i < at; ++i) before = before * x.shape()[i];
  for (int i = at + 1; i < rank; ++i) after = after * x.shape()[i];
  const Shape three = {before, x.shape()[at], after};
  const Value blocks = Reshape(x, three);
  Value index = Cast(indices, kInt64);
  if (!(index.shape() == expected)) index = BroadcastTo(index, expected);
  index = Reshape(index, {before, expected[at], after});
  const Operand size = SizeOf(blocks, 1);
  const Value inside = index >= 0 && index < size;
  if (!(before == Dim(1))) index = index + ExpandDims(RangeLike(index, before) * size, {1, 2});
  if (!(after == Dim(1))) index = index * SizeOf(blocks, 2) + RangeLike(index, after);
  // An index that is out of range must not reach a neighbour; Gather refuses -1.
  const Value taken = Gather(Flatten(blocks, 0), Where(inside, index, -1));
  return Reshape(taken, expected);
}

TopKResult TopK(Operand x, int64_t k, int64_t axis) { return TopK(x, k, TopKOptions{.axis = axis}); }

TopKResult TopK(Operand x, int64_t k, TopKOptions options) {
  const int64_t axis = options.axis;
  if (!x.is_value()) {
    const Value invalid = NeedsValue("TopK", x);
    return {invalid, invalid};
  }
  const auto mistake = [&](const std::string& message) {
    const Value invalid = BuilderError("TopK", {x}, message);
    return TopKResult{invalid, invalid};
  };
  const int64_t at = NormalizedAxis(axis, x.rank());
  if (at < 0) return mistake(AxisError(x, axis));
  const Dim& size = x.shape()[static_cast<int>(at)];
  if (!kNumeric.Contains(x.dtype()) && !IsHalf(x.dtype())) {
    return mistake(absl::StrCat("x has to be ", kNumeric.ToString(), "; Cast converts"));
  }
  if (k < 1 || (size.is_known() && k > size.size()))
    return mistake(absl::StrCat("k is ", k, " and has to be at least 1 and at most the size of axis ", axis));
  const CallLocation location(x);
  if (!options.largest || !size.is_known() || k > kMostPasses) {
    const Value indices = ArgSort(x, Dim(k), {.axis = at, .descending = options.largest});
    return {TakeAlong(x, Operand(indices), at), indices};
  }
  Integers after;
  for (int64_t i = 1; i < x.rank() - at; ++i) after.push_back(i);
  const Value position = ExpandDims(RangeLike(x, size), after);
  const Value numbers = StopGradient(x), is_nan = NotEqual(numbers, numbers);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double lowest = IsReal(x.dtype()) ? -kInfinity : VisitDType(x.dtype(), [](auto zero) {
    return static_cast<double>(std::numeric_limits<decltype(zero)>::lowest());
  });
  Value left;  // Where no element is taken yet.
  std::vector<Value> indices;
  for (int64_t i = 0; i < k; ++i) {
    // The lowest number may be an element too, so the first place that is left and has the maximum
    // is looked for.
    const Value candidates = left.valid() ? Where(left, numbers, lowest) : numbers;
    const Value largest = Max(candidates, {.axes = {at}, .keep_dims = true});
    Value is_largest = Equal(numbers, largest) || is_nan;
    if (left.valid()) is_largest = is_largest && left;
    indices.push_back(ArgMax(Cast(is_largest, kUint8), {.axis = at, .keep_dims = true}));
    const Value others = NotEqual(position, indices.back());
    left = left.valid() ? left && others : others;
  }
  const Value all = k == 1 ? indices[0] : Concat(indices, at);
  return {TakeAlong(x, Operand(all), at), all};
}

Value RandomCategorical(Operand logits, std::optional<int64_t> seed) {
  if (!logits.is_value()) return NeedsValue("RandomCategorical", logits);
  const CallLocation location(logits);
  if (!IsFloating(logits.dtype()) || logits.rank() < 1) {
    return BuilderError("RandomCategorical", {logits}, "the logits have to be float32 or float64 [..., classes]");
  }
  // The logarithm of 0 would give noise of -infinity, with which a class with the logit -infinity
  // could win. All random numbers except 0 are far above this bound, so it does not change them.
  constexpr double kLeast = std::numeric_limits<float>::min();
  return ArgMax(logits - Log(-Log(RandomUniformLike(logits, kLeast, 1, seed))), {.axis = -1});
}

}  // namespace gradweave
