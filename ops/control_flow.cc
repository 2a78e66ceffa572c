#include "gradweave/ops/control_flow.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/ops/body_builder.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/control_flow_gradients.h"
#include "gradweave/ops/registry.h"

namespace gradweave {
namespace {

const char kBodyDoc[] =
    "Inputs are the output 'operands' of the graph, and results its output 'results'. No variables, assignments and "
    "random ops.";

TensorType SliceOf(const TensorType& type, int64_t axis) {
  TensorType slice = type;
  slice.shape.Erase(static_cast<int>(axis));
  return slice;
}

// The error of a body whose results are not the states that it is given.
absl::Status CheckStates(const OpView& op, absl::Span<const TensorType> results, int64_t states) {
  for (int i = 0; i < states; ++i) {
    if (results[i] == op.operand(i)) continue;
    return op.Error("state ", i, " is ", op.operand(i).ToString(), " before a step and ", results[i].ToString(),
                    " after it, and has to keep its type; BroadcastTo and Cast change the first one");
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorTypes> InferScan(const OpView& op) {
  const int64_t states = op.attribute<int64_t>("states");
  const Integers& input_axes = op.attribute<Integers>("input_axes");
  const Integers& output_axes = op.attribute<Integers>("output_axes");
  const Shape& length = op.attribute<Shape>("length");
  const auto inputs = static_cast<int64_t>(input_axes.size());
  if (states < 0 || states > op.num_operands() || inputs > op.num_operands() - states) {
    return op.Error("has ", states, " states and ", inputs, " inputs, and ", op.num_operands(), " operands");
  }
  if (length.rank() != 1 || (length[0].is_known() && length[0].size() < 0)) {
    return op.Error("the length has to be one number of at least 0, and is ", length.ToString());
  }
  TensorTypes operands(op.operands().begin(), op.operands().end());
  for (int64_t i = 0; i < inputs; ++i) {
    TensorType& input = operands[states + i];
    const int64_t axis = input_axes[i];
    if (axis < 0 || axis >= input.shape.rank()) {
      return op.Error("input ", i, " is ", input.ToString(), ", and axis ", axis, " is outside [0, ",
                      input.shape.rank(), ")");
    }
    if (!(input.shape[static_cast<int>(axis)] == length[0])) {
      return op.Error("input ", i, " is ", input.ToString(), " and has ",
                      input.shape[static_cast<int>(axis)].ToString(), " slices along axis ", axis,
                      ", and the loop has ", length[0].ToString(),
                      " steps; the inputs' sizes along their axes have to be equal");
    }
    input = SliceOf(input, axis);
  }
  GW_ASSIGN_OR_RETURN(TensorTypes results, CheckBody(*op.attribute<Body>("body"), "Scan: the body", operands));
  const int64_t outputs = static_cast<int64_t>(results.size()) - states;
  if (outputs != static_cast<int64_t>(output_axes.size()) || results.empty()) {
    return op.Error("the body gives ", results.size(), " results, and there are ", states, " states and ",
                    output_axes.size(), " axes of outputs; it has to give at least one, and one for each of them");
  }
  GW_RETURN_IF_ERROR(CheckStates(op, results, states));
  for (int64_t i = 0; i < outputs; ++i) {
    Shape& shape = results[states + i].shape;
    if (output_axes[i] < 0 || output_axes[i] > shape.rank()) {
      return op.Error("a slice of output ", i, " is ", results[states + i].ToString(), ", and axis ", output_axes[i],
                      " is outside [0, ", shape.rank(), "]");
    }
    shape.Insert(static_cast<int>(output_axes[i]), length[0]);
  }
  return results;
}

absl::StatusOr<TensorTypes> InferIf(const OpView& op) {
  if (!(op.operand(0) == TensorType{kBool, {}})) {
    return op.Error("the predicate is ", op.operand(0).ToString(), " and has to be a bool scalar");
  }
  const absl::Span<const TensorType> operands = op.operands().subspan(1);
  GW_ASSIGN_OR_RETURN(TensorTypes results, CheckBody(*op.attribute<Body>("then_branch"), "If: then_branch", operands));
  GW_ASSIGN_OR_RETURN(const TensorTypes other,
                      CheckBody(*op.attribute<Body>("else_branch"), "If: else_branch", operands));
  if (results != other || results.empty()) {
    return op.Error("then_branch gives (", ToString(results), ") and else_branch gives (", ToString(other),
                    "); both have to give values of the same types, and at least one");
  }
  return results;
}

absl::StatusOr<TensorTypes> InferWhile(const OpView& op) {
  const int64_t states = op.attribute<int64_t>("states");
  if (states < 1 || states > op.num_operands()) {
    return op.Error("has ", states, " states and ", op.num_operands(), " operands, and needs at least one state");
  }
  if (op.attribute<int64_t>("most_steps") < 0) {
    return op.Error("most_steps is ", op.attribute<int64_t>("most_steps"), " and has to be at least 0");
  }
  GW_ASSIGN_OR_RETURN(const TensorTypes condition,
                      CheckBody(*op.attribute<Body>("condition"), "While: the condition", op.operands()));
  if (condition.size() != 1 || !(condition[0] == TensorType{kBool, {}})) {
    return op.Error("the condition gives (", ToString(condition), ") and has to give a bool scalar");
  }
  GW_ASSIGN_OR_RETURN(TensorTypes results, CheckBody(*op.attribute<Body>("body"), "While: the body", op.operands()));
  if (static_cast<int64_t>(results.size()) != states) {
    return op.Error("the body gives ", results.size(), " states, and there are ", states);
  }
  GW_RETURN_IF_ERROR(CheckStates(op, results, states));
  return results;
}

double ScanFlops(const OpView& op, absl::Span<const TensorType>) {
  return BodyFlops(*op.attribute<Body>("body")) * static_cast<double>(op.attribute<Shape>("length")[0].size());
}

// The operands of a call: for its errors, and as values in the graph that gets the node.
class Call {
 public:
  Call(const char* op, const std::source_location& location) : op_(op), location_(location) {}

  void Add(const Value& value) {
    operands_.emplace_back(value, location_);
    values_.push_back(value);
  }

  // Finds the graph. False if an operand is invalid or belongs to another graph than the others.
  bool FindGraph() {
    for (const Operand& operand : operands_) {
      if (graph_ == nullptr) graph_ = operand.graph();
    }
    if (!AllValid(op_, operands_)) return false;
    if (graph_ == nullptr) return Error("there is no value to begin with; give it a state or an input");
    if (Graph* const body = CaptureIntoInnermost(absl::MakeSpan(values_)); body != nullptr) graph_ = body;
    for (const Value& value : values_) {
      if (value.graph() != graph_) return Error("the operands belong to different graphs");
    }
    return graph_->status().ok();
  }

  // Records an error at the line of the call. Returns false.
  bool Error(absl::string_view message) {
    const Value invalid = BuilderError(op_, operands_, message);
    if (graph_ == nullptr) graph_ = invalid.graph();
    return false;
  }

  Graph& graph() const { return *graph_; }
  const Value& value(size_t i) const { return values_[i]; }
  SourceLocation line() const {
    return graph_->builder().location.file != nullptr ? graph_->builder().location : ToSourceLocation(location_);
  }

  // Adds the values that bodies have captured as operands.
  void AddCaptured(const std::vector<Value>& captured) {
    for (const Value& value : captured) Add(value);
  }
  std::vector<Value> AddNode(std::initializer_list<NamedAttribute> attributes) {
    std::vector<Operand> operands;
    for (const Value& value : values_) operands.emplace_back(value, location_);
    const Value first = AddOp(op_, operands, attributes);
    std::vector<Value> outputs;
    if (!first.valid()) return outputs;
    for (Port port : first.node().ports()) outputs.push_back(graph_->value(port));
    return outputs;
  }

  // Returns this number of invalid values of the graph.
  std::vector<Value> Invalid(size_t count) const { return std::vector<Value>(count, Value(graph_, Port{})); }

 private:
  const char* const op_;
  const std::source_location location_;
  std::vector<Operand> operands_;
  std::vector<Value> values_;
  Graph* graph_ = nullptr;
};

// One axis for each value, in [0, rank). InferScan reports invalid axes.
int64_t AxisOf(const Integers& axes, size_t i, int64_t rank) {
  if (axes.empty()) return 0;
  const int64_t normalized = NormalizedAxis(axes[i], rank);
  return normalized < 0 ? axes[i] : normalized;
}

template <typename Function>
auto Built(BodyBuilder& builder, const Function& function) {
  const BodyBuilder::Activation active(builder);
  return function();
}

// Builds two bodies with the same operands: both take all values that either of them captures, in
// the same order.
template <typename First, typename Second>
std::pair<std::vector<Value>, std::vector<Value>> BuildBoth(BodyBuilder (&builders)[2], const First& first,
                                                            const Second& second) {
  std::pair<std::vector<Value>, std::vector<Value>> results;
  results.first = Built(builders[0], first);
  for (const Value& value : results.first) builders[0].Capture(value);
  for (const Value& value : builders[0].captured()) builders[1].Capture(value);
  results.second = Built(builders[1], second);
  for (const Value& value : results.second) builders[1].Capture(value);
  for (const Value& value : builders[1].captured()) builders[0].Capture(value);
  return results;
}

}  // namespace

void RegisterControlFlowOps(OpRegistry& registry) {
  registry.Add({
      .name = "Scan",
      .doc = "Runs a body once for each slice of the inputs and carries states from step to step. The body takes the "
             "states, a slice of each input and the captured values, and gives the new states and a slice of each "
             "output. Results are the last states and the outputs, the slices of all steps.",
      .operands = {{"values", "The first states, the inputs, and captured values, which are the same in each step.",
                    kAnyDType, OperandDefinition::kVariadic}},
      .attributes = {{"body", AttributeType::kGraph, kBodyDoc},
                     {"states", AttributeType::kInteger, "The number of states."},
                     {"input_axes", AttributeType::kIntegers, "The axis of each input that steps go along."},
                     {"output_axes", AttributeType::kIntegers, "The axis of each output that steps go along."},
                     {"length", AttributeType::kShape, "The number of steps, as a shape of one dimension."},
                     {"reverse", AttributeType::kBool, "True if the first step takes the last slices.", false}},
      .infer = InferScan,
      .gradient = ScanGradient,
      .flops = ScanFlops,
      .kind = OpKind::kScan,
  });
  registry.Add({
      .name = "If",
      .doc = "The results of one of two branches. Only that one runs.",
      .operands = {{"values", "The predicate, a bool scalar, and the values that both branches take.", kAnyDType,
                    OperandDefinition::kVariadic}},
      .attributes = {{"then_branch", AttributeType::kGraph, absl::StrCat("Runs if the predicate is true. ", kBodyDoc)},
                     {"else_branch", AttributeType::kGraph, "Runs otherwise. Gives results of the same types."}},
      .infer = InferIf,
      .gradient = IfGradient,
  });
  registry.Add({
      .name = "While",
      .doc = "Runs a body, which takes states and captured values and gives new states, as long as a condition on them "
             "holds. Fails the run if the condition holds after most_steps steps.",
      .operands = {{"values", "The first states, and captured values, which are the same in each step.", kAnyDType,
                    OperandDefinition::kVariadic}},
      .attributes = {{"condition", AttributeType::kGraph, "Gives a bool scalar. Takes what the body takes."},
                     {"body", AttributeType::kGraph, kBodyDoc},
                     {"states", AttributeType::kInteger, "The number of states, at least 1."},
                     {"most_steps", AttributeType::kInteger, "The greatest number of steps, at least 0."}},
      .infer = InferWhile,
      .gradient = WhileGradient,
  });
}

ScanResult Scan(const std::vector<Value>& states, const std::vector<Value>& inputs, const ScanBody& body,
                const ScanOptions& options, std::source_location location) {
  Call call("Scan", location);
  for (const Value& state : states) call.Add(state);
  for (const Value& input : inputs) call.Add(input);
  // The number of outputs is known once the body has been built.
  size_t outputs = options.output_axes.size();
  const auto failed = [&]() -> ScanResult { return {call.Invalid(states.size()), call.Invalid(outputs)}; };
  if (!call.FindGraph()) return failed();
  if (!options.input_axes.empty() && options.input_axes.size() != inputs.size()) {
    call.Error(absl::StrCat("there are ", inputs.size(), " inputs and ", options.input_axes.size(), " input_axes"));
    return failed();
  }
  Integers input_axes;
  std::optional<Dim> length = options.length;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const int64_t axis = AxisOf(options.input_axes, i, inputs[i].rank());
    if (axis < 0 || axis >= inputs[i].rank()) {
      call.Error(absl::StrCat("input ", i, " is ", inputs[i].type().ToString(), " and has no axis ", axis));
      return failed();
    }
    const Dim& size = inputs[i].shape()[static_cast<int>(axis)];
    if (!length.has_value()) length = size;
    if (!(size == *length)) {
      call.Error(absl::StrCat("input ", i, " is ", inputs[i].type().ToString(), " and has ", size.ToString(),
                              " slices along axis ", axis, ", and the loop has ", length->ToString(),
                              " steps; the inputs' sizes along their axes have to be equal"));
      return failed();
    }
    input_axes.push_back(axis);
  }
  if (!length.has_value()) {
    call.Error("there are no inputs, so ScanOptions::length has to give the number of steps");
    return failed();
  }

  Body graph;
  Integers output_axes;
  std::vector<Value> captured;
  {
    BodyBuilder builder(call.graph());
    std::vector<Value> inner_states, slices;
    for (size_t i = 0; i < states.size(); ++i) {
      inner_states.push_back(builder.AddOperand(absl::StrCat("state_", i), states[i].type()));
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      slices.push_back(builder.AddOperand(absl::StrCat("slice_", i), SliceOf(inputs[i].type(), input_axes[i])));
    }
    const ScanStep step = Built(builder, [&] { return body(inner_states, slices); });
    outputs = step.outputs.size();
    if (step.states.size() != states.size()) {
      call.Error(absl::StrCat("the body gives ", step.states.size(), " states, and there are ", states.size()));
      return failed();
    }
    if (!options.output_axes.empty() && options.output_axes.size() != outputs) {
      call.Error(absl::StrCat("the body gives ", outputs, " outputs and there are ", options.output_axes.size(),
                              " output_axes"));
      return failed();
    }
    for (size_t i = 0; i < outputs; ++i) {
      output_axes.push_back(AxisOf(options.output_axes, i, step.outputs[i].rank() + 1));
    }
    std::vector<Value> results = step.states;
    results.insert(results.end(), step.outputs.begin(), step.outputs.end());
    graph = builder.Finish("the body of the Scan", results, call.line());
    captured = builder.captured();
  }
  if (graph == nullptr) return failed();
  call.AddCaptured(captured);
  const std::vector<Value> all = call.AddNode({{"body", graph},
                                               {"states", static_cast<int64_t>(states.size())},
                                               {"input_axes", input_axes},
                                               {"output_axes", output_axes},
                                               {"length", Shape{*length}},
                                               {"reverse", options.reverse}});
  if (all.empty()) return failed();
  const auto first_output = all.begin() + static_cast<std::ptrdiff_t>(states.size());
  return {{all.begin(), first_output}, {first_output, all.end()}};
}

std::vector<Value> If(const Value& predicate, const std::vector<Value>& values, const Branch& then_branch,
                      const Branch& else_branch, std::source_location location) {
  Call call("If", location);
  call.Add(predicate);
  for (const Value& value : values) call.Add(value);
  size_t results = 1;
  if (!call.FindGraph()) return call.Invalid(results);
  if (!(predicate.type() == TensorType{kBool, {}})) {
    call.Error("the predicate has to be a bool scalar");
    return call.Invalid(results);
  }
  Body bodies[2];
  std::vector<Value> captured;
  {
    BodyBuilder builders[2] = {BodyBuilder(call.graph()), BodyBuilder(call.graph())};
    std::vector<Value> inner[2];
    for (size_t k = 0; k < 2; ++k) {
      for (size_t i = 0; i < values.size(); ++i) {
        inner[k].push_back(builders[k].AddOperand(absl::StrCat("value_", i), values[i].type()));
      }
    }
    const auto [taken, other] = BuildBoth(
        builders, [&] { return then_branch(inner[0]); }, [&] { return else_branch(inner[1]); });
    results = std::max<size_t>(1, taken.size());
    bodies[0] = builders[0].Finish("then_branch of the If", taken, call.line());
    bodies[1] = builders[1].Finish("else_branch of the If", other, call.line());
    captured = builders[1].captured();
  }
  if (bodies[0] == nullptr || bodies[1] == nullptr) return call.Invalid(results);
  call.AddCaptured(captured);
  const std::vector<Value> all = call.AddNode({{"then_branch", bodies[0]}, {"else_branch", bodies[1]}});
  return all.empty() ? call.Invalid(results) : all;
}

std::vector<Value> While(const std::vector<Value>& states, const WhileCondition& condition, const WhileBody& body,
                         const WhileOptions& options, std::source_location location) {
  Call call("While", location);
  for (const Value& state : states) call.Add(state);
  if (!call.FindGraph()) return call.Invalid(states.size());
  Body graphs[2];
  std::vector<Value> captured;
  {
    BodyBuilder builders[2] = {BodyBuilder(call.graph()), BodyBuilder(call.graph())};
    std::vector<Value> inner[2];
    for (size_t k = 0; k < 2; ++k) {
      for (size_t i = 0; i < states.size(); ++i) {
        inner[k].push_back(builders[k].AddOperand(absl::StrCat("state_", i), states[i].type()));
      }
    }
    const auto [holds, next] = BuildBoth(
        builders, [&] { return std::vector<Value>{condition(inner[0])}; }, [&] { return body(inner[1]); });
    graphs[0] = builders[0].Finish("the condition of the While", holds, call.line());
    graphs[1] = builders[1].Finish("the body of the While", next, call.line());
    captured = builders[1].captured();
  }
  if (graphs[0] == nullptr || graphs[1] == nullptr) return call.Invalid(states.size());
  call.AddCaptured(captured);
  const std::vector<Value> all = call.AddNode({{"condition", graphs[0]},
                                               {"body", graphs[1]},
                                               {"states", static_cast<int64_t>(states.size())},
                                               {"most_steps", options.most_steps}});
  return all.empty() ? call.Invalid(states.size()) : all;
}

}  // namespace gradweave
