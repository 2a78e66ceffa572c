// Attention beside plain loops, and beside PyTorch's numbers
// (tests/ops/make_attention_reference.py).
#include "gradweave/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/shape_ops.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

using Values = std::vector<Value>;
using Arrays = std::vector<Array>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The operands of make_attention_reference.py.
OperandCase Waves(std::vector<int64_t> sizes, double phase) {
  OperandCase operand{std::move(sizes)};
  int64_t count = 1;
  for (int64_t size : operand.sizes) count *= size;
  for (int64_t i = 0; i < count; ++i)
    operand.values.push_back(static_cast<float>(2 * std::sin(phase + 1.7 * static_cast<double>(i))));
  return operand;
}
// Truth values where the waves are above -1.
OperandCase Truths(std::vector<int64_t> sizes, double phase) {
  OperandCase operand = Waves(std::move(sizes), phase);
  operand.dtype = kBool;
  for (double& value : operand.values) value = value > -1 ? 1 : 0;
  return operand;
}

const Array& Stored(const std::string& name) {
  static const auto* const results = new std::map<std::string, Array>{
#include "tests/ops/attention_reference.inc"
  };
  const auto found = results->find(name);
  GW_CHECK(found != results->end());
  return found->second;
}

AttentionOptions WithMask(AttentionOptions options, const Values& x, size_t mask) {
  if (x.size() > mask) options.mask = x[mask];
  return options;
}

// The result and the gradients of q, k and v; the operands are q, k, v, dy and perhaps a mask.
void AddStored(OpCases& all, const std::string& name, AttentionOptions options, std::vector<OperandCase> mask = {},
               int64_t key_heads = 2, int64_t keys = 7) {
  OpCase row = {"ScaledDotProductAttention",
                "stored_" + name,
                {Waves({2, 2, 5, 4}, 1), Waves({2, key_heads, keys, 4}, 2), Waves({2, key_heads, keys, 3}, 3),
                 Waves({2, 2, 5, 3}, 4)},
                [options](const Values& x) {
                  const Value y = ScaledDotProductAttention(x[0], x[1], x[2], WithMask(options, x, 4));
                  Values results = Gradients({y}, {x[0], x[1], x[2]}, {x[3]});
                  results.insert(results.begin(), y);
                  return results;
                }};
  row.operands.insert(row.operands.end(), mask.begin(), mask.end());
  Arrays results;
  for (const char* suffix : {"", "_dq", "_dk", "_dv"}) results.push_back(Stored(name + suffix));
  row.reference = [results](const Arrays&) { return results; };
  row.derivatives = 0;
  // A mask of three axes has none for the batch.
  row.symbolic = mask.empty() || mask[0].sizes.size() != 3;
  row.symbolic_batch = true;
  all.cases.push_back(std::move(row));
}

// The operands and options of attention for plain loops, with the heads on axis 1.
struct Plain {
  Array q, k, v, mask;  // A mask without sizes is none; else it has the rank 4.
  bool causal;
  double scale;

  bool keeps(int64_t i, int64_t j, double added) const { return (!causal || j <= i) && added != -kInfinity; }
  double Added(int64_t b, int64_t h, int64_t i, int64_t j, bool is_bool) const {
    if (mask.sizes.empty()) return 0;
    auto at = [&](int axis, int64_t index) { return mask.sizes[axis] == 1 ? 0 : index; };
    const double number = mask.at({at(0, b), at(1, h), at(2, i), at(3, j)});
    return !is_bool ? number : number != 0 ? 0 : -kInfinity;
  }
};

Array HeadsFirst(const Array& x, int64_t heads_axis) {
  if (heads_axis == 1) return x;
  Array y = Array::Zeros({x.sizes[0], x.sizes[2], x.sizes[1], x.sizes[3]});
  ForIndices(y.sizes, [&](const auto& i) { y.at(i) = x.at({i[0], i[2], i[1], i[3]}); });
  return y;
}

