// Ranges of values in samples, and the integers that stand for their numbers.
#ifndef GRADWEAVE_FRONTEND_QUANTIZATION_CALIBRATION_H_
#define GRADWEAVE_FRONTEND_QUANTIZATION_CALIBRATION_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/frontend/quantization/quantize.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// Integers q of the dtype stand for scale * (q - zero).
struct Quantizer {
  DType dtype = kUint8;
  float scale = 0;  // 0 if all numbers are 0.
  int64_t zero = 0;

  int64_t low() const { return dtype == kInt8 ? -128 : 0; }
  int64_t high() const { return dtype == kInt8 ? 127 : 255; }
};

// Returns the quantizer for numbers in [low, high], a range that is extended to contain 0.
Quantizer QuantizerFor(double low, double high, bool symmetric);

// Returns the largest absolute value to keep, from the number of absolute values in each of several
// bins of equal width, the last of which ends at `largest`. Both are for numbers whose range is not
// empty.
double PercentileThreshold(absl::Span<const int64_t> bins, double largest, double percentile);
double EntropyThreshold(absl::Span<const int64_t> bins, double largest);

// Runs the session over the samples and returns the quantizer of each of the values, which are
// float32. Returns the errors of Quantize about samples and their numbers.
absl::StatusOr<std::vector<Quantizer>> Calibrate(Session& session, Graph& graph, const std::vector<Value>& values,
                                                 const std::vector<NamedTensors>& samples,
                                                 const QuantizeOptions& options);

// Returns the feeds of a sample.
absl::StatusOr<std::vector<Feed>> FeedsOf(Graph& graph, const NamedTensors& sample);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_QUANTIZATION_CALIBRATION_H_
