// The forms in ONNX of reductions, matrix products, losses, random numbers and collective ops.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/frontend/onnx/exporter.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

// Axes are an input of ReduceSum, and of the other ops from opset 18 on.
absl::Status WriteReduction(Exporter& e, const Node& node) {
  const Integers& axes = node.attribute<Integers>("axes");
  if (axes.empty()) {
    e.Place("Identity", node);
    return absl::OkStatus();
  }
  const std::string op = FindForm(node.op->name)->form;
  const int64_t keep = node.attribute<bool>("keep_dims") ? 1 : 0;
  if (op == "ReduceSum" || e.opset() >= 18) {
    e.Set(node, e.Add(op, {e.Name(node, 0), e.List(axes)}, {{"keepdims", keep}}));
  } else {
    e.Place(op, node, {{"axes", axes}, {"keepdims", keep}});
  }
  return absl::OkStatus();
}

absl::Status WriteArg(Exporter& e, const Node& node) {
  std::string index = e.Add(
      node.op->name, {e.Name(node, 0)},
      {{"axis", node.attribute<int64_t>("axis")}, {"keepdims", int64_t{node.attribute<bool>("keep_dims") ? 1 : 0}}});
  if (node.outputs[0].dtype != kInt64) index = e.CastTo(index, node.outputs[0].dtype);
  e.Set(node, std::move(index));
  return absl::OkStatus();
}

// Two matrices are a Gemm, which transposes; otherwise a node transposes.
absl::Status WriteMatMul(Exporter& e, const Node& node) {
  const bool transposes[] = {node.attribute<bool>("transpose_a"), node.attribute<bool>("transpose_b")};
  if ((transposes[0] || transposes[1]) && e.In(node, 0).shape.rank() == 2 && e.In(node, 1).shape.rank() == 2) {
    e.Place("Gemm", node, {{"transA", int64_t{transposes[0]}}, {"transB", int64_t{transposes[1]}}});
    return absl::OkStatus();
  }
  Exporter::Names inputs;
  for (int i = 0; i < 2; ++i) {
    inputs.push_back(e.Name(node, i));
    if (!transposes[i]) continue;
    const int rank = e.In(node, i).shape.rank();
    Integers order;
    for (int axis = 0; axis < rank; ++axis) order.push_back(axis);
    std::swap(order[static_cast<size_t>(rank) - 1], order[static_cast<size_t>(rank) - 2]);
    inputs.back() = e.Transposed(inputs.back(), order);
  }
  e.Set(node, e.Add("MatMul", inputs));
  return absl::OkStatus();
}

absl::Status WriteCrossEntropy(Exporter& e, const Node& node) {
  const std::string labels = e.CastTo(e.Name(node, 1), kInt64);
  if (e.In(node, 0).shape.rank() == 2) {
    e.Set(node, e.Add("SoftmaxCrossEntropyLoss", {e.Name(node, 0), labels}, {{"reduction", std::string("none")}}));
    return absl::OkStatus();
  }
  const std::string logarithms = e.Add("LogSoftmax", {e.Name(node, 0)}, {{"axis", int64_t{-1}}});
  const std::string picked = e.Add("GatherElements", {logarithms, e.WithAxes(labels, {-1})}, {{"axis", int64_t{-1}}});
  e.Set(node, e.Add("Neg", {e.Add("Squeeze", {picked, e.List({-1})})}));
  return absl::OkStatus();
}

absl::Status WriteCrossEntropyGrad(Exporter& e, const Node& node) {
  const TensorType& logits = e.In(node, 0);
  GW_ASSIGN_OR_RETURN(const std::string classes, e.Size(node, logits.shape[logits.shape.rank() - 1]));
  const std::string values = e.Constant(Tensor::Of<float>({2}, {0, 1}));
  std::string hot =
      e.Add("OneHot", {e.CastTo(e.Name(node, 1), kInt64), e.Add("Squeeze", {classes, e.List({0})}), values},
            {{"axis", int64_t{-1}}});
  if (logits.dtype != kFloat32) hot = e.CastTo(hot, logits.dtype);
  const std::string softmax = e.Add("Softmax", {e.Name(node, 0)}, {{"axis", int64_t{-1}}});
  e.Set(node, e.Add("Mul", {e.Add("Sub", {softmax, hot}), e.WithAxes(e.Name(node, 2), {-1})}));
  return absl::OkStatus();
}

// True if all elements of the operand are 1.
bool IsOnes(const Exporter& e, const Node& node, int i) {
  const Node* producer = &e.Producer(node, i);
  while (producer->op->kind == OpKind::kBroadcastTo) producer = &e.Producer(*producer, 0);
  if (producer->op->kind != OpKind::kConstant) return false;
  const std::vector<double> values = producer->attribute<Tensor>("value").ToDoubles();
  return std::all_of(values.begin(), values.end(), [](double value) { return value == 1; });
}