// The weights of a query, and e^0 = 1 times the largest for each key that is left in.
std::vector<double> WeightsOf(const Plain& a, int64_t b, int64_t h, int64_t i, bool mask_is_bool) {
  const int64_t keys = a.k.sizes[2], of_key = h / (a.q.sizes[1] / a.k.sizes[1]);
  std::vector<double> weights(keys, 0);
  double largest = -kInfinity, sum = 0;
  for (int64_t j = 0; j < keys; ++j) {
    const double added = a.Added(b, h, i, j, mask_is_bool);
    weights[j] = -kInfinity;
    if (!a.keeps(i, j, added)) continue;
    double score = 0;
    for (int64_t c = 0; c < a.q.sizes[3]; ++c) score += a.q.at({b, h, i, c}) * a.k.at({b, of_key, j, c});
    weights[j] = score * a.scale + added;
    largest = std::max(largest, weights[j]);
  }
  for (double& weight : weights) {
    weight = weight == -kInfinity ? 0 : std::exp(weight - largest);
    sum += weight;
  }
  for (double& weight : weights) weight = sum == 0 ? 0 : weight / sum;
  return weights;
}

// Without dy the result, else the gradients of q, k and v.
Arrays Attend(const Plain& a, const Array* dy, int64_t heads_axis, bool mask_is_bool) {
  const int64_t width = a.v.sizes[3], group = a.q.sizes[1] / a.k.sizes[1];
  Array y = Array::Zeros({a.q.sizes[0], a.q.sizes[1], a.q.sizes[2], width});
  Array dq = Array::Zeros(a.q.sizes), dk = Array::Zeros(a.k.sizes), dv = Array::Zeros(a.v.sizes);
  ForIndices({a.q.sizes[0], a.q.sizes[1], a.q.sizes[2]}, [&](const auto& at) {
    const int64_t b = at[0], h = at[1], i = at[2], g = h / group, keys = a.k.sizes[2];
    const std::vector<double> weights = WeightsOf(a, b, h, i, mask_is_bool);
    std::vector<double> of_weights(keys, 0);
    double mean = 0;
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t c = 0; c < width; ++c) {
        y.at({b, h, i, c}) += weights[j] * a.v.at({b, g, j, c});
        if (dy == nullptr) continue;
        of_weights[j] += dy->at({b, h, i, c}) * a.v.at({b, g, j, c});
        dv.at({b, g, j, c}) += weights[j] * dy->at({b, h, i, c});
      }
      mean += weights[j] * of_weights[j];
    }
    for (int64_t j = 0; dy != nullptr && j < keys; ++j) {
      const double of_score = weights[j] * (of_weights[j] - mean) * a.scale;
      for (int64_t c = 0; c < a.q.sizes[3]; ++c) {
        dq.at({b, h, i, c}) += of_score * a.k.at({b, g, j, c});
        dk.at({b, g, j, c}) += of_score * a.q.at({b, h, i, c});
      }
    }
  });
  // The exchange of two axes is its own inverse.
  if (dy == nullptr) return {HeadsFirst(y, heads_axis)};
  return {HeadsFirst(dq, heads_axis), HeadsFirst(dk, heads_axis), HeadsFirst(dv, heads_axis)};
}

struct Sizes {
  int64_t batch, heads, key_heads, queries, keys, width, value_width;
};

std::vector<OperandCase> OperandsOf(const Sizes& n, int64_t heads_axis) {
  auto operand = [&](int64_t heads, int64_t time, int64_t width) {
    return OperandCase{heads_axis == 1 ? std::vector<int64_t>{n.batch, heads, time, width}
                                       : std::vector<int64_t>{n.batch, time, heads, width}};
  };
  return {operand(n.heads, n.queries, n.width), operand(n.key_heads, n.keys, n.width),
          operand(n.key_heads, n.keys, n.value_width)};
}

