// Files of arrays that are wrong in one place: idx, numpy, safetensors and CIFAR.
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gradweave/frontend/data.h"
#include "gradweave/frontend/data/cifar.h"
#include "gradweave/frontend/data/npy.h"
#include "gradweave/frontend/data/safetensors.h"
#include "gtest/gtest.h"
#include "tests/files/refusal.h"

namespace gradweave::data {
namespace {

constexpr int64_t kMostBytes = 1 << 20;

struct Row {
  const char* name;
  std::string bytes;  // The file's contents.
  const char* message;
};

void ExpectAllRefused(const std::vector<Row>& rows, absl::Status (*read)(const std::string& path)) {
  for (const Row& row : rows) {
    const std::string path = WriteTestFile("input", row.bytes);
    ExpectRefused(row.name, row.message, [&] { return read(path); });
  }
}

std::string Bytes(std::initializer_list<int> values) {
  std::string bytes;
  for (int value : values) bytes.push_back(static_cast<char>(value));
  return bytes;
}

std::string ReadBytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string Gzip(const std::string& bytes) {
  const std::string path = WriteTestFile("made.gz", "");
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
  return ReadBytes(path);
}

std::string Changed(std::string bytes, size_t at, int value) {
  bytes[at] = static_cast<char>(value);
  return bytes;
}

absl::Status ReadAsIdx(const std::string& path) { return ReadIdx(path, kMostBytes).status(); }

TEST(Malformed, Idx) {
  const std::string good = Bytes({0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6});
  ASSERT_TRUE(ReadAsIdx(WriteTestFile("input", good)).ok());
  ASSERT_TRUE(ReadAsIdx(WriteTestFile("input", Gzip(good))).ok());
  const std::string huge = Bytes({255, 255, 255, 255});
  ExpectAllRefused(
      {{"empty", "", "DIR/input: the file is truncated: 4 bytes are expected, and it has 0"},
       {"sizes", good.substr(0, 8), "DIR/input: the file is truncated: 12 bytes are expected, and it has 8"},
       {"elements", good.substr(0, 17),
        "DIR/input: the file is truncated: 18 bytes are expected, and it has at most 17"},
       {"more bytes", good + "ab", "DIR/input: the file is too long: 18 bytes are expected, and it has more"},
       {"zip file", "PK\3\4 and more",
        "DIR/input: this is not an idx file of unsigned bytes: its magic number is 504b0304; 0000080n is expected, "
        "where "
        "n is the number of dimensions, 1 to 8"},
       {"floats", Changed(good, 2, 13),
        "DIR/input: this is not an idx file of unsigned bytes: its magic number is 00000d02; 0000080n is expected, "
        "where "
        "n is the number of dimensions, 1 to 8"},
       {"no dimension", Changed(good, 3, 0),
        "DIR/input: this is not an idx file of unsigned bytes: its magic number is 00000800; 0000080n is expected, "
        "where "
        "n is the number of dimensions, 1 to 8"},
       {"nine dimensions", Changed(good, 3, 9),
        "DIR/input: this is not an idx file of unsigned bytes: its magic number is 00000809; 0000080n is expected, "
        "where "
        "n is the number of dimensions, 1 to 8"},
       {"above the limit", Changed(good, 5, 255),
        "DIR/input: its sizes [16711682,3] need more than the 1048576 bytes allowed"},
       {"overflow", Bytes({0, 0, 8, 3}) + huge + huge + huge,
        "DIR/input: its sizes [4294967295,4294967295,4294967295] need more than the 1048576 bytes allowed"},
       {"truncated gzip", Gzip(good).substr(0, 20), "DIR/input: the compressed file is truncated"},
       {"checksum of gzip", Changed(Gzip(good), Gzip(good).size() - 8, 77), "DIR/input: the file cannot be read: *"},
       {"gzip bomb", Gzip(good + std::string(16 << 20, '\0')),
        "DIR/input: the file is too long: 18 bytes are expected, and it has more"}},
      ReadAsIdx);
}

TEST(Malformed, KindsOfFiles) {
  const std::string folder = WriteTestFile("folder/inside", "");
  const std::string pipe = absl::StrReplaceAll(folder, {{"folder/inside", "pipe"}});
  ASSERT_EQ(mkfifo(pipe.c_str(), 0644), 0);
  auto read = [](const std::string& path) { return [path] { return ReadAsIdx(path); }; };
  ExpectRefused("folder", "DIR/folder: this is not a regular file but a folder",
                read(folder.substr(0, folder.size() - 7)));
  ExpectRefused("pipe", "DIR/pipe: this is not a regular file but a pipe, socket or device", read(pipe));
  ExpectRefused("device", "/dev/zero: this is not a regular file but a pipe, socket or device", read("/dev/zero"));
  ExpectRefused("missing", "DIR/none: the file cannot be opened: No such file or directory",
                read(pipe.substr(0, pipe.size() - 4) + "none"));
  ExpectRefused("below a file", "DIR/folder/inside/x: the file cannot be opened: Not a directory", read(folder + "/x"));
  unlink(pipe.c_str());
}

TEST(Malformed, FashionMnist) {
  const std::string images = Bytes({0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28}) + std::string(784, '\0');
  const std::string path = WriteTestFile("mnist/t10k-images-idx3-ubyte", images);
  auto load = [folder = path.substr(0, path.rfind('/'))] { return LoadFashionMnist(folder, Split::kTest).status(); };
  ExpectRefused("no labels",
                "there is no file DIR/mnist/t10k-labels-idx1-ubyte or DIR/mnist/t10k-labels-idx1-ubyte.gz; on Debian, "
                "apt-get install dataset-fashion-mnist puts the data set into /usr/share/datasets/fashion-mnist, and "
                "--data_dir names another folder",
                load);
  WriteTestFile("mnist/t10k-labels-idx1-ubyte", Bytes({0, 0, 8, 1, 0, 0, 0, 2, 1, 2}));
  ExpectRefused(
      "two labels",
      "DIR/mnist/t10k-labels-idx1-ubyte: the array is uint8[2] and has to be uint8[1], a label for each image", load);
  WriteTestFile("mnist/t10k-labels-idx1-ubyte", Bytes({0, 0, 8, 1, 0, 0, 0, 1, 10}));
  ExpectRefused("label", "DIR/mnist/t10k-labels-idx1-ubyte: label 10 at position 0 is outside [0, 10)", load);
  WriteTestFile("mnist/t10k-images-idx3-ubyte", Bytes({0, 0, 8, 1, 0, 0, 0, 1, 0}));
  ExpectRefused("vector", "DIR/mnist/t10k-images-idx3-ubyte: the array is uint8[1] and has to be uint8[n,28,28]", load);
}

// A file of format version 1.0 with this header.
std::string Npy(const std::string& header, const std::string& elements = "") {
  return absl::StrCat(Bytes({0x93}), "NUMPY",
                      Bytes({1, 0, static_cast<int>(header.size()) & 255, static_cast<int>(header.size()) >> 8}),
                      header, elements);
}

std::string Shaped(const std::string& shape, const std::string& elements = "", const std::string& descr = "'<f4'") {
  return Npy(absl::StrCat("{'descr': ", descr, ", 'fortran_order': False, 'shape': ", shape, ", }"), elements);
}

std::string Dimensions(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "1,";
  return text;
}

absl::Status ReadAsNpy(const std::string& path) { return ReadNpy(path, kMostBytes).status(); }

TEST(Malformed, Npy) {
  const std::string good = Shaped("(2,)", "12345678");
  ASSERT_TRUE(ReadAsNpy(WriteTestFile("input", good)).ok());
  ExpectAllRefused(
      {{"empty", "", "DIR/input: the file is truncated: 10 bytes are expected, and it has 0"},
       {"text", "label,pixel0,pixel1\n",
        "DIR/input: this is not a file of numpy's array format: it does not start with \\x93NUMPY"},
       {"version", Changed(good, 6, 4), "DIR/input: format version 4.0 cannot be read; 1.0, 2.0 and 3.0 can"},
       {"minor version", Changed(good, 7, 1), "DIR/input: format version 1.1 cannot be read; 1.0, 2.0 and 3.0 can"},
       {"long header", Changed(good, 9, 255), "DIR/input: the header has 65337 bytes; at most 10000 are allowed"},
       {"truncated header", good.substr(0, 40),
        "DIR/input: the file is truncated: 67 bytes are expected, and it has 40"},
       {"no dictionary", Npy("(1,)"), "DIR/input: the header is wrong: { is expected at \"(1,)\""},
       {"other key", Npy("{'order': 'C'}"),
        "DIR/input: the header is wrong: the keys descr, fortran_order and shape are expected, each once"},
       {"key twice", Npy("{'descr': '<f4', 'descr': '<f4'}"),
        "DIR/input: the header is wrong: the keys descr, fortran_order and shape are expected, each once"},
       {"missing key", Npy("{'descr': '<f4', 'fortran_order': False}"),
        "DIR/input: the header is wrong: descr, fortran_order and shape are expected"},
       {"no colon", Npy("{'descr' '<f4'}"), "DIR/input: the header is wrong: : is expected at \"'<f4'}\""},
       {"open text", Npy("{'descr\x1b"),
        "DIR/input: the header is wrong: text with its last quote is expected at \"'descr\\x1b\""},
       {"behind the end", Npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()} x"),
        "DIR/input: the header is wrong: the end is expected at \"x\""},
       {"objects", Shaped("(2,)", "", "'|O'"), "DIR/input: arrays of Python objects cannot be read; save numbers"},
       {"structures", Shaped("(2,)", "", "[('x', '<f4')]"),
        "DIR/input: arrays of structures cannot be read; save each field as an array"},
       {"complex", Shaped("(2,)", "", "'<c8'"),
        "DIR/input: elements of type '<c8' cannot be read; floats of 16 to 64 bits, integers of 8 to 64 bits and bool "
        "can "
        "(convert with astype)"},
       {"escape sequence", Shaped("(2,)", "", "'\x1b[2J'"),
        "DIR/input: elements of type '\\x1b[2J' cannot be read; floats of 16 to 64 bits, integers of 8 to 64 bits and "
        "bool "
        "can (convert with astype)"},
       {"order", Npy("{'descr': '<f4', 'fortran_order': 1, 'shape': ()}"),
        "DIR/input: the header is wrong: True or False is expected at \"1, 'shape': ()}\""},
       {"negative size", Shaped("(-1,)"),
        "DIR/input: the header is wrong: a size of 0 or more is expected at \"-1,), }\""},
       {"size of 2^63", Shaped("(9223372036854775808,)"), "DIR/input: the header is wrong: a size is above 2^63 - 1"},
       {"number for a shape", Shaped("(3)"),
        "DIR/input: the header is wrong: a comma is expected in a shape of one dimension"},
       {"65 dimensions", Shaped("(" + Dimensions(65) + ")"),
        "DIR/input: the header is wrong: there are more than 64 dimensions"},
       {"above the limit", Shaped("(262145,)"),
        "DIR/input: an array float32[262145] needs more than the 1048576 bytes allowed"},
       {"overflow", Shaped("(4294967296, 4294967296)"),
        "DIR/input: an array float32[4294967296,4294967296] needs more than the 1048576 bytes allowed"},
       {"elements", good.substr(0, good.size() - 1),
        "DIR/input: the file is truncated: 75 bytes are expected, and it has 74"},
       {"more bytes", good + "ab", "DIR/input: the file is too long: 75 bytes are expected, and it has 77"},
       {"bool", Shaped("(2,)", "\1\2", "'|b1'"), "DIR/input: a bool is neither 0 nor 1"}},
      ReadAsNpy);
}

absl::Status ReadAsNpz(const std::string& path) { return ReadNpz(path, kMostBytes).status(); }

TEST(Malformed, Npz) {
  const std::string path = ::testing::TempDir() + "/made.npz";
  const Tensor array(kFloat32, {2});
  ASSERT_TRUE(WriteNpz(path, {{"x", array}, {"y", array}}).ok());
  const std::string good = ReadBytes(path);
  ASSERT_TRUE(ReadAsNpz(path).ok());
  // The directory's entry of x: flags, method and sizes are at these offsets (APPNOTE.TXT of
  // PKWARE, 4.3.12).
  const size_t entry = good.find("PK\1\2");
  auto renamed = [&](const char* to) { return absl::StrReplaceAll(good, {{"y.npy", to}}); };
  ExpectAllRefused(
      {{"empty", "", "DIR/input: this is not a zip archive, or it is truncated"},
       {"npy file", Shaped("(2,)", "12345678"), "DIR/input: this is not a zip archive, or it is truncated"},
       {"truncated", good.substr(0, good.size() - 30), "DIR/input: this is not a zip archive, or it is truncated"},
       {"no array", renamed("y.txt"), "DIR/input: y.txt: the entry is not an array, whose name ends with .npy"},
       {"encrypted", Changed(good, entry + 8, 1), "DIR/input: x.npy: encrypted entries cannot be read"},
       {"method", Changed(good, entry + 10, 12),
        "DIR/input: x.npy: compression method 12 cannot be read; 0 (stored) and 8 (deflate) can"},
       {"size", Changed(good, entry + 27, 127), "DIR/input: x.npy: the entry claims more bytes than the file can have"},
       {"name twice", renamed("x.npy"), "DIR/input: the archive has \"x\" twice"},
       {"escape sequence", renamed("\x1b[2Jx"),
        "DIR/input: \\x1b[2Jx: the entry is not an array, whose name ends with .npy"},
       {"control character of UTF-8", renamed("\xc2\x9b[2J"),
        "DIR/input: \\xc2\\x9b[2J: the entry is not an array, whose name ends with .npy"},
       {"checksum", Changed(good, entry + 16, 1), "DIR/input: x.npy: the archive is damaged or truncated"},
       {"array", Changed(good, good.find("NUMPY"), 'M'),
        "DIR/input: x.npy: this is not a file of numpy's array format: it does not start with \\x93NUMPY"}},
      ReadAsNpz);
}

absl::Status ReadAsSafetensors(const std::string& path) { return ReadSafetensors(path, kMostBytes).status(); }

// A file of safetensors with this header and these elements.
std::string WithHeader(const std::string& header, const std::string& elements) {
  const auto length = static_cast<int>(header.size());
  return Bytes({length & 255, length >> 8 & 255, length >> 16, 0, 0, 0, 0, 0}) + header + elements;
}

TEST(Malformed, Safetensors) {
  const std::string entry = R"("x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]})";
  const std::string good = WithHeader("{" + entry + "}", "1234");
  ASSERT_TRUE(ReadAsSafetensors(WriteTestFile("input", good)).ok());
  auto changed = [&](const char* from, const char* to) {
    return WithHeader("{" + absl::StrReplaceAll(entry, {{from, to}}) + "}", "1234");
  };
  std::string many = "{";
  for (int i = 0; i < 50000; ++i)
    absl::StrAppend(&many, i == 0 ? "" : ",", "\"", i, R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})");
  ExpectAllRefused(
      {{"empty", "", "DIR/input: the file is truncated: it has 0 bytes"},
       {"length", good.substr(0, 7), "DIR/input: the file is truncated: it has 7 bytes"},
       {"long header", Changed(good, 7, 127),
        "DIR/input: this is not a file of safetensors: its header would have 9151314442816847926 bytes, and the "
        "file has 66"},
       {"truncated header", good.substr(0, 20),
        "DIR/input: this is not a file of safetensors: its header would have 54 bytes, and the file has 20"},
       {"few elements", good.substr(0, good.size() - 1),
        "DIR/input: the arrays have 4 bytes, and the file has 3 behind its header"},
       {"more elements", good + "5", "DIR/input: the arrays have 4 bytes, and the file has 5 behind its header"},
       {"no object", WithHeader("[]", ""), "DIR/input: the header is wrong: { is expected at \"[]\""},
       {"name that is not UTF-8", changed("\"x\"", "\"\xe2 \""), "DIR/input: the header is wrong: it is not UTF-8"},
       {"dtype", changed("F16", "F8_E4M3\x7f"),
        "DIR/input: array \"x\" has elements of type F8_E4M3\\x7f, which cannot be read; BOOL, F16, BF16, F32, F64, I8 "
        "to I64 and U8 to U64 can"},
       {"size of halves", changed("[2]", "[3]"),
        "DIR/input: the header is wrong: array \"x\", F16[3], does not have the bytes 0 to 4"},
       {"size of bfloat16", changed("F16\",\"shape\":[2]", "BF16\",\"shape\":[1,1]"),
        "DIR/input: the header is wrong: array \"x\", BF16[1,1], does not have the bytes 0 to 4"},
       {"negative size", changed("[2]", "[-2]"),
        "DIR/input: the header is wrong: a whole number is expected at \"-2],*"},
       {"overflow", changed("[2]", "[4294967296,4294967296,2]"),
        "DIR/input: the header is wrong: array \"x\", F16[4294967296,4294967296,2], does not have the bytes 0 to 4"},
       {"number", changed("[2]", "[99999999999999999999]"),
        "DIR/input: the header is wrong: a smaller number is expected at \"99999999999999999999\""},
       {"offsets", changed("[0,4]", "[4,0]"),
        "DIR/input: the header is wrong: array \"x\", F16[2], does not have the bytes 4 to 0"},
       {"gap", changed("[0,4]", "[1,5]"), "DIR/input: array \"x\" begins at byte 1, and the array before it ends at 0"},
       {"name twice", WithHeader("{" + entry + "," + entry + "}", "1234"),
        "DIR/input: the header is wrong: \"x\" is there twice"},
       {"escape sequence", changed("\"x\":{", "\"\\u001b[2J\":{\"a\":"),
        "DIR/input: the header is wrong: array \"\\x1b[2J\" has dtype, shape and data_offsets, each once"},
       {"surrogate", changed("\"x\"", "\"\\ud800\""), "DIR/input: the header is wrong: half of a surrogate pair"},
       {"nested", WithHeader(std::string(100000, '{'), ""),
        "DIR/input: the header is wrong: text in quotes is expected at \"{{{{*"},
       {"above the limit",
        WithHeader(R"({"x":{"dtype":"F16","shape":[300000],"data_offsets":[0,600000]}})", std::string(600000, '\0')),
        "DIR/input: the arrays need 1200000 bytes, and 1048576 are allowed"},
       {"bool", changed("F16\",\"shape\":[2]", "BOOL\",\"shape\":[4]"),
        "DIR/input: array \"x\" has bools other than 0 and 1"},
       {"many arrays without elements", WithHeader(many + "}", ""),
        "DIR/input: the header is wrong: it has more arrays than the 2048 for which memory is allowed"}},
      ReadAsSafetensors);
}

