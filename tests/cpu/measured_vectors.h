// Which choices of the cost model a test may expect.
#ifndef GRADWEAVE_TESTS_CPU_MEASURED_VECTORS_H_
#define GRADWEAVE_TESTS_CPU_MEASURED_VECTORS_H_

#include "gradweave/runtime/cpu/cost/cost_model.h"

namespace gradweave {

// True for AVX2 and AVX-512, whose kernels the cost model's numbers were measured with. With shorter
// vectors, other kernels are the fastest ones for the same sizes.
inline bool HasMeasuredVectors() { return ThisMachine().lanes >= 8; }

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CPU_MEASURED_VECTORS_H_
