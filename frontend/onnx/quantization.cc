// ONNX's ops on quantized numbers. Products and convolutions whose weights are int8 without a zero
// point become the engine's own. Others add products of integers in float64, which is exact below
// 2^53.
#include <algorithm>
#include <optional>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/frontend/onnx/windows.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/quantized.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

// A scale or a zero point with one number, or with one for each place along an axis of x.
Value AlongAxis(Value value, const Value& x, int64_t axis) {
  if (value.rank() != 1) return value;
  if (value.shape() == Shape{1}) return Reshape(value, {});
  Shape shape;
  for (int64_t i = 0; i < x.rank(); ++i) shape.Append(i == axis ? SizeAt(value.shape(), 0) : Dim(1));
  return Reshape(value, shape);
}

Value ToBytes(Value x, DType dtype) {
  // Cast saturates.
  return Cast(x, dtype);
}

// The quantized numbers of input i less its zero point, if input `zero` has one.
Value Centred(const Call& call, int i, int zero, int64_t axis) {
  const Value x = Cast(call.In(i), kFloat64);
  return call.Has(zero) ? Sub(x, Cast(AlongAxis(call.In(zero), x, axis), kFloat64)) : x;
}

// A scale or a zero point of input i against x: with block_size, each of its elements along the
// axis holds for a block of x.
absl::StatusOr<Value> Against(const Call& call, int i, const Value& x) {
  const Value value = call.In(i);
  const int64_t axis = NormalizedAxis(call.Int("axis", 1), std::max(x.rank(), 1));
  const int64_t block = call.Int("block_size", 0);
  if (block == 0) return AlongAxis(value, x, axis);
  if (block < 0 || axis < 0 || value.rank() != x.rank()) return call.Wrong("its block_size or its axis is wrong");
  // The last block may be shorter.
  return SliceAxis(Repeat(value, axis, block), axis, 0, SizeAt(x.shape(), axis));
}

absl::Status Quantize(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const Value scale, Against(call, 1, x));
  call.Ignore({"saturate", "precision"});  // For dtypes of 8 bits and less that are not supported.
  DType dtype = call.Has(2) ? call.Type(2).dtype : kUint8;
  if (const int64_t given = call.Int("output_dtype", 0); given != 0) {
    GW_ASSIGN_OR_RETURN(dtype, DTypeFromOnnx(given));
  }
  if (const std::optional<int64_t> zero = call.KnownZero(2); zero.has_value() && x.dtype() == kFloat32 &&
                                                             scale.dtype() == kFloat32 && scale.rank() == 0 &&
                                                             (dtype == kInt8 || dtype == kUint8)) {
    call.Set(0, gradweave::Quantize(x, scale, *zero, dtype));
    return absl::OkStatus();
  }
  Value y = Round(Div(IsFloating(x.dtype()) ? x : Cast(x, kFloat32), scale));
  if (call.Has(2)) {
    GW_ASSIGN_OR_RETURN(const Value zero, Against(call, 2, x));
    y = Add(y, Cast(zero, y.dtype()));
  }
  call.Set(0, Cast(y, dtype));  // It saturates.
  return absl::OkStatus();
}

absl::Status Dequantize(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const Value scale, Against(call, 1, x));
  Value y = Cast(x, kFloat64);
  if (call.Has(2)) {
    GW_ASSIGN_OR_RETURN(const Value zero, Against(call, 2, x));
    y = Sub(y, Cast(zero, kFloat64));
  }
  DType dtype = scale.dtype();
  if (const int64_t given = call.Int("output_dtype", 0); given != 0) {
    GW_ASSIGN_OR_RETURN(dtype, DTypeFromOnnx(given));
  }
  call.Set(0, Cast(Mul(Cast(y, scale.dtype()), scale), dtype));
  return absl::OkStatus();
}

absl::Status DynamicQuantize(Call& call) {
  const Value x = call.In(0);
  const Value high = Maximum(Max(x), 0), low = Minimum(Min(x), 0);
  const Value scale = Div(Sub(high, low), 255);
  const Value zero = Cast(Round(Neg(Div(low, scale))), kUint8);
  call.Set(0, ToBytes(Add(Round(Div(x, scale)), Cast(zero, x.dtype())), kUint8));
  call.Set(1, scale);
  call.Set(2, zero);
  return absl::OkStatus();
}

