#include "gradweave/ops/state.h"

#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "tests/ops/op_case.h"

namespace gradweave {

OpCases StateCases() {
  OpCases all;
  auto same = [](const std::vector<Array>& x) { return std::vector<Array>{x[0]}; };
  all.cases = {
      {"Input", "value", {{{2, 3}}}, [](const auto& x) { return std::vector<Value>{x[0]}; }, same},
      {"Constant",
       "value",
       {{{3}}},
       [](const auto& x) {
         return std::vector<Value>{x[0] +
                                   ConstantLike(x[0], Tensor::Of<double>({3}, {1, 2, 3}).Cast(x[0].dtype()), {})};
       },
       [](const std::vector<Array>& x) {
         return std::vector<Array>{{{3}, {x[0].values[0] + 1, x[0].values[1] + 2, x[0].values[2] + 3}}};
       },
       2,
       false},
      {"Variable",
       "initial_value",
       {{{2}}},
       [](const auto& x) {
         Scope scope(*x[0].graph());
         return std::vector<Value>{
             x[0] * scope.Variable("v", ConstantLike(x[0], Tensor::Of<double>({2}, {3, 4}).Cast(x[0].dtype()), {}))};
       },
       [](const std::vector<Array>& x) {
         return std::vector<Array>{{{2}, {x[0].values[0] * 3, x[0].values[1] * 4}}};
       },
       2,
       false},
      {"Assign",
       "new_value",
       {{{2}}},
       [](const auto& x) {
         Scope scope(*x[0].graph());
         const Value v =
             scope.Variable("v", ConstantLike(x[0], Tensor::Of<double>({2}, {3, 4}).Cast(x[0].dtype()), {}));
         return std::vector<Value>{Assign(v, v + x[0])};
       },
       [](const std::vector<Array>& x) {
         return std::vector<Array>{{{2}, {x[0].values[0] + 3, x[0].values[1] + 4}}};
       },
       0,
       false},
      {"Copy", "value", {{{2, 3}}}, [](const auto& x) { return std::vector<Value>{Copy(x[0])}; }, same},
      {"DimSize",
       "axis",
       {{{2, 3}}},
       [](const auto& x) {
         return std::vector<Value>{AddOp("DimSize", {Operand(x[0])}, {{"axis", int64_t{1}}, {"dtype", kInt32}})};
       },
       [](const std::vector<Array>&) {
         return std::vector<Array>{{{}, {3}}};
       },
       0},
      {"DimSize",
       "as_number",
       {{{4, 3}}},
       [](const auto& x) { return std::vector<Value>{Sum(Square(x[0])) / NumElements(x[0], {}, x[0].dtype())}; },
       [](const std::vector<Array>& x) {
         double sum = 0;
         for (double value : x[0].values) sum += value * value;
         return std::vector<Array>{{{}, {sum / 12}}};
       }},
  };
  all.errors = {
      {"Input", "name", [](Scope& s) { s.Input("", kFloat32, {2}); }, {"Input: the name is empty"}},
      {"Input",
       "twice",
       [](Scope& s) {
         s.Input("x", kFloat32, {2});
         s.Input("x", kFloat32, {2});
       },
       {"the name is taken", "'x'"}},
      {"Input", "negative", [](Scope& s) { s.Input("x", kFloat32, {-2}); }, {"negative dimension"}},
      {"Variable",
       "symbolic",
       [](Scope& s) { s.Variable("v", s.Input("x", kFloat32, {Dim("n")})); },
       {"the shape has to be known"}},
      {"Assign",
       "not_a_variable",
       [](Scope& s) {
         const Value x = s.Input("x", kFloat32, {2});
         Assign(x, x);
       },
       {"has to be the value of a Variable node"}},
      {"Assign",
       "shape",
       [](Scope& s) { Assign(s.Variable("v", s.Constant(Tensor(kFloat32, {2}))), s.Input("x", kFloat32, {3})); },
       {"the variable's dtype and shape"}},
      {"DimSize", "axis", [](Scope& s) { DimSize(s.Input("x", kFloat32, {2}), 1); }, {"axis 1 is outside [0, 1)"}},
  };
  return all;
}

}  // namespace gradweave
