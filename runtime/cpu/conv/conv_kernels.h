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

// The same three with operands that are rounded to bfloat16 (runtime/cpu/bfloat16_products.h); their
// names begin with "BFloat16". Returns true if there is such a kernel for a node of one of the three
// float32 ops, and its tiles have few empty rows. The shapes must be known.
bool HasBFloat16Convolution(const Node& node, absl::Span<const TensorType> operands);
void RegisterBFloat16Convolutions(KernelRegistry& registry);

// Returns the sizes of a node of one of the three ops.
ConvGeometry GeometryOf(const Node& node, absl::Span<const TensorType> operands, OpKind kind);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_CONV_KERNELS_H_
