// ONNX's recurrent layers: a Scan, or a few known steps one after another.
#include <algorithm>
#include <functional>

#include "absl/strings/ascii.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/control_flow.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

using Activation = std::function<Value(Value)>;

absl::StatusOr<Activation> ActivationOf(const Call& call, const std::string& given, std::optional<double> alpha,
                                        std::optional<double> beta) {
  const std::string name = absl::AsciiStrToLower(given);
  auto a = [&](double otherwise) { return alpha.value_or(otherwise); };
  auto b = [&](double otherwise) { return beta.value_or(otherwise); };
  if (name == "sigmoid") return Activation([](Value x) { return Sigmoid(x); });
  if (name == "tanh") return Activation([](Value x) { return Tanh(x); });
  if (name == "relu") return Activation([](Value x) { return Relu(x); });
  if (name == "softplus") return Activation([](Value x) { return Softplus(x); });
  if (name == "softsign") return Activation([](Value x) { return Div(x, Add(Abs(x), 1)); });
  if (name == "leakyrelu") return Activation([a = a(0.01)](Value x) { return LeakyRelu(x, a); });
  if (name == "elu") return Activation([a = a(1)](Value x) { return Elu(x, a); });
  if (name == "thresholdedrelu") return Activation([a = a(1)](Value x) { return Where(Greater(x, a), x, 0); });
  if (name == "affine") return Activation([a = a(1), b = b(0)](Value x) { return Add(Mul(x, a), b); });
  if (name == "scaledtanh") return Activation([a = a(1), b = b(1)](Value x) { return Mul(Tanh(Mul(x, b)), a); });
  if (name == "hardsigmoid")
    return Activation([a = a(0.2), b = b(0.5)](Value x) { return Clip(Add(Mul(x, a), b), 0, 1); });
  return call.Refuse("the activation '", given, "' is not imported");
}

// One direction of a layer, with its weights.
struct Cell {
  Value recurrent;               // R [gates*hidden, hidden].
  Value input_bias, state_bias;  // [gates*hidden]; may be invalid.
  Value peepholes;               // [3*hidden]; may be invalid.
  std::vector<Activation> activations;
  int64_t hidden = 0;
  double clip = 0;                   // 0: none.
  bool couples = false;              // LSTM: the forget gate is one minus the input gate.
  bool linear_before_reset = false;  // GRU.

  Value Clipped(Value x) const { return clip > 0 ? Clip(x, -clip, clip) : x; }
  // Gate `i` of a row of gates.
  Value Gate(Value gates, int64_t i) const { return SliceAxis(gates, -1, i * hidden, (i + 1) * hidden); }
};

struct State {
  Value h, c;
};
// The next state from the input's part of the gates, X W^T + Wb, [n, gates*hidden].
using Step = State (*)(const Cell& cell, Value x, const State& state);

Value OfState(const Cell& cell, Value h) {
  const Value y = MatMul(h, cell.recurrent, {.transpose_b = true});
  return cell.state_bias.valid() ? Add(y, cell.state_bias) : y;
}

State RnnStep(const Cell& cell, Value x, const State& state) {
  return {cell.activations[0](cell.Clipped(Add(x, OfState(cell, state.h)))), {}};
}

// Gates z, r, h.
State GruStep(const Cell& cell, Value x, const State& state) {
  const auto& f = cell.activations;
  const Value r = OfState(cell, state.h);
  const Value update = f[0](cell.Clipped(Add(cell.Gate(x, 0), cell.Gate(r, 0))));
  const Value reset = f[0](cell.Clipped(Add(cell.Gate(x, 1), cell.Gate(r, 1))));
  Value inner;
  if (cell.linear_before_reset) {
    inner = Mul(reset, cell.Gate(r, 2));
  } else {
    const Value weights = SliceAxis(cell.recurrent, 0, 2 * cell.hidden, 3 * cell.hidden);
    inner = MatMul(Mul(reset, state.h), weights, {.transpose_b = true});
    if (cell.state_bias.valid()) inner = Add(inner, cell.Gate(cell.state_bias, 2));
  }
  const Value candidate = f[1](cell.Clipped(Add(cell.Gate(x, 2), inner)));
  return {Add(Mul(Sub(1, update), candidate), Mul(update, state.h)), {}};
}

