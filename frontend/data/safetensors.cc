#include "gradweave/frontend/data/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/data/header_reader.h"
#include "gradweave/frontend/data/npy_format.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::data {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are little-endian, as the format has them");

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMostHeader = 100'000'000;  // The limit of the format's own library.
constexpr size_t kMostDimensions = 64;
// The limit of bytes also limits arrays without elements: about this many bytes each. Some are
// always allowed.
constexpr int64_t kArrayBytes = 512, kFewArrays = 1000;
constexpr char kMetadata[] = "__metadata__";

// A type of elements in files.
struct ElementType {
  absl::string_view code;
  DType dtype;
};
constexpr ElementType kElementTypes[] = {{"F64", kFloat64}, {"F32", kFloat32}, {"I64", kInt64},   {"I32", kInt32},
                                         {"U8", kUint8},    {"BOOL", kBool},   {"F16", kFloat16}, {"BF16", kBFloat16},
                                         {"I8", kInt8},     {"I16", kInt16},   {"U16", kUint16},  {"U32", kUint32},
                                         {"U64", kUint64}};

struct Entry {
  std::string name;
  const ElementType* type = nullptr;
  std::vector<int64_t> sizes;
  int64_t elements = 0, begin = 0, end = 0;
};

// Reads the header: JSON of two levels, so the parser uses no recursion.
class HeaderParser : private HeaderReader {
 public:
  HeaderParser(absl::string_view text, size_t most_arrays) : HeaderReader(text), most_arrays_(most_arrays) {}

  absl::StatusOr<std::vector<Entry>> Parse() {
    std::vector<Entry> entries;
    absl::flat_hash_set<std::string> names;
    if (!Take('{')) return Expected("{");
    for (bool more = !Take('}'); more;) {
      GW_ASSIGN_OR_RETURN(std::string name, ParseText());
      if (!names.insert(name).second) return Error(absl::StrCat("\"", PrintableText(name), "\" is there twice"));
      if (!Take(':')) return Expected(":");
      if (name == kMetadata) {
        GW_RETURN_IF_ERROR(SkipMetadata());
      } else {
        if (entries.size() == most_arrays_)
          return Error(absl::StrCat("it has more arrays than the ", most_arrays_, " for which memory is allowed"));
        entries.push_back({.name = std::move(name)});
        GW_RETURN_IF_ERROR(ParseEntry(entries.back()));
      }
      GW_ASSIGN_OR_RETURN(more, ParseSeparator('}'));
    }
    SkipSpaces();
    if (!rest_.empty()) return Expected("the end");
    return entries;
  }

 private:
  // Takes a comma, and returns true, or the end of the list.
  absl::StatusOr<bool> ParseSeparator(char end) {
    if (Take(',')) return true;
    if (Take(end)) return false;
    return Expected(absl::StrCat(", or ", absl::string_view(&end, 1)));
  }

  absl::StatusOr<uint32_t> ParseCodeUnit() {
    uint32_t unit = 0;
    if (rest_.size() < 4) return Expected("\\u and four digits");
    for (int i = 0; i < 4; ++i) {
      const char c = rest_[i];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return Expected("\\u and four digits");
      unit = 16 * unit + static_cast<uint32_t>(digit);
    }
    rest_.remove_prefix(4);
    return unit;
  }

