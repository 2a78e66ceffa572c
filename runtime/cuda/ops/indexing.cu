// Gather, scatter and one-hot. A bad index is reported; it causes no access out of bounds.
#include <string>
#include <type_traits>

#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/strided_copy.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

template <typename Index>
__device__ bool IsInside(Index index, int64_t size) {
  return index >= 0 && static_cast<int64_t>(index) < size;
}

// Gathers y [outer, count, inner] from x [outer, size, inner]. Unless it is checked, a bad index
// gives zeros.
template <typename T, typename Index, bool kChecked>
__global__ void __launch_bounds__(kBlock)
    GatherElements(const T* x, const Index* indices, T* y, uint32_t total, Divider count, Divider inner, int64_t size,
                   int32_t* error, int32_t code) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t column = i;
    uint32_t k = inner.Split(column);
    const uint32_t outer = count.Split(k);
    const Index index = indices[k];
    if (!IsInside(index, size)) {
      if constexpr (kChecked) {
        ReportError(error, code);
      } else {
        y[i] = T{};
      }
      continue;
    }
    y[i] = x[(static_cast<size_t>(outer) * size + index) * inner.divisor + column];
  }
}

// Makes the kernel of Gather, or of TakeRows if kChecked is false.
template <bool kChecked>
absl::StatusOr<Kernel> MakeGather(const KernelRequest& request) {
  const AxisSizes axis(request.operand(0).shape, kChecked ? request.attribute<int64_t>("axis") : 0);
  const int64_t count = NumElements(request.operand(1)),
                bytes = static_cast<int64_t>(DTypeSize(request.output().dtype));
  const int32_t code = ErrorCode(request);
  return VisitIndices(request.operand(1).dtype, [&](auto index_zero) {
    using Index = decltype(index_zero);
    return VisitElementSize(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      const int64_t unit = static_cast<int64_t>(sizeof(Wide)) / bytes;
      auto run = [=](const KernelArguments& arguments, auto element, int64_t inner) {
        using Element = decltype(element);
        const uint32_t total = static_cast<uint32_t>(axis.outer * count * inner);
        return Launch(arguments.device<CudaContext>(), "gather_elements", GatherElements<Element, Index, kChecked>,
                      {BlocksFor(total)}, {kBlock}, 0, arguments.operand<Element>(0), arguments.operand<Index>(1),
                      arguments.output<Element>(), total, Divider(std::max<int64_t>(count, 1)),
                      Divider(std::max<int64_t>(inner, 1)), axis.size, arguments.device<CudaContext>().error, code);
      };
      return Kernel{.name = "gather",
                    .run =
                        [=](const KernelArguments& arguments) {
                          if (axis.inner % unit == 0 && IsAligned(arguments.operands[0], sizeof(Wide)) &&
                              IsAligned(arguments.outputs[0], sizeof(Wide)))
                            return run(arguments, Wide{}, axis.inner / unit);
                          return run(arguments, T{}, axis.inner);
                        },
                    .fallible = kChecked};
    });
  });
}

// Takes the update in place of the element.
struct Last {
  template <typename T>
  __device__ T operator()(T, T update) const {
    return update;
  }
};

// Combines rows of y [outer, size, inner] with updates [outer, count, inner]. The work is divided into
// `pieces` of `rows` rows of y and 32 elements of inner. A warp with a piece reads 32 indices at a
// time and takes the updates of its rows in the order of the indices. Updates with equal indices are
// thus taken in order, and no two threads write the same element.
template <typename T, typename Index, typename Combine>
__global__ void __launch_bounds__(kBlock)
    ScatterRows(const Index* indices, const T* updates, T* y, uint32_t count, int64_t size, uint32_t inner,
                uint32_t rows, Divider parts, Divider strips, uint32_t pieces, int32_t* error, int32_t code) {
  constexpr uint32_t kWarps = kBlock / kWarp;
  const uint32_t lane = threadIdx.x % kWarp;
  for (uint32_t piece = blockIdx.x * kWarps + threadIdx.x / kWarp; piece < pieces; piece += gridDim.x * kWarps) {
    uint32_t strip = piece;
    uint32_t part = strips.Split(strip);
    const uint32_t outer = parts.Split(part);
    const int64_t first = static_cast<int64_t>(part) * rows, last = first + rows;
    const uint32_t column = strip * kWarp + lane;
    for (uint32_t start = 0; start < count; start += kWarp) {
      int64_t index = -1;
      if (start + lane < count) {
        index = static_cast<int64_t>(indices[start + lane]);
        if (!IsInside(index, size)) ReportError(error, code);
      }
      unsigned mine = __ballot_sync(kAllLanes, index >= first && index < last && index < size);
      while (mine != 0) {
        const int source = __ffs(mine) - 1;
        mine &= mine - 1;
        const int64_t row = __shfl_sync(kAllLanes, index, source);
        if (column < inner) {
          T& target = y[(outer * size + row) * inner + column];
          target = Combine()(target, updates[(static_cast<size_t>(outer) * count + start + source) * inner + column]);
        }
      }
    }
  }
}

