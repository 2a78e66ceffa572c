// Kernels of float32 Conv2D, Conv2DInputGrad and Conv2DFilterGrad as implicit matrix products.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_CONV_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_CONV_KERNELS_H_

#include <vector>

#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// The name of the kernels.
inline constexpr char kImplicitProduct[] = "implicit product";

// Add the choice "implicit product" for a node of the op in the function's name, if the sizes fit.
void AddImplicitConv2D(const KernelRequest& request, const ConvGeometry& g, std::vector<KernelChoice>& choices);
void AddImplicitConv2DInputGrad(const KernelRequest& request, const ConvGeometry& g,
                                std::vector<KernelChoice>& choices);
void AddImplicitConv2DFilterGrad(const KernelRequest& request, const ConvGeometry& g,
                                 std::vector<KernelChoice>& choices);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_CONV_KERNELS_H_
