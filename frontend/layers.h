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

// Options of one application of layers.
struct CallOptions {
  bool training = true;  // In training, Dropout drops and BatchNorm uses the batch's statistics.
  // Values to use in place of variables, by the variables' full names: a call with the weights after a
  // step, say, through which gradients go on to the step. They have the variables' types.
  std::map<std::string, Value> values = {};
};

// The variables that the calls of a model share.
struct LayerVariables {
  struct Shared {
    std::string full_name;
    Value value;
  };
  std::string root;                      // The name prefix of the scope of the current call.
  std::map<std::string, Shared> shared;  // By name behind the root of the call that made them.
  std::map<std::string, Value> by_full_name;
};

// The arguments of a layer besides its input: the scope, the options, and the variables by full
// name. The first call of a layer creates its variables; later calls reuse them.
class Context {
 public:
  Context(Scope& scope, CallOptions options, LayerVariables& variables)
      : scope_(scope), options_(std::move(options)), variables_(variables) {}

  Scope& scope() const { return scope_; }
  bool training() const { return options_.training; }
  const CallOptions& options() const { return options_; }
  LayerVariables& variables() const { return variables_; }

  // The layer's variable of that name: that of an earlier call in this graph, whatever scope that was in,
  // or a new one with the current scope's prefix; or the value that the options give in its place.
  // Records an error in the graph where the type is not that of the earlier call.
  Value Variable(absl::string_view name, const Initializer& initializer, DType dtype, const Shape& shape,
                 VariableOptions options = {}) const;

 private:
  Scope& scope_;
  CallOptions options_;
  LayerVariables& variables_;
};

// A height and a width: {5, 3}, or 5 for both.
struct Size2 {
  Size2(int64_t both) : height(both), width(both) {}  // NOLINT: .kernel = 5
  Size2(int64_t height, int64_t width) : height(height), width(width) {}
  int64_t height, width;
};

// Each layer has a kind, from which its variables get their names, and a function Apply. Layers
// take the input's channels or features from its shape, so these sizes must be known. Errors are
// recorded in the graph with the line of the call that applied the layers.

// Convolution (ops/conv.h): [batch, channels, height, width] -> [batch, channels, height, width].
// Variables: filter, bias.
struct Conv2D {
  static constexpr const char* kKind = "conv2d";
  int64_t channels = 0;  // Output channels.
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

// x W + b along the last axis. Variables: weight [features of x, features], bias [features].
struct Dense {
  static constexpr const char* kKind = "dense";
  int64_t features = 0;  // Output features.
  bool bias = true;
  Initializer weight_initializer = XavierUniform{};
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

// Average over height and width: [batch, channels, height, width] -> [batch, channels].
struct GlobalAvgPool {
  static constexpr const char* kKind = "global_avg_pool";
  Value Apply(const Context& context, Value x) const;
};

// Merges all axes but the first into one.
struct Flatten {
  static constexpr const char* kKind = "flatten";
  Value Apply(const Context& context, Value x) const;
};

// In training, sets elements to zero with probability `rate` and scales the others
// (ops/normalization.h). Outside of training, returns its input.
struct Dropout {
  static constexpr const char* kKind = "dropout";
  double rate = 0.5;
  Value Apply(const Context& context, Value x) const;
};

// Normalizes channels (axis 1). In training it uses the statistics of the batch and updates the
// moving averages with the batch's mean and unbiased variance. Outside of training it uses the
// moving averages. Variables: scale, offset, and moving_mean and moving_variance, which are not
// trainable. Optimizers add the assignments of the moving averages to their update.
struct BatchNorm {
  static constexpr const char* kKind = "batch_norm";
  double momentum = 0.9;  // new average = momentum*old + (1 - momentum)*batch.
  double epsilon = 1e-5;
  Value Apply(const Context& context, Value x) const;
};

// Normalizes the last `axes` axes (ops/normalization.h). Variables: scale, offset.
struct LayerNorm {
  static constexpr const char* kKind = "layer_norm";
  int64_t axes = 1;
  double epsilon = 1e-5;
  Value Apply(const Context& context, Value x) const;
};

// Looks up rows of a table by integer indices: [...] -> [..., features]. Variable: table
// [vocabulary, features].
struct Embedding {
  static constexpr const char* kKind = "embedding";
  int64_t vocabulary = 0;
  int64_t features = 0;
  DType dtype = kFloat32;
  Initializer initializer = nn::Normal{0, 1};
  Value Apply(const Context& context, Value x) const;
};

// Activations; see ops/elementwise.h and ops/softmax.h.
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

// Any layer: one of the above, another Sequential, or a type of the user's with Apply. Its kind, the base of
// its variables' names, is a static member kKind, or what a member function Kind() returns, or "layer".
//
//   struct Scale {
//     gw::Value Apply(const gw::nn::Context& context, gw::Value x) const {
//       return x * context.Variable("factor", gw::nn::Constant{1}, x.dtype(), {});
//     }
//   };
class Layer {
 public:
  template <typename L>
  Layer(L layer)  // NOLINT: Sequential{Dense{10}}
      : kind_(KindOf(layer)),
        apply_([layer = std::move(layer)](const Context& context, Value x) { return layer.Apply(context, x); }) {}

  const std::string& kind() const { return kind_; }
  Value Apply(const Context& context, Value x) const { return apply_(context, x); }

 private:
  template <typename L>
  static std::string KindOf(const L& layer) {
    if constexpr (requires { L::kKind; }) {
      return L::kKind;
    } else if constexpr (requires { layer.Kind(); }) {
      return std::string(layer.Kind());
    } else {
      return "layer";
    }
  }

  std::string kind_;
  std::function<Value(const Context&, Value)> apply_;
};

// Applies layers one after another. Each layer is named by its kind and number, such as "conv2d_1";
// its variables are named "conv2d_1/filter".
//
//   gw::nn::Sequential mlp{gw::nn::Flatten{}, gw::nn::Dense{256}, gw::nn::Relu{}, gw::nn::Dense{10}};
//   gw::Value logits = mlp(scope, image);
//   gw::Value answers = mlp(scope, image, {.training = false});   // The same variables.
class Sequential {
 public:
  static constexpr const char* kKind = "sequential";

  Sequential(std::initializer_list<Layer> layers);

  // Applies the layers. All calls in one graph share the variables, which have the names of the first call,
  // whatever scope a call is in; so do the calls of copies. In another graph the layers get new ones.
  Value operator()(Scope& scope, Value x, CallOptions options = {},
                   std::source_location location = std::source_location::current()) const;
  // The same layers with variables of their own.
  Sequential WithOwnVariables() const;

  // As a layer of another one.
  Value Apply(const Context& context, Value x) const;

  // The outputs of the layers at the latest call, by layer name, in order.
  const std::vector<std::pair<std::string, Value>>& outputs() const { return state_->outputs; }
  // All variables so far, by full name.
  const std::map<std::string, Value>& variables() const { return state_->variables.by_full_name; }

 private:
  struct State {
    std::vector<std::pair<std::string, Layer>> layers;  // By name.
    LayerVariables variables;
    std::vector<std::pair<std::string, Value>> outputs;
  };
  std::shared_ptr<State> state_;
};

// Adds the layers' output to their input x. The output has x's shape (He et al., "Deep residual
// learning for image recognition", 2016).
struct Residual {
  static constexpr const char* kKind = "residual";
  Sequential layers;
  Value Apply(const Context& context, Value x) const;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_LAYERS_H_
