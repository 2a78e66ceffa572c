#include "gradweave/ops/random.h"

#include <cmath>
#include <utility>
#include <vector>

#include "gradweave/graph/check.h"
#include "gradweave/ops/registry.h"

namespace gradweave {
namespace {

absl::StatusOr<TensorTypes> InferRandom(const OpView& op) {
  const DType dtype = op.attribute<DType>("dtype");
  if (!IsFloating(dtype)) return op.Error("the dtype is ", DTypeName(dtype), " and has to be ", kFloating.ToString());
  if (op.num_operands() == 1 || (op.num_operands() == 2 && (op.shape(0).rank() != 1 || op.shape(1).rank() != 0))) {
    return op.Error("samples has to be int64[shards], and to come with shard, an int64 scalar");
  }
  return TensorTypes{{dtype, op.attribute<Shape>("shape")}};
}

int64_t NextSeed(Graph& graph, std::optional<int64_t> given) {
  return given.has_value() ? *given : graph.builder().next_seed++;
}

}  // namespace

void RegisterRandomOps(OpRegistry& registry) {
  const AttributeDefinition dtype = {"dtype", AttributeType::kDType, "float32 or float64.", kFloat32};
  const AttributeDefinition shape = {"shape", AttributeType::kShape, "Result shape; may contain symbols."};
  const AttributeDefinition seed = {
      "seed", AttributeType::kInteger,
      "Determines the numbers, together with the session's seed, the number of the run and the index of the element."};
  const std::vector<OperandDefinition> part = {
      {"samples",
       "int64[shards], the number of samples of each shard. The result is then the part of this shard in the numbers "
       "of all samples, which lie one shard after the other. Left out: the result has all samples.",
       {kInt64},
       OperandDefinition::kOptional},
      {"shard", "int64 scalar, the number of this shard.", {kInt64}, OperandDefinition::kOptional}};
  registry.Add({
      .name = "RandomUniform",
      .doc = "Uniform random numbers in [low, high) from Philox 4x32-10.",
      .operands = part,
      .attributes = {dtype,
                     shape,
                     seed,
                     {"low", AttributeType::kReal, "Finite, below high.", 0.0},
                     {"high", AttributeType::kReal, "Finite, above low.", 1.0}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const double low = op.attribute<double>("low"), high = op.attribute<double>("high");
        if (!(low < high) || !std::isfinite(low) || !std::isfinite(high))
          return op.Error("low is ", low, " and high is ", high, "; low has to be below high, and both finite");
        return InferRandom(op);
      },
      .kind = OpKind::kRandomUniform,
      .stateful = true,
  });
  registry.Add({
      .name = "RandomNormal",
      .doc = "Normally distributed random numbers from Philox 4x32-10 and the Box-Muller transform (1958).",
      .operands = part,
      .attributes = {dtype,
                     shape,
                     seed,
                     {"mean", AttributeType::kReal, "Finite.", 0.0},
                     {"standard_deviation", AttributeType::kReal, "Finite and at least 0.", 1.0}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const double mean = op.attribute<double>("mean"), deviation = op.attribute<double>("standard_deviation");
        if (!std::isfinite(mean)) return op.Error("the mean is ", mean, " and has to be finite");
        if (!(deviation >= 0 && std::isfinite(deviation)))
          return op.Error("the standard deviation is ", deviation, " and has to be finite and at least 0");
        return InferRandom(op);
      },
      .kind = OpKind::kRandomNormal,
      .stateful = true,
  });
}

Value RandomUniform(Scope& scope, Shape shape, double low, double high, RandomOptions options,
                    std::source_location location) {
  return AddSource(scope.graph(), "RandomUniform",
                   {{"dtype", options.dtype},
                    {"shape", std::move(shape)},
                    {"seed", NextSeed(scope.graph(), options.seed)},
                    {"low", low},
                    {"high", high}},
                   ToSourceLocation(location));
}

Value RandomNormal(Scope& scope, Shape shape, double mean, double standard_deviation, RandomOptions options,
                   std::source_location location) {
  return AddSource(scope.graph(), "RandomNormal",
                   {{"dtype", options.dtype},
                    {"shape", std::move(shape)},
                    {"seed", NextSeed(scope.graph(), options.seed)},
                    {"mean", mean},
                    {"standard_deviation", standard_deviation}},
                   ToSourceLocation(location));
}

Value RandomUniformLike(Operand like, double low, double high, std::optional<int64_t> seed) {
  if (!like.is_value()) return NeedsValue("RandomUniformLike", like);
  Graph& graph = *like.graph();
  if (graph.builder().registry == nullptr) graph.builder().registry = like.value().node().op->registry;
  return AddSource(
      graph, "RandomUniform",
      {{"dtype", like.dtype()}, {"shape", like.shape()}, {"seed", NextSeed(graph, seed)}, {"low", low}, {"high", high}},
      like.location());
}

}  // namespace gradweave
