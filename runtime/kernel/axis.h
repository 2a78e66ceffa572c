// Helpers for kernels that work along one axis: sizes, and the types of indices.
#ifndef GRADWEAVE_RUNTIME_KERNEL_AXIS_H_
#define GRADWEAVE_RUNTIME_KERNEL_AXIS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "gradweave/graph/shape.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// The numbers of elements before, along and after an axis.
struct AxisSizes {
  int64_t outer = 1, size = 1, inner = 1;
  AxisSizes(const Shape& shape, int64_t axis) : size(shape[axis].size()) {
    for (int i = 0; i < axis; ++i) outer *= shape[i].size();
    for (int i = static_cast<int>(axis) + 1; i < shape.rank(); ++i) inner *= shape[i].size();
  }
};

// Calls function(Index()) with the C++ type of indices of the dtype: int32, int64 or uint8.
template <typename Function>
absl::StatusOr<Kernel> VisitIndices(DType dtype, Function function) {
  switch (dtype) {
    case kInt32:
      return function(int32_t{});
    case kInt64:
      return function(int64_t{});
    default:
      return function(uint8_t{});
  }
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_AXIS_H_
