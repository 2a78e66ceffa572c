#include "gradweave/ops/softmax.h"

#include <algorithm>
#include <cmath>

#include "gradweave/ops/indexing.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

// log(softmax(x)) along an axis.
Array LogSoftmaxOf(const Array& x, int axis) {
  Array y = x;
  ForIndices(x.sizes, [&](const std::vector<int64_t>& indices) {
    std::vector<int64_t> other = indices;
    double largest = -1e300, sum = 0;
    for (other[axis] = 0; other[axis] < x.sizes[axis]; ++other[axis]) largest = std::max(largest, x.at(other));
    for (other[axis] = 0; other[axis] < x.sizes[axis]; ++other[axis]) sum += std::exp(x.at(other) - largest);
    y.at(indices) = x.at(indices) - largest - std::log(sum);
  });
  return y;
}

Array SoftmaxOf(const Array& x, int axis) {
  Array y = LogSoftmaxOf(x, axis);
  for (double& value : y.values) value = std::exp(value);
  return y;
}

}  // namespace

OpCases SoftmaxCases() {
  OpCases all;
  for (int axis : {0, 1, 2}) {
    const std::string name = "axis_" + std::to_string(axis);
    all.cases.push_back({"Softmax",
                         name,
                         {{{2, 5, 3}}},
                         [axis](const auto& x) { return std::vector<Value>{Softmax(x[0], axis - 3)}; },
                         [axis](const std::vector<Array>& x) { return std::vector<Array>{SoftmaxOf(x[0], axis)}; }});
    all.cases.push_back({"LogSoftmax",
                         name,
                         {{{2, 5, 3}}},
                         [axis](const auto& x) { return std::vector<Value>{LogSoftmax(x[0], axis)}; },
                         [axis](const std::vector<Array>& x) { return std::vector<Array>{LogSoftmaxOf(x[0], axis)}; }});
  }
  const OperandCase huge = {{2, 3}, kFloat64, 0, 0, {1e4, 1e4 - 1, -1e4, -1e4, -1e4, -1e4}};
  all.cases.push_back({"Softmax",
                       "huge",
                       {huge},
                       [](const auto& x) { return std::vector<Value>{Softmax(x[0])}; },
                       [](const std::vector<Array>& x) { return std::vector<Array>{SoftmaxOf(x[0], 1)}; },
                       0});
  all.cases.push_back({"LogSoftmax",
                       "huge",
                       {huge},
                       [](const auto& x) { return std::vector<Value>{LogSoftmax(x[0])}; },
                       [](const std::vector<Array>& x) { return std::vector<Array>{LogSoftmaxOf(x[0], 1)}; },
                       0});
  all.cases.push_back({"Softmax",
                       "one_class_many_rows",
                       {{{3000, 1}}},
                       [](const auto& x) { return std::vector<Value>{Softmax(x[0])}; },
                       [](const std::vector<Array>& x) { return std::vector<Array>{SoftmaxOf(x[0], 1)}; },
                       0});

  auto cross_entropy = [](const std::vector<Array>& x) {
    const Array log_softmax = LogSoftmaxOf(x[0], 1);
    Array y = Array::Zeros({x[1].sizes[0]});
    for (int64_t i = 0; i < y.size(0); ++i) y.at({i}) = -log_softmax.at({i, static_cast<int64_t>(x[1].at({i}))});
    return std::vector<Array>{y};
  };
  for (DType dtype : {kInt32, kInt64, kUint8}) {
    // The number of classes is known; the number of samples may be symbolic.
    all.cases.push_back({"SparseSoftmaxCrossEntropy",
                         std::string(DTypeName(dtype)),
                         {{{4, 3}}, {{4}, dtype, 0, 0, {0, 2, 1, 2}}},
                         [](const auto& x) { return std::vector<Value>{SparseSoftmaxCrossEntropy(x[0], x[1])}; },
                         cross_entropy,
                         2,
                         false});
  }
  all.cases.push_back({"SparseSoftmaxCrossEntropy",
                       "many",
                       {{{5000, 3}}, {{5000}, kInt32, 0, 3}},
                       [](const auto& x) { return std::vector<Value>{SparseSoftmaxCrossEntropy(x[0], x[1])}; },
                       cross_entropy,
                       0,
                       false});
  // The gradient op must equal the composition that it replaces.
  all.cases.push_back({"SparseSoftmaxCrossEntropyGrad",
                       "composition",
                       {{{4, 3}}, {{4}, kInt32, 0, 0, {0, 2, 1, 2}}, {{4}}},
                       [](const auto& x) {
                         return std::vector<Value>{
                             AddOp("SparseSoftmaxCrossEntropyGrad", {Operand(x[0]), Operand(x[1]), Operand(x[2])})};
                       },
                       [](const std::vector<Array>& x) {
                         Array y = SoftmaxOf(x[0], 1);
                         for (int64_t i = 0; i < 4; ++i) {
                           y.at({i, static_cast<int64_t>(x[1].at({i}))}) -= 1;
                           for (int64_t j = 0; j < 3; ++j) y.at({i, j}) *= x[2].at({i});
                         }
                         return std::vector<Array>{y};
                       },
                       2,
                       false});
  all.errors = {
      {"Softmax",
       "axis",
       [](Scope& s) {
         Softmax(s.Input("x", kFloat32, {2, 3}), 2);
       },
       {"Softmax: axis 2 is outside [0, 2)"}},
      {"SparseSoftmaxCrossEntropy",
       "labels",
       [](Scope& s) {
         SparseSoftmaxCrossEntropy(s.Input("x", kFloat32, {2, 3}), s.Input("l", kInt32, {3}));
       },
       {"labels have to have shape [2]", "labels: int32[3]"}},
      {"SparseSoftmaxCrossEntropy",
       "label_dtype",
       [](Scope& s) {
         SparseSoftmaxCrossEntropy(s.Input("x", kFloat32, {2, 3}), s.Input("l", kFloat32, {2}));
       },
       {"operand 1 (labels) is float32 and has to be int32 or int64 or uint8"}},
  };
  return all;
}

}  // namespace gradweave
