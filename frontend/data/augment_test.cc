// Random changes of images: what they do, and on what they depend.
#include "gradweave/frontend/data/augment.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/batches.h"
#include "gtest/gtest.h"

namespace gradweave::data {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr int kSamples = 12, kHeight = 3, kWidth = 4, kChannels = 2, kPixels = kChannels * kHeight * kWidth;

// Pixel (channel, y, x) of every sample. No pixel is like another.
float PixelOf(int channel, int y, int x) { return static_cast<float>(1 + (channel * kHeight + y) * kWidth + x); }

// Equal images, with the sample's number beside them.
Dataset Images() {
  Tensor images(kFloat32, {kSamples, kChannels, kHeight, kWidth}), numbers(kInt32, {kSamples});
  for (int i = 0; i < kSamples; ++i) {
    for (int k = 0; k < kPixels; ++k) {
      images.mutable_data<float>()[i * kPixels + k] = PixelOf(k / (kHeight * kWidth), k / kWidth % kHeight, k % kWidth);
    }
    numbers.mutable_data<int32_t>()[i] = i;
  }
  return {{"image", images}, {"number", numbers}};
}

// Returns the images of an epoch by sample.
std::vector<std::vector<float>> Epoch(const Dataset& dataset, const BatchOptions& options, int64_t epoch) {
  std::vector<std::vector<float>> images(kSamples);
  BatchLoader loader(dataset, options);
  loader.StartEpoch(epoch);
  while (const Batch* batch = loader.Next()) {
    for (int64_t i = 0; i < batch->size; ++i) {
      const float* image = batch->arrays[0].data<float>() + i * kPixels;
      images[batch->arrays[1].data<int32_t>()[i]].assign(image, image + kPixels);
    }
  }
  EXPECT_TRUE(loader.status().ok()) << loader.status();
  return images;
}

std::vector<float> Flipped(bool horizontal, bool vertical) {
  std::vector<float> image;
  for (int k = 0; k < kPixels; ++k) {
    const int y = k / kWidth % kHeight, x = k % kWidth;
    image.push_back(PixelOf(k / (kHeight * kWidth), vertical ? kHeight - 1 - y : y, horizontal ? kWidth - 1 - x : x));
  }
  return image;
}

std::vector<float> Cropped(int top, int left, float padding) {
  std::vector<float> image;
  for (int k = 0; k < kPixels; ++k) {
    const int y = k / kWidth % kHeight + top, x = k % kWidth + left;
    const bool inside = y >= 0 && y < kHeight && x >= 0 && x < kWidth;
    image.push_back(inside ? PixelOf(k / (kHeight * kWidth), y, x) : padding);
  }
  return image;
}

// A Python program computed the numbers of this and the next test from the formulas of SplitMix64:
// mixed(mixed(seed) + epoch) + sample is the state of a sample's random numbers.
TEST(RandomFlips, DependOnSeedEpochAndSampleAlone) {
  const Dataset flips = RandomFlips(Images(), "image", {.horizontal = 0.5, .vertical = 0.25});
  const struct {
    uint64_t seed;
    int64_t epoch;
    std::vector<int> flips;  // 1: horizontal; 2: vertical; 3: both.
  } cases[] = {{1, 0, {3, 0, 3, 1, 0, 1, 0, 1, 1, 0, 1, 2}},
               {1, 1, {1, 1, 1, 3, 0, 1, 2, 0, 0, 1, 0, 0}},
               {2, 0, {1, 0, 0, 0, 0, 0, 1, 0, 2, 2, 1, 3}}};
  for (const auto& test : cases) {
    std::vector<std::vector<float>> expected;
    for (int flip : test.flips) expected.push_back(Flipped(flip & 1, flip & 2));
    for (int64_t batch_size : {1, 5, 12}) {
      for (bool shuffle : {false, true}) {
        const BatchOptions options = {.batch_size = batch_size, .shuffle = shuffle, .seed = test.seed};
        EXPECT_EQ(Epoch(flips, options, test.epoch), expected) << "seed " << test.seed << ", epoch " << test.epoch;
      }
    }
  }
}

TEST(RandomCrops, DependOnSeedEpochAndSampleAlone) {
  const Dataset crops = RandomCrops(Images(), "image", {.padding = 2, .padding_value = 0.5f});
  const struct {
    uint64_t seed;
    int64_t epoch;
    std::vector<std::pair<int, int>> places;  // Top and left, without the padding.
  } cases[] = {
      {1, 0, {{-1, -2}, {2, 2}, {-2, -2}, {0, 2}, {0, 0}, {0, 2}, {1, 1}, {-2, 0}, {-2, 2}, {2, 2}, {0, 1}, {2, -2}}},
      {2,
       0,
       {{-1, -1}, {2, 0}, {1, 0}, {0, 1}, {2, -1}, {2, -1}, {-1, 0}, {1, 1}, {2, -2}, {1, -2}, {-2, 1}, {-2, -2}}},
  };
  for (const auto& test : cases) {
    std::vector<std::vector<float>> expected;
    for (const auto& [top, left] : test.places) expected.push_back(Cropped(top, left, 0.5f));
    for (int64_t batch_size : {1, 5, 12}) {
      EXPECT_EQ(Epoch(crops, {.batch_size = batch_size, .seed = test.seed}, test.epoch), expected);
    }
  }
}

TEST(RandomFlips, LeaveImagesOrMirrorAllOfThemAtTheEndsOfTheRange) {
  for (bool horizontal : {false, true}) {
    for (bool vertical : {false, true}) {
      const Dataset flips =
          RandomFlips(Images(), "image", {.horizontal = horizontal ? 1.0 : 0.0, .vertical = vertical ? 1.0 : 0.0});
      EXPECT_THAT(Epoch(flips, {}, 0), Each(ElementsAreArray(Flipped(horizontal, vertical))));
    }
  }
}

TEST(RandomCrops, WithoutPaddingLeaveImagesAndWithMuchMayLeaveNothingOfThem) {
  EXPECT_THAT(Epoch(RandomCrops(Images(), "image", {.padding = 0}), {}, 0), Each(ElementsAreArray(Cropped(0, 0, 0))));
  const Dataset far = RandomCrops(Images(), "image", {.padding = int64_t{1} << 31});
  EXPECT_THAT(Epoch(far, {}, 0), Each(Each(0.f)));
}

TEST(Augmentations, FollowEachOtherAndComeBeforeStandardization) {
  Dataset dataset = RandomCrops(RandomFlips(Images(), "image", {.horizontal = 1}), "image", {.padding = 0});
  dataset = dataset.Standardized("image", {.mean = {1, 1}, .deviation = {2, 2}});
  std::vector<float> expected = Flipped(true, false);
  for (float& pixel : expected) pixel = (pixel - 1) / 2;
  EXPECT_THAT(Epoch(dataset, {}, 0), Each(ElementsAreArray(expected)));
}

TEST(Augmentations, ScaleBytesAndTakeImagesWithoutChannels) {
  const Dataset bytes = {{"image", Tensor::Of<uint8_t>({1, 1, 2}, {51, 255})}};
  BatchLoader loader(RandomFlips(bytes, "image", {.horizontal = 1}), {});
  loader.StartEpoch(0);
  EXPECT_THAT(loader.Next()->arrays[0].values<float>(), ElementsAre(1.f, 51 / 255.f));
}

TEST(Augmentations, TellWhichOptionOrArrayIsWrong) {
  const auto error = [](const Dataset& dataset) { return std::string(dataset.status().message()); };
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  for (double wrong : {-0.1, 1.1, kNaN}) {
    EXPECT_THAT(error(RandomFlips(Images(), "image", {.horizontal = wrong})), HasSubstr("has to be in [0, 1]"));
    EXPECT_THAT(error(RandomFlips(Images(), "image", {.vertical = wrong})), HasSubstr("has to be in [0, 1]"));
  }
  EXPECT_THAT(error(RandomCrops(Images(), "image", {.padding = -1})), HasSubstr("RandomCrops: the padding is -1"));
  EXPECT_THAT(error(RandomCrops(Images(), "image", {.padding = (int64_t{1} << 31) + 1})), HasSubstr("[0, 2^31]"));
  EXPECT_THAT(error(RandomCrops(Images(), "image", {.padding_value = std::numeric_limits<float>::infinity()})),
              HasSubstr("has to be finite"));
  EXPECT_THAT(error(RandomFlips(Images(), "picture")), HasSubstr("no array 'picture'"));
  EXPECT_THAT(error(RandomFlips(Images(), "number")), HasSubstr("array 'number' is int32[12]; images are expected"));
  const Dataset words = {{"word", Tensor(kInt64, {2, 3, 4})}};
  EXPECT_THAT(error(RandomCrops(words, "word")), HasSubstr("has to be float32 or uint8"));
  EXPECT_THAT(error(RandomCrops(Dataset::Failed(absl::NotFoundError("earlier")), "image")), HasSubstr("earlier"));
}

}  // namespace
}  // namespace gradweave::data
