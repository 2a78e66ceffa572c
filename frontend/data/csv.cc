// This reader exists because Debian's two CSV libraries are not sufficient: Fast C++ CSV Parser
// fixes the number of columns when it is compiled and ends fields at line ends in quotes, and
// libcsv gives errors no place.
#include "gradweave/frontend/data/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>
#include <type_traits>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/charconv.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave::data {
namespace {

constexpr int64_t kMostBytes = std::numeric_limits<uint32_t>::max();

// Returns a text from a file for an error: on one line, and not long.
std::string Quoted(absl::string_view text) {
  constexpr size_t kMost = 40;
  return absl::StrCat("\"", PrintableText(text.substr(0, kMost)), text.size() > kMost ? "..." : "", "\"");
}

// Returns "path:line:byte: " for a position in the file's bytes.
std::string PlaceOf(absl::string_view source, absl::string_view bytes, size_t position) {
  const absl::string_view before = bytes.substr(0, position);
  const size_t line_begin = before.rfind('\n') == before.npos ? 0 : before.rfind('\n') + 1;
  return absl::StrCat(source, ":", std::count(before.begin(), before.end(), '\n') + 1, ":", position - line_begin + 1,
                      ": ");
}

enum class Parsed { kOk, kNoNumber, kOutOfRange };

// Reads all of the text as a decimal number. Numbers that are too small for a floating dtype become
// 0.
template <typename T>
Parsed ParseNumber(absl::string_view text, T& number) {
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  const char* const end = text.data() + text.size();
  if constexpr (std::is_floating_point_v<T>) {
    // "inf" and "nan" are not accepted: they would spread through a training without an error.
    if (text.find_first_not_of("0123456789.eE+-") != text.npos) return Parsed::kNoNumber;
    const absl::from_chars_result result = absl::from_chars(text.data(), end, number);
    if (result.ptr != end || result.ec == std::errc::invalid_argument) return Parsed::kNoNumber;
    return result.ec == std::errc::result_out_of_range && std::abs(number) > 1 ? Parsed::kOutOfRange : Parsed::kOk;
  } else {
    const std::from_chars_result result = std::from_chars(text.data(), end, number);
    if (result.ptr != end || result.ec == std::errc::invalid_argument) return Parsed::kNoNumber;
    return result.ec == std::errc() ? Parsed::kOk : Parsed::kOutOfRange;
  }
}

// Returns true if the dtype has this number.
bool Holds(DType dtype, double number) {
  return VisitDType(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_floating_point_v<T>) {
      return !std::isfinite(number) || std::abs(number) <= std::numeric_limits<T>::max();
    } else {
      // The double of the largest int64 is 2^63, which is one too large.
      return number >= static_cast<double>(std::numeric_limits<T>::min()) &&
             number < std::ldexp(1.0, std::numeric_limits<T>::digits) && number == std::floor(number);
    }
  });
}

}  // namespace

// Divides the text into fields, in one pass.
class CsvParser {
 public:
  CsvParser(std::string text, const CsvOptions& options, const std::string& source) : options_(options) {
    csv_.source_ = source;
    csv_.text_ = std::move(text);
    csv_.missing_marks_ = options.missing_marks;
  }

  absl::StatusOr<Csv> Parse() {
    const std::string& text = csv_.text_;
    const char separator = options_.separator;
    if (separator == '"' || separator == '\r' || separator == '\n' || separator == '\0') {
      return absl::InvalidArgumentError(
          absl::StrCat(csv_.source_, ": a quote, a line end or a zero byte cannot be the separator"));
    }
    if (static_cast<int64_t>(text.size()) > kMostBytes) {
      return absl::InvalidArgumentError(absl::StrCat(csv_.source_, ": the text has more than 2^32 - 1 bytes"));
    }
    if (const size_t zero = text.find('\0'); zero != text.npos) {
      return Error(zero, "there is a zero byte, so this is not text");
    }
    if (absl::string_view(text).substr(0, 3) == "\xEF\xBB\xBF") at_ = 3;
    if (at_ == text.size()) return Error(at_, "the file has no row; at least one is expected");
    bool header = options_.header;
    while (at_ < text.size()) {
      row_begin_ = at_;
      const size_t first = csv_.fields_.size();
      bool more = true;
      while (more) {
        GW_ASSIGN_OR_RETURN(more, ReadField());
      }
      const auto count = static_cast<int64_t>(csv_.fields_.size() - first);
      if (csv_.columns_ == 0) csv_.columns_ = count;
      if (count != csv_.columns_) {
        return Error(row_begin_,
                     absl::StrCat("the row has ", count, count == 1 ? " field; " : " fields; ", csv_.columns_,
                                  csv_.columns_ == 1 ? " is" : " are", " expected, as in the first row"));
      }
      if (header) {
        for (const Csv::Field& field : csv_.fields_) csv_.names_.emplace_back(csv_.TextOf(field));
        csv_.fields_.clear();
        header = false;
      } else {
        ++csv_.rows_;
      }
    }
    csv_.fields_.shrink_to_fit();
    return std::move(csv_);
  }

