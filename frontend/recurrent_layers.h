// Recurrent layers on sequences [batch, time, features].
//
// The length, axis 1, may be a symbol. Steps run in a loop (ops/control_flow.h) if the length is a
// symbol or large; a few known steps become nodes of the graph. Sequences of different lengths in a
// batch are padded to the longest; CallOptions::lengths gives their lengths. A sample's state then
// stops at its end, and its outputs after the end are 0.
// In a Sequential a layer returns its whole sequence, or the last state. A Standalone layer also
// takes a first state, and returns both:
//
//   const gw::nn::Standalone encoder("encoder", gw::nn::Lstm{.features = 128});
//   const auto [sequence, state] = encoder(scope, x, {.state = first}, {.lengths = lengths});
//
// RecurrentStack stacks layers, with Dropout between them.
//
// Weights have a block of columns for each gate, and each block is initialized by itself. A weight
// of PyTorch is the transpose of ours, with the gates in the same order.
#ifndef GRADWEAVE_FRONTEND_RECURRENT_LAYERS_H_
#define GRADWEAVE_FRONTEND_RECURRENT_LAYERS_H_

#include <cstdint>
#include <variant>
#include <vector>

#include "gradweave/frontend/initializers.h"
#include "gradweave/frontend/layer.h"

namespace gradweave::nn {

// The values that a recurrent layer carries from one step to the next.
struct RecurrentState {
  Value hidden = {};  // [batch, features]; [batch, projection] if Lstm has a projection.
  Value cell = {};    // [batch, features]; only Lstm has one.
};

struct RecurrentInputs {
  RecurrentState state = {};  // The state before the first step. Values that are not given are zero.
};

struct RecurrentResult {
  Value sequence;        // The hidden states after all steps, [batch, time, size of the state].
  RecurrentState state;  // The state after the last step of each sample.
};

// Long short-term memory (Hochreiter and Schmidhuber, 1997; with forget gates, Gers et al.,
// "Learning to forget", 2000). With the columns i, f, g, o of x W + h R + b:
//   c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
//   h' = sigmoid(o) * tanh(c')
// With peepholes p, the gates are i + p_i * c, f + p_f * c and o + p_o * c' (Gers and Schmidhuber,
// "Recurrent nets that time and count", 2000). With a projection P, the hidden state is h' P (Sak
// et al., "Long short-term memory recurrent neural network architectures", 2014). Variables:
// input_weight [features of x, 4 * features], recurrent_weight [features of h, 4 * features], bias
// [4 * features], which is the sum of PyTorch's two; peephole_weight [3 * features] for i, f and o,
// which begins with 0; projection_weight [features, projection].
struct Lstm {
  static constexpr const char* kKind = "lstm";
  using Inputs = RecurrentInputs;
  using Result = RecurrentResult;
  int64_t features = 0;        // The size of the state and of the output.
  bool whole_sequence = true;  // In a Sequential: returns the sequence, or the last hidden state [batch, features].
  bool backwards = false;      // Takes the steps from the last to the first. Outputs stay at their steps.
  bool bias = true;
  double forget_bias = 1;  // Initial bias of f (Jozefowicz et al., "An empirical exploration", 2015).
  bool peepholes = false;
  int64_t projection = 0;  // The size of the hidden state; 0: no projection, and it is `features`.
  Initializer input_initializer = XavierUniform{};
  Initializer recurrent_initializer = Orthogonal{};
  Value Apply(const Context& context, Value x) const;
  Result Apply(const Context& context, Value x, const Inputs& inputs) const;
};

// Gated recurrent unit (Cho et al., "Learning phrase representations", 2014). With the columns r,
// z, n of x W + b and h R, r = sigmoid(..), z = sigmoid(..) of their sums:
//   reset_after:  n = tanh(xW_n + b_n + r * (h R_n + recurrent_bias)), as in PyTorch and cuDNN
//   otherwise:    n = tanh(xW_n + b_n + (r * h) R_n), the paper's form
//   h' = (1 - z) * n + z * h
// Variables: input_weight [features of x, 3 * features], recurrent_weight [features, 3 * features],
// bias [3 * features], which is the sum of PyTorch's two biases for r and z, and PyTorch's bias of
// the input for n; with reset_after also recurrent_bias [features], PyTorch's second bias of n.
struct Gru {
  static constexpr const char* kKind = "gru";
  using Inputs = RecurrentInputs;
  using Result = RecurrentResult;
  int64_t features = 0;
  bool whole_sequence = true;  // The same as in Lstm.
  bool backwards = false;      // The same as in Lstm.
  bool reset_after = true;
  bool bias = true;
  Initializer input_initializer = XavierUniform{};
  Initializer recurrent_initializer = Orthogonal{};
  Value Apply(const Context& context, Value x) const;
  Result Apply(const Context& context, Value x, const Inputs& inputs) const;
};

// h' = f(x W + h R + b), where f is tanh or relu (Elman, "Finding structure in time", 1990).
// Variables: input_weight [features of x, features], recurrent_weight [features, features], bias
// [features], the sum of PyTorch's two.
struct Rnn {
  static constexpr const char* kKind = "rnn";
  using Inputs = RecurrentInputs;
  using Result = RecurrentResult;
  enum Activation { kTanh, kRelu };
  int64_t features = 0;
  Activation activation = kTanh;
  bool whole_sequence = true;  // The same as in Lstm.
  bool backwards = false;      // The same as in Lstm.
  bool bias = true;
  Initializer input_initializer = XavierUniform{};
  Initializer recurrent_initializer = Orthogonal{};
  Value Apply(const Context& context, Value x) const;
  Result Apply(const Context& context, Value x, const Inputs& inputs) const;
};

// Two layers of the same settings, one in each direction (Schuster and Paliwal, "Bidirectional
// recurrent neural networks", 1997). Joins their outputs: [batch, time, 2 * features], forward
// first, or the sum. Without whole_sequence it joins the last states of both directions. Variables:
// the layer's variables, under forward/ and backward/.
struct Bidirectional {
  static constexpr const char* kKind = "bidirectional";
  struct Inputs {
    RecurrentState forward = {}, backward = {};  // The states before the first step.
  };
  struct Result {
    Value sequence;
    RecurrentState forward, backward;  // The states after the last step that each direction takes.
  };
  enum Merge { kConcat, kSum };
  std::variant<Lstm, Gru, Rnn> layer;  // Its `backwards` must be false.
  Merge merge = kConcat;
  Value Apply(const Context& context, Value x) const;
  Result Apply(const Context& context, Value x, const Inputs& inputs) const;
};

// Stacked layers: each takes the sequence of the previous one. In training, Dropout drops elements
// of each sequence except the last one, as PyTorch's layers with num_layers do. In a Sequential it
// returns the result of its last layer; whole_sequence of the other layers is ignored. Variables:
// the layers' variables, under layer_1/, layer_2/, ...
struct RecurrentStack {
  static constexpr const char* kKind = "recurrent_stack";
  // The states of the layers in order; Bidirectional has two, the forward one first.
  struct Inputs {
    // The states before the first step. None: all are zero.
    std::vector<RecurrentState> states = {};
  };
  struct Result {
    Value sequence;                      // The sequence of the last layer.
    std::vector<RecurrentState> states;  // The states after the last steps.
  };
  std::vector<std::variant<Lstm, Gru, Rnn, Bidirectional>> layers;  // At least one.
  double dropout = 0;                                               // The rate, in [0, 1).
  Value Apply(const Context& context, Value x) const;
  Result Apply(const Context& context, Value x, const Inputs& inputs) const;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_RECURRENT_LAYERS_H_
