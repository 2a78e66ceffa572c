// Loops and branches. Their bodies are graphs of their own, which functions of the program build
// once, when the op is added:
//
//   // Sums of all prefixes of x, float32[time, 8].
//   const gw::ScanResult sums = gw::Scan({zero}, {x}, [](const auto& states, const auto& slices) {
//     const gw::Value sum = states[0] + slices[0];
//     return gw::ScanStep{.states = {sum}, .outputs = {sum}};
//   });
//   sums.states[0];   // float32[8], the sum of all.
//   sums.outputs[0];  // float32[time, 8].
//
// A body may read any value of the graph around it, such as weights: the value becomes an operand
// of the op. An op whose operands all belong to the graph around it is added there, and so runs
// once. A body has neither variables, assignments, inputs nor random ops; these are made outside.
// Errors are recorded in the graph, with the line of the call; all results are then invalid.
#ifndef GRADWEAVE_OPS_CONTROL_FLOW_H_
#define GRADWEAVE_OPS_CONTROL_FLOW_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <source_location>
#include <vector>

#include "gradweave/ops/builder.h"

namespace gradweave {

// The values that the body of a Scan computes in one step.
struct ScanStep {
  std::vector<Value> states;        // The new states, of the types of the old ones.
  std::vector<Value> outputs = {};  // A slice of each output.
};

// Builds one step, from the states before it and a slice of each input.
using ScanBody = std::function<ScanStep(const std::vector<Value>& states, const std::vector<Value>& slices)>;

struct ScanOptions {
  Integers input_axes = {};   // The axis of each input that steps go along; empty: 0 for all.
  Integers output_axes = {};  // The axis of each output; empty: 0 for all. -1 is the last axis.
  bool reverse = false;       // Steps go from the last slice to the first, of inputs and of outputs.
  // The number of steps. Inputs give it, so only a Scan without inputs needs it. It may be a
  // symbol.
  std::optional<Dim> length = std::nullopt;
};

struct ScanResult {
  std::vector<Value> states;   // The states after the last step; without steps, the first ones.
  std::vector<Value> outputs;  // The slices of all steps, along each output's axis.
};

// Runs the body for each slice of the inputs, which have equal sizes along their axes, and carries
// the states from step to step. The gradient is a Scan in the other direction. It reads values of
// the forward steps, and a forward Scan stores just the values that the gradient needs.
ScanResult Scan(const std::vector<Value>& states, const std::vector<Value>& inputs, const ScanBody& body,
                const ScanOptions& options = {}, std::source_location location = std::source_location::current());

// Builds a branch of an If from the values that it is given.
using Branch = std::function<std::vector<Value>(const std::vector<Value>& values)>;

// Returns the results of `then_branch` if the predicate, a bool scalar, is true, else the results
// of `else_branch`. Both branches give values of the same types, and only one of them runs. Both
// are given `values` and may read other values too. Ops on the branch's own values run in the
// branch. Ops that only read values of the graph around it always run. The gradient is an If whose
// branches recompute the forward values.
std::vector<Value> If(const Value& predicate, const std::vector<Value>& values, const Branch& then_branch,
                      const Branch& else_branch, std::source_location location = std::source_location::current());

// Builds the condition of a While, a bool scalar, or its step, the new states.
using WhileCondition = std::function<Value(const std::vector<Value>& states)>;
using WhileBody = std::function<std::vector<Value>(const std::vector<Value>& states)>;

struct WhileOptions {
  // The greatest number of steps, at least 0. A run fails with OutOfRange if the condition still
  // holds after that many.
  int64_t most_steps = 0;
};

// Runs the body as long as the condition holds, and returns the last states. The gradient runs
// `most_steps` steps and stores values of all of them; steps after the last one pass the states on.
std::vector<Value> While(const std::vector<Value>& states, const WhileCondition& condition, const WhileBody& body,
                         const WhileOptions& options, std::source_location location = std::source_location::current());

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_CONTROL_FLOW_H_
