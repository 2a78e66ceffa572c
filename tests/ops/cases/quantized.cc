#include "gradweave/ops/quantized.h"

#include <algorithm>
#include <cmath>

#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/reduction.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

// The result for a sum, by the definition.
double Rounded(double sum, double scale, const QuantizedResult& result) {
  const double v = result.relu ? std::max(sum * scale, 0.0) : sum * scale;
  if (result.dtype == kFloat32) return v;
  const double low = result.dtype == kInt8 ? -128 : 0, high = result.dtype == kInt8 ? 127 : 255;
  return std::clamp(std::nearbyint(v) + static_cast<double>(result.zero), low, high);
}

// Scales that are powers of two: their products are exact, so results that are halfway between two
// integers show the direction of rounding.
OperandCase Scales(std::vector<double> values) {
  return {.sizes = {static_cast<int64_t>(values.size())}, .values = std::move(values), .differentiate = false};
}

}  // namespace

OpCases QuantizedCases() {
  OpCases all;
  struct Result {
    const char* name;
    DType x_dtype;
    int64_t x_zero;
    QuantizedResult result;
  };
  const Result results[] = {{"float32", kUint8, 7, {}},
                            {"float32_relu", kInt8, -3, {.relu = true}},
                            {"uint8", kInt8, 0, {.dtype = kUint8, .zero = 100}},
                            {"uint8_relu", kUint8, 255, {.dtype = kUint8, .zero = 3, .relu = true}},
                            {"int8", kUint8, 128, {.dtype = kInt8, .zero = -5}}};
  for (const auto& [name, x_dtype, x_zero, result] : results) {
    const double low = x_dtype == kInt8 ? -128 : 0, high = low + 255;
    all.cases.push_back({"QuantizedMatMul",
                         name,
                         {{{2, 3, 5}, x_dtype, low, high},
                          {{5, 4}, kInt8, -128, 127},
                          Scales({0.5, 0.0078125, 0.00390625, 2}),
                          {{4}, kInt32, -3000, 3000}},
                         [=](const auto& v) {
                           return std::vector<Value>{
                               QuantizedMatMul(v[0], v[1], Cast(v[2], kFloat32), v[3], x_zero, result)};
                         },
                         [=](const std::vector<Array>& v) {
                           Array y = Array::Zeros({2, 3, 4});
                           ForIndices(y.sizes, [&](const auto& i) {
                             double sum = v[3].at({i[2]});
                             for (int64_t k = 0; k < 5; ++k)
                               sum += (v[0].at({i[0], i[1], k}) - static_cast<double>(x_zero)) * v[1].at({k, i[2]});
                             y.at(i) = Rounded(sum, v[2].at({i[2]}), result);
                           });
                           return std::vector<Array>{y};
                         },
                         0});
    struct Conv {
      std::string name;
      int64_t channels, outputs;
      Conv2DOptions options;
    };
    for (const Conv& conv :
         {Conv{"", 3, 4, {.padding = {1, 1}}}, Conv{"_groups", 4, 4, {.stride = {2, 1}, .groups = 2}},
          Conv{"_depthwise", 2, 4, {.stride = {1, 2}, .padding = {1, 1}, .groups = 2}}}) {
      const int64_t inputs = conv.channels / conv.options.groups, pad = conv.options.padding[0];
      const Conv2DOptions options = conv.options;
      const std::vector<int64_t> xs = {2, conv.channels, 5, 6}, fs = {4, inputs, 3, 3};
      const std::vector<int64_t> ys = {2, 4, (5 + 2 * pad - 3) / options.stride[0] + 1,
                                       (6 + 2 * pad - 3) / options.stride[1] + 1};
      all.cases.push_back({"QuantizedConv2D",
                           name + conv.name,
                           {{xs, x_dtype, low, high},
                            {fs, kInt8, -128, 127},
                            Scales({0.5, 0.0078125, 0.00390625, 2}),
                            {{4}, kInt32, -3000, 3000}},
                           [=](const auto& v) {
                             return std::vector<Value>{
                                 QuantizedConv2D(v[0], v[1], Cast(v[2], kFloat32), v[3], x_zero, options, result)};
                           },
                           [=](const std::vector<Array>& v) {
                             Array y = Array::Zeros(ys);
                             ForIndices(ys, [&](const auto& i) {
                               double sum = v[3].at({i[1]});
                               ForIndices({inputs, 3, 3}, [&](const auto& t) {
                                 const int64_t row = i[2] * options.stride[0] + t[1] - pad,
                                               column = i[3] * options.stride[1] + t[2] - pad;
                                 if (row < 0 || row >= 5 || column < 0 || column >= 6) return;
                                 const int64_t channel = i[1] / (4 / options.groups) * inputs + t[0];
                                 sum += (v[0].at({i[0], channel, row, column}) - static_cast<double>(x_zero)) *
                                        v[1].at({i[1], t[0], t[1], t[2]});
                               });
                               y.at(i) = Rounded(sum, v[2].at({i[1]}), result);
                             });
                             return std::vector<Array>{y};
                           },
                           0,
                           false});
    }
  }
  all.cases.push_back(
      {"Quantize",
       "saturates",
       {{.sizes = {11}, .values = {-1e9, -65, -64, -1.5, -0.5, 0, 0.25, 0.75, 1.25, 63, 1e9}}},
       [](const auto& v) {
         const Value x = Cast(v[0], kFloat32);
         return std::vector<Value>{Dequantize(Quantize(x, 0.5, 0, kInt8), 0.5, 0), Quantize(x, 0.5, 130, kUint8)};
       },
       [](const std::vector<Array>&) {
         Array int8 = Array::Zeros({11}), uint8 = int8;
         int8.values = {-64, -64, -64, -1.5, -0.5, 0, 0, 1, 1, 63, 63.5};
         uint8.values = {0, 0, 2, 127, 129, 130, 130, 132, 132, 255, 255};
         return std::vector<Array>{int8, uint8};
       },
       0});
  // float64 numbers, and a scale for each column, take the composition of other ops.
  all.cases.push_back({"Round",
                       "quantize",
                       {{.sizes = {2, 3}, .values = {-3, 0.25, 0.75, 70, 1, 1.5}}, Scales({0.5, 0.25, 2})},
                       [](const auto& v) {
                         const Value q = Quantize(v[0], v[1], 1, kInt8);
                         return std::vector<Value>{q, Dequantize(q, v[1], 1)};
                       },
                       [](const std::vector<Array>&) {
                         Array q = Array::Zeros({2, 3}), y = q;
                         q.values = {-5, 2, 1, 127, 5, 2};
                         y.values = {-3, 0.25, 0, 63, 1, 2};
                         return std::vector<Array>{q, y};
                       },
                       0});
  struct Pool {
    const char* name;
    DType dtype;
    std::vector<int64_t> x, y;
    Pool2DOptions options;
  };
  const Pool pools[] = {
      {"halves", kUint8, {2, 3, 6, 70}, {2, 3, 3, 35}, {.window = {2, 2}}},
      {"signed", kInt8, {2, 3, 7, 41}, {2, 3, 4, 21}, {.window = {3, 3}, .stride = {2, 2}, .padding = {1, 1, 1, 1}}},
      {"dense", kInt8, {1, 2, 5, 70}, {1, 2, 4, 69}, {.window = {2, 2}, .stride = {1, 1}}},
      {"thirds", kUint8, {1, 2, 9, 9}, {1, 2, 3, 3}, {.window = {3, 3}}},
      {"gaps", kUint8, {1, 1, 9, 9}, {1, 1, 2, 3}, {.window = {2, 1}, .stride = {6, 4}}},
  };
  for (const Pool& pool : pools) {
    const Pool2DOptions options = pool.options;
    const std::vector<int64_t> xs = pool.x, ys = pool.y;
    const double low = pool.dtype == kInt8 ? -128 : 0;
    all.cases.push_back({"QuantizedMaxPool2D",
                         pool.name,
                         {{xs, pool.dtype, low, low + 255}},
                         [=](const auto& v) { return std::vector<Value>{MaxPool2D(v[0], options)}; },
                         [=](const std::vector<Array>& v) {
                           Array y = Array::Zeros(ys);
                           const Integers stride = options.stride.empty() ? options.window : options.stride;
                           const Integers padding = options.padding.empty() ? Integers{0, 0, 0, 0} : options.padding;
                           ForIndices(ys, [&](const auto& i) {
                             double largest = low;
                             ForIndices({options.window[0], options.window[1]}, [&](const auto& t) {
                               const int64_t row = i[2] * stride[0] + t[0] - padding[0];
                               const int64_t column = i[3] * stride[1] + t[1] - padding[2];
                               if (row < 0 || row >= xs[2] || column < 0 || column >= xs[3]) return;
                               largest = std::max(largest, v[0].at({i[0], i[1], row, column}));
                             });
                             y.at(i) = largest;
                           });
                           return std::vector<Array>{y};
                         },
                         0,
                         false});
  }
  all.errors = {
      {"Quantize",
       "zero",
       [](Scope& s) { Quantize(s.Input("x", kFloat32, {2}), 0.5, 128, kInt8); },
       {"the dtype has to be int8 or uint8 and contain the zero point; they are int8 and 128"}},
      {"QuantizedMatMul",
       "columns",
       [](Scope& s) {
         QuantizedMatMul(s.Input("x", kInt8, {2, 3}), s.Input("w", kInt8, {4, 5}), s.Input("s", kFloat32, {5}),
                         s.Input("b", kInt32, {5}), 0);
       },
       {"x has 3 columns and the weights have 4 rows", "x: int8[2,3]"}},
      {"QuantizedMatMul",
       "dtype",
       [](Scope& s) {
         QuantizedMatMul(s.Input("x", kFloat32, {2, 3}), s.Input("w", kInt8, {3, 5}), s.Input("s", kFloat32, {5}),
                         s.Input("b", kInt32, {5}), 0);
       },
       {"QuantizedMatMul", "float32", "int8"}},
      {"QuantizedConv2D",
       "scale",
       [](Scope& s) {
         QuantizedConv2D(s.Input("x", kUint8, {1, 3, 8, 8}), s.Input("f", kInt8, {4, 3, 3, 3}),
                         s.Input("s", kFloat32, {3}), s.Input("b", kInt32, {4}), 0);
       },
       {"scale has to have shape [4], one number for each output channel"}},
      {"QuantizedConv2D",
       "zero",
       [](Scope& s) {
         QuantizedConv2D(s.Input("x", kUint8, {1, 3, 8, 8}), s.Input("f", kInt8, {4, 3, 3, 3}),
                         s.Input("s", kFloat32, {4}), s.Input("b", kInt32, {4}), -1);
       },
       {"x_zero is -1, which is no number of uint8"}},
      {"QuantizedConv2D",
       "result",
       [](Scope& s) {
         QuantizedConv2D(s.Input("x", kUint8, {1, 3, 8, 8}), s.Input("f", kInt8, {4, 3, 3, 3}),
                         s.Input("s", kFloat32, {4}), s.Input("b", kInt32, {4}), 0, {}, {.dtype = kInt64});
       },
       {"the result may be float32, int8 or uint8, not int64"}},
  };
  return all;
}

}  // namespace gradweave
