#include "gradweave/frontend/attention_layers.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/activation_layers.h"
#include "gradweave/frontend/basic_layers.h"
#include "gradweave/frontend/layer_checks.h"
#include "gradweave/frontend/norm_layers.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"

namespace gradweave::nn {
namespace {

constexpr const char* kAttention = "MultiHeadAttention";

// The keys that queries may attend to, and the numbers to add to scores. Both broadcast with
// [batch, heads, queries, keys]; a value without a graph leaves all keys in, or adds nothing.
struct Mask {
  Value keep, added;
};

void KeepOnly(Mask& mask, const Value& keep) {
  mask.keep = mask.keep.graph() == nullptr ? keep : LogicalAnd(mask.keep, keep);
}

// Records an error and returns false if the given mask does not fit.
bool AddGivenMask(const Value& given, const Shape& scores, DType dtype, Mask& mask) {
  if (given.graph() == nullptr) return true;
  if (!given.valid()) return false;
  const int rank = given.rank();
  bool fits = rank >= 1 && rank <= 4 && (given.dtype() == kBool || given.dtype() == dtype);
  // A mask of three axes has one for the batch, and none for the heads.
  const Value expanded = fits && rank == 3 ? ExpandDims(given, {1}) : given;
  for (int i = 1; fits && i <= expanded.rank(); ++i) {
    const Dim& dim = expanded.shape()[expanded.rank() - i];
    fits = dim == Dim(1) || dim == scores[4 - i];
  }
  if (!fits) {
    BuilderError(kAttention, {Operand(given)},
                 absl::StrCat("the mask has to be bool or ", DTypeName(dtype),
                              ", and [keys], [queries, keys], [batch, "
                              "queries, keys] or [batch, heads, queries, keys] with axes of size 1 or of the scores ",
                              scores.ToString()));
    return false;
  }
  if (given.dtype() == kBool) {
    KeepOnly(mask, expanded);
    return true;
  }
  const Value keep = NotEqual(expanded, -std::numeric_limits<double>::infinity());
  KeepOnly(mask, keep);
  mask.added = Where(keep, expanded, 0);
  return true;
}

// x W + b with new variables.
Value Project(const Context& context, const MultiHeadAttention& layer, const std::string& name, const Value& x,
              int64_t features) {
  const int64_t width = KnownSize(kAttention, x, 2, 3);
  if (width == 0) return Invalid(x);
  const Value y = MatMul(x, context.Variable(name + "_weight", layer.initializer, x.dtype(), {width, features}));
  return layer.bias ? Add(y, context.Variable(name + "_bias", nn::Constant{0}, x.dtype(), {features})) : y;
}

// [batch, time, features] -> [batch, heads, time, features / heads].
Value SplitHeads(const Value& x, int64_t heads) {
  if (!x.valid()) return x;
  const Shape& shape = x.shape();
  return Transpose(gradweave::Reshape(x, {shape[0], shape[1], heads, shape[2].size() / heads}), {0, 2, 1, 3});
}

bool CheckSequence(const char* name, const Value& x, const Value& like) {
  if (!x.valid()) return false;
  if (x.rank() == 3 && IsFloating(x.dtype()) && x.dtype() == like.dtype() && x.shape()[0] == like.shape()[0])
    return true;
  BuilderError(
      kAttention, {Operand(x), Operand(like)},
      absl::StrCat("the ", name, " has to be [batch, time, features], float32 or float64, of x's dtype and batch"));
  return false;
}

}  // namespace

MultiHeadAttention::Result MultiHeadAttention::Apply(const Context& context, Value x, const Inputs& inputs) const {
  const Result invalid = {Invalid(x), Invalid(x)};
  const bool self = inputs.key.graph() == nullptr && inputs.value.graph() == nullptr;
  const Value& key = inputs.key.graph() == nullptr ? x : inputs.key;
  const Value& value = inputs.value.graph() == nullptr ? key : inputs.value;
  if (!CheckSizes(kAttention, x, {{"heads", heads}, {"features", features, 0}}) ||
      !CheckNumbers(context.scope().graph(), kAttention, {{"dropout", dropout, NumberCheck::kBelowOne}}) ||
      !CheckSequence("input", x, x) || !CheckSequence("key", key, x) || !CheckSequence("value", value, x)) {
    return invalid;
  }
  const int64_t width = KnownSize(kAttention, x, 2, 3), all = features == 0 ? width : features;
  if (width == 0 || !CheckDivides(kAttention, x, "heads", heads, "features", all)) return invalid;
  const Dim &queries = x.shape()[1], &keys = key.shape()[1];
  if (!(value.shape()[1] == keys)) {
    BuilderError(kAttention, {Operand(x), Operand(key), Operand(value)}, "there has to be a value for each key");
    return invalid;
  }
  Mask mask;
  if (!AddGivenMask(inputs.mask, {x.shape()[0], heads, queries, keys}, x.dtype(), mask) ||
      (self && !CheckLengths(kAttention, x, context.options().lengths))) {
    return invalid;
  }
  if (causal) KeepOnly(mask, TriangleMask(context.scope(), queries, keys));
  if (const Value& lengths = context.options().lengths; self && lengths.valid())
    KeepOnly(mask, Less(RangeLike(x, keys), ExpandDims(Cast(lengths, kInt64), {1, 2, 3})));
  // Scaling the queries takes fewer products than scaling the scores.
  const double scale = 1 / std::sqrt(static_cast<double>(all / heads));
  const Value q = SplitHeads(Mul(Project(context, *this, "query", x, all), scale), heads),
              k = SplitHeads(Project(context, *this, "key", key, all), heads),
              v = SplitHeads(Project(context, *this, "value", value, all), heads);
  Value scores = MatMul(q, k, {.transpose_b = true});
  if (mask.added.valid()) scores = Add(scores, mask.added);
  // The softmax of a finite number in every place is no NaN, and the excluded places get 0
  // afterwards.
  const double lowest =
      x.dtype() == kFloat32 ? std::numeric_limits<float>::lowest() : std::numeric_limits<double>::lowest();
  if (mask.keep.valid()) scores = Where(mask.keep, scores, lowest);
  Value weights = gradweave::Softmax(scores);
  if (mask.keep.valid()) weights = Where(mask.keep, weights, 0);
  if (!weights.valid()) return invalid;
  const Value kept = context.training() ? gradweave::Dropout(weights, dropout) : weights;
  const Value joined = gradweave::Reshape(Transpose(MatMul(kept, v), {0, 2, 1, 3}), {x.shape()[0], queries, Dim(all)});
  return {Project(context, *this, "output", joined, width), weights};
}

Value MultiHeadAttention::Apply(const Context& context, Value x) const { return Apply(context, x, Inputs{}).y; }

Value TransformerBlock::Apply(const Context& context, Value x, const Inputs& inputs) const {
  const int64_t width = KnownSize("TransformerBlock", x, 2, 3);
  if (width == 0 || !CheckSizes("TransformerBlock", x, {{"hidden", hidden, 0}})) return Invalid(x);
  struct MaskedAttention {
    MultiHeadAttention attention;
    Value mask;
    std::string Kind() const { return MultiHeadAttention::kKind; }
    Value Apply(const Context& context, Value x) const { return attention.Apply(context, x, {.mask = mask}).y; }
  };
  const MaskedAttention attention = {{.heads = heads, .causal = causal, .dropout = dropout}, inputs.mask};
  const Sequential block{
      Residual{{LayerNorm{}, attention, nn::Dropout{dropout}}},
      Residual{{LayerNorm{}, Dense{hidden == 0 ? 4 * width : hidden}, nn::Gelu{}, Dense{width}, nn::Dropout{dropout}}}};
  return block.Apply(context, x);
}

Value TransformerBlock::Apply(const Context& context, Value x) const { return Apply(context, x, Inputs{}); }

Value PositionalEmbedding::Apply(const Context& context, Value x) const {
  const int64_t features = KnownSize("PositionalEmbedding", x, -1, 2);
  if (features == 0 || !CheckSizes("PositionalEmbedding", x, {{"length", length}})) return Invalid(x);
  const Dim& time = x.shape()[x.rank() - 2];
  if (time.is_known() && time.size() > length) {
    return BuilderError("PositionalEmbedding", {Operand(x)},
                        absl::StrCat("length is ", length, ", and the input has ", time.size(), " steps"));
  }
  const Value table = context.Variable("table", initializer, x.dtype(), {length, features});
  return Add(x, SliceAxis(table, 0, 0, time));
}

Value SinusoidalPositions::Apply(const Context&, Value x) const {
  const int64_t features = KnownSize("SinusoidalPositions", x, -1, 2);
  if (features == 0 || !CheckSizes("SinusoidalPositions", x, {{"length", length, 0}})) return Invalid(x);
  const Dim& time = x.shape()[x.rank() - 2];
  const int64_t rows = time.is_known() ? time.size() : length;
  if (rows == 0 || !IsFloating(x.dtype())) {
    return BuilderError("SinusoidalPositions", {Operand(x)},
                        "the input has to be float32 or float64, and `length` has to be given where its time, the last "
                        "but one axis, is not known");
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
  return Add(x, SliceAxis(ConstantLike(x, table.Cast(x.dtype()), x.graph()->builder().location), 0, 0, time));
}

}  // namespace gradweave::nn
