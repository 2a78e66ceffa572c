#include "gradweave/graph/passes/autodiff.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {
namespace {

// Adds gradient nodes by the kinds of their ops, because graph/ must not depend on ops/.
class Differentiator {
 public:
  Differentiator(Graph& graph, const OpRegistry& registry) : graph_(graph), registry_(registry) {}

  absl::StatusOr<std::vector<Value>> Run(const std::vector<Value>& ys, const std::vector<Value>& xs,
                                         const std::vector<Value>& grad_ys, GradientOptions options);

 private:
  absl::StatusOr<Port> Add(OpKind op, absl::Span<const Port> inputs, absl::Span<const NamedAttribute> attributes) {
    const OpDefinition* const definition = registry_.Find(op);
    if (definition == nullptr) {
      return absl::FailedPreconditionError(
          "Gradients: the graph's op registry lacks an op that adds gradients up; RegisterCoreOps adds them all");
    }
    GW_ASSIGN_OR_RETURN(NodeId node, graph_.AddNode({.op = definition,
                                                     .inputs = inputs,
                                                     .attributes = attributes,
                                                     .device = graph_.builder().device,
                                                     .location = graph_.builder().location}));
    return Port{node, 0};
  }
  // Returns the sum of both. An invalid `sum` stands for zero.
  absl::StatusOr<Port> Plus(Port sum, Port gradient) {
    if (sum.node < 0) return gradient;
    return Add(OpKind::kAdd, {sum, gradient}, {});
  }

  absl::StatusOr<Port> Full(const TensorType& type, double value) {
    const NamedAttribute constant[] = {{"value", Tensor::ScalarOf(type.dtype, value)}};
    GW_ASSIGN_OR_RETURN(Port scalar, Add(OpKind::kConstant, {}, constant));
    if (type.shape.rank() == 0) return scalar;
    const NamedAttribute shape[] = {{"shape", type.shape}};
    return Add(OpKind::kBroadcastTo, {scalar}, shape);
  }

  void MarkDependents(const std::vector<Value>& xs, NodeId last);
  // True if some x needs the gradient of this port.
  bool Wanted(Port port) const { return IsReal(graph_.type(port).dtype) && (depends_[port.node] || IsX(port)); }
  bool IsX(Port port) const { return std::binary_search(xs_.begin(), xs_.end(), port); }
  void Contribute(Port port, Port gradient, NodeId from, NodeId part = -1) {
    contributions_[port.node].push_back({port.output, gradient, part});
    if (used_by_[port.node] < 0) used_by_[port.node] = from;
  }

  struct Contribution {
    int32_t output;
    Port gradient;
    // The Slice or Gather whose output has this gradient; -1 if it is the gradient of the whole
    // output. Parts are collected, because each would be as large as the output if it became a
    // gradient of the whole output.
    NodeId part;
  };
  using Parts = absl::InlinedVector<Contribution, 2>;

  // Returns the sum of the contributions to an output, which is invalid if there are none.
  absl::StatusOr<Port> Total(Port port);
  // These return the sum of `sum`, which may be invalid, and the parts' gradients, each added at
  // its part of the output. Time and memory are linear in the sizes of the output and of the parts.
  absl::StatusOr<Port> AddSlices(Port output, Port sum, Parts parts);
  absl::StatusOr<Port> AddGathers(Port output, Port sum, const Parts& parts);
  // Returns the axis along which the slices, in this order, cover the output without gaps and
  // overlaps; -1 if there is none.
  int TiledAxis(const Shape& shape, const Parts& parts) const;
  absl::Status Propagate(const Node& node, absl::Span<const Value> output_gradients);
  std::string Path(const Node& node) const;

