// The forms of elementwise ops in ONNX.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "gradweave/frontend/onnx/exporter.h"

namespace gradweave::onnx {
namespace {

constexpr bool kWidens = true;

// An attribute of ONNX is a float32. A number of a float64 node that has more digits needs the
// composition.
bool IsExact(DType dtype, double number) { return dtype != kFloat64 || static_cast<float>(number) == number; }

template <const char* kOp, const char* kName, const char* kOnnxName, const char* kComposition>
absl::Status WriteNumber(Exporter& e, const Node& node) {
  const double number = node.attribute<double>(kName);
  if (IsExact(node.outputs[0].dtype, number)) {
    e.Place(kOp, node, {{kOnnxName, number}});
  } else {
    e.Set(node, e.Compose(kComposition, node));
  }
  return absl::OkStatus();
}
constexpr char kLeakyRelu[] = "LeakyRelu", kElu[] = "Elu", kAlpha[] = "alpha", kSlope[] = "slope";
constexpr char kLeakyReluTerm[] = "Where(Greater(a, 0), a, Mul(a, slope))";
constexpr char kEluTerm[] = "Where(Greater(a, 0), a, Mul(alpha, Sub(Exp(Min(a, 0)), 1)))";

absl::Status WriteSelu(Exporter& e, const Node& node) {
  if (node.outputs[0].dtype == kFloat32) {
    e.Place("Selu", node);
  } else {
    e.Set(node, e.Compose("Mul(1.0507009873554805, Where(Greater(a, 0), a, Mul(1.6732632423543772, Sub(Exp(Min(a, 0)), "
                          "1))))",
                          node));
  }
  return absl::OkStatus();
}

absl::Status WriteGelu(Exporter& e, const Node& node) {
  if (e.opset() >= 20) {
    e.Place("Gelu", node);
  } else {
    e.Set(node, e.Compose("Mul(Mul(a, 0.5), Add(Erf(Mul(a, 0.70710678118654752)), 1))", node));
  }
  return absl::OkStatus();
}

absl::Status WriteClip(Exporter& e, const Node& node) {
  const DType dtype = e.ComputeType(node);
  const std::string low = e.Number(dtype, node.attribute<double>("low"));
  const std::string high = e.Number(dtype, node.attribute<double>("high"));
  e.Set(node, e.Add("Clip", {e.Name(node, 0), low, high}));
  return absl::OkStatus();
}

absl::Status WriteCast(Exporter& e, const Node& node) {
  e.Set(node, e.CastTo(e.Name(node, 0), node.outputs[0].dtype));
  return absl::OkStatus();
}

template <DType half>
absl::Status WriteRounding(Exporter& e, const Node& node) {
  e.Set(node, e.CastTo(e.CastTo(e.Name(node, 0), half), node.outputs[0].dtype));
  return absl::OkStatus();
}

// The new value of the variable, which is an input of the file.
absl::Status WriteAssign(Exporter& e, const Node& node) {
  e.Set(node, e.Add("Identity", {e.Name(node, 1)}));
  return absl::OkStatus();
}

// True if the operand is a constant without 0 and -1.
bool IsSafeDivisor(const Exporter& e, const Node& node, int i) {
  const Node& producer = e.Producer(node, i);
  if (producer.op->kind != OpKind::kConstant) return false;
  const std::vector<double> values = producer.attribute<Tensor>("value").ToDoubles();
  return std::none_of(values.begin(), values.end(), [](double value) { return value == 0 || value == -1; });
}

// Integers divided by 0 give 0, and the least one divided by -1 gives itself. ONNX leaves both
// undefined, and its runtimes may end the process.
absl::Status WriteDivision(Exporter& e, const Node& node) {
  struct Row {
    const char* op;
    const char* floating;
    const char* integers;
    const char* guarded;
  };
  constexpr Row kDivisions[] = {
      {"Div", "Div(a, b)", "Div(a, b)",
       "z = Equal(b, 0); n = Equal(b, -1); Where(z, 0, Where(n, Neg(a), Div(a, Where(Or(z, n), 1, b))))"},
      {"Fmod", "Fmod(a, b)", "Fmod(a, b)", "z = Or(Equal(b, 0), Equal(b, -1)); Where(z, 0, Fmod(a, Where(z, 1, b)))"},
      // The remainder of a division of floating numbers has the sign of the dividend in ONNX.
      {"Mod", "m = Fmod(a, b); Where(And(Not(Equal(m, 0)), Xor(Less(m, 0), Less(b, 0))), Add(m, b), m)", "Mod(a, b)",
       "z = Or(Equal(b, 0), Equal(b, -1)); Where(z, 0, Mod(a, Where(z, 1, b)))"},
  };
  for (const Row& row : kDivisions) {
    if (node.op->name != row.op) continue;
    const char* form = IsSafeDivisor(e, node, 1) ? row.integers : row.guarded;
    e.Set(node, e.Compose(IsFloating(e.ComputeType(node)) ? row.floating : form, node));
  }
  return absl::OkStatus();
}

// A shift is a product or a quotient with a power of two, which is taken from a table: ONNX shifts
// only numbers without a sign.
absl::Status WriteShift(Exporter& e, const Node& node) {
  const bool left = node.op->name == "ShiftLeft";
  const DType dtype = e.ComputeType(node);
  const DType given = e.In(node, 0).dtype;
  // A power that is the sign bit is exact in a product, and no divisor.
  const bool has_sign_bit = !left && dtype == given;
  const int64_t powers = static_cast<int64_t>(DTypeSize(given)) * 8 - (has_sign_bit ? 1 : 0);
  Tensor table(kInt64, {powers});
  for (int64_t i = 0; i < powers; ++i) table.mutable_data<int64_t>()[i] = static_cast<int64_t>(uint64_t{1} << i);
  const std::string places = e.Number(dtype, static_cast<double>(powers)), zero = e.Number(dtype, 0);
  const std::string valid =
      e.Add("And", {e.Add("GreaterOrEqual", {e.Name(node, 1), zero}), e.Add("Less", {e.Name(node, 1), places})});
  const std::string place = e.CastTo(e.Add("Where", {valid, e.Name(node, 1), zero}), kInt64);
  const std::string power = e.Add("Gather", {e.Constant(table.Cast(dtype)), place});
  if (left) {
    e.Set(node, e.Add("Where", {valid, e.Add("Mul", {e.Name(node, 0), power}), zero}));
    return absl::OkStatus();
  }
  const std::string rest = e.Add("Mod", {e.Name(node, 0), power});
  const std::string quotient = e.Add("Div", {e.Add("Sub", {e.Name(node, 0), rest}), power});
  const std::string negative = e.Add("Less", {e.Name(node, 0), zero});
  const std::string beyond = e.Add("Where", {negative, e.Number(dtype, -1), zero});
  e.Set(node, e.Add("Where", {valid, quotient, beyond}));
  return absl::OkStatus();
}

constexpr ExportRow kRows[] = {
    {"Abs", "Abs"},
    {"Acos", "Acos"},
    {"Acosh", "Acosh"},
    {"Add", "Add", nullptr, kWidens},
    {"Asin", "Asin"},
    {"Asinh", "Asinh"},
    {"Assign", "Identity", WriteAssign},
    {"Atan", "Atan"},
    {"Atanh", "Atanh"},
    {"BitAnd", "BitwiseAnd", nullptr, false, 18},
    {"BitOr", "BitwiseOr", nullptr, false, 18},
    {"BitXor", "BitwiseXor", nullptr, false, 18},
    {"Cast", "Cast", WriteCast},
    {"Ceil", "Ceil"},
    {"Clip", "Clip", WriteClip},
    {"Copy", "Identity"},
    {"Cos", "Cos"},
    {"Cosh", "Cosh"},
    {"Div", "Div", WriteDivision, kWidens},
    {"Elu", "Elu", WriteNumber<kElu, kAlpha, kAlpha, kEluTerm>},
    {"Equal", "Equal", nullptr, kWidens},
    {"Erf", "Erf"},
    {"Exp", "Exp"},
    // tanh(x/2) = (e^x - 1)/(e^x + 1).
    {"Expm1", "Mul(Tanh(Mul(a, 0.5)), Add(Exp(a), 1))"},
    {"Floor", "Floor"},
    {"Fmod", "Mod", WriteDivision, kWidens},
    {"Gelu", "Gelu", WriteGelu},
    // Beyond 40 the density is 0. The limit keeps infinity times 0 away.
    {"GeluGrad",
     "x = Max(Min(b, 40), -40); Mul(a, Add(Mul(Add(Erf(Mul(x, 0.70710678118654752)), 1), 0.5), Mul(x, "
     "Mul(Exp(Mul(Mul(x, x), -0.5)), 0.3989422804014327))))"},
    {"Greater", "Greater", nullptr, kWidens},
    {"GreaterEqual", "GreaterOrEqual", nullptr, kWidens},
    {"LeakyRelu", "LeakyRelu", WriteNumber<kLeakyRelu, kSlope, kAlpha, kLeakyReluTerm>},
    {"Less", "Less", nullptr, kWidens},
    {"LessEqual", "LessOrEqual", nullptr, kWidens},
    {"Log", "Log"},
    // log(1 + x) = 2 atanh(x/(x + 2)), which keeps the digits of a small x.
    {"Log1p", "x = Max(Min(a, 0.5), -0.5); Where(Less(Abs(a), 0.5), Mul(Atanh(Div(x, Add(x, 2))), 2), Log(Add(a, 1)))"},
    {"LogicalAnd", "And"},
    {"LogicalNot", "Not"},
    {"LogicalOr", "Or"},
    {"LogicalXor", "Xor"},
    {"Maximum", "Max", nullptr, kWidens},
    {"Minimum", "Min", nullptr, kWidens},
    {"Mod", "Mod", WriteDivision, kWidens},
    {"Mul", "Mul", nullptr, kWidens},
    {"Neg", "Neg", nullptr, kWidens},
    {"NotEqual", "Not(Equal(a, b))", nullptr, kWidens},
    {"Pow", "Pow"},
    {"Reciprocal", "Reciprocal"},
    {"Relu", "Relu", nullptr, kWidens},
    {"ReluGrad", "Where(Greater(b, 0), a, 0)", nullptr, kWidens},
    {"Round", "Round"},
    {"RoundToBFloat16", "Cast to bfloat16 and back", WriteRounding<kBFloat16>},
    {"RoundToFloat16", "Cast to float16 and back", WriteRounding<kFloat16>},
    {"Rsqrt", "Reciprocal(Sqrt(a))"},
    {"Selu", "Selu", WriteSelu},
    {"ShiftLeft", "a product with a power of two", WriteShift, kWidens},
    {"ShiftRight", "a quotient by a power of two", WriteShift, kWidens},
    {"Sigmoid", "Sigmoid"},
    {"SigmoidCrossEntropy",
     "w = Where(Greater(a, 0), Sub(1, b), b); Add(Where(Equal(w, 0), 0, Mul(w, Abs(a))), Softplus(Neg(Abs(a))))"},
    {"SigmoidGrad", "Mul(Mul(a, b), Sub(1, b))"},
    {"Sign", "Sign"},
    {"Sin", "Sin"},
    {"Sinh", "Sinh"},
    {"Softplus", "Softplus"},
    {"Sqrt", "Sqrt"},
    {"Square", "Mul(a, a)", nullptr, kWidens},
    {"StopGradient", "Identity"},
    {"Sub", "Sub", nullptr, kWidens},
    {"Tan", "Tan"},
    {"Tanh", "Tanh"},
    {"TanhGrad", "Mul(a, Sub(1, Mul(b, b)))"},
    {"Where", "Where"},
};

}  // namespace

absl::Span<const ExportRow> ElementwiseForms() { return kRows; }

}  // namespace gradweave::onnx
