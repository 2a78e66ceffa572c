#include "gradweave/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"

namespace gradweave {
namespace {

constexpr absl::string_view kAttention = "ScaledDotProductAttention", kAttentionGrad = "ScaledDotProductAttentionGrad";
constexpr absl::string_view kRotary = "RotaryEmbedding";

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

// The operands and attributes of the op. There is no mask if it has no graph.
struct Attention {
  Value q, k, v, mask;
  bool causal = false;
  double scale = 1;
  int64_t heads_axis = 1;

  int time_axis() const { return heads_axis == 1 ? 2 : 1; }
  bool has_mask() const { return mask.graph() != nullptr; }
};

// Returns the problem of operands of these types, or an empty string. A null mask means no mask.
std::string ProblemOf(const TensorType& q, const TensorType& k, const TensorType& v, const TensorType* mask,
                      int64_t heads_axis) {
  if (heads_axis != 1 && heads_axis != 2) return absl::StrCat("heads_axis is ", heads_axis, " and has to be 1 or 2");
  const int heads = static_cast<int>(heads_axis), time = 3 - heads;
  for (const TensorType* type : {&q, &k, &v}) {
    if (type->shape.rank() != 4 || !IsReal(type->dtype) || type->dtype != q.dtype) {
      return absl::StrCat("q, k and v have to be ",
                          heads == 1 ? "[batch, heads, time, width]" : "[batch, time, heads, width]",
                          ", floating and of one dtype");
    }
  }
  if (!(q.shape[0] == k.shape[0]) || !(q.shape[0] == v.shape[0]))
    return "q, k and v have to have one batch, their first axis";
  if (!(q.shape[3] == k.shape[3])) {
    return absl::StrCat("the widths of q and k, their last axes, are ", q.shape[3].ToString(), " and ",
                        k.shape[3].ToString(), " and have to be equal");
  }
  if (q.shape[3] == Dim(0) || v.shape[3] == Dim(0)) return "the widths, the last axes, have to be at least 1";
  if (!(k.shape[time] == v.shape[time]) || !(k.shape[heads] == v.shape[heads]))
    return "there has to be a value for each key: k and v may differ in their last axis alone";
  const Dim &of_q = q.shape[heads], &of_k = k.shape[heads];
  const bool known = of_q.is_known() && of_k.is_known() && of_k.size() > 0;
  if (!(of_q == of_k) && !(known && of_q.size() % of_k.size() == 0)) {
    return absl::StrCat("the heads of k and v, ", of_k.ToString(), ", have to divide those of q, ", of_q.ToString());
  }
  if (mask == nullptr) return "";
  const Dim scores[] = {q.shape[0], of_q, q.shape[time], k.shape[time]};
  bool fits = mask->shape.rank() <= 4 && (mask->dtype == kBool || mask->dtype == q.dtype);
  for (int i = 1; fits && i <= mask->shape.rank(); ++i) {
    const Dim& dim = mask->shape[mask->shape.rank() - i];
    fits = dim == Dim(1) || dim == scores[4 - i];
  }
  if (fits) return "";
  return absl::StrCat("the mask is ", mask->ToString(), " and has to be bool or ", DTypeName(q.dtype),
                      ", and to broadcast to the scores [batch, heads, queries, keys], ",
                      Shape({scores[0], scores[1], scores[2], scores[3]}).ToString());
}

Value HeadsFirst(const Value& x, int64_t heads_axis) { return heads_axis == 1 ? x : Transpose(x, {0, 2, 1, 3}); }

// The product of [batch, heads, rows, columns] with a matrix for each key head, which several heads
// share.
Value GroupedMatMul(const Value& x, const Value& matrices, bool transpose) {
  const Shape &shape = x.shape(), &other = matrices.shape();
  if (shape[1] == other[1]) return MatMul(x, matrices, {.transpose_b = transpose});
  const int64_t group = shape[1].size() / other[1].size();
  const Value grouped = Reshape(x, {shape[0], other[1], group, shape[2], shape[3]});
  const Value product = MatMul(grouped, ExpandDims(matrices, {2}), {.transpose_b = transpose});
  return Reshape(product, {shape[0], shape[1], shape[2], other[transpose ? 2 : 3]});
}

// [batch, heads, queries, keys].
Value WeightsOf(const Attention& a) {
  // Scaling the queries takes fewer products than scaling the scores.
  const Value q = Mul(HeadsFirst(a.q, a.heads_axis), a.scale), k = HeadsFirst(a.k, a.heads_axis);
  Value scores = GroupedMatMul(q, k, true), keep;
  if (a.has_mask() && a.mask.dtype() == kBool) keep = a.mask;
  if (a.has_mask() && a.mask.dtype() != kBool) {
    keep = NotEqual(a.mask, -std::numeric_limits<double>::infinity());
    scores = Add(scores, Where(keep, a.mask, 0));
  }
  if (a.causal) {
    const Value query = ExpandDims(RangeLike(scores, q.shape()[2]), {1}), key = RangeLike(scores, k.shape()[2]);
    const Value before = LessEqual(key, query);
    keep = keep.graph() == nullptr ? before : LogicalAnd(keep, before);
  }
  if (keep.graph() == nullptr) return Softmax(scores);
  // The softmax of finite numbers is not NaN, and the excluded places get 0 afterwards.
  const double lowest =
      scores.dtype() == kFloat32 ? std::numeric_limits<float>::lowest() : std::numeric_limits<double>::lowest();
  return Where(keep, Softmax(Where(keep, scores, lowest)), 0);
}

Value ComposeFrom(const Attention& a, const Value& weights) {
  return HeadsFirst(GroupedMatMul(weights, HeadsFirst(a.v, a.heads_axis), false), a.heads_axis);
}
Value Compose(const Attention& a) { return ComposeFrom(a, WeightsOf(a)); }

// A value of its own with x's elements, so that gradients with respect to it do not pass through
// the values that x depends on.
Value AliasOf(const Value& x) { return x.graph() == nullptr ? x : Reshape(x, x.shape()); }
Attention AliasesOf(const Attention& a) {
  Attention aliases = a;
  for (Value* x : {&aliases.q, &aliases.k, &aliases.v, &aliases.mask}) *x = AliasOf(*x);
  return aliases;
}

// The op of these operands and attributes, which `values` holds in their order: q, k, v, dy for the
// gradient, and the mask if there is one.
Attention AttentionOf(const Node& node, absl::Span<const Value> values) {
  const size_t required = node.op->kind == OpKind::kAttention ? 3 : 4;
  return {.q = values[0],
          .k = values[1],
          .v = values[2],
          .mask = values.size() > required ? values[required] : Value(),
          .causal = node.attribute<bool>("causal"),
          .scale = node.attribute<double>("scale"),
          .heads_axis = node.attribute<int64_t>("heads_axis")};
}
std::vector<Value> OperandsOf(const GradientContext& g) {
  std::vector<Value> operands;
  for (int i = 0; i < g.num_operands(); ++i) operands.push_back(g.operand(i));
  return operands;
}

Value AddAttentionOp(absl::string_view op, const Attention& a, std::vector<Operand> operands) {
  if (a.has_mask()) operands.push_back(a.mask);
  return AddOp(op, operands, {{"causal", a.causal}, {"scale", a.scale}, {"heads_axis", a.heads_axis}});
}

std::vector<Value> ComposeGradients(const Attention& a, const Value& dy) {
  const Attention aliases = AliasesOf(a);
  return Gradients({Compose(aliases)}, {aliases.q, aliases.k, aliases.v}, {dy});
}

void AttentionGradient(GradientContext& g) {
  const Attention a = AttentionOf(g.node(), OperandsOf(g));
  const Value dy = g.output_gradient();
  // The gradient op has no gradient of the mask, which would be as large as the scores.
  if (g.num_operands() > 3 && g.needs(3)) {
    const Attention aliases = AliasesOf(a);
    const std::vector<Value> gradients =
        Gradients({Compose(aliases)}, {aliases.q, aliases.k, aliases.v, aliases.mask}, {dy});
    for (int i = 0; i < 4; ++i) g.Set(i, gradients[i]);
    return;
  }
  const Value gradients = AddAttentionOp(kAttentionGrad, a, {a.q, a.k, a.v, dy});
  for (int i = 0; i < 3; ++i) g.Set(i, Output(gradients, i));
}

// Differentiates the composition of the gradient.
void AttentionGradGradient(GradientContext& g) {
  const Attention aliases = AliasesOf(AttentionOf(g.node(), OperandsOf(g)));
  const Value dy = AliasOf(g.operand(3));
  const std::vector<Value> first = Gradients({Compose(aliases)}, {aliases.q, aliases.k, aliases.v}, {dy});
  std::vector<Value> ys, grad_ys, xs = {aliases.q, aliases.k, aliases.v, dy};
  for (int i = 0; i < 3; ++i) {
    if (!g.has_output_gradient(i)) continue;
    ys.push_back(first[i]);
    grad_ys.push_back(g.output_gradient(i));
  }
  if (g.num_operands() > 4 && g.needs(4)) xs.push_back(aliases.mask);
  const std::vector<Value> second = Gradients(ys, xs, grad_ys);
  for (size_t i = 0; i < xs.size(); ++i) g.Set(static_cast<int>(i), second[i]);
}

// Samples are independent if all operands have them on axis 0. The mask is at operand `mask`, if it
// is given.
BatchAxes AttentionBatch(const OpView& op, absl::Span<const BatchAxis> operands, int mask, int outputs) {
  bool by_sample = true;
  for (int i = 0; i < mask; ++i) by_sample &= operands[i] == BatchAxis::Axis(0);
  if (op.num_operands() > mask) {
    const Shape& shape = op.shape(mask);
    const bool same_for_all = shape.rank() < 4 || shape[0] == Dim(1);
    by_sample &= same_for_all ? operands[mask].kind == BatchAxis::kAbsent : operands[mask] == BatchAxis::Axis(0);
  }
  return BatchAxes(outputs, by_sample ? BatchAxis::Axis(0) : BatchAxis{BatchAxis::kMixed, 0});
}

// The operations of `of_q` products with q's width and `of_v` with v's, of which a causal mask
// leaves out half.
double FlopsOf(const OpView& op, double of_q, double of_v) {
  const int heads = static_cast<int>(op.attribute<int64_t>("heads_axis")), time = 3 - heads;
  const Shape &q = op.shape(0), &k = op.shape(1), &v = op.shape(2);
  const double scores = static_cast<double>((q[0] * q[heads] * q[time] * k[time]).size());
  return (op.attribute<bool>("causal") ? 1 : 2) * scores *
         (of_q * static_cast<double>(q[3].size()) + of_v * static_cast<double>(v[3].size()));
}

std::optional<Shape> ShapeOfY(const OpView& op, int mask, std::string& problem) {
  problem = ProblemOf(op.operand(0), op.operand(1), op.operand(2),
                      op.num_operands() > mask ? &op.operand(mask) : nullptr, op.attribute<int64_t>("heads_axis"));
  if (problem.empty() && !std::isfinite(op.attribute<double>("scale"))) problem = "the scale has to be finite";
  if (!problem.empty()) return std::nullopt;
  Shape y = op.shape(0);
  y[3] = op.shape(2)[3];
  return y;
}

}  // namespace

void RegisterAttentionOps(OpRegistry& registry) {
  const std::vector<OperandDefinition> operands = {
      {"q", "[batch, heads, queries, width], or [batch, queries, heads, width] with heads_axis 2.", kFloating},
      {"k", "The same with keys. Its number of heads divides that of q.", kFloating},
      {"v", "The same with a value for each key, of any width.", kFloating}};
  const OperandDefinition mask = {
      "mask",
      "Bool: true where a query may attend to a key. Floating: added to the scores. It broadcasts to [batch, heads, "
      "queries, keys].",
      {kBool, kFloat32, kFloat64},
      OperandDefinition::kOptional};
  const std::vector<AttributeDefinition> attributes = {
      {"causal", AttributeType::kBool, "Query i attends to keys 0 to i only.", false},
      {"scale", AttributeType::kReal, "A finite factor of the scores."},
      {"heads_axis", AttributeType::kInteger, "The axis of the heads, 1 or 2.", int64_t{1}}};
  std::vector<OperandDefinition> of_y = operands, of_gradient = operands;
  of_y.push_back(mask);
  of_gradient.push_back({"dy", "The gradient of ScaledDotProductAttention.", kFloating});
  of_gradient.push_back(mask);
  registry.Add({
      .name = std::string(kAttention),
      .doc = "softmax(scale * q k^T + mask) v for each sample and head. Neighbouring heads of q share a head of k and "
             "v. A "
             "query that may attend to no key gets 0.",
      .operands = of_y,
      .attributes = attributes,
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        std::string problem;
        const std::optional<Shape> y = ShapeOfY(op, 3, problem);
        if (!y.has_value()) return op.Error(problem);
        return TensorTypes{{op.dtype(0), *y}};
      },
      .gradient = AttentionGradient,
      .batch = [](const OpView& op,
                  absl::Span<const BatchAxis> operands) { return AttentionBatch(op, operands, 3, 1); },
      .flops = [](const OpView& op, absl::Span<const TensorType>) { return FlopsOf(op, 1, 1); },
      .kind = OpKind::kAttention,
      .mixed_precision = MixedPrecision::kHalf,
  });
  registry.Add({
      .name = std::string(kAttentionGrad),
      .doc = "The gradients of ScaledDotProductAttention with respect to q, k and v.",
      .operands = of_gradient,
      .attributes = attributes,
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        std::string problem;
        const std::optional<Shape> y = ShapeOfY(op, 4, problem);
        if (!y.has_value()) return op.Error(problem);
        if (!(op.operand(3) == TensorType{op.dtype(0), *y}))
          return op.Error("dy has to be ", TensorType{op.dtype(0), *y}.ToString(), ", as the result");
        return TensorTypes{op.operand(0), op.operand(1), op.operand(2)};
      },
      .gradient = AttentionGradGradient,
      .batch = [](const OpView& op,
                  absl::Span<const BatchAxis> operands) { return AttentionBatch(op, operands, 4, 3); },
      .flops = [](const OpView& op, absl::Span<const TensorType>) { return FlopsOf(op, 3, 2); },
      .kind = OpKind::kAttentionGrad,
      .mixed_precision = MixedPrecision::kHalf,
  });
}

