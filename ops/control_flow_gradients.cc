#include "gradweave/ops/control_flow_gradients.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/ops/builder.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

Value AddInput(Graph& graph, absl::string_view name, const TensorType& type) {
  return AddSource(graph, "Input", {{"dtype", type.dtype}, {"shape", type.shape}}, {}, name);
}

std::vector<Value> ValuesOf(Graph& graph, absl::Span<const Port> ports) {
  std::vector<Value> values;
  for (Port port : ports) values.push_back(graph.value(port));
  return values;
}

// A body without outputs, to which gradients are added. New nodes get the line of the node.
Graph BodyToDifferentiate(const Graph& body, const Node& node) {
  Graph joint = body;
  joint.ClearOutputs();
  joint.builder().location = node.location;
  return joint;
}

Graph EmptyBody(const Node& node) {
  Graph body;
  body.builder().registry = node.op->registry;
  body.builder().location = node.location;
  return body;
}

// Records the error of a body in the graph. Returns true if there is no error.
bool Succeeds(const absl::Status& status, GradientContext& g) {
  if (status.ok()) return true;
  g.graph().RecordError(absl::Status(
      status.code(), absl::StrCat(status.message(), "; in the gradient of ", DescribeNode(g.graph(), g.node()))));
  return false;
}

class ScanDifferentiator {
 public:
  explicit ScanDifferentiator(GradientContext& g)
      : g_(g),
        body_(*g.attribute<Body>("body")),
        states_(static_cast<int>(g.attribute<int64_t>("states"))),
        inputs_(static_cast<int>(g.attribute<Integers>("input_axes").size())),
        operands_(BodyPorts(body_, kBodyOperands)),
        results_(BodyPorts(body_, kBodyResults)),
        joint_(BodyToDifferentiate(body_, g.node())),
        first_added_(body_.num_nodes()) {}

  void Run() {
    FindCarried();
    if (!AddGradients()) return;
    Split();
    if (AddForward()) AddBackward();
  }

 private:
  // A gradient of the body, and the operand that it belongs to.
  struct Wanted {
    int operand;
    Port gradient;  // In joint_; none for a carried state whose gradient is zero.
  };

  TensorType OperandType(int i) const { return body_.type(operands_[i]); }
  bool IsFloatingPort(Port port) const {
    const DType dtype = body_.type(port).dtype;
    return IsReal(dtype);
  }

  // Finds the states whose gradients go from step to step: the gradient of an operand may come
  // through them, and they reach a result that has a gradient.
  void FindCarried() {
    std::vector<bool> active(operands_.size()), relevant(results_.size());
    for (size_t i = 0; i < operands_.size(); ++i)
      active[i] = g_.needs(static_cast<int>(i)) && IsFloatingPort(operands_[i]);
    for (size_t k = 0; k < results_.size(); ++k) relevant[k] = g_.has_output_gradient(static_cast<int>(k));
    for (bool changed = true; changed;) {
      changed = false;
      std::vector<bool> depends(body_.num_nodes(), false);
      for (size_t i = 0; i < operands_.size(); ++i) depends[operands_[i].node] = active[i];
      for (const Node& node : body_.nodes()) {
        for (Port input : node.inputs) {
          if (depends[input.node] && IsFloatingPort(input)) depends[node.id] = true;
        }
      }
      for (int i = 0; i < states_; ++i) {
        if (active[i] || !depends[results_[i].node] || !IsFloatingPort(results_[i])) continue;
        active[i] = changed = true;
      }
    }
    for (bool changed = true; changed;) {
      changed = false;
      std::vector<bool> reaches(body_.num_nodes(), false);
      for (size_t k = 0; k < results_.size(); ++k) {
        if (relevant[k]) reaches[results_[k].node] = true;
      }
      for (NodeId id = body_.num_nodes() - 1; id >= 0; --id) {
        if (!reaches[id]) continue;
        for (Port input : body_.node(id).inputs) reaches[input.node] = true;
      }
      for (int i = 0; i < states_; ++i) {
        if (relevant[i] || !reaches[operands_[i].node] || !IsFloatingPort(operands_[i])) continue;
        relevant[i] = changed = true;
      }
    }
    for (int i = 0; i < states_; ++i) {
      if (active[i] && relevant[i]) carried_.push_back(i);
    }
  }

