// ONNX's ops with indices. Negative indices count from the end.
#include "gradweave/ops/indexing.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::onnx {
namespace {

// A size as an int64 scalar.
Value SizeValue(Call& call, const Dim& size) {
  if (size.is_known()) return call.scope().Constant(Tensor::Scalar<int64_t>(size.size()));
  return DimSize(call.scope().Full(0, {size}), 0);
}

// The indices of input i as int64 in [0, size). Known ones are changed now.
Value FromBeginning(Call& call, int i, const Dim& size) {
  if (call.item(i).tensor.has_value()) {
    Tensor indices = call.item(i).tensor->Cast(kInt64).Clone();
    const absl::Span<int64_t> values = indices.mutable_values<int64_t>();
    if (std::all_of(values.begin(), values.end(), [](int64_t index) { return index >= 0; })) {
      return call.scope().Constant(indices);
    }
    if (size.is_known()) {
      for (int64_t& index : values) index += index < 0 ? size.size() : 0;
      return call.scope().Constant(indices);
    }
  }
  const Value indices = Cast(call.In(i), kInt64);
  return Where(Less(indices, 0), Add(indices, SizeValue(call, size)), indices);
}

absl::Status GatherRow(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", 0), x.rank()));
  call.Set(0, Gather(x, FromBeginning(call, 1, x.shape()[static_cast<int>(axis)]), axis));
  return absl::OkStatus();
}

// The distance of neighbours along each axis, in elements.
std::vector<Dim> StridesOf(const Shape& shape) {
  std::vector<Dim> strides(static_cast<size_t>(shape.rank()), Dim(1));
  for (int i = shape.rank() - 2; i >= 0; --i)
    strides[static_cast<size_t>(i)] = strides[static_cast<size_t>(i) + 1] * shape[i + 1];
  return strides;
}

// The places in the flat x that elements of `indices` along the axis name; the other coordinates
// are their own.
Value FlatPlaces(Call& call, const Shape& x, Value indices, int64_t axis) {
  const std::vector<Dim> strides = StridesOf(x);
  Value places = Mul(indices, SizeValue(call, strides[static_cast<size_t>(axis)]));
  for (int i = 0; i < indices.rank(); ++i) {
    if (i == axis) continue;
    Shape shape;
    for (int j = 0; j < indices.rank(); ++j) shape.Append(j == i ? indices.shape()[j] : Dim(1));
    const Value coordinate = Reshape(RangeLike(indices, indices.shape()[i]), shape);
    places = Add(places, Mul(coordinate, SizeValue(call, strides[static_cast<size_t>(i)])));
  }
  return Reshape(places, {-1});
}

absl::Status GatherElements(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", 0), x.rank()));
  if (call.Rank(1) != x.rank()) return call.Wrong("its indices have to have the input's number of axes");
  const Value indices = FromBeginning(call, 1, x.shape()[static_cast<int>(axis)]);
  const Value flat = Gather(Reshape(x, {-1}), FlatPlaces(call, x.shape(), indices, axis));
  call.Set(0, Reshape(flat, indices.shape()));
  return absl::OkStatus();
}

// Adds updates to zeros at places of a flat tensor, and tells where.
struct Scattered {
  Value updates;
  Value hit;  // Bool.
};
Scattered ScatterToZeros(Value x, Value places, Value updates) {
  // bool has no sum; uint8 has one.
  const Value zeros = ZerosLike(x);
  return {ScatterAdd(zeros, places, updates),
          Greater(ScatterAdd(ZerosLike(Cast(x, kInt32)), places, OnesLike(Cast(updates, kInt32))), 0)};
}

bool KnownUnique(const Call& call, int i) {
  if (!call.item(i).tensor.has_value()) return false;
  const Tensor indices = call.item(i).tensor->Cast(kInt64);
  const int64_t width = indices.rank() == 0 ? 1 : indices.size(indices.rank() - 1);
  std::set<std::vector<int64_t>> seen;
  const absl::Span<const int64_t> values = indices.values<int64_t>();
  for (int64_t at = 0; at + width <= static_cast<int64_t>(values.size()); at += std::max<int64_t>(width, 1)) {
    if (!seen.emplace(values.begin() + at, values.begin() + at + width).second) return false;
  }
  return true;
}

// Combines the rows of a flat x [rows, ...] with updates at the places.
absl::StatusOr<Value> Combine(Call& call, Value x, Value places, Value updates, bool unique) {
  const std::string reduction = call.Text("reduction", "none");
  if (reduction == "add") return ScatterAdd(x, places, updates);
  const Scattered scattered = ScatterToZeros(x, places, updates);
  // Indices that occur twice have no defined result.
  if (reduction == "none") return Where(scattered.hit, scattered.updates, x);
  if (!unique) return call.Refuse("its reduction '", reduction, "' is imported for known indices that occur once");
  if (reduction == "mul") return Where(scattered.hit, Mul(x, scattered.updates), x);
  if (reduction == "max") return Where(scattered.hit, Maximum(x, scattered.updates), x);
  if (reduction == "min") return Where(scattered.hit, Minimum(x, scattered.updates), x);
  return call.Wrong("its reduction is unknown");
}

absl::Status ScatterElements(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", 0), x.rank()));
  if (call.Rank(1) != x.rank()) return call.Wrong("its indices have to have the input's number of axes");
  const Value indices = FromBeginning(call, 1, x.shape()[static_cast<int>(axis)]);
  const Value places = FlatPlaces(call, x.shape(), indices, axis);
  GW_ASSIGN_OR_RETURN(const Value flat, Combine(call, Reshape(x, {-1}), places, Reshape(call.In(2), {-1}), false));
  call.Set(0, Reshape(flat, x.shape()));
  return absl::OkStatus();
}

// The rows of x, seen as [rows, rest], that index tuples name: the last axis of the indices has the
// coordinates along the axes of x from `batch` on.
struct Rows {
  Value x;       // [rows, rest...].
  Value places;  // [count].
  Shape rest;    // Sizes of a row.
};
absl::StatusOr<Rows> RowsOf(Call& call, int64_t batch) {
  const Value x = call.In(0);
  const Value indices = Cast(call.In(1), kInt64);
  if (indices.rank() < 1 || !indices.shape()[indices.rank() - 1].is_known())
    return call.Wrong("its indices need a last axis of known size");
  const int64_t width = indices.shape()[indices.rank() - 1].size();
  if (batch < 0 || batch + width > x.rank() || batch >= indices.rank())
    return call.Wrong("its indices have too many coordinates");
  Rows rows;
  Dim count(1);
  for (int i = 0; i < x.rank(); ++i) {
    if (i < batch + width) {
      count = count * x.shape()[i];
    } else {
      rows.rest.Append(x.shape()[i]);
    }
  }
  Shape merged = rows.rest;
  merged.Insert(0, count);
  rows.x = Reshape(x, merged);
  // Places in [rows], by Horner's rule.
  Shape tuples = indices.shape();
  tuples.Erase(tuples.rank() - 1);
  Value place;
  for (int64_t i = 0; i < batch + width; ++i) {
    const Value size = SizeValue(call, x.shape()[static_cast<int>(i)]);
    Value coordinate;
    if (i < batch) {
      Shape shape;
      for (int j = 0; j < tuples.rank(); ++j) shape.Append(j == i ? tuples[j] : Dim(1));
      coordinate = Reshape(RangeLike(indices, tuples[static_cast<int>(i)]), shape);
    } else {
      const Value part = SliceAxis(indices, indices.rank() - 1, i - batch, i - batch + 1);
      coordinate = Reshape(part, tuples);
      coordinate = Where(Less(coordinate, 0), Add(coordinate, size), coordinate);
    }
    place = i == 0 ? coordinate : Add(Mul(place, size), coordinate);
  }
  if (batch + width == 0) return call.Wrong("its indices have no coordinates");
  rows.places = Reshape(BroadcastTo(place, tuples), {-1});
  return rows;
}

absl::Status GatherNd(Call& call) {
  GW_ASSIGN_OR_RETURN(const Rows rows, RowsOf(call, call.Int("batch_dims", 0)));
  Shape shape = call.Type(1).shape;
  shape.Erase(shape.rank() - 1);
  for (const Dim& dim : rows.rest) shape.Append(dim);
  call.Set(0, Reshape(Gather(rows.x, rows.places), shape));
  return absl::OkStatus();
}

absl::Status ScatterNd(Call& call) {
  GW_ASSIGN_OR_RETURN(const Rows rows, RowsOf(call, 0));
  Shape shape = rows.rest;
  shape.Insert(0, rows.places.shape()[0]);
  GW_ASSIGN_OR_RETURN(const Value result,
                      Combine(call, rows.x, rows.places, Reshape(call.In(2), shape), KnownUnique(call, 1)));
  call.Set(0, Reshape(result, call.Type(0).shape));
  return absl::OkStatus();
}

// Indices outside of [-depth, depth) give a row without a one.
absl::Status OneHotRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const double depth, call.KnownNumber(1));
  if (!(depth >= 1 && depth < 1e9)) return call.Wrong("its depth is out of range");
  const auto size = static_cast<int64_t>(depth);
  const Value given = Cast(call.In(0), kInt64);
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", -1), given.rank() + 1));
  const Value indices = ExpandDims(Where(Less(given, 0), Add(given, size), given), {axis});
  Shape shape;
  for (int i = 0; i <= given.rank(); ++i) shape.Append(i == axis ? Dim(size) : Dim(1));
  const Value places = Reshape(Range(call.scope(), size), shape);
  const Value values = call.In(2);
  if (values.rank() != 1 || !(values.shape()[0] == Dim(2))) return call.Wrong("its values have to be two numbers");
  const Value off = Reshape(SliceAxis(values, 0, 0, 1), {}), on = Reshape(SliceAxis(values, 0, 1, 2), {});
  call.Set(0, Where(Equal(places, indices), on, off));
  return absl::OkStatus();
}