namespace {

// Returns the checked operands of a call, or records an error. `v` is k for a call without values.
std::optional<Attention> CheckCall(const Operand& q, const Operand& k, const Operand& v,
                                   const AttentionOptions& options) {
  const Operand operands[] = {q, k, v};
  if (!AllValid(kAttention, operands)) return std::nullopt;
  for (const Operand& operand : operands) {
    if (!operand.is_number()) continue;
    BuilderError(kAttention, operands, "q, k and v have to be values, not numbers");
    return std::nullopt;
  }
  const bool has_mask = options.mask.graph() != nullptr;
  if (has_mask && !AllValid(kAttention, {q, Operand(options.mask)})) return std::nullopt;
  std::string problem = ProblemOf(q.value().type(), k.value().type(), v.value().type(),
                                  has_mask ? &options.mask.type() : nullptr, options.heads_axis);
  if (problem.empty() && !(options.dropout >= 0 && options.dropout < 1))
    problem = absl::StrCat("dropout is ", options.dropout, " and has to be in [0, 1)");
  if (problem.empty() && options.scale.has_value() && !std::isfinite(*options.scale))
    problem = absl::StrCat("the scale is ", *options.scale, " and has to be finite");
  const Dim& width = q.shape().rank() == 4 ? q.shape()[3] : Dim(1);
  if (problem.empty() && !options.scale.has_value() && !width.is_known())
    problem = absl::StrCat("the width is ", width.ToString(), "; the scale has to be given if it is not known");
  if (!problem.empty()) {
    BuilderError(kAttention, operands, problem);
    return std::nullopt;
  }
  return Attention{
      .q = q.value(),
      .k = k.value(),
      .v = v.value(),
      .mask = options.mask,
      .causal = options.causal,
      .scale = options.scale.has_value() ? *options.scale : 1 / std::sqrt(static_cast<double>(width.size())),
      .heads_axis = options.heads_axis};
}

}  // namespace

