// Reading and writing the tensors by name in which a checkpoint keeps the state of a training.
#ifndef GRADWEAVE_FRONTEND_NAMED_TENSORS_H_
#define GRADWEAVE_FRONTEND_NAMED_TENSORS_H_

#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave {

// Returns the first tensor of this name, or null.
const Tensor* Find(const NamedTensors& tensors, absl::string_view name);

// Adds the tensors under "<prefix><name>".
void Append(absl::string_view prefix, NamedTensors tensors, NamedTensors& to);
// Returns the tensors whose names begin with the prefix, without it.
NamedTensors WithPrefix(const NamedTensors& tensors, absl::string_view prefix);

// Return the scalar int64 or float64 of this name. Return InvalidArgument if there is none, or an
// integer outside of [low, high]: then the file is of another program.
absl::StatusOr<int64_t> Integer(const NamedTensors& tensors, absl::string_view name, int64_t low = 0,
                                int64_t high = std::numeric_limits<int64_t>::max());
absl::StatusOr<double> Number(const NamedTensors& tensors, absl::string_view name);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_NAMED_TENSORS_H_