  // Adds the gradients of one step to joint_. False if there are none.
  bool AddGradients() {
    std::vector<Value> ys, grad_ys, xs;
    auto add_result = [&](int k) {
      ys.push_back(joint_.value(results_[k]));
      const Value cotangent = AddInput(joint_, absl::StrCat("cotangent_", k), ys.back().type());
      grad_ys.push_back(cotangent);
      cotangents_.emplace_back(k, cotangent.port());
    };
    for (int k : carried_) add_result(k);
    for (int k = states_; k < static_cast<int>(results_.size()); ++k) {
      if (g_.has_output_gradient(k)) add_result(k);
    }
    std::vector<int> wanted = carried_;
    for (int i = states_; i < static_cast<int>(operands_.size()); ++i) {
      if (g_.needs(i)) wanted.push_back(i);
    }
    if (ys.empty() || wanted.empty()) return false;
    for (int i : wanted) xs.push_back(joint_.value(operands_[i]));
    const std::vector<Value> gradients = Gradients(ys, xs, grad_ys, {.unreachable = GradientOptions::kInvalid});
    if (!Succeeds(joint_.status(), g_)) return false;
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (gradients[i].valid() || wanted[i] < states_) wanted_.push_back({wanted[i], gradients[i].port()});
    }
    return true;
  }

  // True if the backward body recomputes the node, which depends on no gradient, because this costs
  // less than reading its results.
  bool IsComputedAgain(const Node& node) const {
    if (node.op->kind == OpKind::kConstant || node.op->alias || node.op->kind == OpKind::kBroadcastTo) return true;
    return invariant_[node.id] || (node.id >= first_added_ && node.op->elementwise);
  }

  // Finds the ports of joint_ that the backward body reads and does not compute.
  void Split() {
    std::vector<bool> of_gradient(joint_.num_nodes(), false);
    invariant_.assign(joint_.num_nodes(), true);
    for (int i = 0; i < states_ + inputs_; ++i) invariant_[operands_[i].node] = false;
    for (const auto& [k, port] : cotangents_) {
      of_gradient[port.node] = true;
      invariant_[port.node] = false;
    }
    std::vector<bool> computed(joint_.num_nodes(), false);
    for (const Node& node : joint_.nodes()) {
      for (Port input : node.inputs) {
        if (of_gradient[input.node]) of_gradient[node.id] = true;
        if (!invariant_[input.node]) invariant_[node.id] = false;
      }
    }
    auto read = [&](Port port) {
      const Node& node = joint_.node(port.node);
      if (node.op->kind != OpKind::kInput && (of_gradient[node.id] || IsComputedAgain(node))) {
        computed[node.id] = true;
      } else {
        read_.insert(port);
      }
    };
    for (const Wanted& wanted : wanted_) {
      if (wanted.gradient.node >= 0) read(wanted.gradient);
    }
    for (NodeId id = joint_.num_nodes() - 1; id >= 0; --id) {
      if (!computed[id]) continue;
      for (Port input : joint_.node(id).inputs) read(input);
    }
    for (Port port : read_) {
      const bool given = std::find(operands_.begin() + states_, operands_.end(), port) != operands_.end();
      const bool cotangent =
          std::any_of(cotangents_.begin(), cotangents_.end(), [&](const auto& entry) { return entry.second == port; });
      if (given || cotangent) continue;
      // The program may already have asked for this output.
      const auto output = std::find(results_.begin() + states_, results_.end(), port);
      if (output == results_.end()) {
        stored_.push_back(port);
      } else {
        read_outputs_.push_back(static_cast<int>(output - results_.begin()));
      }
    }
  }

  // Adds the forward Scan that stores the values that the backward Scan reads. Returns false if
  // that fails.
  bool AddForward() {
    if (stored_.empty()) return true;
    std::vector<Port> results(results_.begin(), results_.end());
    results.insert(results.end(), stored_.begin(), stored_.end());
    joint_.SetOutput(kBodyOperands, ValuesOf(joint_, operands_));
    joint_.SetOutput(kBodyResults, ValuesOf(joint_, results));
    absl::StatusOr<Graph> body = EliminateDeadNodes(joint_);
    if (!Succeeds(body.status(), g_)) return false;
    std::vector<Operand> operands;
    for (int i = 0; i < g_.num_operands(); ++i) operands.emplace_back(g_.operand(i));
    Integers output_axes = g_.attribute<Integers>("output_axes");
    output_axes.resize(output_axes.size() + stored_.size(), 0);
    const Value forward = AddOp("Scan", operands,
                                {{"body", Body(std::make_shared<Graph>(*std::move(body)))},
                                 {"states", int64_t{states_}},
                                 {"input_axes", g_.attribute<Integers>("input_axes")},
                                 {"output_axes", output_axes},
                                 {"length", g_.attribute<Shape>("length")},
                                 {"reverse", g_.attribute<bool>("reverse")}});
    if (!forward.valid()) return false;
    for (size_t i = 0; i < stored_.size(); ++i) {
      stored_values_.push_back(Output(forward, static_cast<int>(results_.size() + i)));
    }
    return true;
  }

  // The body of the backward Scan, as it is built, and the operands of that node, which have the
  // order of the body's.
  struct Backward {
    Graph body;
    std::vector<Operand> operands;
    std::vector<Value> inner;  // Values of the body: its operands.
    std::vector<Value> sums;   // Those of them that are sums of gradients of captured values.
    size_t states = 0;         // Operands that are states: gradients of states, then sums.
    Integers input_axes, output_axes;
    absl::flat_hash_map<Port, Port> places;  // Maps ports of joint_ to ports of the body.

    Value AddOperand(const char* name, const Value& outer, const TensorType& type) {
      operands.emplace_back(outer);
      inner.push_back(AddInput(body, absl::StrCat(name, "_", inner.size()), type));
      return inner.back();
    }
  };

  void AddBackward() {
    Backward back{.body = EmptyBody(g_.node())};
    AddBackwardStates(back);
    AddBackwardSlices(back);
    std::vector<Port> ports;
    for (const Wanted& wanted : wanted_) {
      if (wanted.gradient.node >= 0) ports.push_back(wanted.gradient);
    }
    if (!Succeeds(CopyNodes(joint_, ports, back.body, back.places), g_)) return;
    const std::vector<Value> results = BackwardResults(back);
    if (results.empty()) return;
    back.body.SetOutput(kBodyOperands, back.inner);
    back.body.SetOutput(kBodyResults, results);
    if (!Succeeds(back.body.status(), g_)) return;
    const Value backward = AddOp("Scan", back.operands,
                                 {{"body", Body(std::make_shared<Graph>(std::move(back.body)))},
                                  {"states", static_cast<int64_t>(back.states)},
                                  {"input_axes", back.input_axes},
                                  {"output_axes", back.output_axes},
                                  {"length", g_.attribute<Shape>("length")},
                                  {"reverse", !g_.attribute<bool>("reverse")}});
    if (!backward.valid()) return;
    // States come first, then sums, then outputs.
    int state = 0, output = static_cast<int>(back.states);
    for (const Wanted& wanted : wanted_) {
      const bool is_input = wanted.operand >= states_ && wanted.operand < states_ + inputs_;
      const Value gradient = Output(backward, is_input ? output++ : state++);
      if (g_.needs(wanted.operand)) g_.Set(wanted.operand, gradient);
    }
  }

  Port CotangentOf(int k) const {
    return std::find_if(cotangents_.begin(), cotangents_.end(), [&](const auto& e) { return e.first == k; })->second;
  }

  // Adds the gradients of carried states, and sums for gradients of captured values.
  void AddBackwardStates(Backward& back) {
    for (int i : carried_) {
      const Value last = g_.has_output_gradient(i) ? g_.output_gradient(i) : FullLike(g_.operand(i), 0);
      back.places[CotangentOf(i)] = back.AddOperand("gradient", last, OperandType(i)).port();
    }
    for (const Wanted& wanted : wanted_) {
      if (wanted.operand < states_ + inputs_) continue;
      back.sums.push_back(back.AddOperand("sum", FullLike(g_.operand(wanted.operand), 0), OperandType(wanted.operand)));
    }
    back.states = back.inner.size();
  }

  // Adds the slices and the captured values that the body reads.
  void AddBackwardSlices(Backward& back) {
    const Integers &input_axes = g_.attribute<Integers>("input_axes"),
                   &output_axes = g_.attribute<Integers>("output_axes");
    for (int k = states_; k < static_cast<int>(results_.size()); ++k) {
      if (!g_.has_output_gradient(k)) continue;
      back.places[CotangentOf(k)] = back.AddOperand("slice", g_.output_gradient(k), body_.type(results_[k])).port();
      back.input_axes.push_back(output_axes[k - states_]);
    }
    for (int k : read_outputs_) {
      back.places[results_[k]] = back.AddOperand("slice", g_.output(k), body_.type(results_[k])).port();
      back.input_axes.push_back(output_axes[k - states_]);
    }
    for (size_t i = 0; i < stored_.size(); ++i) {
      back.places[stored_[i]] = back.AddOperand("slice", stored_values_[i], joint_.type(stored_[i])).port();
      back.input_axes.push_back(0);
    }
    for (int i = states_; i < static_cast<int>(operands_.size()); ++i) {
      if (read_.count(operands_[i]) == 0) continue;
      const bool is_input = i < states_ + inputs_;
      back.places[operands_[i]] =
          back.AddOperand(is_input ? "slice" : "captured", g_.operand(i), OperandType(i)).port();
      if (is_input) back.input_axes.push_back(input_axes[i - states_]);
    }
  }

  // Returns the results of the body: the new states, and the slices of the gradients of inputs,
  // whose axes it adds.
  std::vector<Value> BackwardResults(Backward& back) {
    std::vector<Value> results, slices;
    size_t sum = 0;
    for (const Wanted& wanted : wanted_) {
      if (wanted.operand < states_) {
        results.push_back(wanted.gradient.node >= 0 ? back.body.value(back.places.at(wanted.gradient))
                                                    : FullLike(back.inner[results.size()], 0));
      } else if (wanted.operand < states_ + inputs_) {
        slices.push_back(back.body.value(back.places.at(wanted.gradient)));
        back.output_axes.push_back(g_.attribute<Integers>("input_axes")[wanted.operand - states_]);
      } else {
        results.push_back(Add(back.sums[sum++], back.body.value(back.places.at(wanted.gradient))));
      }
    }
    results.insert(results.end(), slices.begin(), slices.end());
    return results;
  }

  GradientContext& g_;
  const Graph& body_;
  const int states_, inputs_;
  const absl::Span<const Port> operands_, results_;  // Operands and results of the body.
  std::vector<int> carried_;                         // States whose gradients are carried.
  Graph joint_;                                      // The body and its gradients.
  const NodeId first_added_;                         // The first node of joint_ that the body does not have.
  std::vector<std::pair<int, Port>> cotangents_;     // Indexed by result, the Input of joint_ with its gradient.
  std::vector<Wanted> wanted_;                       // In the order of operands.
  std::vector<bool> invariant_;                      // Indexed by node of joint_: the same in all steps.
  std::set<Port> read_;                              // Ports of joint_ that the backward body reads.
  std::vector<Port> stored_;                         // Those that the forward Scan stores for it.
  std::vector<int> read_outputs_;                    // Outputs of the node that it reads.
  std::vector<Value> stored_values_;
};

