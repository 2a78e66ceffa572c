#include "gradweave/frontend/data/npy.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/data/header_reader.h"
#include "gradweave/frontend/data/npy_format.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/runtime/model_file/file_pair.h"

namespace gradweave::data {
namespace {

constexpr absl::string_view kMagic("\x93NUMPY", 6);
constexpr bool kLittleEndian = std::endian::native == std::endian::little;
// numpy's limits: of a header that is read, and of the dimensions of an array.
constexpr int64_t kMostHeader = 10000;
constexpr size_t kMostDimensions = 64;

// The type of elements, as numpy writes it after the byte order.
struct ElementType {
  absl::string_view code;
  DType dtype;
};
constexpr ElementType kElementTypes[] = {{"f4", kFloat32}, {"f8", kFloat64}, {"i4", kInt32},   {"i8", kInt64},
                                         {"u1", kUint8},   {"b1", kBool},    {"f2", kFloat16}, {"i1", kInt8},
                                         {"i2", kInt16},   {"u2", kUint16},  {"u4", kUint32},  {"u8", kUint64}};
// numpy has no bfloat16. The package ml_dtypes makes one, which numpy saves as two bytes of any
// meaning.
constexpr absl::string_view kTwoBytes = "V2";

struct Header {
  DType dtype = kFloat32;
  bool swapped = false;  // The elements' bytes are in the other order than this machine's.
  bool fortran_order = false;
  std::vector<int64_t> sizes;
};

// Reads the header, which is a Python dictionary:
// {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser : private HeaderReader {
 public:
  explicit HeaderParser(absl::string_view text) : HeaderReader(text) {}

  absl::StatusOr<Header> Parse() {
    if (!Take('{')) return Expected("{");
    bool has_descr = false, has_order = false, has_shape = false;
    while (!Take('}')) {
      GW_ASSIGN_OR_RETURN(const absl::string_view key, ParseText());
      bool* const has = key == "descr"           ? &has_descr
                        : key == "fortran_order" ? &has_order
                        : key == "shape"         ? &has_shape
                                                 : nullptr;
      if (has == nullptr || *has) return Error("the keys descr, fortran_order and shape are expected, each once");
      *has = true;
      if (!Take(':')) return Expected(":");
      GW_RETURN_IF_ERROR(has == &has_descr ? ParseDescr() : has == &has_order ? ParseOrder() : ParseShape());
      if (Take(',')) continue;
      if (!Take('}')) return Expected(", or }");
      break;
    }
    SkipSpaces();
    if (!rest_.empty()) return Expected("the end");
    if (!has_descr || !has_order || !has_shape) return Error("descr, fortran_order and shape are expected");
    return header_;
  }

 private:
  bool TakeWord(absl::string_view word) {
    SkipSpaces();
    if (rest_.substr(0, word.size()) != word) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  absl::StatusOr<absl::string_view> ParseText() {
    SkipSpaces();
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"')) return Expected("text in quotes");
    const size_t end = rest_.find(rest_[0], 1);
    if (end == rest_.npos) return Expected("text with its last quote");
    const absl::string_view text = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return text;
  }

  absl::Status ParseDescr() {
    SkipSpaces();
    if (!rest_.empty() && rest_[0] == '[') {
      return absl::InvalidArgumentError("arrays of structures cannot be read; save each field as an array");
    }
    GW_ASSIGN_OR_RETURN(const absl::string_view descr, ParseText());
    if (descr.substr(0, 2) == "|O" || descr == "O") {
      return absl::InvalidArgumentError("arrays of Python objects cannot be read; save numbers");
    }
    const absl::string_view order = descr.substr(0, 1), code = descr.substr(order.size());
    if (code == kTwoBytes) {
      return absl::InvalidArgumentError(
          "elements of two bytes without a type cannot be read; save an array of ml_dtypes' bfloat16 with "
          "astype('float32')");
    }
    for (const ElementType& type : kElementTypes) {
      if (code != type.code) continue;
      // Single bytes have no order. numpy writes '|' for them.
      if (order != "<" && order != ">" && (order != "|" || DTypeSize(type.dtype) > 1)) break;
      header_.dtype = type.dtype;
      header_.swapped = DTypeSize(type.dtype) > 1 && (order == "<") != kLittleEndian;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "elements of type '", PrintableText(descr.substr(0, 20)),
        "' cannot be read; floats of 16 to 64 bits, integers of 8 to 64 bits and bool can (convert with astype)"));
  }

  absl::Status ParseOrder() {
    header_.fortran_order = TakeWord("True");
    return header_.fortran_order || TakeWord("False") ? absl::OkStatus() : Expected("True or False");
  }

