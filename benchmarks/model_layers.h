// The layers of the benchmarks' models; models.h says what each model is. Trained parameters are
// those of the models of the same names in peers/.
#ifndef GRADWEAVE_BENCHMARKS_MODEL_LAYERS_H_
#define GRADWEAVE_BENCHMARKS_MODEL_LAYERS_H_

#include <vector>

#include "gradweave/gradweave.h"

namespace benchmarks {

// Applies layers one after another, as many as a loop made. Each is named by its kind and number.
struct Chain {
  static constexpr const char* kKind = "chain";
  std::vector<gw::nn::Layer> layers;
  gw::Value Apply(const gw::nn::Context& context, gw::Value x) const;
};

// Models of images and of rows of numbers, [batch, channels, height, width] or [batch, features].
gw::nn::Sequential Mlp();
gw::nn::Sequential Tabular();
gw::nn::Sequential DeepMlp();
gw::nn::Sequential Vgg();
gw::nn::Sequential ResNet();
gw::nn::Sequential ResNet18();
gw::nn::Sequential ResNet50();
gw::nn::Sequential MobileNet();       // 1,000 classes.
gw::nn::Sequential SmallMobileNet();  // 10 classes.
gw::nn::Sequential UNet();
gw::nn::Sequential Autoencoder();

// Models of sequences: [batch, tokens, width], or int32 [batch, tokens] for Gpt and
// EmbeddingClassifier. Audio takes [batch, 1, samples], VisionTransformer an image.
gw::nn::Sequential Transformer();
gw::nn::Sequential Lstm();
gw::nn::Sequential Gpt();
gw::nn::Sequential VisionTransformer();
gw::nn::Sequential EmbeddingClassifier();
gw::nn::Sequential Audio();

// The sizes of tables: of ids that Gpt and EmbeddingClassifier know.
inline constexpr int64_t kGptVocabulary = 256;
inline constexpr int64_t kEmbeddingVocabulary = 50'000;

}  // namespace benchmarks

#endif  // GRADWEAVE_BENCHMARKS_MODEL_LAYERS_H_
