// Ops of ONNX Runtime, domain com.microsoft: those that its optimizer and its quantization write
// (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/frontend/onnx/windows.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/activations.h"
#include "gradweave/ops/conv_nd.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/quantized.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"

namespace gradweave::onnx {
namespace {

absl::Status FusedMatMul(Call& call) {
  if (call.Int("transBatchA", 0) != 0 || call.Int("transBatchB", 0) != 0)
    return call.Refuse("transposed batches are not imported");
  const double alpha = call.Float("alpha", 1);
  const Value y = MatMul(call.In(0), call.In(1), {call.Int("transA", 0) != 0, call.Int("transB", 0) != 0});
  call.Set(0, alpha == 1 ? y : Mul(y, alpha));
  return absl::OkStatus();
}

// The activation that an op has fused to it.
absl::StatusOr<Value> Activated(const Call& call, Value x) {
  const std::string name = call.Text("activation", "");
  std::vector<double> numbers;
  if (const proto::Attribute* given = call.Find("activation_params"); given != nullptr)
    numbers.assign(given->floats().begin(), given->floats().end());
  numbers.push_back(call.Float("activation_alpha", numbers.empty() ? 0.01 : numbers[0]));
  const double first = numbers[0];
  if (name.empty()) return x;
  if (name == "Relu") return Relu(x);
  if (name == "Tanh") return Tanh(x);
  if (name == "Sigmoid") return Sigmoid(x);
  if (name == "LeakyRelu") return LeakyRelu(x, first);
  if (name == "Clip" && numbers.size() > 2) return Clip(x, first, numbers[1]);
  if (name == "HardSigmoid" && numbers.size() > 2) return HardSigmoid(x, first, numbers[1]);
  return call.Refuse("the activation '", name, "' is not imported");
}

absl::Status FusedConv(Call& call) {
  const Value x = call.In(0), filter = call.In(1);
  Integers kernel;
  for (int i = 2; i < filter.rank(); ++i)
    kernel.push_back(SizeAt(filter.shape(), i).is_known() ? SizeAt(filter.shape(), i).size() : 0);
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), kernel));
  const ConvNDOptions options = OptionsOf(windows, call.Int("group", 1));
  Value y = call.Has(2) ? ConvND(x, filter, call.In(2), options) : ConvND(x, filter, options);
  if (call.Has(3)) y = Add(y, call.In(3));
  GW_ASSIGN_OR_RETURN(y, Activated(call, y));
  call.Set(0, y);
  return absl::OkStatus();
}

absl::Status FusedGemm(Call& call) {
  const double alpha = call.Float("alpha", 1), beta = call.Float("beta", 1);
  Value y = MatMul(call.In(0), call.In(1), {call.Int("transA", 0) != 0, call.Int("transB", 0) != 0});
  if (alpha != 1) y = Mul(y, alpha);
  if (call.Has(2)) y = Add(y, Mul(call.In(2), beta));
  GW_ASSIGN_OR_RETURN(y, Activated(call, y));
  call.Set(0, y);
  return absl::OkStatus();
}

absl::Status BiasGelu(Call& call) {
  call.Set(0, Gelu(Add(call.In(0), call.In(1))));
  return absl::OkStatus();
}

absl::Status FastGelu(Call& call) {
  call.Set(0, TanhGelu(call.Has(1) ? Add(call.In(0), call.In(1)) : call.In(0)));
  return absl::OkStatus();
}

absl::Status QuickGelu(Call& call) {
  const Value x = call.In(0);
  call.Set(0, Mul(x, Sigmoid(Mul(x, call.Float("alpha", 1.702)))));
  return absl::OkStatus();
}

// Layer normalization of a sum: input, skip, gamma, beta, bias.
absl::Status SkipLayerNormalization(Call& call) {
  Value sum = Add(call.In(0), call.In(1));
  if (call.Has(4)) sum = Add(sum, call.In(4));
  const double epsilon = call.Float("epsilon", 1e-12);
  const ReductionOptions last{.axes = {-1}, .keep_dims = true};
  const Value mean = Mean(sum, last), centred = Sub(sum, mean);
  const Value inverse = Rsqrt(Add(Mean(Square(centred), last), epsilon));
  const Value y = Mul(Mul(centred, inverse), call.In(2));
  call.Set(0, call.Has(3) ? Add(y, call.In(3)) : y);
  call.Set(1, mean);
  call.Set(2, inverse);
  call.Set(3, sum);
  return absl::OkStatus();
}

