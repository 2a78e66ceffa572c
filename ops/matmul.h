// Matrix multiplication.
#ifndef GRADWEAVE_OPS_MATMUL_H_
#define GRADWEAVE_OPS_MATMUL_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// Options of MatMul.
struct MatMulOptions {
  bool transpose_a = false;  // Exchanges the last two axes of a first.
  bool transpose_b = false;  // The same for b.
};
// a [..., m, k] times b [..., k, n] gives [..., m, n]. The leading axes broadcast. Both operands
// have the same floating dtype. Shape errors are recorded in the graph.
Value MatMul(Operand a, Operand b, MatMulOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_MATMUL_H_
