// Import of ONNX models: a graph with variables, ready to run, differentiate and train.
#ifndef GRADWEAVE_FRONTEND_ONNX_IMPORT_H_
#define GRADWEAVE_FRONTEND_ONNX_IMPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave::onnx {

// Options of Import.
struct ImportOptions {
  // If true, floating initializers become trainable variables, except the statistics of
  // BatchNormalization. If false, no variable is trainable.
  bool trainable = true;
  // Values of inputs, by name. Such an input becomes a constant, and runs do not feed it. An input
  // whose value determines a shape needs a value here: the `shape` of Reshape, the `repeats` of
  // Tile, the condition of If.
  std::map<std::string, Tensor> fixed = {};
  // Shapes of inputs, by name, instead of those in the file. An input needs one if the file leaves
  // its shape out, or leaves it open and nodes need numbers.
  std::map<std::string, Shape> shapes = {};
  // Upper limit in bytes for all that the import holds: the file, the message and the graph.
  int64_t memory_limit = int64_t{8} << 30;
  // The registry in which ops are looked up; null means CoreOps().
  const OpRegistry* registry = nullptr;
};

// An imported model.
//
//   GW_ASSIGN_OR_RETURN(gw::onnx::ImportedModel net, gw::onnx::Import("lenet.onnx"));
//   GW_ASSIGN_OR_RETURN(gw::Session session, gw::CreateSession(net.model));
//   session.Run({{net.Input("image"), images}}, {net.Output("logits")});
//
// Variables have the names of their initializers. A loss and an optimizer may be added to
// net.model.graph before the session is created. SaveModel(net.model, path) writes a model file.
struct ImportedModel {
  Model model;                       // The graph, and the variables with their values.
  std::vector<std::string> inputs;   // Names of the values that runs feed, in the order of the file.
  std::vector<std::string> outputs;  // Names of the outputs, in the order of the file; model.graph has them too.

  // The input or output of this name; an invalid value if there is none. The handles point to
  // model.graph: ask again after the ImportedModel has moved.
  Value Input(absl::string_view name);
  Value Output(absl::string_view name);
};

// Imports an ONNX file: IR versions up to 14, opsets up to 28. docs/onnx.md lists the ops. Sizes
// that the file leaves open become symbols, with the file's names if it has some. If nodes work for
// some sizes only, the input gets these sizes: equal sizes with two names become one symbol, and a
// height that has to be a multiple of 32 becomes 32*height_32. Tensors outside of the file are read
// from the file's folder, never through a link or from another folder.
//
// Errors are one line that begins with the path: NotFound for a missing file; InvalidArgument for a
// file that is not an ONNX model, is damaged, or has operands, attributes or shapes that do not fit
// an op; Unimplemented for ops and dtypes that cannot be imported, with all of these nodes;
// FailedPrecondition if a shape depends on an input that ImportOptions::fixed lacks (the status has
// the names, separated by line feeds, as the payload kNeededInputs); ResourceExhausted beyond the
// memory limit. If numbers for open sizes may help, the status has the names of inputs as the
// payload kNeededShapes: ImportOptions::shapes can give their sizes. A Runner (runner.h) does both
// for the inputs of each run.
absl::StatusOr<ImportedModel> Import(const std::string& path, ImportOptions options = {});

// The same for the bytes of a file. Without a folder, tensors outside of the file are an error.
absl::StatusOr<ImportedModel> ImportBytes(absl::string_view bytes, ImportOptions options = {},
                                          const std::string& folder = "");

inline constexpr char kNeededInputs[] = "gradweave.onnx/needed_inputs";
inline constexpr char kNeededShapes[] = "gradweave.onnx/needed_shapes";

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_IMPORT_H_