absl::Status TopKRow(Call& call) {
  const Value x = call.In(0);
  double k = static_cast<double>(call.Int("k", 0));
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(k, call.KnownNumber(1));
  }
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", -1), x.rank()));
  const bool largest = call.Int("largest", 1) != 0;
  const TopKResult top = TopK(largest ? x : Neg(x), static_cast<int64_t>(k), axis);
  call.Set(0, largest ? top.values : Neg(top.values));
  call.Set(1, top.indices);
  return absl::OkStatus();
}

// A box as the corners of its smaller and its larger coordinates.
struct Box {
  double y0, x0, y1, x1;
};

double OverlapOf(const Box& a, const Box& b) {
  const double height = std::min(a.y1, b.y1) - std::max(a.y0, b.y0),
               width = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  if (height <= 0 || width <= 0) return 0;
  const double common = height * width;
  return common / ((a.y1 - a.y0) * (a.x1 - a.x0) + (b.y1 - b.y0) * (b.x1 - b.x0) - common);
}

// The number of boxes that stay depends on the values, so they have to be known.
absl::Status NonMaxSuppression(Call& call) {
  GW_ASSIGN_OR_RETURN(const Tensor boxes, call.Known(0));
  GW_ASSIGN_OR_RETURN(const Tensor scores, call.Known(1));
  double limits[3] = {0, 0, -std::numeric_limits<double>::infinity()};  // Boxes of a class, overlap, score.
  for (int i = 0; i < 3; ++i) {
    if (!call.Has(i + 2)) continue;
    GW_ASSIGN_OR_RETURN(limits[i], call.KnownNumber(i + 2));
  }
  const bool fits = boxes.rank() == 3 && scores.rank() == 3 && boxes.size(2) == 4 && boxes.size(0) == scores.size(0) &&
                    boxes.size(1) == scores.size(2);
  if (!fits) return call.Wrong("its boxes and scores do not fit");
  const std::vector<double> corners = boxes.ToDoubles(), points = scores.ToDoubles();
  const int64_t count = boxes.size(1), classes = scores.size(1);
  const bool centred = call.Int("center_point_box", 0) != 0;
  auto box = [&](int64_t batch, int64_t i) -> Box {
    const double* c = corners.data() + (batch * count + i) * 4;
    if (centred) return {c[1] - c[3] / 2, c[0] - c[2] / 2, c[1] + c[3] / 2, c[0] + c[2] / 2};
    return {std::min(c[0], c[2]), std::min(c[1], c[3]), std::max(c[0], c[2]), std::max(c[1], c[3])};
  };
  std::vector<int64_t> selected;
  for (int64_t row = 0; row < boxes.size(0) * classes; ++row) {
    const double* of_class = points.data() + row * count;
    std::vector<int64_t> order;
    for (int64_t i = 0; i < count; ++i) {
      if (of_class[i] > limits[2]) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return of_class[a] > of_class[b]; });
    std::vector<Box> kept;
    for (const int64_t i : order) {
      if (static_cast<double>(kept.size()) >= limits[0]) break;
      const Box candidate = box(row / classes, i);
      if (std::any_of(kept.begin(), kept.end(),
                      [&](const Box& other) { return OverlapOf(candidate, other) > limits[1]; }))
        continue;
      kept.push_back(candidate);
      for (const int64_t number : {row / classes, row % classes, i}) selected.push_back(number);
    }
  }
  call.Set(0, Tensor::Of<int64_t>({static_cast<int64_t>(selected.size()) / 3, 3}, absl::Span<const int64_t>(selected)));
  return absl::OkStatus();
}

