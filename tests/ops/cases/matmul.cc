#include "gradweave/ops/matmul.h"

#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

// The leading axes broadcast. The operands have the same rank, or the first one is a single matrix.
std::vector<Array> Product(const std::vector<Array>& x, MatMulOptions options, const std::vector<int64_t>& sizes) {
  Array y = Array::Zeros(sizes);
  const int rank = static_cast<int>(sizes.size());
  auto element = [&](const Array& matrix, const std::vector<int64_t>& indices, int64_t row, int64_t column) {
    std::vector<int64_t> own;
    const int own_rank = static_cast<int>(matrix.sizes.size());
    for (int axis = 0; axis < own_rank - 2; ++axis)
      own.push_back(matrix.sizes[axis] == 1 ? 0 : indices[axis + rank - own_rank]);
    own.push_back(row);
    own.push_back(column);
    return matrix.at(own);
  };
  const int64_t k_size = options.transpose_a ? x[0].sizes[x[0].sizes.size() - 2] : x[0].sizes.back();
  ForIndices(sizes, [&](const std::vector<int64_t>& indices) {
    const int64_t i = indices[rank - 2], j = indices[rank - 1];
    for (int64_t k = 0; k < k_size; ++k) {
      y.at(indices) += (options.transpose_a ? element(x[0], indices, k, i) : element(x[0], indices, i, k)) *
                       (options.transpose_b ? element(x[1], indices, j, k) : element(x[1], indices, k, j));
    }
  });
  return {y};
}

}  // namespace

OpCases MatMulCases() {
  OpCases all;
  auto add = [&](const char* name, std::vector<int64_t> a, std::vector<int64_t> b, MatMulOptions options,
                 std::vector<int64_t> sizes, int derivatives = 2) {
    all.cases.push_back(
        {"MatMul",
         name,
         {{a}, {b}},
         [options](const std::vector<Value>& x) { return std::vector<Value>{MatMul(x[0], x[1], options)}; },
         [options, sizes](const std::vector<Array>& x) { return Product(x, options, sizes); },
         derivatives});
  };
  add("plain", {3, 4}, {4, 2}, {}, {3, 2});
  add("transpose_a", {4, 3}, {4, 2}, {.transpose_a = true}, {3, 2});
  add("transpose_b", {3, 4}, {2, 4}, {.transpose_b = true}, {3, 2});
  add("transpose_both", {4, 3}, {2, 4}, {.transpose_a = true, .transpose_b = true}, {3, 2});
  add("batched", {2, 3, 4}, {2, 4, 2}, {}, {2, 3, 2});
  add("broadcast_b", {2, 3, 4}, {4, 2}, {}, {2, 3, 2});
  add("broadcast_both", {2, 1, 3, 4}, {3, 4, 2}, {.transpose_b = false}, {2, 3, 3, 2});
  add("broadcast_transposed", {1, 4, 3}, {2, 2, 4}, {.transpose_a = true, .transpose_b = true}, {2, 3, 2});
  add("vectors", {1, 5}, {5, 1}, {}, {1, 1});
  add("inner_empty", {2, 0}, {0, 3}, {}, {2, 3}, 0);
  // The threads share the rows.
  add("large", {150, 90}, {90, 110}, {}, {150, 110}, 0);
  all.cases.back().float32_tolerance = 2e-4;
  add("large_transposed", {90, 150}, {110, 90}, {.transpose_a = true, .transpose_b = true}, {150, 110}, 0);
  all.cases.back().float32_tolerance = 2e-4;
  // Short sums over full vectors of columns: several panels, and a row count that is not a multiple
  // of the block size.
  add("panels", {77, 30}, {30, 112}, {}, {77, 112}, 0);
  add("panels_transpose_a", {2, 30, 29}, {2, 30, 48}, {.transpose_a = true}, {2, 29, 48}, 0);
  add("panels_transpose_b", {2, 29, 30}, {2, 48, 30}, {.transpose_b = true}, {2, 29, 48}, 0);
  add("panels_transpose_both", {30, 77}, {112, 30}, {.transpose_a = true, .transpose_b = true}, {77, 112}, 0);
  // A single row whose size is not a multiple of the column blocks.
  add("row", {1, 30}, {30, 112}, {}, {1, 112}, 0);
  add("row_transpose_a", {30, 1}, {30, 37}, {.transpose_a = true}, {1, 37}, 0);
  add("row_transpose_b", {1, 30}, {37, 30}, {.transpose_b = true}, {1, 37}, 0);
  add("row_of_each", {5, 1, 90}, {5, 90, 110}, {}, {5, 1, 110}, 0);
  add("row_of_all", {1, 9}, {30, 9, 40}, {}, {30, 1, 40}, 0);
  add("many_small", {300, 3, 5}, {300, 5, 4}, {}, {300, 3, 4}, 0);
  all.errors = {
      {"MatMul",
       "inner",
       [](Scope& s) {
         MatMul(s.Input("a", kFloat32, {2, 3}), s.Input("b", kFloat32, {4, 5}));
       },
       {"a has 3 columns and b has 4 rows", "a: float32[2,3], b: float32[4,5]"}},
      {"MatMul",
       "vector",
       [](Scope& s) {
         MatMul(s.Input("a", kFloat32, {3}), s.Input("b", kFloat32, {3, 5}));
       },
       {"operand 0 is float32[3]", "ExpandDims"}},
      {"MatMul",
       "leading",
       [](Scope& s) {
         MatMul(s.Input("a", kFloat32, {2, 3, 4}), s.Input("b", kFloat32, {5, 4, 3}));
       },
       {"leading axes do not broadcast"}},
      {"MatMul",
       "dtype",
       [](Scope& s) {
         MatMul(s.Input("a", kInt32, {2, 3}), s.Input("b", kInt32, {3, 5}));
       },
       {"has to be float32 or float64"}},
  };
  return all;
}

}  // namespace gradweave
