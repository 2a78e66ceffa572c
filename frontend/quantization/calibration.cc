#include "gradweave/frontend/quantization/calibration.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave {
namespace {

constexpr int64_t kBins = 2048;
constexpr double kLeastCount = 1e-4;  // Stands for a count of 0 in a divergence.

struct ValueRange {
  double low = 0, high = 0;
  double largest() const { return std::max(-low, high); }
};

absl::Status Extend(const Value& value, const Tensor& numbers, ValueRange& range) {
  for (float number : numbers.values<float>()) {
    if (!std::isfinite(number)) {
      return absl::InvalidArgumentError(absl::StrCat("Quantize: with a sample, ",
                                                     DescribeNode(*value.graph(), value.node()), " has the number ",
                                                     number, "; samples and variables have to be finite"));
    }
    range.low = std::min<double>(range.low, number);
    range.high = std::max<double>(range.high, number);
  }
  return absl::OkStatus();
}

void Count(const Tensor& numbers, double largest, std::vector<int64_t>& bins) {
  if (largest == 0) return;
  for (float number : numbers.values<float>()) {
    const auto bin = static_cast<int64_t>(std::abs(number) / largest * kBins);
    ++bins[std::min(bin, kBins - 1)];
  }
}

// Returns the sum of p * log(p / q) for two distributions that are not normalized. A q of 0 would
// make the sum infinite, so it counts as a small number.
double Divergence(absl::Span<const double> p, absl::Span<const double> q) {
  double p_total = 0, q_total = 0, sum = 0;
  for (double x : p) p_total += x;
  for (double x : q) q_total += x;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) continue;
    sum += p[i] / p_total * std::log(p[i] / p_total * (q_total / std::max(q[i], kLeastCount)));
  }
  return sum;
}

// Runs the samples and calls body(value, numbers) for each value and sample.
template <typename Body>
absl::Status ForSamples(Session& session, Graph& graph, const std::vector<Value>& values,
                        const std::vector<NamedTensors>& samples, Body body) {
  std::vector<Fetch> fetches(values.begin(), values.end());
  for (const NamedTensors& sample : samples) {
    GW_ASSIGN_OR_RETURN(const std::vector<Feed> feeds, FeedsOf(graph, sample));
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, session.Run(feeds, fetches));
    for (size_t i = 0; i < values.size(); ++i) GW_RETURN_IF_ERROR(body(i, results[i]));
  }
  return absl::OkStatus();
}

}  // namespace

Quantizer QuantizerFor(double low, double high, bool symmetric) {
  low = std::min(low, 0.0);
  high = std::max(high, 0.0);
  Quantizer quantizer;
  if (symmetric) {
    quantizer.dtype = kInt8;
    quantizer.scale = static_cast<float>(std::max(-low, high) / 127);
    return quantizer;
  }
  quantizer.scale = static_cast<float>((high - low) / 255);
  if (quantizer.scale > 0) quantizer.zero = std::llround(-low / (high - low) * 255);
  return quantizer;
}

double PercentileThreshold(absl::Span<const int64_t> bins, double largest, double percentile) {
  int64_t total = 0, kept = 0;
  for (int64_t count : bins) total += count;
  const double wanted = percentile / 100 * static_cast<double>(total);
  for (size_t i = 0; i < bins.size(); ++i) {
    kept += bins[i];
    if (static_cast<double>(kept) >= wanted)
      return largest * static_cast<double>(i + 1) / static_cast<double>(bins.size());
  }
  return largest;
}

double EntropyThreshold(absl::Span<const int64_t> bins, double largest) {
  // Absolute values have half of the 256 integers.
  constexpr size_t kLevels = 128;
  double best = std::numeric_limits<double>::infinity(), threshold = largest;
  for (size_t kept = kLevels; kept <= bins.size(); kept += kLevels / 8) {
    // Numbers beyond the threshold saturate, so the last bin counts them.
    std::vector<double> before(bins.begin(), bins.begin() + static_cast<int64_t>(kept)), after(kept, 0);
    for (size_t i = kept; i < bins.size(); ++i) before[kept - 1] += static_cast<double>(bins[i]);
    for (size_t level = 0; level < kLevels; ++level) {
      // The bins of a level that are not empty share its count.
      const size_t begin = level * kept / kLevels, end = (level + 1) * kept / kLevels;
      double count = 0, used = 0;
      for (size_t i = begin; i < end; ++i) count += static_cast<double>(bins[i]), used += before[i] > 0 ? 1 : 0;
      for (size_t i = begin; i < end; ++i) after[i] = before[i] > 0 ? count / used : 0;
    }
    if (const double divergence = Divergence(before, after); divergence < best) {
      best = divergence;
      threshold = largest * static_cast<double>(kept) / static_cast<double>(bins.size());
    }
  }
  return threshold;
}

absl::StatusOr<std::vector<Feed>> FeedsOf(Graph& graph, const NamedTensors& sample) {
  std::vector<Feed> feeds;
  for (const auto& [name, tensor] : sample) {
    const NodeId node = graph.FindNamed(name);
    if (node < 0) return absl::InvalidArgumentError(absl::StrCat("Quantize: the model has no input '", name, "'"));
    feeds.emplace_back(graph.value(node), tensor);
  }
  return feeds;
}

absl::StatusOr<std::vector<Quantizer>> Calibrate(Session& session, Graph& graph, const std::vector<Value>& values,
                                                 const std::vector<NamedTensors>& samples,
                                                 const QuantizeOptions& options) {
  if (samples.empty()) {
    return absl::InvalidArgumentError("Quantize: there are no samples; some hundred typical inputs give the ranges");
  }
  std::vector<ValueRange> ranges(values.size());
  GW_RETURN_IF_ERROR(ForSamples(session, graph, values, samples, [&](size_t i, const Tensor& numbers) {
    return Extend(values[i], numbers, ranges[i]);
  }));
  if (options.calibration != Calibration::kMinMax) {
    std::vector<std::vector<int64_t>> bins(values.size(), std::vector<int64_t>(kBins, 0));
    GW_RETURN_IF_ERROR(ForSamples(session, graph, values, samples, [&](size_t i, const Tensor& numbers) {
      Count(numbers, ranges[i].largest(), bins[i]);
      return absl::OkStatus();
    }));
    for (size_t i = 0; i < values.size(); ++i) {
      const double largest = ranges[i].largest();
      if (largest == 0) continue;
      const double kept = options.calibration == Calibration::kEntropy
                              ? EntropyThreshold(bins[i], largest)
                              : PercentileThreshold(bins[i], largest, options.percentile);
      ranges[i] = {std::max(ranges[i].low, -kept), std::min(ranges[i].high, kept)};
    }
  }
  std::vector<Quantizer> quantizers;
  for (const ValueRange& range : ranges) quantizers.push_back(QuantizerFor(range.low, range.high, options.symmetric));
  return quantizers;
}

}  // namespace gradweave