// The different slices of a known tensor: their number is the size of the results.
absl::Status Unique(Call& call) {
  GW_ASSIGN_OR_RETURN(Tensor x, call.Known(0));
  int64_t axis = 0;
  if (call.Find("axis") == nullptr) {
    x = x.Reshaped({x.num_elements()});
  } else {
    GW_ASSIGN_OR_RETURN(axis, call.Axis(call.Int("axis", 0), x.rank()));
  }
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < x.rank(); ++i) (i < axis ? outer : inner) *= i == axis ? 1 : x.size(i);
  const int64_t count = x.size(static_cast<int>(axis));
  const std::vector<double> values = x.ToDoubles();
  std::vector<std::vector<double>> slices(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < outer; ++j) {
      const auto from = values.begin() + (j * count + i) * inner;
      slices[static_cast<size_t>(i)].insert(slices[static_cast<size_t>(i)].end(), from, from + inner);
    }
  }
  std::map<std::vector<double>, std::vector<int64_t>> places;  // The positions of equal slices.
  for (int64_t i = 0; i < count; ++i) places[slices[static_cast<size_t>(i)]].push_back(i);
  std::vector<const std::vector<int64_t>*> groups;
  for (const auto& [slice, group] : places) groups.push_back(&group);
  if (call.Int("sorted", 1) == 0) {
    std::sort(groups.begin(), groups.end(), [](const auto* a, const auto* b) { return a->front() < b->front(); });
  }
  std::vector<int64_t> first, inverse(static_cast<size_t>(count)), counts;
  for (const std::vector<int64_t>* group : groups) {
    for (const int64_t i : *group) inverse[static_cast<size_t>(i)] = static_cast<int64_t>(first.size());
    first.push_back(group->front());
    counts.push_back(static_cast<int64_t>(group->size()));
  }
  auto tensor = [](const std::vector<int64_t>& numbers) {
    return Tensor::Of<int64_t>({static_cast<int64_t>(numbers.size())}, absl::Span<const int64_t>(numbers));
  };
  call.Set(0, Gather(call.scope().Constant(x), call.scope().Constant(tensor(first)), axis));
  call.Set(1, tensor(first));
  call.Set(2, tensor(inverse));
  call.Set(3, tensor(counts));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"Gather", 1, 2, GatherRow},
    {"GatherElements", 11, 2, GatherElements},
    {"GatherND", 11, 2, GatherNd},
    {"NonMaxSuppression", 10, 2, NonMaxSuppression},
    {"OneHot", 9, 3, OneHotRow},
    {"Scatter", 9, 3, ScatterElements},
    {"ScatterElements", 11, 3, ScatterElements},
    {"ScatterND", 11, 3, ScatterNd},
    {"TopK", 1, 1, TopKRow},
    {"Unique", 11, 1, Unique},
};

}  // namespace

absl::Span<const OpRow> IndexingRows() { return kRows; }

}  // namespace gradweave::onnx