  // A character in the form after a backslash of RFC 8259, section 7.
  absl::Status ParseEscape(std::string& text) {
    constexpr absl::string_view kLetters = "\"\\/bfnrt", kCharacters = "\"\\/\b\f\n\r\t";
    if (rest_.empty()) return Expected("text with its last quote");
    const char letter = rest_[0];
    rest_.remove_prefix(1);
    if (const size_t at = kLetters.find(letter); at != kLetters.npos) {
      text += kCharacters[at];
      return absl::OkStatus();
    }
    if (letter != 'u') return Expected("a character that JSON has behind a backslash");
    GW_ASSIGN_OR_RETURN(uint32_t code, ParseCodeUnit());
    if (code >= 0xD800 && code < 0xDC00 && rest_.substr(0, 2) == "\\u") {
      rest_.remove_prefix(2);
      GW_ASSIGN_OR_RETURN(const uint32_t low, ParseCodeUnit());
      if (low < 0xDC00 || low > 0xDFFF) return Error("half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (code >= 0xD800 && code < 0xE000) return Error("half of a surrogate pair");
    const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr uint32_t kFirst[] = {0, 0xC0, 0xE0, 0xF0};
    text += static_cast<char>(kFirst[more] | code >> 6 * more);
    for (int i = more - 1; i >= 0; --i) text += static_cast<char>(0x80 | (code >> 6 * i & 0x3F));
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ParseText() {
    if (!Take('"')) return Expected("text in quotes");
    std::string text;
    while (!rest_.empty() && rest_[0] != '"') {
      const char c = rest_[0];
      if (static_cast<unsigned char>(c) < ' ') return Expected("text without control characters");
      rest_.remove_prefix(1);
      if (c != '\\') {
        text += c;
      } else {
        GW_RETURN_IF_ERROR(ParseEscape(text));
      }
    }
    if (rest_.empty()) return Expected("text with its last quote");
    rest_.remove_prefix(1);
    return text;
  }

  // A whole number without a sign, as JSON writes it.
  absl::StatusOr<int64_t> ParseSize() {
    SkipSpaces();
    const size_t digits = std::min(rest_.find_first_not_of("0123456789"), rest_.size());
    if (digits == 0 || (digits > 1 && rest_[0] == '0')) return Expected("a whole number");
    int64_t number = 0;
    for (const char digit : rest_.substr(0, digits)) {
      if (number > (std::numeric_limits<int64_t>::max() - 9) / 10) return Expected("a smaller number");
      number = 10 * number + (digit - '0');
    }
    rest_.remove_prefix(digits);
    return number;
  }

  absl::StatusOr<std::vector<int64_t>> ParseSizes(size_t most) {
    std::vector<int64_t> sizes;
    if (!Take('[')) return Expected("[");
    for (bool more = !Take(']'); more;) {
      if (sizes.size() == most) return Error(absl::StrCat("a list has more than ", most, " numbers"));
      GW_ASSIGN_OR_RETURN(sizes.emplace_back(), ParseSize());
      GW_ASSIGN_OR_RETURN(more, ParseSeparator(']'));
    }
    return sizes;
  }

  // An object of texts.
  absl::Status SkipMetadata() {
    if (!Take('{')) return Expected("{");
    for (bool more = !Take('}'); more;) {
      GW_RETURN_IF_ERROR(ParseText().status());
      if (!Take(':')) return Expected(":");
      GW_RETURN_IF_ERROR(ParseText().status());
      GW_ASSIGN_OR_RETURN(more, ParseSeparator('}'));
    }
    return absl::OkStatus();
  }

  // {"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}
  absl::Status ParseEntry(Entry& entry) {
    const std::string shown = absl::StrCat("array \"", PrintableText(entry.name), "\"");
    bool has_type = false, has_shape = false, has_offsets = false;
    std::vector<int64_t> offsets;
    if (!Take('{')) return Expected("{");
    for (bool more = !Take('}'); more;) {
      GW_ASSIGN_OR_RETURN(const std::string key, ParseText());
      bool* const has = key == "dtype"          ? &has_type
                        : key == "shape"        ? &has_shape
                        : key == "data_offsets" ? &has_offsets
                                                : nullptr;
      if (has == nullptr || *has) return Error(absl::StrCat(shown, " has dtype, shape and data_offsets, each once"));
      *has = true;
      if (!Take(':')) return Expected(":");
      if (has == &has_type) {
        GW_RETURN_IF_ERROR(ParseType(entry, shown));
      } else if (has == &has_shape) {
        GW_ASSIGN_OR_RETURN(entry.sizes, ParseSizes(kMostDimensions));
      } else {
        GW_ASSIGN_OR_RETURN(offsets, ParseSizes(2));
      }
      GW_ASSIGN_OR_RETURN(more, ParseSeparator('}'));
    }
    if (!has_type || !has_shape || offsets.size() != 2) {
      return Error(absl::StrCat(shown, " has dtype, shape and two data_offsets"));
    }
    entry.begin = offsets[0];
    entry.end = offsets[1];
    const std::optional<int64_t> elements = CheckedNumElements(entry.sizes);
    const auto element = static_cast<int64_t>(DTypeSize(entry.type->dtype));
    if (!elements.has_value() || entry.end < entry.begin || *elements > std::numeric_limits<int64_t>::max() / element ||
        *elements * element != entry.end - entry.begin) {
      return Error(absl::StrCat(shown, ", ", entry.type->code, "[", absl::StrJoin(entry.sizes, ","),
                                "], does not have the bytes ", entry.begin, " to ", entry.end));
    }
    entry.elements = *elements;
    return absl::OkStatus();
  }

  absl::Status ParseType(Entry& entry, absl::string_view shown) {
    GW_ASSIGN_OR_RETURN(const std::string code, ParseText());
    for (const ElementType& type : kElementTypes) {
      if (code == type.code) entry.type = &type;
    }
    if (entry.type != nullptr) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(shown, " has elements of type ", PrintableText(code.substr(0, 20)),
                     ", which cannot be read; BOOL, F16, BF16, F32, F64, I8 to I64 and U8 to U64 can"));
  }

  const size_t most_arrays_;
};

// Checks that the arrays follow each other from 0 to `bytes`, in any order of the header.
absl::Status CheckPlaces(const std::vector<Entry>& entries, int64_t bytes) {
  std::vector<const Entry*> sorted;
  for (const Entry& entry : entries) sorted.push_back(&entry);
  std::sort(sorted.begin(), sorted.end(), [](const Entry* a, const Entry* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  int64_t end = 0;
  for (const Entry* entry : sorted) {
    if (entry->begin != end) {
      return absl::InvalidArgumentError(absl::StrCat("array \"", PrintableText(entry->name), "\" begins at byte ",
                                                     entry->begin, ", and the array before it ends at ", end));
    }
    end = entry->end;
  }
  if (end == bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the arrays have ", end, " bytes, and the file has ", bytes, " behind its header"));
}

absl::Status ReadBytes(FILE* stream, void* to, int64_t bytes) {
  if (bytes == 0 || std::fread(to, 1, bytes, stream) == static_cast<size_t>(bytes)) return absl::OkStatus();
  return absl::InvalidArgumentError("the file cannot be read to its end");
}

// The dtype of the array that is built.
DType BuiltDType(const Entry& entry, HalfArrays halves) {
  return IsHalf(entry.type->dtype) && halves == HalfArrays::kToFloat32 ? kFloat32 : entry.type->dtype;
}

absl::StatusOr<Tensor> ReadElements(FILE* stream, const Entry& entry, HalfArrays halves) {
  GW_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Create(entry.type->dtype, entry.sizes));
  GW_RETURN_IF_ERROR(ReadBytes(stream, tensor.mutable_raw_data(), entry.end - entry.begin));
  const auto* const bytes = static_cast<const uint8_t*>(tensor.raw_data());
  if (tensor.dtype() == kBool && std::any_of(bytes, bytes + entry.elements, [](uint8_t byte) { return byte > 1; })) {
    return absl::InvalidArgumentError(
        absl::StrCat("array \"", PrintableText(entry.name), "\" has bools other than 0 and 1"));
  }
  const DType built = BuiltDType(entry, halves);
  return built == tensor.dtype() ? tensor : tensor.Cast(built);
}

// True if the text is UTF-8 (RFC 3629).
bool IsUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(at < text.size() ? text[at] : 0); };
    const unsigned first = byte(i);
    const size_t more = first < 0x80                    ? 0
                        : first >= 0xC2 && first < 0xE0 ? 1
                        : first >= 0xE0 && first < 0xF0 ? 2
                        : first >= 0xF0 && first < 0xF5 ? 3
                                                        : 4;
    if (more == 4) return false;
    for (size_t j = 1; j <= more; ++j) {
      if ((byte(i + j) & 0xC0) != 0x80) return false;
    }
    // Too long for the character, a surrogate, or beyond the last character.
    const unsigned second = byte(i + 1);
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) ||
        (first == 0xF4 && second > 0x8F)) {
      return false;
    }
    i += more + 1;
  }
  return true;
}

