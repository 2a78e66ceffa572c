// Layers of convolutions and pooling.
#ifndef GRADWEAVE_FRONTEND_CONV_LAYERS_H_
#define GRADWEAVE_FRONTEND_CONV_LAYERS_H_

#include <cstdint>

#include "gradweave/frontend/initializers.h"
#include "gradweave/frontend/layer.h"

namespace gradweave::nn {

// A height and a width: {5, 3}, or 5 for both.
struct Size2 {
  Size2(int64_t both) : height(both), width(both) {}  // NOLINT: .kernel = 5
  Size2(int64_t height, int64_t width) : height(height), width(width) {}
  int64_t height, width;
};

// Convolution (ops/conv.h): [batch, channels, height, width] -> [batch, channels, height, width].
// Variables: filter, bias.
struct Conv2D {
  static constexpr const char* kKind = "conv2d";
  int64_t channels = 0;  // Output channels.
  Size2 kernel = 1;
  Size2 stride = 1;
  Size2 padding = 0;
  Size2 dilation = 1;
  int64_t groups = 1;  // Divides both channel counts.
  bool bias = true;
  Initializer filter_initializer = XavierUniform{};
  Initializer bias_initializer = nn::Constant{0};
  Value Apply(const Context& context, Value x) const;
};

// The same along one axis: [batch, channels, length] -> [batch, channels, length]. Variables:
// filter [channels, input channels / groups, kernel], bias [channels].
struct Conv1D {
  static constexpr const char* kKind = "conv1d";
  int64_t channels = 0;  // Output channels.
  int64_t kernel = 1;
  int64_t stride = 1;
  int64_t padding = 0;  // Zeros at both ends.
  int64_t dilation = 1;
  int64_t groups = 1;  // Divides both channel counts.
  bool bias = true;
  Initializer filter_initializer = XavierUniform{};
  Initializer bias_initializer = nn::Constant{0};
  Value Apply(const Context& context, Value x) const;
};

// Transposed convolution (ops/conv.h). Variables: filter, bias.
struct ConvTranspose2D {
  static constexpr const char* kKind = "conv_transpose2d";
  int64_t channels = 0;  // Output channels.
  Size2 kernel = 1;
  Size2 stride = 1;
  Size2 padding = 0;
  Size2 output_padding = 0;
  bool bias = true;
  Initializer filter_initializer = XavierUniform{};
  Initializer bias_initializer = nn::Constant{0};
  Value Apply(const Context& context, Value x) const;
};

// Average and maximum pooling (ops/pool.h) on [batch, channels, height, width].
struct AvgPool2D {
  static constexpr const char* kKind = "avg_pool2d";
  Size2 pool = 2;
  Size2 stride = 0;  // 0 means the window.
  Size2 padding = 0;
  bool count_padding = false;
  Value Apply(const Context& context, Value x) const;
};

struct MaxPool2D {
  static constexpr const char* kKind = "max_pool2d";
  Size2 pool = 2;
  Size2 stride = 0;  // 0 means the window.
  Size2 padding = 0;
  Value Apply(const Context& context, Value x) const;
};

// The same along one axis: [batch, channels, length].
struct AvgPool1D {
  static constexpr const char* kKind = "avg_pool1d";
  int64_t pool = 2;
  int64_t stride = 0;  // 0 means the window.
  int64_t padding = 0;
  bool count_padding = false;
  Value Apply(const Context& context, Value x) const;
};

struct MaxPool1D {
  static constexpr const char* kKind = "max_pool1d";
  int64_t pool = 2;
  int64_t stride = 0;  // 0 means the window.
  int64_t padding = 0;
  Value Apply(const Context& context, Value x) const;
};

// Average over height and width: [batch, channels, height, width] -> [batch, channels].
struct GlobalAvgPool {
  static constexpr const char* kKind = "global_avg_pool";
  Value Apply(const Context& context, Value x) const;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_CONV_LAYERS_H_
