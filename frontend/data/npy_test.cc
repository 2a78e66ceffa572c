// Files of numpy: those that numpy wrote (golden/make_golden.py), those that are damaged, and those
// that are written.
#include "gradweave/frontend/data/npy.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string GoldenPath(const std::string& name) { return "frontend/data/golden/" + name; }

std::string BytesOf(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

std::string TemporaryFile(const std::string& name, const std::string& contents) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

template <typename T>
std::string ErrorOf(const absl::StatusOr<T>& result) {
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()), Not(HasSubstr("\n")));
  return std::string(result.status().message());
}

template <typename T>
Tensor Counting(std::initializer_list<int64_t> sizes, T step = 1) {
  Tensor tensor(DTypeOf<T>, sizes);
  for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_data<T>()[i] = static_cast<T>(i) * step;
  return tensor;
}

// The arrays of make_golden.py that can be read.
std::vector<NamedArray> GoldenArrays() {
  const float inf = std::numeric_limits<float>::infinity();
  const double double_inf = std::numeric_limits<double>::infinity();
  constexpr int32_t kLeast32 = std::numeric_limits<int32_t>::min(), kMost32 = std::numeric_limits<int32_t>::max();
  constexpr int64_t kLeast64 = std::numeric_limits<int64_t>::min(), kMost64 = std::numeric_limits<int64_t>::max();
  return {
      {"float32", Tensor::Of<float>({2, 3}, {0.1f, -0.f, inf, -inf, std::numeric_limits<float>::max(), 1e-45f})},
      {"float64", Tensor::Of<double>({2, 3}, {0.1, -0., double_inf, -double_inf, std::numeric_limits<double>::max(),
                                              std::numeric_limits<double>::denorm_min()})},
      {"int32", Tensor::Of<int32_t>({2, 3}, {0, 1, -1, 7, kLeast32, kMost32})},
      {"int64", Tensor::Of<int64_t>({2, 3}, {0, 1, -1, 7, kLeast64, kMost64})},
      {"uint8", Tensor::Of<uint8_t>({2, 3}, {0, 1, 2, 127, 128, 255})},
      {"bool", Tensor::Of<bool>({2, 3}, {true, false, false, true, true, false})},
      {"scalar", Tensor::Scalar(2.5)},
      {"vector", Counting<int32_t>({5})},
      {"empty", Tensor(kFloat32, {0, 3})},
      // The room for the first axis decides how long the header is.
      {"long_header", Tensor(kUint8, {123, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})},
      {"fortran", Counting<int32_t>({2, 3, 4})},
      {"big_endian", Counting<int32_t>({2, 3})},
      {"big_endian_fortran", Counting<double>({2, 3}, 0.25)},
      {"float16", Tensor::Of<Float16>({2, 3}, {Float16(1), Float16(-0.f), Float16(inf), Float16(-inf), Float16(65504),
                                               Float16::FromBits(1)})},
      {"big_endian_float16", Tensor::Of<Float16>({2}, {Float16(1), Float16(0.1)})},
      {"int8", Tensor::Of<int8_t>({3}, {0, -128, 127})},
      {"int16", Tensor::Of<int16_t>({3}, {0, -32768, 32767})},
      {"uint16", Tensor::Of<uint16_t>({3}, {0, 1, 65535})},
      {"uint32", Tensor::Of<uint32_t>({3}, {0, 1, 4294967295u})},
      {"uint64", Tensor::Of<uint64_t>({3}, {0, 1, std::numeric_limits<uint64_t>::max()})},
  };
}

// Returns a file with this header, which is padded as numpy does.
std::string Npy(std::string header, const std::string& elements, char version = 1) {
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string file = absl::StrCat("\x93NUMPY", std::string{version, '\0'});
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) file += static_cast<char>(header.size() >> 8 * i & 0xFF);
  return file + header + elements;
}

TEST(ReadNpy, ReadsWhatNumpyWrote) {
  for (const auto& [name, expected] : GoldenArrays()) {
    const absl::StatusOr<Tensor> array = ReadNpy(GoldenPath(name + ".npy"));
    ASSERT_TRUE(array.ok()) << array.status();
    EXPECT_TRUE(SameBits(*array, expected)) << name << ": " << array->ToString();
  }
  for (const char* name : {"version2.npy", "version3.npy"}) {
    EXPECT_TRUE(SameBits(*ReadNpy(GoldenPath(name)), GoldenArrays()[0].values)) << name;
  }
}

