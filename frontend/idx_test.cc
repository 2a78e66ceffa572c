// Reading idx files takes the memory that their header and the caller's limit allow.
#include <sys/resource.h>
#include <zlib.h>

#include <cstdint>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/data.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

std::string TemporaryFile(const std::string& name, const std::string& contents) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

std::string Bytes(std::initializer_list<int> bytes) { return std::string(bytes.begin(), bytes.end()); }

TEST(ReadIdx, ReadsSizesAndBytes) {
  const std::string path = TemporaryFile("good.idx", Bytes({0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255}));
  const absl::StatusOr<Tensor> tensor = data::ReadIdx(path);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->type().ToString(), "uint8[2,3]");
  EXPECT_EQ(tensor->ToDoubles(), (std::vector<double>{1, 2, 3, 4, 5, 255}));
}

TEST(ReadIdx, TellsWhatIsWrong) {
  auto error = [](const std::string& contents) {
    return std::string(data::ReadIdx(TemporaryFile("bad.idx", contents), 1000).status().message());
  };
  EXPECT_THAT(error(""), HasSubstr("bad.idx: the file is truncated: 4 bytes are expected, and it has 0"));
  EXPECT_THAT(error(Bytes({0, 0, 13, 1, 0, 0, 0, 1, 0})), HasSubstr("magic number is 00000d01"));
  EXPECT_THAT(error(Bytes({0, 0, 8, 1, 0, 0, 0, 3, 1, 2})),
              HasSubstr("truncated: 11 bytes are expected, and it has at most 10"));
  EXPECT_THAT(error(Bytes({0, 0, 8, 1, 0, 0, 0, 1, 1, 2})),
              HasSubstr("too long: 9 bytes are expected, and it has more"));
  EXPECT_THAT(error(Bytes({0, 0, 8, 2, 127, 0, 0, 0, 127, 0, 0, 0})), HasSubstr("more than the 1000 bytes"));
  EXPECT_EQ(data::ReadIdx("/none").status().code(), absl::StatusCode::kNotFound);
}

// A compressed file may hold a thousand times its bytes. What the header does not tell is not
// unpacked, and what the file cannot hold gets no memory.
TEST(ReadIdx, UnpacksWhatTheHeaderTells) {
  auto compress = [](const std::string& name, const std::string& start, int64_t zeros) {
    const std::string path = ::testing::TempDir() + "/" + name;
    const std::string block(1 << 20, '\0');
    gzFile file = gzopen(path.c_str(), "wb1");
    gzwrite(file, start.data(), static_cast<unsigned>(start.size()));
    for (int64_t i = 0; i < zeros; i += block.size()) gzwrite(file, block.data(), static_cast<unsigned>(block.size()));
    gzclose(file);
    return path;
  };
  auto peak = [] {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return int64_t{1024} * usage.ru_maxrss;
  };
  const int64_t mega = 1 << 20;
  const std::string few = Bytes({0, 0, 8, 1, 0, 0, 0, 5}), many = Bytes({0, 0, 8, 2, 0, 0, 32, 0, 0, 0, 32, 0});
  const std::string bomb = compress("bomb.gz", few, 64 * mega), empty = compress("empty.gz", many, 0);
  const std::string whole = compress("whole.gz", many, 64 * mega);
  const int64_t before = peak();
  EXPECT_THAT(std::string(data::ReadIdx(bomb).status().message()),
              HasSubstr("too long: 13 bytes are expected, and it has more"));
  EXPECT_THAT(std::string(data::ReadIdx(empty).status().message()), HasSubstr("the file is truncated"));
  EXPECT_THAT(std::string(data::ReadIdx(TemporaryFile("plain.idx", many)).status().message()),
              HasSubstr("truncated: 67108876 bytes are expected, and it has at most 12"));
  EXPECT_THAT(std::string(data::ReadIdx(whole, mega).status().message()), HasSubstr("more than the 1048576 bytes"));
  EXPECT_LT(peak() - before, 16 * mega);
  const absl::StatusOr<Tensor> tensor = data::ReadIdx(whole);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->byte_size(), static_cast<size_t>(64 * mega));
  EXPECT_LT(peak() - before, (64 + 16) * mega) << "the elements are held once";
}

TEST(ReadIdx, RefusesSizesWhoseBytesNoNumberCounts) {
  std::string file = Bytes({0, 0, 8, 6});
  // The product is 2^63 - 1.
  for (uint32_t size : {49u, 73u, 127u, 337u, 92737u, 649657u}) {
    for (int shift : {24, 16, 8, 0}) file += static_cast<char>(size >> shift & 0xFF);
  }
  EXPECT_THAT(
      std::string(
          data::ReadIdx(TemporaryFile("large.idx", file), std::numeric_limits<int64_t>::max()).status().message()),
      HasSubstr("its sizes [49,73,127,337,92737,649657] need more than the"));
}

}  // namespace
}  // namespace gradweave
