// ONNX's attention, and related ops of language models: rotary positions, caches, linear attention.
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/activations.h"
#include "gradweave/ops/control_flow.h"
#include "gradweave/ops/conv_nd.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/ops/state.h"

namespace gradweave::onnx {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A size as an int64 scalar.
Value SizeValue(Call& call, const Dim& size) { return DimSize(call.scope().Full(0, {size}), 0); }

// x [n, time, heads*size] as [n, heads, time, size], and back.
absl::StatusOr<Value> SplitHeads(const Call& call, Value x, int64_t heads) {
  const std::optional<Dim> size = heads < 1 ? std::nullopt : DivideExactly(SizeAt(x.shape(), 2), heads);
  if (!size.has_value()) return call.Wrong("its number of heads does not divide ", SizeAt(x.shape(), 2).ToString());
  return Transpose(Reshape(x, {SizeAt(x.shape(), 0), SizeAt(x.shape(), 1), heads, *size}), {0, 2, 1, 3});
}
Value JoinHeads(Value x) {
  const Shape& s = x.shape();
  return Reshape(Transpose(x, {0, 2, 1, 3}), {SizeAt(s, 0), SizeAt(s, 2), SizeAt(s, 1) * SizeAt(s, 3)});
}

// x [n, heads, ...] with each head `times` times.
Value RepeatHeads(Value x, int64_t times) { return times == 1 ? x : Repeat(x, 1, times); }

// Zero where the condition holds, and minus infinity elsewhere.
Value Allowed(Value condition, DType dtype) {
  return Where(condition, Cast(ZerosLike(Cast(condition, kUint8)), dtype), -kInfinity);
}

// Returns the summand of the scores [n, heads, queries, keys], invalid if there is none.
absl::StatusOr<Value> BiasOf(Call& call, const Value& q, const Dim& keys) {
  const DType dtype = q.dtype();
  const Dim queries = SizeAt(q.shape(), 2);
  Value bias;
  auto add = [&](Value more) { bias = bias.valid() ? Add(bias, more) : more; };
  if (call.Has(3)) {
    Value mask = call.In(3);
    if (mask.dtype() == kBool) mask = Allowed(mask, dtype);
    if (mask.rank() < 1) return call.Wrong("its mask has no axes");
    const Dim missing = keys - SizeAt(mask.shape(), mask.rank() - 1);
    if (!(missing == Dim(0))) {
      PadOptions pad{.value = -kInfinity};
      for (int i = 0; i < mask.rank(); ++i) {
        pad.low.Append(0);
        pad.high.Append(i + 1 == mask.rank() ? missing : Dim(0));
      }
      mask = Pad(mask, pad);
    }
    add(mask);
  }
  const Value row = Reshape(RangeLike(q, queries), {queries, 1}), column = RangeLike(q, keys);
  Value lengths;  // The numbers of keys that are not padding, [n, 1, 1, 1].
  if (call.Has(6)) lengths = Reshape(Cast(call.In(6), kInt64), {SizeAt(q.shape(), 0), 1, 1, 1});
  // The place of the first query among the keys.
  Value place = row;
  if (call.Has(4)) {
    place = Add(row, SizeValue(call, SizeAt(call.Type(4).shape, 2)));
  } else if (lengths.valid()) {
    place = Add(row, Sub(lengths, SizeValue(call, queries)));
  }
  const int64_t left = call.Int("left_window_size", -1), right = call.Int("right_window_size", -1);
  if (call.Int("is_causal", 0) != 0) add(Allowed(LessEqual(column, place), dtype));
  if (left >= 0) add(Allowed(LessEqual(Sub(place, column), left), dtype));
  if (right >= 0) add(Allowed(LessEqual(Sub(column, place), right), dtype));
  if (lengths.valid()) add(Allowed(Less(column, lengths), dtype));
  return bias;
}

absl::Status Attention(Call& call) {
  Value q = call.In(0), k = call.In(1), v = call.In(2);
  const bool joined = q.rank() == 3;
  if (k.rank() != q.rank() || v.rank() != q.rank() || (!joined && q.rank() != 4))
    return call.Wrong("its queries, keys and values need three or four axes");
  if (call.Has(4) != call.Has(5)) return call.Wrong("past keys and past values come together");
  const int64_t q_heads = call.Int("q_num_heads", 0), kv_heads = call.Int("kv_num_heads", 0);
  if (joined) {
    GW_ASSIGN_OR_RETURN(q, SplitHeads(call, q, q_heads));
    GW_ASSIGN_OR_RETURN(k, SplitHeads(call, k, kv_heads));
    GW_ASSIGN_OR_RETURN(v, SplitHeads(call, v, kv_heads));
  }
  if (call.Has(4)) {
    k = Concat({call.In(4), k}, 2);
    v = Concat({call.In(5), v}, 2);
  }
  call.Set(1, k);
  call.Set(2, v);
  GW_ASSIGN_OR_RETURN(const Value bias, BiasOf(call, q, SizeAt(k.shape(), 2)));
  const std::optional<Dim> times = DivideExactly(SizeAt(q.shape(), 1), SizeAt(k.shape(), 1));
  if (!times.has_value() || !times->is_known()) return call.Wrong("the heads of its keys do not divide its queries'");
  k = RepeatHeads(k, times->size());
  v = RepeatHeads(v, times->size());
  if (call.Find("scale") == nullptr && !SizeAt(q.shape(), 3).is_known())
    return call.Refuse("its heads have no known size");
  const double scale = call.Float("scale", 1 / std::sqrt(static_cast<double>(SizeAt(q.shape(), 3).size())));
  // Both operands are scaled, which keeps products in range.
  Value scores = MatMul(Mul(q, std::sqrt(scale)), Mul(k, std::sqrt(scale)), {.transpose_b = true});
  if (const double cap = call.Float("softcap", 0); cap > 0) scores = Mul(Tanh(Div(scores, cap)), cap);
  const int64_t output = call.Int("qk_matmul_output_mode", 0);
  if (output < 0 || output > 3) return call.Wrong("its qk_matmul_output_mode is unknown");
  if (output < 2) call.Set(3, scores);
  const DType dtype = q.dtype();
  DType work = dtype;
  if (const int64_t precision = call.Int("softmax_precision", 0); precision != 0) {
    GW_ASSIGN_OR_RETURN(work, DTypeFromOnnx(precision));
    if (work != kFloat64) work = dtype;  // float32 is the least that is computed with.
  }
  Value probabilities;
  if (bias.valid()) {
    const Value masked = IsInf(Max(bias, {.axes = {-1}, .keep_dims = true}), {.positive = false});
    const Value biased = Add(scores, bias);
    if (output == 2) call.Set(3, biased);
    // A query without any key gives zeros.
    probabilities = Where(masked, 0, Cast(Softmax(Cast(Where(masked, 0, biased), work)), dtype));
  } else {
    if (output == 2) call.Set(3, scores);
    probabilities = Cast(Softmax(Cast(scores, work)), dtype);
  }
  if (output == 3) call.Set(3, probabilities);
  const Value y = MatMul(probabilities, v);
  call.Set(0, joined ? JoinHeads(y) : y);
  return absl::OkStatus();
}

// Turns pairs of elements by angles that depend on the position (Su et al., "RoFormer", 2021,
// section 3.4).
absl::Status RotaryEmbedding(Call& call) {
  Value x = call.In(0), cosines = call.In(1), sines = call.In(2);
  const bool joined = x.rank() == 3;
  const int64_t heads = call.Int("num_heads", 0);
  if (joined) {
    GW_ASSIGN_OR_RETURN(x, SplitHeads(call, x, heads));
  }
  if (x.rank() != 4 || !SizeAt(x.shape(), 3).is_known())
    return call.Wrong("it needs three or four axes, and heads of known size");
  const int64_t size = SizeAt(x.shape(), 3).size(), given = call.Int("rotary_embedding_dim", 0),
                turned = given == 0 ? size : given;
  if (turned < 2 || turned > size || turned % 2 != 0)
    return call.Wrong("it cannot turn ", turned, " of ", size, " elements");
  if (call.Has(3)) {
    const Value positions = Cast(call.In(3), kInt64);
    cosines = Gather(cosines, positions);
    sines = Gather(sines, positions);
  }
  cosines = ExpandDims(cosines, {1});  // [n, 1, time, turned/2].
  sines = ExpandDims(sines, {1});
  const Value part = SliceAxis(x, 3, 0, turned);
  const bool interleaved = call.Int("interleaved", 0) != 0;
  const Value a = interleaved ? SliceAxis(part, 3, 0, turned, 2) : SliceAxis(part, 3, 0, turned / 2);
  const Value b = interleaved ? SliceAxis(part, 3, 1, turned, 2) : SliceAxis(part, 3, turned / 2, turned);
  const Value real = Sub(Mul(cosines, a), Mul(sines, b)), imaginary = Add(Mul(sines, a), Mul(cosines, b));
  Value y = interleaved ? Reshape(Concat({ExpandDims(real, {4}), ExpandDims(imaginary, {4})}, 4), part.shape())
                        : Concat({real, imaginary}, 3);
  if (turned < size) y = Concat({y, SliceAxis(x, 3, turned, size)}, 3);
  call.Set(0, joined ? JoinHeads(y) : y);
  return absl::OkStatus();
}

// Attention without softmax: a state of keys times values, read by the queries (Yang et al., "Gated
// delta networks", 2025, section 3).
absl::Status LinearAttention(Call& call) {
  const int64_t q_heads = call.Int("q_num_heads", 0), kv_heads = call.Int("kv_num_heads", 0);
  call.Ignore({"chunk_size"});  // A hint for speed.
  const std::string rule = call.Text("update_rule", "gated_delta");
  const bool gated = rule == "gated" || rule == "gated_delta", delta = rule == "delta" || rule == "gated_delta";
  if (!gated && !delta && rule != "linear") return call.Wrong("its update_rule is unknown");
  if (gated != call.Has(4) || delta != call.Has(5)) return call.Wrong("its decay and beta do not fit its update_rule");
  for (const int i : {0, 1, 2, 4, 5}) {
    if (call.Has(i) && call.Rank(i) != 3) return call.Wrong("input ", i, " needs three axes");
  }
  if (kv_heads < 1 || q_heads % kv_heads != 0) return call.Wrong("the heads of its keys do not divide its queries'");
  std::vector<Value> inputs(3);
  for (int i = 0; i < 3; ++i) {
    GW_ASSIGN_OR_RETURN(inputs[static_cast<size_t>(i)], SplitHeads(call, call.In(i), i == 0 ? q_heads : kv_heads));
  }
  const Value q = inputs[0], k = inputs[1], v = inputs[2];
  if (!SizeAt(k.shape(), 3).is_known()) return call.Refuse("its heads have no known size");
  double scale = call.Float("scale", 0);
  if (scale == 0) scale = 1 / std::sqrt(static_cast<double>(SizeAt(k.shape(), 3).size()));
  if (gated) {
    const bool per_head = SizeAt(call.Type(4).shape, 2) == Dim(kv_heads);
    GW_ASSIGN_OR_RETURN(const Value decay, SplitHeads(call, call.In(4), kv_heads));
    inputs.push_back(per_head ? Reshape(decay, {SizeAt(decay.shape(), 0), kv_heads, SizeAt(decay.shape(), 2), 1})
                              : decay);
  }
  if (delta) {
    GW_ASSIGN_OR_RETURN(const Value beta,
                        SplitHeads(call, call.In(5), SizeAt(call.Type(5).shape, 2) == Dim(1) ? 1 : kv_heads));
    inputs.push_back(beta);
  }
  const Value state =
      call.Has(3) ? call.In(3)
                  : call.scope().Full(0, {SizeAt(q.shape(), 0), kv_heads, SizeAt(k.shape(), 3), SizeAt(v.shape(), 3)},
                                      q.dtype());
  const ScanResult result = Scan({state}, inputs,
                                 [&](const std::vector<Value>& states, const std::vector<Value>& parts) {
                                   Value at = states[0];  // [n, heads, key size, value size].
                                   const Value key = ExpandDims(parts[1], {-1});
                                   Value value = ExpandDims(parts[2], {-2});
                                   if (gated) at = Mul(at, Exp(ExpandDims(parts[3], {-1})));
                                   if (delta) {
                                     const Value known = MatMul(key, at, {.transpose_a = true});
                                     value = Mul(ExpandDims(parts[gated ? 4 : 3], {-1}), Sub(value, known));
                                   }
                                   at = Add(at, Mul(key, value));
                                   const Value read =
                                       MatMul(ExpandDims(parts[0], {-2}), RepeatHeads(at, q_heads / kv_heads));
                                   return ScanStep{.states = {at}, .outputs = {Mul(Squeeze(read, {-2}), scale)}};
                                 },
                                 {.input_axes = Integers(inputs.size(), 2), .output_axes = {2}});
  if (result.outputs.empty()) return call.Wrong("its state does not fit its keys and values");
  call.Set(0, JoinHeads(result.outputs[0]));
  call.Set(1, result.states[0]);
  return absl::OkStatus();
}

// A separate convolution of each channel that sees earlier elements only; the elements of the past
// state come first.
absl::Status CausalConvWithState(Call& call) {
  const Value x = call.In(0), filter = call.In(1);
  if (x.rank() != 3 || filter.rank() != 3 || !SizeAt(filter.shape(), 2).is_known() ||
      !SizeAt(filter.shape(), 0).is_known())
    return call.Wrong("it needs an input [n, c, time], and a filter [c, 1, taps] of known size");
  const int64_t earlier = SizeAt(filter.shape(), 2).size() - 1;
  const Value past =
      call.Has(3) ? call.In(3) : call.scope().Full(0, {SizeAt(x.shape(), 0), SizeAt(x.shape(), 1), earlier}, x.dtype());
  const Value all = Concat({past, x}, 2);
  const ConvNDOptions options{.groups = SizeAt(filter.shape(), 0).size()};
  Value y = call.Has(2) ? ConvND(all, filter, call.In(2), options) : ConvND(all, filter, options);
  const std::string activation = call.Text("activation", "none");
  if (activation == "silu" || activation == "swish") {
    y = Swish(y);
  } else if (activation != "none") {
    return call.Wrong("its activation is unknown");
  }
  call.Set(0, y);
  call.Set(1, SliceAxis(all, 2, SizeAt(x.shape(), 2), SizeAt(x.shape(), 2) + earlier));
  return absl::OkStatus();
}

// Writes an update into a cache, for each sample from a place of its own on.
absl::Status TensorScatter(Call& call) {
  const Value cache = call.In(0), update = call.In(1);
  if (update.rank() != cache.rank() || cache.rank() < 2)
    return call.Wrong("its cache and its update differ in their axes");
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", -2), cache.rank()));
  const std::string mode = call.Text("mode", "linear");
  if (mode != "linear" && mode != "circular") return call.Wrong("its mode is unknown");
  const Dim size = SizeAt(cache.shape(), axis), count = SizeAt(update.shape(), axis);
  Shape along, samples;
  for (int i = 0; i < cache.rank(); ++i) {
    along.Append(i == axis ? size : Dim(1));
    samples.Append(i == 0 ? SizeAt(cache.shape(), 0) : Dim(1));
  }
  // The place in the update of each place in the cache.
  Value place = Reshape(RangeLike(cache, size), along);
  if (call.Has(2)) place = Sub(place, Reshape(Cast(call.In(2), kInt64), samples));
  if (mode == "circular") place = Mod(place, SizeValue(call, size));
  const Value last = Sub(SizeValue(call, count), 1);
  const Value hit = LogicalAnd(GreaterEqual(place, 0), LessEqual(place, last));
  const Value written = TakeAlong(update, Minimum(Maximum(place, 0), last), axis);
  call.Set(0, Where(hit, written, cache));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"Attention", 23, 3, Attention},
    {"CausalConvWithState", 27, 2, CausalConvWithState},
    {"LinearAttention", 27, 3, LinearAttention},
    {"RotaryEmbedding", 23, 3, RotaryEmbedding},
    {"TensorScatter", 24, 2, TensorScatter},
};

}  // namespace

absl::Span<const OpRow> AttentionRows() { return kRows; }

}  // namespace gradweave::onnx
