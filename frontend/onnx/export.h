// Export of graphs to ONNX files.
#ifndef GRADWEAVE_FRONTEND_ONNX_EXPORT_H_
#define GRADWEAVE_FRONTEND_ONNX_EXPORT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave::onnx {

// Options of Export.
struct ExportOptions {
  int64_t opset = 17;  // In [17, 20].
};

// Values by the names that they get in the file.
using NamedValues = std::vector<std::pair<std::string, Value>>;

// The new values of the variables that a training step assigns: "new/w" for the variable w. They
// can be outputs like other values:
//
//   gw::onnx::NamedValues outputs = gw::onnx::NewValues(step.assignments);
//   outputs.emplace_back("loss", loss);
NamedValues NewValues(const std::vector<Value>& assignments, absl::string_view prefix = "new/");

// Writes the nodes that the outputs need as an ONNX file: of the forward pass, of gradients and of
// updates. ModelOf(session) gives the model with the values that variables have now; the outputs
// are values of its graph or of the graph that the session copied. Inputs and variables keep their
// names; variables become initializers. A variable that an output assigns becomes an input as well,
// whose default is the initializer: a program that feeds it the new value of the last run trains
// with the file. Symbols of shapes become symbols of the file.
//
//   GW_ASSIGN_OR_RETURN(gw::Model model, gw::ModelOf(session));
//   gw::onnx::Export(model, {{"logits", logits}}, "lenet.onnx");
//
// Importing the file gives the same bits for ops that ONNX has, and nearly the same numbers for ops
// that become compositions (docs/onnx.md lists both). Random ops give different numbers. A While
// that reaches its greatest number of steps ends without an error. The file appears when it is
// complete. Returns Unimplemented, with the node's name, for an op that has no form in ONNX;
// InvalidArgument for an opset out of range, a value of another graph, a repeated name of an output
// and a variable without a value; the system's error if the file cannot be written.
absl::Status Export(const Model& model, const NamedValues& outputs, const std::string& path,
                    ExportOptions options = {});

// The same as bytes.
absl::StatusOr<std::string> ExportBytes(const Model& model, const NamedValues& outputs, ExportOptions options = {});

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_EXPORT_H_
