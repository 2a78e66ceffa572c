#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/frontend/c/handles.h"
#include "gradweave/frontend/c/status.h"
#include "gradweave/frontend/onnx/export.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave {
namespace {

// Adds an output by its name, or the new values of an update.
void Add(const std::string& name, const NamedOutput& output, onnx::NamedValues& values) {
  if (!output.is_update) {
    values.emplace_back(name, output.values[0]);
    return;
  }
  for (auto& value : onnx::NewValues(output.values, absl::StrCat(name, "/"))) values.push_back(std::move(value));
}

absl::Status SaveOnnx(const Model& model, const char* const* outputs, size_t num_outputs, const char* path) {
  onnx::NamedValues values;
  if (num_outputs > 0) GW_RETURN_IF_ERROR(CheckGiven({{"outputs", outputs}}));
  for (size_t i = 0; i < num_outputs; ++i) {
    GW_RETURN_IF_ERROR(CheckGiven({{"a name in outputs", outputs[i]}}));
    GW_ASSIGN_OR_RETURN(const NamedOutput output, FindOutput(model.graph, outputs[i]));
    Add(outputs[i], output, values);
  }
  if (num_outputs == 0) {
    for (const auto& known : Describe(model.graph, GW_OUTPUT)) {
      if (known->is_update) continue;
      GW_ASSIGN_OR_RETURN(const NamedOutput output, FindOutput(model.graph, known->name));
      Add(known->name, output, values);
    }
  }
  if (values.empty()) return absl::InvalidArgumentError("the model has no outputs but updates: name them in outputs");
  return onnx::Export(model, values, path);
}

}  // namespace
}  // namespace gradweave

using namespace gradweave;  // NOLINT: the functions below are those of the C interface alone.

gw_status gw_model_save_onnx(const gw_model* model, const char* const* outputs, size_t num_outputs, const char* path) {
  return Guard("gw_model_save_onnx", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}, {"path", path}}));
    return SaveOnnx(model->model, outputs, num_outputs, path);
  });
}

gw_status gw_session_save_onnx(const gw_session* session, const char* const* outputs, size_t num_outputs,
                               const char* path) {
  return Guard("gw_session_save_onnx", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"session", session}, {"path", path}}));
    GW_ASSIGN_OR_RETURN(const Model model, ModelOf(session->session));
    return SaveOnnx(model, outputs, num_outputs, path);
  });
}
