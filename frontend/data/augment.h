// Random changes of training images.
#ifndef GRADWEAVE_FRONTEND_DATA_AUGMENT_H_
#define GRADWEAVE_FRONTEND_DATA_AUGMENT_H_

#include <cstdint>

#include "gradweave/frontend/dataset.h"

namespace gradweave::data {

// The probabilities with which an image is mirrored, in [0, 1].
struct FlipOptions {
  double horizontal = 0.5;  // Left becomes right.
  double vertical = 0;      // Top becomes bottom.
};

// The same samples; each time that a loader takes one, it mirrors the images [..., height, width]
// of this array or leaves them, all channels of a sample alike. What it does depends on the
// loader's seed, the epoch and the sample alone, and is the same on every machine. Errors, which
// the data set keeps: a name that there is not, an array that is neither float32 nor bytes or whose
// samples have fewer than two axes, a probability outside [0, 1].
//
//   train = gw::data::RandomCrops(gw::data::RandomFlips(train, "image"), "image", {.padding = 4});
Dataset RandomFlips(const Dataset& dataset, const ArrayName& name, const FlipOptions& options = {});

// How images are cropped.
struct CropOptions {
  int64_t padding = 4;      // Pixels on each side; at least 0.
  float padding_value = 0;  // As batches have pixels before they are standardized: in [0, 1] for bytes.
};

// The same samples; a loader pads the images [..., height, width] of this array on all sides and
// cuts an image of their old size out of them, at a random place (He et al., "Deep residual
// learning for image recognition", 2016, section 4.2). All channels of a sample are cut alike; the
// place depends on seed, epoch and sample as in RandomFlips, and so do the errors, with a padding
// below 0 or above 2^31 and a padding value that is NaN or infinite.
Dataset RandomCrops(const Dataset& dataset, const ArrayName& name, const CropOptions& options = {});

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_AUGMENT_H_
