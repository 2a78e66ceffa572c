// ONNX's matrix products, and Fourier transforms.
#include "gradweave/ops/matmul.h"

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/conv_nd.h"
#include "gradweave/ops/determinant.h"
#include "gradweave/ops/einsum.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/index_functions.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/spectral.h"

namespace gradweave::onnx {
namespace {

// Multiplies like numpy.matmul: operands with one axis are a row and a column.
absl::Status MatMulRow(Call& call) {
  Value a = call.In(0), b = call.In(1);
  const DType dtype = a.dtype();
  if (dtype != b.dtype()) return call.Wrong("its operands have two dtypes");
  if (a.rank() < 1 || b.rank() < 1) return call.Wrong("its operands have no axes");
  const bool row = a.rank() == 1, column = b.rank() == 1;
  if (row) a = ExpandDims(a, {0});
  if (column) b = ExpandDims(b, {1});
  // Sums of products of integers are exact in float64 below 2^53.
  if (!IsFloating(dtype)) {
    a = Cast(a, kFloat64);
    b = Cast(b, kFloat64);
  }
  Value y = MatMul(a, b);
  if (!IsFloating(dtype)) y = Cast(y, dtype);
  if (column) y = Squeeze(y, {-1});
  if (row) y = Squeeze(y, {column ? -1 : -2});
  call.Set(0, y);
  return absl::OkStatus();
}

absl::Status Gemm(Call& call) {
  const Value a = call.In(0), b = call.In(1);
  const double alpha = call.Float("alpha", 1), beta = call.Float("beta", 1);
  call.Ignore({"broadcast"});  // Before opset 7: the sum broadcasts anyway.
  Value y = MatMul(a, b, {.transpose_a = call.Int("transA", 0) != 0, .transpose_b = call.Int("transB", 0) != 0});
  if (alpha != 1) y = Mul(y, alpha);
  if (call.Has(2) && beta != 0) {
    const Value c = call.In(2);
    y = Add(y, beta == 1 ? c : Mul(c, beta));
  }
  call.Set(0, y);
  return absl::OkStatus();
}

absl::Status EinsumRow(Call& call) {
  call.Set(0, Einsum(call.Text("equation", ""), call.Ins()));
  return absl::OkStatus();
}

absl::Status Det(Call& call) {
  call.Set(0, Determinant(call.In(0)));
  return absl::OkStatus();
}

// The axis is an input from opset 20 on. The transform back to real elements takes the numbers that
// onesided leaves out from the others.
absl::Status DftRow(Call& call) {
  Value x = call.In(0);
  double given_axis = static_cast<double>(call.Int("axis", 1)), length = -1;
  if (call.opset() >= 20) given_axis = -2;
  if (call.Has(2)) {
    GW_ASSIGN_OR_RETURN(given_axis, call.KnownNumber(2));
  }
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(length, call.KnownNumber(1));
  }
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(ToInteger(given_axis), x.rank()));
  const Dim size = SizeAt(x.shape(), axis);
  if (!size.is_known()) return call.Refuse("its axis has a size that only a run knows");
  // The transform is a product with a matrix.
  constexpr double kMostLength = 1 << 20;
  const double of_matrix = length >= 0 ? length : static_cast<double>(size.size());
  if (!(of_matrix <= kMostLength)) return call.Wrong("its length is out of range");
  GW_RETURN_IF_ERROR(call.importer().Take(ToInteger(48 * of_matrix * of_matrix)));
  DftOptions options{.axis = axis, .inverse = call.Int("inverse", 0) != 0, .onesided = call.Int("onesided", 0) != 0};
  if (length >= 0) options.length = ToInteger(length);
  if (!options.inverse || !options.onesided) {
    call.Set(0, Dft(x, options));
    return absl::OkStatus();
  }
  // The number k from the end is the conjugate of the number k from the beginning.
  options.onesided = false;
  const int64_t n = options.length.value_or(2 * (size.size() - 1)), half = n / 2 + 1;
  if (n < 1 || !(SizeAt(x.shape(), x.rank() - 1) == Dim(2)))
    return call.Wrong("it needs complex numbers, and a length");
  options.length = n;
  if (size.size() < half) {
    PadOptions pad;
    for (int i = 0; i < x.rank(); ++i) {
      pad.low.Append(0);
      pad.high.Append(i == axis ? half - size.size() : 0);
    }
    x = Pad(x, pad);
  }
  x = SliceAxis(x, axis, 0, half);
  if (n > half) {
    Value rest = SliceAxis(x, axis, n - half, 0, -1);
    rest = Concat({SliceAxis(rest, -1, 0, 1), Neg(SliceAxis(rest, -1, 1, 2))}, -1);
    x = Concat({x, rest}, axis);
  }
  call.Set(0, SliceAxis(Dft(x, options), -1, 0, 1));
  return absl::OkStatus();
}

// Transforms of frames [batch, frames, numbers, 2] of signals [batch, length] or [batch, length, 1
// or 2]. Real signals of open length are convolved with the waves.
absl::Status StftRow(Call& call) {
  Value x = call.In(0);
  if (x.rank() == 2) x = ExpandDims(x, {2});
  if (x.rank() != 3) return call.Wrong("its signal needs two or three axes");
  GW_ASSIGN_OR_RETURN(const double step, call.KnownNumber(1));
  int64_t frame = call.Has(2) && call.Rank(2) == 1 && SizeAt(call.Type(2).shape, 0).is_known()
                      ? SizeAt(call.Type(2).shape, 0).size()
                      : 0;
  if (call.Has(3)) {
    GW_ASSIGN_OR_RETURN(const double given, call.KnownNumber(3));
    frame = ToInteger(given);
  }
  const StftOptions options{
      .frame_length = frame, .frame_step = ToInteger(step), .onesided = call.Int("onesided", 1) != 0};
  if (SizeAt(x.shape(), 1).is_known() || !(SizeAt(x.shape(), 2) == Dim(1))) {
    call.Set(0, call.Has(2) ? Stft(x, call.In(2), options) : Stft(x, options));
    return absl::OkStatus();
  }
  constexpr int64_t kMost = 8192;
  if (frame < 1 || frame > kMost || options.frame_step < 1) return call.Wrong("its step or its frame is out of range");
  // The transform of each unit vector is that of a wave: [frame, 1, numbers, 2].
  const Value unit = EyeLike(call.scope().Full(0, {frame, frame}, x.dtype()), {.dtype = x.dtype()});
  const StftOptions one{.frame_length = frame, .frame_step = 1, .onesided = options.onesided};
  Value waves = Stft(ExpandDims(unit, {2}), one);
  const Dim numbers = SizeAt(waves.shape(), 2);
  waves = Transpose(Reshape(waves, {frame, numbers * 2}), {1, 0});
  if (call.Has(2)) waves = Mul(waves, call.In(2));
  const Value y = ConvND(Transpose(x, {0, 2, 1}), ExpandDims(waves, {1}), {.stride = {options.frame_step}});
  const Dim frames = SizeAt(y.shape(), 2);
  call.Set(0, Transpose(Reshape(y, {SizeAt(x.shape(), 0), numbers, 2, frames}), {0, 3, 1, 2}));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"DFT", 17, 1, DftRow}, {"Det", 11, 1, Det},         {"Einsum", 12, 1, EinsumRow},
    {"Gemm", 1, 2, Gemm},   {"MatMul", 1, 2, MatMulRow}, {"STFT", 17, 2, StftRow},
};

}  // namespace

absl::Span<const OpRow> MatMulRows() { return kRows; }

}  // namespace gradweave::onnx
