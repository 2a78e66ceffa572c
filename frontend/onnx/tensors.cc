// Tensors and dtypes of ONNX files.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <type_traits>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

struct DTypeRow {
  int number;
  const char* name;
  std::optional<DType> dtype;  // Unset for those that Gradweave does not have.
};
constexpr DTypeRow kDTypes[] = {
    {1, "float32", kFloat32},
    {2, "uint8", kUint8},
    {3, "int8", kInt8},
    {4, "uint16", kUint16},
    {5, "int16", kInt16},
    {6, "int32", kInt32},
    {7, "int64", kInt64},
    {8, "string", std::nullopt},
    {9, "bool", kBool},
    {10, "float16", kFloat16},
    {11, "float64", kFloat64},
    {12, "uint32", kUint32},
    {13, "uint64", kUint64},
    {14, "complex64", std::nullopt},
    {15, "complex128", std::nullopt},
    {16, "bfloat16", kBFloat16},
    {17, "float8e4m3fn", std::nullopt},
    {18, "float8e4m3fnuz", std::nullopt},
    {19, "float8e5m2", std::nullopt},
    {20, "float8e5m2fnuz", std::nullopt},
    {21, "uint4", std::nullopt},
    {22, "int4", std::nullopt},
    {23, "float4e2m1", std::nullopt},
};

// Closes a file descriptor.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

absl::Status SystemError(absl::string_view location) {
  return absl::ErrnoToStatus(errno, absl::StrCat("its external data '", location, "' cannot be read"));
}

// Opens a regular file inside of the folder. No part of the path may be a link or lead out of the
// folder.
absl::Status OpenInside(const std::string& folder, const std::string& location, Descriptor& file) {
  const std::vector<std::string> parts = absl::StrSplit(location, '/');
  const bool leaves = std::any_of(parts.begin(), parts.end(), [](const std::string& part) {
    return part.empty() || part == "." || part == ".." || part.find('\0') != std::string::npos;
  });
  if (leaves) {
    return absl::InvalidArgumentError(absl::StrCat(
        "its external data is in '", location, "'; it has to be a file in the model's folder, or in one inside of it"));
  }
  Descriptor at;
  at.fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (at.fd < 0) return SystemError(location);
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (last ? 0 : O_DIRECTORY);
    const int next = openat(at.fd, parts[i].c_str(), flags);
    if (next < 0) {
      if (errno != ELOOP) return SystemError(location);
      return absl::InvalidArgumentError(
          absl::StrCat("its external data '", location, "' is behind a symbolic link, and links are not followed"));
    }
    close(at.fd);
    at.fd = next;
  }
  std::swap(file.fd, at.fd);
  return absl::OkStatus();
}

absl::Status ReadExternal(const proto::Tensor& message, const std::string& folder, Tensor& tensor) {
  std::string location;
  uint64_t offset = 0, length = tensor.byte_size();
  for (const proto::Entry& entry : message.external_data()) {
    if (entry.key() == "location") location = entry.value();
    const bool is_number = entry.key() == "offset" || entry.key() == "length";
    uint64_t& number = entry.key() == "offset" ? offset : length;
    if (is_number && !absl::SimpleAtoi(entry.value(), &number)) {
      return absl::InvalidArgumentError(absl::StrCat("the ", entry.key(), " of its external data is not a number"));
    }
  }
  if (folder.empty()) {
    return absl::InvalidArgumentError("its elements are in another file, and bytes without a folder have none");
  }
  if (length != tensor.byte_size()) {
    return absl::InvalidArgumentError(absl::StrCat("its external data has ", length, " bytes, and ",
                                                   tensor.type().ToString(), " needs ", tensor.byte_size()));
  }
  Descriptor file;
  GW_RETURN_IF_ERROR(OpenInside(folder, location, file));
  struct stat info;
  if (fstat(file.fd, &info) != 0) return SystemError(location);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("its external data '", location, "' is not a regular file"));
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  if (offset > size || length > size - offset) {
    return absl::InvalidArgumentError(absl::StrCat("its external data '", location, "' has ", size,
                                                   " bytes, and the tensor is at ", offset, " with ", length));
  }
  auto* to = static_cast<char*>(tensor.mutable_raw_data());
  while (length > 0) {
    const ssize_t got = pread(file.fd, to, length, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(location);
    if (got == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("its external data '", location, "' became shorter while it was read"));
    }
    to += got;
    offset += static_cast<uint64_t>(got);
    length -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

// Copies elements from the field that holds them one by one.
template <typename Field>
absl::Status CopyField(const Field& field, Tensor& tensor) {
  if (field.size() != tensor.num_elements()) {
    return absl::InvalidArgumentError(
        absl::StrCat("it is ", tensor.type().ToString(), " and has ", field.size(), " elements"));
  }
  VisitAnyDType(tensor.dtype(), [&](auto zero) {
    using T = decltype(zero);
    // Halves are read as their bits.
    if constexpr (std::is_arithmetic_v<T>) {
      std::transform(field.begin(), field.end(), tensor.mutable_data<T>(),
                     [](auto element) { return static_cast<T>(element); });
    }
  });
  return absl::OkStatus();
}

absl::Status ReadElements(const proto::Tensor& message, const std::string& folder, Tensor& tensor) {
  if (message.data_location() == 1) return ReadExternal(message, folder, tensor);
  if (message.has_raw_data()) {
    if (message.raw_data().size() != tensor.byte_size()) {
      return absl::InvalidArgumentError(absl::StrCat("it is ", tensor.type().ToString(), " and has ",
                                                     message.raw_data().size(), " bytes in place of ",
                                                     tensor.byte_size()));
    }
    if (tensor.byte_size() > 0) std::memcpy(tensor.mutable_raw_data(), message.raw_data().data(), tensor.byte_size());
    return absl::OkStatus();
  }
  switch (tensor.dtype()) {
    case kFloat32:
      return CopyField(message.float_data(), tensor);
    case kFloat64:
      return CopyField(message.double_data(), tensor);
    case kInt64:
      return CopyField(message.int64_data(), tensor);
    case kUint32:
    case kUint64:
      return CopyField(message.uint64_data(), tensor);
    case kFloat16:
    case kBFloat16: {
      // The bits of each.
      Tensor bits = Tensor::View(kUint16, tensor.sizes(), tensor.mutable_raw_data());
      return CopyField(message.int32_data(), bits);
    }
    default:
      return CopyField(message.int32_data(), tensor);
  }
}

}  // namespace