 private:
  absl::Status Error(size_t position, absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(PlaceOf(csv_.source_, csv_.text_, position), message));
  }

  // Reads a field and the separator or line end after it. Returns false if the row ends with the
  // field.
  absl::StatusOr<bool> ReadField() {
    const std::string& text = csv_.text_;
    size_t begin = at_, end = at_;
    if (at_ < text.size() && text[at_] == '"') {
      GW_RETURN_IF_ERROR(ReadQuoted(begin, end));
    } else {
      while (at_ < text.size() && text[at_] != options_.separator && text[at_] != '\n' && text[at_] != '\r') {
        if (text[at_] == '"') return Error(at_, "a quote inside of a field that does not start with one");
        ++at_;
      }
      end = at_;
      if (options_.trim) {
        while (begin < end && (text[begin] == ' ' || text[begin] == '\t')) ++begin;
        while (begin < end && (text[end - 1] == ' ' || text[end - 1] == '\t')) --end;
      }
    }
    csv_.fields_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end - begin)});
    if (at_ == text.size()) return false;
    if (text[at_] == options_.separator) {
      ++at_;
      return true;
    }
    if (text[at_] == '\r') {
      if (at_ + 1 == text.size() || text[at_ + 1] != '\n') {
        return Error(at_, "a carriage return without a line feed after it; rows end with CR LF or LF");
      }
      ++at_;
    }
    ++at_;
    return false;
  }

  // Reads a field in quotes.
  absl::Status ReadQuoted(size_t& begin, size_t& end) {
    const std::string& text = csv_.text_;
    const size_t quote = at_;
    begin = ++at_;
    bool is_doubled = false;
    while (true) {
      end = text.find('"', at_);
      if (end == text.npos) return Error(quote, "the quote that starts here has no end");
      at_ = end + 1;
      if (at_ == text.size() || text[at_] != '"') break;
      is_doubled = true;
      ++at_;
    }
    if (at_ < text.size() && text[at_] != options_.separator && text[at_] != '\n' && text[at_] != '\r') {
      return Error(at_, "the field goes on after its last quote; a separator or a line end is expected");
    }
    if (is_doubled) {
      csv_.undoubled_[static_cast<uint32_t>(begin)] =
          absl::StrReplaceAll(absl::string_view(text).substr(begin, end - begin), {{"\"\"", "\""}});
    }
    return absl::OkStatus();
  }

  const CsvOptions& options_;
  Csv csv_;
  size_t at_ = 0, row_begin_ = 0;
};

absl::StatusOr<Csv> ParseCsv(std::string text, const CsvOptions& options, const std::string& source) try {
  return CsvParser(std::move(text), options, source).Parse();
}
GW_CATCH_OUT_OF_MEMORY("ParseCsv")

absl::StatusOr<Csv> ReadCsv(const std::string& path, const CsvOptions& options) try {
  GW_ASSIGN_OR_RETURN(std::string text, ReadInputFile(path, std::min(options.max_bytes, kMostBytes)));
  return ParseCsv(std::move(text), options, path);
}
GW_CATCH_OUT_OF_MEMORY("ReadCsv")

absl::string_view Csv::TextOf(const Field& field) const {
  const absl::string_view text = absl::string_view(text_).substr(field.begin, field.size);
  // A field contains quotes only if they are doubled.
  if (text.find('"') == text.npos) return text;
  return undoubled_.find(field.begin)->second;
}

bool Csv::IsMissing(absl::string_view text) const {
  return std::find(missing_marks_.begin(), missing_marks_.end(), text) != missing_marks_.end();
}

absl::Status Csv::FieldError(int64_t row, int64_t column, absl::string_view message) const {
  const std::string name = names_.empty() ? absl::StrCat(column) : Quoted(names_[column]);
  return absl::InvalidArgumentError(
      absl::StrCat(PlaceOf(source_, text_, fields_[row * columns_ + column].begin), "column ", name, ": ", message));
}

absl::StatusOr<int64_t> Csv::Find(const CsvColumn& column) const {
  if (const int* number = std::get_if<int>(&column.id_)) {
    if (*number >= 0 && *number < columns_) return *number;
    return absl::NotFoundError(
        absl::StrCat(source_, ": there is no column ", *number, "; the file has columns 0 to ", columns_ - 1));
  }
  const std::string& name = *std::get_if<std::string>(&column.id_);
  const auto found = std::find(names_.begin(), names_.end(), name);
  if (found == names_.end()) {
    if (names_.empty()) {
      return absl::NotFoundError(absl::StrCat(source_, ": there is no column ", Quoted(name),
                                              ": it was read without a header, so columns have numbers alone"));
    }
    std::string all;
    for (const std::string& other : names_) {
      absl::StrAppend(&all, all.empty() ? "" : ", ", Quoted(other));
      if (all.size() > 300) break;
    }
    return absl::NotFoundError(
        absl::StrCat(source_, ": there is no column ", Quoted(name), "; the header has ", columns_, ": ", all));
  }
  if (std::find(found + 1, names_.end(), name) != names_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source_, ": two columns have the name ", Quoted(name), "; choose by number"));
  }
  return found - names_.begin();
}

