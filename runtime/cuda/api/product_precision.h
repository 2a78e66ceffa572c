// The precision of matrix products on CUDA devices.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_PRODUCT_PRECISION_H_
#define GRADWEAVE_RUNTIME_CUDA_API_PRODUCT_PRECISION_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gradweave {

// Precision to which cuBLASLt may round the factors of float32 products on a CUDA device. Lower
// precision is much faster on tensor cores. The setting applies to MatMul and to convolutions
// computed as matrix products. Stored values, sums and all other ops stay float32. It has no effect
// on the CPU, on float64, and on convolutions that the device computes directly (few channels or
// many groups).
//
// Errors are relative to the sum of the absolute values of an element's terms. Errors of individual
// terms mostly cancel.
enum class ProductPrecision {
  kIeee,      // Factors are not rounded.
  kTf32,      // Rounds to 10 of the mantissa's 23 bits and keeps float32's range. Errors stay within 0.002.
  kBfloat16,  // Rounds to 7 bits of mantissa and keeps float32's range. Errors stay within 0.016.
};

// Parses "ieee", "tf32" or "bf16". Returns InvalidArgument for other text.
absl::StatusOr<ProductPrecision> ParseProductPrecision(absl::string_view text);
// Returns the text that ParseProductPrecision accepts.
absl::string_view ProductPrecisionName(ProductPrecision precision);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_PRODUCT_PRECISION_H_
