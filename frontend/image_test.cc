#include "gradweave/frontend/image.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GrayImages, AreTheImagesOfATensor) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const Tensor floats = Tensor::Of<float>({2, 1, 2, 2}, {0, 0.5f, 1, 0.2f, -3, 7, nan, infinity});
  const auto images = GrayImages(floats);
  ASSERT_TRUE(images.ok()) << images.status();
  ASSERT_EQ(images->size(), 2u);
  EXPECT_EQ((*images)[0].width, 2);
  EXPECT_EQ((*images)[0].height, 2);
  EXPECT_THAT((*images)[0].pixels, ElementsAre(0, 128, 255, 51));
  EXPECT_THAT((*images)[1].pixels, ElementsAre(0, 255, 0, 255));
  const auto bytes = GrayImages(Tensor::Of<uint8_t>({1, 1, 3}, {0, 7, 255}));
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ((*bytes)[0].width, 3);
  EXPECT_THAT((*bytes)[0].pixels, ElementsAre(0, 7, 255));
}

TEST(GrayImages, RefusesWhatIsNoGrayImage) {
  for (const Tensor& tensor : {Tensor(kFloat32, {2, 3, 4, 4}), Tensor(kInt32, {2, 4, 4}), Tensor(kFloat32, {4, 4})}) {
    EXPECT_THAT(
        std::string(GrayImages(tensor).status().message()),
        HasSubstr("GrayImages: the tensor is " + tensor.type().ToString() + " and has to be floating or uint8"));
  }
}

}  // namespace
}  // namespace gradweave
