#include "gradweave/frontend/recurrent_layers.h"

#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/layer_checks.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/control_flow.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::nn {
namespace {

// The common part of the recurrent layers.
struct Settings {
  const char* layer;
  int64_t features;
  bool backwards;
  bool bias;
  const Initializer& input_initializer;
  const Initializer& recurrent_initializer;
  std::vector<double> gate_biases;  // The initial bias of each gate.
  bool has_cell = false;
  int64_t projection = 0;  // The same as in Lstm.

  // The size of the hidden state.
  int64_t hidden() const { return projection > 0 ? projection : features; }
  int64_t gates() const { return static_cast<int64_t>(gate_biases.size()); }
};

struct Weights {
  Value input, recurrent;  // [features of x, gates * features] and [hidden, gates * features].
  Value bias;              // [gates * features], if the layer has one.
};

// Checks a first state of `features` features. The layer has no such state if there are none.
bool CheckState(const Settings& settings, const Value& x, const char* name, const Value& state, int64_t features) {
  if (state.graph() == nullptr) return true;  // Not given.
  if (!AllValid(settings.layer, {Operand(x), Operand(state)})) return false;
  const TensorType expected{x.dtype(), {x.shape()[0], features}};
  const bool has_one = features > 0;
  if (has_one && state.type() == expected) return true;
  BuilderError(settings.layer, {Operand(x), Operand(state)},
               has_one ? absl::StrCat("the first ", name, " state has to be ", expected.ToString())
                       : absl::StrCat("a ", name, " state is given, and the layer has none"));
  return false;
}

bool CheckInputs(const Context& context, const Settings& settings, const Value& x, const RecurrentState& first) {
  if (!CheckSizes(settings.layer, x, {{"features", settings.features}, {"projection", settings.projection, 0}})) {
    return false;
  }
  if (x.rank() != 3 || !IsFloating(x.dtype())) {
    BuilderError(settings.layer, {Operand(x)},
                 "the input has to be [batch, time, features] with dtype float32 or float64");
    return false;
  }
  if (x.shape()[1] == Dim(0)) {
    BuilderError(settings.layer, {Operand(x)},
                 "the time, axis 1 of the input, is 0 and has to be at least 1; sequences of several lengths can be "
                 "padded to one, and CallOptions::lengths tells how long each is");
    return false;
  }
  return KnownSize(settings.layer, x, 2, 3) > 0 && CheckLengths(settings.layer, x, context.options().lengths) &&
         CheckState(settings, x, "hidden", first.hidden, settings.hidden()) &&
         CheckState(settings, x, "cell", first.cell, settings.has_cell ? settings.features : 0);
}

// Adds a variable [rows, gates * features] whose blocks of columns are initialized separately.
Value GateWeights(const Context& context, absl::string_view name, const Initializer& initializer,
                  const Settings& settings, DType dtype, int64_t rows) {
  auto initial_value = [&](Scope& scope) {
    std::vector<Value> blocks;
    for (int64_t gate = 0; gate < settings.gates(); ++gate)
      blocks.push_back(InitialValue(scope, initializer, dtype, {rows, settings.features}));
    return Concat(blocks, 1);
  };
  return context.Variable(name, initial_value, dtype, {rows, settings.gates() * settings.features});
}

Weights MakeWeights(const Context& context, const Settings& settings, const Value& x) {
  const DType dtype = x.dtype();
  Weights weights;
  weights.input =
      GateWeights(context, "input_weight", settings.input_initializer, settings, dtype, x.shape()[2].size());
  weights.recurrent =
      GateWeights(context, "recurrent_weight", settings.recurrent_initializer, settings, dtype, settings.hidden());
  if (!settings.bias) return weights;
  auto initial_value = [&](Scope& scope) {
    std::vector<Value> blocks;
    for (double bias : settings.gate_biases) blocks.push_back(scope.Full(bias, {settings.features}, dtype));
    return Concat(blocks, 0);
  };
  weights.bias = context.Variable("bias", initial_value, dtype, {settings.gates() * settings.features});
  return weights;
}

// Cuts x [time, batch, columns] into values [batch, columns].
std::vector<Value> CutSteps(const Value& x) {
  std::vector<Value> steps;
  if (!x.valid()) return steps;
  for (const Value& step : Split(x, std::vector<Dim>(x.shape()[0].size(), Dim(1)), 0))
    steps.push_back(Squeeze(step, {0}));
  return steps;
}

// Cuts x [batch, count * features] into its gates.
std::vector<Value> CutGates(const Value& x, int64_t count) {
  if (!x.valid()) return std::vector<Value>(count, x);
  return Split(x, std::vector<Dim>(count, Dim(x.shape()[1].size() / count)), 1);
}

RecurrentResult InvalidResult(const Value& x) { return {Invalid(x), {Invalid(x), Invalid(x)}}; }

// Computes the state after a step from the input's part of the gates, [batch, gates * features],
// and the state before.
using Step = std::function<RecurrentState(const Value& from_input, const RecurrentState& state)>;

// The output of a step, [batch, features], and the state after it. After the end of a sample, which
// `lengths` gives if it is valid, the output is 0 and the state does not change.
struct StepResult {
  Value output;
  RecurrentState state;
};
StepResult TakeStep(const Step& step, const Value& from_input, const RecurrentState& state, const Value& lengths,
                    const Operand& number) {
  RecurrentState next = step(from_input, state);
  if (!lengths.valid()) return {next.hidden, next};
  const Value inside = ExpandDims(Greater(lengths, number), {1});
  const Value output = Where(inside, next.hidden, 0);
  next.hidden = Where(inside, next.hidden, state.hidden);
  if (next.cell.graph() != nullptr) next.cell = Where(inside, next.cell, state.cell);
  return {output, next};
}

// Takes the steps one by one, each with nodes of its own. from_input is [time, batch, gates *
// features].
RecurrentResult TakeKnownSteps(const Settings& settings, const Value& from_input, RecurrentState state,
                               const Value& lengths, const Step& step) {
  const std::vector<Value> steps = CutSteps(from_input);
  const auto time = static_cast<int64_t>(steps.size());
  std::vector<Value> outputs(time);
  for (int64_t i = 0; i < time; ++i) {
    const int64_t t = settings.backwards ? time - 1 - i : i;
    const StepResult taken = TakeStep(step, steps[t], state, lengths, t);
    outputs[t] = ExpandDims(taken.output, {1});
    state = taken.state;
  }
  return {Concat(outputs, 1), state};
}

// Takes the steps in a loop.
RecurrentResult TakeStepsInLoop(const Settings& settings, const Value& from_input, const RecurrentState& state,
                                const Value& lengths, const Step& step) {
  std::vector<Value> states = {state.hidden};
  if (settings.has_cell) states.push_back(state.cell);
  if (lengths.valid()) {
    // The number of the step.
    const Value last = DimSize(from_input, 0, lengths.dtype()) - 1;
    states.push_back(settings.backwards ? last : FullLike(last, 0));
  }
  const ScanResult result = Scan(states, {from_input},
                                 [&](const std::vector<Value>& before, const std::vector<Value>& slices) {
                                   const RecurrentState of_step = {before[0], settings.has_cell ? before[1] : Value()};
                                   const StepResult taken = TakeStep(step, slices[0], of_step, lengths, before.back());
                                   ScanStep after = {.states = {taken.state.hidden}, .outputs = {taken.output}};
                                   if (settings.has_cell) after.states.push_back(taken.state.cell);
                                   if (lengths.valid())
                                     after.states.push_back(before.back() + (settings.backwards ? -1 : 1));
                                   return after;
                                 },
                                 {.output_axes = {1}, .reverse = settings.backwards});
  return {result.outputs[0], {result.states[0], settings.has_cell ? result.states[1] : Value()}};
}

// Sequences of more steps run in a loop: it has a plan of one step, whose time and memory do not
// grow with the length.
constexpr int64_t kMostKnownSteps = 64;

// Takes the steps. The input's part of the gates is one product for all steps.
RecurrentResult TakeSteps(const Context& context, const Settings& settings, const Value& x, RecurrentState state,
                          const Weights& weights, const Step& step) {
  const Value product = MatMul(Transpose(x, {1, 0, 2}), weights.input);
  const Value from_input = settings.bias ? Add(product, weights.bias) : product;
  if (!from_input.valid()) return InvalidResult(x);
  auto zeros = [&](int64_t features) { return context.scope().Full(0, {x.shape()[0], features}, x.dtype()); };
  if (state.hidden.graph() == nullptr) state.hidden = zeros(settings.hidden());
  if (state.cell.graph() == nullptr && settings.has_cell) state.cell = zeros(settings.features);
  const Value& lengths = context.options().lengths;
  const Dim& time = x.shape()[1];
  return time.is_known() && time.size() <= kMostKnownSteps
             ? TakeKnownSteps(settings, from_input, state, lengths, step)
             : TakeStepsInLoop(settings, from_input, state, lengths, step);
}

}  // namespace

