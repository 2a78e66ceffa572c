// Folders of PNG images, one folder for each class.
#ifndef GRADWEAVE_FRONTEND_DATA_IMAGE_FOLDER_H_
#define GRADWEAVE_FRONTEND_DATA_IMAGE_FOLDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/frontend/dataset.h"

namespace gradweave::data {

// Options of ReadImageFolder.
struct ImageFolderOptions {
  // 1 converts all images to gray and 3 to red, green and blue. 0 does not convert them; they must
  // be all gray or all in colours.
  int channels = 0;
  // The classes, such as those of the training images. Empty: the names of the folders, sorted by
  // bytes.
  std::vector<std::string> classes = {};
  int64_t max_bytes = int64_t{1} << 32;  // Limits the pixels of all images, a byte for each channel.
};

// Images with the classes of their folders.
struct ImageFolder {
  Dataset dataset;  // "image", uint8 [n, channels, height, width]; "label", int32 [n], indices of `classes`.
  std::vector<std::string> classes;
  std::vector<std::string> paths;  // The file of each sample.
};

// Reads all files <folder>/<class>/*.png, by class and then by file name, both sorted by bytes.
// Pixels are in sRGB; transparent ones become black. Names that start with a dot are ignored, and
// so are files beside the folders of classes. Returns NotFound for a missing folder, and
// InvalidArgument if there is no folder of a class, a class has no image, a folder is not among the
// given classes, a class's folder has other files than PNG files, a file cannot be read as a PNG
// file of 8 bits per channel, an image differs from the first one in height, width or channels, the
// pixels exceed `max_bytes`, or an option has an invalid value. Errors name the file.
absl::StatusOr<ImageFolder> ReadImageFolder(const std::string& folder, const ImageFolderOptions& options = {});

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_IMAGE_FOLDER_H_