absl::StatusOr<std::vector<NamedArray>> ReadArrays(const InputFile& file, int64_t max_bytes, HalfArrays halves) {
  uint64_t header_bytes = 0;
  if (file.size < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the file is truncated: it has ", file.size, " bytes"));
  }
  GW_RETURN_IF_ERROR(ReadBytes(file.stream.get(), &header_bytes, kLengthBytes));
  if (header_bytes > static_cast<uint64_t>(std::min(kMostHeader, file.size - kLengthBytes))) {
    return absl::InvalidArgumentError(absl::StrCat("this is not a file of safetensors: its header would have ",
                                                   header_bytes, " bytes, and the file has ", file.size));
  }
  std::string header(header_bytes, '\0');
  GW_RETURN_IF_ERROR(ReadBytes(file.stream.get(), header.data(), static_cast<int64_t>(header_bytes)));
  // JSON is UTF-8 (RFC 8259, section 8.1). Names that are not could not be written again.
  if (!IsUtf8(header)) return absl::InvalidArgumentError("the header is wrong: it is not UTF-8");
  const auto most_arrays = static_cast<size_t>(std::max(max_bytes / kArrayBytes, kFewArrays));
  GW_ASSIGN_OR_RETURN(const std::vector<Entry> entries, HeaderParser(header, most_arrays).Parse());
  GW_RETURN_IF_ERROR(CheckPlaces(entries, file.size - kLengthBytes - static_cast<int64_t>(header_bytes)));
  int64_t bytes = 0;
  for (const Entry& entry : entries)
    bytes += entry.elements * static_cast<int64_t>(DTypeSize(BuiltDType(entry, halves)));
  if (bytes > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the arrays need ", bytes, " bytes, and ", max_bytes, " are allowed"));
  }
  std::vector<NamedArray> arrays;
  for (const Entry& entry : entries) {
    const int64_t place = kLengthBytes + static_cast<int64_t>(header_bytes) + entry.begin;
    if (std::fseek(file.stream.get(), place, SEEK_SET) != 0) {
      return absl::InvalidArgumentError("the file cannot be read to its end");
    }
    GW_ASSIGN_OR_RETURN(Tensor tensor, ReadElements(file.stream.get(), entry, halves));
    arrays.emplace_back(entry.name, std::move(tensor));
  }
  return arrays;
}

