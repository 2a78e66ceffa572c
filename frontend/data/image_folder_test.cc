// Folders of PNG images by class.
#include "gradweave/frontend/data/image_folder.h"

#include <png.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave::data {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A new empty folder.
class ImageFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/images";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }

  // Writes a file of libpng's format, and makes its folder.
  std::string Write(const std::string& name, uint32_t width, uint32_t height, uint32_t format,
                    std::vector<uint8_t> pixels) {
    const std::string path = folder_ + "/" + name;
    fs::create_directories(fs::path(path).parent_path());
    png_image png = {};
    png.version = PNG_IMAGE_VERSION;
    png.width = width;
    png.height = height;
    png.format = format;
    pixels.resize(PNG_IMAGE_SIZE(png));
    EXPECT_TRUE(png_image_write_to_file(&png, path.c_str(), 0, pixels.data(), 0, nullptr)) << png.message;
    return path;
  }
  std::string WriteBytes(const std::string& name, const std::string& bytes) {
    const std::string path = folder_ + "/" + name;
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  std::string Error(const ImageFolderOptions& options = {}) {
    const absl::StatusOr<ImageFolder> images = ReadImageFolder(folder_, options);
    EXPECT_FALSE(images.ok());
    return std::string(images.status().message());
  }

  std::string folder_;
};

TEST_F(ImageFolderTest, LabelsImagesByTheirFoldersSortedNames) {
  Write("dog/b.png", 2, 1, PNG_FORMAT_GRAY, {3, 4});
  Write("dog/a.PNG", 2, 1, PNG_FORMAT_GRAY, {1, 2});
  Write("cat/z.png", 2, 1, PNG_FORMAT_GRAY, {5, 255});
  WriteBytes("README", "beside the classes");
  WriteBytes(".hidden/a.txt", "");
  WriteBytes("cat/.hidden", "");
  const absl::StatusOr<ImageFolder> images = ReadImageFolder(folder_);
  ASSERT_TRUE(images.ok()) << images.status();
  EXPECT_THAT(images->classes, ElementsAre("cat", "dog"));
  EXPECT_THAT(images->paths, ElementsAre(folder_ + "/cat/z.png", folder_ + "/dog/a.PNG", folder_ + "/dog/b.png"));
  const Tensor pixels = *images->dataset.Find("image");
  EXPECT_EQ(pixels.type().ToString(), "uint8[3,1,1,2]");
  EXPECT_THAT(pixels.values<uint8_t>(), ElementsAre(5, 255, 1, 2, 3, 4));
  EXPECT_THAT(images->dataset.Find("label")->values<int32_t>(), ElementsAre(0, 1, 1));
}

TEST_F(ImageFolderTest, HasTheChannelsOneAfterTheOther) {
  Write("a/x.png", 2, 1, PNG_FORMAT_RGB, {1, 2, 3, 4, 5, 6});
  const Tensor pixels = *ReadImageFolder(folder_)->dataset.Find("image");
  EXPECT_EQ(pixels.type().ToString(), "uint8[1,3,1,2]");
  EXPECT_THAT(pixels.values<uint8_t>(), ElementsAre(1, 4, 2, 5, 3, 6));
}

TEST_F(ImageFolderTest, ConvertsColoursIfAsked) {
  Write("a/x.png", 1, 1, PNG_FORMAT_GRAY, {7});
  Write("a/y.png", 1, 1, PNG_FORMAT_RGB, {9, 9, 9});
  Write("a/z.png", 1, 1, PNG_FORMAT_RGBA, {255, 255, 255, 0});
  EXPECT_THAT(ReadImageFolder(folder_, {.channels = 1})->dataset.Find("image")->values<uint8_t>(),
              ElementsAre(7, 9, 0));
  EXPECT_THAT(ReadImageFolder(folder_, {.channels = 3})->dataset.Find("image")->values<uint8_t>(),
              ElementsAre(7, 7, 7, 9, 9, 9, 0, 0, 0));
  EXPECT_THAT(Error(),
              HasSubstr("a/y.png: the image has 1 by 1 pixels of 3 channels; 1 by 1 of 1 are expected, as in"));
  EXPECT_THAT(Error({.channels = 2}), HasSubstr("channels is 2 and has to be 0, 1 or 3"));
}

