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

// Returns true if a node of one of the three float32 ops is worth a kernel that rounds both operands
// to bfloat16 (runtime/cpu/bfloat16_products.h). The answer depends on the shapes alone, which must
// be known.
bool HasBFloat16Convolution(const Node& node, absl::Span<const TensorType> operands);
// Adds these kernels. The names of their ops begin with "BFloat16".
void RegisterBFloat16Convolutions(KernelRegistry& registry);

// Returns the sizes of a node of one of the three ops.
ConvGeometry GeometryOf(const Node& node, absl::Span<const TensorType> operands, OpKind kind);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_CONV_KERNELS_H_
