#include "gradweave/ops/control_flow.h"

#include <cmath>
#include <utility>

#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

using Values = std::vector<Value>;
using Arrays = std::vector<Array>;

Values All(const ScanResult& result) {
  Values all = result.states;
  all.insert(all.end(), result.outputs.begin(), result.outputs.end());
  return all;
}

// h' = tanh(h * w + x_t) and y_t = h' * h, for states [n] and x [n, time] with the steps on axis 1.
// Returns the last state and y, [n, time].
Values Recurrence(const Values& operands, bool reverse) {
  return All(Scan({operands[0]}, {operands[1]},
                  [&](const Values& states, const Values& slices) {
                    const Value next = Tanh(states[0] * operands[2] + slices[0]);
                    return ScanStep{.states = {next}, .outputs = {next * states[0]}};
                  },
                  {.input_axes = {1}, .output_axes = {-1}, .reverse = reverse}));
}

Arrays RecurrenceReference(const Arrays& operands, bool reverse) {
  Array h = operands[0], y = operands[1];
  const int64_t length = y.size(1);
  for (int64_t step = 0; step < length; ++step) {
    const int64_t t = reverse ? length - 1 - step : step;
    for (int64_t i = 0; i < h.count(); ++i) {
      const double next = std::tanh(h.values[i] * operands[2].values[i] + operands[1].at({i, t}));
      y.at({i, t}) = next * h.values[i];
      h.values[i] = next;
    }
  }
  return {h, y};
}

OpCase RecurrenceCase(const char* name, int64_t length, bool reverse) {
  return {"Scan",
          name,
          {{{3}}, {{3, length}}, {{3}}},
          [=](const Values& x) { return Recurrence(x, reverse); },
          [=](const Arrays& x) { return RecurrenceReference(x, reverse); }};
}

// A state that is an output too, and a product with a matrix that is the same in all steps:
// h' = tanh(h W + x_t), for x [time, 2, 3].
OpCase ProductCase() {
  return {"Scan",
          "product",
          {{{2, 3}}, {{4, 2, 3}}, {{3, 3}}},
          [](const Values& x) {
            return All(Scan({x[0]}, {x[1]}, [&](const Values& states, const Values& slices) {
              const Value next = Tanh(MatMul(states[0], x[2]) + slices[0]);
              return ScanStep{.states = {next}, .outputs = {next}};
            }));
          },
          [](const Arrays& x) {
            Array h = x[0], y = x[1];
            for (int64_t t = 0; t < y.size(0); ++t) {
              Array next = Array::Zeros({2, 3});
              ForIndices(next.sizes, [&](const auto& i) {
                double sum = x[1].at({t, i[0], i[1]});
                for (int64_t k = 0; k < 3; ++k) sum += h.at({i[0], k}) * x[2].at({k, i[1]});
                y.at({t, i[0], i[1]}) = next.at(i) = std::tanh(sum);
              });
              h = next;
            }
            return Arrays{h, y};
          }};
}

// h' = h * table[index_t] + index_t / 2: an integer input, an integer state that counts, and a
// state that changes places with another one.
OpCase IntegersCase() {
  return {"Scan",
          "integers",
          {{{2}}, {{4}, kInt32, 0, 0, {2, 0, 1, 2}}, {{3, 2}}},
          [](const Values& x) {
            const Value count = ConstantLike(x[0], Tensor::Scalar<int64_t>(0), {});
            return All(Scan({x[0], x[0] + 1, count}, {x[1]}, [&](const Values& states, const Values& slices) {
              const Value next = states[0] * Gather(x[2], slices[0]) + Cast(slices[0], states[0].dtype()) / 2;
              return ScanStep{.states = {states[1], next, states[2] + 1}, .outputs = {slices[0] * 2}};
            }));
          },
          [](const Arrays& x) {
            Array a = x[0], b = x[0], y = x[1];
            for (double& value : b.values) value += 1;
            for (int64_t t = 0; t < 4; ++t) {
              Array next = a;
              const auto index = static_cast<int64_t>(x[1].values[t]);
              for (int64_t i = 0; i < 2; ++i) next.values[i] = a.values[i] * x[2].at({index, i}) + index / 2.0;
              a = std::exchange(b, next);
              y.values[t] = 2 * x[1].values[t];
            }
            return Arrays{a, b, {{}, {4}}, y};
          }};
}

// No inputs and no outputs: x is squared three times.
OpCase LengthCase() {
  return {
      "Scan",
      "length",
      {{{3}}},
      [](const Values& x) {
        return All(Scan({x[0]}, {}, [](const Values& states, const Values&) { return ScanStep{{Square(states[0])}}; },
                        {.length = 3}));
      },
      [](const Arrays& x) {
        Array y = x[0];
        for (double& value : y.values) value = std::pow(value, 8);
        return Arrays{y};
      },
      2,
      true,
      false,
      2e-4};
}

