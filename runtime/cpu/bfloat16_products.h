// Products of bfloat16 numbers on the CPU.
#ifndef GRADWEAVE_RUNTIME_CPU_BFLOAT16_PRODUCTS_H_
#define GRADWEAVE_RUNTIME_CPU_BFLOAT16_PRODUCTS_H_

#include "absl/status/status.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Replaces each float32 MatMul whose operands are both bfloat16 numbers by BFloat16MatMul, an op of
// the CPU alone: it rounds its operands to bfloat16 and sums in float32, in the order that
// runtime/cpu/product/bfloat16_kernels.h gives. Does the same for Conv2D and its gradients, if their
// shapes are known and tiles pay (conv/conv_kernels.h); a bias is not rounded again. The choice
// depends on the shapes alone, so the results are the same on all processors.
//
// RoundToBFloat16 makes such numbers, and so does a cast from bfloat16; reshapes and transpositions
// keep them. A rounding before a product is left out. Bodies of loops and branches are changed too.
absl::Status UseBFloat16Products(Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_BFLOAT16_PRODUCTS_H_