// Gates i, o, f, c; peepholes i, o, f.
State LstmStep(const Cell& cell, Value x, const State& state) {
  const auto& f = cell.activations;
  const Value gates = Add(x, OfState(cell, state.h));
  auto gate = [&](int64_t i, int64_t peephole, const Value& c) {
    Value value = cell.Gate(gates, i);
    if (cell.peepholes.valid() && peephole >= 0) value = Add(value, Mul(cell.Gate(cell.peepholes, peephole), c));
    return cell.Clipped(value);
  };
  const Value input = f[0](gate(0, 0, state.c));
  const Value forget = cell.couples ? Sub(1, input) : f[0](gate(2, 2, state.c));
  const Value c = Add(Mul(forget, state.c), Mul(input, f[1](gate(3, -1, state.c))));
  const Value output = f[0](gate(1, 1, c));
  return {Mul(output, f[2](c)), c};
}

struct Kind {
  int64_t gates;
  std::vector<std::string> activations;
  Step step;
  bool has_cell;
};

// Runs the steps of inputs [steps, batch, gates*hidden], whose sequences have these lengths if they
// are valid. Returns the states h [steps, batch, hidden], and leaves the last one in `state`.
Value RunSteps(const Kind& kind, const Cell& cell, Value inputs, Value lengths, bool reverse, State& state) {
  // Returns the output, and changes the state.
  auto step = [&](Value x, Operand t, State& at) {
    State next = kind.step(cell, x, at);
    Value output = next.h;
    if (lengths.valid()) {
      // After its end, a sequence keeps its state and gives zeros.
      const Value counts = Greater(lengths, t);
      output = Where(counts, next.h, 0);
      next.h = Where(counts, next.h, at.h);
      if (kind.has_cell) next.c = Where(counts, next.c, at.c);
    }
    at = next;
    return output;
  };
  constexpr int64_t kMostUnrolled = 4;
  const Dim steps = SizeAt(inputs.shape(), 0);
  if (steps.is_known() && steps.size() <= kMostUnrolled && steps.size() > 0) {
    std::vector<Value> outputs(static_cast<size_t>(steps.size()));
    for (int64_t i = 0; i < steps.size(); ++i) {
      const int64_t t = reverse ? steps.size() - 1 - i : i;
      outputs[static_cast<size_t>(t)] = ExpandDims(step(Squeeze(SliceAxis(inputs, 0, t, t + 1), {0}), t, state), {0});
    }
    return Concat(outputs, 0);
  }
  std::vector<Value> states = {state.h}, slices = {inputs};
  if (kind.has_cell) states.push_back(state.c);
  if (lengths.valid()) slices.push_back(RangeLike(inputs, steps));
  const ScanResult result =
      Scan(states, slices,
           [&](const std::vector<Value>& before, const std::vector<Value>& parts) {
             State at{before[0], kind.has_cell ? before[1] : Value()};
             const Value output = step(parts[0], lengths.valid() ? Operand(parts[1]) : Operand(0), at);
             return ScanStep{.states = kind.has_cell ? std::vector<Value>{at.h, at.c} : std::vector<Value>{at.h},
                             .outputs = {output}};
           },
           {.reverse = reverse});
  if (result.outputs.empty()) return {};  // The graph has the error.
  state = {result.states[0], kind.has_cell ? result.states[1] : Value()};
  return result.outputs[0];
}

// The layer's activations, those of the second direction behind those of the first one.
absl::StatusOr<std::vector<Activation>> ActivationsOf(const Call& call, const Kind& kind, int64_t directions) {
  std::vector<std::string> names;
  for (int64_t d = 0; d < directions; ++d) names.insert(names.end(), kind.activations.begin(), kind.activations.end());
  const size_t count = names.size();
  if (const proto::Attribute* given = call.Find("activations"); given != nullptr)
    names.assign(given->strings().begin(), given->strings().end());
  if (names.size() != count) return call.Wrong("it has too few activations");
  auto number = [&](absl::string_view name, size_t i) -> std::optional<double> {
    const proto::Attribute* list = call.Find(name);
    if (list == nullptr || i >= static_cast<size_t>(list->floats_size())) return std::nullopt;
    return list->floats(static_cast<int>(i));
  };
  std::vector<Activation> activations;
  for (size_t i = 0; i < count; ++i) {
    GW_ASSIGN_OR_RETURN(Activation activation,
                        ActivationOf(call, names[i], number("activation_alpha", i), number("activation_beta", i)));
    activations.push_back(std::move(activation));
  }
  return activations;
}

// The part of `value` for direction `d`, without the axis of directions.
Value OfDirection(const Value& value, int64_t axis, int64_t d) {
  return Squeeze(SliceAxis(value, axis, d, d + 1), {axis});
}

