#include "gradweave/frontend/check_numerics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave {
namespace {

// Range describes the elements of a floating value.
struct Range {
  double min = std::numeric_limits<double>::infinity(), max = -min;  // Over the finite ones.
  int64_t elements = 0, nan = 0, infinite = 0;
  int64_t first_bad = -1;  // Index of the first element that is not finite.
  double bad_value = 0;
  std::vector<int64_t> sizes;

  bool is_finite() const { return nan + infinite == 0; }
  std::string ToString() const {
    return absl::StrCat(nan + infinite == elements ? std::string("nothing finite") : absl::StrCat(min, " to ", max),
                        ", ", nan, " NaN and ", infinite, " infinite of ", elements);
  }
};

template <typename T>
void Measure(absl::Span<const T> values, Range& range) {
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = values[i];
    if (std::isfinite(value)) {
      range.min = std::min(range.min, value);
      range.max = std::max(range.max, value);
      continue;
    }
    ++(std::isnan(value) ? range.nan : range.infinite);
    if (range.first_bad >= 0) continue;
    range.first_bad = static_cast<int64_t>(i);
    range.bad_value = value;
  }
}

Range RangeOf(const Tensor& tensor) {
  Range range{.elements = tensor.num_elements(), .sizes = {tensor.sizes().begin(), tensor.sizes().end()}};
  Measure(tensor.values<float>(), range);
  Measure(tensor.values<double>(), range);
  return range;
}

// "[3,0]", the indices of an element.
std::string Indices(const Range& range) {
  std::vector<int64_t> indices(range.sizes.size());
  int64_t rest = range.first_bad;
  for (size_t axis = indices.size(); axis-- > 0; rest /= range.sizes[axis]) indices[axis] = rest % range.sizes[axis];
  return absl::StrCat("[", absl::StrJoin(indices, ","), "]");
}

using Ranges = std::map<Port, Range>;

// A Kind selects the count that the search traces back: NaN or infinities.
using Kind = int64_t Range::*;

bool Has(const Ranges& ranges, Port port, Kind kind) {
  const auto range = ranges.find(port);
  return range != ranges.end() && range->second.*kind > 0;
}

// The operands of a run: a variable's initial value is none.
absl::Span<const Port> OperandsOf(const Node& node) {
  return node.op->kind == OpKind::kVariable ? absl::Span<const Port>() : absl::MakeConstSpan(node.inputs);
}

// Returns the first node, in the graph's order, whose result has this kind of number and whose
// operands do not.
std::optional<NodeId> FindSource(const Graph& graph, const Ranges& ranges, absl::Span<const Port> ports, Kind kind,
                                 bool of_constants) {
  std::vector<bool> reached(graph.num_nodes(), false);
  for (Port port : ports) {
    if (Has(ranges, port, kind)) reached[port.node] = true;
  }
  std::optional<NodeId> source;
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    if (!reached[id]) continue;
    const Node& node = graph.node(id);
    bool is_source = of_constants || node.op->kind != OpKind::kConstant;
    for (Port operand : OperandsOf(node)) {
      if (!Has(ranges, operand, kind)) continue;
      reached[operand.node] = true;
      is_source = false;
    }
    if (is_source) source = id;
  }
  return source;
}

std::string Describe(const Graph& graph, const Ranges& ranges, NodeId id) {
  const Node& node = graph.node(id);
  std::string text;
  for (int output = 0; output < static_cast<int>(node.outputs.size()); ++output) {
    const auto range = ranges.find(Port{id, output});
    if (range == ranges.end() || range->second.is_finite()) continue;
    text = absl::StrCat("element ", Indices(range->second), " of ", DescribeNode(graph, node), " is ",
                        range->second.bad_value, " (", range->second.ToString(), ")");
    break;
  }
  const absl::Span<const Port> operands = OperandsOf(node);
  for (size_t i = 0; i < operands.size(); ++i) {
    const auto range = ranges.find(operands[i]);
    if (range == ranges.end()) continue;
    const auto& definitions = node.op->operands;
    absl::StrAppend(&text, "; operand ", definitions[std::min(i, definitions.size() - 1)].name, ": ",
                    range->second.ToString());
  }
  return text;
}

