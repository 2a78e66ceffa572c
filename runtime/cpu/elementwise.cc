#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>

#include "gradweave/runtime/cpu/broadcast.h"
#include "gradweave/runtime/cpu/vector_loops.h"
#include "gradweave/runtime/kernel.h"

namespace gradweave {
namespace {

// Elements that are worth another chunk, and the wake-up of another thread.
constexpr int64_t kGrain = 16384;

template <typename T>
constexpr bool kIsFloat = std::is_floating_point_v<T>;

// Whether two tensors fill the same bytes, so that one may take the other's place.
bool SameBytes(const TensorType& a, const TensorType& b) {
  return DTypeSize(a.dtype) == DTypeSize(b.dtype) && a.shape == b.shape;
}

// ---- One operand ----

// A kernel that calls loop(x, y, n) for parts of the elements.
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

// The same from a function of one element.
template <typename From, typename To, typename Function>
Kernel ElementKernel(const KernelRequest& request, Function function) {
  return UnaryKernel<From, To>(request, "scalar", [function](const From* x, To* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = function(x[i]);
  });
}

// Registers an op of one operand by a generic function of an element. A vector loop takes precedence where there is
// one.
template <bool floating_only, typename Function>
void AddUnary(KernelRegistry& registry, const char* op, Function function) {
  registry.Add(op, [op, function](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kIsFloat<T>) {
        if (UnaryLoop<T> loop = FindUnaryLoop<T>(op)) return UnaryKernel<T, T>(request, "vector", loop);
      }
      if constexpr (kIsFloat<T> || (!floating_only && !std::is_same_v<T, bool>)) {
        return ElementKernel<T, T>(request, function);
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

// Registers a floating op that has a vector loop.
void AddVectorUnary(KernelRegistry& registry, const char* op) {
  registry.Add(op, [op](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    if (request.output().dtype == kFloat32)
      return UnaryKernel<float, float>(request, "vector", FindUnaryLoop<float>(op));
    return UnaryKernel<double, double>(request, "vector", FindUnaryLoop<double>(op));
  });
}

template <typename T>
T SignOf(T x) {
  if constexpr (kIsFloat<T>) {
    if (std::isnan(x)) return x;
  }
  return static_cast<T>((x > T(0)) - (x < T(0)));
}

// Unsigned arithmetic wraps around where signed arithmetic would be undefined.
template <typename T>
using Wrapping =
    std::conditional_t<kIsFloat<T>, T,
                       std::make_unsigned_t<std::conditional_t<kIsFloat<T> || std::is_same_v<T, bool>, int64_t, T>>>;

template <typename T>
T Negated(T x) {
  return static_cast<T>(Wrapping<T>(0) - static_cast<Wrapping<T>>(x));
}

void RegisterUnary(KernelRegistry& registry) {
  for (const char* op : {"Exp", "Sqrt", "Rsqrt", "Reciprocal", "Tanh", "Sigmoid", "Floor", "Ceil", "Round"})
    AddVectorUnary(registry, op);
  AddUnary<false>(registry, "Neg", [](auto x) { return Negated(x); });
  AddUnary<false>(registry, "Abs", [](auto x) { return x < 0 ? Negated(x) : x; });
  AddUnary<false>(registry, "Sign", [](auto x) { return SignOf(x); });
  AddUnary<false>(registry, "Square", [](auto x) {
    using T = decltype(x);
    return static_cast<T>(static_cast<Wrapping<T>>(x) * static_cast<Wrapping<T>>(x));
  });
  AddUnary<false>(registry, "Relu", [](auto x) { return x < 0 ? decltype(x)(0) : x; });
  AddUnary<true>(registry, "Expm1", [](auto x) { return std::expm1(x); });
  AddUnary<true>(registry, "Log", [](auto x) { return std::log(x); });
  AddUnary<true>(registry, "Log1p", [](auto x) { return std::log1p(x); });
  AddUnary<true>(registry, "Sin", [](auto x) { return std::sin(x); });
  AddUnary<true>(registry, "Cos", [](auto x) { return std::cos(x); });
  AddUnary<true>(registry, "Selu", [](auto x) {
    using T = decltype(x);
    return T(1.0507009873554805) * (x > 0 ? x : T(1.6732632423543772) * std::expm1(x));
  });
  AddUnary<true>(registry, "Gelu", [](auto x) { return x * std::erfc(-x * decltype(x)(M_SQRT1_2)) / 2; });
  // log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): neither term overflows.
  AddUnary<true>(registry, "Softplus", [](auto x) {
    return (x > 0 ? x : (x <= 0 ? decltype(x)(0) : x)) + std::log1p(std::exp(-std::abs(x)));
  });
  AddUnary<true>(registry, "Erf", [](auto x) { return std::erf(x); });
}

// x in another dtype; what static_cast leaves undefined is defined here.
template <typename To, typename From>
To Converted(From x) {
  if constexpr (std::is_same_v<To, bool>) {
    return x != From(0);
  } else if constexpr (kIsFloat<From> && !kIsFloat<To>) {
    if (std::isnan(x)) return 0;
    // The largest integer may not be a floating number: from 2^bits on, and below the smallest, the result is the
    // nearest bound.
    const From above = std::ldexp(From(1), std::numeric_limits<To>::digits);
    if (x >= above) return std::numeric_limits<To>::max();
    if (x < static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    return static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

void RegisterWithAttributes(KernelRegistry& registry) {
  registry.Add("Cast", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.operand(0).dtype, [&](auto from) {
      return VisitDType(request.output().dtype, [&](auto to) {
        using From = decltype(from);
        using To = decltype(to);
        return ElementKernel<From, To>(request, [](From x) { return Converted<To>(x); });
      });
    });
  });
  registry.Add("LogicalNot", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return ElementKernel<bool, bool>(request, [](bool x) { return !x; });
  });
  registry.Add("StopGradient", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const size_t bytes = request.output().byte_size();
    return Kernel{.name = "copy",
                  .run =
                      [bytes](const KernelArguments& arguments) {
                        std::memmove(arguments.outputs[0], arguments.operands[0], bytes);
                        return absl::OkStatus();
                      },
                  .overwrites = {{0, 0}}};
  });
  registry.Add("LeakyRelu", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) {
      using T = decltype(zero);
      const T slope = static_cast<T>(request.attribute<double>("slope"));
      return ElementKernel<T, T>(request, [slope](T x) { return x > 0 ? x : static_cast<T>(slope * x); });
    });
  });
  registry.Add("Elu", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) {
      using T = decltype(zero);
      const T alpha = static_cast<T>(request.attribute<double>("alpha"));
      return ElementKernel<T, T>(request, [alpha](T x) { return x > 0 ? x : static_cast<T>(alpha * std::expm1(x)); });
    });
  });
  registry.Add("Clip", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) {
      using T = decltype(zero);
      const T low = Converted<T>(request.attribute<double>("low")),
              high = Converted<T>(request.attribute<double>("high"));
      // Comparisons with NaN fail, so it passes through.
      return ElementKernel<T, T>(request, [low, high](T x) { return x < low ? low : (x > high ? high : x); });
    });
  });
}

