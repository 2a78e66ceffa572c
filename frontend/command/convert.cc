// gradweave convert: writes a model in another format, or with other weights.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/command/inputs.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/model_writer.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/data/npy.h"
#include "gradweave/frontend/data/safetensors.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/print.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(std::string, weights, "",
          "Takes the values of variables from this file of safetensors or archive of numpy (.npz), by name.");

namespace gradweave::command {
namespace {

std::vector<data::NamedArray> WeightsOf(const Model& model) {
  std::vector<data::NamedArray> arrays;
  for (const auto& [name, value] : model.variables) arrays.emplace_back(name, value);
  return arrays;
}

// The model file's bytes, with all weights inside.
absl::StatusOr<std::string> ModelBytes(const Model& model, const std::string& path) {
  const std::string temporary = absl::StrCat(path, ".", getpid());
  const absl::Status saved = SaveModel(model, temporary, {.inline_limit = std::numeric_limits<int64_t>::max()});
  absl::StatusOr<std::string> bytes =
      saved.ok() ? ReadInputFile(temporary, std::numeric_limits<int64_t>::max()) : absl::StatusOr<std::string>(saved);
  std::remove(temporary.c_str());
  return bytes;
}

// A C name for the array: the file's name without characters that C does not allow.
std::string IdentifierOf(const std::string& path) {
  std::string name = path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
  name.resize(name.rfind('.'));
  for (char& c : name) c = absl::ascii_isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name.empty() || absl::ascii_isdigit(static_cast<unsigned char>(name[0])) ? absl::StrCat("model_", name) : name;
}

absl::Status WriteHeader(const Model& model, const std::string& path) {
  GW_ASSIGN_OR_RETURN(const std::string bytes, ModelBytes(model, path));
  const std::string name = IdentifierOf(path);
  const std::string guard = absl::StrCat(absl::AsciiStrToUpper(name), "_H_");
  std::string text = absl::StrCat("/* A Gradweave model: the bytes of its file. */\n#ifndef ", guard, "\n#define ",
                                  guard, "\n\nstatic const unsigned long ", name, "_size = ", bytes.size(),
                                  ";\nstatic const unsigned char ", name, "[", bytes.size(), "] = {");
  for (size_t i = 0; i < bytes.size(); ++i) {
    absl::StrAppend(&text, i % 20 == 0 ? "\n    " : "", static_cast<int>(static_cast<unsigned char>(bytes[i])), ",");
  }
  return WriteText(path, absl::StrCat(text, "\n};\n\n#endif /* ", guard, " */\n"));
}

// A format that is written: the end of the file's name.
struct Writer {
  const char* end;
  const char* name;
  absl::Status (*write)(const Model& model, const std::string& path);
};
constexpr Writer kWriters[] = {
    {"gw", "a Gradweave model", [](const Model& model, const std::string& path) { return WriteModel(model, path); }},
    {"onnx", "an ONNX model",
     [](const Model& model, const std::string& path) { return WriteModel(model, path, absl::GetFlag(FLAGS_outputs)); }},
    {"txt", "the graph as text",
     [](const Model& model, const std::string& path) { return WriteText(path, GraphToText(model.graph)); }},
    {"h", "a C header with the model", WriteHeader},
    {"safetensors", "the weights as safetensors",
     [](const Model& model, const std::string& path) { return data::WriteSafetensors(path, WeightsOf(model)); }},
    {"npz", "the weights as an archive of numpy",
     [](const Model& model, const std::string& path) { return data::WriteNpz(path, WeightsOf(model)); }},
};

absl::StatusOr<std::vector<data::NamedArray>> ReadWeights(const std::string& path) {
  GW_ASSIGN_OR_RETURN(const FileKind kind, KindOf(path));
  if (kind == FileKind::kSafetensors) {
    return data::ReadSafetensors(path, int64_t{1} << 32, data::HalfArrays::kKept);
  }
  if (kind == FileKind::kZip) return data::ReadNpz(path);
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": a file of safetensors or an archive of numpy (.npz) is expected, and this is ", KindName(kind)));
}

// Gives the model's variables the values of these names. All names have to be those of variables,
// and each trainable variable needs a value.
absl::Status TakeWeights(const std::string& path, Model& model) {
  GW_ASSIGN_OR_RETURN(const std::vector<data::NamedArray> arrays, ReadWeights(path));
  std::set<std::string> given;
  for (const data::NamedArray& array : arrays) {
    const std::string shown = PrintableText(array.name);
    std::vector<std::string> names;
    Tensor* value = nullptr;
    for (auto& [name, of_model] : model.variables) {
      names.push_back(name);
      if (name == array.name) value = &of_model;
    }
    if (value == nullptr) {
      return absl::NotFoundError(
          absl::StrCat(path, ": the model has no variable '", shown, "'", DidYouMean(array.name, names)));
    }
    const std::optional<Tensor> converted = Converted(array.values, value->dtype());
    if (!converted.has_value() || !(converted->type() == value->type())) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": '", shown, "' is ", array.values.type().ToString(),
                                                     ", and the model's variable is ", value->type().ToString()));
    }
    *value = *converted;
    given.insert(array.name);
  }
  for (const auto& [name, value] : model.variables) {
    const NodeId id = model.graph.FindNamed(name);
    if (given.count(name) > 0 || id < 0 || !model.graph.node(id).attribute<bool>("trainable")) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": there is no value for the variable '", PrintableText(name), "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> RunConvert(absl::Span<const std::string> arguments, std::ostream& out) {
  const std::string &path = arguments[1], end = EndOf(path);
  const Writer* writer = nullptr;
  for (const Writer& known : kWriters) {
    if (end == known.end) writer = &known;
  }
  if (writer == nullptr) {
    return UsageError(absl::StrCat(
        PrintableText(path), ": a name that ends in ",
        absl::StrJoin(kWriters, ", ",
                      [](std::string* text, const Writer& known) { absl::StrAppend(text, ".", known.end); }),
        " is expected"));
  }
  GW_RETURN_IF_ERROR(CheckWritable(path));
  GW_ASSIGN_OR_RETURN(ModelSource source, OpenModel(arguments[0]));
  if (const std::string weights = absl::GetFlag(FLAGS_weights); !weights.empty()) {
    GW_RETURN_IF_ERROR(TakeWeights(weights, source.model));
  }
  GW_RETURN_IF_ERROR(writer->write(source.model, path));
  out << path << ": " << writer->name << "\n";
  return 0;
}

}  // namespace

Subcommand Convert() {
  return {.name = "convert",
          .arguments = "MODEL FILE",
          .summary = "Writes a model in another format, or with other weights",
          .details =
              "MODEL is a file of Gradweave or ONNX. The end of FILE says what it becomes: a model (.gw), an ONNX\n"
              "model with the outputs of --outputs (.onnx), the graph as text (.txt), a C header with the model's\n"
              "bytes (.h), or the weights by name (.safetensors, .npz). In ONNX, an update is an output for the new\n"
              "value of each variable, and the variables are inputs with defaults.",
          .flags = {{"weights", "FILE"}, {"outputs", "NAME,..."}},
          .fewest = 2,
          .most = 2,
          .run = RunConvert};
}

}  // namespace gradweave::command
