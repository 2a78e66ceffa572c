#include "gradweave/ops/determinant.h"

#include <bit>
#include <cstdint>
#include <vector>

#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave {

Value Determinant(Operand x) {
  if (!x.is_value()) return NeedsValue("Determinant", x);
  constexpr int64_t kMostRows = 8;
  const int rank = x.rank();
  const bool square = rank >= 2 && x.shape()[rank - 1] == x.shape()[rank - 2] && x.shape()[rank - 1].is_known();
  if (!square || x.shape()[rank - 1].size() > kMostRows)
    return BuilderError("Determinant", {x}, "x has to be square matrices [..., n, n], with a known n of at most 8");
  const CallLocation location(x);
  const int n = static_cast<int>(x.shape()[rank - 1].size());
  Shape outer;
  for (int axis = 0; axis < rank - 2; ++axis) outer.Append(x.shape()[axis]);
  const Value one = ConstantLike(x.value(), Tensor::ScalarOf(x.dtype(), 1), x.location());
  if (n == 0) return BroadcastTo(one, outer);
  std::vector<Value> elements;  // Row by row, each [...].
  for (int row = 0; row < n; ++row) {
    const Value of_row = SliceAxis(x, rank - 2, row, row + 1);
    for (int column = 0; column < n; ++column)
      elements.push_back(Reshape(SliceAxis(of_row, rank - 1, column, column + 1), outer));
  }
  // minors[columns] is the determinant of these columns and the same number of first rows. The sign
  // of the last row's element in a column depends on the number of columns after it.
  std::vector<Value> minors(size_t{1} << n);
  for (unsigned columns = 1; columns < minors.size(); ++columns) {
    const int row = std::popcount(columns) - 1;
    Value& sum = minors[columns];
    for (int column = 0; column < n; ++column) {
      if ((columns >> column & 1) == 0) continue;
      const Value& rest = minors[columns & ~(1u << column)];
      const Value& element = elements[row * n + column];
      const Value product = rest.valid() ? element * rest : element;
      const bool negative = std::popcount(columns >> (column + 1)) % 2 == 1;
      sum = sum.valid() ? (negative ? sum - product : sum + product) : (negative ? -product : product);
    }
  }
  return minors.back();
}

}  // namespace gradweave
