#include "gradweave/frontend/data/safetensors.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string WriteFile(const std::string& name, const std::string& bytes) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

// A file with this header, followed by this many zeros.
std::string File(const std::string& header, size_t zeros = 0) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> 8 * i & 0xFF);
  return absl::StrCat(bytes, header, std::string(zeros, '\0'));
}

std::string ErrorOf(const std::string& bytes, int64_t max_bytes = 1 << 20) {
  const std::string path = WriteFile("input.safetensors", bytes);
  const std::string message(ReadSafetensors(path, max_bytes).status().message());
  EXPECT_EQ(message.substr(0, path.size() + 2), path + ": ");
  EXPECT_EQ(message.find('\n'), std::string::npos);
  return message.substr(std::min(message.size(), path.size() + 2));
}

// Made by Python's safetensors 0.8.0 and numpy 2.4.6:
//   save_file({"w": np.array([[1.5, -2, 3], [4, 5, 6]], 'float32'), "größe/b": np.array([True, False]),
//              "h": np.array([1, -0.5, 65504, 6e-8, np.inf], 'float16'), "n": np.array(7, 'int64'),
//              "d": np.array([0.1], 'float64'), "i": np.array([-3, 2**31 - 1], 'int32'),
//              "u": np.arange(3, dtype='uint8'), "e": np.zeros((0, 4), 'float32')},
//             "weights.safetensors", metadata={"made by": 'numpy "2"'})
TEST(Safetensors, ReadsWhatPythonWrote) {
  const auto arrays = ReadSafetensors("frontend/data/golden/weights.safetensors");
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  std::vector<std::string> texts;
  for (const NamedArray& array : *arrays) texts.push_back(absl::StrCat(array.name, " ", array.values.ToString()));
  EXPECT_THAT(texts, ::testing::UnorderedElementsAre("w float32[2,3] {1.5, -2, 3, 4, 5, 6}", "größe/b bool[2] {1, 0}",
                                                     "h float32[5] {1, -0.5, 65504, 5.96046e-08, inf}", "n int64[] {7}",
                                                     "d float64[1] {0.1}", "i int32[2] {-3, 2147483647}",
                                                     "u uint8[3] {0, 1, 2}", "e float32[0,4] {}"));
}

TEST(Safetensors, WritesWhatItReads) {
  const std::vector<NamedArray> arrays = {{"layer/\"w\"\n", Tensor::Of<float>({2, 1}, {1, std::nanf("")})},
                                          {"mask", Tensor::Of<bool>({3}, {true, false, true})},
                                          {"größe", Tensor::Of<double>({}, {-0.0})},
                                          {"empty", Tensor(kInt32, {0})}};
  const std::string path = absl::StrCat(::testing::TempDir(), "/written.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, arrays).ok());
  const auto read = ReadSafetensors(path);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 4u);
  for (const NamedArray& array : arrays) {
    bool found = false;
    for (const NamedArray& other : *read) found |= other.name == array.name && SameBits(other.values, array.values);
    EXPECT_TRUE(found) << array.name;
  }
  // The elements are aligned: the header ends at a multiple of 8, and the largest come first.
  std::stringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  EXPECT_EQ(static_cast<unsigned char>(bytes.str()[0]) % 8, 0);
  EXPECT_EQ((*read)[0].name, "größe");
  ASSERT_TRUE(WriteSafetensors(path, {}).ok());
  EXPECT_TRUE(ReadSafetensors(path)->empty());
}

TEST(Safetensors, WritesNoOtherNames) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/none.safetensors");
  const Tensor one = Tensor::Scalar(1.0f);
  for (const char* name : {"", "__metadata__", "\xff", "\xc0\x80", "\xed\xa0\x80", "a\xe2\x82"}) {
    EXPECT_THAT(WriteSafetensors(path, {{name, one}}).message(), HasSubstr("cannot be the name of an array")) << name;
  }
  EXPECT_FALSE(WriteSafetensors(path, {{"a", one}, {"a", one}}).ok());
  EXPECT_FALSE(std::ifstream(path).good());
  EXPECT_EQ(WriteSafetensors("/none/w.safetensors", {{"a", one}}).code(), absl::StatusCode::kNotFound);
}

