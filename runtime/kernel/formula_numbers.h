// The numbers that the formulas of elementwise ops take beside elements.
#ifndef GRADWEAVE_RUNTIME_KERNEL_FORMULA_NUMBERS_H_
#define GRADWEAVE_RUNTIME_KERNEL_FORMULA_NUMBERS_H_

#include <variant>

#include "absl/container/inlined_vector.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

using FormulaNumbers = absl::InlinedVector<double, 2>;

// The node's real attributes, in the order of its op's definition: an elementwise op's numbers in
// formulas.h.
inline FormulaNumbers NumbersOf(const Node& node) {
  FormulaNumbers numbers;
  for (const AttributeValue& attribute : node.attributes) {
    if (const double* number = std::get_if<double>(&attribute)) numbers.push_back(*number);
  }
  return numbers;
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_FORMULA_NUMBERS_H_
