// The forms in ONNX of loops and branches. Their bodies read captured values by name, as ONNX
// allows.
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/frontend/onnx/exporter.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

using Names = Exporter::Names;

// The operands of a body: its inputs, and the node's operands from `first` on, which are captured.
Names BodyOperands(const Names& inputs, const Names& operands, size_t first) {
  Names names = inputs;
  names.insert(names.end(), operands.begin() + static_cast<int64_t>(first), operands.end());
  return names;
}

// A Scan without inputs is a Loop, whose outputs lie along a new first axis.
absl::Status WriteScanAsLoop(Exporter& e, const Node& node, const TensorTypes& states, const TensorTypes& slices) {
  const Body& body = node.attribute<Body>("body");
  const Names operands = e.Operands(node);
  TensorTypes inputs = {{kInt64, {}}, {kBool, {}}}, results = {{kBool, {}}};
  inputs.insert(inputs.end(), states.begin(), states.end());
  results.insert(results.end(), states.begin(), states.end());
  results.insert(results.end(), slices.begin(), slices.end());
  GW_ASSIGN_OR_RETURN(proto::Graph graph, e.NewBody(inputs, results, [&](const Names& x) -> absl::StatusOr<Names> {
    GW_ASSIGN_OR_RETURN(Names values, e.Inline(*body, BodyOperands({x.begin() + 2, x.end()}, operands, states.size())));
    values.insert(values.begin(), x[1]);
    return values;
  }));
  GW_ASSIGN_OR_RETURN(const std::string length, e.Size(node, node.attribute<Shape>("length")[0]));
  Names first = {length, e.Constant(Tensor::Scalar(true))};
  first.insert(first.end(), operands.begin(), operands.begin() + static_cast<int64_t>(states.size()));
  const Names last = e.AddMany("Loop", first, static_cast<int>(node.outputs.size()), {{"body", std::move(graph)}});
  const Integers& axes = node.attribute<Integers>("output_axes");
  for (size_t i = 0; i < last.size(); ++i) {
    std::string value = last[i];
    if (i >= states.size()) {
      if (node.attribute<bool>("reverse")) {
        value = e.Add("Slice",
                      {value, e.List({-1}), e.List({std::numeric_limits<int64_t>::min()}), e.List({0}), e.List({-1})});
      }
      const int64_t axis = axes[i - states.size()];
      Integers order;
      for (int64_t j = 1; j < node.outputs[i].shape.rank(); ++j) order.push_back(j);
      order.insert(order.begin() + axis, 0);
      if (axis != 0) value = e.Transposed(value, order);
    }
    e.Set(node, value, static_cast<int>(i));
  }
  return absl::OkStatus();
}

absl::Status WriteScan(Exporter& e, const Node& node) {
  const auto num_states = static_cast<size_t>(node.attribute<int64_t>("states"));
  const Integers &input_axes = node.attribute<Integers>("input_axes"),
                 &output_axes = node.attribute<Integers>("output_axes");
  const Body& body = node.attribute<Body>("body");
  TensorTypes inputs, states, slices;
  for (size_t i = 0; i < num_states + input_axes.size(); ++i) {
    TensorType type = e.In(node, static_cast<int>(i));
    if (i < num_states) states.push_back(type);
    if (i >= num_states) type.shape.Erase(static_cast<int>(input_axes[i - num_states]));
    inputs.push_back(type);
  }
  for (size_t i = 0; i < output_axes.size(); ++i) {
    TensorType type = node.outputs[num_states + i];
    type.shape.Erase(static_cast<int>(output_axes[i]));
    slices.push_back(type);
  }
  const Names operands = e.Operands(node);
  if (node.attribute<Shape>("length") == Shape{0}) {
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const TensorType& type = node.outputs[i];
      if (i < num_states) {
        e.Set(node, e.Add("Identity", {operands[i]}), static_cast<int>(i));
      } else {
        GW_ASSIGN_OR_RETURN(std::string none, e.Spread(node, e.Number(type.dtype, 0), type.shape));
        e.Set(node, std::move(none), static_cast<int>(i));
      }
    }
    return absl::OkStatus();
  }
  if (input_axes.empty()) return WriteScanAsLoop(e, node, states, slices);
  TensorTypes results = states;
  results.insert(results.end(), slices.begin(), slices.end());
  GW_ASSIGN_OR_RETURN(proto::Graph graph, e.NewBody(inputs, results, [&](const Names& x) {
    return e.Inline(*body, BodyOperands(x, operands, inputs.size()));
  }));
  const auto first_input = operands.begin() + static_cast<int64_t>(num_states);
  const Names last =
      e.AddScan({operands.begin(), first_input}, {first_input, first_input + static_cast<int64_t>(input_axes.size())},
                std::move(graph), input_axes, output_axes, node.attribute<bool>("reverse"));
  for (size_t i = 0; i < last.size(); ++i) e.Set(node, last[i], static_cast<int>(i));
  return absl::OkStatus();
}