TEST_F(ImageFolderTest, MapsTestImagesWithTheClassesOfTheTrainingImages) {
  Write("dog/a.png", 1, 1, PNG_FORMAT_GRAY, {1});
  const ImageFolder images = *ReadImageFolder(folder_, {.classes = {"cat", "dog"}});
  EXPECT_THAT(images.dataset.Find("label")->values<int32_t>(), ElementsAre(1));
  EXPECT_THAT(images.classes, ElementsAre("cat", "dog"));
  EXPECT_THAT(Error({.classes = {"cat"}}), HasSubstr("/dog: the folder is none of the 1 classes"));
  EXPECT_THAT(Error({.classes = {"cat", "dog", "cat"}}), HasSubstr("ImageFolderOptions::classes has cat twice"));
}

TEST_F(ImageFolderTest, NamesTheFileThatIsWrong) {
  EXPECT_THAT(Error(), HasSubstr("/images: there is no folder of a class in it"));
  EXPECT_EQ(ReadImageFolder("/none").status().code(), absl::StatusCode::kNotFound);
  fs::create_directories(folder_ + "/a");
  EXPECT_THAT(Error(), HasSubstr("/images/a: the folder has no PNG file"));
  Write("a/good.png", 2, 3, PNG_FORMAT_GRAY, {});
  EXPECT_THAT(Error({.max_bytes = 5}),
              HasSubstr("good.png: 1 images of this one's 6 bytes need more than the 5 bytes"));
  EXPECT_TRUE(ReadImageFolder(folder_, {.max_bytes = 6}).ok());

  const std::string good = [&] {
    std::ifstream stream(folder_ + "/a/good.png", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  }();
  std::string huge = good;  // The width is in bytes 16 to 19, before a checksum that libpng checks first.
  huge[16] = '\x7F';
  const std::pair<std::string, const char*> cases[] = {
      {"", "not a readable PNG file"},   {"GIF89a", "not a readable PNG file"},
      {good.substr(0, 40), "PNG file"},  {good.substr(0, good.size() - 20), "damaged or truncated"},
      {huge, "not a readable PNG file"},
  };
  for (const auto& [bytes, error] : cases) {
    const std::string path = WriteBytes("a/x.png", bytes);
    EXPECT_THAT(Error(), HasSubstr("/images/a/x.png: ")) << bytes.size();
    EXPECT_THAT(Error(), HasSubstr(error)) << bytes.size();
    EXPECT_THAT(Error(), Not(HasSubstr("\n")));
    fs::remove(path);
  }
  const struct {
    uint32_t width, height, format;
    const char* error;
  } others[] = {{3, 2, PNG_FORMAT_GRAY, "x.png: the image has 3 by 2 pixels of 1 channel; 2 by 3 of 1 are expected"},
                {2, 3, PNG_FORMAT_RGB, "x.png: the image has 2 by 3 pixels of 3 channels; 2 by 3 of 1 are expected"},
                {2, 3, PNG_FORMAT_LINEAR_Y, "x.png: the image has 16 bits for each channel; at most 8"}};
  for (const auto& other : others) {
    Write("a/x.png", other.width, other.height, other.format, {});
    EXPECT_THAT(Error(), HasSubstr(other.error));
  }
  fs::remove(folder_ + "/a/x.png");
  WriteBytes("a/x.jpg", "");
  EXPECT_THAT(Error(), HasSubstr("a/x.jpg: only PNG files are expected in the folder of a class"));
  fs::remove(folder_ + "/a/x.jpg");
  fs::create_directories(folder_ + "/a/x.png");
  EXPECT_THAT(Error(), HasSubstr("a/x.png: only PNG files are expected"));
  fs::remove(folder_ + "/a/x.png");
  ASSERT_EQ(mkfifo((folder_ + "/a/x.png").c_str(), 0600), 0);
  EXPECT_THAT(Error(), HasSubstr("a/x.png: this is not a regular file"));
  fs::remove(folder_ + "/a/x.png");
  // A name must not command the terminal.
  for (const char* name : {"\x1b[31mx.jpg", "\x1b[31mx.png"}) {
    WriteBytes(std::string("a/") + name, "GIF89a");
    EXPECT_THAT(Error(), HasSubstr("a/\\x1b[31mx."));
    EXPECT_THAT(Error(), Not(HasSubstr("\x1b")));
    fs::remove(folder_ + "/a/" + name);
  }
}

}  // namespace
}  // namespace gradweave::data
