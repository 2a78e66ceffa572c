#include "gradweave/frontend/attention_layers.h"

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/activation_layers.h"
#include "gradweave/frontend/basic_layers.h"
#include "gradweave/frontend/key_value_cache.h"
#include "gradweave/frontend/layer_checks.h"
#include "gradweave/frontend/norm_layers.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/attention.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::nn {
namespace {

constexpr const char* kAttention = "MultiHeadAttention";

// Puts an axis for the heads into a mask of the layer. Records an error and returns false if it
// does not fit the scores.
bool ExpandMask(const Value& x, const Shape& scores, Value& mask) {
  if (mask.graph() == nullptr) return true;
  if (!AllValid(kAttention, {Operand(x), Operand(mask)})) return false;
  const DType dtype = x.dtype();
  const int rank = mask.rank();
  bool fits = rank >= 1 && rank <= 4 && (mask.dtype() == kBool || mask.dtype() == dtype);
  // A mask of three axes has one for the batch, and none for the heads.
  const Value expanded = fits && rank == 3 ? ExpandDims(mask, {1}) : mask;
  for (int i = 1; fits && i <= expanded.rank(); ++i) {
    const Dim& dim = expanded.shape()[expanded.rank() - i];
    fits = dim == Dim(1) || dim == scores[4 - i];
  }
  if (!fits) {
    BuilderError(kAttention, {Operand(mask)},
                 absl::StrCat("the mask has to be bool or ", DTypeName(dtype),
                              ", and [keys], [queries, keys], [batch, "
                              "queries, keys] or [batch, heads, queries, keys] with axes of size 1 or of the scores ",
                              scores.ToString()));
    return false;
  }
  mask = expanded;
  return true;
}

// Leaves out the keys behind each sample's length, [batch].
Value MaskOfLengths(const Value& x, const Dim& keys, const Value& lengths, const Value& mask) {
  const Value keep = Less(RangeLike(x, keys), ExpandDims(Cast(lengths, kInt64), {1, 2, 3}));
  if (mask.graph() == nullptr) return keep;
  return mask.dtype() == kBool ? LogicalAnd(mask, keep) : Where(keep, mask, -std::numeric_limits<double>::infinity());
}

// x W + b with new variables.
Value Project(const Context& context, const MultiHeadAttention& layer, const std::string& name, const Value& x,
              int64_t features) {
  const int64_t width = KnownSize(kAttention, x, 2, 3);
  if (width == 0) return Invalid(x);
  const Value y = MatMul(x, context.Variable(name + "_weight", layer.initializer, x.dtype(), {width, features}));
  return layer.bias ? Add(y, context.Variable(name + "_bias", nn::Constant{0}, x.dtype(), {features})) : y;
}

// [batch, time, features] -> [batch, time, heads, features / heads]. Rotates the heads if
// requested.
Value SplitHeads(const Value& x, int64_t heads, const std::optional<RotaryOptions>& rotary = {}) {
  if (!x.valid()) return x;
  const Shape& shape = x.shape();
  const Value split = gradweave::Reshape(x, {shape[0], shape[1], heads, shape[2].size() / heads});
  return rotary.has_value() ? RotaryEmbedding(split, *rotary) : split;
}

bool CheckSequence(const char* name, const Value& x, const Value& like) {
  if (!AllValid(kAttention, {Operand(like), Operand(x)})) return false;
  if (x.rank() == 3 && IsFloating(x.dtype()) && x.dtype() == like.dtype() && x.shape()[0] == like.shape()[0])
    return true;
  BuilderError(
      kAttention, {Operand(x), Operand(like)},
      absl::StrCat("the ", name, " has to be [batch, time, features], float32 or float64, of x's dtype and batch"));
  return false;
}

// The layer's result; its weights too, if `weights` is not null.
Value Attend(const MultiHeadAttention& layer, const Context& context, const Value& x,
             const MultiHeadAttention::Inputs& inputs, Value* weights) {
  const bool self = inputs.key.graph() == nullptr && inputs.value.graph() == nullptr;
  const Value& key = inputs.key.graph() == nullptr ? x : inputs.key;
  const Value& value = inputs.value.graph() == nullptr ? key : inputs.value;
  const int64_t heads = layer.heads;
  if (!CheckSizes(kAttention, x,
                  {{"heads", heads}, {"features", layer.features, 0}, {"key_heads", layer.key_heads, 0}}) ||
      !CheckNumbers(context.scope().graph(), kAttention, {{"dropout", layer.dropout, NumberCheck::kBelowOne}}) ||
      !CheckSequence("input", x, x) || !CheckSequence("key", key, x) || !CheckSequence("value", value, x)) {
    return Invalid(x);
  }
  const int64_t width = KnownSize(kAttention, x, 2, 3), all = layer.features == 0 ? width : layer.features;
  const int64_t key_heads = layer.key_heads == 0 ? heads : layer.key_heads, of_keys = all / heads * key_heads;
  if (width == 0 || !CheckDivides(kAttention, x, "heads", heads, "features", all) ||
      !CheckDivides(kAttention, x, "key_heads", key_heads, "heads", heads)) {
    return Invalid(x);
  }
  const Dim &queries = x.shape()[1], &keys = key.shape()[1];
  if (!(value.shape()[1] == keys))
    return BuilderError(kAttention, {Operand(x), Operand(key), Operand(value)}, "there has to be a value for each key");
  Value mask = inputs.mask;
  const Value& lengths = context.options().lengths;
  if (!ExpandMask(x, {x.shape()[0], heads, queries, keys}, mask) || (self && !CheckLengths(kAttention, x, lengths))) {
    return Invalid(x);
  }
  if (self && lengths.valid()) mask = MaskOfLengths(x, keys, lengths, mask);
  KeyValueCache* const cache = context.options().cache;
  if (cache != nullptr && (!layer.causal || !self || mask.graph() != nullptr)) {
    return BuilderError(
        kAttention, {Operand(x)},
        "with a cache, attention has to be causal, and takes neither a mask, nor lengths, nor other keys");
  }
  const Value positions = cache == nullptr ? Value() : cache->PositionsOf(x, queries);
  std::optional<RotaryOptions> rotary = layer.rotary;
  if (rotary.has_value()) {
    rotary->heads_axis = 2;
    if (rotary->positions.graph() == nullptr) rotary->positions = positions;
  }
  Value q = SplitHeads(Project(context, layer, "query", x, all), heads, rotary),
        k = SplitHeads(Project(context, layer, "key", key, of_keys), key_heads, rotary),
        v = SplitHeads(Project(context, layer, "value", value, of_keys), key_heads);
  if (!q.valid() || !k.valid() || !v.valid()) return Invalid(x);
  AttentionOptions options = {
      .mask = mask, .causal = layer.causal, .dropout = context.training() ? layer.dropout : 0, .heads_axis = 2};
  auto exchange = [](const Value& split) { return Transpose(split, {0, 2, 1, 3}); };
  if (cache != nullptr) {
    q = exchange(q);
    k = cache->Keep(context, "key_cache", exchange(k), positions);
    v = cache->Keep(context, "value_cache", exchange(v), positions);
    if (!k.valid() || !v.valid()) return Invalid(x);
    options.mask = LessEqual(RangeLike(x, cache->length()), ExpandDims(positions, {1}));
    options.causal = false;  // The mask leaves out the steps behind each query.
    options.heads_axis = 1;
  }
  if (weights != nullptr) *weights = AttentionWeights(q, k, options);
  Value attended = ScaledDotProductAttention(q, k, v, options);
  if (cache != nullptr) attended = exchange(attended);
  if (!attended.valid()) return Invalid(x);
  return Project(context, layer, "output", gradweave::Reshape(attended, {x.shape()[0], queries, Dim(all)}), width);
}

}  // namespace