// The weights and numbers of direction `d`.
Cell CellOf(const Call& call, const Kind& kind, const std::vector<Activation>& activations, int64_t hidden, int64_t d) {
  Cell cell{.recurrent = OfDirection(call.In(2), 0, d),
            .hidden = hidden,
            .clip = call.Float("clip", 0),
            .couples = call.Int("input_forget", 0) != 0,
            .linear_before_reset = call.Int("linear_before_reset", 0) != 0};
  const auto first = activations.begin() + d * static_cast<int64_t>(kind.activations.size());
  cell.activations.assign(first, first + static_cast<int64_t>(kind.activations.size()));
  if (call.Has(3)) {
    const Value bias = OfDirection(call.In(3), 0, d);
    cell.input_bias = SliceAxis(bias, 0, 0, kind.gates * hidden);
    cell.state_bias = SliceAxis(bias, 0, kind.gates * hidden, 2 * kind.gates * hidden);
  }
  if (kind.has_cell && call.Has(7)) cell.peepholes = OfDirection(call.In(7), 0, d);
  return cell;
}

absl::Status Layer(Call& call, const Kind& kind) {
  const bool batch_first = call.Int("layout", 0) != 0;
  Value x = call.In(0);
  if (x.rank() != 3) return call.Wrong("its input needs three axes");
  if (batch_first) x = Transpose(x, {1, 0, 2});
  const Dim steps = SizeAt(x.shape(), 0), batch = SizeAt(x.shape(), 1);
  const Value w = call.In(1), r = call.In(2);
  if (w.rank() != 3 || r.rank() != 3 || !SizeAt(r.shape(), 2).is_known())
    return call.Wrong("its weights need three axes");
  const int64_t hidden = call.Int("hidden_size", SizeAt(r.shape(), 2).size());
  const std::string direction = call.Text("direction", "forward");
  const int64_t directions = direction == "bidirectional" ? 2 : 1;
  if (!(SizeAt(w.shape(), 0) == Dim(directions)) || !(SizeAt(r.shape(), 0) == Dim(directions)))
    return call.Wrong("its weights do not fit its direction");
  GW_ASSIGN_OR_RETURN(const std::vector<Activation> activations, ActivationsOf(call, kind, directions));
  Value lengths;
  if (call.Has(4)) lengths = Reshape(Cast(call.In(4), kInt64), {batch, 1});
  std::vector<Value> sequences, last_h, last_c;
  for (int64_t d = 0; d < directions; ++d) {
    auto initial = [&](int i) -> Value {
      if (!call.Has(i)) return call.scope().Full(0, {batch, hidden}, x.dtype());
      return OfDirection(call.In(i), batch_first ? 1 : 0, d);
    };
    const Cell cell = CellOf(call, kind, activations, hidden, d);
    Value inputs = MatMul(x, OfDirection(w, 0, d), {.transpose_b = true});
    if (cell.input_bias.valid()) inputs = Add(inputs, cell.input_bias);
    for (const int i : {5, 6}) {
      if (call.Has(i) && call.Rank(i) == 3)
        GW_RETURN_IF_ERROR(call.RequireEqual(batch, SizeAt(call.Type(i).shape, batch_first ? 0 : 1), "its batch"));
    }
    State state{initial(5), kind.has_cell ? initial(6) : Value()};
    const Value sequence = RunSteps(kind, cell, inputs, lengths, direction == "reverse" || d == 1, state);
    sequences.push_back(ExpandDims(sequence, {1}));  // [steps, 1, batch, hidden].
    last_h.push_back(ExpandDims(state.h, {0}));
    if (kind.has_cell) last_c.push_back(ExpandDims(state.c, {0}));
  }
  auto joined = [](const std::vector<Value>& parts, int64_t axis) {
    return parts.size() == 1 ? parts[0] : Concat(parts, axis);
  };
  const Value y = joined(sequences, 1);
  call.Set(0, batch_first ? Transpose(y, {2, 0, 1, 3}) : y);
  auto set_state = [&](int i, const std::vector<Value>& parts) {
    const Value value = joined(parts, 0);
    call.Set(i, batch_first ? Transpose(value, {1, 0, 2}) : value);
  };
  set_state(1, last_h);
  if (kind.has_cell) set_state(2, last_c);
  return absl::OkStatus();
}

absl::Status Lstm(Call& call) { return Layer(call, {4, {"Sigmoid", "Tanh", "Tanh"}, LstmStep, true}); }
absl::Status Gru(Call& call) { return Layer(call, {3, {"Sigmoid", "Tanh"}, GruStep, false}); }
absl::Status Rnn(Call& call) { return Layer(call, {1, {"Tanh"}, RnnStep, false}); }

constexpr OpRow kRows[] = {
    {"GRU", 7, 3, Gru},
    {"LSTM", 7, 3, Lstm},
    {"RNN", 7, 3, Rnn},
};

}  // namespace

absl::Span<const OpRow> RecurrentRows() { return kRows; }

}  // namespace gradweave::onnx
