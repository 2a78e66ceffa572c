// ONNX's matrix products.
#include "gradweave/ops/matmul.h"

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/einsum.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

// As numpy.matmul: operands with one axis are a row and a column.
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

constexpr OpRow kRows[] = {
    {"Einsum", 12, 1, EinsumRow},
    {"Gemm", 1, 2, Gemm},
    {"MatMul", 1, 2, MatMulRow},
};

}  // namespace

absl::Span<const OpRow> MatMulRows() { return kRows; }

}  // namespace gradweave::onnx
