// Arrays in the files of numpy: .npy has one array, .npz has several by name.
#ifndef GRADWEAVE_FRONTEND_DATA_NPY_H_
#define GRADWEAVE_FRONTEND_DATA_NPY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {

// Reads an array as numpy.save writes it: format versions 1.0, 2.0 and 3.0
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). Arrays in Fortran's
// order and big-endian ones are converted. `max_bytes` limits the elements' bytes. Memory is
// allocated after the sizes are checked against the file's length. Returns NotFound if there is no
// such file, and InvalidArgument, with the path, if it is not a regular file, is damaged, too
// large, shorter or longer than its sizes say, or if Gradweave does not have the type of the
// elements. It has floating numbers of 16 to 64 bits, integers of 8 to 64 bits and bool, and no
// Python objects.
absl::StatusOr<Tensor> ReadNpy(const std::string& path, int64_t max_bytes = int64_t{1} << 32);

// Writes an array as numpy.save does, to the byte. The file appears when it is complete. Returns
// InvalidArgument for bfloat16, which numpy does not have, and the system's error with the path.
absl::Status WriteNpy(const std::string& path, const Tensor& array);

// Reads the arrays that numpy.savez or numpy.savez_compressed wrote, in the file's order. They make
// a data set if their first axes are equal and they have the names of the graph's inputs.
// `max_bytes` limits the bytes of all of them. Returns the errors of ReadNpy with the array's name,
// and InvalidArgument for a file that is not a zip archive or is damaged, and for an entry that is
// not an array, is encrypted, uses a compression other than deflate, or has the name of another
// entry.
absl::StatusOr<std::vector<NamedArray>> ReadNpz(const std::string& path, int64_t max_bytes = int64_t{1} << 32);

// Writes arrays by name, so that numpy.load reads them. The file appears when it is complete.
// Returns InvalidArgument for an empty name, a name with a zero byte, a repeated name and bfloat16,
// and the system's error with the path.
absl::Status WriteNpz(const std::string& path, absl::Span<const NamedArray> arrays, bool compress = false);

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_NPY_H_
