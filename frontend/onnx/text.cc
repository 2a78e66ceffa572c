// ONNX's ops on tokens.
#include <algorithm>
#include <string>
#include <vector>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

// How often each n-gram of x [n, tokens] occurs with this distance between its tokens: [n, grams],
// float32.
Value Occurrences(Call& call, const Value& x, const Tensor& grams, int64_t distance, int64_t starts) {
  Value equal;
  for (int64_t k = 0; k < grams.size(1); ++k) {
    Tensor token(kInt64, {grams.size(0)});
    for (int64_t i = 0; i < grams.size(0); ++i)
      token.mutable_data<int64_t>()[i] = grams.data<int64_t>()[i * grams.size(1) + k];
    const Value part = ExpandDims(SliceAxis(x, 1, k * distance, k * distance + starts), {2});
    const Value same = Equal(part, call.scope().Constant(token));
    equal = k == 0 ? same : LogicalAnd(equal, same);
  }
  return Sum(Cast(equal, kFloat32), {.axes = {1}});
}

// Counts of n-grams of integers: those in the pool, whose tokens may lie up to max_skip_count
// tokens apart.
absl::Status TfIdfVectorizer(Call& call) {
  if (call.Find("pool_strings") != nullptr) return call.Refuse("strings are not supported");
  const std::string mode = call.Text("mode", "TF");
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF") return call.Wrong("its mode is unknown");
  const Integers starts = call.Ints("ngram_counts").value_or(Integers());
  const Integers columns = call.Ints("ngram_indexes").value_or(Integers());
  const Integers pool = call.Ints("pool_int64s").value_or(Integers());
  const int64_t shortest = call.Int("min_gram_length", 1), longest = call.Int("max_gram_length", 1);
  const int64_t skips = call.Int("max_skip_count", 0);
  const proto::Attribute* weights = call.Find("weights");
  Value x = Cast(call.In(0), kInt64);
  const bool one_row = x.rank() == 1;
  if (one_row) x = ExpandDims(x, {0});
  if (x.rank() != 2 || !SizeAt(x.shape(), 1).is_known())
    return call.Refuse("it needs rows of a known number of tokens");
  constexpr int64_t kMostSkips = 1024, kMostColumns = int64_t{1} << 24;
  const int64_t width = columns.empty() ? 0 : *std::max_element(columns.begin(), columns.end()) + 1;
  if (columns.empty() || *std::min_element(columns.begin(), columns.end()) < 0 || width > kMostColumns ||
      shortest < 1 || skips < 0 || skips > kMostSkips)
    return call.Wrong("its lengths, skips or indexes are out of range");
  const int64_t tokens = SizeAt(x.shape(), 1).size();
  Value counts;
  size_t gram = 0;  // The number of the first n-gram of a length.
  for (size_t i = 0; i < starts.size(); ++i) {
    const auto length = static_cast<int64_t>(i) + 1;
    const int64_t from = starts[i], to = i + 1 < starts.size() ? starts[i + 1] : static_cast<int64_t>(pool.size());
    if (from < 0 || to < from || to > static_cast<int64_t>(pool.size()) || (to - from) % length != 0)
      return call.Wrong("its ngram_counts do not fit its pool");
    const int64_t number = (to - from) / length;
    if (gram + static_cast<size_t>(number) > columns.size()) return call.Wrong("it has too few ngram_indexes");
    const size_t first = gram;
    gram += static_cast<size_t>(number);
    if (number == 0 || length < shortest || length > longest) continue;
    const Tensor grams = Tensor::Of<int64_t>(
        {number, length},
        absl::Span<const int64_t>(pool).subspan(static_cast<size_t>(from), static_cast<size_t>(to - from)));
    // Each n-gram has a column of the result.
    if (number > (int64_t{1} << 26) / width) return call.Refuse("it has too many n-grams");
    Tensor place(kFloat32, {number, width});
    std::fill(place.mutable_values<float>().begin(), place.mutable_values<float>().end(), 0.0f);
    for (int64_t j = 0; j < number; ++j)
      place.mutable_data<float>()[j * width + columns[first + static_cast<size_t>(j)]] = 1;
    Value sum;
    // The distance does not matter for a single token.
    for (int64_t distance = 1; distance <= (length == 1 ? 1 : skips + 1); ++distance) {
      const int64_t places = tokens - (length - 1) * distance;
      if (places < 1) break;
      const Value found = Occurrences(call, x, grams, distance, places);
      sum = sum.valid() ? Add(sum, found) : found;
    }
    if (!sum.valid()) continue;
    const Value placed = MatMul(sum, call.scope().Constant(place));
    counts = counts.valid() ? Add(counts, placed) : placed;
  }
  if (!counts.valid()) counts = call.scope().Full(0, {SizeAt(x.shape(), 0), width});
  if (mode == "IDF") counts = Cast(Greater(counts, 0), kFloat32);
  if (mode != "TF" && weights != nullptr) {
    const std::vector<float> numbers(weights->floats().begin(), weights->floats().end());
    if (static_cast<int64_t>(numbers.size()) != width) return call.Wrong("its weights do not fit its indexes");
    counts = Mul(counts, call.scope().Constant(Tensor::Of<float>({width}, absl::Span<const float>(numbers))));
  }
  call.Set(0, one_row ? Squeeze(counts, {0}) : counts);
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"TfIdfVectorizer", 9, 1, TfIdfVectorizer},
};

}  // namespace

absl::Span<const OpRow> TextRows() { return kRows; }

}  // namespace gradweave::onnx