TEST(ReadNpy, TellsWhichElementsCannotBeRead) {
  const std::pair<const char*, const char*> cases[] = {
      {"bfloat16",
       "elements of two bytes without a type cannot be read; save an array of ml_dtypes' bfloat16 with "
       "astype('float32')"},
      {"complex128",
       "elements of type '<c16' cannot be read; floats of 16 to 64 bits, integers of 8 to 64 bits and bool can "
       "(convert with astype)"},
      {"text", "elements of type '<U1' cannot be read"},
      {"structure", "arrays of structures cannot be read"},
      {"object", "arrays of Python objects cannot be read"},
  };
  for (const auto& [name, error] : cases) {
    const std::string path = absl::StrCat(GoldenPath(name), ".npy");
    EXPECT_THAT(ErrorOf(ReadNpy(path)), StartsWith(absl::StrCat(path, ": ", error)));
  }
}

TEST(ReadNpy, ReadsEveryFormOfTheHeaderThatPythonMayWrite) {
  const std::string elements("\1\0\0\0\2\0\0\0", 8);
  for (const char* header : {
           "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }",
           "{\"shape\":(2,),\"descr\":\"<i4\",\"fortran_order\":False}",
           " { 'shape' : ( 2 , ) , 'fortran_order' : True , 'descr' : '<i4' }\n",
           "{'descr': '<i4', 'fortran_order': False, 'shape': (2L,), }",
       }) {
    for (char version : {1, 2, 3}) {
      const absl::StatusOr<Tensor> array = ReadNpy(TemporaryFile("good.npy", Npy(header, elements, version)));
      ASSERT_TRUE(array.ok()) << header << " " << array.status();
      EXPECT_THAT(array->values<int32_t>(), ElementsAre(1, 2)) << header;
    }
  }
}

TEST(ReadNpy, TellsWhatIsWrongWithAFile) {
  const auto shaped = [](const std::string& shape, const std::string& elements = "1234", const char* descr = "<i4") {
    return Npy(absl::StrCat("{'descr': '", descr, "', 'fortran_order': False, 'shape': ", shape, ", }"), elements);
  };
  const std::string good = shaped("(1,)");
  std::string long_header = good;
  long_header[8] = long_header[9] = '\xFF';
  const struct {
    std::string contents;
    const char* error;
  } cases[] = {
      {"", "truncated: 10 bytes are expected, and it has 0"},
      {"\x93NUMPY", "truncated: 10 bytes are expected, and it has 6"},
      {"PK\3\4 a zip archive", "this is not a file of numpy's array format"},
      {std::string(100, '\0'), "this is not a file of numpy's array format"},
      {Npy("{}", "", 0), "format version 0.0 cannot be read"},
      {Npy("{}", "", 4), "format version 4.0 cannot be read; 1.0, 2.0 and 3.0 can"},
      {long_header, "the header has 65535 bytes; at most 10000 are allowed"},
      {std::string("\x93NUMPY\2\0\xFF\xFF", 10), "truncated: 12 bytes are expected, and it has 10"},
      {std::string("\x93NUMPY\2\0\xFF\xFF\xFF\xFF", 12), "the header has 4294967295 bytes"},
      {good.substr(0, 60), "truncated: 128 bytes are expected, and it has 60"},
      {good.substr(0, 131), "truncated: 132 bytes are expected, and it has 131"},
      {good + "5", "too long: 132 bytes are expected, and it has 133"},
      {Npy("", ""), "the header is wrong: { is expected"},
      {Npy("{}", ""), "the header is wrong: descr, fortran_order and shape are expected"},
      {Npy(std::string("{\0}", 3), ""), "text in quotes is expected at \"\\x00}"},
      {Npy("{'descr': '<i4', 'fortran_order': False}", ""), "descr, fortran_order and shape are expected"},
      {Npy("{'descr': '<i4', 'descr': '<i4'}", ""), "the keys descr, fortran_order and shape are expected, each once"},
      {Npy("{'shape': (), 'more': 1}", ""), "the keys descr, fortran_order and shape are expected, each once"},
      {Npy("{'descr' '<i4'}", ""), ": is expected at \"'<i4"},
      {Npy("{'descr': '<i4", ""), "text with its last quote is expected"},
      {Npy("{'descr': <i4}", ""), "text in quotes is expected"},
      {Npy("{'fortran_order': 0}", ""), "True or False is expected"},
      {Npy("{'fortran_order': True 'shape': ()}", ""), ", or } is expected"},
      {Npy("{'descr': '<i4', 'fortran_order': False, 'shape': ()} + 1", "1234"), "the end is expected at \"+ 1"},
      {shaped("[1]"), "( is expected"},
      {shaped("(1"), "a size of 0 or more is expected at \"}"},
      {shaped("(1)"), "a comma is expected in a shape of one dimension"},
      {shaped("(1 1)"), ", or ) is expected"},
      {shaped("(,)"), "a size of 0 or more is expected at \",)"},
      {shaped("(-1,)"), "a size of 0 or more is expected at \"-1"},
      {shaped("(1.0,)"), ", or ) is expected at \".0"},
      {shaped("(9223372036854775808,)"), "a size is above 2^63 - 1"},
      {shaped("(99999999999999999999999999,)"), "a size is above 2^63 - 1"},
      {shaped("(9223372036854775807,)"), "an array int32[9223372036854775807] needs more than the 1000 bytes"},
      {shaped("(4294967296, 4294967296)"), "an array int32[4294967296,4294967296] needs more than the 1000 bytes"},
      {shaped("(4611686018427387904, 4)"), "needs more than the 1000 bytes"},
      {shaped("(251,)"), "an array int32[251] needs more than the 1000 bytes"},
      {shaped("(250,)"), "truncated: 1128 bytes are expected, and it has 132"},
      {shaped("(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
              "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)"),
       "there are more than 64 dimensions"},
      {shaped("(4,)", std::string("\1\0\2\1", 4), "|b1"), "a bool is neither 0 nor 1"},
      {shaped("(1,)", "1234", "|i4"), "elements of type '|i4' cannot be read"},
      {shaped("(1,)", "1234", "=i4"), "elements of type '=i4' cannot be read"},
      {shaped("(1,)", "1234", ""), "elements of type '' cannot be read"},
      {shaped("(1,)", "1234", "<i4\n"), "elements of type '<i4\\n' cannot be read"},
      {shaped("(1,)", "1234", "|O"), "arrays of Python objects cannot be read"},
  };
  for (const auto& test : cases) {
    const absl::StatusOr<Tensor> array = ReadNpy(TemporaryFile("bad.npy", test.contents), 1000);
    EXPECT_THAT(ErrorOf(array), HasSubstr("/bad.npy: "));
    EXPECT_THAT(std::string(array.status().message()), HasSubstr(test.error));
  }
  const std::string most = TemporaryFile("bad.npy", shaped("(9223372036854775807,)", "1", "|u1"));
  EXPECT_THAT(ErrorOf(ReadNpy(most, std::numeric_limits<int64_t>::max())),
              HasSubstr("an array uint8[9223372036854775807] needs more than the"));
  EXPECT_TRUE(ReadNpy(TemporaryFile("good.npy", good), 4).ok());
}