  absl::Status ParseShape() {
    if (!Take('(')) return Expected("(");
    bool comma = true;
    while (!Take(')')) {
      if (!comma) return Expected(", or )");
      GW_ASSIGN_OR_RETURN(const int64_t size, ParseSize());
      if (header_.sizes.size() == kMostDimensions) {
        return Error(absl::StrCat("there are more than ", kMostDimensions, " dimensions"));
      }
      header_.sizes.push_back(size);
      comma = Take(',');
    }
    // In Python (3) is a number, and (3,) a tuple.
    return header_.sizes.size() == 1 && !comma ? Error("a comma is expected in a shape of one dimension")
                                               : absl::OkStatus();
  }

  absl::StatusOr<int64_t> ParseSize() {
    SkipSpaces();
    const size_t digits = std::min(rest_.find_first_not_of("0123456789"), rest_.size());
    if (digits == 0) return Expected("a size of 0 or more");
    int64_t size = 0;
    for (char digit : rest_.substr(0, digits)) {
      if (size > (std::numeric_limits<int64_t>::max() - (digit - '0')) / 10) return Error("a size is above 2^63 - 1");
      size = size * 10 + (digit - '0');
    }
    rest_.remove_prefix(digits);
    // Python 2 wrote 3L.
    if (!rest_.empty() && rest_[0] == 'L') rest_.remove_prefix(1);
    return size;
  }

  Header header_;
};

template <typename Unsigned>
void SwapBytes(void* elements, int64_t count) {
  auto* const at = static_cast<unsigned char*>(elements);
  for (int64_t i = 0; i < count; ++i) std::reverse(at + i * sizeof(Unsigned), at + (i + 1) * sizeof(Unsigned));
}

// Copies elements from Fortran's order, in which the first axis changes fastest, to row-major
// order.
Tensor FromFortranOrder(const Tensor& from) {
  Tensor to(from.dtype(), from.sizes());
  const int rank = from.rank();
  const int64_t count = from.num_elements();
  const size_t element = DTypeSize(from.dtype());
  absl::InlinedVector<int64_t, 4> strides(rank), index(rank);
  int64_t stride = 1;
  for (int axis = 0; axis < rank; stride *= from.size(axis++)) strides[axis] = stride;
  const auto* source = static_cast<const char*>(from.raw_data());
  auto* target = static_cast<char*>(to.mutable_raw_data());
  int64_t offset = 0;
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(target + i * element, source + offset * element, element);
    for (int axis = rank - 1; axis >= 0; --axis) {
      offset += strides[axis];
      if (++index[axis] < from.size(axis)) break;
      offset -= strides[axis] * from.size(axis);
      index[axis] = 0;
    }
  }
  return to;
}

absl::StatusOr<Tensor> ReadArray(int64_t size, int64_t max_bytes,
                                 absl::FunctionRef<absl::Status(void* to, int64_t bytes)> read) {
  const auto wrong_length = [&](int64_t expected) {
    return absl::InvalidArgumentError(absl::StrCat("the file is ", size < expected ? "truncated" : "too long", ": ",
                                                   expected, " bytes are expected, and it has ", size));
  };
  std::array<unsigned char, 12> start;
  if (size < 10) return wrong_length(10);
  GW_RETURN_IF_ERROR(read(start.data(), 10));
  if (std::memcmp(start.data(), kMagic.data(), kMagic.size()) != 0) {
    return absl::InvalidArgumentError("this is not a file of numpy's array format: it does not start with \\x93NUMPY");
  }
  const int major = start[6], minor = start[7];
  if (major < 1 || major > 3 || minor != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("format version ", major, ".", minor, " cannot be read; 1.0, 2.0 and 3.0 can"));
  }
  int64_t header_size = start[8] | start[9] << 8, header_begin = 10;
  if (major > 1) {
    header_begin = 12;
    if (size < header_begin) return wrong_length(header_begin);
    GW_RETURN_IF_ERROR(read(start.data() + 10, 2));
    header_size |= int64_t{start[10]} << 16 | int64_t{start[11]} << 24;
  }
  if (header_size > kMostHeader) {
    return absl::InvalidArgumentError(
        absl::StrCat("the header has ", header_size, " bytes; at most ", kMostHeader, " are allowed"));
  }
  const int64_t begin = header_begin + header_size;
  if (size < begin) return wrong_length(begin);
  std::string text(header_size, '\0');
  GW_RETURN_IF_ERROR(read(text.data(), header_size));
  GW_ASSIGN_OR_RETURN(const Header header, HeaderParser(text).Parse());

  const std::optional<int64_t> elements = CheckedNumElements(header.sizes);
  const auto element = static_cast<int64_t>(DTypeSize(header.dtype));
  // The header and the elements together have at most 2^63 - 1 bytes.
  max_bytes = std::min(max_bytes, std::numeric_limits<int64_t>::max() - begin);
  if (!elements.has_value() || *elements > max_bytes / element) {
    return absl::InvalidArgumentError(absl::StrCat("an array ", DTypeName(header.dtype), "[",
                                                   absl::StrJoin(header.sizes, ","), "] needs more than the ",
                                                   max_bytes, " bytes allowed"));
  }
  const int64_t bytes = *elements * element;
  if (size - begin != bytes) return wrong_length(begin + bytes);
  GW_ASSIGN_OR_RETURN(Tensor array, Tensor::Create(header.dtype, header.sizes));
  GW_RETURN_IF_ERROR(read(array.mutable_raw_data(), bytes));
  if (header.swapped) {
    if (element == 2) SwapBytes<uint16_t>(array.mutable_raw_data(), *elements);
    if (element == 4) SwapBytes<uint32_t>(array.mutable_raw_data(), *elements);
    if (element == 8) SwapBytes<uint64_t>(array.mutable_raw_data(), *elements);
  }
  if (header.dtype == kBool) {
    const auto* values = static_cast<const unsigned char*>(array.raw_data());
    if (std::any_of(values, values + bytes, [](unsigned char value) { return value > 1; })) {
      return absl::InvalidArgumentError("a bool is neither 0 nor 1");
    }
  }
  return header.fortran_order && array.rank() > 1 ? FromFortranOrder(array) : array;
}

}  // namespace

