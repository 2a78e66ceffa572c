// Data sets of images and their class labels.
#ifndef GRADWEAVE_FRONTEND_DATA_H_
#define GRADWEAVE_FRONTEND_DATA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {

// Makes a data set of images and their class labels: the arrays "image", uint8 or float32 [n,
// channels, height, width], and "label", int32 [n]. Batches scale bytes to [0, 1]. Returns
// InvalidArgument for other dtypes or sizes, and OutOfRange if a label is not in [0, classes).
absl::StatusOr<Dataset> FromArrays(Tensor images, Tensor labels, int64_t classes);

// Reads an array of unsigned bytes in the idx format (http://yann.lecun.com/exdb/mnist: two zero
// bytes, a type byte, the number of dimensions, each dimension as 4 bytes big-endian, the
// elements). The file may be compressed with gzip. Returns NotFound if there is no such file, and
// InvalidArgument if it is not a regular file, its magic number is wrong, it has fewer or more
// bytes than its sizes need, or it needs more than `max_bytes`.
absl::StatusOr<Tensor> ReadIdx(const std::string& path, int64_t max_bytes = int64_t{1} << 32);

// The ten class names of Fashion-MNIST (Xiao et al., 2017), by label.
const std::vector<std::string>& FashionMnistClasses();

// The folder in which Debian's package dataset-fashion-mnist installs the data set.
inline constexpr char kFashionMnistFolder[] = "/usr/share/datasets/fashion-mnist";

// The two parts of a data set.
enum class Split { kTrain, kTest };

// Loads Fashion-MNIST's 60,000 training or 10,000 test images of 28 by 28 pixels: the arrays
// "image", uint8 [n, 1, 28, 28], and "label", int32 [n]. The folder has the files
// {train,t10k}-{images-idx3,labels-idx1}-ubyte, with or without .gz. Other data sets in this form
// work too if they have at most ten classes. Returns NotFound for a missing folder or file, the
// errors of ReadIdx, InvalidArgument for other shapes and OutOfRange for a label above 9.
absl::StatusOr<Dataset> LoadFashionMnist(const std::string& folder, Split split);

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_H_
