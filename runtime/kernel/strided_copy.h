// Ops that only move elements, expressed as strided copies.
#ifndef GRADWEAVE_RUNTIME_KERNEL_STRIDED_COPY_H_
#define GRADWEAVE_RUNTIME_KERNEL_STRIDED_COPY_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// The copy y[to_offset + i0*t0 + i1*t1 + ...] = x[from_offset + i0*s0 + i1*s1 + ...] for all
// indices i0 < sizes[0], i1 < sizes[1], and so on. Transpose, BroadcastTo, Slice, Reverse and Pad
// all have this form. The strides of y need not be contiguous: padding writes into a larger tensor.
// Strides and offsets are in elements.
struct StridedCopy {
  using Numbers = absl::InlinedVector<int64_t, 6>;

  Numbers sizes, from, to;
  int64_t from_offset = 0, to_offset = 0;
  // Number of elements copied; Simplify() sets it.
  int64_t total = 1;

  // Drops axes of size 1, joins neighbours that are contiguous in both tensors, and sets `total`.
  // Call it once, last.
  void Simplify() {
    Numbers new_sizes, new_from, new_to;
    for (size_t axis = 0; axis < sizes.size(); ++axis) {
      total *= sizes[axis];
      if (sizes[axis] == 1) continue;
      if (!new_sizes.empty() && new_from.back() == from[axis] * sizes[axis] &&
          new_to.back() == to[axis] * sizes[axis]) {
        new_sizes.back() *= sizes[axis];
        new_from.back() = from[axis];
        new_to.back() = to[axis];
      } else {
        new_sizes.push_back(sizes[axis]);
        new_from.push_back(from[axis]);
        new_to.push_back(to[axis]);
      }
    }
    if (new_sizes.empty()) {
      new_sizes = {1};
      new_from = new_to = {1};
    }
    sizes = new_sizes;
    from = new_from;
    to = new_to;
  }
};

namespace internal {

// Returns row-major strides in elements.
inline StridedCopy::Numbers Strides(const Shape& shape) {
  StridedCopy::Numbers strides(shape.rank());
  int64_t stride = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[axis] = stride;
    stride *= shape[axis].size();
  }
  return strides;
}

// Returns a copy that writes the whole output in order. The caller adds the strides of the input.
inline StridedCopy CopyToOutput(const KernelRequest& request) {
  StridedCopy copy;
  for (const Dim& dim : request.output().shape) copy.sizes.push_back(dim.size());
  copy.to = Strides(request.output().shape);
  return copy;
}

// Appends the strides of a slice with these sizes in a tensor of that shape, and adds its offset.
inline void SelectSlice(const Shape& shape, absl::Span<const Dim> start, absl::Span<const int64_t> steps,
                        const StridedCopy::Numbers& sizes, StridedCopy::Numbers& strides, int64_t& offset) {
  const StridedCopy::Numbers whole = Strides(shape);
  for (size_t axis = 0; axis < whole.size(); ++axis) {
    // The step is below the size where it is taken at all.
    strides.push_back(sizes[axis] > 1 ? whole[axis] * steps[axis] : 0);
    offset += whole[axis] * start[axis].size();
  }
}

}  // namespace internal

// The functions below return the simplified copy that an op makes of its first operand. Pad's copy
// covers only the elements that come from the operand.

inline StridedCopy CopyOfTranspose(const KernelRequest& request) {
  const StridedCopy::Numbers strides = internal::Strides(request.operand(0).shape);
  StridedCopy copy = internal::CopyToOutput(request);
  for (int64_t axis : request.attribute<Integers>("permutation")) copy.from.push_back(strides[axis]);
  copy.Simplify();
  return copy;
}

inline StridedCopy CopyOfBroadcastTo(const KernelRequest& request) {
  const Shape& x = request.operand(0).shape;
  const int new_axes = request.output().shape.rank() - x.rank();
  const StridedCopy::Numbers strides = internal::Strides(x);
  StridedCopy copy = internal::CopyToOutput(request);
  for (int axis = 0; axis < request.output().shape.rank(); ++axis) {
    const int own = axis - new_axes;
    copy.from.push_back(own < 0 || x[own].size() == 1 ? 0 : strides[own]);
  }
  copy.Simplify();
  return copy;
}