absl::Status WriteIf(Exporter& e, const Node& node) {
  const Names operands = e.Operands(node);
  std::vector<OnnxAttribute> branches;
  for (const char* name : {"then_branch", "else_branch"}) {
    const Body& body = node.attribute<Body>(name);
    GW_ASSIGN_OR_RETURN(proto::Graph graph, e.NewBody({}, node.outputs, [&](const Names&) {
      return e.Inline(*body, BodyOperands({}, operands, 1));
    }));
    branches.push_back({name, std::move(graph)});
  }
  const Names results = e.AddMany("If", {operands[0]}, static_cast<int>(node.outputs.size()), std::move(branches));
  for (size_t i = 0; i < results.size(); ++i) e.Set(node, results[i], static_cast<int>(i));
  return absl::OkStatus();
}

// A Loop ends after most_steps steps without an error.
absl::Status WriteWhile(Exporter& e, const Node& node) {
  const auto num_states = static_cast<size_t>(node.attribute<int64_t>("states"));
  const Body &body = node.attribute<Body>("body"), &condition = node.attribute<Body>("condition");
  const Names operands = e.Operands(node);
  TensorTypes inputs = {{kInt64, {}}, {kBool, {}}}, results = {{kBool, {}}};
  inputs.insert(inputs.end(), node.outputs.begin(), node.outputs.end());
  results.insert(results.end(), node.outputs.begin(), node.outputs.end());
  GW_ASSIGN_OR_RETURN(proto::Graph graph, e.NewBody(inputs, results, [&](const Names& x) -> absl::StatusOr<Names> {
    GW_ASSIGN_OR_RETURN(Names states, e.Inline(*body, BodyOperands({x.begin() + 2, x.end()}, operands, num_states)));
    GW_ASSIGN_OR_RETURN(const Names holds, e.Inline(*condition, BodyOperands(states, operands, num_states)));
    states.insert(states.begin(), holds[0]);
    return states;
  }));
  GW_ASSIGN_OR_RETURN(const Names holds, e.Inline(*condition, operands));
  Names first = {e.List({node.attribute<int64_t>("most_steps")}), holds[0]};
  first.insert(first.end(), operands.begin(), operands.begin() + static_cast<int64_t>(num_states));
  const Names last = e.AddMany("Loop", first, static_cast<int>(num_states), {{"body", std::move(graph)}});
  for (size_t i = 0; i < last.size(); ++i) e.Set(node, last[i], static_cast<int>(i));
  return absl::OkStatus();
}

constexpr ExportRow kRows[] = {
    {"If", "If", WriteIf},
    {"Scan", "Scan", WriteScan},
    {"While", "Loop", WriteWhile},
};

}  // namespace

absl::Span<const ExportRow> ControlForms() { return kRows; }

}  // namespace gradweave::onnx
