#include "gradweave/runtime/cuda/options.h"

#include "absl/strings/str_cat.h"

namespace gradweave {
namespace {

// With more, streams would share the queues that the driver gives a process unless
// CUDA_DEVICE_MAX_CONNECTIONS is set.
constexpr int kMostStreams = 8;

}  // namespace

absl::StatusOr<ProductPrecision> ParseProductPrecision(absl::string_view text) {
  for (ProductPrecision precision : {ProductPrecision::kIeee, ProductPrecision::kTf32, ProductPrecision::kBfloat16}) {
    if (text == ProductPrecisionName(precision)) return precision;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a precision of products; use ieee, tf32 or bf16"));
}

absl::string_view ProductPrecisionName(ProductPrecision precision) {
  switch (precision) {
    case ProductPrecision::kTf32:
      return "tf32";
    case ProductPrecision::kBfloat16:
      return "bf16";
    case ProductPrecision::kIeee:
      break;
  }
  return "ieee";
}

absl::Status CudaOptions::Check() const {
  if (device_memory_limit < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("Session: cuda.device_memory_limit is ", device_memory_limit, " bytes; 0 means no limit"));
  }
  if (streams < 1 || streams > kMostStreams) {
    return absl::InvalidArgumentError(
        absl::StrCat("Session: cuda.streams is ", streams, " and has to be in [1, ", kMostStreams, "]"));
  }
  return absl::OkStatus();
}

}  // namespace gradweave
