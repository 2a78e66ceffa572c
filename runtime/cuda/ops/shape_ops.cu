// Ops that move elements: strided copies in units as wide as possible, and transpositions through
// shared memory.
#include <memory>
#include <type_traits>
#include <vector>

#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/strided_copy.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

constexpr int kMostAxes = 8;  // After joining neighbouring axes.

struct CopyAxes {
  int count = 0;
  Divider sizes[kMostAxes];
  int32_t from[kMostAxes], to[kMostAxes];
  int32_t from_offset = 0, to_offset = 0;
  uint32_t total = 0;
};

// Returns the copy in units of `unit` elements of the last axis.
CopyAxes AxesOf(const StridedCopy& copy, int64_t unit) {
  CopyAxes axes;
  axes.count = static_cast<int>(copy.sizes.size());
  for (int i = 0; i < axes.count; ++i) {
    const bool last = i + 1 == axes.count;
    axes.sizes[i] = Divider(std::max<int64_t>(1, last ? copy.sizes[i] / unit : copy.sizes[i]));
    // Along the last axis, units are adjacent.
    axes.from[i] = static_cast<int32_t>(last && unit > 1 ? 1 : copy.from[i] / unit);
    axes.to[i] = static_cast<int32_t>(last && unit > 1 ? 1 : copy.to[i] / unit);
  }
  axes.from_offset = static_cast<int32_t>(copy.from_offset / unit);
  axes.to_offset = static_cast<int32_t>(copy.to_offset / unit);
  axes.total = static_cast<uint32_t>(copy.total / unit);
  return axes;
}

// Returns true if all rows and strides of the copy are multiples of such units.
bool TakesUnits(const StridedCopy& copy, int64_t unit) {
  const size_t last = copy.sizes.size() - 1;
  if (copy.from[last] != 1 || copy.to[last] != 1 || copy.sizes[last] % unit != 0) return false;
  if (copy.from_offset % unit != 0 || copy.to_offset % unit != 0) return false;
  for (size_t i = 0; i < last; ++i) {
    if (copy.from[i] % unit != 0 || copy.to[i] % unit != 0) return false;
  }
  return true;
}

// y[..] = x[..], or y[..] + x[..] with kAdd, at the places of the copy.
template <typename T, bool kAdd>
__global__ void __launch_bounds__(kBlock) CopyElements(CopyAxes axes, const T* x, T* y) {
  for (uint32_t i = GlobalThread(); i < axes.total; i += GlobalThreads()) {
    uint32_t rest = i;
    int32_t from = axes.from_offset, to = axes.to_offset;
    for (int axis = axes.count - 1; axis >= 0; --axis) {
      uint32_t index = rest;
      rest = axes.sizes[axis].Split(index);
      from += static_cast<int32_t>(index) * axes.from[axis];
      to += static_cast<int32_t>(index) * axes.to[axis];
    }
    if constexpr (kAdd) {
      y[to] = formulas::Add()(y[to], x[from]);
    } else {
      y[to] = x[from];
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock) FillElements(T value, T* y, uint32_t total) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) y[i] = value;
}

// A strided copy prepared for launches.
struct PreparedCopy {
  CopyAxes axes, wide_axes;
  bool has_wide = false;
};

absl::StatusOr<PreparedCopy> Prepare(const StridedCopy& copy, int64_t element_bytes) {
  if (copy.sizes.size() > kMostAxes) return absl::UnimplementedError("CUDA kernels copy along at most 8 axes");
  PreparedCopy prepared{.axes = AxesOf(copy, 1)};
  const int64_t unit = static_cast<int64_t>(sizeof(Wide)) / element_bytes;
  prepared.has_wide = TakesUnits(copy, unit);
  if (prepared.has_wide) prepared.wide_axes = AxesOf(copy, unit);
  return prepared;
}

