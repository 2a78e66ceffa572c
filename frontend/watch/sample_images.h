// Images among the arrays of a data set.
#ifndef GRADWEAVE_FRONTEND_WATCH_SAMPLE_IMAGES_H_
#define GRADWEAVE_FRONTEND_WATCH_SAMPLE_IMAGES_H_

#include <cstdint>

#include "gradweave/frontend/dataset.h"
#include "gradweave/frontend/image.h"

namespace gradweave {

// Returns the index of the first array of images [1 or 3, height, width], of bytes or of floating
// numbers of which 0 is black and 1 is white, with at most 1024 by 1024 pixels; -1 if there is
// none.
int ImageArray(const data::Dataset& samples);

// Returns the image of a sample of such an array, as the data set has it before changes for
// batches.
Image SampleImage(const data::Dataset::Array& array, int64_t sample);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_WATCH_SAMPLE_IMAGES_H_
