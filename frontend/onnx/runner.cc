#include "gradweave/frontend/onnx/runner.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

absl::StatusOr<Tensor> InputOf(const std::map<std::string, Tensor>& inputs, const std::string& name) {
  const auto found = inputs.find(name);
  if (found == inputs.end()) return absl::NotFoundError(absl::StrCat("the run has no input '", name, "'"));
  return found->second;
}

// Adds the names of the payload. Returns true if one of them is new.
bool AddNames(const absl::Status& status, const char* payload, std::set<std::string>& names) {
  const absl::optional<absl::Cord> text = status.GetPayload(payload);
  if (!text.has_value()) return false;
  bool is_new = false;
  for (const absl::string_view name : absl::StrSplit(std::string(*text), '\n'))
    is_new |= names.insert(std::string(name)).second;
  return is_new;
}

}  // namespace

Runner::Runner(std::string path, RunnerOptions options) : path_(std::move(path)), options_(std::move(options)) {}

absl::StatusOr<std::string> Runner::KeyOf(const std::map<std::string, Tensor>& inputs) const {
  std::string key;
  for (const std::string& name : values_) {
    GW_ASSIGN_OR_RETURN(const Tensor value, InputOf(inputs, name));
    absl::StrAppend(&key, name, "=", value.type().ToString(), ":",
                    absl::string_view(static_cast<const char*>(value.raw_data()), value.byte_size()), ";");
  }
  for (const std::string& name : shapes_) {
    GW_ASSIGN_OR_RETURN(const Tensor value, InputOf(inputs, name));
    absl::StrAppend(&key, name, ":", value.shape().ToString(), ";");
  }
  return key;
}

absl::StatusOr<Runner::Compiled*> Runner::Find(const std::map<std::string, Tensor>& inputs) {
  for (;;) {
    GW_ASSIGN_OR_RETURN(const std::string key, KeyOf(inputs));
    const auto found =
        std::find_if(graphs_.begin(), graphs_.end(), [&](const Compiled& graph) { return graph.key == key; });
    if (found != graphs_.end()) {
      graphs_.splice(graphs_.begin(), graphs_, found);
      return &graphs_.front();
    }
    ImportOptions options = options_.import;
    for (const std::string& name : values_) options.fixed.insert_or_assign(name, inputs.at(name));
    for (const std::string& name : shapes_) options.shapes.insert_or_assign(name, inputs.at(name).shape());
    absl::StatusOr<ImportedModel> model = Import(path_, options);
    if (!model.ok()) {
      const bool more_values = AddNames(model.status(), kNeededInputs, values_);
      const bool more_shapes = AddNames(model.status(), kNeededShapes, shapes_);
      if (more_values || more_shapes) continue;
      return model.status();
    }
    GW_ASSIGN_OR_RETURN(Session session, CreateSession(model->model, options_.session));
    if (graphs_.size() >= std::max<size_t>(options_.most_graphs, 1)) graphs_.pop_back();
    graphs_.push_front({key, *std::move(model), std::move(session)});
    return &graphs_.front();
  }
}

absl::StatusOr<std::map<std::string, Tensor>> Runner::Run(const std::map<std::string, Tensor>& inputs) {
  GW_ASSIGN_OR_RETURN(Compiled * graph, Find(inputs));
  std::vector<Feed> feeds;
  for (const std::string& name : graph->model.inputs) {
    GW_ASSIGN_OR_RETURN(Tensor value, InputOf(inputs, name));
    feeds.emplace_back(graph->model.Input(name), std::move(value));
  }
  std::vector<Fetch> fetches;
  for (const std::string& name : graph->model.outputs) fetches.push_back(graph->model.Output(name));
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, graph->session.Run(feeds, fetches));
  std::map<std::string, Tensor> outputs;
  for (size_t i = 0; i < results.size(); ++i) outputs.insert_or_assign(graph->model.outputs[i], results[i]);
  return outputs;
}

}  // namespace gradweave::onnx
