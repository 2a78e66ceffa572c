// Convolutions with few channels per group, above all depthwise ones, and their gradients.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_H_

#include <vector>

#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Adds the ways of this folder to run a Conv2D, Conv2DInputGrad or Conv2DFilterGrad node of float32 or float64 whose
// channels are in several groups: none where groups or images are too large. `g` are the sizes of the convolution.
void AddDepthwiseChoices(const KernelRequest& request, const ConvGeometry& g, std::vector<KernelChoice>& choices);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_H_