  Graph& graph_;
  const OpRegistry& registry_;
  std::vector<Port> xs_;         // Sorted.
  std::vector<char> depends_;    // Indexed by node: true if an output depends on an x without being one.
  std::vector<NodeId> used_by_;  // Indexed by node: a node that contributed a gradient, or -1.
  std::vector<absl::InlinedVector<Contribution, 1>> contributions_;  // Indexed by node.
};

void Differentiator::MarkDependents(const std::vector<Value>& xs, NodeId last) {
  for (const Value& x : xs) xs_.push_back(x.port());
  std::sort(xs_.begin(), xs_.end());
  depends_.assign(last + 1, false);
  used_by_.assign(last + 1, -1);
  contributions_.resize(last + 1);
  for (NodeId id = xs_.empty() ? 0 : xs_.front().node + 1; id <= last; ++id) {
    const auto& inputs = graph_.node(id).inputs;
    depends_[id] = std::any_of(inputs.begin(), inputs.end(), [this](Port input) { return Wanted(input); });
  }
}

absl::StatusOr<Port> Differentiator::Total(Port port) {
  Port sum;
  Parts slices, gathers;
  for (const Contribution& contribution : contributions_[port.node]) {
    if (contribution.output != port.output) continue;
    if (contribution.part < 0) {
      GW_ASSIGN_OR_RETURN(sum, Plus(sum, contribution.gradient));
    } else {
      (graph_.node(contribution.part).op->kind == OpKind::kSlice ? slices : gathers).push_back(contribution);
    }
  }
  if (!slices.empty()) {
    GW_ASSIGN_OR_RETURN(sum, AddSlices(port, sum, std::move(slices)));
  }
  if (!gathers.empty()) {
    GW_ASSIGN_OR_RETURN(sum, AddGathers(port, sum, gathers));
  }
  return sum;
}

int Differentiator::TiledAxis(const Shape& shape, const Parts& parts) const {
  const Shape& first = graph_.type(parts[0].gradient).shape;
  int axis = 0;
  while (axis < shape.rank() && first[axis] == shape[axis]) ++axis;
  if (axis == shape.rank()) return -1;
  Dim end(0);
  for (const Contribution& part : parts) {
    const Node& slice = graph_.node(part.part);
    const Shape& size = graph_.type(part.gradient).shape;
    for (int other = 0; other < shape.rank(); ++other) {
      if (other != axis && !(size[other] == shape[other])) return -1;
    }
    if (!(slice.attribute<Shape>("start")[axis] == end)) return -1;
    end = end + size[axis];
    if (!(slice.attribute<Shape>("limit")[axis] == end)) return -1;  // Steps of more than 1 leave gaps.
  }
  return end == shape[axis] ? axis : -1;
}

absl::StatusOr<Port> Differentiator::AddSlices(Port output, Port sum, Parts parts) {
  const TensorType type = graph_.type(output);
  const LocationGuard location(graph_, graph_.node(parts[0].part).location);
  // The users were visited from the last to the first.
  std::reverse(parts.begin(), parts.end());
  auto before = [this](const Contribution& a, const Contribution& b) {
    const Shape &of_a = graph_.node(a.part).attribute<Shape>("start"),
                &of_b = graph_.node(b.part).attribute<Shape>("start");
    for (int axis = 0; axis < of_a.rank(); ++axis) {
      if (!(of_a[axis] == of_b[axis])) return of_a[axis].size() < of_b[axis].size();
    }
    return false;
  };
  auto is_static = [this](const Contribution& part) {
    return graph_.node(part.part).attribute<Shape>("start").is_static();
  };
  if (std::all_of(parts.begin(), parts.end(), is_static)) std::stable_sort(parts.begin(), parts.end(), before);
  std::vector<Port> operands;
  for (const Contribution& part : parts) operands.push_back(part.gradient);
  if (const int axis = TiledAxis(type.shape, parts); axis >= 0) {
    const NamedAttribute attributes[] = {{"axis", int64_t{axis}}};
    GW_ASSIGN_OR_RETURN(Port joined, Add(OpKind::kConcat, operands, attributes));
    return Plus(sum, joined);
  }
  if (parts.size() == 1 && sum.node < 0) {
    const Value gradient[] = {graph_.value(parts[0].gradient)};
    const bool needed[] = {true};
    const Node& slice = graph_.node(parts[0].part);
    GradientContext context(graph_, slice, gradient, needed);
    slice.op->gradient(context);
    GW_RETURN_IF_ERROR(graph_.status());
    return context.gradients()[0].port();
  }
  Shape starts, limits;
  Integers steps;
  for (const Contribution& part : parts) {
    const Node& slice = graph_.node(part.part);
    for (const Dim& dim : slice.attribute<Shape>("start")) starts.Append(dim);
    for (const Dim& dim : slice.attribute<Shape>("limit")) limits.Append(dim);
    const Integers& of_slice = slice.attribute<Integers>("steps");
    steps.insert(steps.end(), of_slice.begin(), of_slice.end());
  }
  if (sum.node < 0) {
    GW_ASSIGN_OR_RETURN(sum, Full(type, 0));
  }
  operands.insert(operands.begin(), sum);
  const NamedAttribute attributes[] = {{"starts", starts}, {"limits", limits}, {"steps", steps}};
  return Add(OpKind::kSliceAdd, operands, attributes);
}

absl::StatusOr<Port> Differentiator::AddGathers(Port output, Port sum, const Parts& parts) {
  const TensorType type = graph_.type(output);
  const LocationGuard location(graph_, graph_.node(parts[0].part).location);
  struct Group {  // The gathers along one axis.
    int64_t axis;
    std::vector<Port> indices, updates;
  };
  std::vector<Group> groups;
  for (const Contribution& part : parts) {
    const Node& gather = graph_.node(part.part);
    const int64_t axis = gather.attribute<int64_t>("axis");
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& other) { return other.axis == axis; });
    if (group == groups.end()) group = groups.insert(group, Group{axis});
    group->indices.push_back(gather.inputs[1]);
    group->updates.push_back(part.gradient);
  }
  for (Group& group : groups) {
    const bool mixed = std::any_of(group.indices.begin(), group.indices.end(), [&](Port indices) {
      return graph_.type(indices).dtype != graph_.type(group.indices[0]).dtype;
    });
    // Several gathers are one gather at all of their indices.
    for (size_t k = 0; k < group.indices.size() && group.indices.size() > 1; ++k) {
      const NamedAttribute flat[] = {{"shape", Shape{graph_.type(group.indices[k]).shape.num_elements()}}};
      Shape shape = type.shape;
      shape[static_cast<int>(group.axis)] = graph_.type(group.indices[k]).shape.num_elements();
      const NamedAttribute rows[] = {{"shape", shape}}, to_int64[] = {{"dtype", kInt64}};
      if (mixed) {
        GW_ASSIGN_OR_RETURN(group.indices[k], Add(OpKind::kCast, {group.indices[k]}, to_int64));
      }
      GW_ASSIGN_OR_RETURN(group.indices[k], Add(OpKind::kReshape, {group.indices[k]}, flat));
      GW_ASSIGN_OR_RETURN(group.updates[k], Add(OpKind::kReshape, {group.updates[k]}, rows));
    }
    Port indices = group.indices[0], updates = group.updates[0];
    const NamedAttribute first[] = {{"axis", int64_t{0}}}, axis[] = {{"axis", group.axis}};
    if (group.indices.size() > 1) {
      GW_ASSIGN_OR_RETURN(indices, Add(OpKind::kConcat, group.indices, first));
      GW_ASSIGN_OR_RETURN(updates, Add(OpKind::kConcat, group.updates, axis));
    }
    if (sum.node < 0) {
      GW_ASSIGN_OR_RETURN(sum, Full(type, 0));
    }
    GW_ASSIGN_OR_RETURN(sum, Add(OpKind::kScatterAdd, {sum, indices, updates}, axis));
  }
  return sum;
}