absl::Status MatMulInteger(Call& call) {
  const Value a = Centred(call, 0, 2, call.Rank(0) - 2), b = Centred(call, 1, 3, call.Rank(1) - 1);
  call.Set(0, Cast(MatMul(a, b), kInt32));
  return absl::OkStatus();
}

// True if the zero points of the weights, input i, are known to be 0.
bool HasNoZero(const Call& call, int i) {
  if (!call.Has(i)) return true;
  if (!call.item(i).tensor.has_value()) return false;
  const std::vector<double> zeros = call.item(i).tensor->ToDoubles();
  return std::all_of(zeros.begin(), zeros.end(), [](double zero) { return zero == 0; });
}

// The inputs of QLinearMatMul, QLinearConv and QGemm. The first six are x and the weights, each
// with scale and zero point.
struct QuantizedInputs {
  int y_scale = 6, y_zero = 7, bias = 8;
};

// The parameters of QuantizedMatMul and QuantizedConv2D: the zero points of x and y, and a scale
// and a bias for each output channel. ParametersOf returns nullopt if the node does not fit.
struct Parameters {
  int64_t x_zero;
  Value scale, bias;
  QuantizedResult result;
};
std::optional<Parameters> ParametersOf(const Call& call, const Dim& channels, const QuantizedInputs& at = {}) {
  const std::optional<int64_t> x_zero = call.KnownZero(2), y_zero = call.KnownZero(at.y_zero);
  if (!x_zero.has_value() || !y_zero.has_value() || !channels.is_known()) return std::nullopt;
  if (call.Type(0).dtype == kFloat32 || call.Type(3).dtype != kInt8 || !HasNoZero(call, 5)) return std::nullopt;
  for (int i : {1, 4, at.y_scale}) {
    const bool one = call.Type(i).shape.num_elements() == Dim(1);
    if (call.Has(i) && (call.Type(i).dtype != kFloat32 || (i == 4 ? call.Rank(i) > 1 : !one))) return std::nullopt;
  }
  // In the order in which ONNX Runtime multiplies.
  Value scale = Mul(Reshape(call.In(1), {}), call.In(4));
  Parameters parameters = {.x_zero = *x_zero};
  if (call.Has(at.y_scale)) {
    scale = Div(scale, Reshape(call.In(at.y_scale), {}));
    parameters.result = {.dtype = call.Has(at.y_zero) ? call.Type(at.y_zero).dtype : kUint8, .zero = *y_zero};
  }
  parameters.scale = BroadcastTo(scale, {channels});
  parameters.bias =
      call.Has(at.bias) ? Reshape(call.In(at.bias), {channels}) : call.scope().Full(0, {channels}, kInt32);
  return parameters;
}

// Rounds sums of products to quantized numbers: sum * (a scale * b scale / y scale) + zero point.
Value Requantize(const Call& call, Value sum, int a_scale, int b_scale, int y_scale, int y_zero, int64_t axis) {
  auto scale = [&](int i) { return Cast(AlongAxis(call.In(i), sum, axis), kFloat64); };
  const Value factor = Div(Mul(scale(a_scale), scale(b_scale)), scale(y_scale));
  const Value zero = AlongAxis(call.In(y_zero), sum, axis);
  return ToBytes(Add(Round(Mul(sum, factor)), Cast(zero, kFloat64)), zero.dtype());
}

absl::Status QLinearMatMul(Call& call) {
  if (call.Rank(3) == 2 && call.Rank(0) >= 2) {
    if (const auto parameters = ParametersOf(call, call.Type(3).shape[1]); parameters.has_value()) {
      call.Set(0, QuantizedMatMul(call.In(0), call.In(3), parameters->scale, parameters->bias, parameters->x_zero,
                                  parameters->result));
      return absl::OkStatus();
    }
  }
  const Value a = Centred(call, 0, 2, call.Rank(0) - 2), b = Centred(call, 3, 5, call.Rank(3) - 1);
  const Value sum = MatMul(a, b);
  call.Set(0, Requantize(call, sum, 1, 4, 6, 7, sum.rank() - 1));
  return absl::OkStatus();
}

absl::StatusOr<ConvNDOptions> ConvOptions(const Call& call, const Shape& x, const Shape& filter) {
  Integers kernel;
  for (int i = 2; i < filter.rank(); ++i) kernel.push_back(SizeAt(filter, i).is_known() ? SizeAt(filter, i).size() : 0);
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x, kernel));
  return OptionsOf(windows, call.Int("group", 1));
}

