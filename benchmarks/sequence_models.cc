#include <cmath>
#include <cstdint>
#include <vector>

#include "benchmarks/model_layers.h"

namespace benchmarks {
namespace {

using gw::nn::BatchNorm;
using gw::nn::Conv1D;
using gw::nn::Dense;
using gw::nn::Layer;
using gw::nn::LayerNorm;
using gw::nn::MaxPool1D;
using gw::nn::Relu;
using gw::nn::Sequential;
using gw::nn::TransformerBlock;

// Multi-head attention (Vaswani et al., "Attention is all you need", 2017, section 3.2.2) on
// [batch, tokens, width].
struct Attention {
  static constexpr const char* kKind = "attention";
  int64_t heads;
  Sequential query, key, value, output;

  Attention(int64_t heads, int64_t width)
      : heads(heads), query{Dense{width}}, key{Dense{width}}, value{Dense{width}}, output{Dense{width}} {}

  gw::Value Apply(const gw::nn::Context& context, gw::Value x) const {
    const gw::Dim batch = x.shape()[0], tokens = x.shape()[1];
    const int64_t width = x.shape()[2].size();
    auto split = [&](const char* name, const Sequential& layer) {
      const gw::Scope prefix(context.scope(), name);
      return gw::Transpose(gw::Reshape(layer.Apply(context, x), {batch, tokens, heads, width / heads}), {0, 2, 1, 3});
    };
    const gw::Value q = split("query", query), k = split("key", key), v = split("value", value);
    const int64_t head_width = width / heads;
    const double scale = 1 / std::sqrt(static_cast<double>(head_width));
    const gw::Value weights = gw::Softmax(gw::MatMul(q, k, {.transpose_b = true}) * scale);
    const gw::Value joined = gw::Reshape(gw::Transpose(gw::MatMul(weights, v), {0, 2, 1, 3}), {batch, tokens, width});
    const gw::Scope prefix(context.scope(), "output");
    return output.Apply(context, joined);
  }
};

// [batch, channels, height, width] -> [batch, height * width, channels].
gw::Value ToTokens(gw::Value x) { return gw::Transpose(gw::Flatten(x, 2), {0, 2, 1}); }

// Puts a learned token before the tokens of x.
struct ClassToken {
  static constexpr const char* kKind = "class_token";
  gw::Value Apply(const gw::nn::Context& context, gw::Value x) const {
    const gw::Dim batch = x.shape()[0], width = x.shape()[2];
    const gw::Value token = context.Variable("token", gw::nn::Normal{0, 0.02}, x.dtype(), {1, 1, width});
    return gw::Concat({gw::BroadcastTo(token, {batch, 1, width}), x}, 1);
  }
};

gw::Value FirstToken(gw::Value x) { return gw::Squeeze(gw::SliceAxis(x, 1, 0, 1), {1}); }

Sequential Blocks(int count, const TransformerBlock& block) { return std::vector<Layer>(count, block); }

}  // namespace

Sequential Transformer() {
  return {gw::nn::Residual{{LayerNorm{}, Attention(4, 128)}},
          gw::nn::Residual{{LayerNorm{}, Dense{512}, gw::nn::Gelu{}, Dense{128}}}};
}

Sequential Lstm() { return {gw::nn::Lstm{.features = 128, .whole_sequence = false}, Dense{10}}; }

Sequential Gpt() {
  return {gw::nn::Embedding{.vocabulary = kGptVocabulary, .features = 128}, gw::nn::PositionalEmbedding{.length = 128},
          Blocks(4, {.heads = 4, .causal = true}), LayerNorm{}, Dense{kGptVocabulary}};
}

Sequential VisionTransformer() {
  return {gw::nn::Conv2D{.channels = 192, .kernel = 16, .stride = 16},
          ToTokens,
          ClassToken{},
          gw::nn::PositionalEmbedding{.length = 14 * 14 + 1},
          Blocks(12, {.heads = 3}),
          LayerNorm{},
          FirstToken,
          Dense{1000}};
}

Sequential EmbeddingClassifier() {
  return {gw::nn::Embedding{.vocabulary = kEmbeddingVocabulary, .features = 64},
          [](gw::Value x) { return gw::Mean(x, {{1}}); }, Dense{64}, Relu{}, Dense{10}};
}

Sequential Audio() {
  std::vector<Layer> blocks;
  for (const int64_t channels : {32, 32, 64, 64}) {
    const bool first = blocks.empty();
    blocks.push_back(Conv1D{.channels = channels, .kernel = first ? 80 : 3, .stride = first ? 16 : 1});
    blocks.push_back(BatchNorm{});
    blocks.push_back(Relu{});
    blocks.push_back(MaxPool1D{.pool = 4});
  }
  return {Sequential(blocks), [](gw::Value x) { return gw::Mean(x, {{2}}); }, Dense{35}};
}

}  // namespace benchmarks
