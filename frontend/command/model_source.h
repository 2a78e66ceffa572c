// The models that a user names on the command line: files of several formats, told by their
// content.
#ifndef GRADWEAVE_FRONTEND_COMMAND_MODEL_SOURCE_H_
#define GRADWEAVE_FRONTEND_COMMAND_MODEL_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::command {

// The kinds of files that the command reads.
enum class FileKind { kGradweave, kOnnx, kSafetensors, kNpy, kZip, kPng, kText, kUnknown };

// Tells a file by its first bytes, and returns the error of opening it.
absl::StatusOr<FileKind> KindOf(const std::string& path);
// "a PNG image", for messages.
absl::string_view KindName(FileKind kind);

// A model, and the format of its file.
struct ModelSource {
  Model model;
  FileKind kind;
  std::string format;  // "Gradweave model".
};

// Reads a model of any format. Errors are one line with the path: errors of onnx::LoadAnyModel, and
// InvalidArgument for a file that is no model, with what it is.
absl::StatusOr<ModelSource> OpenModel(const std::string& path, int64_t memory_limit = int64_t{8} << 30);

// A named output of a model.
struct NamedOutput {
  std::string name;
  std::vector<Value> values;
  bool is_update = false;      // True if the values are assignments, as those of a training step.
  std::vector<NodeId> inputs;  // The inputs that the values need, in the graph's order.
};

// All outputs, by name.
std::vector<NamedOutput> OutputsOf(Graph& graph);
// The outputs of these names. NotFound for an unknown one, with the nearest.
absl::StatusOr<std::vector<NamedOutput>> SelectOutputs(Graph& graph, absl::Span<const std::string> names);
// The inputs that any of the outputs needs, in the graph's order.
std::vector<NodeId> InputsOf(absl::Span<const NamedOutput> outputs);
// The fetches with which Session::Run computes the outputs.
std::vector<Fetch> FetchesOf(absl::Span<const NamedOutput> outputs);

// The names of all inputs or variables of a graph, in its order.
std::vector<std::string> NamesOf(const Graph& graph, OpKind kind);
// The variable or input of this name. NotFound if there is none, with the nearest; `what` is
// "input".
absl::StatusOr<Value> FindNamed(Graph& graph, OpKind kind, absl::string_view what, absl::string_view name);

// The classes' names that a training has kept in Model::extra, or none.
std::vector<std::string> ClassNamesOf(const Model& model);
void SetClassNames(Model& model, absl::Span<const std::string> names);

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_MODEL_SOURCE_H_
