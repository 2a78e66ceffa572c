#include "gradweave/frontend/data/augment.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gradweave/frontend/transforms.h"

namespace gradweave::data {
namespace {

// The images of a sample: all axes but the last two count them.
struct Images {
  explicit Images(absl::Span<const int64_t> sizes) : height(sizes[sizes.size() - 2]), width(sizes[sizes.size() - 1]) {}
  int64_t height, width;
};

// Adds the transform, or an error if the array's samples are not images or `wrong` describes an
// option.
Dataset AugmentImages(const Dataset& dataset, absl::string_view function, const ArrayName& name,
                      const std::string& wrong, SampleTransform transform) {
  const int index = dataset.IndexOf(name.name());
  if (!dataset.status().ok() || index < 0) return dataset.Augmented(name, std::move(transform));
  if (!wrong.empty()) {
    return Dataset::Failed(absl::InvalidArgumentError(absl::StrCat(function, ": ", wrong)));
  }
  const Dataset::Array& array = dataset.arrays()[index];
  if (array.sizes.size() < 2) {
    return Dataset::Failed(absl::InvalidArgumentError(
        absl::StrCat(function, ": array '", array.name, "' is ", array.TypeToString(dataset.size()),
                     "; images are expected, whose last two axes are height and width")));
  }
  return dataset.Augmented(name, std::move(transform));
}

}  // namespace

Dataset RandomFlips(const Dataset& dataset, const ArrayName& name, const FlipOptions& options) {
  std::string wrong;
  for (double probability : {options.horizontal, options.vertical}) {
    if (!(probability >= 0 && probability <= 1)) {
      wrong = absl::StrCat("a probability is ", probability, " and has to be in [0, 1]");
    }
  }
  return AugmentImages(
      dataset, "RandomFlips", name, wrong,
      [options](absl::Span<const float> from, absl::Span<float> to, absl::Span<const int64_t> sizes,
                SampleRandom& random) {
        const bool horizontal = random.Uniform() < options.horizontal, vertical = random.Uniform() < options.vertical;
        const Images images(sizes);
        const auto rows = static_cast<int64_t>(from.size()) / std::max<int64_t>(images.width, 1);
        for (int64_t row = 0; row < rows; ++row) {
          const int64_t y = row % images.height;
          const float* source = from.data() + (vertical ? row - y + images.height - 1 - y : row) * images.width;
          float* target = to.data() + row * images.width;
          if (horizontal) {
            std::reverse_copy(source, source + images.width, target);
          } else {
            std::copy(source, source + images.width, target);
          }
        }
      });
}

Dataset RandomCrops(const Dataset& dataset, const ArrayName& name, const CropOptions& options) {
  constexpr int64_t kMostPadding = int64_t{1} << 31;
  std::string wrong;
  if (options.padding < 0 || options.padding > kMostPadding) {
    wrong = absl::StrCat("the padding is ", options.padding, " and has to be in [0, 2^31]");
  } else if (!std::isfinite(options.padding_value)) {
    wrong = absl::StrCat("the padding's value is ", options.padding_value, " and has to be finite");
  }
  return AugmentImages(dataset, "RandomCrops", name, wrong,
                       [options](absl::Span<const float> from, absl::Span<float> to, absl::Span<const int64_t> sizes,
                                 SampleRandom& random) {
                         // The place of the crop in the image without padding.
                         const int64_t top = random.Below(2 * options.padding + 1) - options.padding;
                         const int64_t left = random.Below(2 * options.padding + 1) - options.padding;
                         const Images images(sizes);
                         const auto rows = static_cast<int64_t>(from.size()) / std::max<int64_t>(images.width, 1);
                         // The columns that the crop takes from the image.
                         const int64_t begin = std::clamp<int64_t>(-left, 0, images.width);
                         const int64_t end = std::clamp<int64_t>(images.width - left, begin, images.width);
                         for (int64_t row = 0; row < rows; ++row) {
                           const int64_t y = row % images.height + top;
                           float* target = to.data() + row * images.width;
                           std::fill(target, target + images.width, options.padding_value);
                           if (y < 0 || y >= images.height) continue;
                           const float* source = from.data() + (row + top) * images.width;
                           for (int64_t x = begin; x < end; ++x) target[x] = source[x + left];
                         }
                       });
}

}  // namespace gradweave::data
