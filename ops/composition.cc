#include "gradweave/ops/composition.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave {

bool AllValid(absl::string_view op, absl::Span<const Operand> operands) {
  Graph* graph = nullptr;
  const Operand* refused = nullptr;
  for (const Operand& operand : operands) {
    if (operand.is_value() && graph == nullptr) graph = operand.graph();
    if (!operand.valid() && refused == nullptr) refused = &operand;
  }
  if (refused == nullptr) return true;
  if (refused->graph() == nullptr) {
    BuilderError(
        op, operands,
        "an operand is an empty Value, which belongs to no graph; pass the result of an op, Input or Variable");
  } else if (graph != nullptr && refused->graph() != graph) {
    graph->RecordError(refused->graph()->status());
  }
  return false;
}

std::string AxisError(const Operand& x, int64_t axis) {
  return absl::StrCat("axis ", axis, " is outside [", -x.rank(), ", ", x.rank(), ")");
}

Operand SizeOf(const Value& x, int axis) {
  const Dim& dim = x.shape()[axis];
  return dim.is_known() ? Operand(dim.size()) : Operand(DimSize(x, axis));
}

Value Numbers(const Operand& x, absl::Span<const int64_t> sizes, absl::Span<const double> numbers) {
  return ConstantLike(x.value(), Tensor::Of<double>(sizes, numbers).Cast(x.dtype()), x.location());
}

Value Numbers(const Operand& x, absl::Span<const int64_t> sizes, absl::Span<const int64_t> numbers) {
  return ConstantLike(x.value(), Tensor::Of<int64_t>(sizes, numbers), x.location());
}

Value WithAxesBehind(const Value& x, int after) {
  Shape shape = x.shape();
  for (int i = 0; i < after; ++i) shape.Append(Dim(1));
  return after == 0 ? x : Reshape(x, shape);
}

Integers WithLast(int rank, int64_t axis) {
  Integers permutation(rank);
  std::iota(permutation.begin(), permutation.end(), 0);
  std::swap(permutation[axis], permutation[rank - 1]);
  return permutation;
}

}  // namespace gradweave