TEST(ReadNpy, ReadsRegularFilesAlone) {
  const std::string pipe = ::testing::TempDir() + "/pipe.npy";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(ErrorOf(ReadNpy(pipe)), HasSubstr("pipe.npy: this is not a regular file"));
  EXPECT_THAT(ErrorOf(ReadNpz(pipe)), HasSubstr("pipe.npy: this is not a regular file"));
  EXPECT_EQ(ReadNpy("/none.npy").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadNpz("/none.npz").status().code(), absl::StatusCode::kNotFound);
}

TEST(WriteNpy, WritesTheBytesThatNumpyWrites) {
  const std::string path = ::testing::TempDir() + "/written.npy";
  for (const auto& [name, array] : GoldenArrays()) {
    // numpy keeps the order in which an array lies in memory.
    if (name == "fortran" || absl::StrContains(name, "big_endian")) continue;
    ASSERT_TRUE(WriteNpy(path, array).ok());
    EXPECT_TRUE(BytesOf(path) == BytesOf(GoldenPath(name + ".npy"))) << name;
  }
  EXPECT_THAT(std::string(WriteNpy("/none/there.npy", Tensor()).message()),
              StartsWith("/none/there.npy: the file cannot be written"));
}

TEST(WriteNpy, TellsThatNumpyHasNoBFloat16) {
  const std::string path = ::testing::TempDir() + "/bfloat16.npy";
  const char* const message = "numpy's format has no type for bfloat16; write array.Cast(gw::kFloat32)";
  EXPECT_EQ(WriteNpy(path, Tensor(kBFloat16, {2})).message(), absl::StrCat(path, ": ", message));
  EXPECT_EQ(WriteNpz(path, {{"w", Tensor(kBFloat16, {2})}}).message(), absl::StrCat(path, ": \"w\": ", message));
  EXPECT_FALSE(std::ifstream(path).good());
}