template <typename Combine>
absl::StatusOr<Kernel> MakeScatter(const KernelRequest& request) {
  const AxisSizes axis(request.operand(0).shape, request.attribute<int64_t>("axis"));
  const uint32_t count = static_cast<uint32_t>(NumElements(request.operand(1)));
  const size_t bytes = request.output().byte_size();
  const int32_t code = ErrorCode(request);
  // Every part of the rows scans all indices, but more parts add in parallel.
  constexpr int64_t kMostParts = 256;
  const uint32_t rows = static_cast<uint32_t>(std::max<int64_t>(1, (axis.size + kMostParts - 1) / kMostParts));
  const int64_t parts = (axis.size + rows - 1) / rows, strips = (axis.inner + kWarp - 1) / kWarp;
  // There are at most as many pieces as elements of y.
  const uint32_t pieces = static_cast<uint32_t>(axis.outer * parts * strips);
  return VisitIndices(request.operand(1).dtype, [&](auto index_zero) -> absl::StatusOr<Kernel> {
    using Index = decltype(index_zero);
    const auto make = [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      const Kernel copy = CopyKernel(bytes);
      return Kernel{.name = "scatter",
                    .run =
                        [=](const KernelArguments& arguments) {
                          GW_RETURN_IF_ERROR(copy.run(arguments));
                          return Launch(arguments.device<CudaContext>(), "scatter_rows", ScatterRows<T, Index, Combine>,
                                        {BlocksFor(pieces, kBlock / kWarp)}, {kBlock}, 0, arguments.operand<Index>(1),
                                        arguments.operand<T>(2), arguments.output<T>(), count, axis.size,
                                        static_cast<uint32_t>(axis.inner), rows, Divider(std::max<int64_t>(parts, 1)),
                                        Divider(std::max<int64_t>(strips, 1)), pieces,
                                        arguments.device<CudaContext>().error, code);
                        },
                    .fallible = true,
                    .overwrites = {{0, 0}}};
    };
    if constexpr (std::is_same_v<Combine, Last>) {
      return VisitElementSize(request.output().dtype, make);
    } else {
      return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
        if constexpr (std::is_same_v<decltype(zero), bool>) {
          return absl::UnimplementedError("no kernel for this dtype");
        } else {
          return make(zero);
        }
      });
    }
  });
}

absl::StatusOr<Kernel> MakeScatterByReduction(const KernelRequest& request) {
  const std::string& reduction = request.attribute<std::string>("reduction");
  if (reduction == "mul") return MakeScatter<formulas::Mul>(request);
  if (reduction == "max") return MakeScatter<formulas::Maximum>(request);
  if (reduction == "min") return MakeScatter<formulas::Minimum>(request);
  return MakeScatter<Last>(request);
}

// y [count, inner]: each row is the sum of all rows with an equal index, in order. A warp reads 32
// indices at a time for 32 elements of a row.
template <typename T, typename Index>
__global__ void __launch_bounds__(kBlock) SumEqualRows(const Index* indices, const T* rows, T* y, uint32_t count,
                                                       uint32_t inner, Divider strips, uint32_t pieces) {
  constexpr uint32_t kWarps = kBlock / kWarp;
  const uint32_t lane = threadIdx.x % kWarp;
  for (uint32_t piece = blockIdx.x * kWarps + threadIdx.x / kWarp; piece < pieces; piece += gridDim.x * kWarps) {
    uint32_t strip = piece;
    const uint32_t row = strips.Split(strip), column = strip * kWarp + lane;
    const Index index = indices[row];
    T sum = 0;
    for (uint32_t start = 0; start < count; start += kWarp) {
      unsigned equal = __ballot_sync(kAllLanes, start + lane < count && indices[start + lane] == index);
      while (equal != 0) {
        const int source = __ffs(equal) - 1;
        equal &= equal - 1;
        if (column < inner) sum = formulas::Add()(sum, rows[(static_cast<size_t>(start) + source) * inner + column]);
      }
    }
    if (column < inner) y[static_cast<size_t>(row) * inner + column] = sum;
  }
}

// Writes the rows to y [size, inner], each unless a later one has the same index.
template <typename T, typename Index>
__global__ void __launch_bounds__(kBlock) PutLastRows(const Index* indices, const T* rows, T* y, uint32_t count,
                                                      int64_t size, uint32_t inner, Divider strips, uint32_t pieces) {
  constexpr uint32_t kWarps = kBlock / kWarp;
  const uint32_t lane = threadIdx.x % kWarp;
  for (uint32_t piece = blockIdx.x * kWarps + threadIdx.x / kWarp; piece < pieces; piece += gridDim.x * kWarps) {
    uint32_t strip = piece;
    const uint32_t row = strips.Split(strip), column = strip * kWarp + lane;
    const Index index = indices[row];
    bool last = IsInside(index, size);
    for (uint32_t start = row + 1; start < count && last; start += kWarp)
      last = __ballot_sync(kAllLanes, start + lane < count && indices[start + lane] == index) == 0;
    if (last && column < inner)
      y[static_cast<size_t>(index) * inner + column] = rows[static_cast<size_t>(row) * inner + column];
  }
}

