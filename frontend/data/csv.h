// Tables of comma-separated values: numbers and categories by column.
#ifndef GRADWEAVE_FRONTEND_DATA_CSV_H_
#define GRADWEAVE_FRONTEND_DATA_CSV_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {

// Options of ReadCsv.
struct CsvOptions {
  bool header = true;  // True if the first row has the columns' names.
  // The character between fields, such as ',', ';' or a tab. It must not be a quote or a line end.
  char separator = ',';
  // Removes spaces and tabs around fields that have no quotes. RFC 4180 keeps them.
  bool trim = false;
  // Texts of fields without a value, such as "NA" and "?" in some files.
  std::vector<std::string> missing_marks = {""};
  int64_t max_bytes = int64_t{1} << 30;  // At most 2^32 - 1.
};

// A column: its name in the header, or its number, which counts from 0.
class CsvColumn {
 public:
  CsvColumn(const char* name) : id_(std::string(name)) {}  // NOLINT
  CsvColumn(std::string name) : id_(std::move(name)) {}    // NOLINT
  CsvColumn(int number) : id_(number) {}                   // NOLINT

 private:
  friend class Csv;
  std::variant<int, std::string> id_;
};

// Options of Csv::Numbers.
struct NumberOptions {
  DType dtype = kFloat32;  // Not bool.
  // The number for fields without a value, which may be NaN if the dtype is floating. Without it
  // such a field is an error.
  std::optional<double> missing = {};
};

// Options of Csv::Categories.
struct CategoryOptions {
  // The order of the categories: by their bytes, or as they first appear.
  enum class Order { kSorted, kAppearance };
  Order order = Order::kSorted;
  // The categories, such as those of the training file. Empty: those of this file.
  std::vector<std::string> names = {};
  // The integer for texts that are not in `names`. Without it such a text is an error.
  std::optional<int32_t> unknown = {};
  // The integer for fields without a value. Without it such a field is an error.
  std::optional<int32_t> missing = {};
};

// A column whose texts were replaced by integers.
struct Categories {
  Tensor ids;                      // int32 [rows]: indices of `names`.
  std::vector<std::string> names;  // The text of each integer.
};

// A table in memory.
//
//   GW_ASSIGN_OR_RETURN(gw::data::Csv table, gw::data::ReadCsv("iris.csv"));
//   GW_ASSIGN_OR_RETURN(gw::Tensor features, table.NumbersExcept({"species"}));  // float32 [rows, 4]
//   GW_ASSIGN_OR_RETURN(gw::data::Categories species, table.Categories("species"));
//
// Errors are one line with the file, the line and the byte in the line, both from 1:
// `iris.csv:7:13: column "petal_width": a number (float32) is expected, not "x"`.
class Csv {
 public:
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  // The header's names; empty without a header.
  const std::vector<std::string>& names() const { return names_; }
  // Returns a field's text, without its quotes; 0 <= row < rows(), 0 <= column < columns().
  absl::string_view text(int64_t row, int64_t column) const { return TextOf(fields_[row * columns_ + column]); }

  // Returns the columns as an array [rows, number of columns]. A number is a decimal number
  // (RFC 8259, section 6; a leading '+', leading zeros and a missing digit on one side of the point
  // are allowed too), rounded to the nearest of the dtype. Returns NotFound for an unknown column,
  // and InvalidArgument for a name that two columns have, for a field that is not a number or has
  // no value, for a number outside the dtype's range, and for a dtype that is not numeric or a
  // number for missing values that does not fit the dtype.
  absl::StatusOr<Tensor> Numbers(absl::Span<const CsvColumn> columns, const NumberOptions& options = {}) const;
  // Returns all other columns, as Numbers does: the features, if the given columns are the targets.
  absl::StatusOr<Tensor> NumbersExcept(absl::Span<const CsvColumn> columns, const NumberOptions& options = {}) const;

  // Returns the column's texts as integers. Returns NotFound for an unknown column, and
  // InvalidArgument for a field without a value, for a text that is not among the given names, and
  // for repeated names in the options.
  absl::StatusOr<data::Categories> Categories(const CsvColumn& column, const CategoryOptions& options = {}) const;

 private:
  friend class CsvParser;
  // The range of a field in the text, without the quotes around it.
  struct Field {
    uint32_t begin = 0, size = 0;
  };

  absl::string_view TextOf(const Field& field) const;
  absl::StatusOr<int64_t> Find(const CsvColumn& column) const;
  absl::StatusOr<Tensor> NumbersOf(absl::Span<const int64_t> columns, const NumberOptions& options) const;
  bool IsMissing(absl::string_view text) const;
  absl::Status FieldError(int64_t row, int64_t column, absl::string_view message) const;

  std::string source_;  // The file's path.
  std::string text_;    // The file's bytes.
  // The texts of fields with doubled quotes, with single ones, by the fields' begins.
  absl::flat_hash_map<uint32_t, std::string> undoubled_;
  std::vector<std::string> names_, missing_marks_;
  std::vector<Field> fields_;  // [rows, columns].
  int64_t rows_ = 0, columns_ = 0;
};

// Reads a file of comma-separated values as RFC 4180 defines them: fields in quotes may contain
// separators, line ends and doubled quotes; rows end with CR LF or LF. The file may be compressed
// with gzip, and may start with UTF-8's byte order mark. Returns NotFound if there is no such file,
// and InvalidArgument, with the place in the file, if it is not a regular file or too large, a row
// has more or fewer fields than the first, a quote has no end or is inside of a field without
// quotes, a field goes on after its last quote, there is a zero byte or a lone CR outside of
// quotes, or the file has no rows.
absl::StatusOr<Csv> ReadCsv(const std::string& path, const CsvOptions& options = {});

// Reads text in the same way. Errors start with `source`.
absl::StatusOr<Csv> ParseCsv(std::string text, const CsvOptions& options = {}, const std::string& source = "CSV text");

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_CSV_H_
