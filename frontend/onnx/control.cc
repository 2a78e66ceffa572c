// ONNX's ops with bodies. Loops become loops of the engine, or are unrolled: if there are few
// rounds, if the number of rounds depends on their results, or if a state changes its shape.
#include <algorithm>
#include <limits>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/control_flow.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

constexpr int64_t kMostRounds = 4096;  // The limit of rounds that are unrolled.
constexpr int64_t kMostUnrolled = 8;   // Applies if a loop of the engine is possible too.

absl::StatusOr<const proto::Graph*> Body(const Call& call, absl::string_view name) {
  const proto::Attribute* attribute = call.Find(name);
  if (attribute == nullptr || !attribute->has_g()) return call.Wrong("it has no graph '", name, "'");
  return &attribute->g();
}

// An item for a value that a node of the import makes.
Item* ItemOf(const Call& call, absl::string_view name, Value value) {
  Item* item = call.importer().NewItem(std::string(name));
  item->value = value;
  item->type = value.type();
  return item;
}
Item* ItemOf(const Call& call, absl::string_view name, Tensor tensor) {
  Item* item = call.importer().NewItem(std::string(name));
  item->type = tensor.type();
  item->tensor = std::move(tensor);
  return item;
}

// With a known condition, one branch is imported. Otherwise both are computed, if their results
// have the same types, and the condition selects.
absl::Status IfRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const proto::Graph* then_branch, Body(call, "then_branch"));
  GW_ASSIGN_OR_RETURN(const proto::Graph* else_branch, Body(call, "else_branch"));
  auto import = [&](const proto::Graph& body) { return call.importer().ImportBody(body, call.names(), {}); };
  auto set = [&](const std::vector<Item*>& items) -> absl::Status {
    if (static_cast<int>(items.size()) < call.num_outputs()) return call.Wrong("a branch has too few outputs");
    for (size_t i = 0; i < items.size(); ++i) call.Set(static_cast<int>(i), items[i]);
    return absl::OkStatus();
  };
  if (call.Type(0).dtype != kBool) return call.Wrong("its condition has to be bool");
  Importer& importer = call.importer();
  if (!call.item(0).tensor.has_value() && !importer.knowledge().other_way.contains(&call.node())) {
    const absl::StatusOr<std::vector<Item*>> then_items = import(*then_branch);
    const absl::StatusOr<std::vector<Item*>> else_items =
        then_items.ok() && importer.graph().status().ok() ? import(*else_branch) : then_items;
    if (!else_items.ok() || !importer.graph().status().ok()) {
      // A branch need not be valid if its condition does not hold.
      importer.knowledge().other_way.insert(&call.node());
      importer.BeginAgain();
      return else_items.status();
    }
    const std::vector<Item*>&a = *then_items, &b = *else_items;
    if (a.size() != b.size() || static_cast<int>(a.size()) < call.num_outputs())
      return call.Wrong("its branches differ in the number of outputs");
    const bool same = std::equal(a.begin(), a.end(), b.begin(), [](Item* x, Item* y) { return x->type == y->type; });
    if (same) {
      const Value condition = Reshape(call.In(0), {});
      for (size_t i = 0; i < a.size(); ++i)
        call.Set(static_cast<int>(i), Where(condition, call.importer().ValueOf(*a[i]), call.importer().ValueOf(*b[i])));
      return absl::OkStatus();
    }
    // The results have different shapes.
    GW_ASSIGN_OR_RETURN(const double condition, call.KnownNumber(0));
    return set(condition != 0 ? a : b);
  }
  GW_ASSIGN_OR_RETURN(const double condition, call.KnownNumber(0));
  GW_ASSIGN_OR_RETURN(const std::vector<Item*> items, import(condition != 0 ? *then_branch : *else_branch));
  return set(items);
}

// Joins results of rounds along a new axis.
absl::StatusOr<Value> Stack(const Call& call, const std::vector<Value>& parts, int64_t axis, bool reversed) {
  if (parts.empty()) return call.Refuse("the results of no round have no shape");
  std::vector<Value> expanded;
  for (const Value& part : parts) expanded.push_back(ExpandDims(part, {axis}));
  if (reversed) std::reverse(expanded.begin(), expanded.end());
  return Concat(expanded, axis);
}

// Imports the body of a loop into a loop of the engine.
class LoopBody {
 public:
  LoopBody(Call& call, const proto::Graph& body) : call_(call), body_(body) {}

