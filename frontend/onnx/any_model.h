// Model files of Gradweave and of ONNX. The content determines the format.
#ifndef GRADWEAVE_FRONTEND_ONNX_ANY_MODEL_H_
#define GRADWEAVE_FRONTEND_ONNX_ANY_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/shape.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave::onnx {

enum class ModelFormat { kGradweave, kOnnx };

// The number of first bytes of a file that determine its format.
inline constexpr size_t kFormatBytes = 64;

// Returns the format of a file that begins with these bytes, or none if it is no model.
std::optional<ModelFormat> FormatOf(absl::string_view start);

// Options of loading. The fields mean the same as in LoadOptions and ImportOptions.
struct AnyModelOptions {
  int64_t memory_limit = int64_t{8} << 30;  // In bytes.
  bool map_weights = false;                 // For Gradweave's files; ONNX files are read.
  // Only for ONNX files. Other files are then an InvalidArgument.
  std::map<std::string, Tensor> fixed = {};
  std::map<std::string, Shape> shapes = {};
};

// Loads a model file of either format. Returns the errors of LoadModel and Import, one line with
// the path, and InvalidArgument for a file of neither format.
absl::StatusOr<Model> LoadAnyModel(const std::string& path, const AnyModelOptions& options);

// The same for the bytes of a file, which the model does not keep. Errors are those of
// ModelFromBytes and of ImportBytes, without a path.
absl::StatusOr<Model> AnyModelFromBytes(absl::string_view bytes, const AnyModelOptions& options);

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_ANY_MODEL_H_
