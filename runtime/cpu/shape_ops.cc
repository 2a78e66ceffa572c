#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "gradweave/runtime/kernel.h"

namespace gradweave {
namespace {

constexpr int64_t kGrainBytes = 65536;

using Numbers = absl::InlinedVector<int64_t, 6>;

// Row-major strides in elements.
Numbers Strides(const Shape& shape) {
  Numbers strides(shape.rank());
  int64_t stride = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[axis] = stride;
    stride *= shape[axis].size();
  }
  return strides;
}

// y[i0, i1, ...] = x[offset + i0*s0 + i1*s1 + ...]: what transposing, broadcasting, slicing and reversing have in
// common. `to` are the strides of y, which need not be contiguous: padding writes into a larger tensor.
struct StridedCopy {
  Numbers sizes, from, to;
  int64_t from_offset = 0, to_offset = 0;
  int64_t total = 1;

  // Drops axes of size 1 and joins neighbours that are contiguous in both tensors.
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

// One row along the last axis.
template <typename T>
void CopyRow(const T* x, int64_t step_from, T* y, int64_t step_to, int64_t count) {
  if (step_from == 1 && step_to == 1) {
    // Sixty-four bytes at a time become vectors; a call costs as much as copying a short row.
    constexpr int64_t kStep = 64 / sizeof(T);
    for (; count >= kStep; count -= kStep, x += kStep, y += kStep) std::memcpy(y, x, 64);
    for (int64_t i = 0; i < count; ++i) y[i] = x[i];
  } else if (step_from == 0 && step_to == 1) {
    std::fill(y, y + count, *x);
  } else {
    for (int64_t i = 0; i < count; ++i) y[i * step_to] = x[i * step_from];
  }
}

template <typename T>
void CopyRows(const StridedCopy& copy, const T* x, T* y, int64_t begin, int64_t end) {
  const int last = static_cast<int>(copy.sizes.size()) - 1;
  Numbers index(last, 0);
  int64_t rest = begin, from = copy.from_offset, to = copy.to_offset;
  for (int axis = last - 1; axis >= 0; --axis) {
    index[axis] = rest % copy.sizes[axis];
    rest /= copy.sizes[axis];
    from += index[axis] * copy.from[axis];
    to += index[axis] * copy.to[axis];
  }
  for (int64_t row = begin; row < end; ++row) {
    CopyRow(x + from, copy.from[last], y + to, copy.to[last], copy.sizes[last]);
    for (int axis = last - 1; axis >= 0; --axis) {
      from += copy.from[axis];
      to += copy.to[axis];
      if (++index[axis] < copy.sizes[axis]) break;
      from -= copy.sizes[axis] * copy.from[axis];
      to -= copy.sizes[axis] * copy.to[axis];
      index[axis] = 0;
    }
  }
}

// Elements are moved, not computed with: only their size matters.
template <typename Function>
auto VisitElementSize(DType dtype, Function function) {
  switch (DTypeSize(dtype)) {
    case 8:
      return function(uint64_t{});
    case 4:
      return function(uint32_t{});
    default:
      return function(uint8_t{});
  }
}

template <typename T>
void RunCopy(const StridedCopy& copy, const T* x, T* y, ThreadPool& pool) {
  if (copy.total == 0) return;
  const int64_t row = copy.sizes.back();
  const int64_t grain = std::max<int64_t>(1, kGrainBytes / static_cast<int64_t>(sizeof(T)) / row);
  ParallelForRange(pool, copy.total / row, grain,
                   [&](int64_t begin, int64_t end) { CopyRows(copy, x, y, begin, end); });
}

Kernel CopyKernel(const KernelRequest& request, const char* name, StridedCopy copy) {
  copy.Simplify();
  return VisitElementSize(request.output().dtype, [&](auto zero) {
    using T = decltype(zero);
    return Kernel{
        .name = name,
        .run = [copy = std::make_shared<const StridedCopy>(std::move(copy))](const KernelArguments& arguments) {
          RunCopy(*copy, arguments.operand<T>(0), arguments.output<T>(), *arguments.pool);
          return absl::OkStatus();
        }};
  });
}

Numbers Sizes(const Shape& shape) {
  Numbers sizes;
  for (const Dim& dim : shape) sizes.push_back(dim.size());
  return sizes;
}

absl::StatusOr<Kernel> MakeReshape(const KernelRequest& request) {
  const size_t bytes = request.output().byte_size();
  return Kernel{.name = "copy",
                .run =
                    [bytes](const KernelArguments& arguments) {
                      std::memmove(arguments.outputs[0], arguments.operands[0], bytes);
                      return absl::OkStatus();
                    },
                .overwrites = {{0, 0}}};
}

// Rows of a transposition are far apart in x: blocks of rows and columns use each cache line whole.
template <typename T>
Kernel TransposeMatrices(int64_t matrices, int64_t rows, int64_t columns) {
  return {.name = "transpose_blocks", .run = [=](const KernelArguments& arguments) {
            constexpr int64_t kBlock = 32;
            const T* x = arguments.operand<T>(0);  // [matrices, rows, columns]
            T* y = arguments.output<T>();          // [matrices, columns, rows]
            const int64_t strips = (columns + kBlock - 1) / kBlock;
            const int64_t grain = std::max<int64_t>(1, kGrainBytes / static_cast<int64_t>(sizeof(T)) / (rows * kBlock));
            ParallelForRange(*arguments.pool, matrices * strips, grain, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const T* from = x + i / strips * rows * columns;
                T* to = y + i / strips * rows * columns;
                const int64_t first = i % strips * kBlock, last = std::min(first + kBlock, columns);
                for (int64_t block = 0; block < rows; block += kBlock) {
                  for (int64_t column = first; column < last; ++column) {
                    for (int64_t row = block; row < std::min(block + kBlock, rows); ++row)
                      to[column * rows + row] = from[row * columns + column];
                  }
                }
              }
            });
            return absl::OkStatus();
          }};
}

