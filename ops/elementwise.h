// Elementwise ops with NumPy broadcasting: shapes are aligned at their last axes, and an axis of
// size 1 stretches. Errors are recorded in the graph: shapes that do not broadcast, different
// dtypes, and dtypes that the op does not accept. docs/ops.md lists formulas and dtypes.
#ifndef GRADWEAVE_OPS_ELEMENTWISE_H_
#define GRADWEAVE_OPS_ELEMENTWISE_H_

#include <optional>
#include "gradweave/ops/builder.h"

namespace gradweave {

// One function for each row of elementwise_ops.inc, which says what the op computes: Value
// Exp(Operand x), Value Add(Operand a, Operand b). Both operands have the same dtype.
#define GRADWEAVE_UNARY_OP(name, ...) Value name(Operand x);
#define GRADWEAVE_BINARY_OP(name, ...) Value name(Operand a, Operand b);
#include "gradweave/ops/elementwise_ops.inc"

inline Value operator+(Operand a, Operand b) { return Add(a, b); }
inline Value operator-(Operand a, Operand b) { return Sub(a, b); }
inline Value operator*(Operand a, Operand b) { return Mul(a, b); }
inline Value operator/(Operand a, Operand b) { return Div(a, b); }
inline Value operator-(Operand x) { return Neg(x); }

// True where x, which is bool, is false.
Value LogicalNot(Operand x);

// Comparisons of elements give bool values. Equal and NotEqual have no operator: == tells whether
// two Values are the same value of a graph. && and || always compute both operands.
inline Value operator<(Operand a, Operand b) { return Less(a, b); }
inline Value operator<=(Operand a, Operand b) { return LessEqual(a, b); }
inline Value operator>(Operand a, Operand b) { return Greater(a, b); }
inline Value operator>=(Operand a, Operand b) { return GreaterEqual(a, b); }
inline Value operator&&(Operand a, Operand b) { return LogicalAnd(a, b); }
inline Value operator||(Operand a, Operand b) { return LogicalOr(a, b); }
inline Value operator!(Operand x) { return LogicalNot(x); }

// True where the number is NaN. x is floating.
Value IsNaN(Operand x);
// True where the number is infinite with a requested sign.
struct InfinityOptions {
  bool positive = true;
  bool negative = true;
};
Value IsInf(Operand x, InfinityOptions options = {});

// The integer x with all bits inverted: -1 - x, or 255 - x for uint8.
Value BitNot(Operand x);

// Selects if_true where the bool condition holds, else if_false. All three broadcast.
Value Where(Operand condition, Operand if_true, Operand if_false);

// x where x > 0, else slope * x.
Value LeakyRelu(Operand x, double slope = 0.01);
// x where x > 0, else alpha * (e^x - 1).
Value Elu(Operand x, double alpha = 1.0);
// x limited to [low, high]; NaN for NaN. low must be at most high.
Value Clip(Operand x, double low, double high);

// Converts to another dtype. Floating to integer rounds toward zero and saturates; NaN becomes 0.
// Other integers wrap around. Conversion to bool is x != 0.
Value Cast(Operand x, DType dtype);

// Returns x and stops gradients.
Value StopGradient(Operand x);

// Returns the shape to which the two shapes broadcast; nullopt if they do not.
std::optional<Shape> BroadcastShapes(const Shape& a, const Shape& b);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_ELEMENTWISE_H_