absl::StatusOr<Tensor> ReadNpyArray(const std::string& source, int64_t size, int64_t max_bytes,
                                    absl::FunctionRef<absl::Status(void* to, int64_t bytes)> read) {
  absl::StatusOr<Tensor> array = ReadArray(size, max_bytes, read);
  if (array.ok()) return array;
  return absl::Status(array.status().code(), absl::StrCat(source, ": ", array.status().message()));
}

absl::StatusOr<std::string> NpyHeader(const Tensor& array) {
  absl::string_view code;
  for (const ElementType& type : kElementTypes) {
    if (type.dtype == array.dtype()) code = type.code;
  }
  if (code.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("numpy's format has no type for ", DTypeName(array.dtype()), "; write array.Cast(gw::kFloat32)"));
  }
  const char* const order = DTypeSize(array.dtype()) == 1 ? "|" : kLittleEndian ? "<" : ">";
  std::string text = absl::StrCat("{'descr': '", order, code, "', 'fortran_order': False, 'shape': (",
                                  absl::StrJoin(array.sizes(), ", "), array.rank() == 1 ? ",), }" : "), }");
  // numpy leaves room for a first axis of 21 digits, and lets the elements begin at a multiple of
  // 64.
  constexpr size_t kMostDigits = 21, kAlignment = 64, kStart = 10;
  if (array.rank() > 0) text.append(kMostDigits - absl::StrCat(array.size(0)).size(), ' ');
  text.append(kAlignment - (kStart + text.size() + 1) % kAlignment, ' ');
  text += '\n';
  const auto size = static_cast<uint16_t>(text.size());
  return absl::StrCat(kMagic, absl::string_view("\1\0", 2),
                      std::string{static_cast<char>(size & 0xFF), static_cast<char>(size >> 8)}, text);
}

absl::StatusOr<Tensor> ReadNpy(const std::string& path, int64_t max_bytes) try {
  GW_ASSIGN_OR_RETURN(const InputFile file, OpenInputFile(path));
  return ReadNpyArray(path, file.size, max_bytes, [&](void* to, int64_t bytes) {
    return bytes == 0 || std::fread(to, 1, bytes, file.stream.get()) == static_cast<size_t>(bytes)
               ? absl::OkStatus()
               : absl::InvalidArgumentError("the file cannot be read to its end");
  });
}
GW_CATCH_OUT_OF_MEMORY("ReadNpy")

absl::Status WriteOutputFile(const std::string& path, absl::FunctionRef<absl::Status(FILE* stream)> write) {
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<FilePair> file, FilePair::Begin(path));
  return file->CommitStream(write);
}

absl::Status WriteNpy(const std::string& path, const Tensor& array) try {
  const absl::StatusOr<std::string> header = NpyHeader(array);
  if (!header.ok()) return absl::Status(header.status().code(), absl::StrCat(path, ": ", header.status().message()));
  return WriteOutputFile(path, [&](FILE* stream) {
    std::fwrite(header->data(), 1, header->size(), stream);
    if (array.byte_size() > 0) std::fwrite(array.raw_data(), 1, array.byte_size(), stream);
    return absl::OkStatus();
  });
}
GW_CATCH_OUT_OF_MEMORY("WriteNpy")

}  // namespace gradweave::data