TEST(ReadNpz, ReadsWhatNumpyWrote) {
  const absl::StatusOr<std::vector<NamedArray>> stored = ReadNpz(GoldenPath("stored.npz"));
  ASSERT_TRUE(stored.ok()) << stored.status();
  const std::vector<NamedArray> expected = GoldenArrays();
  ASSERT_EQ(stored->size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ((*stored)[i].name, expected[i].name);
    EXPECT_TRUE(SameBits((*stored)[i].values, expected[i].values)) << expected[i].name;
  }
  const absl::StatusOr<std::vector<NamedArray>> compressed = ReadNpz(GoldenPath("compressed.npz"));
  ASSERT_TRUE(compressed.ok()) << compressed.status();
  ASSERT_EQ(compressed->size(), 2u);
  EXPECT_EQ((*compressed)[0].name, "layer/weights");
  Tensor weights = Counting<int64_t>({40, 100});
  for (int64_t& weight : weights.mutable_values<int64_t>()) weight %= 7;
  EXPECT_TRUE(SameBits((*compressed)[0].values, weights));
  EXPECT_TRUE(SameBits((*compressed)[1].values, expected[0].values));
  EXPECT_TRUE(ReadNpz(GoldenPath("none.npz"))->empty());
}

TEST(ReadNpz, LimitsTheBytesOfAllArrays) {
  // 32000 and 24 bytes.
  EXPECT_TRUE(ReadNpz(GoldenPath("compressed.npz"), 32024).ok());
  EXPECT_THAT(ErrorOf(ReadNpz(GoldenPath("compressed.npz"), 32023)),
              HasSubstr("compressed.npz: bias.npy: an array float32[2,3] needs more than the 23 bytes"));
}

TEST(ReadNpz, NamesTheEntryThatCannotBeRead) {
  EXPECT_THAT(ErrorOf(ReadNpz(GoldenPath("object.npz"))),
              HasSubstr("object.npz: bad.npy: arrays of Python objects cannot be read"));
}

TEST(ReadNpz, TellsThatAnArchiveIsDamaged) {
  EXPECT_THAT(ErrorOf(ReadNpz(TemporaryFile("bad.npz", ""))), HasSubstr("bad.npz: this is not a zip archive"));
  EXPECT_THAT(ErrorOf(ReadNpz(GoldenPath("float32.npy"))), HasSubstr("float32.npy: this is not a zip archive"));
  for (const char* name : {"stored.npz", "compressed.npz"}) {
    const std::string good = BytesOf(GoldenPath(name));
    const std::vector<NamedArray> arrays = *ReadNpz(GoldenPath(name));
    // A file that was cut or has a wrong bit is found, or all arrays are read: dates and the last
    // bytes change none.
    const auto check = [&](const std::string& contents, size_t place) {
      const absl::StatusOr<std::vector<NamedArray>> read = ReadNpz(TemporaryFile("wrong.npz", contents), 1 << 20);
      if (!read.ok()) {
        EXPECT_THAT(std::string(read.status().message()), HasSubstr("wrong.npz: "));
        return;
      }
      ASSERT_EQ(read->size(), arrays.size()) << name << " byte " << place;
      for (size_t k = 0; k < read->size(); ++k) {
        EXPECT_TRUE(SameBits((*read)[k].values, arrays[k].values)) << name << " byte " << place;
      }
    };
    const size_t step = good.size() / 150 + 1;
    for (size_t i = 0; i < good.size(); i += step) {
      check(good.substr(0, good.size() - 1 - i / step), good.size() - 1 - i / step);
      check(good.substr(0, i), i);
      std::string wrong = good;
      wrong[i] ^= static_cast<char>(1 << i % 8);
      check(wrong, i);
    }
  }
}

TEST(ReadNpz, RefusesWhatAnArchiveOfArraysHasNot) {
  // Changes bytes of the directory's first row, which starts with PK 1 2.
  const auto changed = [](int at, const std::string& bytes) {
    std::string file = BytesOf(GoldenPath("compressed.npz"));
    return TemporaryFile("bad.npz", file.replace(file.find("PK\1\2") + at, bytes.size(), bytes));
  };
  EXPECT_THAT(ErrorOf(ReadNpz(changed(8, "\1"))), HasSubstr("bad.npz: layer/weights.npy: encrypted entries"));
  EXPECT_THAT(ErrorOf(ReadNpz(changed(10, "\14"))), HasSubstr("compression method 12 cannot be read"));
  EXPECT_THAT(ErrorOf(ReadNpz(changed(24, "\xFF\xFF\xFF\x7F"))), HasSubstr("claims more bytes than the file can have"));
  EXPECT_THAT(ErrorOf(ReadNpz(changed(20, "\xFF\xFF\xFF\x7F"))), HasSubstr("claims more bytes than the file can have"));
  EXPECT_THAT(ErrorOf(ReadNpz(changed(46 + 13, ".txt"))), HasSubstr("layer/weights.txt: the entry is not an array"));
  std::string file = BytesOf(GoldenPath("object.npz"));
  for (size_t at = 0; (at = file.find("bad.npy", at)) != file.npos;) file.replace(at, 3, "b\nd");
  EXPECT_THAT(ErrorOf(ReadNpz(TemporaryFile("bad.npz", file))), HasSubstr("bad.npz: b\\nd.npy: "));
}

