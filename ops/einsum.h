// Einsum: products and sums of tensors by the names of their axes.
#ifndef GRADWEAVE_OPS_EINSUM_H_
#define GRADWEAVE_OPS_EINSUM_H_

#include <source_location>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradweave/ops/builder.h"

namespace gradweave {

// Multiplies the operands and sums over axes, as numpy.einsum does. The equation names each axis of
// each operand by a letter: "ij,jk->ik" is a matrix product, "bhqd,bhkd->bhqk" the scores of
// attention.
//   - Axes with the same letter have the same size, or size 1, which stretches.
//   - The sum is over the letters that do not follow "->". Without "->", the result has the letters
//     that occur once, in the order of the alphabet, capitals first.
//   - A letter that an operand has twice stands for its diagonal: "ii->" is the trace. These axes
//     have a known size.
//   - "..." stands for any number of axes, which broadcast and which the result has first unless it
//     places them: "...ij,...jk" multiplies batches of matrices.
// Spaces are ignored. All operands have one dtype, numbers of any kind. Several operands are
// multiplied from left to right: MatMul does it where two floating operands share a letter that is
// summed.
Value Einsum(absl::string_view equation, const std::vector<Value>& operands,
             std::source_location location = std::source_location::current());

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_EINSUM_H_
