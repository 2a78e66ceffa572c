#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

// The arguments of a rule: a node that is about to be added to the result, and the result so far.
struct Match {
  const Node& node;
  absl::Span<const Port> inputs;
  Graph& result;

  const Node& producer(int i) const { return result.node(inputs[i].node); }
  bool produced_by(int i, OpKind op) const { return producer(i).op->kind == op; }
  const TensorType& type(int i) const { return result.type(inputs[i]); }
  const TensorType& output_type() const { return node.outputs[0]; }

  // True if operand i is a constant with one element, perhaps broadcast, that equals `value`. The
  // signs of zeros must match.
  bool is_number(int i, double value) const {
    const Node* source = &producer(i);
    if (source->op->kind == OpKind::kBroadcastTo) source = &result.node(source->inputs[0].node);
    if (source->op->kind != OpKind::kConstant) return false;
    const Tensor& tensor = source->attribute<Tensor>("value");
    return tensor.num_elements() == 1 && tensor.ToDouble() == value &&
           std::signbit(tensor.ToDouble()) == std::signbit(value);
  }

  absl::StatusOr<Port> Add(OpKind op, absl::Span<const Port> operands,
                           absl::Span<const NamedAttribute> attributes = {}) const {
    GW_ASSIGN_OR_RETURN(NodeId id, result.AddNode({.op = node.op->registry->Find(op),
                                                   .inputs = operands,
                                                   .attributes = attributes,
                                                   .name = node.name,
                                                   .device = node.device,
                                                   .location = node.location}));
    return Port{id, 0};
  }
};

using Replacement = absl::StatusOr<std::optional<Port>>;

struct Rule {
  const char* op;
  Replacement (*apply)(const Match& match);
};

// Replaces the result by operand i if their types are equal. Broadcasting may have changed the
// shape.
Replacement OperandIfSameType(const Match& m, int i) {
  if (m.type(i) == m.output_type()) return m.inputs[i];
  return std::nullopt;
}

Replacement DropIfSameType(const Match& m) { return OperandIfSameType(m, 0); }