MultiHeadAttention::Result MultiHeadAttention::Apply(const Context& context, Value x, const Inputs& inputs) const {
  Result result = {Invalid(x), Invalid(x)};
  result.y = Attend(*this, context, x, inputs, &result.weights);
  return result;
}

Value MultiHeadAttention::Apply(const Context& context, Value x) const {
  return Attend(*this, context, x, Inputs{}, nullptr);
}

Value TransformerBlock::Apply(const Context& context, Value x, const Inputs& inputs) const {
  const int64_t width = KnownSize("TransformerBlock", x, 2, 3);
  if (width == 0 || !CheckSizes("TransformerBlock", x, {{"hidden", hidden, 0}})) return Invalid(x);
  struct MaskedAttention {
    MultiHeadAttention attention;
    Value mask;
    std::string Kind() const { return MultiHeadAttention::kKind; }
    Value Apply(const Context& context, Value x) const {
      return Attend(attention, context, x, {.mask = mask}, nullptr);
    }
  };
  const MaskedAttention attention = {
      {.heads = heads, .causal = causal, .dropout = dropout, .key_heads = key_heads, .rotary = rotary}, inputs.mask};
  const Sequential block{
      Residual{{LayerNorm{}, attention, nn::Dropout{dropout}}},
      Residual{{LayerNorm{}, Dense{hidden == 0 ? 4 * width : hidden}, nn::Gelu{}, Dense{width}, nn::Dropout{dropout}}}};
  return block.Apply(context, x);
}

