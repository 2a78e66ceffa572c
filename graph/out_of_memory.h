// Memory that runs out, as the status of the function that needed it.
//
// Functions of the interface that return a status end with GW_CATCH_OUT_OF_MEMORY, so no exception
// leaves them:
//
//   absl::StatusOr<Model> LoadModel(const std::string& path, LoadOptions options) try {
//     ...
//   }
//   GW_CATCH_OUT_OF_MEMORY("LoadModel")
#ifndef GRADWEAVE_GRAPH_OUT_OF_MEMORY_H_
#define GRADWEAVE_GRAPH_OUT_OF_MEMORY_H_

#include <new>
#include <stdexcept>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

// The handlers of a function's try block. Containers report a size beyond any memory as
// length_error.
#define GW_CATCH_OUT_OF_MEMORY(function)       \
  catch (const std::bad_alloc&) {              \
    return ::gradweave::OutOfMemory(function); \
  }                                            \
  catch (const std::length_error&) {           \
    return ::gradweave::OutOfMemory(function); \
  }

namespace gradweave {

// Returns ResourceExhausted, which names the function. The text is left out if there is no memory
// for it.
inline absl::Status OutOfMemory(absl::string_view function) {
  try {
    return absl::ResourceExhaustedError(absl::StrCat(function, ": there is not enough memory"));
  } catch (const std::bad_alloc&) {
    return absl::Status(absl::StatusCode::kResourceExhausted, "");
  }
}

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_OUT_OF_MEMORY_H_