// The same without a mean: input, skip, gamma, bias.
absl::Status SkipSimplifiedLayerNormalization(Call& call) {
  Value sum = Add(call.In(0), call.In(1));
  if (call.Has(3)) sum = Add(sum, call.In(3));
  call.Set(0, RmsNorm(sum, call.In(2), 1, call.Float("epsilon", 1e-12)));
  call.Set(3, sum);
  return absl::OkStatus();
}

// Numbers quantized to bytes as DynamicQuantizeLinear does, less their zero point, and their scale.
struct Quantized {
  Value numbers, scale;
};
Quantized DynamicallyQuantized(Value x) {
  const Value high = Maximum(Max(x), 0), low = Minimum(Min(x), 0);
  const Value given = Div(Sub(high, low), 255), scale = Where(Equal(given, 0), 1, given);
  const Value zero = Round(Neg(Div(low, scale)));
  return {Sub(Clip(Add(Round(Div(x, scale)), zero), 0, 255), zero), scale};
}

// Weights as float32 less the zero point of their column.
Value Weights(const Call& call, int i, int zero) {
  const Value weights = Cast(call.In(i), kFloat32);
  return call.Has(zero) ? Sub(weights, Cast(call.In(zero), kFloat32)) : weights;
}

// a, b, b_scale, b_zero_point, bias.
absl::Status DynamicQuantizeMatMul(Call& call) {
  const Quantized a = DynamicallyQuantized(call.In(0));
  Value y = Mul(Mul(MatMul(a.numbers, Weights(call, 1, 3)), a.scale), call.In(2));
  if (call.Has(4)) y = Add(y, call.In(4));
  call.Set(0, y);
  return absl::OkStatus();
}

// a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias.
absl::Status MatMulIntegerToFloat(Call& call) {
  const Value sum = MatMul(Cast(Weights(call, 0, 4), kFloat64), Cast(Weights(call, 1, 5), kFloat64));
  Value y = Mul(Mul(Cast(sum, kFloat32), call.In(2)), call.In(3));
  if (call.Has(6)) y = Add(y, call.In(6));
  call.Set(0, y);
  return absl::OkStatus();
}

// An op on quantized operands: each is input, scale and zero point, one after another, and the
// result's come last.
Value Dequantized(const Call& call, int i) {
  Value x = Cast(call.In(i), kFloat32);
  if (call.Has(i + 2)) x = Sub(x, Cast(call.In(i + 2), kFloat32));
  return Mul(x, call.In(i + 1));
}
void SetQuantized(Call& call, Value y, int scale) {
  const std::optional<int64_t> zero = call.KnownZero(scale + 1);
  const DType dtype = call.Has(scale + 1) ? call.Type(scale + 1).dtype : call.Type(0).dtype;
  if (zero.has_value() && y.dtype() == kFloat32 && call.Type(scale).shape.num_elements() == Dim(1) &&
      (dtype == kInt8 || dtype == kUint8)) {
    call.Set(0, Quantize(y, Reshape(call.In(scale), {}), *zero, dtype));
    return;
  }
  Value rounded = Round(Div(y, call.In(scale)));
  if (call.Has(scale + 1)) rounded = Add(rounded, Cast(call.In(scale + 1), kFloat32));
  call.Set(0, Cast(rounded, dtype));
}

template <Value (*kFunction)(Operand, Operand)>
absl::Status QuantizedBinary(Call& call) {
  SetQuantized(call, kFunction(Dequantized(call, 0), Dequantized(call, 3)), 6);
  return absl::OkStatus();
}

absl::Status QLinearSigmoid(Call& call) {
  SetQuantized(call, Sigmoid(Dequantized(call, 0)), 3);
  return absl::OkStatus();
}

absl::Status QLinearLeakyRelu(Call& call) {
  SetQuantized(call, LeakyRelu(Dequantized(call, 0), call.Float("alpha", 0.01)), 3);
  return absl::OkStatus();
}

