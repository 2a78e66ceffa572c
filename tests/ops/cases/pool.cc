#include "gradweave/ops/pool.h"

#include <cmath>

#include "gradweave/ops/elementwise.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

// Calls body(output indices, input indices) for each element of x in the window of each output
// element.
void ForWindowElements(const std::vector<int64_t>& x, const std::vector<int64_t>& y, const Pool2DOptions& options,
                       const std::function<void(const std::vector<int64_t>&, const std::vector<int64_t>&)>& body) {
  const Integers& stride = options.stride.empty() ? options.window : options.stride;
  const int64_t top = options.padding[0], left = options.padding.size() == 2 ? options.padding[1] : options.padding[2];
  ForIndices(y, [&](const std::vector<int64_t>& to) {
    for (int64_t k = 0; k < options.window[0]; ++k) {
      for (int64_t l = 0; l < options.window[1]; ++l) {
        const int64_t row = to[2] * stride[0] + k - top, column = to[3] * stride[1] + l - left;
        if (row >= 0 && row < x[2] && column >= 0 && column < x[3]) body(to, {to[0], to[1], row, column});
      }
    }
  });
}

}  // namespace

OpCases PoolCases() {
  OpCases all;
  struct Row {
    const char* name;
    std::vector<int64_t> x, y;
    Pool2DOptions options;
  };
  const Row rows[] = {
      {"two_by_two", {2, 3, 4, 6}, {2, 3, 2, 3}, {}},
      {"odd_size", {1, 2, 5, 5}, {1, 2, 2, 2}, {}},
      {"overlapping", {1, 2, 5, 5}, {1, 2, 3, 3}, {.window = {3, 3}, .stride = {1, 1}}},
      {"padding", {1, 2, 4, 4}, {1, 2, 3, 3}, {.window = {2, 2}, .padding = {1, 1}}},
      {"asymmetric_counted",
       {1, 1, 4, 5},
       {1, 1, 2, 2},
       {.window = {3, 3}, .stride = {2, 3}, .padding = {1, 0, 0, 1}, .count_padding = true}},
  };
  for (const Row& row : rows) {
    const Pool2DOptions options = row.options;
    const std::vector<int64_t> xs = row.x, ys = row.y;
    // The divisors of the window sums.
    auto divisors = [=] {
      Array count = Array::Zeros(ys);
      ForWindowElements(xs, ys, options, [&](const auto& to, const auto&) { count.at(to) += 1; });
      if (options.count_padding)
        count.values.assign(count.values.size(), static_cast<double>(options.window[0] * options.window[1]));
      return count;
    };
    all.cases.push_back({"AvgPool2D",
                         row.name,
                         {{xs}},
                         [options](const auto& v) { return std::vector<Value>{AvgPool2D(v[0], options)}; },
                         [=](const std::vector<Array>& v) {
                           Array y = Array::Zeros(ys);
                           const Array count = divisors();
                           ForWindowElements(xs, ys, options, [&](const auto& to, const auto& from) {
                             y.at(to) += v[0].at(from) / count.at(to);
                           });
                           return std::vector<Array>{y};
                         }});
    all.cases.push_back(
        {"AvgPool2DGrad",
         row.name,
         {{ys}},
         [options, xs](const auto& v) {
           const Integers padding = options.padding.size() == 2 ? Integers{options.padding[0], options.padding[0],
                                                                           options.padding[1], options.padding[1]}
                                                                : options.padding;
           return std::vector<Value>{AddOp("AvgPool2DGrad", {Operand(v[0])},
                                           {{"window", options.window},
                                            {"stride", options.stride.empty() ? options.window : options.stride},
                                            {"padding", padding},
                                            {"count_padding", options.count_padding},
                                            {"input_shape", Shape{v[0].shape()[0], v[0].shape()[1], xs[2], xs[3]}}})};
         },
         [=](const std::vector<Array>& v) {
           Array x = Array::Zeros(xs);
           const Array count = divisors();
           ForWindowElements(xs, ys, options,
                             [&](const auto& to, const auto& from) { x.at(from) += v[0].at(to) / count.at(to); });
           return std::vector<Array>{x};
         },
         2,
         false});
    if (options.count_padding) continue;
    all.cases.push_back({"MaxPool2D",
                         row.name,
                         {{xs}},
                         [options](const auto& v) { return std::vector<Value>{MaxPool2D(v[0], options)}; },
                         [=](const std::vector<Array>& v) {
                           Array y = Array::Zeros(ys);
                           y.values.assign(y.values.size(), -1e300);
                           ForWindowElements(xs, ys, options, [&](const auto& to, const auto& from) {
                             y.at(to) = std::max(y.at(to), v[0].at(from));
                           });
                           return std::vector<Array>{y};
                         }});
  }
  all.cases.push_back({"MaxPool2D",
                       "twice_differentiable",
                       {{{1, 1, 4, 4}}},
                       [](const auto& v) { return std::vector<Value>{Square(MaxPool2D(Square(v[0])))}; },
                       [](const std::vector<Array>& v) {
                         Array y = Array::Zeros({1, 1, 2, 2});
                         ForWindowElements(v[0].sizes, y.sizes, {}, [&](const auto& to, const auto& from) {
                           y.at(to) = std::max(y.at(to), std::pow(v[0].at(from), 4));
                         });
                         return std::vector<Array>{y};
                       }});
  const OperandCase indices = {{1, 2, 1, 2}, kInt32, 0, 0, {5, 0, 3, 3}};
  all.cases.push_back({"MaxUnpool2D",
                       "adds",
                       {{{1, 2, 1, 2}}, indices},
                       [](const auto& v) {
                         return std::vector<Value>{AddOp("MaxUnpool2D", {Operand(v[0]), Operand(v[1])},
                                                         {{"input_shape", Shape{1, 2, 2, 3}}})};
                       },
                       [](const std::vector<Array>& v) {
                         Array x = Array::Zeros({1, 2, 2, 3});
                         for (int64_t i = 0; i < 4; ++i)
                           x.values[i / 2 * 6 + static_cast<int64_t>(v[1].values[i])] += v[0].values[i];
                         return std::vector<Array>{x};
                       },
                       2,
                       false});
  all.cases.push_back({"MaxPool2DGather",
                       "takes",
                       {{{1, 2, 2, 3}}, indices},
                       [](const auto& v) {
                         return std::vector<Value>{AddOp("MaxPool2DGather", {Operand(v[0]), Operand(v[1])})};
                       },
                       [](const std::vector<Array>& v) {
                         Array y = Array::Zeros({1, 2, 1, 2});
                         for (int64_t i = 0; i < 4; ++i)
                           y.values[i] = v[0].values[i / 2 * 6 + static_cast<int64_t>(v[1].values[i])];
                         return std::vector<Array>{y};
                       },
                       2,
                       false});
  all.cases.push_back({"AvgPool2D",
                       "global",
                       {{{2, 3, 4, 2}}},
                       [](const auto& v) { return std::vector<Value>{GlobalAvgPool(v[0])}; },
                       [](const std::vector<Array>& v) {
                         Array y = Array::Zeros({2, 3});
                         ForIndices(v[0].sizes, [&](const auto& i) { y.at({i[0], i[1]}) += v[0].at(i) / 8; });
                         return std::vector<Array>{y};
                       }});
  all.errors = {
      {"AvgPool2D",
       "window",
       [](Scope& s) {
         AvgPool2D(s.Input("x", kFloat32, {1, 1, 2, 8}), {.window = {3, 3}});
       },
       {"the window's height is 3, and x with its padding has 2"}},
      {"MaxPool2D",
       "padding",
       [](Scope& s) {
         MaxPool2D(s.Input("x", kFloat32, {1, 1, 8, 8}), {.padding = {2, 2}});
       },
       {"the padding 2 of the height has to be in [0, 2)"}},
      {"GlobalAvgPool",
       "rank",
       [](Scope& s) {
         GlobalAvgPool(s.Input("x", kFloat32, {1, 8, 8}));
       },
       {"x has to be [batch, channels, height, width]"}},
  };
  return all;
}

}  // namespace gradweave
