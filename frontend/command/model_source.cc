#include "gradweave/frontend/command/model_source.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/onnx/any_model.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::command {
namespace {

constexpr char kClasses[] = "class_names";

bool IsText(absl::string_view start) {
  return !start.empty() && std::all_of(start.begin(), start.end(),
                                       [](unsigned char c) { return c >= ' ' || c == '\t' || c == '\n' || c == '\r'; });
}

// A kind of files, and how its first bytes look.
struct Kind {
  FileKind kind;
  const char* name;
  bool (*matches)(absl::string_view start);
};

constexpr Kind kKinds[] = {
    {FileKind::kGradweave, "a Gradweave model",
     [](absl::string_view start) { return onnx::FormatOf(start) == onnx::ModelFormat::kGradweave; }},
    {FileKind::kOnnx, "an ONNX model",
     [](absl::string_view start) { return onnx::FormatOf(start) == onnx::ModelFormat::kOnnx; }},
    {FileKind::kNpy, "an array of numpy", [](absl::string_view start) { return absl::StartsWith(start, "\x93NUMPY"); }},
    {FileKind::kZip, "a zip archive", [](absl::string_view start) { return absl::StartsWith(start, "PK\x03\x04"); }},
    {FileKind::kPng, "a PNG image",
     [](absl::string_view start) { return absl::StartsWith(start, "\x89PNG\r\n\x1a\n"); }},
    // The header's length, 8 bytes of which the highest are 0, and a JSON object.
    {FileKind::kSafetensors, "a file of safetensors",
     [](absl::string_view start) { return start.size() > 8 && start.substr(5, 4) == absl::string_view("\0\0\0{", 4); }},
    {FileKind::kText, "text", IsText},
};

// The kinds of files that are models.
constexpr struct {
  FileKind kind;
  const char* name;
} kModelFormats[] = {{FileKind::kGradweave, "Gradweave model"}, {FileKind::kOnnx, "ONNX model"}};

// Returns for each node id whether a run needs it for the ports. A run does not compute initial
// values of variables.
std::vector<bool> NeededBy(const Graph& graph, absl::Span<const Value> values) {
  std::vector<bool> needed(graph.num_nodes(), false);
  for (const Value& value : values) needed[value.port().node] = true;
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    if (!needed[id] || graph.node(id).op->kind == OpKind::kVariable) continue;
    for (const Port input : graph.node(id).inputs) needed[input.node] = true;
  }
  return needed;
}

}  // namespace

absl::StatusOr<FileKind> KindOf(const std::string& path) {
  GW_ASSIGN_OR_RETURN(const InputFile file, OpenInputFile(path));
  std::string start(onnx::kFormatBytes, '\0');
  start.resize(std::fread(start.data(), 1, start.size(), file.stream.get()));
  for (const Kind& kind : kKinds) {
    if (kind.matches(start)) return kind.kind;
  }
  return FileKind::kUnknown;
}

absl::string_view KindName(FileKind kind) {
  for (const Kind& known : kKinds) {
    if (known.kind == kind) return known.name;
  }
  return "a file of an unknown format";
}

absl::StatusOr<ModelSource> OpenModel(const std::string& path, int64_t memory_limit) {
  GW_ASSIGN_OR_RETURN(const FileKind kind, KindOf(path));
  for (const auto& format : kModelFormats) {
    if (format.kind != kind) continue;
    GW_ASSIGN_OR_RETURN(Model model, onnx::LoadAnyModel(path, {.memory_limit = memory_limit}));
    return ModelSource{std::move(model), kind, format.name};
  }
  return absl::InvalidArgumentError(absl::StrCat(path, ": this is not a model but ", KindName(kind)));
}

std::vector<NamedOutput> OutputsOf(Graph& graph) {
  std::vector<NamedOutput> outputs;
  for (const auto& [name, ports] : graph.outputs()) {
    NamedOutput output{.name = name, .values = graph.Output(name)};
    output.is_update = !output.values.empty() &&
                       std::all_of(output.values.begin(), output.values.end(),
                                   [](const Value& value) { return value.node().op->kind == OpKind::kAssign; });
    const std::vector<bool> needed = NeededBy(graph, output.values);
    for (const Node& node : graph.nodes()) {
      if (needed[node.id] && node.op->kind == OpKind::kInput) output.inputs.push_back(node.id);
    }
    outputs.push_back(std::move(output));
  }
  return outputs;
}

absl::StatusOr<std::vector<NamedOutput>> SelectOutputs(Graph& graph, absl::Span<const std::string> names) {
  const std::vector<NamedOutput> all = OutputsOf(graph);
  std::vector<NamedOutput> outputs;
  std::vector<std::string> known;
  for (const NamedOutput& output : all) known.push_back(output.name);
  for (const std::string& name : names) {
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) {
      return absl::NotFoundError(
          absl::StrCat("the model has no output '", PrintableText(name), "'", DidYouMean(name, known)));
    }
    outputs.push_back(all[found - known.begin()]);
  }
  return outputs;
}

std::vector<NodeId> InputsOf(absl::Span<const NamedOutput> outputs) {
  std::set<NodeId> inputs;
  for (const NamedOutput& output : outputs) inputs.insert(output.inputs.begin(), output.inputs.end());
  return {inputs.begin(), inputs.end()};
}

std::vector<Fetch> FetchesOf(absl::Span<const NamedOutput> outputs) {
  std::vector<Fetch> fetches;
  for (const NamedOutput& output : outputs) {
    if (output.is_update) {
      fetches.push_back(Update{output.values});
    } else {
      fetches.insert(fetches.end(), output.values.begin(), output.values.end());
    }
  }
  return fetches;
}

std::vector<std::string> NamesOf(const Graph& graph, OpKind kind) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == kind) names.push_back(node.name);
  }
  return names;
}

absl::StatusOr<Value> FindNamed(Graph& graph, OpKind kind, absl::string_view what, absl::string_view name) {
  const NodeId id = graph.FindNamed(name);
  if (id >= 0 && graph.node(id).op->kind == kind) return graph.value(id);
  return absl::NotFoundError(
      absl::StrCat("the model has no ", what, " '", PrintableText(name), "'", DidYouMean(name, NamesOf(graph, kind))));
}

std::vector<std::string> ClassNamesOf(const Model& model) {
  for (const auto& [name, tensor] : model.extra) {
    if (name != kClasses || tensor.dtype() != kUint8 || tensor.num_elements() == 0) continue;
    const absl::string_view text(static_cast<const char*>(tensor.raw_data()), tensor.byte_size());
    return absl::StrSplit(text, '\n');
  }
  return {};
}

void SetClassNames(Model& model, absl::Span<const std::string> names) {
  model.extra.erase(
      std::remove_if(model.extra.begin(), model.extra.end(), [](const auto& named) { return named.first == kClasses; }),
      model.extra.end());
  const std::string text = absl::StrJoin(names, "\n");
  if (text.empty()) return;
  Tensor bytes(kUint8, {static_cast<int64_t>(text.size())});
  std::copy(text.begin(), text.end(), bytes.mutable_data<uint8_t>());
  model.extra.emplace_back(kClasses, bytes);
}

}  // namespace gradweave::command