absl::StatusOr<Kernel> MakeTranspose(const KernelRequest& request) {
  const Integers& permutation = request.attribute<Integers>("permutation");
  const Numbers strides = Strides(request.operand(0).shape);
  StridedCopy copy;
  copy.sizes = Sizes(request.output().shape);
  copy.to = Strides(request.output().shape);
  for (int64_t axis : permutation) copy.from.push_back(strides[axis]);
  StridedCopy simple = copy;
  simple.Simplify();
  // [.., columns, rows] of [.., rows, columns].
  const size_t n = simple.sizes.size();
  if ((n == 2 || n == 3) && simple.from[n - 2] == 1 && simple.from[n - 1] == simple.sizes[n - 2] && simple.total > 0 &&
      (n == 2 || simple.from[0] == simple.sizes[1] * simple.sizes[2])) {
    return VisitElementSize(request.output().dtype, [&](auto zero) {
      return TransposeMatrices<decltype(zero)>(n == 2 ? 1 : simple.sizes[0], simple.sizes[n - 1], simple.sizes[n - 2]);
    });
  }
  return CopyKernel(request, "strided_copy", std::move(copy));
}

absl::StatusOr<Kernel> MakeBroadcastTo(const KernelRequest& request) {
  const Shape& x = request.operand(0).shape;
  const Shape& y = request.output().shape;
  const Numbers strides = Strides(x);
  StridedCopy copy;
  copy.sizes = Sizes(y);
  copy.to = Strides(y);
  for (int axis = 0; axis < y.rank(); ++axis) {
    const int own = axis - (y.rank() - x.rank());
    copy.from.push_back(own < 0 || x[own].size() == 1 ? 0 : strides[own]);
  }
  return CopyKernel(request, "strided_copy", std::move(copy));
}

absl::StatusOr<Kernel> MakeSlice(const KernelRequest& request) {
  const Shape& start = request.attribute<Shape>("start");
  const Integers& steps = request.attribute<Integers>("steps");
  const Numbers strides = Strides(request.operand(0).shape);
  StridedCopy copy;
  copy.sizes = Sizes(request.output().shape);
  copy.to = Strides(request.output().shape);
  for (size_t axis = 0; axis < strides.size(); ++axis) {
    copy.from.push_back(strides[axis] * steps[axis]);
    copy.from_offset += strides[axis] * start[axis].size();
  }
  return CopyKernel(request, "strided_copy", std::move(copy));
}

