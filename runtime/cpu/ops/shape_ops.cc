#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "gradweave/runtime/cpu/ops/kernels.h"
#include "gradweave/runtime/kernel/axis.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/strided_copy.h"

namespace gradweave {
namespace {

constexpr int64_t kGrainBytes = 65536;

// Writes one row along the last axis.
struct CopyRow {
  template <typename T>
  void operator()(const T* x, int64_t step_from, T* y, int64_t step_to, int64_t count) const {
    if (step_from == 1 && step_to == 1) {
      // Copies of 64 bytes become vector instructions. A call would cost as much as copying a short
      // row.
      constexpr int64_t kStep = 64 / sizeof(T);
      for (; count >= kStep; count -= kStep, x += kStep, y += kStep) std::memcpy(y, x, 64);
      for (int64_t i = 0; i < count; ++i) y[i] = x[i];
    } else if (step_from == 0 && step_to == 1) {
      std::fill(y, y + count, *x);
    } else {
      for (int64_t i = 0; i < count; ++i) y[i * step_to] = x[i * step_from];
    }
  }
};

struct AddRow {
  template <typename T>
  void operator()(const T* x, int64_t step_from, T* y, int64_t step_to, int64_t count) const {
    if (step_from == 1 && step_to == 1) {
      for (int64_t i = 0; i < count; ++i) y[i] = formulas::Add()(y[i], x[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) y[i * step_to] = formulas::Add()(y[i * step_to], x[i * step_from]);
    }
  }
};

template <typename T, typename Row>
void WriteRows(const StridedCopy& copy, const T* x, T* y, int64_t begin, int64_t end, Row row_of) {
  const int last = static_cast<int>(copy.sizes.size()) - 1;
  StridedCopy::Numbers index(last, 0);
  int64_t rest = begin, from = copy.from_offset, to = copy.to_offset;
  for (int axis = last - 1; axis >= 0; --axis) {
    index[axis] = rest % copy.sizes[axis];
    rest /= copy.sizes[axis];
    from += index[axis] * copy.from[axis];
    to += index[axis] * copy.to[axis];
  }
  for (int64_t row = begin; row < end; ++row) {
    row_of(x + from, copy.from[last], y + to, copy.to[last], copy.sizes[last]);
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

template <typename T, typename Row = CopyRow>
void RunCopy(const StridedCopy& copy, const T* x, T* y, ThreadPool& pool, Row row_of = {}) {
  if (copy.total == 0) return;
  const int64_t row = copy.sizes.back();
  const int64_t grain = std::max<int64_t>(1, kGrainBytes / static_cast<int64_t>(sizeof(T)) / row);
  ParallelForRange(pool, copy.total / row, grain,
                   [&](int64_t begin, int64_t end) { WriteRows(copy, x, y, begin, end, row_of); });
}

Kernel CopyKernel(const KernelRequest& request, const char* name, StridedCopy copy) {
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

// Rows of a transposed matrix are far apart in x. Blocks of rows and columns use each cache line
// fully.
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
  StridedCopy copy = CopyOfTranspose(request);
  if (const std::optional<MatrixTransposition> transposition = AsTransposition(copy)) {
    return VisitElementSize(request.output().dtype, [&](auto zero) {
      return TransposeMatrices<decltype(zero)>(transposition->matrices, transposition->rows, transposition->columns);
    });
  }
  return CopyKernel(request, "strided_copy", std::move(copy));
}

absl::StatusOr<Kernel> MakeConcat(const KernelRequest& request) {
  const int64_t axis = request.attribute<int64_t>("axis");
  const AxisSizes sizes(request.output().shape, axis);
  const int64_t outer = sizes.outer, inner = sizes.inner * static_cast<int64_t>(DTypeSize(request.output().dtype));
  auto bytes = std::make_shared<std::vector<int64_t>>();  // Bytes of each operand in one row of the result.
  for (const TensorType& operand : request.operands) bytes->push_back(operand.shape[axis].size() * inner);
  const int64_t row = sizes.size * inner;
  return Kernel{.name = "memcpy", .run = [bytes, outer, row](const KernelArguments& arguments) {
                  if (row == 0) return absl::OkStatus();
                  const int64_t grain = std::max<int64_t>(1, kGrainBytes / row);
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
  StridedCopy copy = CopyOfPad(request);
  const Tensor value = Tensor::ScalarOf(request.output().dtype, request.attribute<double>("value"));
  const int64_t total = request.output().shape.num_elements().size();
  return VisitElementSize(request.output().dtype, [&](auto zero) -> Kernel {
    using T = decltype(zero);
    return {.name = "fill+strided_copy",
            .run = [copy = std::make_shared<const StridedCopy>(std::move(copy)), total,
                    fill = *static_cast<const T*>(value.raw_data())](const KernelArguments& arguments) {
              T* y = arguments.output<T>();
              const int64_t grain = kGrainBytes / static_cast<int64_t>(sizeof(T));
              ParallelForRange(*arguments.pool, total, grain,
                               [&](int64_t begin, int64_t end) { std::fill(y + begin, y + end, fill); });
              RunCopy(*copy, arguments.operand<T>(0), y, *arguments.pool);
              return absl::OkStatus();
            }};
  });
}

absl::StatusOr<Kernel> MakeSliceAdd(const KernelRequest& request) {
  auto copies = std::make_shared<const std::vector<StridedCopy>>(CopiesOfSliceAdd(request));
  const int64_t total = request.output().shape.num_elements().size();
  return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, bool>) {
      return absl::UnimplementedError("no kernel for this dtype");
    } else {
      return Kernel{.name = "add_slices",
                    .run =
                        [copies, total](const KernelArguments& arguments) {
                          T* y = arguments.output<T>();
                          if (arguments.operands[0] != arguments.outputs[0] && total > 0)
                            std::memcpy(y, arguments.operands[0], total * sizeof(T));
                          for (size_t k = 0; k < copies->size(); ++k)
                            RunCopy((*copies)[k], arguments.operand<T>(static_cast<int>(k) + 1), y, *arguments.pool,
                                    AddRow());
                          return absl::OkStatus();
                        },
                    .overwrites = {{0, 0}}};
    }
  });
}

}  // namespace

void RegisterShapeKernels(KernelRegistry& registry) {
  registry.Add("Reshape", MakeCopyOfOperand);
  registry.Add("Transpose", MakeTranspose);
  registry.Add("BroadcastTo", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return CopyKernel(request, "strided_copy", CopyOfBroadcastTo(request));
  });
  registry.Add("Slice", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return CopyKernel(request, "strided_copy", CopyOfSlice(request));
  });
  registry.Add("Reverse", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return CopyKernel(request, "strided_copy", CopyOfReverse(request));
  });
  registry.Add("Concat", MakeConcat);
  registry.Add("SliceAdd", MakeSliceAdd);
  registry.Add("Pad", MakePad);
}

}  // namespace gradweave
