// The options of a session's CUDA device. No other CUDA header is needed for them.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPTIONS_H_
#define GRADWEAVE_RUNTIME_CUDA_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
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

// Controls generated kernels on a CUDA device. The device can compile a kernel for each fused chain
// of elementwise ops, and for each convolution with the ops that are fused after it. kAuto
// generates kernels if they can be compiled, kNever generates none, and kAlways returns an error if
// one cannot be compiled (for comparisons). Without a generated kernel, one interpreting kernel
// runs the fused chains. Results have the same bits, except for convolutions of more than 32
// channels, which run as matrix products if no kernel is generated.
enum class GeneratedKernels { kAuto, kNever, kAlways };

struct CudaOptions {
  // Upper limit in bytes for everything that the session keeps in the device's memory: plans,
  // constants, variables and the workspaces of matrix products; 0 means no limit. A run that does
  // not fit first takes the memory of plans that are kept for later, then computes values a second
  // time as for SessionOptions::memory_budget. Otherwise it is a ResourceExhausted error that names
  // its peak and its largest values.
  int64_t device_memory_limit = 0;
  ProductPrecision product_precision = ProductPrecision::kIeee;
  // NVRTC compiles a generated kernel when a plan first needs it. With kAlways a run whose plan
  // needs one that cannot be compiled is an error.
  GeneratedKernels generated_kernels = GeneratedKernels::kAuto;
  // Streams for kernels, 1 to 8. Independent branches of the graph run side by side, as far as the
  // plan's memory allows. With 1, kernels run one after the other, and a profile has the times that
  // each takes alone. A stream takes 32 MiB of the device's memory once it has matrix products; a
  // plan without room for that has fewer streams. Results have the same bits with any number.
  int streams = 4;
  // The folder that keeps compiled kernels for other processes; empty means
  // $GRADWEAVE_KERNEL_CACHE, else gradweave/kernels in $XDG_CACHE_HOME or ~/.cache. Setting
  // $GRADWEAVE_KERNEL_CACHE to nothing keeps none. It is not an error if the folder cannot be
  // written.
  std::string kernel_cache = {};

  // Returns InvalidArgument for numbers outside their ranges.
  absl::Status Check() const;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPTIONS_H_
