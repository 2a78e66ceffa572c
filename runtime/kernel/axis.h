// Sizes for kernels that work along one axis.
#ifndef GRADWEAVE_RUNTIME_KERNEL_AXIS_H_
#define GRADWEAVE_RUNTIME_KERNEL_AXIS_H_

#include <cstdint>

#include "gradweave/graph/shape.h"

namespace gradweave {

// The numbers of elements before, along and after an axis.
struct AxisSizes {
  int64_t outer = 1, size = 1, inner = 1;
  AxisSizes(const Shape& shape, int64_t axis) : size(shape[axis].size()) {
    for (int i = 0; i < axis; ++i) outer *= shape[i].size();
    for (int i = static_cast<int>(axis) + 1; i < shape.rank(); ++i) inner *= shape[i].size();
  }
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_AXIS_H_
