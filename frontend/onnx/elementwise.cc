// ONNX's elementwise ops.
#include "gradweave/ops/elementwise.h"

#include <cstring>
#include <limits>
#include <utility>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

// All operands from left to right: Max, Min and Sum take any number.
template <Value (*kFunction)(Operand, Operand)>
absl::Status Variadic(Call& call) {
  const std::vector<Value> values = call.Ins();
  Value result = values[0];
  for (size_t i = 1; i < values.size(); ++i) result = kFunction(result, values[i]);
  call.Set(0, result);
  return absl::OkStatus();
}

absl::Status Mean(Call& call) {
  const std::vector<Value> values = call.Ins();
  Value result = values[0];
  for (size_t i = 1; i < values.size(); ++i) result = Add(result, values[i]);
  call.Set(0, Div(result, static_cast<double>(values.size())));
  return absl::OkStatus();
}

absl::Status Identity(Call& call) {
  call.Set(0, &call.item(0));
  return absl::OkStatus();
}

// Integers are raised in float64, which is exact below 2^53.
absl::Status PowRow(Call& call) {
  GW_ASSIGN_OR_RETURN(auto operands, BroadcastOperands(call));
  auto [base, exponent] = operands;
  if (call.item(1).tensor.has_value() && call.item(1).tensor->rank() == 0 && call.item(1).tensor->ToDouble() == 2) {
    call.Set(0, Square(base));
    return absl::OkStatus();
  }
  const DType dtype = base.dtype();
  const DType work = IsFloating(dtype) ? dtype : kFloat64;
  if (dtype != work) base = Cast(base, work);
  if (exponent.dtype() != work) exponent = Cast(exponent, work);
  const Value power = Pow(base, exponent);
  call.Set(0, dtype == work ? power : Cast(power, dtype));
  return absl::OkStatus();
}

// The remainder with the sign of a (C's), or of b.
absl::Status ModRow(Call& call) {
  const Value a = call.In(0), b = call.In(1);
  call.Set(0, call.Int("fmod", 0) != 0 ? Fmod(a, b) : Mod(a, b));
  return absl::OkStatus();
}

absl::Status IsInfRow(Call& call) {
  call.Set(0, IsInf(call.In(0), {.positive = call.Int("detect_positive", 1) != 0,
                                 .negative = call.Int("detect_negative", 1) != 0}));
  return absl::OkStatus();
}

absl::Status ClipRow(Call& call) {
  Value x = call.In(0);
  if (call.opset() < 11) {
    const double low = call.Float("min", std::numeric_limits<float>::lowest());
    const double high = call.Float("max", std::numeric_limits<float>::max());
    call.Set(0, Clip(x, low, high));
    return absl::OkStatus();
  }
  const bool known = call.Has(1) && call.Has(2) && call.item(1).tensor.has_value() && call.item(2).tensor.has_value() &&
                     IsFloating(x.dtype());
  if (known) {
    GW_ASSIGN_OR_RETURN(const double low, call.KnownNumber(1));
    GW_ASSIGN_OR_RETURN(const double high, call.KnownNumber(2));
    if (low <= high) {
      call.Set(0, Clip(x, low, high));
      return absl::OkStatus();
    }
  }
  if (call.Has(1)) x = Maximum(x, call.In(1));
  if (call.Has(2)) x = Minimum(x, call.In(2));
  call.Set(0, x);
  return absl::OkStatus();
}

absl::Status CastRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const DType dtype, DTypeFromOnnx(call.Int("to", 0)));
  call.Ignore({"saturate", "round_mode"});  // For float8 alone.
  call.Set(0, Cast(call.In(0), dtype));
  return absl::OkStatus();
}

absl::Status CastLike(Call& call) {
  call.Ignore({"saturate", "round_mode"});
  call.Set(0, Cast(call.In(0), call.Type(1).dtype));
  return absl::OkStatus();
}

absl::Status BitShift(Call& call) {
  const std::string direction = call.Text("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") return call.Wrong("its direction has to be LEFT or RIGHT");
  call.Set(0, direction == "LEFT" ? ShiftLeft(call.In(0), call.In(1)) : ShiftRight(call.In(0), call.In(1)));
  return absl::OkStatus();
}