absl::StatusOr<Tensor> Csv::Numbers(absl::Span<const CsvColumn> columns, const NumberOptions& options) const {
  std::vector<int64_t> numbers;
  for (const CsvColumn& column : columns) {
    GW_ASSIGN_OR_RETURN(const int64_t number, Find(column));
    numbers.push_back(number);
  }
  return NumbersOf(numbers, options);
}

absl::StatusOr<Tensor> Csv::NumbersExcept(absl::Span<const CsvColumn> columns, const NumberOptions& options) const {
  absl::flat_hash_set<int64_t> left_out;
  for (const CsvColumn& column : columns) {
    GW_ASSIGN_OR_RETURN(const int64_t number, Find(column));
    left_out.insert(number);
  }
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < columns_; ++i) {
    if (!left_out.contains(i)) numbers.push_back(i);
  }
  return NumbersOf(numbers, options);
}

absl::StatusOr<Tensor> Csv::NumbersOf(absl::Span<const int64_t> columns, const NumberOptions& options) const {
  const absl::string_view dtype_name = DTypeName(options.dtype);
  if (!kNumeric.Contains(options.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat(source_, ": numbers cannot be ", dtype_name,
                     options.dtype == kBool ? "; read uint8 or categories" : "; they can be ",
                     options.dtype == kBool ? "" : kNumeric.ToString()));
  }
  if (options.missing.has_value() && !Holds(options.dtype, *options.missing)) {
    return absl::InvalidArgumentError(absl::StrCat(source_, ": the number for missing values is ", *options.missing,
                                                   ", which ", dtype_name, " does not have"));
  }
  const auto width = static_cast<int64_t>(columns.size());
  GW_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Create(options.dtype, {rows_, width}));
  absl::Status status = VisitDType(options.dtype, [&](auto zero) -> absl::Status {
    using T = decltype(zero);
    if constexpr (!std::is_same_v<T, bool>) {
      const T missing = options.missing.has_value() ? static_cast<T>(*options.missing) : T(0);
      T* to = tensor.mutable_data<T>();
      for (int64_t row = 0; row < rows_; ++row) {
        for (int64_t column : columns) {
          const absl::string_view field = text(row, column);
          T& number = *to++;
          if (IsMissing(field)) {
            if (options.missing.has_value()) {
              number = missing;
              continue;
            }
            return FieldError(row, column,
                              absl::StrCat("a number (", dtype_name, ") is expected, and ", Quoted(field),
                                           " stands for a missing value; NumberOptions::missing may give a number"));
          }
          switch (ParseNumber(field, number)) {
            case Parsed::kOk:
              break;
            case Parsed::kNoNumber:
              return FieldError(row, column,
                                absl::StrCat("a number (", dtype_name, ") is expected, not ", Quoted(field)));
            case Parsed::kOutOfRange:
              return FieldError(row, column, absl::StrCat(Quoted(field), " is outside the range of ", dtype_name));
          }
        }
      }
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return tensor;
}

absl::StatusOr<Categories> Csv::Categories(const CsvColumn& column, const CategoryOptions& options) const {
  GW_ASSIGN_OR_RETURN(const int64_t number, Find(column));
  data::Categories result{Tensor(), options.names};
  absl::flat_hash_map<absl::string_view, int32_t> ids;
  if (options.names.empty()) {
    std::vector<absl::string_view> found;
    for (int64_t row = 0; row < rows_; ++row) {
      const absl::string_view field = text(row, number);
      if (!IsMissing(field) && ids.try_emplace(field, 0).second) found.push_back(field);
    }
    if (options.order == CategoryOptions::Order::kSorted) std::sort(found.begin(), found.end());
    ids.clear();
    for (absl::string_view name : found) result.names.emplace_back(name);
  }
  for (const std::string& name : result.names) {
    if (!ids.try_emplace(name, static_cast<int32_t>(ids.size())).second) {
      return absl::InvalidArgumentError(absl::StrCat(source_, ": CategoryOptions::names has ", Quoted(name), " twice"));
    }
  }
  GW_ASSIGN_OR_RETURN(result.ids, Tensor::Create(kInt32, {rows_}));
  int32_t* to = result.ids.mutable_data<int32_t>();
  for (int64_t row = 0; row < rows_; ++row) {
    const absl::string_view field = text(row, number);
    const auto found = ids.find(field);
    std::optional<int32_t> id;
    if (IsMissing(field)) {
      id = options.missing;
      if (!id.has_value()) {
        return FieldError(row, number,
                          absl::StrCat("a category is expected, and ", Quoted(field),
                                       " stands for a missing value; CategoryOptions::missing may give an integer"));
      }
    } else {
      id = found != ids.end() ? found->second : options.unknown;
      if (!id.has_value()) {
        return FieldError(row, number,
                          absl::StrCat(Quoted(field), " is none of the ", result.names.size(),
                                       " categories; CategoryOptions::unknown may give an integer"));
      }
    }
    to[row] = *id;
  }
  return result;
}

}  // namespace gradweave::data
