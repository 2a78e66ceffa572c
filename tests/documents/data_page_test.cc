// The functions of docs/data.md, run on small files.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/pictures.h"
#include "gtest/gtest.h"
#include "tests/documents/data_page.h"

namespace {

using ::testing::ElementsAre;

std::string WriteText(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(DataPage, ReadsTables) {
  const auto tables = ReadTables(WriteText("train.csv", "length,species,width\n1,setosa,2\n3,virginica,4\n"),
                                 WriteText("test.csv", "length,species,width\n5,virginica,6\n"));
  ASSERT_TRUE(tables.ok()) << tables.status();
  EXPECT_THAT(tables->train.Find("x")->values<float>(), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(tables->test.Find("label")->values<int32_t>(), ElementsAre(1));
  EXPECT_THAT(tables->species, ElementsAre("setosa", "virginica"));
}

TEST(DataPage, ReadsNumpysFiles) {
  const std::string path = ::testing::TempDir() + "/points.npz";
  ASSERT_TRUE(
      gw::data::WriteNpz(path, {{"x", gw::Tensor(gw::kFloat32, {5, 2})}, {"y", gw::Tensor(gw::kInt64, {5})}}).ok());
  EXPECT_EQ(ReadPoints(path)->size(), 5);
  ASSERT_TRUE(
      gw::data::WriteNpz(path, {{"x", gw::Tensor(gw::kFloat32, {5})}, {"y", gw::Tensor(gw::kInt64, {4})}}).ok());
  EXPECT_FALSE(ReadPoints(path).ok());
}

TEST(DataPage, ReadsAndPreparesImages) {
  const std::string image = '\7' + std::string(3072, '\x40');
  for (int i = 1; i <= 5; ++i) WriteText("data_batch_" + std::to_string(i) + ".bin", image + image);
  const auto cifar = ReadCifarTraining(::testing::TempDir());
  ASSERT_TRUE(cifar.ok()) << cifar.status();
  const auto parts = Prepare(*cifar, cifar->First(3));
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->train.size(), 9);
  EXPECT_EQ(parts->validation.size(), 1);
  EXPECT_EQ(parts->test.size(), 3);
}

TEST(DataPage, ReadsFoldersOfImages) {
  const std::string folder = ::testing::TempDir() + "/pictures";
  for (const char* name : {"", "/cat", "/dog"}) std::filesystem::create_directory(folder + name);
  for (const char* name : {"/cat/1.png", "/dog/1.png", "/dog/2.png"}) {
    ASSERT_TRUE(gw::WritePng(folder + name, gw::GrayImage(4, 3)).ok());
  }
  EXPECT_THAT(ReadPictures(folder)->Find("label")->values<int32_t>(), ElementsAre(0, 1, 1));
}

}  // namespace