// One row for each rule. Every rule is exact for every IEEE value. These rules are therefore
// missing: x + 0 (turns -0 into 0), x - x and x*0 (wrong for NaN and infinity), and all that
// reorder a sum or a product.
const Rule kRules[] = {
    // x*1 = x/1 = x - 0 = x + (-0) = x^1 = x.
    {"Mul",
     [](const Match& m) -> Replacement {
       if (m.is_number(1, 1)) return OperandIfSameType(m, 0);
       if (m.is_number(0, 1)) return OperandIfSameType(m, 1);
       return std::nullopt;
     }},
    {"Div", [](const Match& m) -> Replacement { return m.is_number(1, 1) ? OperandIfSameType(m, 0) : std::nullopt; }},
    {"Sub", [](const Match& m) -> Replacement { return m.is_number(1, 0.0) ? OperandIfSameType(m, 0) : std::nullopt; }},
    {"Add",
     [](const Match& m) -> Replacement {
       if (!IsFloating(m.output_type().dtype)) return std::nullopt;
       if (m.is_number(1, -0.0)) return OperandIfSameType(m, 0);
       if (m.is_number(0, -0.0)) return OperandIfSameType(m, 1);
       return std::nullopt;
     }},
    {"Pow", [](const Match& m) -> Replacement { return m.is_number(1, 1) ? OperandIfSameType(m, 0) : std::nullopt; }},
    // a + (-b) = a - b.
    {"Add",
     [](const Match& m) -> Replacement {
       if (m.produced_by(1, OpKind::kNeg)) return m.Add(OpKind::kSub, {m.inputs[0], m.producer(1).inputs[0]});
       if (m.produced_by(0, OpKind::kNeg)) return m.Add(OpKind::kSub, {m.inputs[1], m.producer(0).inputs[0]});
       return std::nullopt;
     }},
    // a - (-b) = a + b.
    {"Sub",
     [](const Match& m) -> Replacement {
       if (m.produced_by(1, OpKind::kNeg)) return m.Add(OpKind::kAdd, {m.inputs[0], m.producer(1).inputs[0]});
       return std::nullopt;
     }},
    // -(-x) = x.
    {"Neg",
     [](const Match& m) -> Replacement {
       if (m.produced_by(0, OpKind::kNeg)) return m.producer(0).inputs[0];
       return std::nullopt;
     }},
    // Ops that change nothing.
    {"StopGradient", DropIfSameType},
    {"Cast", DropIfSameType},
    {"Reshape", DropIfSameType},
    {"BroadcastTo", DropIfSameType},
    // reshape(reshape(x)) = reshape(x).
    {"Reshape",
     [](const Match& m) -> Replacement {
       if (!m.produced_by(0, OpKind::kReshape)) return std::nullopt;
       const NamedAttribute shape[] = {{"shape", m.output_type().shape}};
       return m.Add(OpKind::kReshape, {m.producer(0).inputs[0]}, shape);
     }},
    // transpose(transpose(x, p), q) = transpose(x, p[q]), which may be x.
    {"Transpose",
     [](const Match& m) -> Replacement {
       const Integers& outer = m.node.attribute<Integers>("permutation");
       Integers permutation = outer;
       Port source = m.inputs[0];
       if (m.produced_by(0, OpKind::kTranspose)) {
         const Integers& inner = m.producer(0).attribute<Integers>("permutation");
         for (size_t i = 0; i < outer.size(); ++i) permutation[i] = inner[outer[i]];
         source = m.producer(0).inputs[0];
       }
       bool identity = true;
       for (size_t i = 0; i < permutation.size(); ++i) identity &= permutation[i] == static_cast<int64_t>(i);
       if (identity) return source;
       if (source == m.inputs[0]) return std::nullopt;
       const NamedAttribute attributes[] = {{"permutation", permutation}};
       return m.Add(OpKind::kTranspose, {source}, attributes);
     }},
    // The size of a known dimension is a constant.
    {"DimSize",
     [](const Match& m) -> Replacement {
       const Dim& dim = m.type(0).shape[m.node.attribute<int64_t>("axis")];
       if (!dim.is_known()) return std::nullopt;
       const NamedAttribute value[] = {{"value", Tensor::ScalarOf(m.output_type().dtype, dim.size())}};
       return m.Add(OpKind::kConstant, {}, value);
     }},
};

// Elementwise ops broadcast their operands themselves. This rule removes a BroadcastTo that the op
// would repeat anyway, which saves writing and reading one tensor.
Replacement PassUnstretched(const Match& m) {
  if (!m.node.op->broadcasts) return std::nullopt;
  Ports operands(m.inputs.begin(), m.inputs.end());
  bool changed = false;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!m.produced_by(i, OpKind::kBroadcastTo)) continue;
    // Some other operand must have the full output shape.
    bool other_is_whole = false;
    for (size_t j = 0; j < operands.size(); ++j) {
      other_is_whole |= j != i && m.result.type(operands[j]).shape == m.output_type().shape;
    }
    if (!other_is_whole) continue;
    operands[i] = m.producer(i).inputs[0];
    changed = true;
  }
  if (!changed) return std::nullopt;
  GW_ASSIGN_OR_RETURN(const NodeId id, m.result.AddNode(m.node.op, m.node.attributes, operands, m.node.name,
                                                        m.node.device, m.node.location));
  return Port{id, 0};
}

}  // namespace

absl::StatusOr<Graph> Simplify(const Graph& graph) {
  static const auto* const rules = [] {
    auto* by_op = new absl::flat_hash_map<absl::string_view, std::vector<const Rule*>>();
    for (const Rule& rule : kRules) (*by_op)[rule.op].push_back(&rule);
    return by_op;
  }();
  return Rewrite(
      graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        const Match match{node, inputs, result};
        if (auto found = rules->find(node.op->name); found != rules->end()) {
          for (const Rule* rule : found->second) {
            GW_ASSIGN_OR_RETURN(std::optional<Port> replacement, rule->apply(match));
            if (replacement.has_value()) return Ports{*replacement};
          }
        }
        GW_ASSIGN_OR_RETURN(std::optional<Port> replacement, PassUnstretched(match));
        if (replacement.has_value()) return Ports{*replacement};
        return std::nullopt;
      });
}

}  // namespace gradweave