// Loops in loops, three deep: the innermost one reads slices and states of all three.
OpCase NestedCase() {
  return {"Scan",
          "nested",
          {{{}, kFloat64, -1, 1}, {{2, 3, 2}, kFloat64, -1, 1}, {{}, kFloat64, -1, 1}},
          [](const Values& x) {
            return All(Scan({x[0]}, {x[1]}, [&](const Values& a, const Values& matrix) {
              const ScanResult rows = Scan({a[0]}, matrix, [&](const Values& b, const Values& row) {
                const ScanResult elements = Scan({b[0]}, row, [&](const Values& c, const Values& element) {
                  return ScanStep{{Sin(c[0] * x[2] + element[0]) + a[0] * b[0] / 2}};
                });
                return ScanStep{elements.states, {elements.states[0] * b[0]}};
              });
              return ScanStep{rows.states, {rows.outputs[0] + a[0]}};
            }));
          },
          [](const Arrays& x) {
            double a = x[0].values[0];
            const double w = x[2].values[0];
            Array y = Array::Zeros({2, 3});
            for (int64_t i = 0; i < 2; ++i) {
              double b = a;
              for (int64_t j = 0; j < 3; ++j) {
                double c = b;
                for (int64_t k = 0; k < 2; ++k) c = std::sin(c * w + x[1].at({i, j, k})) + a * b / 2;
                y.at({i, j}) = c * b + a;
                b = c;
              }
              a = b;
            }
            return Arrays{{{}, {a}}, y};
          }};
}

// x * w or sin(x), by the sign of the selector.
OpCase IfCase(const char* name, double selector) {
  return {"If",
          name,
          {{{3}}, {{3}}, {{}, kFloat64, 0, 0, {selector}}},
          [](const Values& x) {
            return If(
                Greater(x[2], 0), {x[0]},
                [&](const Values& v) {
                  return Values{v[0] * x[1], Square(v[0])};
                },
                [&](const Values& v) {
                  return Values{Sin(v[0]), x[1]};
                });
          },
          [=](const Arrays& x) {
            Array y = x[0], z = x[1];
            for (size_t i = 0; i < 3; ++i) {
              const double a = x[0].values[i];
              y.values[i] = selector > 0 ? a * x[1].values[i] : std::sin(a);
              if (selector > 0) z.values[i] = a * a;
            }
            return Arrays{y, z};
          }};
}

// Doubles x and adds w until the sum is at least 20.
OpCase WhileCase() {
  return {"While",
          "until_large",
          {{{2}, kFloat64, 0.5, 1.5}, {{2}, kFloat64, 0.5, 1}},
          [](const Values& x) {
            return While(
                {x[0]}, [](const Values& states) { return Less(Sum(states[0]), 20); },
                [&](const Values& states) { return Values{states[0] * Exp(states[0] / 10) + x[1]}; },
                {.most_steps = 30});
          },
          [](const Arrays& x) {
            Array y = x[0];
            while (y.values[0] + y.values[1] < 20) {
              for (size_t i = 0; i < 2; ++i) y.values[i] = y.values[i] * std::exp(y.values[i] / 10) + x[1].values[i];
            }
            return Arrays{y};
          },
          2,
          true,
          false,
          1e-4};
}

// A step that changes nothing.
ScanStep Same(const Values& states, const Values&) { return {states}; }

}  // namespace

