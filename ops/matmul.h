// Matrix products.
#ifndef GRADWEAVE_OPS_MATMUL_H_
#define GRADWEAVE_OPS_MATMUL_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

struct MatMulOptions {
  bool transpose_a = false;  // Of the last two axes.
  bool transpose_b = false;
};
// a [..., m, k] times b [..., k, n] gives [..., m, n]; the leading axes broadcast.
Value MatMul(Operand a, Operand b, MatMulOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_MATMUL_H_
