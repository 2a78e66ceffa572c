// The packed filter of a kernel that is an implicit product.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_PACKED_FILTER_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_PACKED_FILTER_H_

#include <cstddef>

#include "gradweave/runtime/cpu/conv/implicit_conv.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Packs the filter, an operand with that index, or finds what the plan kept of it. `scratch` holds
// packed_floats() and is used if nothing is kept and the filter cannot be read where it lies.
ImplicitConvolution::Filter PackFilter(const ImplicitConvolution& convolution, const KernelArguments& arguments,
                                       int operand, std::byte* scratch);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_PACKED_FILTER_H_
