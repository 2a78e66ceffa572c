// Tables of comma-separated values: what is read, and the errors for what is not.
#include "gradweave/frontend/data/csv.h"

#include <sys/stat.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Rows = std::vector<std::vector<std::string>>;

// Returns all fields.
Rows TextOf(const Csv& csv) {
  Rows rows(csv.rows());
  for (int64_t row = 0; row < csv.rows(); ++row) {
    for (int64_t column = 0; column < csv.columns(); ++column) rows[row].emplace_back(csv.text(row, column));
  }
  return rows;
}

Csv Parsed(const std::string& text, const CsvOptions& options = {}) {
  absl::StatusOr<Csv> csv = ParseCsv(text, options, "test.csv");
  EXPECT_TRUE(csv.ok()) << csv.status();
  return csv.ok() ? *std::move(csv) : Csv();
}

template <typename T>
std::string ErrorOf(const absl::StatusOr<T>& result) {
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()), Not(HasSubstr("\n")));
  return std::string(result.status().message());
}

constexpr char kIris[] =
    "length,width,species\n"
    "5.1,3.5,setosa\n"
    "7.0,3.2,versicolor\n"
    "6.3,3.3,virginica\n"
    "4.9,3,setosa\n";

TEST(Csv, GivesColumnsByNameAndByNumber) {
  const Csv csv = Parsed(kIris);
  EXPECT_EQ(csv.rows(), 4);
  EXPECT_THAT(csv.names(), ElementsAre("length", "width", "species"));
  const Tensor both = *csv.Numbers({"width", "length"});
  EXPECT_EQ(both.type().ToString(), "float32[4,2]");
  EXPECT_THAT(both.values<float>(), ElementsAre(3.5f, 5.1f, 3.2f, 7.0f, 3.3f, 6.3f, 3.0f, 4.9f));
  const std::string name = "length";
  EXPECT_TRUE(SameBits(*csv.Numbers({1, name}), both));
  EXPECT_TRUE(SameBits(*csv.NumbersExcept({"species"}), *csv.Numbers({0, 1})));
  EXPECT_EQ(csv.Numbers({})->type().ToString(), "float32[4,0]");
}

TEST(Csv, ReadsWhatRfc4180Defines) {
  const struct {
    const char* what;
    std::string text;
    Rows rows;
  } cases[] = {
      {"line feeds", "a,b\nc,d\n", {{"a", "b"}, {"c", "d"}}},
      {"CR LF", "a,b\r\nc,d\r\n", {{"a", "b"}, {"c", "d"}}},
      {"no line end after the last row", "a,b\r\nc,d", {{"a", "b"}, {"c", "d"}}},
      {"an empty last field", "a,\nb,", {{"a", ""}, {"b", ""}}},
      {"quotes", "\"a\",\"b\"\n\"c\",d", {{"a", "b"}, {"c", "d"}}},
      {"separators and line ends in quotes", "\"a,b\",\"c\r\nd\ne\"\r\nf,g", {{"a,b", "c\r\nd\ne"}, {"f", "g"}}},
      {"doubled quotes", "\"\"\"a\"\"b\"\"\",\"\"\"\"\n\"\",c", {{"\"a\"b\"", "\""}, {"", "c"}}},
      {"spaces belong to fields", " a , b\n", {{" a ", " b"}}},
      {"an empty line is a row with one empty field", "a\n\nb\n", {{"a"}, {""}, {"b"}}},
      {"the byte order mark is none of the text", "\xEF\xBB\xBF\"a\",b\n", {{"a", "b"}}},
      {"other bytes", "\xC3\xA4,\xFF\n", {{"\xC3\xA4", "\xFF"}}},
  };
  for (const auto& test : cases) EXPECT_EQ(TextOf(Parsed(test.text, {.header = false})), test.rows) << test.what;
  EXPECT_EQ(TextOf(Parsed("a; b\t;c,d\n\" e \";f;g", {.header = false, .separator = ';', .trim = true})),
            (Rows{{"a", "b", "c,d"}, {" e ", "f", "g"}}));
  EXPECT_EQ(Parsed("a,b\n").rows(), 0) << "a header alone";
}

