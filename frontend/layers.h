// Layers: functions of values that own variables.
#ifndef GRADWEAVE_FRONTEND_LAYERS_H_
#define GRADWEAVE_FRONTEND_LAYERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/frontend/initializers.h"
#include "gradweave/ops/scope.h"

namespace gradweave::nn {

struct CallOptions {
  bool training = true;  // Whether Dropout drops, and BatchNorm uses the statistics of the batch.
};

// What a layer is given beside its input: the scope, the options, and the variables of its name, which are made at the
// first call and found again at later ones.
class Context {
 public:
  Context(Scope& scope, CallOptions options, std::map<std::string, Value>& variables)
      : scope_(scope), options_(options), variables_(variables) {}

  Scope& scope() const { return scope_; }
  bool training() const { return options_.training; }
  const CallOptions& options() const { return options_; }
  std::map<std::string, Value>& variables() const { return variables_; }

  // The layer's variable of that name, with the current scope's prefix.
  Value Variable(absl::string_view name, const Initializer& initializer, DType dtype, const Shape& shape,
                 VariableOptions options = {}) const;

 private:
  Scope& scope_;
  CallOptions options_;
  std::map<std::string, Value>& variables_;
};

// Height and width: {5, 3}, or 5 for both.
struct Size2 {
  Size2(int64_t both) : height(both), width(both) {}  // NOLINT: .kernel = 5
  Size2(int64_t height, int64_t width) : height(height), width(width) {}
  int64_t height, width;
};

// Each layer has a kind, which is the base of its variables' names, and Apply. Sizes of the input's channels or
// features are taken from its shape, where they have to be known. Errors are recorded in the graph, with the line of
// the call that applied the layers.

// A convolution (ops/conv.h) on [batch, channels, height, width]. Variables: filter, bias.
struct Conv2D {
  static constexpr const char* kKind = "conv2d";
  int64_t channels = 0;  // Of the output.
  Size2 kernel = 1;
  Size2 stride = 1;
  Size2 padding = 0;
  Size2 dilation = 1;
  int64_t groups = 1;
  bool bias = true;
  Initializer filter_initializer = XavierUniform{};
  Initializer bias_initializer = nn::Constant{0};
  Value Apply(const Context& context, Value x) const;
};

// The transpose of a convolution (ops/conv.h). Variables: filter, bias.
struct ConvTranspose2D {
  static constexpr const char* kKind = "conv_transpose2d";
  int64_t channels = 0;  // Of the output.
  Size2 kernel = 1;
  Size2 stride = 1;
  Size2 padding = 0;
  Size2 output_padding = 0;
  bool bias = true;
  Initializer filter_initializer = XavierUniform{};
  Initializer bias_initializer = nn::Constant{0};
  Value Apply(const Context& context, Value x) const;
};

// x W + b on the last axis. Variables: weight [features of x, features], bias [features].
struct Dense {
  static constexpr const char* kKind = "dense";
  int64_t features = 0;  // Of the output.
  bool bias = true;
  Initializer weight_initializer = XavierUniform{};
  Initializer bias_initializer = nn::Constant{0};
  Value Apply(const Context& context, Value x) const;
};

struct AvgPool2D {
  static constexpr const char* kKind = "avg_pool2d";
  Size2 pool = 2;
  Size2 stride = 0;  // The window where 0.
  Size2 padding = 0;
  bool count_padding = false;
  Value Apply(const Context& context, Value x) const;
};

struct MaxPool2D {
  static constexpr const char* kKind = "max_pool2d";
  Size2 pool = 2;
  Size2 stride = 0;  // The window where 0.
  Size2 padding = 0;
  Value Apply(const Context& context, Value x) const;
};

// [batch, channels, height, width] -> [batch, channels].
struct GlobalAvgPool {
  static constexpr const char* kKind = "global_avg_pool";
  Value Apply(const Context& context, Value x) const;
};

// All axes but the first become one.
struct Flatten {
  static constexpr const char* kKind = "flatten";
  Value Apply(const Context& context, Value x) const;
};

// In training, zeroes elements with probability rate and scales the others (ops/normalization.h); else nothing.
struct Dropout {
  static constexpr const char* kKind = "dropout";
  double rate = 0.5;
  Value Apply(const Context& context, Value x) const;
};

// Normalizes channels, axis 1: in training by the batch, whose mean and unbiased variance enter the moving averages;
// else by these. Variables: scale, offset, and moving_mean and moving_variance, which are not trainable. Optimizers add
// the averages' assignments to their update.
struct BatchNorm {
  static constexpr const char* kKind = "batch_norm";
  double momentum = 0.9;  // Of the moving averages: new = momentum*old + (1 - momentum)*batch.
  double epsilon = 1e-5;
  Value Apply(const Context& context, Value x) const;
};

// Normalizes the last axes. Variables: scale, offset.
struct LayerNorm {
  static constexpr const char* kKind = "layer_norm";
  int64_t axes = 1;
  double epsilon = 1e-5;
  Value Apply(const Context& context, Value x) const;
};

// Rows of a table at integer indices: [...] -> [..., features]. Variable: table [vocabulary, features].
struct Embedding {
  static constexpr const char* kKind = "embedding";
  int64_t vocabulary = 0;
  int64_t features = 0;
  DType dtype = kFloat32;
  Initializer initializer = nn::Normal{0, 1};
  Value Apply(const Context& context, Value x) const;
};

// Activations.
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

// Any layer: one of the above, another Sequential, or a type of the user's with kKind and Apply.
class Layer {
 public:
  template <typename L>
  Layer(L layer)  // NOLINT: Sequential{Dense{10}}
      : kind_(L::kKind),
        apply_([layer = std::move(layer)](const Context& context, Value x) { return layer.Apply(context, x); }) {}

  const std::string& kind() const { return kind_; }
  Value Apply(const Context& context, Value x) const { return apply_(context, x); }

 private:
  std::string kind_;
  std::function<Value(const Context&, Value)> apply_;
};

// Layers one after the other. They are named by kind and number, "conv2d_1", and their variables "conv2d_1/filter".
//
//   gw::nn::Sequential mlp{gw::nn::Flatten{}, gw::nn::Dense{256}, gw::nn::Relu{}, gw::nn::Dense{10}};
//   gw::Value logits = mlp(scope, image);
//   gw::Value answers = mlp(scope, image, {.training = false});   // The same variables.
class Sequential {
 public:
  static constexpr const char* kKind = "sequential";

  Sequential(std::initializer_list<Layer> layers);

  // Applies the layers. Copies of a Sequential share its variables; in another graph the layers get new ones.
  Value operator()(Scope& scope, Value x, CallOptions options = {},
                   std::source_location location = std::source_location::current()) const;
  // As a layer of another one.
  Value Apply(const Context& context, Value x) const;

  // The values that the layers gave at the latest call, by the layers' names, in order.
  const std::vector<std::pair<std::string, Value>>& outputs() const { return state_->outputs; }
  // All variables so far, by full name.
  const std::map<std::string, Value>& variables() const { return state_->variables; }

 private:
  struct State {
    std::vector<std::pair<std::string, Layer>> layers;  // By name.
    std::map<std::string, Value> variables;
    std::vector<std::pair<std::string, Value>> outputs;
  };
  std::shared_ptr<State> state_;
};

// x plus what the layers make of it, which has x's shape (He et al., "Deep residual learning for image recognition",
// 2016).
struct Residual {
  static constexpr const char* kKind = "residual";
  Sequential layers;
  Value Apply(const Context& context, Value x) const;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_LAYERS_H_