TEST(Malformed, Cifar) {
  const std::string image(3073, '\0');
  ExpectRefused("no file", "ReadCifar: at least one path is expected", [] { return ReadCifar({}).status(); });
  ExpectAllRefused(
      {{"empty", "",
        "DIR/input: the file has 0 bytes; a multiple of 3073 is expected, which is one image with its label"},
       {"truncated", image.substr(1),
        "DIR/input: the file has 3072 bytes; a multiple of 3073 is expected, which is one image with its label"},
       {"label", image + Changed(image, 0, 10), "DIR/input: label 10 of image 1 is outside [0, 10)"},
       {"above the limit", std::string(342 * 3073, '\0'),
        "DIR/input: the file has more than the 1048576 bytes that are allowed"}},
      [](const std::string& path) { return ReadCifar({path}, CifarLabels::kTen, kMostBytes).status(); });
  ExpectAllRefused(
      {{"image of CIFAR-10", image,
        "DIR/input: the file has 3073 bytes; a multiple of 3074 is expected, which is one image with its two labels"},
       {"superclass", Changed(image + "x", 0, 20), "DIR/input: label 20 of image 0 is outside [0, 20)"}},
      [](const std::string& path) { return ReadCifar({path}, CifarLabels::kCoarse, kMostBytes).status(); });
}

}  // namespace
}  // namespace gradweave::data