Value ScaledDotProductAttention(Operand q, Operand k, Operand v, AttentionOptions options) {
  const std::optional<Attention> a = CheckCall(q, k, v, options);
  if (!a.has_value()) return Invalid(q);
  const CallLocation location(q);
  if (options.dropout == 0) return AddAttentionOp(kAttention, *a, {q, k, v});
  return ComposeFrom(*a, Dropout(WeightsOf(*a), options.dropout, options.dropout_seed));
}

Value AttentionWeights(Operand q, Operand k, AttentionOptions options) {
  const std::optional<Attention> a = CheckCall(q, k, k, options);
  if (!a.has_value()) return Invalid(q);
  const CallLocation location(q);
  return WeightsOf(*a);
}

absl::StatusOr<Graph> ExpandAttention(const Graph& graph,
                                      absl::FunctionRef<bool(const Graph& graph, const Node& node)> wanted) {
  auto is_wanted = [&](const Node& node) {
    return (node.op->kind == OpKind::kAttention || node.op->kind == OpKind::kAttentionGrad) && wanted(graph, node);
  };
  if (std::none_of(graph.nodes().begin(), graph.nodes().end(), is_wanted)) return graph;
  return Rewrite(
      graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        if (!is_wanted(node)) return std::nullopt;
        std::vector<Value> operands;
        for (Port input : inputs) operands.push_back(result.value(input));
        const LocationGuard location(result, node.location);
        const std::string device = std::exchange(result.builder().device, node.device);
        const Attention a = AttentionOf(node, operands);
        const std::vector<Value> composed =
            node.op->kind == OpKind::kAttention ? std::vector<Value>{Compose(a)} : ComposeGradients(a, operands[3]);
        result.builder().device = device;
        Ports ports;
        for (const Value& value : composed) {
          if (!value.valid()) return result.status();
          ports.push_back(value.port());
        }
        return ports;
      });
}

