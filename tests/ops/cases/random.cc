#include "gradweave/ops/random.h"

#include <cmath>

#include "tests/ops/op_case.h"

namespace gradweave {

// Checks that random ops repeat their results for any number of threads. runtime/cpu/random_test.cc
// checks their distributions.
OpCases RandomCases() {
  OpCases all;
  all.cases = {
      {"RandomUniform",
       "like",
       {{{50, 300}}},
       [](const auto& x) { return std::vector<Value>{RandomUniformLike(x[0], -1, 2)}; },
       nullptr,
       0},
      {"RandomNormal",
       "seeded",
       {{{3}}},
       [](const auto& x) {
         Scope scope(*x[0].graph());
         return std::vector<Value>{RandomNormal(scope, {50, 300}, 1, 2, {.dtype = x[0].dtype(), .seed = 7})};
       },
       nullptr,
       0},
  };
  all.errors = {
      {"RandomUniform", "bounds", [](Scope& s) { RandomUniform(s, {2}, 1, 1); }, {"low is 1 and high is 1"}},
      {"RandomNormal", "deviation", [](Scope& s) { RandomNormal(s, {2}, 0, -1); }, {"the standard deviation is -1"}},
      {"RandomUniform",
       "infinity",
       [](Scope& s) { RandomUniform(s, {2}, 0, INFINITY); },
       {"high is inf", "both finite"}},
      {"RandomNormal", "mean", [](Scope& s) { RandomNormal(s, {2}, NAN); }, {"the mean is nan and has to be finite"}},
      {"RandomNormal",
       "infinity",
       [](Scope& s) { RandomNormal(s, {2}, 0, INFINITY); },
       {"the standard deviation is inf"}},
      {"RandomUniform",
       "dtype",
       [](Scope& s) { RandomUniform(s, {2}, 0, 1, {.dtype = kInt32}); },
       {"the dtype is int32"}},
  };
  return all;
}

}  // namespace gradweave
