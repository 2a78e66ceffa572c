#include "gradweave/ops/normalization.h"

#include <cmath>

#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

constexpr double kEpsilon = 1e-3;

// Computes the mean and the biased variance of each channel of x [n, c, h].
void Statistics(const Array& x, Array& mean, Array& variance) {
  mean = variance = Array::Zeros({x.sizes[1]});
  const double count = static_cast<double>(x.sizes[0] * x.sizes[2]);
  ForIndices(x.sizes, [&](const auto& i) { mean.at({i[1]}) += x.at(i) / count; });
  ForIndices(x.sizes, [&](const auto& i) { variance.at({i[1]}) += std::pow(x.at(i) - mean.at({i[1]}), 2) / count; });
}

}  // namespace

// Compositions of ops. The op of a case is the most expensive one.
OpCases NormalizationCases() {
  OpCases all;
  all.cases.push_back({"Sum",
                       "batch_norm_training",
                       {{{3, 2, 4}}, {{2}}, {{2}}},
                       [](const auto& v) {
                         const BatchNormResult result = BatchNormTraining(v[0], v[1], v[2], kEpsilon);
                         return std::vector<Value>{result.y, result.mean, result.variance};
                       },
                       [](const std::vector<Array>& v) {
                         Array y = v[0], mean, variance;
                         Statistics(v[0], mean, variance);
                         ForIndices(y.sizes, [&](const auto& i) {
                           y.at(i) = (v[0].at(i) - mean.at({i[1]})) / std::sqrt(variance.at({i[1]}) + kEpsilon) *
                                         v[1].at({i[1]}) +
                                     v[2].at({i[1]});
                         });
                         return std::vector<Array>{y, mean, variance};
                       }});
  all.cases.push_back(
      {"Rsqrt",
       "batch_norm_inference",
       {{{3, 2, 4}}, {{2}}, {{2}}, {{2}}, {{2}, kFloat64, 0.5, 2}},
       [](const auto& v) { return std::vector<Value>{BatchNormInference(v[0], v[1], v[2], v[3], v[4], kEpsilon)}; },
       [](const std::vector<Array>& v) {
         Array y = v[0];
         ForIndices(y.sizes, [&](const auto& i) {
           y.at(i) = (v[0].at(i) - v[3].at({i[1]})) / std::sqrt(v[4].at({i[1]}) + kEpsilon) * v[1].at({i[1]}) +
                     v[2].at({i[1]});
         });
         return std::vector<Array>{y};
       }});
  all.cases.push_back(
      {"Sum",
       "layer_norm",
       {{{3, 2, 4}}, {{2, 4}}, {{2, 4}}},
       [](const auto& v) { return std::vector<Value>{LayerNorm(v[0], v[1], v[2], 2, kEpsilon)}; },
       [](const std::vector<Array>& v) {
         Array y = v[0];
         for (int64_t n = 0; n < 3; ++n) {
           double mean = 0, variance = 0;
           ForIndices({2, 4}, [&](const auto& i) { mean += v[0].at({n, i[0], i[1]}) / 8; });
           ForIndices({2, 4}, [&](const auto& i) { variance += std::pow(v[0].at({n, i[0], i[1]}) - mean, 2) / 8; });
           ForIndices({2, 4}, [&](const auto& i) {
             y.at({n, i[0], i[1]}) =
                 (v[0].at({n, i[0], i[1]}) - mean) / std::sqrt(variance + kEpsilon) * v[1].at(i) + v[2].at(i);
           });
         }
         return std::vector<Array>{y};
       }});
  all.cases.push_back({"Where",
                       "dropout_of_nothing",
                       {{{4, 3}}},
                       [](const auto& v) { return std::vector<Value>{Dropout(v[0], 0)}; },
                       [](const std::vector<Array>& v) { return std::vector<Array>{v[0]}; }});
  all.errors = {
      {"BatchNorm",
       "scale",
       [](Scope& s) {
         BatchNormTraining(s.Input("x", kFloat32, {2, 3}), s.Input("s", kFloat32, {2}), s.Input("o", kFloat32, {3}));
       },
       {"have to have shape [3]"}},
      {"LayerNorm",
       "scale",
       [](Scope& s) {
         LayerNorm(s.Input("x", kFloat32, {2, 3}), s.Input("s", kFloat32, {2}), s.Input("o", kFloat32, {3}));
       },
       {"the parameters have to have shape [3]"}},
      {"Dropout",
       "rate",
       [](Scope& s) {
         Dropout(s.Input("x", kFloat32, {2, 3}), 1);
       },
       {"the rate is 1 and has to be in [0, 1)"}},
  };
  return all;
}

}  // namespace gradweave
