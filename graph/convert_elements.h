// Conversion of arrays between all dtypes.
#ifndef GRADWEAVE_GRAPH_CONVERT_ELEMENTS_H_
#define GRADWEAVE_GRAPH_CONVERT_ELEMENTS_H_

#include <cstdint>

#include "gradweave/graph/dtype.h"

namespace gradweave {

// Converts `count` elements of one dtype to another one, as the op Cast does. Numbers become
// floating numbers by rounding to the nearest one, to even if two are equally near; beyond the
// largest one they become infinite. Floating numbers become integers by rounding toward zero, and
// saturate at the integers' bounds; NaN becomes 0. Integers wrap around. Conversion to bool is
// x != 0. NaN stays NaN in floating dtypes. The result does not depend on whether the thread takes
// denormals as zeros, except for conversions between float32 and float64. The arrays may be the
// same if the dtypes have one size; else they must not overlap.
void ConvertElements(DType from_dtype, const void* from, DType to_dtype, void* to, int64_t count);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_CONVERT_ELEMENTS_H_