TEST(Csv, TellsTheLineAndTheByteOfMalformedText) {
  const struct {
    std::string text;
    const char* error;
  } cases[] = {
      {"", "t.csv:1:1: the file has no row"},
      {"\xEF\xBB\xBF", "t.csv:1:4: the file has no row"},
      {"a,b\nc\n", "t.csv:2:1: the row has 1 field; 2 are expected, as in the first row"},
      {"a,b\nc,d\ne,f,g\n", "t.csv:3:1: the row has 3 fields; 2 are expected"},
      {"a,b\n\nc,d\n", "t.csv:2:1: the row has 1 field"},
      {"a\nb,c", "t.csv:2:1: the row has 2 fields; 1 is expected"},
      {"a,b\nc,\"d\ne\n", "t.csv:2:3: the quote that starts here has no end"},
      {"a,\"", "t.csv:1:3: the quote that starts here has no end"},
      {"a,\"\"\"", "t.csv:1:3: the quote that starts here has no end"},
      {"a,b\"c\"\n", "t.csv:1:4: a quote inside of a field"},
      {"a, \"b\"\n", "t.csv:1:4: a quote inside of a field"},
      {"\"a\nb\",c\nd,\"e\"f\n", "t.csv:3:6: the field goes on after its last quote"},
      {"\"\"\"a\"\"\" ,b\n", "t.csv:1:8: the field goes on after its last quote"},
      {"a,b\rc,d\r", "t.csv:1:4: a carriage return without a line feed"},
      {"a,b\r", "t.csv:1:4: a carriage return without a line feed"},
      {std::string("a,b\nc\0d,e\n", 10), "t.csv:2:2: there is a zero byte"},
      {std::string("a,\"\0\"\n", 6), "t.csv:1:4: there is a zero byte"},
  };
  for (const auto& test : cases) {
    EXPECT_THAT(ErrorOf(ParseCsv(test.text, {.header = false}, "t.csv")), StartsWith(test.error)) << test.text;
  }
  for (char separator : {'"', '\n', '\r', '\0'}) {
    EXPECT_THAT(ErrorOf(ParseCsv("a", {.separator = separator})), HasSubstr("cannot be the separator"));
  }
}

TEST(Csv, RoundsNumbersToTheNearest) {
  const Csv csv = Parsed("0.1,-3,+5,1e3,.5,7.,007,1e-400,16777217,1E+2\n", {.header = false});
  const Tensor doubles = *csv.NumbersExcept({}, {.dtype = kFloat64});
  EXPECT_THAT(doubles.values<double>(), ElementsAre(0.1, -3., 5., 1000., 0.5, 7., 7., 0., 16777217., 100.));
  const Tensor floats = *csv.NumbersExcept({});
  EXPECT_THAT(floats.values<float>(), ElementsAre(0.1f, -3.f, 5.f, 1000.f, 0.5f, 7.f, 7.f, 0.f, 16777216.f, 100.f));
  const Csv integers = Parsed("9223372036854775807,-9223372036854775808,+1\n", {.header = false});
  EXPECT_THAT(integers.NumbersExcept({}, {.dtype = kInt64})->values<int64_t>(),
              ElementsAre(std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min(), 1));
  EXPECT_THAT(Parsed("255,0\n", {.header = false}).NumbersExcept({}, {.dtype = kUint8})->values<uint8_t>(),
              ElementsAre(255, 0));
}

