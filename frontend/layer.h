// Layers: their interface, the arguments of a call, and Sequential, which joins layers.
#ifndef GRADWEAVE_FRONTEND_LAYER_H_
#define GRADWEAVE_FRONTEND_LAYER_H_

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "gradweave/frontend/initializers.h"
#include "gradweave/ops/scope.h"

namespace gradweave::nn {

class KeyValueCache;

// Options of one application of layers.
struct CallOptions {
  bool training = true;  // In training, Dropout drops and BatchNorm uses the batch's statistics.
  // Values to use instead of variables, by the variables' full names, with the variables' types.
  // For example, a call can use the weights after a step, and gradients then flow through the step.
  std::map<std::string, Value> values = {};
  // The number of steps of each sample in a batch of sequences [batch, time, ...], int32 or int64
  // [batch]; the other steps are padding. Recurrent layers and self-attention ignore the padding.
  // If not given, all steps count.
  Value lengths = {};
  // If it is not null, causal attention also attends to the steps of earlier runs
  // (frontend/key_value_cache.h).
  KeyValueCache* cache = nullptr;
};

// The variables that the calls of a model share.
struct LayerVariables {
  struct Shared {
    std::string full_name;
    Value value;
  };
  std::string root;                      // The name prefix of the scope of the current call.
  std::map<std::string, Shared> shared;  // Indexed by name behind the root of the call that made them.
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

  // Returns the layer's variable of that name. An earlier call in this graph, in any scope, has
  // made it; otherwise it is new and has the current scope's prefix. If the options give a value in
  // its place, returns that value. Records an error in the graph if the type differs from the
  // earlier call's.
  Value Variable(absl::string_view name, const Initializer& initializer, DType dtype, const Shape& shape,
                 VariableOptions options = {}) const;
  // The same with an initial value that the function adds to the graph. It is called for a new
  // variable only, and must then not be null.
  Value Variable(absl::string_view name, const std::function<Value(Scope&)>& initial_value, DType dtype,
                 const Shape& shape, VariableOptions options = {}) const;

 private:
  Scope& scope_;
  CallOptions options_;
  LayerVariables& variables_;
};

// True for types of functions from Value to Value.
template <typename L>
inline constexpr bool kIsFunctionOfValue = std::is_invocable_r_v<Value, const L&, Value>;

// True for types that a Layer can hold.
template <typename L>
inline constexpr bool kIsLayer = kIsFunctionOfValue<L> || requires(const L& layer, const Context& context, Value x) {
  layer.Apply(context, x);
};

// Any layer: one of those in frontend/layers.h, another Sequential, a function of a value such as
// [](gw::Value x) { return gw::Transpose(x, {0, 2, 1}); }, or a type of the user's with Apply. Its
// kind, the base of its variables' names, is a static member kKind, or the result of a member
// function Kind(), or "layer".
//
//   struct Scale {
//     gw::Value Apply(const gw::nn::Context& context, gw::Value x) const {
//       return x * context.Variable("factor", gw::nn::Constant{1}, x.dtype(), {});
//     }
//   };
//
// A null function, such as an empty std::function, is an error of the call that applies it.
class Layer {
 public:
  template <typename L>
  requires(!std::is_same_v<L, Layer> && kIsLayer<L>) Layer(L layer)  // NOLINT: Sequential{Dense{10}}
      : kind_(KindOf(layer)), apply_([layer = std::move(layer)](const Context& context, Value x) -> Value {
          if constexpr (kIsFunctionOfValue<L>) {
            return IsNull(layer) ? NullFunction(x) : layer(x);
          } else {
            return layer.Apply(context, x);
          }
        }) {}

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

  // True for a null pointer and an empty std::function.
  template <typename L>
  static bool IsNull(const L& layer) {
    if constexpr (std::is_pointer_v<L>) {
      return layer == nullptr;
    } else if constexpr (requires { layer.operator bool(); }) {
      return !layer;
    } else {
      return false;
    }
  }
  // Records the error of a null function and returns an invalid value.
  static Value NullFunction(const Value& x);

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

  Sequential(std::initializer_list<Layer> layers) : Sequential(std::vector<Layer>(layers)) {}
  // The same for layers that a program collects, for example in a loop.
  Sequential(std::vector<Layer> layers);  // NOLINT: Residual{.layers = layers}

  // Applies the layers. All calls in one graph share the variables, in any scope; the first call
  // determines their names. Copies of this object share them too. In another graph the layers get
  // new variables.
  Value operator()(Scope& scope, Value x, CallOptions options = {},
                   std::source_location location = std::source_location::current()) const;
  // The same layers with variables of their own.
  Sequential WithOwnVariables() const;

  // Applies it as a layer of another model.
  Value Apply(const Context& context, Value x) const;

  // The outputs of the layers at the latest call, by layer name, in order.
  const std::vector<std::pair<std::string, Value>>& outputs() const { return state_->outputs; }
  // All variables so far, by full name.
  const std::map<std::string, Value>& variables() const { return state_->variables.by_full_name; }

 private:
  struct State {
    std::vector<std::pair<std::string, Layer>> layers;  // Indexed by name.
    LayerVariables variables;
    std::vector<std::pair<std::string, Value>> outputs;
  };
  std::shared_ptr<State> state_;
};

// Adds the layers' output to their input x (He et al., "Deep residual learning for image
// recognition", 2016). An output with another shape than x is an error.
struct Residual {
  static constexpr const char* kKind = "residual";
  Sequential layers;
  Value Apply(const Context& context, Value x) const;
};

// A layer that is called by itself, with inputs beside x: the first state of a recurrent layer, the
// keys and the mask of attention. It returns all results of the layer. All calls in one graph share
// the variables, whose names begin with `name`.
//
//   const gw::nn::Standalone encoder("encoder", gw::nn::Gru{.features = 64});
//   const gw::nn::Standalone decoder("decoder", gw::nn::Gru{.features = 64});
//   gw::nn::RecurrentState code = encoder(scope, source, {}, {.lengths = source_lengths}).state;
//   gw::Value outputs = decoder(scope, target, {.state = code}).sequence;
//
// L has the types Inputs and Result and Result Apply(const Context&, Value x, const Inputs&) const.
template <typename L>
class Standalone {
 public:
  Standalone(std::string name, L layer)
      : name_(std::move(name)), layer_(std::move(layer)), variables_(std::make_shared<LayerVariables>()) {}

  typename L::Result operator()(Scope& scope, Value x, typename L::Inputs inputs = {}, CallOptions options = {},
                                std::source_location location = std::source_location::current()) const {
    const LocationGuard guard(scope.graph(), scope.graph().builder().location.file != nullptr
                                                 ? SourceLocation()
                                                 : ToSourceLocation(location));
    variables_->root = scope.graph().builder().name_prefix;
    Scope own(scope, name_);
    return layer_.Apply(Context(own, std::move(options), *variables_), x, inputs);
  }

  // All variables so far, by full name.
  const std::map<std::string, Value>& variables() const { return variables_->by_full_name; }

 private:
  std::string name_;
  L layer_;
  std::shared_ptr<LayerVariables> variables_;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_LAYER_H_