template <typename T>
absl::Status RunCopy(const CudaContext& context, const PreparedCopy& copy, const void* x, void* y) {
  if (copy.has_wide && IsAligned(x, sizeof(Wide)) && IsAligned(y, sizeof(Wide))) {
    return Launch(context, "copy_elements", CopyElements<Wide, false>, {BlocksFor(copy.wide_axes.total)}, {kBlock}, 0,
                  copy.wide_axes, static_cast<const Wide*>(x), static_cast<Wide*>(y));
  }
  return Launch(context, "copy_elements", CopyElements<T, false>, {BlocksFor(copy.axes.total)}, {kBlock}, 0, copy.axes,
                static_cast<const T*>(x), static_cast<T*>(y));
}

absl::StatusOr<Kernel> StridedCopyKernel(const KernelRequest& request, const StridedCopy& copy) {
  return VisitElementSize(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    GW_ASSIGN_OR_RETURN(PreparedCopy prepared, Prepare(copy, sizeof(T)));
    return Kernel{.name = prepared.has_wide ? "wide_copy" : "strided_copy",
                  .run = [prepared = std::make_shared<const PreparedCopy>(prepared)](const KernelArguments& arguments) {
                    return RunCopy<T>(arguments.device<CudaContext>(), *prepared, arguments.operands[0],
                                      arguments.outputs[0]);
                  }};
  });
}

constexpr int kTile = 32, kTileRows = 8;

// y [matrices, columns, rows] = x [matrices, rows, columns]. Each block of 32 by 8 threads
// transposes a tile of 32 by 32. A row of the tile has one element of padding, so that the elements
// of a column lie in different banks.
template <typename T>
__global__ void __launch_bounds__(kTile* kTileRows)
    TransposeTiles(const T* x, T* y, uint32_t rows, uint32_t columns, uint32_t row_tiles, Divider column_tiles) {
  GRADWEAVE_SHARED(T, tile, [kTile][kTile + 1]);
  uint32_t column_tile = blockIdx.x;
  uint32_t row_tile = column_tiles.Split(column_tile);
  const uint32_t matrix = row_tile / row_tiles;
  row_tile -= matrix * row_tiles;
  const size_t start = static_cast<size_t>(matrix) * rows * columns;
  for (uint32_t k = threadIdx.y; k < kTile; k += kTileRows) {
    const uint32_t row = row_tile * kTile + k, column = column_tile * kTile + threadIdx.x;
    if (row < rows && column < columns) tile[k][threadIdx.x] = x[start + row * columns + column];
  }
  __syncthreads();
  for (uint32_t k = threadIdx.y; k < kTile; k += kTileRows) {
    const uint32_t column = column_tile * kTile + k, row = row_tile * kTile + threadIdx.x;
    if (row < rows && column < columns) y[start + column * rows + row] = tile[threadIdx.x][k];
  }
}

absl::StatusOr<Kernel> MakeTranspose(const KernelRequest& request) {
  const StridedCopy copy = CopyOfTranspose(request);
  const std::optional<MatrixTransposition> matrices = AsTransposition(copy);
  if (!matrices.has_value()) return StridedCopyKernel(request, copy);
  const uint32_t rows = static_cast<uint32_t>(matrices->rows), columns = static_cast<uint32_t>(matrices->columns);
  const uint32_t row_tiles = (rows + kTile - 1) / kTile, column_tiles = (columns + kTile - 1) / kTile;
  const unsigned blocks = static_cast<unsigned>(matrices->matrices) * row_tiles * column_tiles;
  return VisitElementSize(request.output().dtype, [&](auto zero) -> Kernel {
    using T = decltype(zero);
    return {.name = "transpose_tiles", .run = [=](const KernelArguments& arguments) {
              return Launch(arguments.device<CudaContext>(), "transpose_tiles", TransposeTiles<T>, {blocks},
                            {kTile, kTileRows}, 0, arguments.operand<T>(0), arguments.output<T>(), rows, columns,
                            row_tiles, Divider(column_tiles));
            }};
  });
}

