// Model files in memory.
#ifndef GRADWEAVE_RUNTIME_MODEL_FILE_MODEL_FROM_BYTES_H_
#define GRADWEAVE_RUNTIME_MODEL_FILE_MODEL_FROM_BYTES_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave {

// Reads a model from the bytes of its file and checks everything in them, as LoadModel does. The
// model keeps no view of the bytes. Errors are those of LoadModel without a path, and
// InvalidArgument for a model whose weights are in a file beside it. `options.map_weights` has no
// meaning here.
absl::StatusOr<Model> ModelFromBytes(absl::string_view bytes, LoadOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_MODEL_FILE_MODEL_FROM_BYTES_H_