inline StridedCopy CopyOfSlice(const KernelRequest& request) {
  StridedCopy copy = internal::CopyToOutput(request);
  internal::SelectSlice(request.operand(0).shape, request.attribute<Shape>("start").dims(),
                        request.attribute<Integers>("steps"), copy.sizes, copy.from, copy.from_offset);
  copy.Simplify();
  return copy;
}

// One for each part of SliceAdd: the places of its elements in the result.
inline std::vector<StridedCopy> CopiesOfSliceAdd(const KernelRequest& request) {
  std::vector<StridedCopy> copies(request.operands.size() - 1);
  const size_t rank = request.output().shape.rank();
  for (size_t k = 0; k < copies.size(); ++k) {
    const Shape& part = request.operands[k + 1].shape;
    for (const Dim& dim : part) copies[k].sizes.push_back(dim.size());
    copies[k].from = internal::Strides(part);
    internal::SelectSlice(request.output().shape,
                          absl::MakeConstSpan(request.attribute<Shape>("starts").dims()).subspan(k * rank, rank),
                          absl::MakeConstSpan(request.attribute<Integers>("steps")).subspan(k * rank, rank),
                          copies[k].sizes, copies[k].to, copies[k].to_offset);
    copies[k].Simplify();
  }
  return copies;
}

inline StridedCopy CopyOfReverse(const KernelRequest& request) {
  const Integers& axes = request.attribute<Integers>("axes");
  StridedCopy copy = internal::CopyToOutput(request);
  copy.from = copy.to;
  for (size_t axis = 0; axis < copy.sizes.size(); ++axis) {
    if (std::find(axes.begin(), axes.end(), axis) == axes.end() || copy.sizes[axis] == 0) continue;
    copy.from_offset += (copy.sizes[axis] - 1) * copy.from[axis];
    copy.from[axis] = -copy.from[axis];
  }
  copy.Simplify();
  return copy;
}

inline StridedCopy CopyOfPad(const KernelRequest& request) {
  const Shape& low = request.attribute<Shape>("low");
  const Integers& interior = request.attribute<Integers>("interior");
  const Shape& x = request.operand(0).shape;
  const Shape& y = request.output().shape;
  const StridedCopy::Numbers from = internal::Strides(x), to = internal::Strides(y);
  StridedCopy copy;
  for (int axis = 0; axis < x.rank(); ++axis) {
    // Element i of x goes to low + i*step, if that lies inside y.
    const int64_t step = interior[axis] + 1, offset = low[axis].size();
    const int64_t first = offset >= 0 ? 0 : (-offset + step - 1) / step;
    const int64_t room = y[axis].size() - 1 - offset;
    const int64_t last = room < 0 ? -1 : std::min(x[axis].size() - 1, room / step);
    const int64_t count = std::max<int64_t>(0, last - first + 1);
    copy.sizes.push_back(count);
    copy.from.push_back(from[axis]);
    // The step is below the size of y where it is taken at all.
    copy.to.push_back(count > 1 ? to[axis] * step : 0);
    // Without elements, the first one lies anywhere.
    copy.from_offset += count > 0 ? first * from[axis] : 0;
    copy.to_offset += count > 0 ? (offset + first * step) * to[axis] : 0;
  }
  copy.Simplify();
  return copy;
}

// The batched transposition y [matrices, columns, rows] of x [matrices, rows, columns].
struct MatrixTransposition {
  int64_t matrices, rows, columns;
};
// Returns the transposition that a simplified copy performs, or nullopt if the copy is not a
// transposition.
inline std::optional<MatrixTransposition> AsTransposition(const StridedCopy& copy) {
  const size_t n = copy.sizes.size();
  if ((n != 2 && n != 3) || copy.from[n - 2] != 1 || copy.from[n - 1] != copy.sizes[n - 2] || copy.total == 0 ||
      (n == 3 && copy.from[0] != copy.sizes[1] * copy.sizes[2]))
    return std::nullopt;
  return MatrixTransposition{n == 2 ? 1 : copy.sizes[0], copy.sizes[n - 1], copy.sizes[n - 2]};
}

// Calls function(T()) with an unsigned integer type of the dtype's size. Moved elements need no
// arithmetic, so one function serves all dtypes of a size.
template <typename Function>
auto VisitElementSize(DType dtype, Function function) {
  switch (DTypeSize(dtype)) {
    case 8:
      return function(uint64_t{});
    case 4:
      return function(uint32_t{});
    case 2:
      return function(uint16_t{});
    default:
      return function(uint8_t{});
  }
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_STRIDED_COPY_H_