// The bits of a known value as another dtype of the same size.
absl::Status BitCast(Call& call) {
  GW_ASSIGN_OR_RETURN(const DType dtype, DTypeFromOnnx(call.Int("to", 0)));
  GW_ASSIGN_OR_RETURN(const Tensor x, call.Known(0));
  if (DTypeSize(dtype) != DTypeSize(x.dtype()) || dtype == kBool) return call.Wrong("its dtypes differ in size");
  Tensor y(dtype, x.sizes());
  if (x.byte_size() > 0) std::memcpy(y.mutable_raw_data(), x.raw_data(), x.byte_size());
  call.Set(0, std::move(y));
  return absl::OkStatus();
}

absl::Status WhereRow(Call& call) {
  call.Set(0, Where(call.In(0), call.In(1), call.In(2)));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"Abs", 1, 1, Unary<Abs>},
    {"Acos", 7, 1, Unary<Acos>},
    {"Acosh", 9, 1, Unary<Acosh>},
    {"Add", 1, 2, Binary<Add>},
    {"And", 1, 2, Binary<LogicalAnd>},
    {"Asin", 7, 1, Unary<Asin>},
    {"Asinh", 9, 1, Unary<Asinh>},
    {"Atan", 7, 1, Unary<Atan>},
    {"Atanh", 9, 1, Unary<Atanh>},
    {"BitCast", 26, 1, BitCast},
    {"BitShift", 11, 2, BitShift},
    {"BitwiseAnd", 18, 2, Binary<BitAnd>},
    {"BitwiseNot", 18, 1, Unary<BitNot>},
    {"BitwiseOr", 18, 2, Binary<BitOr>},
    {"BitwiseXor", 18, 2, Binary<BitXor>},
    {"Cast", 6, 1, CastRow},
    {"CastLike", 15, 2, CastLike},
    {"Ceil", 1, 1, Unary<Ceil>},
    {"Clip", 6, 1, ClipRow},
    {"Cos", 7, 1, Unary<Cos>},
    {"Cosh", 9, 1, Unary<Cosh>},
    {"Div", 1, 2, Binary<Div>},
    {"Equal", 1, 2, Binary<Equal>},
    {"Erf", 9, 1, Unary<Erf>},
    {"Exp", 1, 1, Unary<Exp>},
    {"Floor", 1, 1, Unary<Floor>},
    {"Greater", 1, 2, Binary<Greater>},
    {"GreaterOrEqual", 12, 2, Binary<GreaterEqual>},
    {"Identity", 1, 1, Identity},
    {"IsInf", 10, 1, IsInfRow},
    {"IsNaN", 9, 1, Unary<IsNaN>},
    {"Less", 1, 2, Binary<Less>},
    {"LessOrEqual", 12, 2, Binary<LessEqual>},
    {"Log", 1, 1, Unary<Log>},
    {"Max", 1, 1, Variadic<Maximum>},
    {"Mean", 1, 1, Mean},
    {"Min", 1, 1, Variadic<Minimum>},
    {"Mod", 10, 2, ModRow},
    {"Mul", 1, 2, Binary<Mul>},
    {"Neg", 1, 1, Unary<Neg>},
    {"Not", 1, 1, Unary<LogicalNot>},
    {"Or", 1, 2, Binary<LogicalOr>},
    {"Pow", 1, 2, PowRow},
    {"Reciprocal", 1, 1, Unary<Reciprocal>},
    {"Round", 11, 1, Unary<Round>},
    {"Sign", 9, 1, Unary<Sign>},
    {"Sin", 7, 1, Unary<Sin>},
    {"Sinh", 9, 1, Unary<Sinh>},
    {"Sqrt", 1, 1, Unary<Sqrt>},
    {"Sub", 1, 2, Binary<Sub>},
    {"Sum", 1, 1, Variadic<Add>},
    {"Tan", 7, 1, Unary<Tan>},
    {"Where", 9, 3, WhereRow},
    {"Xor", 1, 2, Binary<LogicalXor>},
};

}  // namespace

absl::Span<const OpRow> ElementwiseRows() { return kRows; }

}  // namespace gradweave::onnx
