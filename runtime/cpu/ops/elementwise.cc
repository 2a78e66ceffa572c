#include <memory>

#include "gradweave/runtime/cpu/ops/kernels.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/broadcast.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/kernel.h"

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

// Registers an op of one operand by its formula. A vector loop takes precedence where there is one.
template <Takes takes, typename Formula>
void AddUnary(KernelRegistry& registry, Row<takes, Formula> row) {
  registry.Add(row.op, [row](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kIsFloating<T>) {
        if (UnaryLoop<T> loop = FindUnaryLoop<T>(row.op)) return UnaryKernel<T, T>(request, "vector", loop);
      }
      if constexpr (kAccepted<takes, T>) {
        return ElementKernel<T, T>(request, Formula());
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

void RegisterWithAttributes(KernelRegistry& registry) {
  registry.Add("Cast", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.operand(0).dtype, [&](auto from) {
      return VisitDType(request.output().dtype, [&](auto to) {
        return ElementKernel<decltype(from), decltype(to)>(request, formulas::Cast<decltype(from), decltype(to)>());
      });
    });
  });
  registry.Add("StopGradient", MakeCopyOfOperand);
  registry.Add("LeakyRelu", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const double slope = request.attribute<double>("slope");
    if (request.output().dtype == kFloat64) return ElementKernel<double, double>(request, formulas::LeakyRelu{slope});
    return ElementKernel<float, float>(request, formulas::LeakyRelu{static_cast<float>(slope)});
  });
  registry.Add("Elu", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const double alpha = request.attribute<double>("alpha");
    if (request.output().dtype == kFloat64) return ElementKernel<double, double>(request, formulas::Elu{alpha});
    return ElementKernel<float, float>(request, formulas::Elu{static_cast<float>(alpha)});
  });
  registry.Add("Clip", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) {
      using T = decltype(zero);
      const double low = request.attribute<double>("low"), high = request.attribute<double>("high");
      return ElementKernel<T, T>(request, formulas::Clip<T>{formulas::Converted<T>(low), formulas::Converted<T>(high)});
    });
  });
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

template <typename T>
Kernel BinaryVectorKernel(const KernelRequest& request, BinaryLoop<T> loop) {
  return BroadcastKernel(request, "vector",
                         [loop](const BroadcastWalk& walk, const KernelArguments& arguments, const auto& offsets,
                                int64_t to, int64_t count) {
                           loop(arguments.operand<T>(0) + offsets[0], walk.is_vector(0),
                                arguments.operand<T>(1) + offsets[1], walk.is_vector(1), arguments.output<T>() + to,
                                count);
                         });
}

// Registers an op of two operands by its formula, as AddUnary does.
template <Takes takes, typename Formula>
void AddBinary(KernelRegistry& registry, Row<takes, Formula> row) {
  registry.Add(row.op, [row](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.operand(0).dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kAccepted<takes, T>) {
        if constexpr (kIsFloating<T>) {
          if (BinaryLoop<T> loop = FindBinaryLoop<T>(row.op)) return BinaryVectorKernel<T>(request, loop);
        }
        return BinaryElementKernel<T, decltype(Formula()(zero, zero))>(request, Formula());
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

void RegisterWhere(KernelRegistry& registry) {
  registry.Add("Where", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) {
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
  formulas::ForBinaryFormulas([&](auto row) { AddBinary(registry, row); });
  RegisterWithAttributes(registry);
  RegisterWhere(registry);
}

}  // namespace gradweave