absl::StatusOr<Value> Convolution(const Call& call, Value x, Value filter) {
  GW_ASSIGN_OR_RETURN(const ConvNDOptions options, ConvOptions(call, x.shape(), filter.shape()));
  return ConvND(x, filter, options);
}

absl::Status ConvInteger(Call& call) {
  GW_ASSIGN_OR_RETURN(const Value sum, Convolution(call, Centred(call, 0, 2, 1), Centred(call, 1, 3, 0)));
  call.Set(0, Cast(sum, kInt32));
  return absl::OkStatus();
}

absl::Status QLinearConv(Call& call) {
  if (call.Rank(3) == 4 && call.Rank(0) == 4) {
    if (const auto parameters = ParametersOf(call, call.Type(3).shape[0]); parameters.has_value()) {
      GW_ASSIGN_OR_RETURN(const ConvNDOptions options, ConvOptions(call, call.Type(0).shape, call.Type(3).shape));
      const Integers &low = options.padding_low, &high = options.padding_high;
      call.Set(0, QuantizedConv2D(call.In(0), call.In(3), parameters->scale, parameters->bias, parameters->x_zero,
                                  {.stride = options.stride,
                                   .padding = {low[0], high[0], low[1], high[1]},
                                   .dilation = options.dilation,
                                   .groups = options.groups},
                                  parameters->result));
      return absl::OkStatus();
    }
  }
  GW_ASSIGN_OR_RETURN(Value sum, Convolution(call, Centred(call, 0, 2, 1), Centred(call, 3, 5, 0)));
  if (call.Has(8)) sum = Add(sum, AlongAxis(Cast(call.In(8), kFloat64), sum, 1));
  call.Set(0, Requantize(call, sum, 1, 4, 6, 7, 1));
  return absl::OkStatus();
}

// ONNX Runtime's quantized Gemm. Without a scale of y the result is float32.
absl::Status QGemm(Call& call) {
  constexpr QuantizedInputs kInputs = {.y_scale = 7, .y_zero = 8, .bias = 6};
  if (call.Rank(0) != 2 || call.Rank(3) != 2) return call.Wrong("its operands have to be matrices");
  const bool transposes_x = call.Int("transA", 0) != 0, transposes_weights = call.Int("transB", 0) != 0;
  const double alpha = call.Float("alpha", 1);
  const Dim channels = call.Type(3).shape[transposes_weights ? 0 : 1];
  if (alpha == 1) {
    if (const auto parameters = ParametersOf(call, channels, kInputs); parameters.has_value()) {
      const Value x = transposes_x ? Transpose(call.In(0), {1, 0}) : call.In(0);
      const Value weights = transposes_weights ? Transpose(call.In(3), {1, 0}) : call.In(3);
      call.Set(
          0, QuantizedMatMul(x, weights, parameters->scale, parameters->bias, parameters->x_zero, parameters->result));
      return absl::OkStatus();
    }
  }
  const Value a = Centred(call, 0, 2, 1), b = Centred(call, 3, 5, transposes_weights ? 0 : 1);
  Value sum = MatMul(a, b, {.transpose_a = transposes_x, .transpose_b = transposes_weights});
  if (call.Has(6)) sum = Add(sum, Cast(call.In(6), kFloat64));
  const auto scale = [&](int i) { return Cast(AlongAxis(call.In(i), sum, 1), kFloat64); };
  const Value y = Mul(sum, Mul(Mul(scale(1), scale(4)), alpha));
  if (!call.Has(7)) {
    call.Set(0, Cast(y, kFloat32));
    return absl::OkStatus();
  }
  const DType dtype = call.Has(8) ? call.Type(8).dtype : kUint8;
  Value q = Round(Div(y, scale(7)));
  if (call.Has(8)) q = Add(q, Cast(AlongAxis(call.In(8), sum, 1), kFloat64));
  call.Set(0, ToBytes(q, dtype));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"ConvInteger", 10, 2, ConvInteger},
    {"DequantizeLinear", 10, 2, Dequantize},
    {"DynamicQuantizeLinear", 11, 1, DynamicQuantize},
    {"MatMulInteger", 10, 2, MatMulInteger},
    {"QLinearConv", 10, 8, QLinearConv},
    {"QGemm", 1, 6, QGemm, "com.microsoft"},
    {"QLinearMatMul", 10, 8, QLinearMatMul},
    {"QuantizeLinear", 10, 2, Quantize},
};

}  // namespace

absl::Span<const OpRow> QuantizationRows() { return kRows; }

}  // namespace gradweave::onnx