RecurrentResult Lstm::Apply(const Context& context, Value x, const Inputs& inputs) const {
  const Settings settings = {.layer = "Lstm",
                             .features = features,
                             .backwards = backwards,
                             .bias = bias,
                             .input_initializer = input_initializer,
                             .recurrent_initializer = recurrent_initializer,
                             .gate_biases = {0, forget_bias, 0, 0},
                             .has_cell = true,
                             .projection = projection};
  if (!CheckInputs(context, settings, x, inputs.state) ||
      !CheckNumbers(context.scope().graph(), "Lstm", {{"forget_bias", forget_bias, NumberCheck::kFinite}})) {
    return InvalidResult(x);
  }
  const Weights w = MakeWeights(context, settings, x);
  std::vector<Value> peephole;  // The weights of i, f and o.
  if (peepholes) {
    peephole = Split(context.Variable("peephole_weight", nn::Constant{0}, x.dtype(), {3 * features}),
                     {features, features, features}, 0);
  }
  Value projection_weight;
  if (projection > 0) {
    projection_weight = context.Variable("projection_weight", input_initializer, x.dtype(), {features, projection});
  }
  return TakeSteps(context, settings, x, inputs.state, w, [&](const Value& from_input, const RecurrentState& state) {
    std::vector<Value> gates = CutGates(Add(from_input, MatMul(state.hidden, w.recurrent)), 4);
    auto look = [&](int gate, int i, const Value& cell) {
      if (peepholes) gates[gate] = Add(gates[gate], Mul(peephole[i], cell));
    };
    look(0, 0, state.cell);
    look(1, 1, state.cell);
    const Value cell = Add(Mul(gradweave::Sigmoid(gates[1]), state.cell),
                           Mul(gradweave::Sigmoid(gates[0]), gradweave::Tanh(gates[2])));
    look(3, 2, cell);
    const Value hidden = Mul(gradweave::Sigmoid(gates[3]), gradweave::Tanh(cell));
    return RecurrentState{projection > 0 ? MatMul(hidden, projection_weight) : hidden, cell};
  });
}