TEST(WriteNpz, WritesArchivesThatAreReadBack) {
  const std::string path = ::testing::TempDir() + "/written.npz";
  std::vector<NamedArray> arrays = GoldenArrays();
  arrays.push_back({"layer/weights", Counting<float>({100, 100}, 0.f)});
  for (bool compress : {false, true}) {
    ASSERT_TRUE(WriteNpz(path, arrays, compress).ok());
    const std::string bytes = BytesOf(path);
    EXPECT_EQ(bytes.size() < 40000, compress);
    // The first entry's flags (names are UTF-8), method, time and date (1980-01-01).
    EXPECT_EQ(bytes.substr(6, 8), std::string(compress ? "\0\x08\x08\0\0\0\x21\0" : "\0\x08\0\0\0\0\x21\0", 8));
    const absl::StatusOr<std::vector<NamedArray>> read = ReadNpz(path);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_EQ(read->size(), arrays.size());
    for (size_t i = 0; i < arrays.size(); ++i) {
      EXPECT_EQ((*read)[i].name, arrays[i].name);
      EXPECT_TRUE(SameBits((*read)[i].values, arrays[i].values)) << arrays[i].name;
    }
    ASSERT_TRUE(WriteNpz(path, arrays, compress).ok());
    EXPECT_TRUE(BytesOf(path) == bytes) << "the bytes depend on the arrays alone";
  }
  ASSERT_TRUE(WriteNpz(path, {}).ok());
  EXPECT_TRUE(ReadNpz(path)->empty());
}

TEST(WriteNpz, TellsWhatCannotBeWritten) {
  const std::string path = ::testing::TempDir() + "/unwritten.npz";
  for (const std::string& name :
       {std::string(), std::string("a\0b", 3), std::string("twice"), std::string(70000, 'x')}) {
    const std::vector<NamedArray> arrays = {{"twice", Tensor()}, {name, Tensor()}};
    EXPECT_THAT(std::string(WriteNpz(path, arrays).message()), HasSubstr("unwritten.npz: \"")) << name.substr(0, 10);
  }
  EXPECT_FALSE(std::ifstream(path).good());
  EXPECT_THAT(std::string(WriteNpz("/none/there.npz", {}).message()),
              StartsWith("/none/there.npz: the file cannot be written"));
}

// Files of arrays are saved as models are: nobody can guess the name of the new file and put a link
// there, and only a regular file is replaced.
TEST(WriteNpy, ReplacesRegularFilesAlone) {
  namespace fs = std::filesystem;
  const std::string folder = ::testing::TempDir() + "/replaced";
  fs::remove_all(folder);
  fs::create_directory(folder);
  const std::string path = folder + "/x.npy", other = folder + "/other";
  const Tensor array = Tensor::Of<float>({2}, {1, 2});
  std::ofstream(other) << "mine";
  const std::string guessed = absl::StrCat(path, ".tmp.", getpid());
  fs::create_symlink(other, guessed);
  ASSERT_TRUE(WriteNpy(path, array).ok());
  std::string text;
  std::ifstream(other) >> text;
  EXPECT_EQ(text, "mine");
  fs::remove(guessed);

  // The file keeps its permissions, a link stays, and what a killed process has left goes.
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  const std::string link = folder + "/link.npy";
  fs::create_symlink(path, link);
  std::ofstream(path + ".0123456789abcdef.tmp") << "half";
  ASSERT_TRUE(WriteNpy(link, Tensor::Of<float>({1}, {7})).ok());
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(static_cast<int>(fs::status(path).permissions()), 0600);
  EXPECT_EQ(ReadNpy(path)->ToString(), "float32[1] {7}");
  EXPECT_FALSE(fs::exists(path + ".0123456789abcdef.tmp"));

  const std::string pipe = folder + "/pipe.npy";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const absl::Status refused = WriteNpy(pipe, array);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(refused.message(), pipe + ": this is not a regular file, and only such a file is replaced");
  EXPECT_TRUE(fs::is_fifo(pipe));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 4);
}

}  // namespace
}  // namespace gradweave::data
