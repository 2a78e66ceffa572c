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

// Returns a data set with the same samples, whose images [..., height, width] of this array are
// mirrored at random each time that a loader takes them. All channels of a sample are treated
// alike. The choice depends only on the loader's seed, the epoch and the sample, and is the same on
// every machine. The data set keeps errors: an unknown name, an array that is neither float32 nor
// bytes or whose samples have fewer than two axes, and a probability outside [0, 1].
//
//   train = gw::data::RandomCrops(gw::data::RandomFlips(train, "image"), "image", {.padding = 4});
Dataset RandomFlips(const Dataset& dataset, const ArrayName& name, const FlipOptions& options = {});

// Options of RandomCrops.
struct CropOptions {
  int64_t padding = 4;      // Pixels on each side; at least 0.
  float padding_value = 0;  // On the scale of batches before standardization: in [0, 1] for bytes.
};

// Returns a data set with the same samples. A loader pads the images [..., height, width] of this
// array on all sides and cuts an image of the old size out of them, at a random place (He et al.,
// "Deep residual learning for image recognition", 2016, section 4.2). All channels of a sample are
// cut alike. The place depends on seed, epoch and sample as in RandomFlips. Errors are those of
// RandomFlips, a padding below 0 or above 2^31, and a padding value that is not finite.
Dataset RandomCrops(const Dataset& dataset, const ArrayName& name, const CropOptions& options = {});

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_AUGMENT_H_