  // Returns the values of the body's outputs for these inputs. After an error, all of them are
  // invalid.
  std::vector<Value> Run(const std::vector<Item*>& inputs) {
    const auto count = static_cast<size_t>(body_.output_size());
    absl::StatusOr<std::vector<Item*>> outputs = call_.importer().ImportBody(body_, call_.names(), inputs);
    if (!outputs.ok()) {
      status_ = outputs.status();
      return std::vector<Value>(count, inputs.empty() ? Value() : inputs[0]->value);
    }
    outputs_ = *outputs;
    std::vector<Value> values;
    for (Item* output : outputs_) values.push_back(call_.importer().ValueOf(*output));
    return values;
  }

  // True if the loop was built. Else the next attempt unrolls it.
  bool Built() const {
    const bool fits = status_.ok() && call_.importer().graph().status().ok();
    if (!fits) Refuse();
    return fits;
  }
  void Refuse() const {
    call_.importer().knowledge().other_way.insert(&call_.node());
    call_.importer().BeginAgain();
  }
  const std::vector<Item*>& outputs() const { return outputs_; }

 private:
  Call& call_;
  const proto::Graph& body_;
  absl::Status status_;
  std::vector<Item*> outputs_;
};

// A Loop of this many rounds whose condition always holds, as a Scan over the numbers of the
// rounds. Sets the outputs.
absl::Status LoopAsScan(Call& call, const proto::Graph& body, const Dim& rounds, const std::vector<Item*>& state,
                        Item* condition) {
  LoopBody loop(call, body);
  const size_t count = state.size();
  std::vector<Value> first;
  for (Item* item : state) first.push_back(call.importer().ValueOf(*item));
  bool goes_on = true;
  const Value numbers = Range(call.scope(), rounds);
  const ScanResult result =
      Scan(first, {numbers}, [&](const std::vector<Value>& states, const std::vector<Value>& slices) {
        std::vector<Item*> inputs = {ItemOf(call, "round", slices[0]), condition};
        for (const Value& value : states) inputs.push_back(ItemOf(call, "state", value));
        const std::vector<Value> outputs = loop.Run(inputs);
        if (!loop.outputs().empty()) {
          const Item* next = loop.outputs()[0];
          goes_on = next == condition || (next->tensor.has_value() && next->tensor->ToDouble() != 0);
        }
        ScanStep step;
        for (size_t i = 1; i < outputs.size(); ++i) (i <= count ? step.states : step.outputs).push_back(outputs[i]);
        return step;
      });
  if (!loop.Built()) return call.Wrong("its body does not fit a loop");
  if (!goes_on) {
    loop.Refuse();
    return call.Wrong("its condition is not known");
  }
  for (size_t i = 0; i < result.states.size(); ++i) call.Set(static_cast<int>(i), result.states[i]);
  for (size_t i = 0; i < result.outputs.size(); ++i) call.Set(static_cast<int>(count + i), result.outputs[i]);
  return absl::OkStatus();
}

absl::Status LoopRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const proto::Graph* body, Body(call, "body"));
  Item* condition = call.Has(1) ? &call.item(1) : ItemOf(call, "condition", Tensor::Scalar(true));
  std::vector<Item*> state;
  for (int i = 2; i < call.num_inputs(); ++i) {
    if (!call.Has(i)) return call.Wrong("input ", i, " is missing");
    state.push_back(&call.item(i));
  }
  if (static_cast<size_t>(body->output_size()) < state.size() + 1) return call.Wrong("its body has too few outputs");
  int64_t rounds = std::numeric_limits<int64_t>::max();
  if (call.Has(0)) {
    GW_ASSIGN_OR_RETURN(const Elements given, call.KnownElements(0));
    if (given.size() != 1) return call.Wrong("its number of rounds has to be one number");
    const bool holds = condition->tensor.has_value() && condition->tensor->ToDouble() != 0;
    const bool loops = !given[0].is_known() || (given[0].size() > kMostUnrolled && given[0].size() <= kMostRounds);
    if (loops && holds && !call.importer().knowledge().other_way.contains(&call.node()))
      return LoopAsScan(call, *body, given[0], state, condition);
    GW_ASSIGN_OR_RETURN(const Integers number, call.KnownIntegers(0));
    rounds = number[0];
  }
  const size_t scans = static_cast<size_t>(body->output_size()) - (state.size() + 1);
  std::vector<std::vector<Value>> collected(scans);
  for (int64_t i = 0; i < rounds; ++i) {
    GW_ASSIGN_OR_RETURN(const Tensor goes_on, call.importer().KnownValue(*condition));
    if (goes_on.ToDouble() == 0) break;
    if (i == kMostRounds) return call.Refuse("it has more than ", kMostRounds, " rounds");
    std::vector<Item*> inputs = {ItemOf(call, "round", Tensor::Scalar<int64_t>(i)), condition};
    inputs.insert(inputs.end(), state.begin(), state.end());
    GW_ASSIGN_OR_RETURN(std::vector<Item*> outputs, call.importer().ImportBody(*body, call.names(), inputs));
    condition = outputs[0];
    for (size_t j = 0; j < state.size(); ++j) state[j] = outputs[j + 1];
    for (size_t j = 0; j < scans; ++j) collected[j].push_back(call.importer().ValueOf(*outputs[state.size() + 1 + j]));
  }
  for (size_t i = 0; i < state.size(); ++i) call.Set(static_cast<int>(i), state[i]);
  for (size_t i = 0; i < scans; ++i) {
    const int output = static_cast<int>(state.size() + i);
    if (!call.Wants(output)) continue;
    GW_ASSIGN_OR_RETURN(const Value stacked, Stack(call, collected[i], 0, false));
    call.Set(output, stacked);
  }
  return absl::OkStatus();
}