// The body of a branch's gradient. It takes the branch's operands and the gradients of its results,
// and returns the gradients of the operands `wanted`. Null if that fails.
Body BranchGradient(GradientContext& g, const Graph& branch, const std::vector<int>& outputs,
                    const std::vector<int>& wanted) {
  Graph joint = BodyToDifferentiate(branch, g.node());
  std::vector<Value> operands = ValuesOf(joint, BodyPorts(branch, kBodyOperands));
  std::vector<Value> ys, grad_ys, xs;
  for (int i : wanted) xs.push_back(operands[i]);
  for (int k : outputs) {
    ys.push_back(joint.value(BodyPorts(branch, kBodyResults)[k]));
    // The branch may itself belong to a gradient and have such operands.
    grad_ys.push_back(AddInput(joint, absl::StrCat("cotangent_", operands.size()), ys.back().type()));
    operands.push_back(grad_ys.back());
  }
  const std::vector<Value> gradients = Gradients(ys, xs, grad_ys);
  if (!Succeeds(joint.status(), g)) return nullptr;
  joint.SetOutput(kBodyOperands, operands);
  joint.SetOutput(kBodyResults, gradients);
  absl::StatusOr<Graph> body = EliminateDeadNodes(joint);
  if (!Succeeds(body.status(), g)) return nullptr;
  return std::make_shared<Graph>(*std::move(body));
}

}  // namespace

