// ONNX's ops with indices. Negative indices count from the end.
#include "gradweave/ops/indexing.h"

#include <algorithm>
#include <limits>
#include <map>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/index_functions.h"
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
  call.Set(0, Gather(x, FromBeginning(call, 1, SizeAt(x.shape(), axis)), axis));
  return absl::OkStatus();
}

// The way in which a scatter combines an element with an update.
absl::StatusOr<ScatterReduction> ReductionOf(const Call& call) {
  const std::string name = call.Text("reduction", "none");
  if (name == "none") return ScatterReduction::kSet;
  if (name == "add") return ScatterReduction::kAdd;
  if (name == "mul") return ScatterReduction::kMul;
  if (name == "max") return ScatterReduction::kMax;
  if (name == "min") return ScatterReduction::kMin;
  return call.Wrong("its reduction is unknown");
}

absl::Status GatherElementsRow(Call& call) {
  call.Set(0, GatherElements(call.In(0), call.In(1), call.Int("axis", 0)));
  return absl::OkStatus();
}

absl::Status ScatterElementsRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const ScatterReduction reduction, ReductionOf(call));
  const ScatterOptions options{.axis = call.Int("axis", 0), .reduction = reduction};
  call.Set(0, ScatterElements(call.In(0), call.In(1), call.In(2), options));
  return absl::OkStatus();
}

absl::Status GatherNdRow(Call& call) {
  call.Set(0, GatherND(call.In(0), call.In(1), call.Int("batch_dims", 0)));
  return absl::OkStatus();
}

absl::Status ScatterNdRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const ScatterReduction reduction, ReductionOf(call));
  call.Set(0, ScatterND(call.In(0), call.In(1), call.In(2), reduction));
  return absl::OkStatus();
}

// Indices outside of [-depth, depth) give a row without a one.
absl::Status OneHotRow(Call& call) {
  Dim depth;
  if (IsInteger(call.Type(1).dtype) && call.item(1).elements.has_value() && call.item(1).elements->size() == 1) {
    depth = (*call.item(1).elements)[0];
  } else {
    GW_ASSIGN_OR_RETURN(const double given, call.KnownNumber(1));
    if (!(given >= 1 && given < 1e9)) return call.Wrong("its depth is out of range");
    depth = ToInteger(given);
  }
  const Value values = call.In(2);
  if (values.rank() != 1 || !(SizeAt(values.shape(), 0) == Dim(2)))
    return call.Wrong("its values have to be two numbers");
  const Value off = Reshape(SliceAxis(values, 0, 0, 1), {}), on = Reshape(SliceAxis(values, 0, 1, 2), {});
  call.Set(0, OneHot(call.In(0), depth, on, off, {.axis = call.Int("axis", -1)}));
  return absl::OkStatus();
}

absl::Status TopKRow(Call& call) {
  double k = static_cast<double>(call.Int("k", 0));
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(k, call.KnownNumber(1));
  }
  call.Ignore({"sorted"});  // Sorted results are right for both.
  const TopKResult top =
      TopK(call.In(0), ToInteger(k), {.axis = call.Int("axis", -1), .largest = call.Int("largest", 1) != 0});
  call.Set(0, top.values);
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
    {"GatherElements", 11, 2, GatherElementsRow},
    {"GatherND", 11, 2, GatherNdRow},
    {"NonMaxSuppression", 10, 2, NonMaxSuppression},
    {"OneHot", 9, 3, OneHotRow},
    {"Scatter", 9, 3, ScatterElementsRow},
    {"ScatterElements", 11, 3, ScatterElementsRow},
    {"ScatterND", 11, 3, ScatterNdRow},
    {"TopK", 1, 1, TopKRow},
    {"Unique", 11, 1, Unique},
};

}  // namespace

absl::Span<const OpRow> IndexingRows() { return kRows; }

}  // namespace gradweave::onnx