// Sums of the elements after each one are a CumSum. Other recurrences scan along the last axis; the
// outputs are the states before each step.
absl::Status WriteRecurrence(Exporter& e, const Node& node) {
  const bool product = node.op->name == "ExclusiveProd";
  if (!product && IsOnes(e, node, 1)) {
    e.Set(node, e.Add("CumSum", {e.Name(node, 0), e.Number(kInt64, -1)},
                      {{"exclusive", int64_t{1}}, {"reverse", int64_t{1}}}));
    return absl::OkStatus();
  }
  TensorType slice = e.In(node, 0);
  const int64_t axis = slice.shape.rank() - 1;
  slice.shape.Erase(static_cast<int>(axis));
  GW_ASSIGN_OR_RETURN(const std::string first, e.Spread(node, e.Number(slice.dtype, product ? 1 : 0), slice.shape));
  const size_t inputs = node.inputs.size();
  const TensorTypes types(inputs + 1, slice), results(2, slice);
  GW_ASSIGN_OR_RETURN(proto::Graph body,
                      e.NewBody(types, results, [&](const Exporter::Names& x) -> absl::StatusOr<Exporter::Names> {
                        const std::string next = e.Add("Mul", {x[0], x[inputs]});
                        return Exporter::Names{product ? next : e.Add("Add", {x[1], next}), x[0]};
                      }));
  e.Set(node, e.AddScan({first}, e.Operands(node), std::move(body), Integers(inputs, axis), {axis}, !product)[1], 0);
  return absl::OkStatus();
}

// The numbers differ from the engine's, but have the same distribution.
absl::Status WriteRandom(Exporter& e, const Node& node) {
  if (!node.inputs.empty()) return e.Refuse(node, "ONNX has no groups of processes");
  const TensorType& type = node.outputs[0];
  const bool uniform = node.op->kind == OpKind::kRandomUniform;
  // Whole numbers up to 2^24 are exact, so nodes with different seeds keep different ones.
  std::vector<OnnxAttribute> attributes = {
      {uniform ? "low" : "mean", node.attribute<double>(uniform ? "low" : "mean")},
      {uniform ? "high" : "scale", node.attribute<double>(uniform ? "high" : "standard_deviation")},
      {"seed", static_cast<double>(node.attribute<int64_t>("seed") & 0xffffff)},
      {"dtype", int64_t{DTypeToOnnx(type.dtype)}}};
  if (type.shape.is_static()) {
    attributes.push_back({"shape", Integers(type.shape.sizes())});
    e.Set(node, e.Add(node.op->name, {}, std::move(attributes)));
    return absl::OkStatus();
  }
  GW_ASSIGN_OR_RETURN(const std::string like, e.Spread(node, e.Number(type.dtype, 0), type.shape));
  e.Set(node, e.Add(node.op->name + "Like", {like}, std::move(attributes)));
  return absl::OkStatus();
}

constexpr char kNoGroups[] = "ONNX has no groups of processes";

constexpr ExportRow kRows[] = {
    {"AllGather", kNoGroups, Refused},
    {"AllReduce", kNoGroups, Refused},
    {"ArgMax", "ArgMax", WriteArg},
    {"ArgMin", "ArgMin", WriteArg},
    {"Broadcast", kNoGroups, Refused},
    {"ExclusiveProd", "Scan", WriteRecurrence},
    {"LogSumExp", "ReduceLogSumExp", WriteReduction},
    {"MatMul", "MatMul or Gemm", WriteMatMul},
    {"Max", "ReduceMax", WriteReduction},
    {"Min", "ReduceMin", WriteReduction},
    {"Prod", "ReduceProd", WriteReduction, true},
    {"RandomNormal", "RandomNormal", WriteRandom},
    {"RandomUniform", "RandomUniform", WriteRandom},
    {"ReduceScatter", kNoGroups, Refused},
    {"ShardIndex", kNoGroups, Refused},
    {"SparseSoftmaxCrossEntropy", "SoftmaxCrossEntropyLoss", WriteCrossEntropy},
    {"SparseSoftmaxCrossEntropyGrad", "Softmax and OneHot", WriteCrossEntropyGrad},
    {"SuffixSum", "CumSum or Scan", WriteRecurrence},
    {"Sum", "ReduceSum", WriteReduction, true},
};

}  // namespace

absl::Span<const ExportRow> MathForms() { return kRows; }

}  // namespace gradweave::onnx