absl::StatusOr<Kernel> MakeReverse(const KernelRequest& request) {
  const Integers& axes = request.attribute<Integers>("axes");
  StridedCopy copy;
  copy.sizes = Sizes(request.output().shape);
  copy.to = Strides(request.output().shape);
  copy.from = copy.to;
  for (size_t axis = 0; axis < copy.sizes.size(); ++axis) {
    if (std::find(axes.begin(), axes.end(), axis) == axes.end()) continue;
    copy.from_offset += (copy.sizes[axis] - 1) * copy.from[axis];
    copy.from[axis] = -copy.from[axis];
  }
  return CopyKernel(request, "strided_copy", std::move(copy));
}

absl::StatusOr<Kernel> MakeConcat(const KernelRequest& request) {
  const int64_t axis = request.attribute<int64_t>("axis");
  int64_t outer = 1, inner = static_cast<int64_t>(DTypeSize(request.output().dtype));
  for (int i = 0; i < axis; ++i) outer *= request.output().shape[i].size();
  for (int i = static_cast<int>(axis) + 1; i < request.output().shape.rank(); ++i)
    inner *= request.output().shape[i].size();
  auto bytes = std::make_shared<std::vector<int64_t>>();  // Of each operand in one row of the result.
  for (const TensorType& operand : request.operands) bytes->push_back(operand.shape[axis].size() * inner);
  const int64_t row = request.output().shape[axis].size() * inner;
  return Kernel{.name = "memcpy", .run = [bytes, outer, row](const KernelArguments& arguments) {
                  const int64_t grain = std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(row, 1));
                  ParallelForRange(*arguments.pool, outer, grain, [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                      char* to = arguments.output<char>() + i * row;
                      for (size_t k = 0; k < bytes->size(); ++k) {
                        const int64_t part = (*bytes)[k];
                        if (part > 0) std::memcpy(to, arguments.operand<char>(static_cast<int>(k)) + i * part, part);
                        to += part;
                      }
                    }
                  });
                  return absl::OkStatus();
                }};
}

absl::StatusOr<Kernel> MakePad(const KernelRequest& request) {
  const Shape& low = request.attribute<Shape>("low");
  const Integers& interior = request.attribute<Integers>("interior");
  const Shape& x = request.operand(0).shape;
  const Shape& y = request.output().shape;
  const Numbers from = Strides(x), to = Strides(y);
  StridedCopy copy;
  for (int axis = 0; axis < x.rank(); ++axis) {
    // Element i of x goes to low + i*step, if that is inside.
    const int64_t step = interior[axis] + 1, offset = low[axis].size();
    const int64_t first = offset >= 0 ? 0 : (-offset + step - 1) / step;
    const int64_t room = y[axis].size() - 1 - offset;
    const int64_t last = room < 0 ? -1 : std::min(x[axis].size() - 1, room / step);
    copy.sizes.push_back(std::max<int64_t>(0, last - first + 1));
    copy.from.push_back(from[axis]);
    copy.to.push_back(to[axis] * step);
    copy.from_offset += first * from[axis];
    copy.to_offset += (offset + first * step) * to[axis];
  }
  copy.Simplify();
  const double value = request.attribute<double>("value");
  const int64_t total = y.num_elements().size();
  return VisitDType(request.output().dtype, [&](auto zero) -> Kernel {
    using T = decltype(zero);
    return {.name = "fill+strided_copy",
            .run = [copy = std::make_shared<const StridedCopy>(std::move(copy)), total,
                    fill = static_cast<T>(value)](const KernelArguments& arguments) {
              T* y = arguments.output<T>();
              const int64_t grain = kGrainBytes / static_cast<int64_t>(sizeof(T));
              ParallelForRange(*arguments.pool, total, grain,
                               [&](int64_t begin, int64_t end) { std::fill(y + begin, y + end, fill); });
              RunCopy(*copy, arguments.operand<T>(0), y, *arguments.pool);
              return absl::OkStatus();
            }};
  });
}

}  // namespace

void RegisterShapeKernels(KernelRegistry& registry) {
  registry.Add("Reshape", MakeReshape);
  registry.Add("Transpose", MakeTranspose);
  registry.Add("BroadcastTo", MakeBroadcastTo);
  registry.Add("Slice", MakeSlice);
  registry.Add("Reverse", MakeReverse);
  registry.Add("Concat", MakeConcat);
  registry.Add("Pad", MakePad);
}

}  // namespace gradweave
