// Elementwise ops. Operands that are contiguous or a single element are loaded in packs of up to 16
// bytes; other operands are indexed by axis.
#include <memory>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/broadcast.h"
#include "gradweave/runtime/kernel/formula_numbers.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/strided_copy.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

using formulas::kAccepted;
using formulas::Row;
using formulas::Takes;

constexpr int kMostAxes = 8;  // After joining neighbouring axes.

// Elements of each operand that a thread loads at once: 16 bytes of the widest type.
template <typename... T>
constexpr int kPerThread = 16 / static_cast<int>(std::max({sizeof(T)...}));

// Loads up to n elements at an index. A single-element operand gives the same value everywhere.
template <int n, typename T>
__device__ Pack<T, n> LoadOperand(const T* x, bool is_vector, bool aligned, uint32_t i, uint32_t total) {
  Pack<T, n> pack;
  if (!is_vector) {
    const T value = x[0];
    for (int k = 0; k < n; ++k) pack.values[k] = value;
  } else if (aligned && i + n <= total) {
    pack = LoadPack<n>(x + i);
  } else {
    for (int k = 0; k < n; ++k) pack.values[k] = x[i + k < total ? i + k : total - 1];
  }
  return pack;
}

template <int n, typename T>
__device__ void StoreResult(T* y, const Pack<T, n>& pack, bool aligned, uint32_t i, uint32_t total) {
  if (aligned && i + n <= total) {
    StorePack<n>(y + i, pack);
  } else {
    for (int k = 0; k < n && i + k < total; ++k) y[i + k] = pack.values[k];
  }
}

// y may alias x: a thread reads only the elements that it writes.
template <typename From, typename To, typename Formula>
__global__ void __launch_bounds__(kBlock)
    UnaryElements(Formula formula, const From* x, To* y, uint32_t total, bool aligned) {
  constexpr int n = kPerThread<From, To>;
  for (uint32_t i = GlobalThread() * n; i < total; i += GlobalThreads() * n) {
    const Pack<From, n> pack = LoadOperand<n>(x, true, aligned, i, total);
    Pack<To, n> result;
    for (int k = 0; k < n; ++k) result.values[k] = formula(pack.values[k]);
    StoreResult<n>(y, result, aligned, i, total);
  }
}

template <typename From, typename To, typename Formula>
Kernel UnaryKernel(const KernelRequest& request, Formula formula) {
  const uint32_t total = static_cast<uint32_t>(NumElements(request.output()));
  Kernel kernel{.name = "elements"};
  kernel.run = [=](const KernelArguments& arguments) {
    const bool aligned = IsAligned(arguments.operands[0], 16) && IsAligned(arguments.outputs[0], 16);
    return Launch(arguments.device<CudaContext>(), "unary_elements", UnaryElements<From, To, Formula>,
                  {BlocksFor((total + kPerThread<From, To> - 1) / kPerThread<From, To>)}, {kBlock}, 0, formula,
                  arguments.operand<From>(0), arguments.output<To>(), total, aligned);
  };
  if (sizeof(From) == sizeof(To)) kernel.overwrites.push_back({0, 0});
  return kernel;
}

// Operands of an op with two or three operands. `a` is the condition of Where; `c` is unused by ops
// of two.
template <typename A, typename B, typename C>
struct Operands {
  const A* a;
  const B* b;
  const C* c;
};

// Applies a formula to the elements of the operands.
template <typename Formula, typename A, typename B, typename C>
__device__ auto Apply(Formula formula, A a, B b, C c) {
  if constexpr (std::is_same_v<Formula, formulas::Where>) {
    return formula(a, b, c);
  } else {
    return formula(a, b);
  }
}

template <typename Formula, typename A, typename B, typename C, typename To>
__global__ void __launch_bounds__(kBlock)
    VectorElements(Formula formula, Operands<A, B, C> from, uint32_t vectors, To* y, uint32_t total, bool aligned) {
  constexpr int n = kPerThread<A, B, To>;
  for (uint32_t i = GlobalThread() * n; i < total; i += GlobalThreads() * n) {
    const Pack<A, n> a = LoadOperand<n>(from.a, vectors & 1, aligned, i, total);
    const Pack<B, n> b = LoadOperand<n>(from.b, vectors & 2, aligned, i, total);
    Pack<C, n> c{};
    if constexpr (std::is_same_v<Formula, formulas::Where>) c = LoadOperand<n>(from.c, vectors & 4, aligned, i, total);
    Pack<To, n> result;
    for (int k = 0; k < n; ++k) result.values[k] = Apply(formula, a.values[k], b.values[k], c.values[k]);
    StoreResult<n>(y, result, aligned, i, total);
  }
}

struct BroadcastAxes {
  int count = 0;
  Divider sizes[kMostAxes];
  uint32_t strides[kMostAxes][3];
};

template <typename Formula, typename A, typename B, typename C, typename To>
__global__ void __launch_bounds__(kBlock)
    BroadcastElements(Formula formula, Operands<A, B, C> from, BroadcastAxes axes, To* y, uint32_t total) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t rest = i, offsets[3] = {0, 0, 0};
    for (int axis = axes.count - 1; axis >= 0; --axis) {
      uint32_t index = rest;
      rest = axes.sizes[axis].Split(index);
      for (int k = 0; k < 3; ++k) offsets[k] += index * axes.strides[axis][k];
    }
    C c{};
    if constexpr (std::is_same_v<Formula, formulas::Where>) c = from.c[offsets[2]];
    y[i] = Apply(formula, from.a[offsets[0]], from.b[offsets[1]], c);
  }
}