struct ScanAxes {
  Integers inputs, outputs;
  Integers input_reversed, output_reversed;
};

// The body for a Scan of the engine, which goes in one direction.
absl::StatusOr<std::vector<Value>> ScanAsLoop(Call& call, const proto::Graph& body, const std::vector<Value>& state,
                                              const std::vector<Value>& sequences, const ScanAxes& axes) {
  LoopBody loop(call, body);
  const ScanResult result =
      Scan(state, sequences,
           [&](const std::vector<Value>& states, const std::vector<Value>& slices) {
             std::vector<Item*> inputs;
             for (const Value& value : states) inputs.push_back(ItemOf(call, "state", value));
             for (const Value& value : slices) inputs.push_back(ItemOf(call, "step", value));
             const std::vector<Value> outputs = loop.Run(inputs);
             ScanStep step;
             for (size_t i = 0; i < outputs.size(); ++i)
               (i < state.size() ? step.states : step.outputs).push_back(outputs[i]);
             return step;
           },
           {.input_axes = axes.inputs, .output_axes = axes.outputs, .reverse = axes.input_reversed[0] != 0});
  if (!loop.Built()) return call.Wrong("its body does not fit a loop");
  std::vector<Value> values = result.states;
  values.insert(values.end(), result.outputs.begin(), result.outputs.end());
  return values;
}

// Runs the body for each step. Returns the final state, then the stacked outputs.
absl::StatusOr<std::vector<Value>> RunScan(Call& call, const proto::Graph& body, std::vector<Value> state,
                                           const std::vector<Value>& sequences, const ScanAxes& axes) {
  const size_t scans = static_cast<size_t>(body.output_size()) - state.size();
  std::vector<std::vector<Value>> collected(scans);
  std::optional<int64_t> steps;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Dim size = SizeAt(sequences[i].shape(), axes.inputs[i]);
    // The loop has an open size or many steps, which all go in one direction.
    const auto is_reversed = [&](int64_t reversed) { return reversed == axes.input_reversed[0]; };
    const bool loops = (!size.is_known() || size.size() > kMostUnrolled) &&
                       !call.importer().knowledge().other_way.contains(&call.node()) &&
                       std::all_of(axes.input_reversed.begin(), axes.input_reversed.end(), is_reversed) &&
                       std::all_of(axes.output_reversed.begin(), axes.output_reversed.end(), is_reversed);
    if (loops) return ScanAsLoop(call, body, state, sequences, axes);
    if (!size.is_known()) return call.Refuse("the number of steps is a size that only a run knows");
    if (steps.has_value() && *steps != size.size()) return call.Wrong("its sequences differ in length");
    steps = size.size();
  }
  if (!steps.has_value()) return call.Wrong("it has no sequence");
  if (*steps > kMostRounds) return call.Refuse("it has ", *steps, " steps, and up to ", kMostRounds, " are imported");
  for (int64_t t = 0; t < *steps; ++t) {
    std::vector<Item*> inputs;
    for (const Value& value : state) inputs.push_back(ItemOf(call, "state", value));
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int64_t at = axes.input_reversed[i] != 0 ? *steps - 1 - t : t;
      inputs.push_back(
          ItemOf(call, "step", Squeeze(SliceAxis(sequences[i], axes.inputs[i], at, at + 1), {axes.inputs[i]})));
    }
    GW_ASSIGN_OR_RETURN(const std::vector<Item*> outputs, call.importer().ImportBody(body, call.names(), inputs));
    for (size_t i = 0; i < state.size(); ++i) state[i] = call.importer().ValueOf(*outputs[i]);
    for (size_t i = 0; i < scans; ++i) collected[i].push_back(call.importer().ValueOf(*outputs[state.size() + i]));
  }
  for (size_t i = 0; i < scans; ++i) {
    GW_ASSIGN_OR_RETURN(const Value stacked, Stack(call, collected[i], axes.outputs[i], axes.output_reversed[i] != 0));
    state.push_back(stacked);
  }
  return state;
}