// The path from a y through the node to an x: "mean_9 <- argmax_7 <- conv1/filter".
std::string Differentiator::Path(const Node& node) const {
  std::vector<std::string> names = {node.display_name()};
  for (NodeId id = used_by_[node.id]; id >= 0; id = used_by_[id]) names.push_back(graph_.node(id).display_name());
  std::reverse(names.begin(), names.end());
  for (NodeId id = node.id; depends_[id];) {
    const auto& inputs = graph_.node(id).inputs;
    id = std::find_if(inputs.begin(), inputs.end(), [this](Port input) { return Wanted(input); })->node;
    names.push_back(graph_.node(id).display_name());
  }
  constexpr size_t kShown = 12;
  if (names.size() > kShown) {
    names.erase(names.begin() + kShown / 2, names.end() - kShown / 2);
    names.insert(names.begin() + kShown / 2, "...");
  }
  return absl::StrJoin(names, " <- ");
}

absl::Status Differentiator::Propagate(const Node& node, absl::Span<const Value> output_gradients) {
  if (!node.op->differentiable()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Gradients: ", node.op->name, " is not differentiable, and lies between a y and an x: ", Path(node), "; ",
        DescribeNode(graph_, node), ". StopGradient on its operand leaves this path out"));
  }
  absl::InlinedVector<bool, 4> needed;
  for (Port input : node.inputs) needed.push_back(Wanted(input));
  if (node.op->kind == OpKind::kSlice || node.op->kind == OpKind::kGather) {
    if (needed[0]) Contribute(node.inputs[0], output_gradients[0].port(), node.id, node.id);
    return absl::OkStatus();
  }
  const LocationGuard location(graph_, node.location);
  GradientContext context(graph_, node, output_gradients, needed);
  node.op->gradient(context);
  GW_RETURN_IF_ERROR(graph_.status());
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Value gradient = context.gradients()[i];
    if (gradient.graph() == nullptr || !needed[i]) continue;
    if (!gradient.valid() || !(gradient.type() == graph_.type(node.inputs[i]))) {
      return absl::InvalidArgumentError(
          absl::StrCat("Gradients: the gradient of ", DescribeNode(graph_, node), " for operand ", i, " is ",
                       gradient.valid() ? gradient.type().ToString() : "no value",
                       ", and has to have the operand's type; the function that adds it is wrong, or symbolic sizes "
                       "left the range of int64"));
    }
    Contribute(node.inputs[i], gradient.port(), node.id);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Value>> Differentiator::Run(const std::vector<Value>& ys, const std::vector<Value>& xs,
                                                       const std::vector<Value>& grad_ys, GradientOptions options) {
  if (!grad_ys.empty() && grad_ys.size() != ys.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gradients: there are ", ys.size(), " ys and ", grad_ys.size(), " grad_ys"));
  }
  NodeId last = -1;
  for (absl::string_view role : {"y", "x"}) {
    for (const Value& value : role == "y" ? ys : xs) {
      if (!IsReal(value.dtype())) {
        return absl::InvalidArgumentError(absl::StrCat("Gradients: ", value.node().display_name(), " is ",
                                                       value.type().ToString(), "; each ", role,
                                                       " has to be float32, float64, float16 or bfloat16"));
      }
      last = std::max(last, value.port().node);
    }
  }
  MarkDependents(xs, last);
  for (size_t i = 0; i < ys.size(); ++i) {
    Port gradient;
    if (grad_ys.empty()) {
      GW_ASSIGN_OR_RETURN(gradient, Full(ys[i].type(), 1));
    } else {
      if (!(grad_ys[i].type() == ys[i].type())) {
        return absl::InvalidArgumentError(absl::StrCat("Gradients: grad_ys[", i, "] is ", grad_ys[i].type().ToString(),
                                                       " and its y is ", ys[i].type().ToString()));
      }
      gradient = grad_ys[i].port();
    }
    if (Wanted(ys[i].port())) Contribute(ys[i].port(), gradient, -1);
  }

  // The users of a node have larger ids, so the node's gradient is complete when the loop reaches
  // it.
  std::vector<Port> totals(xs_.size());
  std::vector<Value> output_gradients;
  for (NodeId id = last; id >= 0; --id) {
    if (contributions_[id].empty()) continue;
    const Node& node = graph_.node(id);
    output_gradients.assign(node.outputs.size(), Value());
    for (Port port : node.ports()) {
      GW_ASSIGN_OR_RETURN(Port total, Total(port));
      if (total.node < 0) continue;
      output_gradients[port.output] = graph_.value(total);
      if (IsX(port)) totals[std::lower_bound(xs_.begin(), xs_.end(), port) - xs_.begin()] = total;
    }
    if (depends_[id]) GW_RETURN_IF_ERROR(Propagate(node, output_gradients));
    contributions_[id] = {};
  }

  std::vector<Value> results;
  for (const Value& x : xs) {
    Port total = totals[std::lower_bound(xs_.begin(), xs_.end(), x.port()) - xs_.begin()];
    if (total.node < 0) {
      if (options.unreachable == GradientOptions::kInvalid) {
        results.push_back(Value(&graph_, Port{}));
        continue;
      }
      if (options.unreachable == GradientOptions::kError) {
        return absl::InvalidArgumentError(absl::StrCat("Gradients: no gradient reaches ", x.node().display_name(), ", ",
                                                       x.type().ToString(), ": ", DescribeGradientCut(ys[0], x)));
      }
      GW_ASSIGN_OR_RETURN(total, Full(x.type(), 0));
    }
    results.push_back(graph_.value(total));
  }
  return results;
}