TEST(Safetensors, ConvertsHalves) {
  // 1.0, -2.0 and the smallest subnormal half; 1.0 and pi cut to eight bits as BF16.
  const std::string path = WriteFile(
      "halves.safetensors",
      File(
          R"({"h":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[6,10]}})") +
          std::string("\x00\x3c\x00\xc0\x01\x00\x80\x3f\x49\x40", 10));
  const auto arrays = ReadSafetensors(path);
  ASSERT_TRUE(arrays.ok()) << arrays.status();
  EXPECT_THAT((*arrays)[0].values.values<float>(), ElementsAre(1, -2, std::ldexp(1.0f, -24)));
  EXPECT_THAT((*arrays)[1].values.values<float>(), ElementsAre(1, 3.140625f));
}

TEST(Safetensors, KeepsHalvesAndSmallIntegersIfAsked) {
  const std::vector<NamedArray> arrays = {
      {"u64", Tensor::Of<uint64_t>({1}, {~uint64_t{0}})},
      {"u32", Tensor::Of<uint32_t>({1}, {~uint32_t{0}})},
      {"f16", Tensor::Of<Float16>({2}, {Float16(1.0f), Float16::FromBits(0x7E01)})},
      {"bf16", Tensor::Of<BFloat16>({2}, {BFloat16(-2.0f), BFloat16::FromBits(1)})},
      {"i16", Tensor::Of<int16_t>({1}, {-32768})},
      {"u16", Tensor::Of<uint16_t>({1}, {65535})},
      {"i8", Tensor::Of<int8_t>({3}, {-128, 0, 127})},
  };
  const std::string path = testing::TempDir() + "/small.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, arrays).ok());
  const auto read = ReadSafetensors(path, int64_t{1} << 20, HalfArrays::kKept);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), arrays.size());
  for (size_t i = 0; i < arrays.size(); ++i) {
    EXPECT_EQ((*read)[i].name, arrays[i].name);
    EXPECT_TRUE(SameBits((*read)[i].values, arrays[i].values)) << arrays[i].name;
  }
  EXPECT_EQ((*ReadSafetensors(path))[2].values.dtype(), kFloat32);
}

