// Elementwise ops with NumPy broadcasting: shapes are aligned at their last axes, and an axis of
// size 1 stretches. Errors are recorded in the graph: shapes that do not broadcast, different
// dtypes, and dtypes that the op does not accept. docs/ops.md lists formulas and dtypes.
#ifndef GRADWEAVE_OPS_ELEMENTWISE_H_
#define GRADWEAVE_OPS_ELEMENTWISE_H_

#include <optional>
#include "gradweave/ops/builder.h"

namespace gradweave {

// Arithmetic. Both operands and the result have the same dtype.
Value Add(Operand a, Operand b);
Value Sub(Operand a, Operand b);
Value Mul(Operand a, Operand b);
Value Div(Operand a, Operand b);      // Integers round toward zero; integer x / 0 is 0.
Value Pow(Operand a, Operand b);      // a^b, floating only.
Value Minimum(Operand a, Operand b);  // NaN if either is NaN. Equal operands share the gradient evenly.
Value Maximum(Operand a, Operand b);

inline Value operator+(Operand a, Operand b) { return Add(a, b); }
inline Value operator-(Operand a, Operand b) { return Sub(a, b); }
inline Value operator*(Operand a, Operand b) { return Mul(a, b); }
inline Value operator/(Operand a, Operand b) { return Div(a, b); }

// Comparisons; the result is bool. They are not operators because == on Values compares handles.
Value Equal(Operand a, Operand b);
Value NotEqual(Operand a, Operand b);
Value Less(Operand a, Operand b);
Value LessEqual(Operand a, Operand b);
Value Greater(Operand a, Operand b);
Value GreaterEqual(Operand a, Operand b);

// Logic on bool operands.
Value LogicalAnd(Operand a, Operand b);
Value LogicalOr(Operand a, Operand b);
Value LogicalXor(Operand a, Operand b);
Value LogicalNot(Operand x);

// Selects if_true where the bool condition holds, else if_false. All three broadcast.
Value Where(Operand condition, Operand if_true, Operand if_false);

// Functions of one operand. Most accept floating dtypes only.
Value Neg(Operand x);
Value Abs(Operand x);
Value Sign(Operand x);  // -1, 0 or 1.
Value Exp(Operand x);
Value Expm1(Operand x);  // e^x - 1, accurate for small x.
Value Log(Operand x);    // Natural logarithm.
Value Log1p(Operand x);  // log(1 + x), accurate for small x.
Value Sqrt(Operand x);
Value Rsqrt(Operand x);       // 1 / sqrt(x).
Value Reciprocal(Operand x);  // 1 / x.
Value Square(Operand x);      // x * x.
Value Sin(Operand x);         // x is in radians.
Value Cos(Operand x);
Value Tanh(Operand x);
Value Sigmoid(Operand x);                         // 1 / (1 + e^-x).
Value Relu(Operand x);                            // max(x, 0); the gradient at 0 is 0.
Value LeakyRelu(Operand x, double slope = 0.01);  // x, or slope * x where x < 0.
Value Elu(Operand x, double alpha = 1.0);         // x, or alpha * (e^x - 1) where x < 0.
Value Selu(Operand x);                            // Scaled Elu with fixed constants (Klambauer et al., 2017).
Value Gelu(Operand x);                            // x * Phi(x), computed with erf.
Value Softplus(Operand x);                        // log(1 + e^x), without overflow.
Value Erf(Operand x);                             // Error function.
Value Floor(Operand x);
Value Ceil(Operand x);
Value Round(Operand x);                          // Halves round to the even integer.
Value Clip(Operand x, double low, double high);  // min(max(x, low), high); low <= high.

inline Value operator-(Value x) { return Neg(x); }

// Converts to another dtype. Floating to integer rounds toward zero and saturates; NaN becomes 0.
// Other integers wrap around. Conversion to bool is x != 0.
Value Cast(Operand x, DType dtype);

// Returns x and stops gradients.
Value StopGradient(Operand x);

// Returns the shape to which the two shapes broadcast; nullopt if they do not.
std::optional<Shape> BroadcastShapes(const Shape& a, const Shape& b);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_ELEMENTWISE_H_