TEST(Csv, TellsWhichFieldIsNoNumber) {
  const struct {
    const char* field;
    DType dtype;
    const char* error;
  } cases[] = {
      {"x", kFloat32, "a number (float32) is expected, not \"x\""},
      {"1.5.2", kFloat64, "a number (float64) is expected, not \"1.5.2\""},
      {" 1", kFloat64, "expected, not \" 1\""},
      {"1 ", kInt64, "expected, not \"1 \""},
      {"+-1", kFloat64, "expected, not"},
      {"+-1", kInt64, "expected, not"},
      {"+", kFloat64, "expected, not"},
      {"-", kInt64, "expected, not"},
      {"nan", kFloat32, "expected, not \"nan\""},
      {"inf", kFloat32, "expected, not \"inf\""},
      {"0x10", kFloat64, "expected, not"},
      {"1e", kFloat64, "expected, not"},
      {"1,5", kFloat64, "expected, not \"1,5\""},
      {"1.0", kInt64, "a number (int64) is expected, not \"1.0\""},
      {"\x01\n1", kFloat32, "expected, not \"\\x01\\n1\""},
      {"1e999", kFloat64, "\"1e999\" is outside the range of float64"},
      {"-1e39", kFloat32, "\"-1e39\" is outside the range of float32"},
      {"9223372036854775808", kInt64, "is outside the range of int64"},
      {"99999999999999999999999999", kInt64, "\"99999999999999999999999999\" is outside the range of int64"},
      {"256", kUint8, "\"256\" is outside the range of uint8"},
      {"", kFloat32, "\"\" stands for a missing value; NumberOptions::missing may give a number"},
      {"", kInt64, "a number (int64) is expected, and \"\" stands for a missing value"},
  };
  for (const auto& test : cases) {
    const Csv csv = Parsed("first,second\n\"0\",1\n1,\"" + std::string(test.field) + "\"\n");
    const std::string error = ErrorOf(csv.Numbers({"second"}, {.dtype = test.dtype}));
    EXPECT_THAT(error, StartsWith("test.csv:3:4: column \"second\": ")) << test.field;
    EXPECT_THAT(error, HasSubstr(test.error)) << test.field;
  }
  EXPECT_THAT(ErrorOf(Parsed("1,y", {.header = false}).Numbers({1})), HasSubstr("test.csv:1:3: column 1: a number"));
  EXPECT_THAT(ErrorOf(Parsed("\"a\nb\",\"\"\"\"\n", {.header = false}).Numbers({1})), StartsWith("test.csv:2:5: "));
  EXPECT_THAT(ErrorOf(Parsed("\"\"\"\n\",x", {.header = false}).Numbers({1})), StartsWith("test.csv:2:3: "));
  EXPECT_LT(ErrorOf(Parsed("h\n" + std::string(100000, 'x')).Numbers({0})).size(), 200);
  EXPECT_THAT(ErrorOf(Parsed("1\n").Numbers({0}, {.dtype = kBool})), HasSubstr("numbers cannot be bool"));
}

