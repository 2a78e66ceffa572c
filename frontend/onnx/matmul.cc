// ONNX's matrix products, and Fourier transforms, which are products with constant matrices.
#include "gradweave/ops/matmul.h"

#include <cmath>
#include <functional>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/einsum.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/shape_ops.h"

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

// The determinant by expansion along the first row, for small matrices.
absl::Status Det(Call& call) {
  const Value x = call.In(0);
  constexpr int64_t kMost = 4;
  const int rank = x.rank();
  if (rank < 2 || !(x.shape()[rank - 1] == x.shape()[rank - 2])) return call.Wrong("it needs square matrices");
  const Dim size = x.shape()[rank - 1];
  if (!size.is_known() || size.size() < 1 || size.size() > kMost)
    return call.Refuse("it is imported for sizes up to ", kMost);
  const std::function<Value(int64_t, const Integers&)> minor = [&](int64_t row, const Integers& columns) {
    Value sum;
    for (size_t i = 0; i < columns.size(); ++i) {
      Value term = Squeeze(SliceAxis(SliceAxis(x, -2, row, row + 1), -1, columns[i], columns[i] + 1), {-2, -1});
      if (columns.size() > 1) {
        Integers rest = columns;
        rest.erase(rest.begin() + static_cast<int64_t>(i));
        term = Mul(term, minor(row + 1, rest));
      }
      sum = i == 0 ? term : i % 2 == 0 ? Add(sum, term) : Sub(sum, term);
    }
    return sum;
  };
  Integers columns;
  for (int64_t i = 0; i < size.size(); ++i) columns.push_back(i);
  call.Set(0, minor(0, columns));
  return absl::OkStatus();
}

// The Fourier transform of `length` elements as two matrices [length, bins], the cosines and the
// sines.
struct Fourier {
  Value cosines, sines;
};
absl::StatusOr<Fourier> FourierOf(Call& call, int64_t length, bool one_sided, DType dtype) {
  constexpr int64_t kMost = 8192;
  if (length < 1 || length > kMost) return call.Refuse("its length is ", length, ", and 1 to ", kMost, " are imported");
  const int64_t bins = one_sided ? length / 2 + 1 : length;
  Tensor cosines(kFloat64, {length, bins}), sines(kFloat64, {length, bins});
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t k = 0; k < bins; ++k) {
      // The angle of a whole number of turns less is exact.
      const double angle = 2 * M_PI * static_cast<double>(i * k % length) / static_cast<double>(length);
      cosines.mutable_data<double>()[i * bins + k] = std::cos(angle);
      sines.mutable_data<double>()[i * bins + k] = std::sin(angle);
    }
  }
  return Fourier{call.scope().Constant(cosines.Cast(dtype)), call.scope().Constant(sines.Cast(dtype))};
}

