#include "gradweave/runtime/cuda/api/product_precision.h"

#include "absl/strings/str_cat.h"

namespace gradweave {

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

}  // namespace gradweave
