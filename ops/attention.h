// Attention, and rotations of its queries and keys by their positions. Errors are recorded in the
// graph.
#ifndef GRADWEAVE_OPS_ATTENTION_H_
#define GRADWEAVE_OPS_ATTENTION_H_

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "gradweave/ops/builder.h"

namespace gradweave {

struct AttentionOptions {
  // bool: true where a query may attend to a key. Of the queries' dtype: added to the scores, and
  // -infinity excludes a key. It broadcasts to [batch, heads, queries, keys].
  Value mask = {};
  bool causal = false;               // Query i attends to keys 0 to i only.
  std::optional<double> scale = {};  // Finite; 1/sqrt(width) if it is not given.
  double dropout = 0;                // Rate in [0, 1) at which weights are dropped, as Dropout does.
  std::optional<int64_t> dropout_seed = {};
  // The axis of the heads: 1 for [batch, heads, time, width], 2 for [batch, time, heads, width],
  // which is a dense layer's result with its features split, without a transposition.
  int64_t heads_axis = 1;
};

// Returns softmax(scale * q k^T + mask) v for each sample and head (Vaswani et al., "Attention is
// all you need", 2017, section 3.2.1). With the heads on axis 1: q [batch, heads, queries, width],
// k [batch, key heads, keys, width] and v [batch, key heads, keys, value width] give [batch, heads,
// queries, value width]. The number of key heads divides the number of heads; neighbouring heads
// share a key head (Ainslie et al., "GQA", 2023). A query that may attend to no key gets 0. All
// operands are float32, or all are float64.
//
// The CPU computes it by blocks of queries and never computes the whole matrix of scores (after
// Dao, "FlashAttention-2", 2023). Other devices, calls with dropout, and calls with few queries run
// the ops that define it.
Value ScaledDotProductAttention(Operand q, Operand k, Operand v, AttentionOptions options = {});

// Returns the weights of ScaledDotProductAttention before dropout, [batch, heads, queries, keys]:
// each row adds up to 1, or is 0 for a query without keys.
Value AttentionWeights(Operand q, Operand k, AttentionOptions options = {});

// Replaces the nodes of ScaledDotProductAttention and of its gradient that are `wanted` by the ops
// that define them.
absl::StatusOr<Graph> ExpandAttention(const Graph& graph,
                                      absl::FunctionRef<bool(const Graph& graph, const Node& node)> wanted);

struct RotaryOptions {
  // The features that a rotation pairs: 2i and 2i + 1 if they are interleaved (Su et al.,
  // "RoFormer", 2021, section 3.2.2), else i and i + features/2.
  bool interleaved = false;
  int64_t features = 0;    // The first features of the width are rotated, an even number; 0 means all.
  double base = 10'000;    // Above 0.
  Value positions = {};    // Integers [time] or [batch, time]; 0, 1, ... if they are not given.
  int64_t heads_axis = 1;  // The same as in AttentionOptions.
};
// Rotates pairs of the features of x [batch, heads, time, width], or with the heads on axis 2: pair
// i at position p by the angle p * base^(-2i/features). The product of a rotated query and a
// rotated key depends only on the difference of their positions.
Value RotaryEmbedding(Operand x, RotaryOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_ATTENTION_H_