// A row of the op, or of its gradient, which takes dy before the mask.
void AddPlain(OpCases& all, bool is_gradient, const std::string& name, const Sizes& sizes, AttentionOptions options,
              std::vector<OperandCase> mask, int derivatives) {
  OpCase row = {is_gradient ? "ScaledDotProductAttentionGrad" : "ScaledDotProductAttention", name,
                OperandsOf(sizes, options.heads_axis)};
  if (is_gradient) {
    row.operands.push_back(row.operands[0]);
    row.operands.back().sizes[3] = sizes.value_width;
  }
  row.operands.insert(row.operands.end(), mask.begin(), mask.end());
  const size_t first_mask = is_gradient ? 4 : 3;
  const double scale = 1 / std::sqrt(static_cast<double>(sizes.width));
  row.build = [=](const Values& x) -> Values {
    if (!is_gradient) return {ScaledDotProductAttention(x[0], x[1], x[2], WithMask(options, x, first_mask))};
    const std::vector<Operand> operands(x.begin(), x.end());
    const Value gradients = AddOp("ScaledDotProductAttentionGrad", operands,
                                  {{"causal", options.causal}, {"scale", scale}, {"heads_axis", options.heads_axis}});
    return {gradients, Output(gradients, 1), Output(gradients, 2)};
  };
  const bool mask_is_bool = !mask.empty() && mask[0].dtype == kBool;
  row.reference = [=](const Arrays& x) {
    Plain plain = {HeadsFirst(x[0], options.heads_axis),
                   HeadsFirst(x[1], options.heads_axis),
                   HeadsFirst(x[2], options.heads_axis),
                   {},
                   options.causal,
                   scale};
    if (x.size() > first_mask) {
      plain.mask = x[first_mask];
      while (plain.mask.sizes.size() < 4) plain.mask.sizes.insert(plain.mask.sizes.begin(), 1);
    }
    if (!is_gradient) return Attend(plain, nullptr, options.heads_axis, mask_is_bool);
    const Array dy = HeadsFirst(x[3], options.heads_axis);
    return Attend(plain, &dy, options.heads_axis, mask_is_bool);
  };
  row.derivatives = derivatives;
  row.symbolic_batch = true;
  row.float32_tolerance = 1e-4;
  all.cases.push_back(std::move(row));
}

// Rotates pairs of x [batch, heads, time, width] by their positions.
Array Rotate(const Array& x, int64_t features, bool interleaved, double base, const std::vector<double>& positions,
             int time_axis) {
  Array y = x;
  ForIndices(x.sizes, [&](const std::vector<int64_t>& at) {
    const int64_t pairs = features / 2, c = at[3];
    const int64_t pair = interleaved ? c / 2 : c;
    if (c >= features || (interleaved ? c % 2 != 0 : c >= pairs)) return;
    std::vector<int64_t> other = at;
    other[3] = interleaved ? c + 1 : c + pairs;
    // Positions of all samples, or of each.
    const int64_t time = at[time_axis];
    const bool by_sample = static_cast<int64_t>(positions.size()) > x.sizes[time_axis];
    const double position = positions[by_sample ? at[0] * x.sizes[time_axis] + time : time];
    const double angle = position * std::pow(base, -2.0 * static_cast<double>(pair) / static_cast<double>(features));
    y.at(at) = x.at(at) * std::cos(angle) - x.at(other) * std::sin(angle);
    y.at(other) = x.at(other) * std::cos(angle) + x.at(at) * std::sin(angle);
  });
  return y;
}

void AddRotary(OpCases& all, const std::string& name, RotaryOptions options, std::vector<OperandCase> positions = {}) {
  const std::vector<int64_t> sizes =
      options.heads_axis == 1 ? std::vector<int64_t>{2, 2, 3, 6} : std::vector<int64_t>{2, 3, 2, 6};
  OpCase row = {"Cos", "rotary_" + name, {OperandCase{sizes}}};
  row.operands.insert(row.operands.end(), positions.begin(), positions.end());
  row.build = [options](const Values& x) {
    RotaryOptions given = options;
    if (x.size() > 1) given.positions = x[1];
    return Values{RotaryEmbedding(x[0], given)};
  };
  row.reference = [options](const Arrays& x) {
    return Arrays{Rotate(x[0], options.features == 0 ? 6 : options.features, options.interleaved, options.base,
                         x.size() > 1 ? x[1].values : std::vector<double>{0, 1, 2}, options.heads_axis == 1 ? 2 : 1)};
  };
  row.symbolic_batch = true;
  all.cases.push_back(std::move(row));
}

OpErrorCase Refused(std::string name, std::function<void(Scope&)> build, std::vector<std::string> parts) {
  return {"ScaledDotProductAttention", std::move(name), std::move(build), std::move(parts)};
}

