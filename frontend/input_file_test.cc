// Regular files are opened and read; all else is an error.
#include "gradweave/frontend/input_file.h"

#include <sys/stat.h>
#include <zlib.h>

#include <fstream>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string TemporaryFile(const std::string& name, const std::string& contents) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

// Returns the contents as gzip compresses them.
std::string Compressed(const std::string& contents) {
  const std::string path = ::testing::TempDir() + "/compressed.gz";
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, contents.data(), static_cast<unsigned>(contents.size()));
  gzclose(file);
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

std::string ErrorOf(const std::string& path, int64_t max_bytes = 1000) {
  return std::string(ReadInputFile(path, max_bytes).status().message());
}

TEST(ReadInputFile, ReadsAllBytesPlainOrCompressed) {
  const std::string some("a\0b\r\n\xFF", 6);
  std::string large;
  for (int i = 0; i < 300000; ++i) large += static_cast<char>(i * i % 251);
  for (const std::string& contents : {std::string(), some, large}) {
    for (const std::string& stored : {contents, Compressed(contents)}) {
      const std::string path = TemporaryFile("file", stored);
      const auto size = static_cast<int64_t>(contents.size());
      for (int64_t limit : {size, size + 1, std::numeric_limits<int64_t>::max()}) {
        const absl::StatusOr<std::string> read = ReadInputFile(path, limit);
        ASSERT_TRUE(read.ok()) << read.status();
        EXPECT_TRUE(*read == contents) << contents.size() << " bytes, read " << read->size();
      }
      EXPECT_THAT(ErrorOf(path, size - 1), HasSubstr("file: the file has more than the"));
    }
  }
}

TEST(ReadInputFile, TellsThatACompressedFileIsDamaged) {
  const std::string good = Compressed("The quick brown fox jumps over the lazy dog.");
  EXPECT_THAT(ErrorOf(TemporaryFile("short.gz", good.substr(0, good.size() - 3))),
              HasSubstr("short.gz: the compressed file is truncated"));
  std::string wrong = good;
  wrong[good.size() - 6] ^= 1;
  EXPECT_THAT(ErrorOf(TemporaryFile("wrong.gz", wrong)), HasSubstr("wrong.gz: the file cannot be read: "));
}

TEST(OpenInputFile, OpensRegularFilesAlone) {
  const std::string path = TemporaryFile("regular", "12345");
  const absl::StatusOr<InputFile> file = OpenInputFile(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->size, 5);
  const std::string pipe = ::testing::TempDir() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(ErrorOf(pipe), HasSubstr("/pipe: this is not a regular file but a pipe, socket or device"));
  EXPECT_THAT(ErrorOf("/dev/zero"), StartsWith("/dev/zero: this is not a regular file but a pipe"));
  EXPECT_THAT(ErrorOf(::testing::TempDir()), HasSubstr(": this is not a regular file but a folder"));
  EXPECT_EQ(OpenInputFile("/none/there").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ErrorOf("/none/there"), StartsWith("/none/there: the file cannot be opened: No such file"));
}

// A terminal shows what an error quotes of a file, and does not obey it.
TEST(PrintableText, EscapesControlCharacters) {
  EXPECT_EQ(PrintableText("a 'b'~"), "a 'b'~");
  EXPECT_EQ(PrintableText("\x1b[2J\n\"\\\x7f"), R"(\x1b[2J\n\"\\\x7f)");
  // Letters of UTF-8 stay. U+009B is a control character, as is the byte 9b in older encodings.
  EXPECT_EQ(PrintableText("gr\u00f6\u00dfe \u20ac \U0001f600"), "gr\u00f6\u00dfe \u20ac \U0001f600");
  EXPECT_EQ(PrintableText("\u009b[2J"), R"(\xc2\x9b[2J)");
  EXPECT_EQ(PrintableText("\x9b[2J"), R"(\x9b[2J)");
  // Truncated characters, and NUL in two bytes.
  EXPECT_EQ(PrintableText("\xc2"), R"(\xc2)");
  EXPECT_EQ(PrintableText("\xe2\x82"), R"(\xe2\x82)");
  EXPECT_EQ(PrintableText("\xc0\x80"), R"(\xc0\x80)");
}

}  // namespace
}  // namespace gradweave
