// Convolutions with few channels per group, especially depthwise ones, and their gradients.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_H_

#include <vector>

#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Adds "depthwise by rows", for float32 and float64, and "depthwise by channels"
// (depthwise_lanes.h) to the choices for a Conv2D, Conv2DInputGrad or Conv2DFilterGrad node. Adds
// neither if the channels are in one group, or if groups or images are too large. `g` holds the
// sizes of the convolution.
void AddDepthwiseChoices(const KernelRequest& request, const ConvGeometry& g, std::vector<KernelChoice>& choices);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_H_