// Makes the kernel of SumRows or PutRows, both of which give each warp 32 elements of a row.
// `first` is the operand with the indices.
template <typename RunRows>
absl::StatusOr<Kernel> MakeOfRows(const KernelRequest& request, const char* name, int first, RunRows run_rows) {
  const uint32_t count = static_cast<uint32_t>(NumElements(request.operand(first)));
  const uint32_t inner = count == 0 ? 0 : static_cast<uint32_t>(NumElements(request.operand(first + 1)) / count);
  const uint32_t strips = (inner + kWarp - 1) / kWarp;
  return VisitIndices(request.operand(first).dtype, [&](auto index_zero) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      if constexpr (std::is_same_v<decltype(zero), bool>) {
        return absl::UnimplementedError("no kernel for this dtype");
      } else {
        return Kernel{.name = name, .run = [=](const KernelArguments& arguments) {
                        return run_rows(arguments, zero, index_zero, count, inner,
                                        Divider(std::max<int64_t>(strips, 1)), count * strips);
                      }};
      }
    });
  });
}

absl::StatusOr<Kernel> MakeSumRows(const KernelRequest& request) {
  return MakeOfRows(request, "sum_rows", 0,
                    [](const KernelArguments& arguments, auto zero, auto index_zero, uint32_t count, uint32_t inner,
                       Divider strips, uint32_t pieces) {
                      using T = decltype(zero);
                      using Index = decltype(index_zero);
                      return Launch(arguments.device<CudaContext>(), "sum_rows", SumEqualRows<T, Index>,
                                    {BlocksFor(pieces, kBlock / kWarp)}, {kBlock}, 0, arguments.operand<Index>(0),
                                    arguments.operand<T>(1), arguments.output<T>(), count, inner, strips, pieces);
                    });
}

absl::StatusOr<Kernel> MakePutRows(const KernelRequest& request) {
  const Kernel copy = CopyKernel(request.output().byte_size());
  const int64_t size = request.output().shape[0].size();
  absl::StatusOr<Kernel> kernel =
      MakeOfRows(request, "put_rows", 1,
                 [=](const KernelArguments& arguments, auto zero, auto index_zero, uint32_t count, uint32_t inner,
                     Divider strips, uint32_t pieces) {
                   using T = decltype(zero);
                   using Index = decltype(index_zero);
                   GW_RETURN_IF_ERROR(copy.run(arguments));
                   return Launch(arguments.device<CudaContext>(), "put_rows", PutLastRows<T, Index>,
                                 {BlocksFor(pieces, kBlock / kWarp)}, {kBlock}, 0, arguments.operand<Index>(1),
                                 arguments.operand<T>(2), arguments.output<T>(), count, size, inner, strips, pieces);
                 });
  if (kernel.ok()) kernel->overwrites = {{0, 0}};
  return kernel;
}

template <typename T, typename Index>
__global__ void __launch_bounds__(kBlock)
    OneHotElements(const Index* indices, T* y, uint32_t total, Divider depth, int32_t* error, int32_t code) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t position = i;
    const Index index = indices[depth.Split(position)];
    if (!IsInside(index, depth.divisor)) {
      ReportError(error, code);
      continue;
    }
    y[i] = static_cast<T>(static_cast<int64_t>(index) == static_cast<int64_t>(position));
  }
}

__global__ void ReportBadIndices(int32_t* error, int32_t code) { ReportError(error, code); }

absl::StatusOr<Kernel> MakeOneHot(const KernelRequest& request) {
  const uint32_t count = static_cast<uint32_t>(NumElements(request.operand(0)));
  const int64_t depth = request.attribute<int64_t>("depth");
  const uint32_t total = static_cast<uint32_t>(NumElements(request.output()));
  const int32_t code = ErrorCode(request);
  return VisitIndices(request.operand(0).dtype, [&](auto index_zero) -> absl::StatusOr<Kernel> {
    using Index = decltype(index_zero);
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      return Kernel{.name = "one_hot",
                    .run =
                        [=](const KernelArguments& arguments) {
                          // With depth 0, every index is out of range.
                          if (depth == 0) {
                            return Launch(arguments.device<CudaContext>(), "report_bad_indices", ReportBadIndices,
                                          {count > 0 ? 1u : 0u}, {1}, 0, arguments.device<CudaContext>().error, code);
                          }
                          return Launch(arguments.device<CudaContext>(), "one_hot_elements", OneHotElements<T, Index>,
                                        {BlocksFor(total)}, {kBlock}, 0, arguments.operand<Index>(0),
                                        arguments.output<T>(), total, Divider(depth),
                                        arguments.device<CudaContext>().error, code);
                        },
                    .fallible = true};
    });
  });
}

}  // namespace

void RegisterIndexingKernels(KernelRegistry& registry) {
  Add(registry, "Gather", MakeGather<true>);
  Add(registry, "ScatterAdd", MakeScatter<formulas::Add>);
  Add(registry, "Scatter", MakeScatterByReduction);
  Add(registry, "TakeRows", MakeGather<false>);
  Add(registry, "PutRows", MakePutRows);
  Add(registry, "SumRows", MakeSumRows);
  Add(registry, "OneHot", MakeOneHot);
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