TEST(Csv, FindsColumnsOrTellsWhichThereAre) {
  const Csv csv = Parsed("a,b,b\n1,2,3\n");
  EXPECT_THAT(ErrorOf(csv.Numbers({"c"})), HasSubstr("no column \"c\"; the header has 3: \"a\", \"b\", \"b\""));
  EXPECT_EQ(csv.Numbers({"c"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ErrorOf(csv.Numbers({"b"})), HasSubstr("two columns have the name \"b\"; choose by number"));
  EXPECT_THAT(ErrorOf(csv.Numbers({3})), HasSubstr("there is no column 3; the file has columns 0 to 2"));
  EXPECT_THAT(ErrorOf(csv.NumbersExcept({-1})), HasSubstr("there is no column -1"));
  EXPECT_THAT(ErrorOf(Parsed("1\n", {.header = false}).Categories("a")), HasSubstr("read without a header"));
  EXPECT_THAT(csv.Numbers({2})->values<float>(), ElementsAre(3.f));
}

TEST(Csv, GivesMissingValuesANumberIfOneIsGiven) {
  const Csv csv = Parsed("1,?,3\n,\"\",-1\n", {.header = false, .missing_marks = {"", "?"}});
  const Tensor nan = *csv.NumbersExcept({}, {.missing = std::nan("")});
  for (int i : {1, 3, 4}) EXPECT_TRUE(std::isnan(nan.values<float>()[i])) << i;
  for (int i : {0, 2, 5}) EXPECT_FALSE(std::isnan(nan.values<float>()[i])) << i;
  EXPECT_THAT(csv.NumbersExcept({}, {.dtype = kInt64, .missing = -7})->values<int64_t>(),
              ElementsAre(1, -7, 3, -7, -7, -1));
  const double none = std::nan(""), infinite = std::numeric_limits<double>::infinity();
  const std::pair<DType, double> wrong[] = {{kInt64, none}, {kInt64, infinite}, {kInt64, 0x1p63}, {kInt64, 0.5},
                                            {kUint8, -1},   {kUint8, 256},      {kFloat32, 1e39}};
  for (const auto& [dtype, number] : wrong) {
    EXPECT_THAT(ErrorOf(csv.NumbersExcept({}, {.dtype = dtype, .missing = number})), HasSubstr("does not have"));
  }
  EXPECT_TRUE(csv.NumbersExcept({}, {.dtype = kInt64, .missing = -0x1p63}).ok());
  EXPECT_TRUE(csv.NumbersExcept({}, {.missing = infinite}).ok());
  EXPECT_TRUE(csv.NumbersExcept({}, {.missing = -double{std::numeric_limits<float>::max()}}).ok());
}

TEST(Csv, MakesCategoriesIntegersInAKnownOrder) {
  const Csv csv = Parsed("color\nred\ngreen\nred\nblue\n");
  const Categories sorted = *csv.Categories("color");
  EXPECT_EQ(sorted.ids.type().ToString(), "int32[4]");
  EXPECT_THAT(sorted.names, ElementsAre("blue", "green", "red"));
  EXPECT_THAT(sorted.ids.values<int32_t>(), ElementsAre(2, 1, 2, 0));
  const Categories appearing = *csv.Categories("color", {.order = CategoryOptions::Order::kAppearance});
  EXPECT_THAT(appearing.names, ElementsAre("red", "green", "blue"));
  EXPECT_THAT(appearing.ids.values<int32_t>(), ElementsAre(0, 1, 0, 2));
}

TEST(Csv, MapsATestFileWithTheCategoriesOfTheTrainingFile) {
  const Categories train = *Parsed("color\nred\ngreen\n").Categories(0);
  const Csv test = Parsed("color\nred\nblue\nNA\n", {.missing_marks = {"NA"}});
  EXPECT_THAT(ErrorOf(test.Categories(0, {.names = train.names})),
              StartsWith("test.csv:3:1: column \"color\": \"blue\" is none of the 2 categories"));
  EXPECT_THAT(ErrorOf(test.Categories(0, {.names = train.names, .unknown = 2})),
              StartsWith("test.csv:4:1: column \"color\": a category is expected, and \"NA\" stands for a missing"));
  const Categories mapped = *test.Categories(0, {.names = train.names, .unknown = 2, .missing = -1});
  EXPECT_THAT(mapped.ids.values<int32_t>(), ElementsAre(1, 2, -1));
  EXPECT_EQ(mapped.names, train.names);
  EXPECT_THAT(ErrorOf(test.Categories(0, {.names = {"a", "a"}})), HasSubstr("names has \"a\" twice"));
}

TEST(Csv, ReadsRegularFilesUpToALimit) {
  const std::string path = ::testing::TempDir() + "/iris.csv";
  std::ofstream(path, std::ios::binary) << kIris;
  const absl::StatusOr<Csv> csv = ReadCsv(path);
  ASSERT_TRUE(csv.ok()) << csv.status();
  EXPECT_EQ(TextOf(*csv), TextOf(Parsed(kIris)));
  EXPECT_THAT(ErrorOf(csv->Numbers({"species"})), HasSubstr("iris.csv:2:9: column \"species\": a number"));
  EXPECT_THAT(ErrorOf(ReadCsv(path, {.max_bytes = 20})), HasSubstr("iris.csv: the file has more than the 20 bytes"));
  const std::string pipe = ::testing::TempDir() + "/pipe.csv";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(ErrorOf(ReadCsv(pipe)), HasSubstr("pipe.csv: this is not a regular file"));
  EXPECT_EQ(ReadCsv("/none.csv").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace gradweave::data
