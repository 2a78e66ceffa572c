#include "gradweave/frontend/onnx/any_model.h"

#include <cstdio>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/runtime/model_file/model_from_bytes.h"

namespace gradweave::onnx {
namespace {

// Returns the format, or an error for a file that is no model or does not take the options.
absl::StatusOr<ModelFormat> CheckedFormat(absl::string_view start, const AnyModelOptions& options) {
  const std::optional<ModelFormat> format = FormatOf(start.substr(0, kFormatBytes));
  if (!format.has_value()) return absl::InvalidArgumentError("this is neither a Gradweave model nor an ONNX model");
  if (*format != ModelFormat::kOnnx && !(options.fixed.empty() && options.shapes.empty())) {
    return absl::InvalidArgumentError(
        "this is a Gradweave model, and values and shapes of inputs can be given for ONNX models alone");
  }
  return *format;
}

LoadOptions OfGradweave(const AnyModelOptions& options) {
  return {.memory_limit = options.memory_limit, .map_weights = options.map_weights};
}

ImportOptions OfOnnx(const AnyModelOptions& options) {
  return {.fixed = options.fixed, .shapes = options.shapes, .memory_limit = options.memory_limit};
}

absl::StatusOr<Model> ModelIn(absl::StatusOr<ImportedModel> imported) {
  GW_RETURN_IF_ERROR(imported.status());
  return std::move(imported->model);
}

}  // namespace

std::optional<ModelFormat> FormatOf(absl::string_view start) {
  if (absl::StartsWith(start, "\n\x0fgradweave model")) return ModelFormat::kGradweave;
  // Field 1 of the message, the version of the format, and one of the fields 2 to 8, all of which
  // follow it.
  if (start.size() > 2 && start[0] == '\x08' && start[1] > 0 && start[1] < 32 &&
      absl::string_view("\x12\x1a\x22\x28\x32\x3a\x42").find(start[2]) != absl::string_view::npos)
    return ModelFormat::kOnnx;
  return std::nullopt;
}

absl::StatusOr<Model> LoadAnyModel(const std::string& path, const AnyModelOptions& options) {
  std::string start(kFormatBytes, '\0');
  {
    GW_ASSIGN_OR_RETURN(const InputFile file, OpenInputFile(path));
    start.resize(std::fread(start.data(), 1, start.size(), file.stream.get()));
  }
  const absl::StatusOr<ModelFormat> format = CheckedFormat(start, options);
  if (!format.ok())
    return absl::Status(format.status().code(), absl::StrCat(PrintableText(path), ": ", format.status().message()));
  return *format == ModelFormat::kOnnx ? ModelIn(Import(path, OfOnnx(options))) : LoadModel(path, OfGradweave(options));
}

absl::StatusOr<Model> AnyModelFromBytes(absl::string_view bytes, const AnyModelOptions& options) {
  GW_ASSIGN_OR_RETURN(const ModelFormat format, CheckedFormat(bytes, options));
  return format == ModelFormat::kOnnx ? ModelIn(ImportBytes(bytes, OfOnnx(options)))
                                      : ModelFromBytes(bytes, OfGradweave(options));
}

}  // namespace gradweave::onnx