// The axis is an attribute, and an input from opset 20 on.
absl::Status Dft(Call& call) {
  Value x = call.In(0);
  if (x.rank() < 2) return call.Wrong("it needs an axis and the parts of numbers");
  double given_axis = static_cast<double>(call.Int("axis", 1)), length = -1;
  if (call.opset() >= 20) given_axis = -2;
  if (call.Has(2)) {
    GW_ASSIGN_OR_RETURN(given_axis, call.KnownNumber(2));
  }
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(static_cast<int64_t>(given_axis), x.rank()));
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(length, call.KnownNumber(1));
  }
  const Dim size = x.shape()[static_cast<int>(axis)];
  if (!size.is_known()) return call.Refuse("its axis has a size that only a run knows");
  if (axis == x.rank() - 1) return call.Wrong("its axis is that of the parts of numbers");
  const int64_t n = length < 0 ? size.size() : static_cast<int64_t>(length);
  const bool inverse = call.Int("inverse", 0) != 0, one_sided = call.Int("onesided", 0) != 0;
  GW_ASSIGN_OR_RETURN(const Fourier fourier, FourierOf(call, n, one_sided, x.dtype()));
  if (n != size.size()) {
    PadOptions pad;
    for (int i = 0; i < x.rank(); ++i) {
      pad.low.Append(0);
      pad.high.Append(i == axis ? n - size.size() : 0);
    }
    x = Pad(x, pad);
  }
  const bool is_complex = x.shape()[x.rank() - 1] == Dim(2);
  Integers order, back(static_cast<size_t>(x.rank()) - 1);
  for (int64_t i = 0; i + 1 < x.rank(); ++i) {
    if (i != axis) order.push_back(i);
  }
  order.push_back(axis);
  for (size_t i = 0; i < order.size(); ++i) back[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  auto part = [&](int64_t i) {
    const Value value = Transpose(Squeeze(SliceAxis(x, -1, i, i + 1), {-1}), order);
    return value.rank() == 1 ? ExpandDims(value, {0}) : value;
  };
  const Value real = part(0), imaginary = is_complex ? part(1) : Value();
  const double sign = inverse ? 1 : -1;
  Value y_real = MatMul(real, fourier.cosines), y_imaginary = Mul(MatMul(real, fourier.sines), sign);
  if (is_complex) {
    y_real = Sub(y_real, Mul(MatMul(imaginary, fourier.sines), sign));
    y_imaginary = Add(y_imaginary, MatMul(imaginary, fourier.cosines));
  }
  auto finished = [&](Value value) {
    if (inverse) value = Div(value, static_cast<double>(n));
    if (order.size() == 1) value = Squeeze(value, {0});
    return ExpandDims(Transpose(value, back), {-1});
  };
  call.Set(0, Concat({finished(y_real), finished(y_imaginary)}, -1));
  return absl::OkStatus();
}

// Fourier transforms of windows [batch, frames, bins, 2] of signals [batch, length] or [batch,
// length, 1].
absl::Status Stft(Call& call) {
  Value x = call.In(0);
  if (x.rank() == 3) {
    if (!(x.shape()[2] == Dim(1))) return call.Refuse("complex signals are not imported");
    x = Squeeze(x, {2});
  }
  if (x.rank() != 2 || !x.shape()[1].is_known()) return call.Refuse("it needs signals of known length");
  GW_ASSIGN_OR_RETURN(const double step_number, call.KnownNumber(1));
  int64_t frame =
      call.Has(2) && call.Rank(2) == 1 && call.Type(2).shape[0].is_known() ? call.Type(2).shape[0].size() : 0;
  if (call.Has(3)) {
    GW_ASSIGN_OR_RETURN(const double given, call.KnownNumber(3));
    frame = static_cast<int64_t>(given);
  }
  const auto step = static_cast<int64_t>(step_number);
  const int64_t length = x.shape()[1].size();
  if (step < 1 || frame < 1 || frame > length)
    return call.Wrong("its step and its frame have to be in [1, ", length, "]");
  const int64_t frames = (length - frame) / step + 1;
  GW_ASSIGN_OR_RETURN(const Fourier fourier, FourierOf(call, frame, call.Int("onesided", 1) != 0, x.dtype()));
  Tensor places(kInt64, {frames, frame});
  for (int64_t i = 0; i < frames * frame; ++i) places.mutable_data<int64_t>()[i] = i / frame * step + i % frame;
  Value windows = Gather(x, call.scope().Constant(places), 1);
  if (call.Has(2)) windows = Mul(windows, call.In(2));
  const Value real = MatMul(windows, fourier.cosines), imaginary = Neg(MatMul(windows, fourier.sines));
  call.Set(0, Concat({ExpandDims(real, {3}), ExpandDims(imaginary, {3})}, 3));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"DFT", 17, 1, Dft},  {"Det", 11, 1, Det},         {"Einsum", 12, 1, EinsumRow},
    {"Gemm", 1, 2, Gemm}, {"MatMul", 1, 2, MatMulRow}, {"STFT", 17, 2, Stft},
};

}  // namespace

absl::Span<const OpRow> MatMulRows() { return kRows; }

}  // namespace gradweave::onnx
