#include "examples/fashion_mnist.h"

#include <cstdint>
#include <string>

#include "absl/flags/flag.h"
#include "examples/example.h"

ABSL_FLAG(std::string, data_dir, gw::data::kFashionMnistFolder,
          "Folder with the four idx files of Fashion-MNIST, plain or .gz.");
ABSL_FLAG(int64_t, limit_train, 0, "Train on this number of first images only, in [1, 2^62]; 0 means all.");

namespace examples {

absl::StatusOr<gw::data::Dataset> FashionMnist(gw::data::Split split) {
  const int64_t limit = absl::GetFlag(FLAGS_limit_train);
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("limit_train", limit, 0, int64_t{1} << 62, "[1, 2^62], or 0 for all"));
  GW_ASSIGN_OR_RETURN(gw::data::Dataset dataset, gw::data::LoadFashionMnist(absl::GetFlag(FLAGS_data_dir), split));
  return split == gw::data::Split::kTrain && limit > 0 ? dataset.First(limit) : dataset;
}

}  // namespace examples