RecurrentResult Gru::Apply(const Context& context, Value x, const Inputs& inputs) const {
  const Settings settings = {.layer = "Gru",
                             .features = features,
                             .backwards = backwards,
                             .bias = bias,
                             .input_initializer = input_initializer,
                             .recurrent_initializer = recurrent_initializer,
                             .gate_biases = {0, 0, 0}};
  if (!CheckInputs(context, settings, x, inputs.state)) return InvalidResult(x);
  const Weights w = MakeWeights(context, settings, x);
  const Value recurrent_bias =
      bias && reset_after ? context.Variable("recurrent_bias", nn::Constant{0}, x.dtype(), {features}) : Value();
  const std::vector<Value> recurrent = reset_after ? std::vector<Value>() : CutGates(w.recurrent, 3);
  return TakeSteps(context, settings, x, inputs.state, w, [&](const Value& from_input, const RecurrentState& state) {
    const std::vector<Value> of_x = CutGates(from_input, 3);
    const Value& h = state.hidden;
    auto product = [&](int gate) { return MatMul(h, recurrent[gate]); };
    const std::vector<Value> of_h =
        reset_after ? CutGates(MatMul(h, w.recurrent), 3) : std::vector<Value>{product(0), product(1)};
    const Value reset = gradweave::Sigmoid(Add(of_x[0], of_h[0])), update = gradweave::Sigmoid(Add(of_x[1], of_h[1]));
    Value candidate;
    if (!reset_after) {
      candidate = MatMul(Mul(reset, h), recurrent[2]);
    } else {
      candidate = Mul(reset, bias ? Add(of_h[2], recurrent_bias) : of_h[2]);
    }
    candidate = gradweave::Tanh(Add(of_x[2], candidate));
    return RecurrentState{Add(Mul(Sub(1, update), candidate), Mul(update, h))};
  });
}

RecurrentResult Rnn::Apply(const Context& context, Value x, const Inputs& inputs) const {
  const Settings settings = {.layer = "Rnn",
                             .features = features,
                             .backwards = backwards,
                             .bias = bias,
                             .input_initializer = input_initializer,
                             .recurrent_initializer = recurrent_initializer,
                             .gate_biases = {0}};
  if (!CheckInputs(context, settings, x, inputs.state)) return InvalidResult(x);
  const Weights w = MakeWeights(context, settings, x);
  return TakeSteps(context, settings, x, inputs.state, w, [&](const Value& from_input, const RecurrentState& state) {
    const Value sum = Add(from_input, MatMul(state.hidden, w.recurrent));
    return RecurrentState{activation == kTanh ? gradweave::Tanh(sum) : gradweave::Relu(sum)};
  });
}

