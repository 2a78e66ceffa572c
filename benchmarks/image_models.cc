#include <cstdint>
#include <vector>

#include "benchmarks/model_layers.h"

namespace benchmarks {
namespace {

using gw::nn::BatchNorm;
using gw::nn::Conv2D;
using gw::nn::ConvTranspose2D;
using gw::nn::Dense;
using gw::nn::Flatten;
using gw::nn::GlobalAvgPool;
using gw::nn::Layer;
using gw::nn::MaxPool2D;
using gw::nn::Relu;
using gw::nn::Sequential;

// Two paths whose results are added: `layers`, and a shortcut around them, which is the identity if
// it is empty.
struct Block {
  static constexpr const char* kKind = "block";
  Sequential layers, shortcut;

  gw::Value Apply(const gw::nn::Context& context, gw::Value x) const {
    const gw::Value y = layers.Apply(context, x);
    const gw::Scope prefix(context.scope(), "shortcut");
    return gw::Relu(y + shortcut.Apply(context, x));
  }
};

// The shortcut of a block: a convolution if the block changes the shape, else the identity.
Sequential Shortcut(int64_t channels, int64_t stride, bool changes) {
  if (!changes) return {};
  return {Conv2D{.channels = channels, .kernel = 1, .stride = stride, .bias = false}, BatchNorm{}};
}

// Blocks of He et al., "Deep residual learning for image recognition", 2016, figure 5.
Block BasicBlock(int64_t channels, int64_t stride, bool changes) {
  return {{Conv2D{.channels = channels, .kernel = 3, .stride = stride, .padding = 1, .bias = false}, BatchNorm{},
           Relu{}, Conv2D{.channels = channels, .kernel = 3, .padding = 1, .bias = false}, BatchNorm{}},
          Shortcut(channels, stride, changes)};
}

Block Bottleneck(int64_t width, int64_t stride, bool changes) {
  return {{Conv2D{.channels = width, .kernel = 1, .bias = false}, BatchNorm{}, Relu{},
           Conv2D{.channels = width, .kernel = 3, .stride = stride, .padding = 1, .bias = false}, BatchNorm{}, Relu{},
           Conv2D{.channels = 4 * width, .kernel = 1, .bias = false}, BatchNorm{}},
          Shortcut(4 * width, stride, changes)};
}

// Table 1 of the same paper, with the number of blocks of each stage.
Sequential ImageNetResNet(const std::vector<int>& stages, Block (*block)(int64_t, int64_t, bool), bool widens) {
  std::vector<Layer> blocks;
  int64_t width = 64;
  for (size_t stage = 0; stage < stages.size(); ++stage, width *= 2) {
    for (int i = 0; i < stages[stage]; ++i) {
      const int64_t stride = i == 0 && stage > 0 ? 2 : 1;
      blocks.emplace_back(block(width, stride, i == 0 && (stage > 0 || widens)));
    }
  }
  return {Conv2D{.channels = 64, .kernel = 7, .stride = 2, .padding = 3, .bias = false},
          BatchNorm{},
          Relu{},
          MaxPool2D{.pool = 3, .stride = 2, .padding = 1},
          Sequential(blocks),
          GlobalAvgPool{},
          Dense{1000}};
}

gw::Value Relu6(gw::Value x) { return gw::Clip(x, 0, 6); }

// The bottleneck with a depthwise convolution of Sandler et al., "MobileNetV2", 2018, table 1.
Layer InvertedResidual(int64_t inputs, int64_t outputs, int64_t stride, int64_t expansion) {
  const int64_t hidden = inputs * expansion;
  const Sequential depthwise{
      Conv2D{.channels = hidden, .kernel = 3, .stride = stride, .padding = 1, .groups = hidden, .bias = false},
      BatchNorm{}, Relu6, Conv2D{.channels = outputs, .kernel = 1, .bias = false}, BatchNorm{}};
  const Sequential layers = expansion == 1 ? depthwise
                                           : Sequential{Conv2D{.channels = hidden, .kernel = 1, .bias = false},
                                                        BatchNorm{}, Relu6, depthwise};
  if (stride == 1 && inputs == outputs) return gw::nn::Residual{layers};
  return layers;
}

// Table 2 of the same paper.
Sequential MobileNetV2(int64_t classes) {
  struct Stage {
    int64_t expansion, channels;
    int repeats;
    int64_t stride;
  };
  constexpr Stage kStages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                               {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
  std::vector<Layer> blocks;
  int64_t inputs = 32;
  for (const Stage& stage : kStages) {
    for (int i = 0; i < stage.repeats; ++i) {
      blocks.push_back(InvertedResidual(inputs, stage.channels, i == 0 ? stage.stride : 1, stage.expansion));
      inputs = stage.channels;
    }
  }
  return {Conv2D{.channels = 32, .kernel = 3, .stride = 2, .padding = 1, .bias = false},
          BatchNorm{},
          Relu6,
          Sequential(blocks),
          Conv2D{.channels = 1280, .kernel = 1, .bias = false},
          BatchNorm{},
          Relu6,
          GlobalAvgPool{},
          Dense{classes}};
}

Sequential DoubleConvolution(int64_t channels) {
  return {Conv2D{.channels = channels, .kernel = 3, .padding = 1, .bias = false}, BatchNorm{}, Relu{},
          Conv2D{.channels = channels, .kernel = 3, .padding = 1, .bias = false}, BatchNorm{}, Relu{}};
}

// A level of a U-Net: convolutions, what lies below at half the height and width, and convolutions
// of both together.
struct Level {
  static constexpr const char* kKind = "level";
  Sequential down, below, up;

  gw::Value Apply(const gw::nn::Context& context, gw::Value x) const {
    auto apply = [&](const char* name, const Sequential& layers, gw::Value value) {
      const gw::Scope prefix(context.scope(), name);
      return layers.Apply(context, value);
    };
    const gw::Value wide = apply("down", down, x);
    const gw::Value low = apply("below", below, wide);
    return apply("up", up, gw::Concat({wide, low}, 1));
  }
};

Sequential Levels(int64_t channels, int depth) {
  if (depth == 0) return DoubleConvolution(channels);
  return {Level{DoubleConvolution(channels),
                {MaxPool2D{.pool = 2}, Levels(2 * channels, depth - 1),
                 ConvTranspose2D{.channels = channels, .kernel = 2, .stride = 2}},
                DoubleConvolution(channels)}};
}

}  // namespace

Sequential Mlp() { return {Dense{256}, Relu{}, Dense{128}, Relu{}, Dense{10}}; }

Sequential Tabular() { return {Dense{128}, Relu{}, Dense{64}, Relu{}, Dense{10}}; }

Sequential DeepMlp() {
  std::vector<Layer> hidden;
  const gw::nn::KaimingUniform initializer;  // Keeps the variance through 64 layers.
  for (int i = 0; i < 64; ++i) {
    hidden.push_back(Dense{.features = 512, .weight_initializer = initializer});
    hidden.push_back(Relu{});
  }
  return {Sequential(hidden), Dense{10}};
}

Sequential Vgg() {
  auto pair = [](int64_t channels) {
    return Sequential{Conv2D{.channels = channels, .kernel = 3, .padding = 1}, Relu{},
                      Conv2D{.channels = channels, .kernel = 3, .padding = 1}, Relu{}, MaxPool2D{.pool = 2}};
  };
  return {pair(16), pair(32), pair(64), Flatten{}, Dense{10}};
}

Sequential ResNet() {
  return {Conv2D{.channels = 16, .kernel = 3, .padding = 1, .bias = false},
          BatchNorm{},
          Relu{},
          BasicBlock(16, 1, false),
          BasicBlock(32, 2, true),
          BasicBlock(64, 2, true),
          GlobalAvgPool{},
          Dense{10}};
}

Sequential ResNet18() { return ImageNetResNet({2, 2, 2, 2}, BasicBlock, false); }
Sequential ResNet50() { return ImageNetResNet({3, 4, 6, 3}, Bottleneck, true); }

Sequential MobileNet() { return MobileNetV2(1000); }
Sequential SmallMobileNet() { return MobileNetV2(10); }

Sequential UNet() { return {Levels(16, 3), Conv2D{.channels = 1, .kernel = 1}}; }

Sequential Autoencoder() {
  return {Conv2D{.channels = 16, .kernel = 3, .stride = 2, .padding = 1},
          Relu{},
          Conv2D{.channels = 32, .kernel = 3, .stride = 2, .padding = 1},
          Relu{},
          Flatten{},
          Dense{32},
          Dense{32 * 7 * 7},
          Relu{},
          gw::nn::Reshape{{32, 7, 7}},
          ConvTranspose2D{.channels = 16, .kernel = 2, .stride = 2},
          Relu{},
          ConvTranspose2D{.channels = 1, .kernel = 2, .stride = 2},
          gw::nn::Sigmoid{}};
}

}  // namespace benchmarks