absl::StatusOr<DType> DTypeFromOnnx(int64_t number) {
  for (const DTypeRow& row : kDTypes) {
    if (row.number != number) continue;
    if (row.dtype.has_value()) return *row.dtype;
    return absl::UnimplementedError(absl::StrCat("the dtype ", row.name, " is not supported"));
  }
  return absl::InvalidArgumentError(absl::StrCat("there is no dtype ", number));
}

int32_t DTypeToOnnx(DType dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.dtype == dtype) return row.number;
  }
  return 0;
}

absl::Status BeyondLimit(int64_t limit) {
  return absl::ResourceExhaustedError(absl::StrCat("the model takes more memory than the limit of ", limit, " bytes"));
}

absl::StatusOr<Tensor> TakeTensor(proto::Tensor& message, const std::string& folder, int64_t& room) {
  constexpr size_t kLeastTaken = 4096;
  const absl::StatusOr<DType> dtype = DTypeFromOnnx(message.data_type());
  const std::vector<int64_t> sizes(message.dims().begin(), message.dims().end());
  const std::optional<int64_t> elements = CheckedNumElements(sizes);
  const bool taken = dtype.ok() && *dtype != kBool && elements.has_value() && message.data_location() != 1 &&
                     message.raw_data().size() >= kLeastTaken &&
                     message.raw_data().size() / DTypeSize(*dtype) == static_cast<size_t>(*elements) &&
                     message.raw_data().size() % DTypeSize(*dtype) == 0;
  if (!taken) return ReadTensor(message, folder, room);
  const std::shared_ptr<std::string> owner(message.release_raw_data());
  return Tensor::View(*dtype, sizes, owner->data(), owner);
}

absl::StatusOr<Tensor> ReadTensor(const proto::Tensor& message, const std::string& folder, int64_t& room) {
  GW_ASSIGN_OR_RETURN(const DType dtype, DTypeFromOnnx(message.data_type()));
  const std::vector<int64_t> sizes(message.dims().begin(), message.dims().end());
  const std::optional<int64_t> elements = CheckedNumElements(sizes);
  constexpr int64_t kMostElements = int64_t{1} << 56;  // Their bytes are a number.
  if (!elements.has_value() || *elements > kMostElements) {
    return absl::InvalidArgumentError("it has a negative size, or too many elements");
  }
  // Elements in the message are counted before memory for them is taken.
  const bool external = message.data_location() == 1;
  const int64_t bytes = *elements * static_cast<int64_t>(DTypeSize(dtype));
  const int64_t present =
      std::max<int64_t>({static_cast<int64_t>(message.raw_data().size()), message.float_data_size() * int64_t{8},
                         message.int32_data_size() * int64_t{8}, message.int64_data_size() * int64_t{8},
                         message.uint64_data_size() * int64_t{8}, message.double_data_size() * int64_t{8}});
  if (!external && bytes > present) {
    return absl::InvalidArgumentError(absl::StrCat("it is ", TensorType{dtype, Shape(sizes)}.ToString(),
                                                   ", and the file has only ",
                                                   message.raw_data().size() > 0 ? present : present / 8,
                                                   message.raw_data().size() > 0 ? " bytes" : " elements", " of it"));
  }
  room -= bytes;
  if (room < 0) return absl::ResourceExhaustedError("it takes more memory than the limit of the import leaves");
  GW_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Create(dtype, sizes));
  GW_RETURN_IF_ERROR(ReadElements(message, folder, tensor));
  if (dtype == kBool) {
    // Any other byte would be an invalid bool.
    const auto* flags = static_cast<const unsigned char*>(tensor.raw_data());
    if (std::any_of(flags, flags + tensor.byte_size(), [](unsigned char flag) { return flag > 1; }))
      return absl::InvalidArgumentError("it is bool and has an element that is neither 0 nor 1");
  }
  return tensor;
}

}  // namespace gradweave::onnx
