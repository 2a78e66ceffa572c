#include "gradweave/frontend/onnx/export.h"

#include <algorithm>
#include <cstdint>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/onnx/exporter.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/passes/bodies.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/attention.h"
#include "gradweave/runtime/model_file/file_pair.h"

namespace gradweave::onnx {
namespace {

constexpr int64_t kLeastOpset = 17, kMostOpset = 20;

bool HasAttention(const Graph& graph) {
  return HasBodies(graph) || std::any_of(graph.nodes().begin(), graph.nodes().end(), [](const Node& node) {
           return absl::StartsWith(node.op->name, "ScaledDotProductAttention");
         });
}

// Replaces attention, which ONNX lacks, by the ops that define it. The outputs become values of the
// model.
absl::Status ExpandAttentionOf(Model& model, NamedValues& outputs) {
  std::vector<Value> values;
  for (const auto& [name, value] : outputs) {
    const Port port = value.port();
    // The exporter refuses such a value.
    if (!value.valid() || !model.graph.Exists(port) || model.graph.node(port.node).serial != value.serial())
      return absl::OkStatus();
    values.push_back(model.graph.value(port));
  }
  constexpr absl::string_view kOutputs = "outputs";
  model.graph.ClearOutputs();
  model.graph.SetOutput(kOutputs, values);
  GW_ASSIGN_OR_RETURN(model.graph, ApplyWithBodies(model.graph, [](const Graph& part) {
                        return ExpandAttention(part, [](const Graph&, const Node&) { return true; });
                      }));
  values = model.graph.Output(kOutputs);
  for (size_t i = 0; i < values.size(); ++i) outputs[i].second = values[i];
  return absl::OkStatus();
}

}  // namespace

NamedValues NewValues(const std::vector<Value>& assignments, absl::string_view prefix) {
  NamedValues values;
  for (const Value& assignment : assignments) {
    std::string name(prefix);
    // An invalid value has left an error in its graph; Export refuses it.
    if (assignment.valid() && assignment.node().op->kind == OpKind::kAssign) {
      absl::StrAppend(&name, assignment.graph()->node(assignment.node().inputs[0].node).name);
    }
    values.emplace_back(std::move(name), assignment);
  }
  return values;
}

absl::StatusOr<std::string> ExportBytes(const Model& model, const NamedValues& outputs, ExportOptions options) try {
  if (options.opset < kLeastOpset || options.opset > kMostOpset) {
    return absl::InvalidArgumentError(
        absl::StrCat("Export: the opset has to be in [", kLeastOpset, ", ", kMostOpset, "], and is ", options.opset));
  }
  Model expanded;
  NamedValues of_expanded = outputs;
  const bool expands = HasAttention(model.graph);
  if (expands) {
    expanded.graph = model.graph;
    expanded.variables = model.variables;
    GW_RETURN_IF_ERROR(ExpandAttentionOf(expanded, of_expanded));
  }
  Exporter exporter(expands ? expanded : model, options);
  GW_RETURN_IF_ERROR(exporter.Run(of_expanded));
  if (exporter.file().ByteSizeLong() > INT32_MAX)
    return absl::InvalidArgumentError("Export: the file would need 2 GiB");
  return exporter.file().SerializeAsString();
}
GW_CATCH_OUT_OF_MEMORY("onnx::Export")

absl::Status Export(const Model& model, const NamedValues& outputs, const std::string& path,
                    ExportOptions options) try {
  GW_ASSIGN_OR_RETURN(const std::string bytes, ExportBytes(model, outputs, options));
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<FilePair> file, FilePair::Begin(path));
  return file->Commit({{bytes.data(), bytes.size()}}, [](const std::string&) { return std::string(); });
}
GW_CATCH_OUT_OF_MEMORY("onnx::Export")

}  // namespace gradweave::onnx
