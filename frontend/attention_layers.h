// Attention, transformer blocks and positions, on sequences [batch, time, features].
#ifndef GRADWEAVE_FRONTEND_ATTENTION_LAYERS_H_
#define GRADWEAVE_FRONTEND_ATTENTION_LAYERS_H_

#include <cstdint>
#include <optional>

#include "gradweave/frontend/initializers.h"
#include "gradweave/frontend/layer.h"
#include "gradweave/ops/attention.h"

namespace gradweave::nn {

// Attention with several heads (Vaswani et al., "Attention is all you need", 2017, section 3.2):
// with d features in each head, softmax(Q K^T / sqrt(d)) V, where Q, K and V are dense functions of
// the queries x, of keys and of values. The result is a dense function of the concatenated results
// of the heads. [batch, queries, features] gives the same shape.
//
// In a Sequential the queries are keys and values too. A Standalone layer takes them as inputs:
//
//   const gw::nn::Standalone attend("attend", gw::nn::MultiHeadAttention{.heads = 4});
//   const gw::Value y = attend(scope, x, {.key = memory, .mask = mask}).y;
//
// A query that may attend to no key gets weights of 0. Self-attention respects
// CallOptions::lengths.
//
// Variables: query_weight [width of x, features], key_weight and value_weight [width of key or
// value, features * key_heads / heads], output_weight [features, width of x], and for each a bias,
// such as query_bias. A weight of PyTorch is the transpose; its in_proj_weight has the weights of
// queries, keys and values one below the other.
struct MultiHeadAttention {
  static constexpr const char* kKind = "multi_head_attention";
  struct Inputs {
    Value key = {};    // [batch, keys, any width]; x if it is not given.
    Value value = {};  // [batch, keys, any width]; the key if it is not given.
    // bool: true where a query may attend to a key. Floating: added to the scores; -infinity
    // excludes a key. [keys], [queries, keys], [batch, queries, keys] or [batch, heads, queries,
    // keys]; any axis may be 1.
    Value mask = {};
  };
  struct Result {
    Value y;        // [batch, queries, width of x].
    Value weights;  // [batch, heads, queries, keys], before dropout; each row adds up to 1, or is 0.
  };
  int64_t heads = 1;     // Divides the features.
  int64_t features = 0;  // The features of all heads together; 0 means the width of x.
  bool causal = false;   // Query i attends to keys 0 to i only.
  bool bias = true;
  double dropout = 0;  // Rate at which weights are dropped in training.
  Initializer initializer = XavierUniform{};
  // The number of heads of keys and values. Several neighbouring heads of queries use one of them
  // (Ainslie et al., "GQA", 2023). Divides the heads; 0 means the same number.
  int64_t key_heads = 0;
  // If it is set, queries and keys are rotated by their positions. Its heads_axis is not read.
  std::optional<RotaryOptions> rotary = {};
  Value Apply(const Context& context, Value x) const;
  Result Apply(const Context& context, Value x, const Inputs& inputs) const;
};

// A block of a transformer's encoder that normalizes first (Xiong et al., "On layer normalization
// in the transformer architecture", 2020): y = x + attention(norm(x)), y +
// dense(gelu(dense(norm(y)))), each with dropout before it is added. With `causal`, it is a block
// of a decoder without memory.
struct TransformerBlock {
  static constexpr const char* kKind = "transformer_block";
  struct Inputs {
    Value mask = {};  // The same as in MultiHeadAttention.
  };
  using Result = Value;
  int64_t heads = 1;
  int64_t hidden = 0;  // Features between the two dense layers; 0 means 4 times the width of x.
  bool causal = false;
  double dropout = 0;
  int64_t key_heads = 0;                     // The same as in MultiHeadAttention.
  std::optional<RotaryOptions> rotary = {};  // The same as in MultiHeadAttention.
  Value Apply(const Context& context, Value x) const;
  Value Apply(const Context& context, Value x, const Inputs& inputs) const;
};

// Adds a learned vector to each step of x. Variable: table [length, features of x]. The time of x
// is at most `length`.
struct PositionalEmbedding {
  static constexpr const char* kKind = "positional_embedding";
  int64_t length = 0;
  Initializer initializer = nn::Normal{0, 0.02};
  Value Apply(const Context& context, Value x) const;
};

// Adds sin(t / 10000^(i/features)) to the even features i of step t, and the cosine of the same
// angle to feature i + 1 (Vaswani et al., section 3.5).
struct SinusoidalPositions {
  static constexpr const char* kKind = "sinusoidal_positions";
  int64_t length = 0;  // The longest time; needed only if the time of x is not known.
  Value Apply(const Context& context, Value x) const;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_ATTENTION_LAYERS_H_
