#include "gradweave/frontend/data.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave::data {
namespace {

constexpr char kAdvice[] =
    "; on Debian, apt-get install dataset-fashion-mnist puts the data set into /usr/share/datasets/fashion-mnist, and "
    "--data_dir names another folder";

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

absl::Status CheckLabels(const Tensor& labels, int64_t classes, absl::string_view source) {
  const absl::Span<const int32_t> values = labels.values<int32_t>();
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= 0 && values[i] < classes) continue;
    return absl::OutOfRangeError(
        absl::StrCat(source, ": label ", values[i], " at position ", i, " is outside [0, ", classes, ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Tensor> ReadIdxOrGz(const std::string& path) {
  if (Exists(path)) return ReadIdx(path);
  if (Exists(path + ".gz")) return ReadIdx(path + ".gz");
  return absl::NotFoundError(absl::StrCat("there is no file ", path, " or ", path, ".gz", kAdvice));
}

}  // namespace

absl::StatusOr<Dataset> FromArrays(Tensor images, Tensor labels, int64_t classes) try {
  if (images.dtype() != kUint8 && images.dtype() != kFloat32) {
    return absl::InvalidArgumentError(
        absl::StrCat("FromArrays: images are ", images.type().ToString(), " and have to be uint8 or float32"));
  }
  if (images.rank() != 4 || labels.rank() != 1 || labels.dtype() != kInt32 || images.size(0) != labels.size(0)) {
    return absl::InvalidArgumentError(absl::StrCat("FromArrays: images are ", images.type().ToString(), " and labels ",
                                                   labels.type().ToString(),
                                                   "; they have to be [n, channels, height, width] and int32[n]"));
  }
  GW_RETURN_IF_ERROR(CheckLabels(labels, classes, "FromArrays"));
  return Dataset{{"image", std::move(images)}, {"label", std::move(labels)}};
}
GW_CATCH_OUT_OF_MEMORY("FromArrays")

absl::StatusOr<Tensor> ReadIdx(const std::string& path, int64_t max_bytes) try {
  constexpr int kUnsignedByte = 8, kMostDimensions = 8;
  GW_ASSIGN_OR_RETURN(InputStream stream, InputStream::Open(path));
  int64_t done = 0;  // Bytes read.
  const auto truncated = [&](int64_t expected, absl::string_view has) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the file is truncated: ", expected, " bytes are expected, and it has ", has));
  };
  // Reads big-endian numbers.
  const auto read_numbers = [&](absl::Span<uint32_t> numbers) -> absl::Status {
    uint8_t bytes[4 * kMostDimensions];
    const auto wanted = static_cast<int64_t>(4 * numbers.size());
    GW_ASSIGN_OR_RETURN(const int64_t got, stream.Read(bytes, wanted));
    if (got < wanted) return truncated(done + wanted, absl::StrCat(done + got));
    done += wanted;
    for (size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = 0;
      for (int k = 0; k < 4; ++k) numbers[i] = numbers[i] << 8 | bytes[4 * i + k];
    }
    return absl::OkStatus();
  };
  uint32_t magic = 0;
  GW_RETURN_IF_ERROR(read_numbers(absl::MakeSpan(&magic, 1)));
  const uint32_t dimensions = magic & 0xFF;
  if (magic >> 8 != kUnsignedByte || dimensions < 1 || dimensions > kMostDimensions) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": this is not an idx file of unsigned bytes: its magic number is ", absl::Hex(magic, absl::kZeroPad8),
        "; 0000080n is expected, where n is the number of dimensions, 1 to ", kMostDimensions));
  }
  uint32_t numbers[kMostDimensions];
  GW_RETURN_IF_ERROR(read_numbers(absl::MakeSpan(numbers, dimensions)));
  const std::vector<int64_t> sizes(numbers, numbers + dimensions);
  const std::optional<int64_t> elements = CheckedNumElements(sizes);
  // The header and the elements together have at most 2^63 - 1 bytes.
  max_bytes = std::min(max_bytes, std::numeric_limits<int64_t>::max() - done);
  if (!elements.has_value() || *elements > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": its sizes ", Shape(sizes).ToString(),
                                                   " need more than the ", max_bytes, " bytes allowed"));
  }
  // The elements get memory only if the file may have them.
  const int64_t expected = done + *elements;
  if (expected > stream.most_bytes()) return truncated(expected, absl::StrCat("at most ", stream.most_bytes()));
  GW_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Create(kUint8, sizes));
  GW_ASSIGN_OR_RETURN(const int64_t got, stream.Read(tensor.mutable_raw_data(), *elements));
  if (got < *elements) return truncated(expected, absl::StrCat(done + got));
  uint8_t behind;
  GW_ASSIGN_OR_RETURN(const int64_t rest, stream.Read(&behind, 1));
  if (rest > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the file is too long: ", expected, " bytes are expected, and it has more"));
  }
  return tensor;
}
GW_CATCH_OUT_OF_MEMORY("ReadIdx")

const std::vector<std::string>& FashionMnistClasses() {
  static const auto* const names = new std::vector<std::string>{
      "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"};
  return *names;
}

absl::StatusOr<Dataset> LoadFashionMnist(const std::string& folder, Split split) try {
  struct stat info;
  if (stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::NotFoundError(absl::StrCat("there is no folder ", folder, kAdvice));
  }
  const std::string base = absl::StrCat(folder, split == Split::kTrain ? "/train-" : "/t10k-");
  GW_ASSIGN_OR_RETURN(Tensor images, ReadIdxOrGz(base + "images-idx3-ubyte"));
  GW_ASSIGN_OR_RETURN(Tensor labels, ReadIdxOrGz(base + "labels-idx1-ubyte"));
  constexpr int64_t kSide = 28;
  if (images.rank() != 3 || images.size(1) != kSide || images.size(2) != kSide) {
    return absl::InvalidArgumentError(absl::StrCat(base, "images-idx3-ubyte: the array is ", images.type().ToString(),
                                                   " and has to be uint8[n,28,28]"));
  }
  if (labels.rank() != 1 || labels.size(0) != images.size(0)) {
    return absl::InvalidArgumentError(absl::StrCat(base, "labels-idx1-ubyte: the array is ", labels.type().ToString(),
                                                   " and has to be uint8[", images.size(0),
                                                   "], a label for each image"));
  }
  if (images.size(0) == 0)
    return absl::InvalidArgumentError(absl::StrCat(base, "images-idx3-ubyte: there are no images"));
  const int64_t classes = static_cast<int64_t>(FashionMnistClasses().size());
  labels = labels.Cast(kInt32);
  GW_RETURN_IF_ERROR(CheckLabels(labels, classes, base + "labels-idx1-ubyte"));
  return Dataset{{"image", images.Reshaped({images.size(0), 1, kSide, kSide})}, {"label", std::move(labels)}};
}
GW_CATCH_OUT_OF_MEMORY("LoadFashionMnist")

}  // namespace gradweave::data