// A call with q [2, 4, 5, 3] and k and v [2, 2, 6, 3].
void Call(Scope& scope, AttentionOptions options) {
  const Value q = scope.Input("q", kFloat32, {2, 4, 5, 3}), k = scope.Input("k", kFloat32, {2, 2, 6, 3});
  ScaledDotProductAttention(q, k, k, options);
}
void CallWith(Scope& scope, const TensorType& q, const TensorType& k, const TensorType& v) {
  ScaledDotProductAttention(scope.Input("q", q.dtype, q.shape), scope.Input("k", k.dtype, k.shape),
                            scope.Input("v", v.dtype, v.shape));
}

void AddErrors(OpCases& all) {
  const TensorType q = {kFloat32, {2, 4, 5, 3}}, k = {kFloat32, {2, 2, 6, 3}};
  auto types = [&](const char* name, const TensorType& q, const TensorType& k, const TensorType& v,
                   std::vector<std::string> parts) {
    all.errors.push_back(Refused(
        name, [=](Scope& scope) { CallWith(scope, q, k, v); }, std::move(parts)));
  };
  types("rank", {kFloat32, {4, 5, 3}}, k, k, {"q, k and v have to be [batch, heads, time, width]"});
  types("dtype", q, {kFloat64, {2, 2, 6, 3}}, k, {"floating and of one dtype"});
  types("integers", {kInt32, {2, 4, 5, 3}}, k, k, {"floating and of one dtype"});
  types("batch", q, {kFloat32, {3, 2, 6, 3}}, k, {"have to have one batch"});
  types("width", q, {kFloat32, {2, 2, 6, 8}}, k, {"widths of q and k, their last axes, are 3 and 8"});
  types("values", q, k, {kFloat32, {2, 2, 7, 3}}, {"a value for each key"});
  types("heads", q, {kFloat32, {2, 3, 6, 3}}, {kFloat32, {2, 3, 6, 3}},
        {"the heads of k and v, 3, have to divide those of q, 4"});
  auto options = [&](const char* name, std::function<AttentionOptions(Scope&)> make, std::vector<std::string> parts) {
    all.errors.push_back(Refused(
        name, [=](Scope& scope) { Call(scope, make(scope)); }, std::move(parts)));
  };
  options("mask_rank",
          [](Scope& s) {
            return AttentionOptions{.mask = s.Input("m", kBool, {1, 2, 4, 5, 6})};
          },
          {"the mask is bool[1,2,4,5,6]", "broadcast to the scores [batch, heads, queries, keys], [2,4,5,6]"});
  options("mask_sizes",
          [](Scope& s) {
            return AttentionOptions{.mask = s.Input("m", kBool, {6, 5})};
          },
          {"the mask is bool[6,5]"});
  options("mask_dtype",
          [](Scope& s) {
            return AttentionOptions{.mask = s.Input("m", kFloat64, {5, 6})};
          },
          {"the mask is float64[5,6] and has to be bool or float32"});
  options("scale", [](Scope&) { return AttentionOptions{.scale = kNaN}; }, {"the scale is nan"});
  options("dropout", [](Scope&) { return AttentionOptions{.dropout = 1}; }, {"dropout is 1 and has to be in [0, 1)"});
  options("heads_axis", [](Scope&) { return AttentionOptions{.heads_axis = 3}; }, {"heads_axis is 3"});
  all.errors.push_back(Refused("number",
                               [](Scope& s) {
                                 const Value k = s.Input("k", kFloat32, {2, 2, 6, 3});
                                 ScaledDotProductAttention(k, 1, k);
                               },
                               {"q, k and v have to be values, not numbers"}));
  auto rotary = [&](const char* name, std::function<RotaryOptions(Scope&)> make, std::vector<std::string> parts) {
    all.errors.push_back({"Cos", std::string("rotary_") + name,
                          [=](Scope& s) {
                            RotaryEmbedding(s.Input("x", kFloat32, {2, 4, 5, 6}), make(s));
                          },
                          std::move(parts)});
  };
  rotary("odd", [](Scope&) { return RotaryOptions{.features = 3}; },
         {"features is 3", "even number from 2 to the width 6"});
  rotary("wide", [](Scope&) { return RotaryOptions{.features = 8}; }, {"features is 8"});
  rotary("base", [](Scope&) { return RotaryOptions{.base = 0}; }, {"base is 0"});
  rotary("positions", [](Scope& s) { return RotaryOptions{.positions = s.Input("p", kInt64, {4})}; },
         {"[time] or [batch, time]"});
  rotary("fractions", [](Scope& s) { return RotaryOptions{.positions = s.Input("p", kFloat32, {5})}; },
         {"the positions have to be integers"});
}

}  // namespace

