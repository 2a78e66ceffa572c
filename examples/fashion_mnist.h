// Fashion-MNIST for the example programs that train on it, with its flags.
#ifndef GRADWEAVE_EXAMPLES_FASHION_MNIST_H_
#define GRADWEAVE_EXAMPLES_FASHION_MNIST_H_

#include "absl/status/statusor.h"
#include "gradweave/gradweave.h"

namespace examples {

// Loads one part of Fashion-MNIST from the folder --data_dir; of the training images the first
// --limit_train. Returns the errors of LoadFashionMnist, and InvalidArgument for a limit outside
// its range.
absl::StatusOr<gw::data::Dataset> FashionMnist(gw::data::Split split);

}  // namespace examples

#endif  // GRADWEAVE_EXAMPLES_FASHION_MNIST_H_