template <typename Formula, typename A, typename B, typename C, typename To>
absl::StatusOr<Kernel> BroadcastKernel(const KernelRequest& request) {
  const int operands = std::is_same_v<Formula, formulas::Where> ? 3 : 2;
  const BroadcastWalk walk(request.output().shape, request.operands);
  const uint32_t total = static_cast<uint32_t>(walk.total);
  auto operands_of = [](const KernelArguments& arguments) {
    Operands<A, B, C> from{arguments.operand<A>(0), arguments.operand<B>(1), nullptr};
    if constexpr (std::is_same_v<Formula, formulas::Where>) from.c = arguments.operand<C>(2);
    return from;
  };
  Kernel kernel;
  for (int i = 0; i < operands; ++i) {
    const TensorType& operand = request.operand(i);
    if (operand.shape == request.output().shape && DTypeSize(operand.dtype) == sizeof(To))
      kernel.overwrites.push_back({i, 0});
  }
  if (walk.sizes.size() == 1) {
    uint32_t vectors = 0;
    for (int i = 0; i < operands; ++i) vectors |= static_cast<uint32_t>(walk.is_vector(i)) << i;
    kernel.name = "elements";
    kernel.run = [=](const KernelArguments& arguments) {
      bool aligned = IsAligned(arguments.outputs[0], 16);
      for (int i = 0; i < operands; ++i) aligned &= IsAligned(arguments.operands[i], 16);
      constexpr int n = kPerThread<A, B, To>;
      return Launch(arguments.device<CudaContext>(), "vector_elements", VectorElements<Formula, A, B, C, To>,
                    {BlocksFor((total + n - 1) / n)}, {kBlock}, 0, Formula(), operands_of(arguments), vectors,
                    arguments.output<To>(), total, aligned);
    };
    return kernel;
  }
  if (walk.sizes.size() > kMostAxes)
    return absl::UnimplementedError(
        "CUDA kernels support at most 8 axes that alternate between broadcast and contiguous");
  BroadcastAxes axes;
  axes.count = static_cast<int>(walk.sizes.size());
  for (int axis = 0; axis < axes.count; ++axis) {
    axes.sizes[axis] = Divider(std::max<int64_t>(walk.sizes[axis], 1));
    for (int k = 0; k < 3; ++k) axes.strides[axis][k] = static_cast<uint32_t>(walk.strides[axis][k]);
  }
  kernel.name = "broadcast";
  kernel.run = [=](const KernelArguments& arguments) {
    return Launch(arguments.device<CudaContext>(), "broadcast_elements", BroadcastElements<Formula, A, B, C, To>,
                  {BlocksFor(total)}, {kBlock}, 0, Formula(), operands_of(arguments), axes, arguments.output<To>(),
                  total);
  };
  return kernel;
}

// CUDA kernels move elements of all dtypes, and compare and convert those of kComputed. Other nodes
// are placed on the CPU.
absl::Status NoKernelOfStorage() {
  return absl::UnimplementedError(absl::StrCat("the kernel takes only ", kComputed.ToString()));
}

template <Takes takes, typename Formula>
void AddUnary(KernelRegistry& registry, Row<takes, Formula> row) {
  Add(registry, row.op, [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kAccepted<takes, T>) {
        return UnaryKernel<T, T>(request, Formula());
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

template <Takes takes, typename Formula>
void AddBinary(KernelRegistry& registry, Row<takes, Formula> row) {
  Add(registry, row.op, [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    if (!kComputed.Contains(request.operand(0).dtype)) return NoKernelOfStorage();
    return VisitDType(request.operand(0).dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kAccepted<takes, T>) {
        return BroadcastKernel<Formula, T, T, T, decltype(Formula()(zero, zero))>(request);
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

template <typename Row>
void AddNumbered(KernelRegistry& registry, Row row) {
  Add(registry, row.op, [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kAccepted<Row::kTakes, T>) {
        using Formula = typename Row::template Formula<T>;
        return UnaryKernel<T, T>(request, formulas::WithNumbers<Formula, T>(NumbersOf(request.node).data()));
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

void AddOpsWithAttributes(KernelRegistry& registry) {
  Add(registry, "Cast", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    if (!kComputed.Contains(request.operand(0).dtype) || !kComputed.Contains(request.output().dtype))
      return NoKernelOfStorage();
    return VisitDType(request.operand(0).dtype, [&](auto from) {
      return VisitDType(request.output().dtype, [&](auto to) -> Kernel {
        using From = decltype(from);
        using To = decltype(to);
        if constexpr (std::is_same_v<From, To>) {
          return CopyKernel(request.output().byte_size());
        } else {
          return UnaryKernel<From, To>(request, formulas::Cast<From, To>());
        }
      });
    });
  });
  Add(registry, "StopGradient",
      [](const KernelRequest& request) -> absl::StatusOr<Kernel> { return CopyKernel(request.output().byte_size()); });
  // Elements are moved, not computed with: only their size matters.
  Add(registry, "Where", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitElementSize(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      return BroadcastKernel<formulas::Where, bool, T, T, T>(request);
    });
  });
}

}  // namespace

void RegisterElementwiseKernels(KernelRegistry& registry) {
  formulas::ForUnaryFormulas([&](auto row) { AddUnary(registry, row); });
  formulas::ForNumberedFormulas([&](auto row) { AddNumbered(registry, row); });
  formulas::ForBinaryFormulas([&](auto row) { AddBinary(registry, row); });
  formulas::ForComparisonFormulas([&](auto row) { AddBinary(registry, row); });
  AddOpsWithAttributes(registry);
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
