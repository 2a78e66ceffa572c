#include "gradweave/frontend/node_flops.h"

namespace gradweave {

double NodeFlops(const Graph& graph, const Node& node, const DimBindings& sizes) {
  if (node.op->flops == nullptr) return 0;
  TensorTypes operands = graph.OperandTypes(node), outputs = node.outputs;
  for (TensorTypes* types : {&operands, &outputs}) {
    for (TensorType& type : *types) {
      type.shape = type.shape.Substitute(sizes);
      if (!type.shape.is_static()) return 0;
    }
  }
  return node.op->flops(OpView(*node.op, node.attributes, operands), outputs);
}

}  // namespace gradweave
