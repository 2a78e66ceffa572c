#include "gradweave/ops/indexing.h"

#include <algorithm>
#include <string>

#include "gradweave/ops/elementwise.h"
#include "tests/ops/op_case.h"

namespace gradweave {

OpCases IndexingCases() {
  OpCases all;
  const OperandCase indices = {{2, 2}, kInt32, 0, 0, {2, 0, 1, 2}};
  all.cases.push_back({"Gather",
                       "rows",
                       {{{3, 4}}, indices},
                       [](const auto& x) { return std::vector<Value>{Gather(x[0], x[1])}; },
                       [](const std::vector<Array>& x) {
                         Array y = Array::Zeros({2, 2, 4});
                         ForIndices(y.sizes, [&](const auto& i) {
                           y.at(i) = x[0].at({static_cast<int64_t>(x[1].at({i[0], i[1]})), i[2]});
                         });
                         return std::vector<Array>{y};
                       }});
  all.cases.push_back({"Gather",
                       "columns_int64",
                       {{{2, 3, 2}}, {{4}, kInt64, 0, 0, {2, 2, 0, 1}}},
                       [](const auto& x) { return std::vector<Value>{Gather(x[0], x[1], -2)}; },
                       [](const std::vector<Array>& x) {
                         Array y = Array::Zeros({2, 4, 2});
                         ForIndices(y.sizes, [&](const auto& i) {
                           y.at(i) = x[0].at({i[0], static_cast<int64_t>(x[1].at({i[1]})), i[2]});
                         });
                         return std::vector<Array>{y};
                       }});
  // Their gradients are joined: those along axis 0, with indices of both types, those along axis 1,
  // and that of x itself.
  all.cases.push_back(
      {"Gather",
       "several_of_one_value",
       {{{3, 4}}, indices, {{3}, kInt64, 0, 0, {0, 2, 2}}, {{}, kInt32, 0, 0, {1}}},
       [](const std::vector<Value>& x) {
         return std::vector<Value>{Square(Gather(x[0], x[1])), Square(Gather(x[0], x[2])),
                                   Square(Gather(x[0], x[3], 1)), Square(x[0])};
       },
       [](const std::vector<Array>& x) {
         std::vector<Array> y = {Array::Zeros({2, 2, 4}), Array::Zeros({3, 4}), Array::Zeros({3}), x[0]};
         auto square = [](double v) { return v * v; };
         ForIndices(y[0].sizes, [&](const auto& i) {
           y[0].at(i) = square(x[0].at({static_cast<int64_t>(x[1].at({i[0], i[1]})), i[2]}));
         });
         ForIndices(y[1].sizes, [&](const auto& i) {
           y[1].at(i) = square(x[0].at({static_cast<int64_t>(x[2].at({i[0]})), i[1]}));
         });
         ForIndices(y[2].sizes, [&](const auto& i) { y[2].at(i) = square(x[0].at({i[0], 1})); });
         for (double& v : y[3].values) v = square(v);
         return y;
       }});
  // The index 2 occurs twice, so two slices are added to this row.
  all.cases.push_back({"ScatterAdd",
                       "rows",
                       {{{3, 4}}, indices, {{2, 2, 4}}},
                       [](const auto& x) { return std::vector<Value>{ScatterAdd(x[0], x[1], x[2])}; },
                       [](const std::vector<Array>& x) {
                         Array y = x[0];
                         ForIndices(x[2].sizes, [&](const auto& i) {
                           y.at({static_cast<int64_t>(x[1].at({i[0], i[1]})), i[2]}) += x[2].at(i);
                         });
                         return std::vector<Array>{y};
                       }});
  all.cases.push_back({"ScatterAdd",
                       "columns",
                       {{{2, 3}}, {{2}, kInt64, 0, 0, {1, 1}}, {{2, 2}}},
                       [](const auto& x) { return std::vector<Value>{ScatterAdd(x[0], x[1], x[2], 1)}; },
                       [](const std::vector<Array>& x) {
                         Array y = x[0];
                         ForIndices(x[2].sizes, [&](const auto& i) {
                           y.at({i[0], static_cast<int64_t>(x[1].at({i[1]}))}) += x[2].at(i);
                         });
                         return std::vector<Array>{y};
                       }});
  // Two updates have the index 2. The other derivatives of mul need updates that are not 0.
  struct Combination {
    const char* name;
    ScatterReduction reduction;
    double (*combine)(double, double);
  };
  for (const Combination& row :
       {Combination{"set", ScatterReduction::kSet, [](double, double u) { return u; }},
        Combination{"mul", ScatterReduction::kMul, [](double x, double u) { return x * u; }},
        Combination{"max", ScatterReduction::kMax, [](double x, double u) { return std::max(x, u); }},
        Combination{"min", ScatterReduction::kMin, [](double x, double u) { return std::min(x, u); }}}) {
    all.cases.push_back(
        {"Scatter",
         std::string(row.name) + "_rows",
         {{{3, 4}, kFloat64, 0.5, 2}, indices, {{2, 2, 4}, kFloat64, 0.5, 2}},
         [row](const auto& x) { return std::vector<Value>{Scatter(x[0], x[1], x[2], {.reduction = row.reduction})}; },
         [row](const std::vector<Array>& x) {
           Array y = x[0];
           ForIndices(x[2].sizes, [&](const auto& i) {
             double& to = y.at({static_cast<int64_t>(x[1].at({i[0], i[1]})), i[2]});
             to = row.combine(to, x[2].at(i));
           });
           return std::vector<Array>{y};
         }});
    all.cases.push_back({"Scatter",
                         std::string(row.name) + "_columns",
                         {{{2, 3}}, {{4}, kInt64, 0, 0, {1, 1, 0, 1}}, {{2, 4}}},
                         [row](const auto& x) {
                           return std::vector<Value>{
                               Scatter(x[0], x[1], x[2], {.axis = -1, .reduction = row.reduction})};
                         },
                         [row](const std::vector<Array>& x) {
                           Array y = x[0];
                           ForIndices(x[2].sizes, [&](const auto& i) {
                             double& to = y.at({i[0], static_cast<int64_t>(x[1].at({i[1]}))});
                             to = row.combine(to, x[2].at(i));
                           });
                           return std::vector<Array>{y};
                         }});
    all.cases.push_back(
        {"Scatter",
         std::string(row.name) + "_integers",
         {{{5}, kInt64, -9, 9}, {{3}, kInt32, 0, 0, {4, 0, 4}}, {{3}, kInt64, -9, 9}},
         [row](const auto& x) { return std::vector<Value>{Scatter(x[0], x[1], x[2], {.reduction = row.reduction})}; },
         [row](const std::vector<Array>& x) {
           Array y = x[0];
           for (int i = 0; i < 3; ++i) {
             double& to = y.values[static_cast<size_t>(x[1].values[i])];
             to = row.combine(to, x[2].values[i]);
           }
           return std::vector<Array>{y};
         },
         0});
  }
  // One and two updates of 0 at an index: the derivative for an update is the product of the
  // others.
  all.cases.push_back(
      {"Scatter",
       "mul_zeros",
       {{{2}, kFloat64, 0.5, 2}, {{5}, kInt32, 0, 0, {0, 0, 1, 1, 1}}, {{5}, kFloat64, 0, 0, {0, 3, 0, 0, 2}}},
       [](const auto& x) {
         return std::vector<Value>{Scatter(x[0], x[1], x[2], {.reduction = ScatterReduction::kMul})};
       },
       [](const std::vector<Array>&) { return std::vector<Array>{Array::Zeros({2})}; },
       1});
  // Indices outside of x: -1 and 3.
  const OperandCase outside = {{4}, kInt64, 0, 0, {2, -1, 0, 3}};
  all.cases.push_back({"TakeRows",
                       "outside",
                       {{{3, 4}}, outside},
                       [](const auto& x) {
                         return std::vector<Value>{AddOp("TakeRows", {Operand(x[0]), Operand(x[1])})};
                       },
                       [](const std::vector<Array>& x) {
                         Array y = Array::Zeros({4, 4});
                         ForIndices(y.sizes, [&](const auto& i) {
                           if (i[0] % 2 == 0) y.at(i) = x[0].at({2 - i[0], i[1]});
                         });
                         return std::vector<Array>{y};
                       },
                       0});
  // Index 2 has two rows. The last one counts.
  all.cases.push_back({"PutRows",
                       "outside",
                       {{{3, 4}}, {{2, 2}, kInt32, 0, 0, {2, -1, 3, 2}}, {{2, 2, 4}}},
                       [](const auto& x) {
                         return std::vector<Value>{AddOp("PutRows", {Operand(x[0]), Operand(x[1]), Operand(x[2])})};
                       },
                       [](const std::vector<Array>& x) {
                         Array y = x[0];
                         for (int64_t j = 0; j < 4; ++j) y.at({2, j}) = x[2].at({1, 1, j});
                         return std::vector<Array>{y};
                       },
                       0});
  for (DType dtype : {kInt32, kInt64}) {
    // Equal ones, and ones far apart.
    const std::vector<double> numbers = {7, 1000000, 7, -16, 1000000, 7, 0, 16, 32, 48};
    all.cases.push_back({"SumRows",
                         std::string(DTypeName(dtype)),
                         {{{5, 2}, dtype, 0, 0, numbers}, {{5, 2, 19}}},
                         [](const auto& x) {
                           return std::vector<Value>{AddOp("SumRows", {Operand(x[0]), Operand(x[1])})};
                         },
                         [](const std::vector<Array>& x) {
                           Array y = Array::Zeros(x[1].sizes);
                           ForIndices(y.sizes, [&](const auto& i) {
                             ForIndices(x[0].sizes, [&](const auto& other) {
                               if (x[0].at(other) == x[0].at({i[0], i[1]}))
                                 y.at(i) += x[1].at({other[0], other[1], i[2]});
                             });
                           });
                           return std::vector<Array>{y};
                         }});
  }
  all.cases.push_back(
      {"OneHot",
       "matrix",
       {indices},
       [](const auto& x) { return std::vector<Value>{OneHot(x[0], 4, kFloat64)}; },
       [](const std::vector<Array>& x) {
         Array y = Array::Zeros({2, 2, 4});
         ForIndices(y.sizes, [&](const auto& i) { y.at(i) = x[0].at({i[0], i[1]}) == static_cast<double>(i[2]); });
         return std::vector<Array>{y};
       },
       0});
  all.errors = {
      {"Gather",
       "index_dtype",
       [](Scope& s) { Gather(s.Input("x", kFloat32, {2}), s.Input("i", kFloat32, {2})); },
       {"operand 1 (indices) is float32 and has to be int32 or int64"}},
      {"Gather",
       "axis",
       [](Scope& s) { Gather(s.Input("x", kFloat32, {2}), s.Input("i", kInt32, {2}), 1); },
       {"axis 1 is outside [0, 1)"}},
      {"ScatterAdd",
       "updates",
       [](Scope& s) {
         ScatterAdd(s.Input("x", kFloat32, {2, 3}), s.Input("i", kInt32, {4}), s.Input("u", kFloat32, {4, 2}));
       },
       {"updates have to be float32[4,3]"}},
      {"Scatter",
       "updates",
       [](Scope& s) {
         Scatter(s.Input("x", kFloat32, {2, 3}), s.Input("i", kInt32, {4}), s.Input("u", kFloat32, {4, 2}));
       },
       {"Scatter: updates have to be float32[4,3]"}},
      {"Scatter",
       "reduction",
       [](Scope& s) {
         AddOp("Scatter", {s.Input("x", kFloat32, {2}), s.Input("i", kInt32, {4}), s.Input("u", kFloat32, {4})},
               {{"axis", int64_t{0}}, {"reduction", std::string("sum")}});
       },
       {"the reduction is \"sum\" and has to be set, mul, max or min"}},
      {"PutRows",
       "rows",
       [](Scope& s) {
         AddOp("PutRows",
               {s.Input("x", kFloat32, {2, 3}), s.Input("i", kInt32, {4}), s.Input("rows", kFloat32, {4, 2})});
       },
       {"rows have to be float32[4,3]"}},
      {"TakeRows",
       "scalar",
       [](Scope& s) {
         AddOp("TakeRows", {s.Input("x", kFloat32, {}), s.Input("i", kInt32, {4})});
       },
       {"x needs at least one axis"}},
      {"SumRows",
       "rows",
       [](Scope& s) {
         AddOp("SumRows", {s.Input("i", kInt32, {4}), s.Input("rows", kFloat32, {3, 2})});
       },
       {"has to begin with that of the indices"}},
      {"OneHot", "depth", [](Scope& s) { OneHot(s.Input("i", kInt32, {2}), -1); }, {"the depth is -1"}},
  };
  return all;
}

}  // namespace gradweave