absl::Status QLinearGlobalAveragePool(Call& call) {
  if (call.Int("channels_last", 0) != 0) return call.Refuse("channels behind are not imported");
  const Value x = Dequantized(call, 0);
  Integers axes;
  for (int64_t i = 2; i < x.rank(); ++i) axes.push_back(i);
  SetQuantized(call, Mean(x, {.axes = axes, .keep_dims = true}), 3);
  return absl::OkStatus();
}

// The scale and the zero point of the result, and then three inputs for each part.
absl::Status QLinearConcat(Call& call) {
  std::vector<Value> parts;
  for (int i = 2; i + 1 < call.num_inputs(); i += 3) parts.push_back(Dequantized(call, i));
  if (parts.empty()) return call.Wrong("it has no parts");
  SetQuantized(call, Concat(parts, call.Int("axis", 0)), 0);
  return absl::OkStatus();
}

// Several heads over x [n, time, hidden] with one matrix for queries, keys and values: input,
// weights, bias.
absl::Status AttentionRow(Call& call) {
  for (const int i : {3, 4, 5, 6}) {
    if (call.Has(i)) return call.Refuse("its input ", i, " (masks, past states or biases) is not imported");
  }
  const Value x = call.In(0);
  const int64_t heads = call.Int("num_heads", 0);
  const Dim hidden = SizeAt(call.Type(1).shape, 1);
  if (call.Find("qkv_hidden_sizes") != nullptr) return call.Refuse("sizes that differ are not imported");
  if (x.rank() != 3 || heads < 1 || !hidden.is_known() || hidden.size() % (3 * heads) != 0)
    return call.Wrong("its heads do not divide its weights");
  const int64_t size = hidden.size() / 3 / heads;
  Value joined = MatMul(x, call.In(1));
  if (call.Has(2)) joined = Add(joined, call.In(2));
  const Dim n = SizeAt(x.shape(), 0), time = SizeAt(x.shape(), 1);
  auto part = [&](int64_t i) {
    const Value one = SliceAxis(joined, 2, i * heads * size, (i + 1) * heads * size);
    return Transpose(Reshape(one, {n, time, heads, size}), {0, 2, 1, 3});
  };
  const double scale = call.Float("scale", 1 / std::sqrt(static_cast<double>(size)));
  Value scores = Mul(MatMul(part(0), part(1), {.transpose_b = true}), scale);
  if (call.Int("unidirectional", 0) != 0) return call.Refuse("its mask of later positions is not imported");
  const Value y = MatMul(Softmax(scores), part(2));
  call.Set(0, Reshape(Transpose(y, {0, 2, 1, 3}), {n, time, heads * size}));
  return absl::OkStatus();
}

constexpr char kDomain[] = "com.microsoft";
constexpr OpRow kRows[] = {
    {"Attention", 1, 2, AttentionRow, kDomain},
    {"BiasGelu", 1, 2, BiasGelu, kDomain},
    {"DynamicQuantizeMatMul", 1, 3, DynamicQuantizeMatMul, kDomain},
    {"FastGelu", 1, 1, FastGelu, kDomain},
    {"FusedConv", 1, 2, FusedConv, kDomain},
    {"FusedGemm", 1, 2, FusedGemm, kDomain},
    {"FusedMatMul", 1, 2, FusedMatMul, kDomain},
    {"Gelu", 1, 1, Unary<Gelu>, kDomain},
    {"MatMulIntegerToFloat", 1, 4, MatMulIntegerToFloat, kDomain},
    {"QLinearAdd", 1, 7, QuantizedBinary<Add>, kDomain},
    {"QLinearConcat", 1, 3, QLinearConcat, kDomain},
    {"QLinearGlobalAveragePool", 1, 4, QLinearGlobalAveragePool, kDomain},
    {"QLinearLeakyRelu", 1, 4, QLinearLeakyRelu, kDomain},
    {"QLinearMul", 1, 7, QuantizedBinary<Mul>, kDomain},
    {"QLinearSigmoid", 1, 4, QLinearSigmoid, kDomain},
    {"QuickGelu", 1, 1, QuickGelu, kDomain},
    {"SkipLayerNormalization", 1, 3, SkipLayerNormalization, kDomain},
    {"SkipSimplifiedLayerNormalization", 1, 3, SkipSimplifiedLayerNormalization, kDomain},
};

}  // namespace

absl::Span<const OpRow> MicrosoftRows() { return kRows; }

}  // namespace gradweave::onnx