std::string Explain(const Graph& graph, const Ranges& ranges, absl::Span<const Port> roots) {
  const std::optional<NodeId> nan = FindSource(graph, ranges, roots, &Range::nan, /*of_constants=*/true);
  const absl::Span<const Port> of_infinity = nan.has_value() ? OperandsOf(graph.node(*nan)) : roots;
  const std::optional<NodeId> infinity =
      FindSource(graph, ranges, of_infinity, &Range::infinite, /*of_constants=*/!nan.has_value());
  if (infinity.has_value() && nan.has_value()) {
    return absl::StrCat(Describe(graph, ranges, *infinity), "; it becomes NaN in ",
                        DescribeNode(graph, graph.node(*nan)));
  }
  if (infinity.has_value()) return Describe(graph, ranges, *infinity);
  if (nan.has_value()) return Describe(graph, ranges, *nan);
  return "all values are finite if they are computed one by one";
}

}  // namespace

absl::StatusOr<std::string> ExplainNonFinite(Session& session, const std::vector<Feed>& feeds,
                                             const std::vector<Value>& values) try {
  const Graph& graph = session.graph();
  std::vector<bool> needed(graph.num_nodes(), false);
  std::vector<Port> roots;
  for (const Value& value : values) {
    if (!value.valid() || value.port().node >= graph.num_nodes() ||
        graph.node(value.port().node).serial != value.serial()) {
      return absl::InvalidArgumentError("ExplainNonFinite: a value is not of the session's graph");
    }
    const Node& node = graph.node(value.port().node);
    // The new value of an assignment is its second operand; fetching the assignment itself would
    // carry it out.
    roots.push_back(node.op->kind == OpKind::kAssign ? node.inputs[1] : value.port());
    needed[roots.back().node] = true;
  }
  std::vector<Port> ports;
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    if (!needed[id]) continue;
    const Node& node = graph.node(id);
    for (Port operand : OperandsOf(node)) needed[operand.node] = true;
    if (node.op->kind == OpKind::kAssign) continue;
    for (int output = 0; output < static_cast<int>(node.outputs.size()); ++output) {
      if (IsFloating(node.outputs[output].dtype)) ports.push_back({id, output});
    }
  }
  std::vector<Fetch> fetches;
  // Handles to read with; nothing changes the graph.
  for (Port port : ports) fetches.push_back(Value(const_cast<Graph*>(&graph), port));
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, session.Run(feeds, fetches));
  Ranges ranges;
  for (size_t i = 0; i < ports.size(); ++i) ranges[ports[i]] = RangeOf(results[i]);
  return Explain(graph, ranges, roots);
}
GW_CATCH_OUT_OF_MEMORY("ExplainNonFinite")

absl::Status NumericsCheck::BeforeStep() {
  before_.clear();
  for (const std::string& name : session_.VariableNames()) {
    GW_ASSIGN_OR_RETURN(Tensor value, session_.GetVariable(name));
    before_.emplace_back(name, std::move(value));
  }
  run_number_ = session_.run_number();
  return absl::OkStatus();
}

absl::StatusOr<std::string> NumericsCheck::SpoiledVariable() const {
  for (const auto& [name, before] : before_) {
    if (!IsFloating(before.dtype())) continue;
    GW_ASSIGN_OR_RETURN(const Tensor now, session_.GetVariable(name));
    if (!RangeOf(now).is_finite() && RangeOf(before).is_finite()) return name;
  }
  return "";
}

absl::StatusOr<std::string> NumericsCheck::Explain(const std::vector<Feed>& feeds, const Value& loss,
                                                   const Update& update) {
  for (const auto& [name, value] : before_) GW_RETURN_IF_ERROR(session_.SetVariable(name, value));
  session_.SetRunNumber(run_number_);
  std::vector<Value> values = update.assignments;
  values.push_back(loss);
  return ExplainNonFinite(session_, feeds, values);
}

}  // namespace gradweave
