// The models that the command writes: files of several formats, told by the end of their names.
#ifndef GRADWEAVE_FRONTEND_COMMAND_MODEL_WRITER_H_
#define GRADWEAVE_FRONTEND_COMMAND_MODEL_WRITER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave::command {

// Writes an ONNX file if the path ends in .onnx, and else a Gradweave model. An ONNX file has the
// outputs of these names; if there are none, all that are not updates. An update becomes an output
// <update>/<variable> for the new value of each variable, and a list of values the outputs
// <name>/0, <name>/1. Returns NotFound for an unknown name, and errors of SaveModel and
// onnx::Export.
absl::Status WriteModel(const Model& model, const std::string& path, absl::Span<const std::string> outputs = {});

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_MODEL_WRITER_H_