namespace {

Value Merged(Bidirectional::Merge merge, const Value& forward, const Value& backward) {
  if (!forward.valid() || !backward.valid()) return Invalid(forward);
  return merge == Bidirectional::kSum ? Add(forward, backward) : Concat({forward, backward}, -1);
}

// The results of a layer from the states before the first step, of which Bidirectional has two.
template <typename L>
RecurrentStack::Result ApplyLayer(const L& layer, const Context& context, const Value& x, const RecurrentState* first) {
  const RecurrentResult result = layer.Apply(context, x, RecurrentInputs{*first});
  return {result.sequence, {result.state}};
}
RecurrentStack::Result ApplyLayer(const Bidirectional& layer, const Context& context, const Value& x,
                                  const RecurrentState* first) {
  const Bidirectional::Result result = layer.Apply(context, x, {first[0], first[1]});
  return {result.sequence, {result.forward, result.backward}};
}

// Returns its output as a layer of a Sequential.
template <typename L>
Value OutputOf(const L& layer, const RecurrentStack::Result& result) {
  return layer.whole_sequence ? result.sequence : result.states[0].hidden;
}
Value OutputOf(const Bidirectional& layer, const RecurrentStack::Result& result) {
  const bool whole_sequence = std::visit([](const auto& one) { return one.whole_sequence; }, layer.layer);
  return whole_sequence ? result.sequence : Merged(layer.merge, result.states[0].hidden, result.states[1].hidden);
}

}  // namespace

Value Lstm::Apply(const Context& context, Value x) const {
  const RecurrentState first;
  return OutputOf(*this, ApplyLayer(*this, context, x, &first));
}
Value Gru::Apply(const Context& context, Value x) const {
  const RecurrentState first;
  return OutputOf(*this, ApplyLayer(*this, context, x, &first));
}
Value Rnn::Apply(const Context& context, Value x) const {
  const RecurrentState first;
  return OutputOf(*this, ApplyLayer(*this, context, x, &first));
}

Bidirectional::Result Bidirectional::Apply(const Context& context, Value x, const Inputs& inputs) const {
  return std::visit(
      [&](auto one) -> Result {
        if (one.backwards) {
          const Value invalid = BuilderError("Bidirectional", {Operand(x)},
                                             "backwards of the layer has to be false: both directions are taken");
          return {invalid, InvalidResult(x).state, InvalidResult(x).state};
        }
        auto apply = [&](const char* name, const RecurrentState& first) {
          Scope scope(context.scope(), name);
          return one.Apply(Context(scope, context.options(), context.variables()), x, RecurrentInputs{first});
        };
        const RecurrentResult forward = apply("forward", inputs.forward);
        one.backwards = true;
        const RecurrentResult backward = apply("backward", inputs.backward);
        return {Merged(merge, forward.sequence, backward.sequence), forward.state, backward.state};
      },
      layer);
}

Value Bidirectional::Apply(const Context& context, Value x) const {
  const RecurrentState first[2];
  return OutputOf(*this, ApplyLayer(*this, context, x, first));
}

RecurrentStack::Result RecurrentStack::Apply(const Context& context, Value x, const Inputs& inputs) const {
  size_t states = 0;
  for (const auto& layer : layers) states += std::holds_alternative<Bidirectional>(layer) ? 2 : 1;
  Graph& graph = context.scope().graph();
  auto failed = [&](const Value& invalid) -> Result {
    return {invalid, std::vector<RecurrentState>(states, InvalidResult(invalid).state)};
  };
  auto error = [&](absl::string_view message) { return failed(BuilderError("RecurrentStack", {Operand(x)}, message)); };
  if (layers.empty()) return error("there are no layers, and at least one is needed");
  if (!inputs.states.empty() && inputs.states.size() != states) {
    return error(absl::StrCat("there are ", inputs.states.size(), " first states, and the layers have ", states,
                              ", of which a Bidirectional has two"));
  }
  if (!CheckNumbers(graph, "RecurrentStack", {{"dropout", dropout, NumberCheck::kBelowOne}})) {
    return failed(Invalid(x));
  }
  const std::vector<RecurrentState> first = inputs.states.empty() ? std::vector<RecurrentState>(states) : inputs.states;
  Result result = {x, {}};
  for (size_t i = 0; i < layers.size(); ++i) {
    if (i > 0 && context.training() && dropout > 0 && result.sequence.valid()) {
      result.sequence = gradweave::Dropout(result.sequence, dropout);
    }
    Scope scope(context.scope(), absl::StrCat("layer_", i + 1));
    const Context inner(scope, context.options(), context.variables());
    Result of_layer = std::visit(
        [&](const auto& layer) { return ApplyLayer(layer, inner, result.sequence, &first[result.states.size()]); },
        layers[i]);
    result.sequence = of_layer.sequence;
    result.states.insert(result.states.end(), of_layer.states.begin(), of_layer.states.end());
  }
  return result;
}

Value RecurrentStack::Apply(const Context& context, Value x) const {
  Result result = Apply(context, x, Inputs{});
  if (!result.sequence.valid()) return result.sequence;
  return std::visit(
      [&](const auto& last) {
        const auto begin = result.states.end() - (std::is_same_v<decltype(last), const Bidirectional&> ? 2 : 1);
        result.states.erase(result.states.begin(), begin);
        return OutputOf(last, result);
      },
      layers.back());
}

}  // namespace gradweave::nn