OpCases ControlFlowCases() {
  OpCases all;
  all.cases = {RecurrenceCase("forward", 4, false),
               RecurrenceCase("reverse", 4, true),
               RecurrenceCase("one_step", 1, false),
               RecurrenceCase("no_steps", 0, false),
               ProductCase(),
               IntegersCase(),
               LengthCase(),
               NestedCase(),
               IfCase("then", 1),
               IfCase("else", -1),
               WhileCase()};
  auto x = [](Scope& s) { return s.Input("x", kFloat32, {4, 2}); };
  all.errors = {
      {"Scan",
       "state_type",
       [=](Scope& s) {
         const Value first = s.Input("h", kFloat32, {1, 2});
         Scan({first}, {x(s)}, [](const Values& h, const Values& v) {
           return ScanStep{{h[0] + BroadcastTo(v[0], {3, 2})}};
         });
       },
       {"Scan: state 0 is float32[1,2] before a step and float32[3,2] after it, and has to keep its type"}},
      {"Scan",
       "lengths",
       [=](Scope& s) {
         Scan({s.Full(0, {2})}, {x(s), s.Input("y", kFloat32, {3, 2})}, Same);
       },
       {"input 1 is float32[3,2] and has 3 slices along axis 0, and the loop has 4 steps"}},
      {"Scan",
       "length_of_symbols",
       [](Scope& s) {
         Scan({}, {s.Input("a", kFloat32, {Dim("n")}), s.Input("b", kFloat32, {Dim("m")})}, Same);
       },
       {"has m slices along axis 0, and the loop has n steps"}},
      {"Scan", "no_length", [](Scope& s) { Scan({s.Full(0, {2})}, {}, Same); }, {"ScanOptions::length"}},
      {"Scan", "axis", [=](Scope& s) { Scan({}, {x(s)}, Same, {.input_axes = {2}}); }, {"has no axis 2"}},
      {"Scan",
       "negative_length",
       [](Scope& s) { Scan({s.Full(0, {2})}, {}, Same, {.length = -1}); },
       {"the length has to be one number of at least 0"}},
      {"Scan",
       "number_of_states",
       [=](Scope& s) { Scan({s.Full(0, {2})}, {x(s)}, [](const Values&, const Values&) { return ScanStep{}; }); },
       {"the body gives 0 states, and there are 1"}},
      {"Scan", "nothing", [=](Scope& s) { Scan({}, {x(s)}, Same); }, {"it has to give at least one"}},
      {"Scan",
       "mistake_in_body",
       [=](Scope& s) {
         Scan({s.Full(0, {3})}, {x(s)}, [](const Values& h, const Values& v) { return ScanStep{{h[0] + v[0]}}; });
       },
       {"Add: ", "float32[3]", "float32[2]", "the body of the Scan is built at "}},
      {"Scan",
       "variable_in_body",
       [=](Scope& s) {
         Scan({s.Full(0, {2})}, {x(s)}, [](const Values& h, const Values& v) {
           Scope inner(*h[0].graph());
           return ScanStep{{h[0] + inner.Variable("w", inner.Constant(Tensor(kFloat32, {2}))) + v[0]}};
         });
       },
       {"Scan: the body has the node Variable", "a body has no state and no random numbers"}},
      {"Scan",
       "random_in_body",
       [=](Scope& s) {
         Scan({s.Full(0, {2})}, {x(s)}, [](const Values& h, const Values& v) {
           Scope inner(*h[0].graph());
           return ScanStep{{h[0] + v[0] * RandomNormal(inner, {2})}};
         });
       },
       {"Scan: the body has the node RandomNormal", "make the value outside of the body"}},
      {"Scan",
       "input_in_body",
       [=](Scope& s) {
         Scan({s.Full(0, {2})}, {x(s)}, [](const Values& h, const Values&) {
           return ScanStep{{h[0] + Scope(*h[0].graph()).Input("y", kFloat32, {2})}};
         });
       },
       {"the input 'y', which nothing feeds"}},
      {"Scan",
       "value_of_another_graph",
       [=](Scope& s) {
         Graph other;
         const Value stranger = Scope(other).Full(1, {2});
         Scan({s.Full(0, {2})}, {x(s)}, [&](const Values& h, const Values&) { return ScanStep{{h[0] * stranger}}; });
       },
       {"the operands belong to different graphs"}},
      {"If",
       "predicate_shape",
       [=](Scope& s) {
         const auto branch = [](const Values& v) { return v; };
         const Value v = x(s);
         If(Greater(v, 0), {v}, branch, branch);
       },
       {"If: the predicate has to be a bool scalar", "bool[4,2]"}},
      {"If",
       "types_of_branches",
       [=](Scope& s) {
         const Value v = x(s);
         If(
             Greater(Sum(v), 0), {v}, [](const Values& a) { return a; },
             [](const Values& a) { return Values{Transpose(a[0])}; });
       },
       {"then_branch gives (float32[4,2]) and else_branch gives (float32[2,4])"}},
      {"While",
       "condition",
       [=](Scope& s) {
         While(
             {x(s)}, [](const Values& h) { return Greater(h[0], 0); }, [](const Values& h) { return h; },
             {.most_steps = 3});
       },
       {"the condition gives (bool[4,2]) and has to give a bool scalar"}},
      {"While",
       "state_type",
       [=](Scope& s) {
         While(
             {x(s)}, [](const Values& h) { return Greater(Sum(h[0]), 0); },
             [](const Values& h) { return Values{Cast(h[0], kFloat64)}; }, {.most_steps = 3});
       },
       {"state 0 is float32[4,2] before a step and float64[4,2] after it"}},
      {"While",
       "most_steps",
       [=](Scope& s) {
         While(
             {x(s)}, [](const Values& h) { return Greater(Sum(h[0]), 0); }, [](const Values& h) { return h; },
             {.most_steps = -1});
       },
       {"most_steps is -1 and has to be at least 0"}},
  };
  return all;
}

}  // namespace gradweave
