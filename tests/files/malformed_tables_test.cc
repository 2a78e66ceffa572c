// CSV files, PNG images and folders of images that are wrong in one place.
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <tuple>
#include <vector>

#include "gradweave/frontend/data/csv.h"
#include "gradweave/frontend/data/image_folder.h"
#include "gradweave/frontend/image.h"
#include "gtest/gtest.h"
#include "tests/files/refusal.h"

namespace gradweave::data {
namespace {

struct CsvRow {
  const char* name;
  std::string text;
  const char* message;
  CsvOptions options = {};
  std::function<absl::Status(const Csv&)> use = [](const Csv& table) { return table.Numbers({"a", "b"}).status(); };
};

std::function<absl::Status(const Csv&)> Numbers(std::vector<CsvColumn> columns, NumberOptions options = {}) {
  return [=](const Csv& table) { return table.Numbers(columns, options).status(); };
}
std::function<absl::Status(const Csv&)> Categories(const CsvColumn& column, CategoryOptions options = {}) {
  return [=](const Csv& table) { return table.Categories(column, options).status(); };
}

TEST(Malformed, Csv) {
  const std::vector<CsvRow> rows = {
      {"empty", "", "DIR/input:1:1: the file has no row; at least one is expected"},
      {"byte order mark alone", "\xEF\xBB\xBF", "DIR/input:1:4: the file has no row; at least one is expected"},
      {"zero byte", std::string("a,b\n1,\0", 7), "DIR/input:2:3: there is a zero byte, so this is not text"},
      {"quote in a field", "a,b\n1,2\"\n", "DIR/input:2:4: a quote inside of a field that does not start with one"},
      {"quote without an end", "a,b\n1,\"2\n3,4\n", "DIR/input:2:3: the quote that starts here has no end"},
      {"text after a quote", "a,b\n\"1\"0,2\n",
       "DIR/input:2:4: the field goes on after its last quote; a separator or a line end is expected"},
      {"lone carriage return", "a,b\r1,2\r",
       "DIR/input:1:4: a carriage return without a line feed after it; rows end with CR LF or LF"},
      {"one field", "a,b\n1,2\n3\n", "DIR/input:3:1: the row has 1 field; 2 are expected, as in the first row"},
      {"three fields", "a,b\n1,2,3\n", "DIR/input:2:1: the row has 3 fields; 2 are expected, as in the first row"},
      {"other separator", "a;b\n1;2\n", "DIR/input: there is no column \"a\"; the header has 1: \"a;b\""},
      {"quote as separator",
       "a,b\n",
       "DIR/input: a quote, a line end or a zero byte cannot be the separator",
       {.separator = '"'}},
      {"text", "a,b\n1,x\n", "DIR/input:2:3: column \"b\": a number (float32) is expected, not \"x\""},
      {"escape sequence", "a,b\n1,\x1b[2J\n",
       "DIR/input:2:3: column \"b\": a number (float32) is expected, not \"\\x1b[2J\""},
      {"control character of UTF-8", "a,b\n1,\xc2\x9b[2J\n",
       "DIR/input:2:3: column \"b\": a number (float32) is expected, not \"\\xc2\\x9b[2J\""},
      {"nan", "a,b\n1,nan\n", "DIR/input:2:3: column \"b\": a number (float32) is expected, not \"nan\""},
      {"no value", "a,b\n1,\n",
       "DIR/input:2:3: column \"b\": a number (float32) is expected, and \"\" stands for a missing value; "
       "NumberOptions::missing may give a number"},
      {"above float32", "a,b\n1,1e39\n", "DIR/input:2:3: column \"b\": \"1e39\" is outside the range of float32"},
      {"above uint8",
       "a,b\n1,256\n",
       "DIR/input:2:3: column \"b\": \"256\" is outside the range of uint8",
       {},
       Numbers({"b"}, {.dtype = kUint8})},
      {"fraction",
       "a,b\n1,2.5\n",
       "DIR/input:2:3: column \"b\": a number (int32) is expected, not \"2.5\"",
       {},
       Numbers({"b"}, {.dtype = kInt32})},
      {"bool",
       "a,b\n1,0\n",
       "DIR/input: numbers cannot be bool; read uint8 or categories",
       {},
       Numbers({"b"}, {.dtype = kBool})},
      {"number for missing values",
       "a,b\n1,2\n",
       "DIR/input: the number for missing values is -1, which uint8 does not have",
       {},
       Numbers({"b"}, {.dtype = kUint8, .missing = -1})},
      {"column",
       "a,b\n1,2\n",
       "DIR/input: there is no column \"c\"; the header has 2: \"a\", \"b\"",
       {},
       Numbers({"c"})},
      {"column number", "a,b\n1,2\n", "DIR/input: there is no column 2; the file has columns 0 to 1", {}, Numbers({2})},
      {"no header",
       "1,2\n",
       "DIR/input: there is no column \"a\": it was read without a header, so columns have numbers alone",
       {.header = false}},
      {"name twice", "a,a\n1,2\n", "DIR/input: two columns have the name \"a\"; choose by number", {}, Numbers({"a"})},
      {"category",
       "a,b\n1,dog\n",
       "DIR/input:2:3: column \"b\": \"dog\" is none of the 2 categories; CategoryOptions::unknown may give an integer",
       {},
       Categories("b", {.names = {"cat", "cow"}})},
      {"no category",
       "a,b\n1,\n",
       "DIR/input:2:3: column \"b\": a category is expected, and \"\" stands for a missing value; "
       "CategoryOptions::missing may give an integer",
       {},
       Categories("b")},
      {"category twice",
       "a,b\n1,cat\n",
       "DIR/input: CategoryOptions::names has \"cat\" twice",
       {},
       Categories("b", {.names = {"cat", "cat"}})},
      {"above the limit",
       "a,b\n1,2\n3,4\n",
       "DIR/input: the file has more than the 8 bytes that are allowed",
       {.max_bytes = 8}},
  };
  for (const CsvRow& row : rows) {
    const std::string path = WriteTestFile("input", row.text);
    ExpectRefused(row.name, row.message, [&]() -> absl::Status {
      const absl::StatusOr<Csv> table = ReadCsv(path, row.options);
      return table.ok() ? row.use(*table) : table.status();
    });
  }
}

// The bytes of a PNG file with the gray pixels 0.
std::string Png(int64_t width, int64_t height) {
  const std::string path = WriteTestFile("made.png", "");
  EXPECT_TRUE(WritePng(path, GrayImage(width, height)).ok());
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// The file with other bytes in its first chunk, and a right checksum of it. The chunk has 13 bytes:
// width, height and depth, colours, compression, filter and interlacing
// (https://www.w3.org/TR/png-3/#11IHDR).
std::string WithHeader(std::string png, size_t at, const std::string& bytes) {
  constexpr size_t kLetters = 12, kData = 16, kChecksum = 29;
  png.replace(kData + at, bytes.size(), bytes);
  uint32_t crc = ~0u;
  for (size_t i = kLetters; i < kChecksum; ++i) {
    crc ^= static_cast<unsigned char>(png[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  for (int i = 0; i < 4; ++i) png[kChecksum + i] = static_cast<char>(~crc >> (24 - 8 * i));
  return png;
}

TEST(Malformed, Png) {
  const std::string good = Png(5, 4);
  const std::vector<std::tuple<const char*, std::string, const char*>> rows = {
      {"empty", "", "DIR/input.png: this is not a readable PNG file: *"},
      {"text", "P5 1 1 255 x", "DIR/input.png: this is not a readable PNG file: *"},
      {"signature alone", good.substr(0, 8), "DIR/input.png: this is not a readable PNG file: *"},
      {"no pixels", good.substr(0, 33), "DIR/input.png: this is not a readable PNG file: *"},
      {"truncated", good.substr(0, good.size() - 20), "DIR/input.png: the PNG file is damaged or truncated: *"},
      {"width 0", WithHeader(good, 0, std::string(4, '\0')), "DIR/input.png: this is not a readable PNG file: *"},
      {"width of 2^31", WithHeader(good, 0, std::string("\x80\0\0\0", 4)),
       "DIR/input.png: this is not a readable PNG file: *"},
      {"4e8 pixels", WithHeader(good, 0, std::string("\0\0\x4e\x20\0\0\x4e\x20", 8)),
       "DIR/input.png: the image is 20000 by 20000, and at most 2^26 pixels are allowed"},
      {"2^26 pixels in some bytes", WithHeader(good, 0, std::string("\0\0\x20\0\0\0\x20\0", 8)),
       "DIR/input.png: the image claims to be 8192 by 8192, and a file of *"},
      {"depth 3", WithHeader(good, 8, "\3"), "DIR/input.png: this is not a readable PNG file: *"},
      {"16 bits", WithHeader(good, 8, "\x10"),
       "DIR/input.png: the image has 16 bits for each channel; at most 8 are expected"},
      {"colours without pixels", WithHeader(good, 9, "\2"), "DIR/input.png: the PNG file is damaged or truncated: *"},
      {"checksum",
       [&] {
         std::string file = good;
         file[30] = static_cast<char>(file[30] + 1);
         return file;
       }(),
       "DIR/input.png: this is not a readable PNG file: *"},
  };
  for (const auto& [name, bytes, message] : rows) {
    const std::string path = WriteTestFile("input.png", bytes);
    ExpectRefused(name, message, [&path = path] { return ReadPngImage(path).status(); });
  }
}

TEST(Malformed, ImageFolder) {
  const std::string folder = WriteTestFile("images/readme.txt", "");
  const std::string path = folder.substr(0, folder.rfind('/'));
  ImageFolderOptions options;
  auto read = [&] { return ReadImageFolder(path, options).status(); };
  ExpectRefused("no folder", "DIR/images/none: the folder cannot be read: No such file or directory",
                [&] { return ReadImageFolder(path + "/none").status(); });
  ExpectRefused("file", "DIR/images/readme.txt: the folder cannot be read: Not a directory",
                [&] { return ReadImageFolder(folder).status(); });
  ExpectRefused("no class", "DIR/images: there is no folder of a class in it", read);
  std::filesystem::create_directories(path + "/cat");
  ExpectRefused("no image", "DIR/images/cat: the folder has no PNG file", read);
  WriteTestFile("images/cat/1.png", Png(5, 4));
  options.channels = 2;
  ExpectRefused("channels", "DIR/images: ImageFolderOptions::channels is 2 and has to be 0, 1 or 3", read);
  options = {.classes = {"cow"}};
  ExpectRefused("other class", "DIR/images/cat: the folder is none of the 1 classes that are given", read);
  options = {.max_bytes = 19};
  ExpectRefused("above the limit",
                "DIR/images/cat/1.png: 1 images of this one's 20 bytes need more than the 19 bytes allowed", read);
  options = {};
  WriteTestFile("images/cat/2.png", Png(4, 5));
  ExpectRefused("other size",
                "DIR/images/cat/2.png: the image has 4 by 5 pixels of 1 channel; 5 by 4 of 1 are expected, as in "
                "DIR/images/cat/1.png",
                read);
  WriteTestFile("images/cat/2.png", "text");
  ExpectRefused("no PNG", "DIR/images/cat/2.png: this is not a readable PNG file: *", read);
  WriteTestFile("images/cat/2.jpg", "");
  ExpectRefused("other file", "DIR/images/cat/2.jpg: only PNG files are expected in the folder of a class", read);
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace gradweave::data
