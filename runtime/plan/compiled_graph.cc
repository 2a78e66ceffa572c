#include "gradweave/runtime/plan/compiled_graph.h"

namespace gradweave {

std::vector<TensorType> CompiledGraph::fetch_types() const {
  std::vector<TensorType> types;
  if (auto fetches = graph().outputs().find(kFetches); fetches != graph().outputs().end()) {
    for (Port port : fetches->second) types.push_back(graph().type(port));
  }
  return types;
}

}  // namespace gradweave
