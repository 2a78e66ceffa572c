#include "gradweave/frontend/watch/sample_images.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace gradweave {

int ImageArray(const data::Dataset& samples) {
  constexpr int64_t kMostPixels = 1024;
  for (size_t i = 0; i < samples.arrays().size(); ++i) {
    const data::Dataset::Array& array = samples.arrays()[i];
    const auto in_range = [](int64_t size) { return size >= 1 && size <= kMostPixels; };
    if (!array.is_generated && (array.dtype == kUint8 || IsFloating(array.dtype)) && array.sizes.size() == 3 &&
        (array.sizes[0] == 1 || array.sizes[0] == 3) && in_range(array.sizes[1]) && in_range(array.sizes[2])) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

Image SampleImage(const data::Dataset::Array& array, int64_t sample) {
  const double white = array.dtype == kUint8 ? 255 : 1;
  const std::vector<double> shades = array.values.Rows(sample, sample + 1).ToDoubles();
  Image image{.width = array.sizes[2], .height = array.sizes[1], .channels = array.sizes[0]};
  image.pixels.resize(shades.size());
  const int64_t pixels = image.width * image.height;
  for (int64_t channel = 0; channel < image.channels; ++channel) {
    for (int64_t i = 0; i < pixels; ++i) {
      const double shade = shades[channel * pixels + i] / white;
      image.pixels[i * image.channels + channel] =
          shade > 0 ? static_cast<uint8_t>(std::lround(255 * std::min(shade, 1.0))) : 0;
    }
  }
  return image;
}

}  // namespace gradweave