Value TransformerBlock::Apply(const Context& context, Value x) const { return Apply(context, x, Inputs{}); }

namespace {

// The rows of a table for the steps of x: the first rows, or the rows at the positions of a cache.
Value RowsOf(const Context& context, const Value& x, const Value& table, const Dim& time) {
  KeyValueCache* const cache = context.options().cache;
  return cache == nullptr ? SliceAxis(table, 0, 0, time) : Gather(table, cache->PositionsOf(x, time));
}

}  // namespace

Value PositionalEmbedding::Apply(const Context& context, Value x) const {
  const int64_t features = KnownSize("PositionalEmbedding", x, -1, 2);
  if (features == 0 || !CheckSizes("PositionalEmbedding", x, {{"length", length}})) return Invalid(x);
  const Dim& time = x.shape()[x.rank() - 2];
  if (time.is_known() && time.size() > length) {
    return BuilderError("PositionalEmbedding", {Operand(x)},
                        absl::StrCat("length is ", length, ", and the input has ", time.size(), " steps"));
  }
  const Value table = context.Variable("table", initializer, x.dtype(), {length, features});
  return Add(x, RowsOf(context, x, table, time));
}

Value SinusoidalPositions::Apply(const Context& context, Value x) const {
  const int64_t features = KnownSize("SinusoidalPositions", x, -1, 2);
  if (features == 0 || !CheckSizes("SinusoidalPositions", x, {{"length", length, 0}})) return Invalid(x);
  const Dim& time = x.shape()[x.rank() - 2];
  const bool knows_rows = time.is_known() && context.options().cache == nullptr;
  const int64_t rows = knows_rows ? time.size() : length;
  if (rows == 0 || !IsFloating(x.dtype())) {
    return BuilderError("SinusoidalPositions", {Operand(x)},
                        "the input has to be float32 or float64, and `length` has to be given where its time, the last "
                        "but one axis, is not known, or with a cache");
  }
  // The table is a constant of the graph.
  constexpr int64_t kMostElements = int64_t{1} << 28;
  if (rows > kMostElements / features) {
    return BuilderError("SinusoidalPositions", {Operand(x)},
                        absl::StrCat("a table for ", rows, " steps has more than 2^28 numbers"));
  }
  Tensor table(kFloat64, {rows, features});
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < features; ++i) {
      const double angle = static_cast<double>(t) * std::pow(10000.0, -static_cast<double>(i - i % 2) / features);
      table.mutable_data<double>()[t * features + i] = i % 2 == 0 ? std::sin(angle) : std::cos(angle);
    }
  }
  const Value constant = ConstantLike(x, table.Cast(x.dtype()), x.graph()->builder().location);
  return Add(x, RowsOf(context, x, constant, time));
}

}  // namespace gradweave::nn
