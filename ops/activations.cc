#include "gradweave/ops/activations.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"

namespace gradweave {
namespace {

bool AllFinite(std::initializer_list<double> numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](double number) { return std::isfinite(number); });
}

Value NotFinite(absl::string_view function, const Operand& x, absl::string_view numbers) {
  return BuilderError(function, {x}, absl::StrCat(numbers, " has to be finite"));
}

}  // namespace

Value Swish(Operand x) {
  if (!x.is_value()) return NeedsValue("Swish", x);
  const CallLocation location(x);
  return Mul(x, Sigmoid(x));
}

Value HardSigmoid(Operand x, double slope, double offset) {
  if (!x.is_value()) return NeedsValue("HardSigmoid", x);
  if (!AllFinite({slope, offset})) return NotFinite("HardSigmoid", x, "slope and offset");
  const CallLocation location(x);
  return Clip(Add(Mul(x, slope), offset), 0, 1);
}

Value HardSigmoid(Operand x) { return HardSigmoid(x, 1.0 / 6, 0.5); }

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

Value Celu(Operand x, double alpha) {
  if (!x.is_value()) return NeedsValue("Celu", x);
  if (!AllFinite({alpha}) || alpha <= 0)
    return BuilderError("Celu", {x}, absl::StrCat("alpha is ", alpha, " and has to be finite and above 0"));
  const CallLocation location(x);
  return alpha == 1 ? Elu(x) : Mul(Elu(Div(x, alpha)), alpha);
}

Value Selu(Operand x, double alpha, double scale) {
  if (!x.is_value()) return NeedsValue("Selu", x);
  if (!AllFinite({scale})) return NotFinite("Selu", x, "the scale");
  const CallLocation location(x);
  return Mul(Elu(x, alpha), scale);
}

Value ThresholdedRelu(Operand x, double threshold) {
  if (!x.is_value()) return NeedsValue("ThresholdedRelu", x);
  if (!AllFinite({threshold})) return NotFinite("ThresholdedRelu", x, "the threshold");
  const CallLocation location(x);
  return Where(Greater(x, threshold), x, 0);
}

Value Shrink(Operand x, double threshold, double bias) {
  if (!x.is_value()) return NeedsValue("Shrink", x);
  if (!AllFinite({threshold, bias})) return NotFinite("Shrink", x, "threshold and bias");
  const CallLocation location(x);
  return Where(Less(x, -threshold), Add(x, bias), Where(Greater(x, threshold), Sub(x, bias), 0));
}

Value Softsign(Operand x) {
  if (!x.is_value()) return NeedsValue("Softsign", x);
  const CallLocation location(x);
  return Div(x, Add(Abs(x), 1));
}

Value LogSigmoid(Operand x) {
  if (!x.is_value()) return NeedsValue("LogSigmoid", x);
  const CallLocation location(x);
  return Neg(Softplus(Neg(x)));
}

Value TanhGelu(Operand x) {
  if (!x.is_value()) return NeedsValue("TanhGelu", x);
  const CallLocation location(x);
  const Value cube = Mul(Mul(Square(x), x), 0.044715);
  return Mul(Mul(x, 0.5), Add(Tanh(Mul(Add(x, cube), std::sqrt(M_2_PI))), 1));
}

}  // namespace gradweave