TEST(Safetensors, RefusesDamagedFiles) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  ASSERT_TRUE(ReadSafetensors(WriteFile("good.safetensors", File(good, 8))).ok());
  ASSERT_TRUE(ReadSafetensors(WriteFile("good.safetensors", File(good + "  ", 8))).ok());
  const struct {
    std::string bytes;
    const char* message;
  } rows[] = {
      {"", "the file is truncated: it has 0 bytes"},
      {"1234567", "the file is truncated: it has 7 bytes"},
      {std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10),
       "this is not a file of safetensors: its header would have 18446744073709551615 bytes, and the file has 10"},
      {std::string("\3\0\0\0\0\0\0\0{}", 10),
       "this is not a file of safetensors: its header would have 3 bytes, and the file has 10"},
      {File(""), "the header is wrong: { is expected at \"\""},
      {File("[]"), "the header is wrong: { is expected at \"[]\""},
      {File("{} x"), "the header is wrong: the end is expected at \"x\""},
      {File("{\"a"), "the header is wrong: text with its last quote is expected at \"\""},
      {File("{\"a\x1b\""), "the header is wrong: text without control characters is expected at \"\\x1b\\\"\""},
      {File(R"({"a\x")"), "the header is wrong: a character that JSON has behind a backslash is expected at \"\\\"\""},
      {File(R"({"a\u12g4")"), "the header is wrong: \\u and four digits is expected at \"12g4\\\"\""},
      {File(R"({"\ud800":1})"), "the header is wrong: half of a surrogate pair"},
      {File(R"({"a":{}})"), "the header is wrong: array \"a\" has dtype, shape and two data_offsets"},
      {File(R"({"a":{"dtype":"F32","dtype":"F32"}})"),
       "the header is wrong: array \"a\" has dtype, shape and data_offsets, each once"},
      {File(R"({"a":{"kind":"F32"}})"),
       "the header is wrong: array \"a\" has dtype, shape and data_offsets, each once"},
      {File(R"({"a":{"dtype":"F8_E4M3"}})"),
       "array \"a\" has elements of type F8_E4M3, which cannot be read; BOOL, F16, BF16, F32, F64, I8 to I64 and U8 to "
       "U64 can"},
      {File(R"({"a":{"shape":[-1]}})"), "the header is wrong: a whole number is expected at \"-1]}}\""},
      {File(R"({"a":{"shape":[01]}})"), "the header is wrong: a whole number is expected at \"01]}}\""},
      {File(R"({"a":{"shape":[1.5]}})"), "the header is wrong: , or ] is expected at \".5]}}\""},
      {File(R"({"a":{"shape":[99999999999999999999]}})"),
       "the header is wrong: a smaller number is expected at \"99999999999999999999\""},
      {File(R"({"a":{"data_offsets":[0,1,2]}})"), "the header is wrong: a list has more than 2 numbers"},
      {File(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
       "the header is wrong: array \"a\", F32[2], does not have the bytes 0 to 4"},
      {File(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8),
       "the header is wrong: array \"a\", F32[2], does not have the bytes 8 to 0"},
      {File(R"({"a":{"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[0,0]}})"),
       "the header is wrong: array \"a\", F64[4611686018427387904,4], does not have the bytes 0 to 0"},
      {File(R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})"),
       "the header is wrong: array \"a\", F64[2305843009213693952], does not have the bytes 0 to 0"},
      {File(good, 7), "the arrays have 8 bytes, and the file has 7 behind its header"},
      {File(good, 9), "the arrays have 8 bytes, and the file has 9 behind its header"},
      {File(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2),
       "array \"a\" begins at byte 1, and the array before it ends at 0"},
      {File(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
           3),
       "array \"b\" begins at byte 1, and the array before it ends at 2"},
      {File(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           2),
       "the header is wrong: \"a\" is there twice"},
      {File(R"({"__metadata__":{"a":1}})"), "the header is wrong: text in quotes is expected at \"1}}\""},
      {File(R"({"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})") + "\2",
       "array \"a\" has bools other than 0 and 1"},
      {File(R"({"a":{"dtype":"U8","shape":[2000000],"data_offsets":[0,2000000]}})", 2000000),
       "the arrays need 2000000 bytes, and 1048576 are allowed"},
  };
  for (const auto& row : rows) EXPECT_EQ(ErrorOf(row.bytes), row.message);
  std::string dimensions = "1";
  for (int i = 0; i < 64; ++i) dimensions += ",1";
  EXPECT_EQ(ErrorOf(File(absl::StrCat("{\"a\":{\"shape\":[", dimensions, "]}}"))),
            "the header is wrong: a list has more than 64 numbers");
  EXPECT_EQ(ReadSafetensors("/none.safetensors").status().code(), absl::StatusCode::kNotFound);
}

// Prefixes of a file are refused, and a file with one byte changed is read or refused, and nothing
// else.
TEST(Safetensors, SurvivesAnyByte) {
  std::stringstream stream;
  stream << std::ifstream("frontend/data/golden/weights.safetensors", std::ios::binary).rdbuf();
  const std::string good = stream.str();
  ASSERT_GT(good.size(), 500u);
  for (size_t i = 0; i < good.size(); i += 3) {
    EXPECT_NE(ErrorOf(good.substr(0, i)), "") << i;
    std::string changed = good;
    changed[i] ^= 0x15;
    ReadSafetensors(WriteFile("changed.safetensors", changed), 1 << 20).status().IgnoreError();
  }
}

}  // namespace
}  // namespace gradweave::data