// ---- Two and three operands that broadcast ----

// A kernel that calls loop(offsets, result offset, count) for runs in which each operand is contiguous or one element.
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

// Which dtypes an op of two operands takes.
enum class Takes { kFloating, kNumeric, kBool, kAny };

template <Takes takes, typename T>
constexpr bool kAccepted =
    takes == Takes::kAny || (takes == Takes::kBool && std::is_same_v<T, bool>) ||
    (takes == Takes::kNumeric && !std::is_same_v<T, bool>) || (takes == Takes::kFloating && kIsFloat<T>);

template <Takes takes, typename Function>
void AddBinary(KernelRegistry& registry, const char* op, Function function) {
  registry.Add(op, [op, function](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.operand(0).dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (kAccepted<takes, T>) {
        if constexpr (kIsFloat<T>) {
          if (BinaryLoop<T> loop = FindBinaryLoop<T>(op)) return BinaryVectorKernel<T>(request, loop);
        }
        return BinaryElementKernel<T, decltype(function(zero, zero))>(request, function);
      } else {
        return absl::UnimplementedError("no kernel for this dtype");
      }
    });
  });
}

template <typename T>
T Quotient(T a, T b) {
  if constexpr (kIsFloat<T>) {
    return a / b;
  } else {
    if (b == 0) return 0;
    // The smallest integer over -1 has no place in the dtype; it wraps around.
    if (std::is_signed_v<T> && b == T(-1)) return Negated(a);
    return static_cast<T>(a / b);
  }
}