Value RotaryEmbedding(Operand x, RotaryOptions options) {
  if (!x.is_value()) return NeedsValue(kRotary, x);
  const Shape& shape = x.shape();
  if (shape.rank() != 4 || !IsReal(x.dtype()) || (options.heads_axis != 1 && options.heads_axis != 2) ||
      !shape[3].is_known()) {
    return BuilderError(kRotary, {x},
                        "x has to be [batch, heads, time, width], or [batch, time, heads, width] with heads_axis 2, "
                        "floating, of a known width");
  }
  const int64_t width = shape[3].size(), features = options.features == 0 ? width : options.features;
  if (features < 2 || features % 2 != 0 || features > width) {
    return BuilderError(
        kRotary, {x},
        absl::StrCat("features is ", features, " and has to be an even number from 2 to the width ", width));
  }
  if (!(options.base > 0) || !std::isfinite(options.base))
    return BuilderError(kRotary, {x}, absl::StrCat("base is ", options.base, " and has to be above 0 and finite"));
  const Dim& time = shape[options.heads_axis == 1 ? 2 : 1];
  const CallLocation location(x);
  Value positions = options.positions;
  if (positions.graph() == nullptr) {
    positions = RangeLike(x, time);
  } else {
    if (!AllValid(kRotary, {x, Operand(positions)})) return Invalid(x);
    const int rank = positions.rank();
    const bool fits = (rank == 1 || rank == 2) && kIntegers.Contains(positions.dtype()) &&
                      positions.shape()[rank - 1] == time && (rank == 1 || positions.shape()[0] == shape[0]);
    if (!fits) {
      return BuilderError(kRotary, {x, Operand(positions)},
                          "the positions have to be integers, [time] or [batch, time] as in x");
    }
  }
  const int64_t pairs = features / 2;
  std::vector<double> frequencies;
  for (int64_t i = 0; i < pairs; ++i)
    frequencies.push_back(std::pow(options.base, -2.0 * static_cast<double>(i) / static_cast<double>(features)));
  // Angles in float64 are exact enough for any position.
  const Value frequency = ConstantLike(x.value(), Tensor::Of<double>({pairs}, frequencies), x.location());
  const Value angle = Mul(ExpandDims(Cast(positions, kFloat64), {-1}), frequency);  // [..., time, pairs].
  auto of_angle = [&](Value (*function)(Operand)) {
    const Value numbers = Cast(function(angle), x.dtype());
    if (options.heads_axis == 2) return ExpandDims(numbers, {-2});
    return positions.rank() == 2 ? ExpandDims(numbers, {1}) : numbers;
  };
  const Value cosine = of_angle(Cos), sine = of_angle(Sin);
  const int64_t step = options.interleaved ? 2 : 1;
  const Value a = SliceAxis(x, 3, 0, options.interleaved ? features : pairs, step),
              b = SliceAxis(x, 3, options.interleaved ? 1 : pairs, features, step);
  const Value turned_a = Sub(Mul(a, cosine), Mul(b, sine)), turned_b = Add(Mul(b, cosine), Mul(a, sine));
  std::vector<Value> parts = {turned_a, turned_b};
  if (options.interleaved) {
    const Value both = Concat({ExpandDims(turned_a, {4}), ExpandDims(turned_b, {4})}, 4);
    parts = {Reshape(both, {shape[0], shape[1], shape[2], features})};
  }
  if (features < width) parts.push_back(SliceAxis(x, 3, features, width));
  return parts.size() == 1 ? parts[0] : Concat(parts, 3);
}

}  // namespace gradweave