absl::Status ScanRow(Call& call) {
  GW_ASSIGN_OR_RETURN(const proto::Graph* body, Body(call, "body"));
  const bool batched = call.opset() < 9;  // Before opset 9, with lengths, and axis 0 is the batch.
  if (batched && call.Has(0)) return call.Refuse("sequences of different lengths are not imported");
  const int first = batched ? 1 : 0;
  const int64_t num_sequences = call.Int("num_scan_inputs", 0);
  const int64_t num_state = call.num_inputs() - first - num_sequences;
  if (num_sequences < 1 || num_state < 0 || body->output_size() < num_state)
    return call.Wrong("its inputs do not fit num_scan_inputs");
  const auto num_scans = static_cast<size_t>(body->output_size() - num_state);
  std::vector<Value> state, sequences;
  for (int i = first; i < call.num_inputs(); ++i) {
    if (!call.Has(i)) return call.Wrong("input ", i, " is missing");
    (i - first < num_state ? state : sequences).push_back(call.In(i));
  }
  ScanAxes axes{.inputs = call.Ints("scan_input_axes").value_or(Integers(sequences.size(), 0)),
                .outputs = call.Ints("scan_output_axes").value_or(Integers(num_scans, 0)),
                .input_reversed =
                    call.Ints(batched ? "directions" : "scan_input_directions").value_or(Integers(sequences.size(), 0)),
                .output_reversed = call.Ints("scan_output_directions").value_or(Integers(num_scans, 0))};
  if (axes.inputs.size() != sequences.size() || axes.input_reversed.size() != sequences.size() ||
      axes.outputs.size() != num_scans || axes.output_reversed.size() != num_scans) {
    return call.Wrong("its axes and directions do not fit its sequences");
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    GW_ASSIGN_OR_RETURN(axes.inputs[i], call.Axis(axes.inputs[i], sequences[i].rank() - (batched ? 1 : 0)));
  }
  if (std::any_of(axes.outputs.begin(), axes.outputs.end(), [](int64_t axis) { return axis < 0; }))
    return call.Refuse("negative axes of outputs are not imported");
  std::vector<Value> results;
  if (!batched) {
    GW_ASSIGN_OR_RETURN(results, RunScan(call, *body, state, sequences, axes));
  } else {
    const Dim batch = SizeAt(sequences[0].shape(), 0);
    if (!batch.is_known() || batch.size() < 1 || batch.size() > kMostRounds)
      return call.Refuse("the size of its batch is not known");
    std::vector<std::vector<Value>> of_samples;
    for (int64_t i = 0; i < batch.size(); ++i) {
      auto sample = [&](const std::vector<Value>& values) {
        std::vector<Value> parts;
        for (const Value& value : values) parts.push_back(Squeeze(SliceAxis(value, 0, i, i + 1), {0}));
        return parts;
      };
      GW_ASSIGN_OR_RETURN(std::vector<Value> outputs, RunScan(call, *body, sample(state), sample(sequences), axes));
      of_samples.push_back(std::move(outputs));
    }
    for (size_t j = 0; j < of_samples[0].size(); ++j) {
      std::vector<Value> parts;
      for (const std::vector<Value>& outputs : of_samples) parts.push_back(outputs[j]);
      GW_ASSIGN_OR_RETURN(const Value stacked, Stack(call, parts, 0, false));
      results.push_back(stacked);
    }
  }
  for (size_t i = 0; i < results.size(); ++i) call.Set(static_cast<int>(i), results[i]);
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"If", 1, 1, IfRow},
    {"Loop", 1, 0, LoopRow},
    {"Scan", 8, 0, ScanRow},
};

}  // namespace

absl::Span<const OpRow> ControlRows() { return kRows; }

}  // namespace gradweave::onnx
