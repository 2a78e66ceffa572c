#include <cstddef>
#include <memory>
#include <type_traits>

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
constexpr int64_t kElementGrain = 16384;

using formulas::kAccepted;
using formulas::kIsFloating;
using formulas::Row;
using formulas::Takes;

// Returns true if the tensors have the same size and layout, so that one may overwrite the other.
bool SameBytes(const TensorType& a, const TensorType& b) {
  return DTypeSize(a.dtype) == DTypeSize(b.dtype) && a.shape == b.shape;
}

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
    ParallelForRange(*arguments.pool, walk->total, kElementGrain, [&](int64_t begin, int64_t end) {
      walk->ForRuns(begin, end, [&](const auto& offsets, int64_t to, int64_t count) {
        loop(*walk, arguments, offsets, to, count);
      });
    });
    return absl::OkStatus();
  };
  return kernel;
}

// Makes the kernel of an op from its loop.
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

// ---- Loops of one element at a time ----
// Each is a LoopFunction (vector_loops.h). Nothing else depends on the formula, so each formula and
// dtype adds a loop to the program and no more.

template <typename Formula, typename T>
void RunUnary(const LoopOperand* operands, void* y, int64_t n, const double*) {
  const T* const x = static_cast<const T*>(operands[0].data);
  T* const to = static_cast<T*>(y);
  for (int64_t i = 0; i < n; ++i) to[i] = Formula()(x[i]);
}

template <typename Formula, typename T>
void RunNumbered(const LoopOperand* operands, void* y, int64_t n, const double* numbers) {
  const auto function = formulas::WithNumbers<Formula, T>(numbers);
  const T* const x = static_cast<const T*>(operands[0].data);
  T* const to = static_cast<T*>(y);
  for (int64_t i = 0; i < n; ++i) to[i] = function(x[i]);
}

template <typename Formula, typename T>
void RunBinary(const LoopOperand* operands, void* y, int64_t n, const double*) {
  const T* const a = static_cast<const T*>(operands[0].data);
  const T* const b = static_cast<const T*>(operands[1].data);
  auto* const to = static_cast<decltype(Formula()(T(), T()))*>(y);
  const int64_t step_a = operands[0].is_vector, step_b = operands[1].is_vector;
  for (int64_t i = 0; i < n; ++i) to[i] = Formula()(a[i * step_a], b[i * step_b]);
}

template <typename T>
void RunWhere(const LoopOperand* operands, void* y, int64_t n, const double*) {
  const bool* const condition = static_cast<const bool*>(operands[0].data);
  const T* const if_true = static_cast<const T*>(operands[1].data);
  const T* const if_false = static_cast<const T*>(operands[2].data);
  T* const to = static_cast<T*>(y);
  const int64_t step = operands[0].is_vector, step_true = operands[1].is_vector, step_false = operands[2].is_vector;
  for (int64_t i = 0; i < n; ++i)
    to[i] = formulas::Where()(condition[i * step], if_true[i * step_true], if_false[i * step_false]);
}

// ---- The loops of an op, by the dtype that it computes in; null where there is none ----
//
// Floating dtypes have loops of vectors (FindElementLoop).

// Calls find(T()) with the C++ type of a dtype that the op takes and that is not floating.
template <Takes takes, typename Find>
LoopFunction FindLoop(DType dtype, Find find) {
  return VisitDType(dtype, [&](auto zero) -> LoopFunction {
    if constexpr (kAccepted<takes, decltype(zero)> && !kIsFloating<decltype(zero)>) return find(zero);
    return nullptr;
  });
}

template <Takes takes, typename Formula>
LoopFunction FindUnary(DType dtype) {
  return FindLoop<takes>(dtype, [](auto zero) { return RunUnary<Formula, decltype(zero)>; });
}

template <Takes takes, template <typename> typename Formula>
LoopFunction FindNumbered(DType dtype) {
  return FindLoop<takes>(dtype, [](auto zero) { return RunNumbered<Formula<decltype(zero)>, decltype(zero)>; });
}

template <Takes takes, typename Formula>
LoopFunction FindBinary(DType dtype) {
  return FindLoop<takes>(dtype, [](auto zero) { return RunBinary<Formula, decltype(zero)>; });
}

// Comparisons take every dtype.
template <typename Formula>
LoopFunction FindComparison(DType dtype) {
  return VisitAnyDType(dtype, [](auto zero) -> LoopFunction {
    using T = decltype(zero);
    if constexpr (!std::is_floating_point_v<T>) return RunBinary<Formula, T>;
    return nullptr;
  });
}

LoopFunction FindWhere(DType dtype) {
  return VisitElementSize(dtype, [](auto zero) -> LoopFunction { return RunWhere<decltype(zero)>; });
}

// Registers an op that computes in the dtype of one operand.
void AddLoops(KernelRegistry& registry, absl::string_view op, int operand, LoopFunction (*find)(DType)) {
  registry.Add(op, [operand, find](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const DType dtype = request.operand(operand).dtype;
    ElementLoop loop;
    if (IsFloating(dtype)) loop = FindElementLoop(request.node.op->name, dtype);
    if (!loop) loop.run = find(dtype);
    if (!loop) return absl::UnimplementedError("no kernel for this dtype");
    return LoopKernel(request, loop);
  });
}

template <Takes takes, typename Formula>
void AddUnary(KernelRegistry& registry, Row<takes, Formula> row) {
  AddLoops(registry, row.op, 0, FindUnary<takes, Formula>);
}

template <Takes takes, template <typename> typename Formula>
void AddNumbered(KernelRegistry& registry, formulas::NumberedRow<takes, Formula> row) {
  AddLoops(registry, row.op, 0, FindNumbered<takes, Formula>);
}

template <Takes takes, typename Formula>
void AddBinary(KernelRegistry& registry, Row<takes, Formula> row) {
  AddLoops(registry, row.op, 0, FindBinary<takes, Formula>);
}

template <Takes takes, typename Formula>
void AddComparison(KernelRegistry& registry, Row<takes, Formula> row) {
  AddLoops(registry, row.op, 0, FindComparison<Formula>);
}

absl::StatusOr<Kernel> MakeCast(const KernelRequest& request) {
  Kernel kernel{.name = "convert"};
  const DType from = request.operand(0).dtype, to = request.output().dtype;
  const int64_t total = request.output().shape.num_elements().size();
  kernel.run = [=](const KernelArguments& arguments) {
    const auto* x = arguments.operand<std::byte>(0);
    auto* y = arguments.output<std::byte>();
    ParallelForRange(*arguments.pool, total, kElementGrain, [&](int64_t begin, int64_t end) {
      ConvertElements(from, x + begin * DTypeSize(from), to, y + begin * DTypeSize(to), end - begin);
    });
    return absl::OkStatus();
  };
  if (SameBytes(request.operand(0), request.output())) kernel.overwrites.push_back({0, 0});
  return kernel;
}

}  // namespace

void RegisterElementwiseKernels(KernelRegistry& registry) {
  formulas::ForUnaryFormulas([&](auto row) { AddUnary(registry, row); });
  formulas::ForNumberedFormulas([&](auto row) { AddNumbered(registry, row); });
  formulas::ForBinaryFormulas([&](auto row) { AddBinary(registry, row); });
  formulas::ForComparisonFormulas([&](auto row) { AddComparison(registry, row); });
  AddLoops(registry, "Where", 1, FindWhere);
  registry.Add("Cast", MakeCast);
  registry.Add("StopGradient", MakeCopyOfOperand);
}

}  // namespace gradweave