template <typename T, typename Operation>
T Wrapped(T a, T b, Operation operation) {
  return static_cast<T>(operation(static_cast<Wrapping<T>>(a), static_cast<Wrapping<T>>(b)));
}

void RegisterBinary(KernelRegistry& registry) {
  for (const char* op : {"SigmoidGrad", "TanhGrad"}) {
    registry.Add(op, [op](const KernelRequest& request) -> absl::StatusOr<Kernel> {
      if (request.output().dtype == kFloat32) return BinaryVectorKernel<float>(request, FindBinaryLoop<float>(op));
      return BinaryVectorKernel<double>(request, FindBinaryLoop<double>(op));
    });
  }
  AddBinary<Takes::kNumeric>(registry, "Add",
                             [](auto a, auto b) { return Wrapped(a, b, [](auto x, auto y) { return x + y; }); });
  AddBinary<Takes::kNumeric>(registry, "Sub",
                             [](auto a, auto b) { return Wrapped(a, b, [](auto x, auto y) { return x - y; }); });
  AddBinary<Takes::kNumeric>(registry, "Mul",
                             [](auto a, auto b) { return Wrapped(a, b, [](auto x, auto y) { return x * y; }); });
  AddBinary<Takes::kNumeric>(registry, "Div", [](auto a, auto b) { return Quotient(a, b); });
  AddBinary<Takes::kFloating>(registry, "Pow", [](auto a, auto b) { return std::pow(a, b); });
  AddBinary<Takes::kNumeric>(registry, "Minimum", [](auto a, auto b) { return a < b ? a : b; });
  AddBinary<Takes::kNumeric>(registry, "Maximum", [](auto a, auto b) { return a > b ? a : b; });
  AddBinary<Takes::kNumeric>(registry, "ReluGrad", [](auto dy, auto y) { return y > 0 ? dy : decltype(dy)(0); });
  AddBinary<Takes::kAny>(registry, "Equal", [](auto a, auto b) { return a == b; });
  AddBinary<Takes::kAny>(registry, "NotEqual", [](auto a, auto b) { return a != b; });
  AddBinary<Takes::kNumeric>(registry, "Less", [](auto a, auto b) { return a < b; });
  AddBinary<Takes::kNumeric>(registry, "LessEqual", [](auto a, auto b) { return a <= b; });
  AddBinary<Takes::kNumeric>(registry, "Greater", [](auto a, auto b) { return a > b; });
  AddBinary<Takes::kNumeric>(registry, "GreaterEqual", [](auto a, auto b) { return a >= b; });
  AddBinary<Takes::kBool>(registry, "LogicalAnd", [](bool a, bool b) { return a && b; });
  AddBinary<Takes::kBool>(registry, "LogicalOr", [](bool a, bool b) { return a || b; });
  AddBinary<Takes::kBool>(registry, "LogicalXor", [](bool a, bool b) { return a != b; });

  registry.Add("Where", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return VisitDType(request.output().dtype, [&](auto zero) {
      using T = decltype(zero);
      return BroadcastKernel(request, "scalar",
                             [](const BroadcastWalk& walk, const KernelArguments& arguments, const auto& offsets,
                                int64_t to, int64_t count) {
                               const bool* condition = arguments.operand<bool>(0) + offsets[0];
                               const T* if_true = arguments.operand<T>(1) + offsets[1];
                               const T* if_false = arguments.operand<T>(2) + offsets[2];
                               T* y = arguments.output<T>() + to;
                               const int64_t step = walk.is_vector(0), step_true = walk.is_vector(1),
                                             step_false = walk.is_vector(2);
                               for (int64_t i = 0; i < count; ++i)
                                 y[i] = condition[i * step] ? if_true[i * step_true] : if_false[i * step_false];
                             });
    });
  });
}

}  // namespace

void RegisterElementwiseKernels(KernelRegistry& registry) {
  RegisterUnary(registry);
  RegisterWithAttributes(registry);
  RegisterBinary(registry);
}

}  // namespace gradweave
