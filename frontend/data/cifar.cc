#include "gradweave/frontend/data/cifar.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {
namespace {

constexpr int64_t kChannels = 3, kSide = 32, kPixels = kChannels * kSide * kSide;

// Where the label is among the bytes before the pixels.
struct Format {
  int64_t label_bytes, label_at;
  int classes;
};

Format FormatOf(CifarLabels labels) {
  switch (labels) {
    case CifarLabels::kFine:
      return {2, 1, 100};
    case CifarLabels::kCoarse:
      return {2, 0, 20};
    case CifarLabels::kTen:
      break;
  }
  return {1, 0, 10};
}

}  // namespace

absl::StatusOr<Dataset> ReadCifar(absl::Span<const std::string> paths, CifarLabels labels, int64_t max_bytes) try {
  const Format format = FormatOf(labels);
  const int64_t record = format.label_bytes + kPixels;
  if (paths.empty()) return absl::InvalidArgumentError("ReadCifar: at least one path is expected");
  std::vector<std::string> files;
  int64_t count = 0;
  for (const std::string& path : paths) {
    GW_ASSIGN_OR_RETURN(std::string bytes, ReadInputFile(path, max_bytes));
    const auto size = static_cast<int64_t>(bytes.size());
    if (size == 0 || size % record != 0) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": the file has ", size, " bytes; a multiple of ", record,
                                                     " is expected, which is one image with its ",
                                                     format.label_bytes == 1 ? "label" : "two labels"));
    }
    max_bytes -= size;
    count += size / record;
    files.push_back(std::move(bytes));
  }
  GW_ASSIGN_OR_RETURN(Tensor images, Tensor::Create(kUint8, {count, kChannels, kSide, kSide}));
  GW_ASSIGN_OR_RETURN(Tensor ids, Tensor::Create(kInt32, {count}));
  auto* pixels = images.mutable_data<uint8_t>();
  auto* id = ids.mutable_data<int32_t>();
  for (size_t file = 0; file < files.size(); ++file) {
    const std::string& bytes = files[file];
    for (size_t at = 0; at < bytes.size(); at += record) {
      const auto label = static_cast<uint8_t>(bytes[at + format.label_at]);
      if (label >= format.classes) {
        return absl::OutOfRangeError(absl::StrCat(paths[file], ": label ", label, " of image ", at / record,
                                                  " is outside [0, ", format.classes, ")"));
      }
      *id++ = label;
      std::memcpy(pixels, bytes.data() + at + format.label_bytes, kPixels);
      pixels += kPixels;
    }
  }
  return Dataset{{"image", std::move(images)}, {"label", std::move(ids)}};
}
GW_CATCH_OUT_OF_MEMORY("ReadCifar")

absl::StatusOr<Dataset> LoadCifar(const std::string& folder, Split split, CifarLabels labels) try {
  std::vector<std::string> paths;
  if (labels != CifarLabels::kTen) {
    paths.push_back(absl::StrCat(folder, split == Split::kTrain ? "/train.bin" : "/test.bin"));
  } else if (split == Split::kTest) {
    paths.push_back(folder + "/test_batch.bin");
  } else {
    for (int i = 1; i <= 5; ++i) paths.push_back(absl::StrCat(folder, "/data_batch_", i, ".bin"));
  }
  return ReadCifar(paths, labels);
}
GW_CATCH_OUT_OF_MEMORY("LoadCifar")

const std::vector<std::string>& Cifar10Classes() {
  static const auto* const names = new std::vector<std::string>{"airplane", "automobile", "bird",  "cat",  "deer",
                                                                "dog",      "frog",       "horse", "ship", "truck"};
  return *names;
}

}  // namespace gradweave::data
