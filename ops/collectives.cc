#include "gradweave/ops/collectives.h"

#include <initializer_list>

#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

absl::Status CheckShards(const OpView& op) {
  const int64_t shards = op.attribute<int64_t>("shards");
  if (shards >= 1) return absl::OkStatus();
  return op.Error("shards is ", shards, " and has to be at least 1");
}

absl::StatusOr<TensorTypes> InferSame(const OpView& op) {
  GW_RETURN_IF_ERROR(CheckShards(op));
  return TensorTypes{op.operand(0)};
}

absl::StatusOr<TensorTypes> InferAllGather(const OpView& op) {
  GW_RETURN_IF_ERROR(CheckShards(op));
  TensorType type = op.operand(0);
  type.shape.Insert(0, op.attribute<int64_t>("shards"));
  return TensorTypes{type};
}

absl::StatusOr<TensorTypes> InferReduceScatter(const OpView& op) {
  GW_RETURN_IF_ERROR(CheckShards(op));
  const int64_t shards = op.attribute<int64_t>("shards");
  TensorType type = op.operand(0);
  if (type.shape.rank() == 0 || !(type.shape[0] == Dim(shards))) {
    return op.Error("axis 0 of x has to have one entry for each of the ", shards, " shards");
  }
  type.shape.Erase(0);
  return TensorTypes{type};
}

absl::StatusOr<TensorTypes> InferBroadcast(const OpView& op) {
  const int64_t root = op.attribute<int64_t>("root"), shards = op.attribute<int64_t>("shards");
  if (root < 0 || root >= shards) return op.Error("root is ", root, " and has to be in [0, ", shards, ")");
  return InferSame(op);
}

// The batch axis of x, moved back by `shift` axes.
template <int shift>
BatchAxes ShiftedBatch(const OpView&, absl::Span<const BatchAxis> operands) {
  if (operands[0].kind != BatchAxis::kAxis) return {operands[0]};
  const int axis = operands[0].axis + shift;
  return {axis < 0 ? BatchAxis{BatchAxis::kMixed, 0} : BatchAxis::Axis(axis)};
}

// Collective ops of a gradient come after the node itself.
CollectiveOptions OptionsOf(GradientContext& g) { return {g.attribute<int64_t>("shards"), g.output()}; }

Value AddCollective(absl::string_view name, const Operand& x, const Value& after,
                    std::initializer_list<NamedAttribute> attributes) {
  if (!x.is_value()) return NeedsValue(name, x);
  if (after.graph() == nullptr) return AddOp(name, {x}, attributes);
  return AddOp(name, {x, after}, attributes);
}

}  // namespace

void RegisterCollectiveOps(OpRegistry& registry) {
  const AttributeDefinition shards = {"shards", AttributeType::kInteger,
                                      "The number of shards in the session's group, at least 1."};
  const OperandDefinition after = {"after",
                                   "The result of the collective op before this one, which gives all shards the same "
                                   "order. Its elements are not read.",
                                   kAnyDType, OperandDefinition::kOptional};
  registry.Add({
      .name = "AllReduce",
      .doc = "The sum over all shards of their x, added in one binary tree by shard number. Sums of integers wrap "
             "around.",
      .operands = {{"x", "Any shape, the same in all shards.", kNumeric}, after},
      .attributes = {shards},
      .infer = InferSame,
      .gradient = [](GradientContext& g) { g.Set(0, AllReduce(g.output_gradient(), OptionsOf(g))); },
      .batch = ShiftedBatch<0>,
      .kind = OpKind::kAllReduce,
      .stateful = true,
      .collective = true,
  });
  registry.Add({
      .name = "AllGather",
      .doc = "The x of each shard, along a new first axis.",
      .operands = {{"x", "Any shape, the same in all shards."}, after},
      .attributes = {shards},
      .infer = InferAllGather,
      .gradient = [](GradientContext& g) { g.Set(0, ReduceScatter(g.output_gradient(), OptionsOf(g))); },
      .batch = ShiftedBatch<1>,
      .stateful = true,
      .collective = true,
  });
  registry.Add({
      .name = "ReduceScatter",
      .doc = "The sum over all shards of the entry for this shard in their x, added in one binary tree by shard "
             "number.",
      .operands = {{"x", "[shards, ...], the same shape in all shards.", kNumeric}, after},
      .attributes = {shards},
      .infer = InferReduceScatter,
      .gradient = [](GradientContext& g) { g.Set(0, AllGather(g.output_gradient(), OptionsOf(g))); },
      .batch = ShiftedBatch<-1>,
      .stateful = true,
      .collective = true,
  });
  registry.Add({
      .name = "Broadcast",
      .doc = "The x of the shard `root`, in all shards.",
      .operands = {{"x", "Any shape, the same in all shards."}, after},
      .attributes = {shards, {"root", AttributeType::kInteger, "In [0, shards)."}},
      .infer = InferBroadcast,
      .gradient =
          [](GradientContext& g) {
            const CollectiveOptions options = OptionsOf(g);
            Scope scope(g.graph(), *g.node().op->registry);
            const Value sum = AllReduce(g.output_gradient(), options);
            const Value is_root =
                Equal(ShardIndex(scope, options.shards), static_cast<double>(g.attribute<int64_t>("root")));
            g.Set(0, Where(is_root, sum, ZerosLike(sum)));
          },
      .batch = ShiftedBatch<0>,
      .stateful = true,
      .collective = true,
  });
  registry.Add({
      .name = "ShardIndex",
      .doc = "The number of this shard, an int64 scalar in [0, shards).",
      .attributes = {shards},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        GW_RETURN_IF_ERROR(CheckShards(op));
        return TensorTypes{{kInt64, Shape{}}};
      },
      .batch = [](const OpView&, absl::Span<const BatchAxis>) -> BatchAxes { return {BatchAxis{}}; },
      .kind = OpKind::kShardIndex,
      .stateful = true,
  });
}

Value AllReduce(Operand x, const CollectiveOptions& options) {
  return AddCollective("AllReduce", x, options.after, {{"shards", options.shards}});
}
Value AllGather(Operand x, const CollectiveOptions& options) {
  return AddCollective("AllGather", x, options.after, {{"shards", options.shards}});
}
Value ReduceScatter(Operand x, const CollectiveOptions& options) {
  return AddCollective("ReduceScatter", x, options.after, {{"shards", options.shards}});
}
Value Broadcast(Operand x, int64_t root, const CollectiveOptions& options) {
  return AddCollective("Broadcast", x, options.after, {{"shards", options.shards}, {"root", root}});
}
Value ShardIndex(Scope& scope, int64_t shards, std::source_location location) {
  return AddSource(scope.graph(), "ShardIndex", {{"shards", shards}}, ToSourceLocation(location));
}

}  // namespace gradweave
