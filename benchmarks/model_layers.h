// The layers of the benchmarks' models; models.h describes the models. Each has as many trained
// parameters as the model of the same name in peers/.
#ifndef GRADWEAVE_BENCHMARKS_MODEL_LAYERS_H_
#define GRADWEAVE_BENCHMARKS_MODEL_LAYERS_H_

#include <cstdint>

#include "gradweave/gradweave.h"

namespace benchmarks {

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

// The number of ids that Gpt and EmbeddingClassifier know.
inline constexpr int64_t kGptVocabulary = 256;
inline constexpr int64_t kEmbeddingVocabulary = 50'000;

}  // namespace benchmarks

#endif  // GRADWEAVE_BENCHMARKS_MODEL_LAYERS_H_
