// Packed panels of a right matrix, which MultiplyPanels (product.h) reads.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_PANELS_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_PANELS_H_

#include <cstdint>

#include "gradweave/runtime/cpu/product/product.h"

namespace gradweave {

// Returns the floats of the panels of b [terms, columns].
int64_t PanelFloats(int64_t terms, int64_t columns);

// Packs b into panels [terms][width], one after the other. The last is rounded up to whole vectors,
// with zeros.
void PackPanels(const float* b, MatrixLayout layout, int64_t terms, int64_t columns, float* to);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_PANELS_H_
