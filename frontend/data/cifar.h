// The data sets CIFAR-10 and CIFAR-100 in their binary files.
#ifndef GRADWEAVE_FRONTEND_DATA_CIFAR_H_
#define GRADWEAVE_FRONTEND_DATA_CIFAR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/frontend/data.h"
#include "gradweave/frontend/dataset.h"

namespace gradweave::data {

// The labels to read: the ten classes of CIFAR-10, or the 100 classes or the 20 superclasses of
// CIFAR-100.
enum class CifarLabels { kTen, kFine, kCoarse };

// Reads colour images of 32 by 32 pixels from binary files of CIFAR
// (https://www.cs.toronto.edu/~kriz/cifar.html, "binary version"): the arrays "image", uint8 [n, 3,
// 32, 32], and "label", int32 [n], in the order of the files. An image of CIFAR-10 is one byte with
// its label and 3072 bytes of red, green and blue; one of CIFAR-100 has two bytes, superclass and
// class, before them. Files may be compressed with gzip. Returns NotFound for a missing file,
// InvalidArgument if there is no path, or if a file is not a regular file, is empty, does not have
// a whole number of images, or if all files together have more than `max_bytes`; and OutOfRange for
// an invalid label.
absl::StatusOr<Dataset> ReadCifar(absl::Span<const std::string> paths, CifarLabels labels = CifarLabels::kTen,
                                  int64_t max_bytes = int64_t{1} << 32);

// Reads a part of the data set from the folder of its archive: data_batch_1.bin to data_batch_5.bin
// or test_batch.bin for CIFAR-10, train.bin or test.bin for CIFAR-100. Errors are those of
// ReadCifar.
absl::StatusOr<Dataset> LoadCifar(const std::string& folder, Split split, CifarLabels labels = CifarLabels::kTen);

// The ten class names of CIFAR-10, by label.
const std::vector<std::string>& Cifar10Classes();

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_CIFAR_H_
