#include "gradweave/frontend/command/model_writer.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/onnx/export.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::command {

absl::Status WriteModel(const Model& model, const std::string& path, absl::Span<const std::string> outputs) {
  if (EndOf(path) != "onnx") return SaveModel(model, path);
  Graph graph = model.graph;
  std::vector<NamedOutput> selected = OutputsOf(graph);
  if (!outputs.empty()) {
    GW_ASSIGN_OR_RETURN(selected, SelectOutputs(graph, outputs));
  }
  onnx::NamedValues values;
  for (const NamedOutput& output : selected) {
    if (output.is_update && outputs.empty()) continue;
    if (output.is_update) {
      for (auto& value : onnx::NewValues(output.values, output.name + "/")) values.push_back(std::move(value));
    } else if (output.values.size() == 1) {
      values.emplace_back(output.name, output.values[0]);
    } else {
      for (size_t i = 0; i < output.values.size(); ++i)
        values.emplace_back(absl::StrCat(output.name, "/", i), output.values[i]);
    }
  }
  return onnx::Export(model, values, path);
}

}  // namespace gradweave::command