// Returns true if the op's gradient function sets a gradient for that operand. That function adds
// nodes, so this calls it on a copy of the graph. Only error messages need it.
bool PassesGradient(const Graph& graph, const Node& node, Port operand) {
  if (!node.op->differentiable()) return false;
  Graph copy = graph;
  std::vector<Value> output_gradients;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const Value output = copy.value(Port{node.id, static_cast<int32_t>(i)});
    output_gradients.push_back(IsReal(output.dtype()) ? output : Value());
  }
  absl::InlinedVector<bool, 4> needed;
  for (Port input : node.inputs) needed.push_back(input == operand);
  GradientContext context(copy, copy.node(node.id), output_gradients, needed);
  node.op->gradient(context);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.inputs[i] == operand && context.gradients()[i].valid()) return true;
  }
  return false;
}

}  // namespace

std::string DescribeGradientCut(const Value& y, const Value& x) {
  const Graph& graph = *y.graph();
  const NodeId last = y.port().node, first = x.port().node;
  std::vector<bool> from_x(last + 1, false);
  if (first <= last) from_x[first] = true;
  for (NodeId id = first + 1; id <= last; ++id) {
    for (Port input : graph.node(id).inputs) from_x[id] = from_x[id] || from_x[input.node];
  }
  if (first > last || !from_x[last]) {
    return absl::StrCat(y.node().display_name(), " does not depend on ", x.node().display_name());
  }
  for (NodeId id = last; id != first;) {
    const Node& node = graph.node(id);
    const auto on_path =
        std::find_if(node.inputs.begin(), node.inputs.end(), [&](Port input) { return from_x[input.node]; });
    const bool floating = IsReal(node.outputs[0].dtype);
    const bool floating_operand = IsReal(graph.type(*on_path).dtype);
    if (floating_operand && (!floating || !PassesGradient(graph, node, *on_path))) {
      return absl::StrCat(DescribeNode(graph, node), " passes no gradient on");
    }
    id = on_path->node;
  }
  return "no op on the way passes a gradient on";
}

