#include <algorithm>
#include <vector>

#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

// Results up to this size are always folded. Larger results are folded only if they need at most
// this much more memory than their operands.
constexpr int64_t kAlwaysFoldedBytes = 1024;

const Tensor* ConstantValue(const Node& node) {
  return node.op->kind == OpKind::kConstant ? &node.attribute<Tensor>("value") : nullptr;
}

}  // namespace

absl::StatusOr<Graph> FoldConstants(const Graph& graph, const Evaluator& evaluate) {
  return Rewrite(
      graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        // A loop may take any time, and a run can be stopped.
        if (node.op->stateful || inputs.empty() || HasBody(node)) return std::nullopt;
        std::vector<Tensor> operands;
        int64_t operand_bytes = kAlwaysFoldedBytes;
        for (Port input : inputs) {
          const Tensor* value = ConstantValue(result.node(input.node));
          if (value == nullptr) return std::nullopt;
          operands.push_back(*value);
          operand_bytes += value->byte_size();
        }
        int64_t output_bytes = 0;
        for (const TensorType& type : node.outputs) {
          if (!type.shape.is_static()) return std::nullopt;
          output_bytes += type.byte_size();
        }
        if (output_bytes > operand_bytes) return std::nullopt;
        absl::StatusOr<std::vector<Tensor>> values = evaluate(node, operands);
        // A node that fails is kept. The run reports the error if it needs the node.
        if (!values.ok()) return std::nullopt;
        const OpDefinition* constant = node.op->registry->Find(OpKind::kConstant);
        Ports outputs;
        for (Tensor& value : *values) {
          const NamedAttribute attributes[] = {{"value", std::move(value)}};
          GW_ASSIGN_OR_RETURN(NodeId id, result.AddNode({.op = constant,
                                                         .attributes = attributes,
                                                         .name = node.name,
                                                         .device = node.device,
                                                         .location = node.location}));
          outputs.push_back({id, 0});
        }
        return outputs;
      });
}

}  // namespace gradweave
