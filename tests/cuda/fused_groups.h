// Runs of fused groups, as one step and node by node.
#ifndef GRADWEAVE_TESTS_CUDA_FUSED_GROUPS_H_
#define GRADWEAVE_TESTS_CUDA_FUSED_GROUPS_H_

#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/fusion/kernel_store.h"

namespace gradweave {

// Returns the kernels of one group.
inline absl::StatusOr<KernelStore::GroupKernels> KernelsOf(KernelStore& store, const FusedGroup& group) {
  GW_ASSIGN_OR_RETURN(const std::vector<KernelStore::GroupKernels> kernels, store.KernelsOf({group}));
  return kernels[0];
}

// Puts infinities, NaN and zeros of both signs among the elements: a few in some rows, none in
// others.
inline void AddSpecialValues(Tensor& tensor, std::mt19937& random) {
  if (!IsFloating(tensor.dtype())) return;
  const double infinity = std::numeric_limits<double>::infinity();
  const double values[] = {infinity, -infinity, std::nan(""), 0.0, -0.0, 1e30, -1e30};
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    if (random() % 23 != 0) continue;
    const double value = values[random() % std::size(values)];
    if (tensor.dtype() == kFloat32) {
      tensor.mutable_data<float>()[i] = static_cast<float>(value);
    } else {
      tensor.mutable_data<double>()[i] = value;
    }
  }
}

// Runs the group's nodes one by one on the group's operands. run(node, operands) runs one node.
template <typename Run>
absl::StatusOr<std::vector<Tensor>> RunOneByOne(const Graph& graph, const FusedGroup& group,
                                                const std::vector<Tensor>& operands, Run run) {
  absl::flat_hash_map<Port, Tensor> values;
  for (size_t i = 0; i < operands.size(); ++i) values[group.operands[i]] = operands[i];
  // Skip views, as the group does.
  auto value_of = [&](Port port) -> absl::StatusOr<Tensor> {
    const TensorType& type = graph.type(port);
    while (!values.contains(port)) {
      const Node& node = graph.node(port.node);
      if (node.op->name == "Constant") return node.attribute<Tensor>("value");
      if (!node.op->alias)
        return absl::InternalError(absl::StrCat("a node reads ", port.node, ", which is no operand"));
      port = node.inputs[0];
    }
    return values.at(port).Reshaped(type.shape.sizes());
  };
  for (NodeId id : group.nodes) {
    const Node& node = graph.node(id);
    std::vector<Tensor> inputs;
    for (Port input : node.inputs) {
      GW_ASSIGN_OR_RETURN(Tensor value, value_of(input));
      inputs.push_back(std::move(value));
    }
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, run(node, inputs));
    for (size_t i = 0; i < results.size(); ++i) values[Port{id, static_cast<int>(i)}] = results[i];
  }
  std::vector<Tensor> results;
  for (Port port : group.outputs) results.push_back(values.at(port));
  return results;
}

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CUDA_FUSED_GROUPS_H_
