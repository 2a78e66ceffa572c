// Determinants of small matrices.
#ifndef GRADWEAVE_OPS_DETERMINANT_H_
#define GRADWEAVE_OPS_DETERMINANT_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// Returns the determinants [...] of matrices x [..., n, n], with a known n of at most 8, by
// expansion along the rows. This uses only products and sums, so singular matrices have gradients
// too. Errors are recorded in the graph.
Value Determinant(Operand x);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_DETERMINANT_H_
