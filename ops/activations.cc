#include "gradweave/ops/activations.h"

#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"

namespace gradweave {

Value Swish(Operand x) {
  if (!x.is_value()) return NeedsValue("Swish", x);
  const CallLocation location(x);
  return Mul(x, Sigmoid(x));
}

Value HardSigmoid(Operand x) {
  if (!x.is_value()) return NeedsValue("HardSigmoid", x);
  const CallLocation location(x);
  return Clip(Add(Mul(x, 1.0 / 6), 0.5), 0, 1);
}

Value HardSwish(Operand x) {
  if (!x.is_value()) return NeedsValue("HardSwish", x);
  const CallLocation location(x);
  // The maximum makes the gradient below -3 zero, even if the incoming gradient is infinite.
  return Mul(Maximum(x, -3), HardSigmoid(x));
}

Value Mish(Operand x) {
  if (!x.is_value()) return NeedsValue("Mish", x);
  const CallLocation location(x);
  return Mul(x, Tanh(Softplus(x)));
}

Value PRelu(Operand x, Operand slope) {
  if (!x.is_value()) return NeedsValue("PRelu", x);
  const CallLocation location(x);
  return Where(Greater(x, 0), x, Mul(x, slope));
}

}  // namespace gradweave
