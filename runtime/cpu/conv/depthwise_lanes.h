// Depthwise convolutions with channels in the lanes, for small images.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_LANES_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_LANES_H_

#include <cstdint>
#include <vector>

#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Limits of both kinds of depthwise convolutions.
inline constexpr int64_t kMostChunks = 64;    // Chunks of groups, which threads take.
inline constexpr int64_t kMostPartials = 16;  // Chunks of samples; each has its own sums.

// Adds "depthwise by channels" to the choices for a float32 Conv2D, Conv2DInputGrad or
// Conv2DFilterGrad node, if groups have one channel and the images of one vector of channels stay
// in the second-level cache. Sizes have to be moderate (ImageWindows::is_moderate) and positive.
void AddLaneChoice(const KernelRequest& request, const ConvGeometry& g, std::vector<KernelChoice>& choices);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_DEPTHWISE_LANES_H_
