// Named arrays in files of safetensors, a format in which Python's libraries exchange weights.
#ifndef GRADWEAVE_FRONTEND_DATA_SAFETENSORS_H_
#define GRADWEAVE_FRONTEND_DATA_SAFETENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/frontend/dataset.h"

namespace gradweave::data {

// The dtypes that arrays of F16 and BF16 get.
enum class HalfArrays {
  kToFloat32,  // They become float32, without a loss, so that ops compute with them.
  kKept,       // They stay float16 and bfloat16.
};

// Reads all arrays of a file (https://github.com/huggingface/safetensors, "Format"), in the order
// of its header. `max_bytes` limits the elements' bytes in memory. Memory is allocated after all
// sizes are checked against the file's length. Returns NotFound if there is no such file, and
// InvalidArgument, with the path, if it is not a regular file or is damaged: a header that is
// longer than the file or 100 MB, or is not the JSON that the format defines, a repeated name,
// sizes that overflow, elements that do not follow each other from the header to the file's end,
// more than 64 axes, and a type that Gradweave does not have.
absl::StatusOr<std::vector<NamedArray>> ReadSafetensors(const std::string& path, int64_t max_bytes = int64_t{1} << 32,
                                                        HalfArrays halves = HalfArrays::kToFloat32);

// Writes arrays by name, those with the largest elements first, so that all are aligned. The file
// appears when it is complete. Returns InvalidArgument for a name that is empty, `__metadata__`,
// not UTF-8 or repeated, and the system's error with the path.
absl::Status WriteSafetensors(const std::string& path, absl::Span<const NamedArray> arrays);

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_SAFETENSORS_H_