absl::string_view CodeOf(DType dtype) {
  for (const ElementType& type : kElementTypes) {
    if (type.dtype == dtype) return type.code;
  }
  return "";
}

std::string JsonText(absl::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < ' ') {
      absl::StrAppendFormat(&json, "\\u%04x", static_cast<int>(c));
    } else {
      json += c;
    }
  }
  return json + '"';
}

}  // namespace

absl::StatusOr<std::vector<NamedArray>> ReadSafetensors(const std::string& path, int64_t max_bytes,
                                                        HalfArrays halves) try {
  GW_ASSIGN_OR_RETURN(const InputFile file, OpenInputFile(path));
  absl::StatusOr<std::vector<NamedArray>> arrays = ReadArrays(file, max_bytes, halves);
  if (arrays.ok()) return arrays;
  return absl::Status(arrays.status().code(), absl::StrCat(path, ": ", arrays.status().message()));
}
GW_CATCH_OUT_OF_MEMORY("ReadSafetensors")

absl::Status WriteSafetensors(const std::string& path, absl::Span<const NamedArray> arrays) try {
  std::vector<const NamedArray*> order;
  absl::flat_hash_set<absl::string_view> names;
  for (const NamedArray& array : arrays) {
    if (array.name.empty() || array.name == kMetadata || !IsUtf8(array.name) || !names.insert(array.name).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": \"", PrintableText(array.name),
          "\" cannot be the name of an array: names are UTF-8, not empty, not __metadata__, and there once"));
    }
    order.push_back(&array);
  }
  std::stable_sort(order.begin(), order.end(), [](const NamedArray* a, const NamedArray* b) {
    return DTypeSize(a->values.dtype()) > DTypeSize(b->values.dtype());
  });
  std::string header = "{";
  size_t end = 0;
  for (const NamedArray* array : order) {
    const size_t begin = end;
    end += array->values.byte_size();
    absl::StrAppend(&header, begin == 0 && header.size() == 1 ? "" : ",", JsonText(array->name), ":{\"dtype\":\"",
                    CodeOf(array->values.dtype()), "\",\"shape\":[", absl::StrJoin(array->values.sizes(), ","),
                    "],\"data_offsets\":[", begin, ",", end, "]}");
  }
  header += '}';
  header.append((kLengthBytes - header.size() % kLengthBytes) % kLengthBytes, ' ');
  return WriteOutputFile(path, [&](FILE* stream) {
    const uint64_t length = header.size();
    std::fwrite(&length, 1, kLengthBytes, stream);
    std::fwrite(header.data(), 1, header.size(), stream);
    for (const NamedArray* array : order) {
      if (array->values.byte_size() > 0) std::fwrite(array->values.raw_data(), 1, array->values.byte_size(), stream);
    }
    return absl::OkStatus();
  });
}
GW_CATCH_OUT_OF_MEMORY("WriteSafetensors")

}  // namespace gradweave::data
