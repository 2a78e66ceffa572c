// Iteration over operands that broadcast to one result shape.
#ifndef GRADWEAVE_RUNTIME_KERNEL_BROADCAST_H_
#define GRADWEAVE_RUNTIME_KERNEL_BROADCAST_H_

#include <algorithm>
#include <array>
#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "gradweave/graph/shape.h"

namespace gradweave {

// Iteration space of a broadcasting op. It holds the axes of the result, with neighbours joined
// where every operand is either contiguous or stretched across both. For each axis it holds every
// operand's stride in elements, which is 0 where the operand is stretched. Strides along the last
// axis are 0 or 1.
struct BroadcastWalk {
  static constexpr int kMostOperands = 3;

  BroadcastWalk(const Shape& result, absl::Span<const TensorType> operands) {
    const int rank = result.rank();
    absl::InlinedVector<std::array<int64_t, kMostOperands>, 4> full(rank, std::array<int64_t, kMostOperands>{});
    for (size_t k = 0; k < operands.size(); ++k) {
      const Shape& shape = operands[k].shape;
      int64_t stride = 1;
      for (int axis = rank - 1; axis >= 0; --axis) {
        const int own = axis - (rank - shape.rank());
        const int64_t size = own < 0 ? 1 : shape[own].size();
        full[axis][k] = size == 1 ? 0 : stride;
        stride *= size;
      }
    }
    // The strides of missing operands stay 0.
    for (int axis = 0; axis < rank; ++axis) {
      const int64_t size = result[axis].size();
      total *= size;
      if (size == 1) continue;
      bool joins = !sizes.empty();
      for (size_t k = 0; k < operands.size() && joins; ++k) joins = strides.back()[k] == full[axis][k] * size;
      if (joins) {
        sizes.back() *= size;
        strides.back() = full[axis];
      } else {
        sizes.push_back(size);
        strides.push_back(full[axis]);
      }
    }
    if (sizes.empty()) {
      sizes.push_back(1);
      strides.push_back({});
    }
  }

  // Calls body(offsets, result_offset, count) for consecutive runs along the last axis that
  // together cover elements [begin, end) of the result. Offsets and count are in elements.
  template <typename Body>
  void ForRuns(int64_t begin, int64_t end, Body body) const {
    const int last = static_cast<int>(sizes.size()) - 1;
    while (begin < end) {
      int64_t rest = begin;
      int64_t run = 0;
      std::array<int64_t, kMostOperands> offsets = {};
      for (int axis = last; axis >= 0; --axis) {
        const int64_t index = rest % sizes[axis];
        rest /= sizes[axis];
        for (int k = 0; k < kMostOperands; ++k) offsets[k] += index * strides[axis][k];
        if (axis == last) run = std::min(sizes[last] - index, end - begin);
      }
      body(offsets, begin, run);
      begin += run;
    }
  }

  // Returns true if the operand advances along the last axis, and false if one element serves the
  // whole run.
  bool is_vector(int operand) const { return strides.back()[operand] != 0; }

  // Size of each joined axis, outermost first; at least one axis.
  absl::InlinedVector<int64_t, 4> sizes;
  // Strides in elements by axis, then by operand.
  absl::InlinedVector<std::array<int64_t, kMostOperands>, 4> strides;
  // Number of elements of the result.
  int64_t total = 1;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_BROADCAST_H_
