#include <cstddef>
#include <memory>

#include "gradweave/graph/convert_elements.h"
#include "gradweave/runtime/cpu/ops/kernels.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/broadcast.h"
#include "gradweave/runtime/kernel/formula_numbers.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/strided_copy.h"

namespace gradweave {
namespace {

// Minimum elements of a chunk that are worth waking another thread.
constexpr int64_t kGrain = 16384;

using formulas::kAccepted;
using formulas::kIsFloating;
using formulas::Row;
using formulas::Takes;

// Returns true if the tensors have the same size and layout, so that one may overwrite the other.
bool SameBytes(const TensorType& a, const TensorType& b) {
  return DTypeSize(a.dtype) == DTypeSize(b.dtype) && a.shape == b.shape;
}

// ---- One operand ----

// Makes a kernel that calls loop(x, y, n) for parts of the elements.
template <typename From, typename To, typename Loop>
Kernel UnaryKernel(const KernelRequest& request, const char* name, Loop loop) {
  Kernel kernel{.name = name};
  const int64_t total = request.output().shape.num_elements().size();
  kernel.run = [loop, total](const KernelArguments& arguments) {
    const From* x = arguments.operand<From>(0);
    To* y = arguments.output<To>();
    ParallelForRange(*arguments.pool, total, kGrain,
                     [&](int64_t begin, int64_t end) { loop(x + begin, y + begin, end - begin); });
    return absl::OkStatus();
  };
  if (SameBytes(request.operand(0), request.output())) kernel.overwrites.push_back({0, 0});
  return kernel;
}

// Makes the same kernel from a function of one element.
template <typename From, typename To, typename Function>
Kernel ElementKernel(const KernelRequest& request, Function function) {
  return UnaryKernel<From, To>(request, "scalar", [function](const From* x, To* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = function(x[i]);
  });
}

// A kernel of the op's loop, which takes operands that are whole or one element.
Kernel LoopKernel(const KernelRequest& request, ElementLoop loop);

// The loop of a node whose operands have this dtype or are bool; null for integers.
ElementLoop FindLoop(const KernelRequest& request, DType dtype) {
  return IsFloating(dtype) ? FindElementLoop(request.node.op->name, dtype) : ElementLoop{};
}

// Registers an op of one operand by its formula. The loop of floating elements takes precedence.
template <Takes takes, typename Formula>
void AddUnary(KernelRegistry& registry, Row<takes, Formula> row) {
  registry.Add(row.op, [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    if (const ElementLoop loop = FindLoop(request, request.output().dtype)) return LoopKernel(request, loop);
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kAccepted<takes, T> && !kIsFloating<T>) {
        return ElementKernel<T, T>(request, Formula());
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

// The same of an op with numbers.
template <typename Row>
void AddNumbered(KernelRegistry& registry, Row row) {
  registry.Add(row.op, [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    if (const ElementLoop loop = FindLoop(request, request.output().dtype)) return LoopKernel(request, loop);
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kAccepted<Row::kTakes, T> && !kIsFloating<T>) {
        using Formula = typename Row::template Formula<T>;
        return ElementKernel<T, T>(request, formulas::WithNumbers<Formula, T>(NumbersOf(request.node).data()));
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

// Makes the kernel of a cast from or to a dtype outside of kComputed.
Kernel StorageCastKernel(const KernelRequest& request) {
  Kernel kernel{.name = "convert"};
  const DType from = request.operand(0).dtype, to = request.output().dtype;
  const int64_t total = request.output().shape.num_elements().size();
  kernel.run = [=](const KernelArguments& arguments) {
    const auto* x = arguments.operand<std::byte>(0);
    auto* y = arguments.output<std::byte>();
    ParallelForRange(*arguments.pool, total, kGrain, [&](int64_t begin, int64_t end) {
      ConvertElements(from, x + begin * DTypeSize(from), to, y + begin * DTypeSize(to), end - begin);
    });
    return absl::OkStatus();
  };
  if (SameBytes(request.operand(0), request.output())) kernel.overwrites.push_back({0, 0});
  return kernel;
}

void RegisterWithAttributes(KernelRegistry& registry) {
  registry.Add("Cast", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    if (!kComputed.Contains(request.operand(0).dtype) || !kComputed.Contains(request.output().dtype))
      return StorageCastKernel(request);
    return VisitDType(request.operand(0).dtype, [&](auto from) {
      return VisitDType(request.output().dtype, [&](auto to) {
        return ElementKernel<decltype(from), decltype(to)>(request, formulas::Cast<decltype(from), decltype(to)>());
      });
    });
  });
  registry.Add("StopGradient", MakeCopyOfOperand);
}

// ---- Two and three operands that broadcast ----

// Makes a kernel that calls loop(offsets, result offset, count) for runs in which each operand is
// contiguous or a single element.
template <typename Loop>
Kernel BroadcastKernel(const KernelRequest& request, const char* name, Loop loop) {
  Kernel kernel{.name = name};
  auto walk = std::make_shared<const BroadcastWalk>(request.output().shape, request.operands);
  for (int i = 0; i < static_cast<int>(request.operands.size()); ++i) {
    if (SameBytes(request.operand(i), request.output())) kernel.overwrites.push_back({i, 0});
  }
  kernel.run = [walk, loop](const KernelArguments& arguments) {
    ParallelForRange(*arguments.pool, walk->total, kGrain, [&](int64_t begin, int64_t end) {
      walk->ForRuns(begin, end, [&](const auto& offsets, int64_t to, int64_t count) {
        loop(*walk, arguments, offsets, to, count);
      });
    });
    return absl::OkStatus();
  };
  return kernel;
}

template <typename T, typename Result, typename Function>
Kernel BinaryElementKernel(const KernelRequest& request, Function function) {
  return BroadcastKernel(request, "scalar",
                         [function](const BroadcastWalk& walk, const KernelArguments& arguments, const auto& offsets,
                                    int64_t to, int64_t count) {
                           const T* a = arguments.operand<T>(0) + offsets[0];
                           const T* b = arguments.operand<T>(1) + offsets[1];
                           Result* y = arguments.output<Result>() + to;
                           const int64_t step_a = walk.is_vector(0), step_b = walk.is_vector(1);
                           for (int64_t i = 0; i < count; ++i) y[i] = function(a[i * step_a], b[i * step_b]);
                         });
}

Kernel LoopKernel(const KernelRequest& request, ElementLoop loop) {
  auto sizes = [](DType dtype) { return static_cast<int64_t>(DTypeSize(dtype)); };
  absl::InlinedVector<int64_t, 3> bytes;
  for (const TensorType& operand : request.operands) bytes.push_back(sizes(operand.dtype));
  return BroadcastKernel(
      request, loop.is_vector ? "vector" : "scalar",
      [loop, bytes, result_bytes = sizes(request.output().dtype), numbers = NumbersOf(request.node)](
          const BroadcastWalk& walk, const KernelArguments& arguments, const auto& offsets, int64_t to, int64_t count) {
        LoopOperand operands[3];
        for (size_t i = 0; i < bytes.size(); ++i)
          operands[i] = {arguments.operand<std::byte>(static_cast<int>(i)) + offsets[i] * bytes[i],
                         walk.is_vector(static_cast<int>(i))};
        loop.run(operands, arguments.output<std::byte>() + to * result_bytes, count, numbers.data());
      });
}

// Registers an op of two operands by its formula, as AddUnary does.
template <Takes takes, typename Formula>
void AddBinary(KernelRegistry& registry, Row<takes, Formula> row) {
  registry.Add(row.op, [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    if (const ElementLoop loop = FindLoop(request, request.operand(0).dtype)) return LoopKernel(request, loop);
    return VisitDType(request.operand(0).dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kAccepted<takes, T> && !kIsFloating<T>) {
        return BinaryElementKernel<T, decltype(Formula()(zero, zero))>(request, Formula());
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

// y[i] = f(a[i], b[i]) for a comparison f of a dtype outside of kComputed, as a LoopFunction.
template <typename Formula, typename T>
void CompareStored(const LoopOperand* operands, void* y, int64_t n, const double*) {
  const T* a = static_cast<const T*>(operands[0].data);
  const T* b = static_cast<const T*>(operands[1].data);
  bool* const to = static_cast<bool*>(y);
  const int64_t step_a = operands[0].is_vector, step_b = operands[1].is_vector;
  for (int64_t i = 0; i < n; ++i) to[i] = Formula()(a[i * step_a], b[i * step_b]);
}

// Registers a comparison, which takes every dtype.
template <Takes takes, typename Formula>
void AddComparison(KernelRegistry& registry, Row<takes, Formula> row) {
  AddBinary(registry, row);
  const KernelFactory computed = *registry.Find(row.op);
  registry.Add(row.op, [computed](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const DType dtype = request.operand(0).dtype;
    if (kComputed.Contains(dtype)) return computed(request);
    return VisitAnyDType(dtype, [&](auto zero) {
      return LoopKernel(request, {CompareStored<Formula, decltype(zero)>, false});
    });
  });
}

void RegisterWhere(KernelRegistry& registry) {
  registry.Add("Where", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    if (const ElementLoop loop = FindLoop(request, request.output().dtype)) return LoopKernel(request, loop);
    return VisitElementSize(request.output().dtype, [&](auto zero) {
      using T = decltype(zero);
      return BroadcastKernel(
          request, "scalar",
          [](const BroadcastWalk& walk, const KernelArguments& arguments, const auto& offsets, int64_t to,
             int64_t count) {
            const bool* condition = arguments.operand<bool>(0) + offsets[0];
            const T* if_true = arguments.operand<T>(1) + offsets[1];
            const T* if_false = arguments.operand<T>(2) + offsets[2];
            T* y = arguments.output<T>() + to;
            const int64_t step = walk.is_vector(0), step_true = walk.is_vector(1), step_false = walk.is_vector(2);
            for (int64_t i = 0; i < count; ++i)
              y[i] = formulas::Where()(condition[i * step], if_true[i * step_true], if_false[i * step_false]);
          });
    });
  });
}

}  // namespace

void RegisterElementwiseKernels(KernelRegistry& registry) {
  formulas::ForUnaryFormulas([&](auto row) { AddUnary(registry, row); });
  formulas::ForNumberedFormulas([&](auto row) { AddNumbered(registry, row); });
  formulas::ForBinaryFormulas([&](auto row) { AddBinary(registry, row); });
  formulas::ForComparisonFormulas([&](auto row) { AddComparison(registry, row); });
  RegisterWithAttributes(registry);
  RegisterWhere(registry);
}

}  // namespace gradweave
