#include "gradweave/frontend/watch/session_copy.h"

#include <string>
#include <utility>

#include "gradweave/graph/status_macros.h"

namespace gradweave {

absl::StatusOr<Session> CopySession(const Session& session, const Graph& graph) {
  SessionOptions options = session.options();
  options.group = nullptr;
  options.local_shard = 0;
  options.run_number = session.run_number();
  for (const std::string& name : session.VariableNames()) {
    GW_ASSIGN_OR_RETURN(Tensor value, session.GetVariable(name));
    options.variables.emplace_back(name, std::move(value));
  }
  return Session::Create(graph, std::move(options));
}

absl::Status CopyVariables(const Session& session, Session& copy) {
  for (const std::string& name : session.VariableNames()) {
    GW_ASSIGN_OR_RETURN(const Tensor value, session.GetVariable(name));
    GW_RETURN_IF_ERROR(copy.SetVariable(name, value));
  }
  return absl::OkStatus();
}

Value ValueIn(Graph& graph, const Value& value) {
  if (!value.valid() || !graph.Exists(value.port()) || graph.node(value.port().node).serial != value.serial()) {
    return {};
  }
  return graph.value(value.port());
}

data::BatchOptions InOrder(const Graph& graph, const data::Dataset& samples, int64_t batch_size) {
  data::BatchOptions options{.batch_size = batch_size, .shuffle = false};
  for (const data::Dataset::Array& array : samples.arrays()) {
    const NodeId id = graph.FindNamed(array.name);
    const bool as_bytes = id >= 0 && graph.node(id).outputs[0].dtype == kUint8 && array.dtype == kUint8;
    options.dtypes.push_back(as_bytes ? kUint8 : array.batch_dtype());
  }
  return options;
}

std::vector<Feed> FeedsOf(Graph& graph, const data::Dataset& samples, const data::Batch& batch) {
  std::vector<Feed> feeds;
  for (size_t i = 0; i < batch.arrays.size(); ++i) {
    const NodeId id = graph.FindNamed(samples.arrays()[i].name);
    if (id >= 0 && graph.node(id).op->kind == OpKind::kInput) feeds.emplace_back(graph.value(id), batch.arrays[i]);
  }
  return feeds;
}

}  // namespace gradweave
