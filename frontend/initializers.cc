#include "gradweave/frontend/initializers.h"

#include <cmath>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::nn {
namespace {

struct Fans {
  double in = 1, out = 1;
};

Fans FansOf(const Shape& shape) {
  if (shape.rank() == 2) return {static_cast<double>(shape[0].size()), static_cast<double>(shape[1].size())};
  double window = 1;
  for (int axis = 2; axis < shape.rank(); ++axis) window *= static_cast<double>(shape[axis].size());
  return {static_cast<double>(shape[1].size()) * window, static_cast<double>(shape[0].size()) * window};
}

}  // namespace

Value InitialValue(Scope& scope, const Initializer& initializer, DType dtype, const Shape& shape,
                   std::source_location location) {
  const RandomOptions options{.dtype = dtype};
  auto uniform = [&](double bound) { return RandomUniform(scope, shape, -bound, bound, options, location); };
  auto normal = [&](double variance) { return RandomNormal(scope, shape, 0, std::sqrt(variance), options, location); };
  return std::visit(
      [&](const auto& kind) -> Value {
        using Kind = std::decay_t<decltype(kind)>;
        if constexpr (std::is_same_v<Kind, Constant>) {
          return BroadcastTo(scope.Constant(Tensor::ScalarOf(dtype, kind.value), location), shape);
        } else if constexpr (std::is_same_v<Kind, Uniform>) {
          return RandomUniform(scope, shape, kind.low, kind.high, options, location);
        } else if constexpr (std::is_same_v<Kind, Normal>) {
          return RandomNormal(scope, shape, kind.mean, kind.standard_deviation, options, location);
        } else {
          if (shape.rank() < 2) {
            scope.graph().RecordError(absl::InvalidArgumentError(
                absl::StrCat("InitialValue: Xavier and Kaiming initializers need at least two axes, and the shape is ",
                             shape.ToString(), "; at ", ToString(ToSourceLocation(location)))));
            return Value(&scope.graph(), Port{});
          }
          const Fans fans = FansOf(shape);
          if constexpr (std::is_same_v<Kind, XavierUniform>)
            return uniform(std::sqrt(6 / (fans.in + fans.out)));
          else if constexpr (std::is_same_v<Kind, XavierNormal>)
            return normal(2 / (fans.in + fans.out));
          else if constexpr (std::is_same_v<Kind, KaimingUniform>)
            return uniform(std::sqrt(6 / fans.in));
          else
            return normal(2 / fans.in);
        }
      },
      initializer);
}

}  // namespace gradweave::nn
