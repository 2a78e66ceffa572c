// Layers of activations; see ops/elementwise.h, ops/activations.h and ops/softmax.h for formulas.
#ifndef GRADWEAVE_FRONTEND_ACTIVATION_LAYERS_H_
#define GRADWEAVE_FRONTEND_ACTIVATION_LAYERS_H_

#include <cstdint>

#include "gradweave/frontend/layer.h"

namespace gradweave::nn {

struct Sigmoid {
  static constexpr const char* kKind = "sigmoid";
  Value Apply(const Context& context, Value x) const;
};
struct Tanh {
  static constexpr const char* kKind = "tanh";
  Value Apply(const Context& context, Value x) const;
};
struct Relu {
  static constexpr const char* kKind = "relu";
  Value Apply(const Context& context, Value x) const;
};
struct LeakyRelu {
  static constexpr const char* kKind = "leaky_relu";
  double slope = 0.01;
  Value Apply(const Context& context, Value x) const;
};
struct Elu {
  static constexpr const char* kKind = "elu";
  double alpha = 1;
  Value Apply(const Context& context, Value x) const;
};
struct Selu {
  static constexpr const char* kKind = "selu";
  Value Apply(const Context& context, Value x) const;
};
struct Gelu {
  static constexpr const char* kKind = "gelu";
  Value Apply(const Context& context, Value x) const;
};
struct Softplus {
  static constexpr const char* kKind = "softplus";
  Value Apply(const Context& context, Value x) const;
};
struct Softmax {
  static constexpr const char* kKind = "softmax";
  int64_t axis = -1;
  Value Apply(const Context& context, Value x) const;
};
struct Swish {  // Also called SiLU.
  static constexpr const char* kKind = "swish";
  Value Apply(const Context& context, Value x) const;
};
struct HardSigmoid {
  static constexpr const char* kKind = "hard_sigmoid";
  Value Apply(const Context& context, Value x) const;
};
struct HardSwish {
  static constexpr const char* kKind = "hard_swish";
  Value Apply(const Context& context, Value x) const;
};
struct Mish {
  static constexpr const char* kKind = "mish";
  Value Apply(const Context& context, Value x) const;
};
// x where x > 0, else slope * x with a learned slope. Variable: slope, [channels] for the channels
// of axis 1, or a scalar.
struct PRelu {
  static constexpr const char* kKind = "prelu";
  bool per_channel = true;
  double initial_slope = 0.25;
  Value Apply(const Context& context, Value x) const;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_ACTIVATION_LAYERS_H_
