// Ops that work element by element, with NumPy broadcasting: shapes are aligned at their last axes, and an axis of size
// 1 stretches. Formulas, dtypes and errors of each op are with its definition, in elementwise.cc.
#ifndef GRADWEAVE_OPS_ELEMENTWISE_H_
#define GRADWEAVE_OPS_ELEMENTWISE_H_

#include <optional>
#include "gradweave/ops/builder.h"

namespace gradweave {

// Arithmetic; both operands have one dtype, which the result has.
Value Add(Operand a, Operand b);
Value Sub(Operand a, Operand b);
Value Mul(Operand a, Operand b);
Value Div(Operand a, Operand b);  // Integers round toward zero; x / 0 is 0 for integers.
Value Pow(Operand a, Operand b);
Value Minimum(Operand a, Operand b);  // NaN where either is; a tie's gradient is split evenly.
Value Maximum(Operand a, Operand b);

inline Value operator+(Operand a, Operand b) { return Add(a, b); }
inline Value operator-(Operand a, Operand b) { return Sub(a, b); }
inline Value operator*(Operand a, Operand b) { return Mul(a, b); }
inline Value operator/(Operand a, Operand b) { return Div(a, b); }

// Comparisons; the result is bool. Named, not operators: == on Values compares handles.
Value Equal(Operand a, Operand b);
Value NotEqual(Operand a, Operand b);
Value Less(Operand a, Operand b);
Value LessEqual(Operand a, Operand b);
Value Greater(Operand a, Operand b);
Value GreaterEqual(Operand a, Operand b);

// Logic on bool.
Value LogicalAnd(Operand a, Operand b);
Value LogicalOr(Operand a, Operand b);
Value LogicalXor(Operand a, Operand b);
Value LogicalNot(Operand x);

// if_true where condition (bool), else if_false; all three broadcast.
Value Where(Operand condition, Operand if_true, Operand if_false);

Value Neg(Operand x);
Value Abs(Operand x);
Value Sign(Operand x);
Value Exp(Operand x);
Value Expm1(Operand x);
Value Log(Operand x);
Value Log1p(Operand x);
Value Sqrt(Operand x);
Value Rsqrt(Operand x);
Value Reciprocal(Operand x);
Value Square(Operand x);
Value Sin(Operand x);
Value Cos(Operand x);
Value Tanh(Operand x);
Value Sigmoid(Operand x);
Value Relu(Operand x);
Value LeakyRelu(Operand x, double slope = 0.01);
Value Elu(Operand x, double alpha = 1.0);
Value Selu(Operand x);
Value Gelu(Operand x);  // x * Phi(x), with erf.
Value Softplus(Operand x);
Value Erf(Operand x);
Value Floor(Operand x);
Value Ceil(Operand x);
Value Round(Operand x);  // Halves to even.
Value Clip(Operand x, double low, double high);

inline Value operator-(Value x) { return Neg(x); }

// The elements converted to another dtype, as static_cast does; floating to integer saturates, NaN gives 0; to bool is
// x != 0.
Value Cast(Operand x, DType dtype);

// x, through which no gradient passes.
Value StopGradient(Operand x);

// The shape that operands of these shapes broadcast to; nothing where they don't.
std::optional<Shape> BroadcastShapes(const Shape& a, const Shape& b);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_ELEMENTWISE_H_
