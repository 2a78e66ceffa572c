#include "gradweave/frontend/data/image_folder.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/image.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {
namespace {

namespace fs = std::filesystem;

// A name in a folder.
struct Entry {
  std::string name;
  bool is_folder = false;
};

// Returns the entries of a folder, sorted by name, without names that start with a dot.
absl::StatusOr<std::vector<Entry>> EntriesOf(const std::string& folder) {
  const auto error = [&](const std::error_code& code) {
    return absl::ErrnoToStatus(code.value(), absl::StrCat(folder, ": the folder cannot be read"));
  };
  std::vector<Entry> entries;
  std::error_code code;
  fs::directory_iterator it(folder, code);
  for (; !code && it != fs::directory_iterator(); it.increment(code)) {
    std::error_code unknown;  // An entry with an error is taken for a file; opening it tells why.
    Entry entry{it->path().filename().string(), it->is_directory(unknown)};
    if (entry.name[0] != '.') entries.push_back(std::move(entry));
  }
  if (code) return error(code);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return entries;
}

// A file and its class.
struct Sample {
  std::string path;
  int32_t label = 0;
};

// Returns all image files by class and name. Fills in the classes if they are not given.
absl::StatusOr<std::vector<Sample>> FindSamples(const std::string& folder, std::vector<std::string>& classes) {
  GW_ASSIGN_OR_RETURN(std::vector<Entry> entries, EntriesOf(folder));
  std::erase_if(entries, [](const Entry& entry) { return !entry.is_folder; });
  if (entries.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": there is no folder of a class in it"));
  }
  if (classes.empty()) {
    for (const Entry& entry : entries) classes.push_back(entry.name);
  }
  std::vector<Sample> samples;
  for (const Entry& entry : entries) {
    const std::string path = absl::StrCat(folder, "/", entry.name);
    const auto found = std::find(classes.begin(), classes.end(), entry.name);
    if (found == classes.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the folder is none of the ", classes.size(), " classes that are given"));
    }
    GW_ASSIGN_OR_RETURN(const std::vector<Entry> files, EntriesOf(path));
    for (const Entry& file : files) {
      std::string file_path = absl::StrCat(path, "/", file.name);
      if (file.is_folder || !absl::EndsWithIgnoreCase(file.name, ".png")) {
        return absl::InvalidArgumentError(
            absl::StrCat(file_path, ": only PNG files are expected in the folder of a class"));
      }
      samples.push_back({std::move(file_path), static_cast<int32_t>(found - classes.begin())});
    }
    if (files.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": the folder has no PNG file"));
  }
  return samples;
}

absl::StatusOr<ImageFolder> Read(const std::string& folder, const ImageFolderOptions& options) {
  if (options.channels != 0 && options.channels != 1 && options.channels != 3) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": ImageFolderOptions::channels is ", options.channels, " and has to be 0, 1 or 3"));
  }
  ImageFolder result;
  for (auto name = options.classes.begin(); name != options.classes.end(); ++name) {
    if (std::find(options.classes.begin(), name, *name) == name) continue;
    return absl::InvalidArgumentError(absl::StrCat(folder, ": ImageFolderOptions::classes has ", *name, " twice"));
  }
  result.classes = options.classes;
  GW_ASSIGN_OR_RETURN(const std::vector<Sample> samples, FindSamples(folder, result.classes));
  const auto count = static_cast<int64_t>(samples.size());
  Tensor images, labels(kInt32, {count});
  for (int64_t i = 0; i < count; ++i) {
    const std::string& path = samples[i].path;
    GW_ASSIGN_OR_RETURN(const Image image, ReadPngImage(path, options.channels));
    const int64_t pixels = image.width * image.height, bytes = image.channels * pixels;
    if (i == 0) {
      if (bytes > options.max_bytes / count) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": ", count, " images of this one's ", bytes,
                                                       " bytes need more than the ", options.max_bytes,
                                                       " bytes allowed"));
      }
      GW_ASSIGN_OR_RETURN(images, Tensor::Create(kUint8, {count, image.channels, image.height, image.width}));
    }
    if (image.channels != images.size(1) || image.height != images.size(2) || image.width != images.size(3)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the image has ", image.width, " by ", image.height, " pixels of ", image.channels,
                       image.channels == 1 ? " channel; " : " channels; ", images.size(3), " by ", images.size(2),
                       " of ", images.size(1), " are expected, as in ", samples[0].path));
    }
    auto* to = images.mutable_data<uint8_t>() + i * bytes;
    for (int64_t channel = 0; channel < image.channels; ++channel) {
      for (int64_t k = 0; k < pixels; ++k) *to++ = image.pixels[k * image.channels + channel];
    }
    labels.mutable_data<int32_t>()[i] = samples[i].label;
    result.paths.push_back(path);
  }
  result.dataset = Dataset{{"image", std::move(images)}, {"label", std::move(labels)}};
  return result;
}

}  // namespace

absl::StatusOr<ImageFolder> ReadImageFolder(const std::string& folder, const ImageFolderOptions& options) try {
  absl::StatusOr<ImageFolder> result = Read(folder, options);
  if (result.ok()) return result;
  // Names of files come from whoever made the folder.
  return absl::Status(result.status().code(), PrintableText(result.status().message()));
}
GW_CATCH_OUT_OF_MEMORY("ReadImageFolder")

}  // namespace gradweave::data
