// Outputs of a graph that a pass has rebuilt with other dtypes.
#ifndef GRADWEAVE_GRAPH_PASSES_CONVERT_OUTPUTS_H_
#define GRADWEAVE_GRAPH_PASSES_CONVERT_OUTPUTS_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave {

// Gives the outputs of `result`, which was rebuilt from `graph`, the dtypes that they have in
// `graph`. convert(port, dtype, node) returns the value of `port` in that dtype; `node` computes the
// output in `graph`. Returns the errors of `convert`.
inline absl::Status ConvertOutputs(
    const Graph& graph, Graph& result,
    absl::FunctionRef<absl::StatusOr<Port>(Port port, DType dtype, const Node& node)> convert) {
  for (const auto& [name, ports] : graph.outputs()) {
    std::vector<Value> values = result.Output(name);
    for (size_t i = 0; i < ports.size(); ++i) {
      GW_ASSIGN_OR_RETURN(const Port port,
                          convert(values[i].port(), graph.type(ports[i]).dtype, graph.node(ports[i].node)));
      values[i] = result.value(port);
    }
    result.SetOutput(name, values);
  }
  return absl::OkStatus();
}

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_CONVERT_OUTPUTS_H_