std::vector<Value> Gradients(const std::vector<Value>& ys, const std::vector<Value>& xs,
                             const std::vector<Value>& grad_ys, GradientOptions options,
                             std::source_location location) {
  Graph* graph = nullptr;
  for (const auto* values : {&ys, &xs, &grad_ys}) {
    for (const Value& value : *values) {
      if (graph == nullptr) graph = value.graph();
    }
  }
  std::vector<Value> invalid(xs.size(), Value(graph, Port{}));
  if (graph == nullptr) return invalid;
  const SourceLocation outer = graph->builder().location;
  const SourceLocation call = outer.file != nullptr ? outer : SourceLocation{location.file_name(), location.line()};
  for (const auto* values : {&ys, &xs, &grad_ys}) {
    for (const Value& value : *values) {
      if (value.graph() != graph && value.graph() != nullptr) {
        graph->RecordError(absl::InvalidArgumentError(
            absl::StrCat("Gradients: the values belong to different graphs at ", ToString(call))));
      }
      if (!value.valid()) return invalid;
    }
  }
  if (!graph->status().ok() || xs.empty()) return invalid;
  const LocationGuard guard(*graph, call);
  auto run = [&]() -> absl::StatusOr<std::vector<Value>> {
    try {
      return Differentiator(*graph, *xs[0].node().op->registry).Run(ys, xs, grad_ys, options);
    }
    GW_CATCH_OUT_OF_MEMORY("Gradients")
  };
  absl::StatusOr<std::vector<Value>> gradients = run();
  if (gradients.ok()) return *std::move(gradients);
  graph->RecordError(
      absl::Status(gradients.status().code(), absl::StrCat(gradients.status().message(), " at ", ToString(call))));
  return invalid;
}

}  // namespace gradweave
