// The precision of matrix products on CUDA devices.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_PRODUCT_PRECISION_H_
#define GRADWEAVE_RUNTIME_CUDA_API_PRODUCT_PRECISION_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gradweave {

// What a CUDA device's library (cuBLASLt) may round the factors of float32 products to, which is much faster on tensor
// cores: those of MatMul, and of convolutions that are computed as products. What is stored, the sums of products and
// all other ops stay float32. The CPU, float64 and convolutions that the device computes directly (of few channels, or
// of many groups) are as with kIeee whatever is asked for.
//
// The errors are relative to the sum of an element's absolute terms, and those of its terms mostly cancel.
enum class ProductPrecision {
  kIeee,      // No rounding of factors.
  kTf32,      // To 10 of the mantissa's 23 bits, with float32's range: errors within 0.002.
  kBfloat16,  // To 7 bits, with float32's range: errors within 0.016.
};

// "ieee", "tf32" or "bf16". InvalidArgument for other text.
absl::StatusOr<ProductPrecision> ParseProductPrecision(absl::string_view text);
// As it is parsed.
absl::string_view ProductPrecisionName(ProductPrecision precision);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_PRODUCT_PRECISION_H_
