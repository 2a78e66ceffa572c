// The bytes of one array in numpy's format, which .npy and .npz share.
#ifndef GRADWEAVE_FRONTEND_DATA_NPY_FORMAT_H_
#define GRADWEAVE_FRONTEND_DATA_NPY_FORMAT_H_

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {

// Reads an array from `size` bytes. `read` copies exactly the next bytes, or returns an error.
// Errors start with `source`.
absl::StatusOr<Tensor> ReadNpyArray(const std::string& source, int64_t size, int64_t max_bytes,
                                    absl::FunctionRef<absl::Status(void* to, int64_t bytes)> read);

// Returns all that stands before the elements, or InvalidArgument for bfloat16, which the format
// does not have.
absl::StatusOr<std::string> NpyHeader(const Tensor& array);

// Writes a file under a new name in the same folder, and gives it its name when `write` has
// succeeded and all bytes are written. It gets the permissions of a file that it replaces. Links are
// followed. Returns the error of `write`, the system's with the path, or FailedPrecondition if the
// path belongs to anything but a regular file.
absl::Status WriteOutputFile(const std::string& path, absl::FunctionRef<absl::Status(FILE* stream)> write);

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_NPY_FORMAT_H_
