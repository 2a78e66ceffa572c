// CIFAR's binary files, made here in miniature.
#include "gradweave/frontend/data/cifar.h"

#include <sys/stat.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Returns an image whose pixels are this byte, with blue's last one 0.
std::string Image(std::initializer_list<int> labels, uint8_t pixel) {
  std::string bytes(labels.begin(), labels.end());
  bytes.append(3071, static_cast<char>(pixel));
  return bytes + '\0';
}

std::string TemporaryFile(const std::string& name, const std::string& contents) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

std::string ErrorOf(const std::string& contents, CifarLabels labels = CifarLabels::kTen) {
  return std::string(ReadCifar({TemporaryFile("bad.bin", contents)}, labels).status().message());
}

TEST(ReadCifar, ReadsImagesOfSeveralFilesInOrder) {
  const absl::StatusOr<Dataset> dataset =
      ReadCifar({TemporaryFile("a.bin", Image({9}, 255) + Image({0}, 1)), TemporaryFile("b.bin", Image({3}, 7))});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const Tensor images = *dataset->Find("image");
  EXPECT_EQ(images.type().ToString(), "uint8[3,3,32,32]");
  EXPECT_THAT(dataset->Find("label")->values<int32_t>(), ElementsAre(9, 0, 3));
  const uint8_t* pixels = images.data<uint8_t>();
  for (const auto& [image, pixel] : {std::pair(0, 255), {1, 1}, {2, 7}}) {
    EXPECT_EQ(pixels[image * 3072], pixel);
    EXPECT_EQ(pixels[image * 3072 + 3070], pixel);
    EXPECT_EQ(pixels[image * 3072 + 3071], 0);
  }
  EXPECT_EQ(Cifar10Classes().size(), 10u);
}

TEST(ReadCifar, ReadsBothLabelsOfCifar100) {
  const std::string path = TemporaryFile("train.bin", Image({19, 99}, 1) + Image({4, 0}, 2));
  EXPECT_THAT(ReadCifar({path}, CifarLabels::kCoarse)->Find("label")->values<int32_t>(), ElementsAre(19, 4));
  const Dataset fine = *ReadCifar({path}, CifarLabels::kFine);
  EXPECT_THAT(fine.Find("label")->values<int32_t>(), ElementsAre(99, 0));
  EXPECT_EQ(fine.Find("image")->data<uint8_t>()[3072], 2);
}

TEST(ReadCifar, TellsWhatIsWrongWithAFile) {
  const std::string good = Image({1}, 5);
  EXPECT_THAT(ErrorOf(""), HasSubstr("bad.bin: the file has 0 bytes; a multiple of 3073 is expected"));
  EXPECT_THAT(ErrorOf(good.substr(0, 3072)), HasSubstr("bad.bin: the file has 3072 bytes"));
  EXPECT_THAT(ErrorOf(good + "x"), HasSubstr("bad.bin: the file has 3074 bytes"));
  EXPECT_THAT(ErrorOf(good, CifarLabels::kFine), HasSubstr("a multiple of 3074 is expected"));
  EXPECT_THAT(ErrorOf(good + Image({10}, 0)), HasSubstr("bad.bin: label 10 of image 1 is outside [0, 10)"));
  EXPECT_THAT(ErrorOf(Image({20, 0}, 0), CifarLabels::kCoarse), HasSubstr("label 20 of image 0 is outside [0, 20)"));
  EXPECT_THAT(ErrorOf(Image({0, 100}, 0), CifarLabels::kFine), HasSubstr("label 100 of image 0 is outside [0, 100)"));
  EXPECT_THAT(ErrorOf(Image({255}, 0)), HasSubstr("label 255"));
  EXPECT_THAT(std::string(ReadCifar({}).status().message()), HasSubstr("at least one path"));
  const std::string path = TemporaryFile("two.bin", good);
  EXPECT_TRUE(ReadCifar({path, path}, CifarLabels::kTen, 2 * 3073).ok());
  EXPECT_THAT(std::string(ReadCifar({path, path}, CifarLabels::kTen, 2 * 3073 - 1).status().message()),
              HasSubstr("two.bin: the file has more than the 3072 bytes"));
  const std::string pipe = ::testing::TempDir() + "/pipe.bin";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(std::string(ReadCifar({pipe}).status().message()), HasSubstr("pipe.bin: this is not a regular file"));
}

TEST(LoadCifar, KnowsTheNamesOfTheFiles) {
  const std::string folder = ::testing::TempDir();
  for (int i = 1; i <= 5; ++i) TemporaryFile(absl::StrCat("data_batch_", i, ".bin"), Image({i}, 0));
  TemporaryFile("test_batch.bin", Image({6}, 0));
  TemporaryFile("train.bin", Image({7, 70}, 0));
  TemporaryFile("test.bin", Image({8, 80}, 0));
  const auto labels = [&](Split split, CifarLabels kind) {
    return LoadCifar(folder, split, kind)->Find("label")->ToDoubles();
  };
  EXPECT_THAT(labels(Split::kTrain, CifarLabels::kTen), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(labels(Split::kTest, CifarLabels::kTen), ElementsAre(6));
  EXPECT_THAT(labels(Split::kTrain, CifarLabels::kFine), ElementsAre(70));
  EXPECT_THAT(labels(Split::kTest, CifarLabels::kCoarse), ElementsAre(8));
  EXPECT_EQ(LoadCifar("/none", Split::kTest).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace gradweave::data
