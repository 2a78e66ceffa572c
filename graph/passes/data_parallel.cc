#include "gradweave/graph/passes/data_parallel.h"

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {
namespace {

// The way in which the shards hold a value.
struct Held {
  enum Kind {
    kWhole,    // Each shard has the whole value.
    kSamples,  // Each shard has its samples: the whole value is all shards' values one after the other along `axis`.
    kPart,     // The whole value is the sum of all shards' values.
  };
  Kind kind = kWhole;
  int axis = 0;

  static Held Samples(int axis) { return {kSamples, axis}; }
};

using HeldValues = absl::InlinedVector<Held, 2>;

class ShardMaker {
 public:
  ShardMaker(const Graph& graph, int64_t shards) : graph_(graph), shards_(shards), held_(graph.num_nodes()) {
    for (const auto& [name, ports] : graph.outputs()) outputs_.insert(ports.begin(), ports.end());
  }

  absl::StatusOr<Graph> Make() {
    GW_RETURN_IF_ERROR(FindBatch());
    if (batch_.empty()) return EliminateDeadNodes(graph_);  // The shards compute the same.
    return Rewrite(
        graph_,
        [this](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
          result_ = &result;
          HeldValues held(node.outputs.size());
          GW_ASSIGN_OR_RETURN(Ports ports, Translate(node, Ports(inputs.begin(), inputs.end()), held));
          for (size_t i = 0; i < held.size(); ++i) {
            if (held[i].kind != Held::kPart || !outputs_.contains({node.id, static_cast<int>(i)})) continue;
            GW_ASSIGN_OR_RETURN(ports[i], AllReduce(ports[i]));
            held[i] = {};
          }
          held_[node.id] = std::move(held);
          return ports;
        });
  }

 private:
  absl::Status Refuse(const Node& node, absl::string_view problem) const {
    return absl::InvalidArgumentError(absl::StrCat("data parallelism: ", DescribeNode(graph_, node), " ", problem));
  }

  // Finds the symbol of the batch. It stays empty if no input has samples, or if the graph already
  // is the graph of a shard.
  absl::Status FindBatch() {
    const std::vector<bool> needed = NeededNodes(graph_);
    for (const Node& node : graph_.nodes()) {
      if (needed[node.id] && IsOfShard(node)) return absl::OkStatus();
    }
    for (const Node& node : graph_.nodes()) {
      if (!needed[node.id] || node.op->kind != OpKind::kInput || node.outputs[0].shape.rank() == 0) continue;
      const std::optional<std::string> symbol = node.outputs[0].shape[0].AsSymbol();
      if (!symbol.has_value() || *symbol == batch_) continue;
      if (!batch_.empty()) {
        return Refuse(node, absl::StrCat("has the first axis ", *symbol, ", and another input has ", batch_,
                                         "; the first axis of all inputs of samples has to be the batch"));
      }
      batch_ = *symbol;
      input_ = node.id;
    }
    return absl::OkStatus();
  }
  // True for the ops that only graphs of shards have.
  static bool IsOfShard(const Node& node) { return node.op->collective || node.op->kind == OpKind::kShardIndex; }

  bool OfBatch(const Dim& dim) const {
    if (dim.is_known()) return false;
    std::set<std::string> symbols;
    dim.CollectSymbols(symbols);
    return symbols.count(batch_) > 0;
  }
  // The axis whose size depends on the batch; -1 if there is none, and -2 if there are several.
  int BatchAxisOf(const Shape& shape) const {
    int found = -1;
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (OfBatch(shape[axis])) found = found == -1 ? axis : -2;
    }
    return found;
  }

  // Adds nodes to the result.
  absl::StatusOr<Port> Add(absl::string_view op, absl::Span<const Port> inputs,
                           absl::Span<const NamedAttribute> attributes) {
    const OpDefinition* const definition = registry().Find(op);
    if (definition == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("data parallelism: the registry of the graph's ops has no ", op));
    }
    GW_ASSIGN_OR_RETURN(const NodeId node,
                        result_->AddNode({.op = definition, .inputs = inputs, .attributes = attributes}));
    return Port{node, 0};
  }
  absl::StatusOr<Port> Collective(absl::string_view op, Port x) {
    absl::InlinedVector<Port, 2> inputs = {x};
    if (last_.node >= 0) inputs.push_back(last_);
    const NamedAttribute attributes[] = {{"shards", shards_}};
    GW_ASSIGN_OR_RETURN(last_, Add(op, inputs, attributes));
    return last_;
  }
  // The whole value of a part, once for each part.
  absl::StatusOr<Port> AllReduce(Port part) {
    const auto [found, is_new] = wholes_.emplace(part, Port{});
    if (is_new) {
      GW_ASSIGN_OR_RETURN(found->second, Collective("AllReduce", part));
    }
    return found->second;
  }
  absl::StatusOr<Ports> Copy(const Node& node, absl::Span<const Port> inputs) {
    GW_ASSIGN_OR_RETURN(const NodeId copy, result_->AddNodeLike(node, inputs));
    return result_->node(copy).ports();
  }
  const OpRegistry& registry() const { return *graph_.node(input_).op->registry; }

  // Returns the input that gives the number of samples; adds it early if necessary.
  absl::StatusOr<Port> Input() {
    if (input_port_.node < 0) {
      GW_ASSIGN_OR_RETURN(const NodeId input, result_->AddNodeLike(graph_.node(input_), {}));
      input_port_ = {input, 0};
    }
    return input_port_;
  }
  // The number of samples of each shard, int64 [shards].
  absl::StatusOr<Port> ShardSizes() {
    if (sizes_.node >= 0) return sizes_;
    GW_ASSIGN_OR_RETURN(const Port input, Input());
    const NamedAttribute attributes[] = {{"axis", int64_t{0}}, {"dtype", kInt64}};
    GW_ASSIGN_OR_RETURN(const Port own, Add("DimSize", {input}, attributes));
    GW_ASSIGN_OR_RETURN(sizes_, Collective("AllGather", own));
    return sizes_;
  }

  // A size that depends on the batch, for the whole batch.
  absl::StatusOr<Port> WholeSize(const Node& node, Port x, const Dim& dim) {
    const DType dtype = node.attribute<DType>("dtype");
    const auto [found, is_new] = sizes_of_.emplace(std::pair(dim.ToString(), dtype), Port{});
    if (!is_new) return found->second;
    if (dim.AsSymbol() == batch_) {
      GW_ASSIGN_OR_RETURN(const Port sizes, ShardSizes());
      const NamedAttribute axes[] = {{"axes", Integers{0}}}, to[] = {{"dtype", dtype}};
      GW_ASSIGN_OR_RETURN(found->second, Add("Sum", {sizes}, axes));
      if (dtype != kInt64) {
        GW_ASSIGN_OR_RETURN(found->second, Add("Cast", {found->second}, to));
      }
      return found->second;
    }
    // Samples of several rows, which the shards have one after the other.
    if (!DivideExactly(dim, Dim(batch_)).has_value()) {
      return Refuse(node, "is a size that is not a multiple of the batch, so it is not the sum of the shards' sizes");
    }
    GW_ASSIGN_OR_RETURN(const Ports own, Copy(node, {x}));
    GW_ASSIGN_OR_RETURN(found->second, AllReduce(own[0]));
    return found->second;
  }

  absl::StatusOr<Ports> Translate(const Node& node, Ports inputs, HeldValues& held) {
    HeldValues operands;
    bool has_samples = false, has_parts = false;
    for (Port input : node.inputs) {
      operands.push_back(held_[input.node][input.output]);
      has_samples |= operands.back().kind == Held::kSamples;
      has_parts |= operands.back().kind == Held::kPart;
    }
    if (has_parts) {
      if (KeepsParts(node, operands)) {
        held[0].kind = Held::kPart;
        return Copy(node, inputs);
      }
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (operands[i].kind != Held::kPart) continue;
        GW_ASSIGN_OR_RETURN(inputs[i], AllReduce(inputs[i]));
        operands[i] = {};
      }
    }
    if (node.op->kind == OpKind::kInput) return TranslateInput(node, held);
    if (has_samples) return TranslateSamples(node, inputs, operands, held);
    return TranslateWhole(node, inputs, held);
  }

  // True for linear ops on parts whose results are as large as the parts: the AllReduce may come
  // later.
  bool KeepsParts(const Node& node, const HeldValues& operands) const {
    switch (node.op->kind) {
      case OpKind::kAdd:
      case OpKind::kSub:
        return operands[0].kind == Held::kPart && operands[1].kind == Held::kPart &&
               graph_.type(node.inputs[0]) == graph_.type(node.inputs[1]);
      case OpKind::kNeg:
      case OpKind::kReshape:
      case OpKind::kTranspose:
      case OpKind::kCopy:
        return true;
      default:
        return false;
    }
  }

  absl::StatusOr<Ports> TranslateInput(const Node& node, HeldValues& held) {
    const int axis = BatchAxisOf(node.outputs[0].shape);
    if (axis == -2) return Refuse(node, absl::StrCat("has several axes that depend on ", batch_));
    if (axis >= 0) held[0] = Held::Samples(axis);
    if (node.id != input_) return Copy(node, {});
    GW_ASSIGN_OR_RETURN(const Port input, Input());
    return Ports{input};
  }

  // Translates a node that has no operands with samples.
  absl::StatusOr<Ports> TranslateWhole(const Node& node, const Ports& inputs, HeldValues& held) {
    bool of_batch = false;
    for (const TensorType& type : node.outputs) of_batch |= BatchAxisOf(type.shape) != -1;
    if (!of_batch) return Copy(node, inputs);
    const Shape& shape = node.outputs[0].shape;
    const int axis = BatchAxisOf(shape);
    const bool is_random = node.op->kind == OpKind::kRandomUniform || node.op->kind == OpKind::kRandomNormal;
    if (axis < 0 || (node.op->kind != OpKind::kBroadcastTo && !is_random)) {
      return Refuse(node, absl::StrCat("makes values for ", batch_,
                                       " samples from none, and nothing says which are those of a shard"));
    }
    held[0] = Held::Samples(axis);
    if (!is_random) return Copy(node, inputs);
    for (int i = 0; i < axis; ++i) {
      if (shape[i] == Dim(1)) continue;
      return Refuse(node, absl::StrCat("has random numbers of samples along axis ", axis,
                                       "; make them with the batch as the first axis, and transpose them"));
    }
    GW_ASSIGN_OR_RETURN(const Port sizes, ShardSizes());
    const NamedAttribute attributes[] = {{"shards", shards_}};
    GW_ASSIGN_OR_RETURN(const Port shard, Add("ShardIndex", {}, attributes));
    return Copy(node, {sizes, shard});
  }

  absl::StatusOr<Ports> TranslateSamples(const Node& node, const Ports& inputs, const HeldValues& operands,
                                         HeldValues& held) {
    if (node.op->kind == OpKind::kDimSize) {
      const Dim& dim = graph_.type(node.inputs[0]).shape[static_cast<int>(node.attribute<int64_t>("axis"))];
      if (!OfBatch(dim)) return Copy(node, inputs);
      GW_ASSIGN_OR_RETURN(const Port size, WholeSize(node, inputs[0], dim));
      return Ports{size};
    }
    if (node.op->kind == OpKind::kScatterAdd && AddsSamples(node, operands))
      return TranslateScatterAdd(node, inputs, held);
    const TensorTypes types = graph_.OperandTypes(node);
    absl::InlinedVector<BatchAxis, 4> axes;
    for (const Held& operand : operands) {
      axes.push_back(operand.kind == Held::kSamples ? BatchAxis::Axis(operand.axis) : BatchAxis{});
    }
    absl::InlinedVector<BatchAxis, 2> results(node.outputs.size(), BatchAxis{BatchAxis::kMixed, 0});
    if (node.op->batch != nullptr) results = node.op->batch(OpView(*node.op, node.attributes, types), axes);
    for (size_t i = 0; i < results.size(); ++i) {
      const Shape& shape = node.outputs[i].shape;
      if (results[i].kind == BatchAxis::kMixed && node.op->kind == OpKind::kReshape) {
        results[i] = ReshapedRows(types[0].shape, operands[0].axis, shape);
      }
      switch (results[i].kind) {
        case BatchAxis::kAbsent:
          break;
        case BatchAxis::kAxis:
          held[i] = Held::Samples(results[i].axis);
          if (BatchAxisOf(shape) != results[i].axis) {
            return Refuse(node, absl::StrCat("has no one axis whose size depends on ", batch_));
          }
          break;
        case BatchAxis::kSummed:
          held[i].kind = Held::kPart;
          break;
        case BatchAxis::kMixed:
          if (node.op->reduction) return ReduceAgain(node, inputs);
          if (node.op->kind == OpKind::kSoftmax || node.op->kind == OpKind::kLogSoftmax) {
            return TranslateSoftmax(node, inputs[0], held);
          }
          return Refuse(node,
                        "mixes the samples of a batch, and a shard has only some of them; compute it from sums over "
                        "the batch, or run it without a group");
      }
    }
    return Copy(node, inputs);
  }

  // Rows of samples stay in order where the batch axis is merged with axes behind it, or split
  // again.
  BatchAxis ReshapedRows(const Shape& from, int axis, const Shape& to) const {
    Dim before(1), so_far(1);
    for (int i = 0; i < axis; ++i) before = before * from[i];
    for (int i = 0; i < to.rank(); ++i) {
      if (so_far == before && OfBatch(to[i])) return BatchAxis::Axis(i);
      so_far = so_far * to[i];
    }
    return {BatchAxis::kMixed, 0};
  }

  // A reduction over samples that is not a sum, such as Max: reduces the shards' results.
  absl::StatusOr<Ports> ReduceAgain(const Node& node, const Ports& inputs) {
    GW_ASSIGN_OR_RETURN(const Ports own, Copy(node, inputs));
    GW_ASSIGN_OR_RETURN(const Port whole, OfAll(node.op->name, own[0]));
    return Ports{whole};
  }
  // The reduction, such as Max, of all shards' values.
  absl::StatusOr<Port> OfAll(absl::string_view reduction, Port own) {
    GW_ASSIGN_OR_RETURN(const Port all, Collective("AllGather", own));
    const NamedAttribute attributes[] = {{"axes", Integers{0}}};
    return Add(reduction, {all}, attributes);
  }

  // A softmax over the samples: the samples stay in their shards, with the largest number and the
  // sum of all of them.
  absl::StatusOr<Ports> TranslateSoftmax(const Node& node, Port x, HeldValues& held) {
    const int64_t axis = node.attribute<int64_t>("axis");
    held[0] = Held::Samples(static_cast<int>(axis));
    const NamedAttribute along[] = {{"axes", Integers{axis}}, {"keep_dims", true}};
    GW_ASSIGN_OR_RETURN(const Port own_largest, Add("Max", {x}, along));
    GW_ASSIGN_OR_RETURN(const Port largest, OfAll("Max", own_largest));
    GW_ASSIGN_OR_RETURN(const Port difference, Add("Sub", {x, largest}, {}));
    GW_ASSIGN_OR_RETURN(const Port power, Add("Exp", {difference}, {}));
    GW_ASSIGN_OR_RETURN(const Port own_sum, Add("Sum", {power}, along));
    GW_ASSIGN_OR_RETURN(const Port sum, AllReduce(own_sum));
    if (node.op->kind == OpKind::kSoftmax) {
      GW_ASSIGN_OR_RETURN(const Port result, Add("Div", {power, sum}, {}));
      return Ports{result};
    }
    GW_ASSIGN_OR_RETURN(const Port logarithm, Add("Log", {sum}, {}));
    GW_ASSIGN_OR_RETURN(const Port result, Add("Sub", {difference, logarithm}, {}));
    return Ports{result};
  }

  // True if each shard adds the rows of its samples to a value that all shards have.
  static bool AddsSamples(const Node& node, const HeldValues& operands) {
    return operands[0].kind == Held::kWhole && operands[1].kind == Held::kSamples &&
           operands[2].kind == Held::kSamples &&
           operands[2].axis == operands[1].axis + static_cast<int>(node.attribute<int64_t>("axis"));
  }
  absl::StatusOr<Ports> TranslateScatterAdd(const Node& node, Ports inputs, HeldValues& held) {
    const TensorType& type = node.outputs[0];
    const NamedAttribute zero[] = {{"value", Tensor::ScalarOf(type.dtype, 0)}}, shape[] = {{"shape", type.shape}};
    const Port x = inputs[0];
    const bool adds_to_zero = IsZeros(graph_.node(node.inputs[0].node));
    if (!adds_to_zero) {
      GW_ASSIGN_OR_RETURN(const Port scalar, Add("Constant", {}, zero));
      GW_ASSIGN_OR_RETURN(inputs[0], Add("BroadcastTo", {scalar}, shape));
    }
    GW_ASSIGN_OR_RETURN(Ports sums, Copy(node, inputs));
    if (adds_to_zero) {
      held[0].kind = Held::kPart;
      return sums;
    }
    GW_ASSIGN_OR_RETURN(const Port whole, AllReduce(sums[0]));
    GW_ASSIGN_OR_RETURN(const Port sum, Add("Add", {x, whole}, {}));
    return Ports{sum};
  }
  bool IsZeros(const Node& node) const {
    if (node.op->kind != OpKind::kBroadcastTo) return false;
    const Node& number = graph_.node(node.inputs[0].node);
    if (number.op->kind != OpKind::kConstant) return false;
    const Tensor& value = number.attribute<Tensor>("value");
    return value.num_elements() == 1 && value.ToDouble() == 0;
  }

  const Graph& graph_;
  const int64_t shards_;
  std::string batch_;
  NodeId input_ = -1;  // The first input of samples.
  absl::flat_hash_set<Port> outputs_;
  std::vector<HeldValues> held_;  // Indexed by node of the graph: its outputs.
  // The graph that is built, and values in it.
  Graph* result_ = nullptr;
  Port last_, sizes_, input_port_;  // The last collective op.
  std::map<Port, Port> wholes_;
  std::map<std::pair<std::string, DType>, Port> sizes_of_;
};

}  // namespace

absl::StatusOr<Graph> DataParallel(const Graph& graph, int64_t shards) {
  GW_CHECK(shards >= 1, shards);
  return ShardMaker(graph, shards).Make();
}

}  // namespace gradweave