OpCases AttentionCases() {
  OpCases all;
  AddStored(all, "plain", {});
  AddStored(all, "scale", {.scale = 0.3});
  AddStored(all, "causal", {.causal = true});
  AddStored(all, "causal_square", {.causal = true}, {}, 2, 5);
  AddStored(all, "queries_and_keys", {}, {Truths({5, 7}, 5)});
  AddStored(all, "padding", {}, {Truths({2, 1, 1, 7}, 6)});
  AddStored(all, "all_axes", {}, {Truths({2, 2, 5, 7}, 7)});
  AddStored(all, "added", {}, {Waves({2, 5, 7}, 5)});
  OperandCase excluded = Waves({5, 7}, 5);
  for (double& value : excluded.values) value = value < -1 ? -kInfinity : value;
  AddStored(all, "added_excluded", {}, {excluded});
  AddStored(all, "one_key_head", {}, {}, 1);

  // Some queries have no keys.
  OperandCase truths = {{4, 6}, kBool};
  truths.values = {1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  const OperandCase numbers = {{2, 1, 4, 6}, kFloat64};
  const Sizes small = {2, 2, 2, 4, 6, 3, 2}, grouped = {2, 4, 2, 4, 3, 2, 3}, one_query = {2, 2, 1, 1, 5, 3, 2};
  // Several blocks of queries, several panels of keys, and rests of all of them.
  const Sizes large = {2, 4, 2, 61, 77, 36, 19}, long_rows = {1, 1, 1, 5, 3000, 8, 8},
              wide = {1, 2, 2, 130, 33, 330, 70};
  for (bool is_gradient : {false, true}) {
    const int derivatives = is_gradient ? 1 : 2;
    AddPlain(all, is_gradient, "small", small, {}, {}, 2);
    AddPlain(all, is_gradient, "causal", small, {.causal = true}, {}, derivatives);
    AddPlain(all, is_gradient, "time_first", small, {.causal = true, .heads_axis = 2}, {}, derivatives);
    AddPlain(all, is_gradient, "mask", small, {}, {truths}, derivatives);
    AddPlain(all, is_gradient, "added", small, {.causal = true}, {numbers}, derivatives);
    AddPlain(all, is_gradient, "grouped", grouped, {.heads_axis = 2}, {}, derivatives);
    AddPlain(all, is_gradient, "one_query", one_query, {}, {}, derivatives);
    AddPlain(all, is_gradient, "large", large, {}, {}, 0);
    AddPlain(all, is_gradient, "large_causal", large, {.causal = true, .heads_axis = 2}, {}, 0);
    AddPlain(all, is_gradient, "large_mask", large, {}, {Truths({2, 1, 1, 77}, 6)}, 0);
    AddPlain(all, is_gradient, "large_added", large, {.causal = true}, {Waves({61, 1}, 6)}, 0);
    AddPlain(all, is_gradient, "long_rows", long_rows, {}, {}, 0);
    AddPlain(all, is_gradient, "wide", wide, {.causal = true}, {}, 0);
  }
  AddRotary(all, "halves", {});
  AddRotary(all, "interleaved", {.interleaved = true, .base = 100});
  AddRotary(all, "partial", {.features = 4, .heads_axis = 2});
  AddRotary(all, "partial_interleaved", {.interleaved = true, .features = 2});
  AddRotary(all, "positions", {.base = 50}, {{{3}, kInt64, 0, 0, {7, 0, 1000}}});
  AddRotary(all, "positions_of_samples", {.interleaved = true, .heads_axis = 2},
            {{{2, 3}, kInt32, 0, 0, {4, 1, 9, 0, 2, 2}}});
  AddErrors(all);
  return all;
}

}  // namespace gradweave