void ScanGradient(GradientContext& g) { ScanDifferentiator(g).Run(); }

void IfGradient(GradientContext& g) {
  std::vector<int> outputs, wanted;  // `wanted` without the predicate.
  std::vector<Operand> operands;
  for (int i = 0; i < g.num_operands(); ++i) {
    operands.emplace_back(g.operand(i));
    if (i > 0 && g.needs(i)) wanted.push_back(i - 1);
  }
  for (int k = 0; k < static_cast<int>(g.node().outputs.size()); ++k) {
    if (!g.has_output_gradient(k)) continue;
    outputs.push_back(k);
    operands.emplace_back(g.output_gradient(k));
  }
  if (wanted.empty()) return;
  const Body then_branch = BranchGradient(g, *g.attribute<Body>("then_branch"), outputs, wanted);
  const Body else_branch =
      then_branch == nullptr ? nullptr : BranchGradient(g, *g.attribute<Body>("else_branch"), outputs, wanted);
  if (else_branch == nullptr) return;
  const Value gradients = AddOp("If", operands, {{"then_branch", then_branch}, {"else_branch", else_branch}});
  for (size_t i = 0; i < wanted.size(); ++i) g.Set(wanted[i] + 1, Output(gradients, static_cast<int>(i)));
}

void WhileGradient(GradientContext& g) {
  const Body condition = g.attribute<Body>("condition"), body = g.attribute<Body>("body");
  const int64_t states = g.attribute<int64_t>("states");
  // The step of the Scan: runs the body while the condition holds, else changes nothing.
  Graph step = EmptyBody(g.node()), same = EmptyBody(g.node());
  absl::flat_hash_map<Port, Port> places;
  std::vector<Value> inner, kept;
  std::vector<Operand> operands;
  absl::InlinedVector<bool, 4> needed;
  for (int i = 0; i < g.num_operands(); ++i) {
    operands.emplace_back(g.operand(i));
    needed.push_back(g.needs(i));
    const std::string name = absl::StrCat("operand_", i);
    inner.push_back(AddInput(step, name, g.operand(i).type()));
    kept.push_back(AddInput(same, name, g.operand(i).type()));
    places[BodyPorts(*condition, kBodyOperands)[i]] = inner.back().port();
  }
  const Port holds = BodyPorts(*condition, kBodyResults)[0];
  if (!Succeeds(CopyNodes(*condition, {holds}, step, places), g)) return;
  same.SetOutput(kBodyOperands, kept);
  kept.resize(states);
  same.SetOutput(kBodyResults, kept);
  std::vector<Operand> of_branches = {Operand(step.value(places.at(holds)))};
  for (const Value& value : inner) of_branches.emplace_back(value);
  const Value next = AddOp("If", of_branches,
                           {{"then_branch", body}, {"else_branch", Body(std::make_shared<Graph>(std::move(same)))}});
  std::vector<Value> results;
  for (int i = 0; i < states; ++i) results.push_back(Output(next, i));
  step.SetOutput(kBodyOperands, inner);
  step.SetOutput(kBodyResults, results);
  if (!Succeeds(step.status(), g)) return;
  const Value last = AddOp("Scan", operands,
                           {{"body", Body(std::make_shared<Graph>(std::move(step)))},
                            {"states", states},
                            {"input_axes", Integers{}},
                            {"output_axes", Integers{}},
                            {"length", Shape{Dim(g.attribute<int64_t>("most_steps"))}}});
  if (!last.valid()) return;
  std::vector<Value> output_gradients;
  for (int i = 0; i < states; ++i) output_gradients.push_back(g.output_gradient(i));
  GradientContext of_scan(g.graph(), last.node(), output_gradients, needed);
  ScanGradient(of_scan);
  for (int i = 0; i < g.num_operands(); ++i) {
    if (of_scan.gradients()[i].graph() != nullptr) g.Set(i, of_scan.gradients()[i]);
  }
}

}  // namespace gradweave
