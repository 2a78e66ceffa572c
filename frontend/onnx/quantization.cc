// ONNX's ops on quantized numbers. Products of integers are added in float64, which is exact below
// 2^53.
#include <algorithm>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/frontend/onnx/windows.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
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

// Rounds sums of products to quantized numbers: sum * (a scale * b scale / y scale) + zero point.
Value Requantize(const Call& call, Value sum, int a_scale, int b_scale, int y_scale, int y_zero, int64_t axis) {
  auto scale = [&](int i) { return Cast(AlongAxis(call.In(i), sum, axis), kFloat64); };
  const Value factor = Div(Mul(scale(a_scale), scale(b_scale)), scale(y_scale));
  const Value zero = AlongAxis(call.In(y_zero), sum, axis);
  return ToBytes(Add(Round(Mul(sum, factor)), Cast(zero, kFloat64)), zero.dtype());
}

absl::Status QLinearMatMul(Call& call) {
  const Value a = Centred(call, 0, 2, call.Rank(0) - 2), b = Centred(call, 3, 5, call.Rank(3) - 1);
  const Value sum = MatMul(a, b);
  call.Set(0, Requantize(call, sum, 1, 4, 6, 7, sum.rank() - 1));
  return absl::OkStatus();
}

absl::StatusOr<Value> Convolution(const Call& call, Value x, Value filter) {
  Integers kernel;
  for (int i = 2; i < filter.rank(); ++i)
    kernel.push_back(SizeAt(filter.shape(), i).is_known() ? SizeAt(filter.shape(), i).size() : 0);
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), kernel));
  return ConvND(x, filter, OptionsOf(windows, call.Int("group", 1)));
}

absl::Status ConvInteger(Call& call) {
  GW_ASSIGN_OR_RETURN(const Value sum, Convolution(call, Centred(call, 0, 2, 1), Centred(call, 1, 3, 0)));
  call.Set(0, Cast(sum, kInt32));
  return absl::OkStatus();
}

absl::Status QLinearConv(Call& call) {
  GW_ASSIGN_OR_RETURN(Value sum, Convolution(call, Centred(call, 0, 2, 1), Centred(call, 3, 5, 0)));
  if (call.Has(8)) sum = Add(sum, AlongAxis(Cast(call.In(8), kFloat64), sum, 1));
  call.Set(0, Requantize(call, sum, 1, 4, 6, 7, 1));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"ConvInteger", 10, 2, ConvInteger},
    {"DequantizeLinear", 10, 2, Dequantize},
    {"DynamicQuantizeLinear", 11, 1, DynamicQuantize},
    {"MatMulInteger", 10, 2, MatMulInteger},
    {"QLinearConv", 10, 8, QLinearConv},
    {"QLinearMatMul", 10, 8, QLinearMatMul},
    {"QuantizeLinear", 10, 2, Quantize},
};

}  // namespace

absl::Span<const OpRow> QuantizationRows() { return kRows; }

}  // namespace gradweave::onnx