// Copies each operand to its rows of the result.
absl::StatusOr<Kernel> MakeConcat(const KernelRequest& request) {
  const AxisSizes axis(request.output().shape, request.attribute<int64_t>("axis"));
  const int64_t row = axis.size * axis.inner;
  return VisitElementSize(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    auto copies = std::make_shared<std::vector<PreparedCopy>>();
    int64_t offset = 0;
    for (const TensorType& operand : request.operands) {
      const int64_t part = axis.outer * axis.inner == 0 ? 0 : NumElements(operand) / axis.outer;
      StridedCopy copy;
      copy.sizes = {axis.outer, part};
      copy.from = {part, 1};
      copy.to = {row, 1};
      copy.to_offset = offset;
      copy.Simplify();
      GW_ASSIGN_OR_RETURN(PreparedCopy prepared, Prepare(copy, sizeof(T)));
      copies->push_back(prepared);
      offset += part;
    }
    return Kernel{.name = "strided_copies", .run = [copies](const KernelArguments& arguments) {
                    for (size_t k = 0; k < copies->size(); ++k) {
                      GW_RETURN_IF_ERROR(RunCopy<T>(arguments.device<CudaContext>(), (*copies)[k],
                                                    arguments.operands[k], arguments.outputs[0]));
                    }
                    return absl::OkStatus();
                  }};
  });
}

absl::StatusOr<Kernel> MakePad(const KernelRequest& request) {
  const StridedCopy copy = CopyOfPad(request);
  const Tensor value = Tensor::ScalarOf(request.output().dtype, request.attribute<double>("value"));
  const uint32_t total = static_cast<uint32_t>(NumElements(request.output()));
  return VisitElementSize(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    GW_ASSIGN_OR_RETURN(PreparedCopy prepared, Prepare(copy, sizeof(T)));
    return Kernel{.name = "fill+strided_copy",
                  .run = [prepared = std::make_shared<const PreparedCopy>(prepared), total,
                          fill = *static_cast<const T*>(value.raw_data())](const KernelArguments& arguments) {
                    GW_RETURN_IF_ERROR(Launch(arguments.device<CudaContext>(), "fill_elements", FillElements<T>,
                                              {BlocksFor(total)}, {kBlock}, 0, fill, arguments.output<T>(), total));
                    return RunCopy<T>(arguments.device<CudaContext>(), *prepared, arguments.operands[0],
                                      arguments.outputs[0]);
                  }};
  });
}

// Adds the parts one after the other, so that overlapping slices add up in order.
absl::StatusOr<Kernel> MakeSliceAdd(const KernelRequest& request) {
  const Kernel copy_x = CopyKernel(request.output().byte_size());
  return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, bool>) {
      return absl::UnimplementedError("no kernel for this dtype");
    } else {
      auto parts = std::make_shared<std::vector<CopyAxes>>();
      for (const StridedCopy& copy : CopiesOfSliceAdd(request)) {
        GW_ASSIGN_OR_RETURN(PreparedCopy prepared, Prepare(copy, sizeof(T)));
        parts->push_back(prepared.axes);
      }
      return Kernel{
          .name = "add_slices",
          .run =
              [parts, copy_x](const KernelArguments& arguments) {
                GW_RETURN_IF_ERROR(copy_x.run(arguments));
                for (size_t k = 0; k < parts->size(); ++k) {
                  GW_RETURN_IF_ERROR(Launch(arguments.device<CudaContext>(), "add_slices", CopyElements<T, true>,
                                            {BlocksFor((*parts)[k].total)}, {kBlock}, 0, (*parts)[k],
                                            arguments.operand<T>(static_cast<int>(k) + 1), arguments.output<T>()));
                }
                return absl::OkStatus();
              },
          .overwrites = {{0, 0}}};
    }
  });
}

}  // namespace

void RegisterShapeKernels(KernelRegistry& registry) {
  Add(registry, "Reshape",
      [](const KernelRequest& request) -> absl::StatusOr<Kernel> { return CopyKernel(request.output().byte_size()); });
  Add(registry, "Transpose", MakeTranspose);
  Add(registry, "BroadcastTo",
      [](const KernelRequest& request) { return StridedCopyKernel(request, CopyOfBroadcastTo(request)); });
  Add(registry, "Slice", [](const KernelRequest& request) { return StridedCopyKernel(request, CopyOfSlice(request)); });
  Add(registry, "Reverse",
      [](const KernelRequest& request) { return StridedCopyKernel(request, CopyOfReverse(request)); });
  Add(registry, "Concat", MakeConcat);
  Add(registry, "SliceAdd", MakeSliceAdd);
  Add(registry, "Pad", MakePad);
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
