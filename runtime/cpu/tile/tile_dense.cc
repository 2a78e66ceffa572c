// Dense layers on tiles: products with weights that all samples share.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/tile/packed_weights.h"
#include "gradweave/runtime/cpu/tile/tile_lowering.h"

namespace gradweave {
namespace {

// y[n] = sum over k of x[k] * w[k][n] with vectors of outputs instead of vectors of samples,
// transposed at the end. With only one vector of samples, a block would need a load for each of its
// products.
struct OutputVectors {
  TileValueId x, y, by_sample;  // by_sample: [lane][output], rounded up to whole vectors.
  int64_t terms, outputs, vectors;
  Blocks blocks;  // Blocks of lanes x vectors of outputs.
  int weights;    // Index of the operand.
  bool transposed;
  int64_t place;                 // Offset in the prepared memory of the weights [vector][term][lane].
  std::vector<int32_t> offsets;  // Indexed by term.

  void Pack(const TileKernels& kernels, int64_t vector, const void* const* operands, float* prepared) const {
    const int64_t lanes = kernels.lanes;
    const float* w = static_cast<const float*>(operands[weights]);
    float* to = prepared + place + vector * terms * lanes;
    const int64_t output = vector * lanes, count = std::min(lanes, outputs - output);
    if (transposed) {
      kernels.gather_lanes(w + output * terms, terms, count, terms, to);
      return;
    }
    for (int64_t r = 0; r < terms; ++r, to += lanes) {
      std::copy_n(w + r * outputs + output, count, to);
      std::fill(to + count, to + lanes, 0.0f);
    }
  }

  void Run(const TileRun& run) const {
    const TileKernels& kernels = run.kernels;
    WeightedSumArguments g;
    g.offsets = offsets.data();
    g.repeats = 1;
    g.period = g.terms = terms;
    g.bias = nullptr;
    g.x_step = terms * run.lanes;
    g.weight_step = g.y_step_b = run.lanes;
    g.y_step_a = vectors * run.lanes;
    g.x = run.prepared + place;
    float* results = run.whole(by_sample);
    for (int b : blocks.columns) {
      g.weights = run.whole(x);
      g.y = results;
      for (int a : blocks.rows) {
        kernels.weighted_sum[a][b](g);
        g.weights += a;
        g.y += a * g.y_step_a;
      }
      g.x += b * g.x_step;
      results += b * run.lanes;
    }
    kernels.gather_lanes(run.whole(by_sample), g.y_step_a, run.lanes, outputs, run.whole(y));
  }
};

// The same with vectors of samples, [place][output]. Rows of weights are read in place, or packed
// if those of one term would take a cache line each.
struct SampleVectors {
  TileValueId x, y;
  int64_t terms, outputs;
  Blocks blocks;                                             // Blocks of outputs x places.
  int operand;                                               // The weights.
  std::shared_ptr<const std::vector<PackedWeights>> packed;  // Null if they are read in place.
  std::vector<int32_t> offsets;                              // Indexed by term.

  void Run(const TileRun& run) const {
    const TileKernels& kernels = run.kernels;
    WeightedSumArguments g;
    g.offsets = offsets.data();
    g.repeats = 1;
    g.period = g.terms = terms;
    g.x_step = terms * run.lanes;
    g.bias = nullptr;
    g.y_step_a = run.lanes;
    g.y_step_b = outputs * run.lanes;
    g.weights =
        packed != nullptr ? run.prepared + (*packed)[0].place : static_cast<const float*>(run.operands[operand]);
    int64_t output = 0;
    for (int block : blocks.rows) {
      g.weight_step = packed != nullptr ? block : outputs;
      g.x = run.whole(x);
      g.y = run.whole(y) + output * run.lanes;
      for (int columns : blocks.columns) {
        kernels.weighted_sum[block][columns](g);
        g.x += columns * g.x_step;
        g.y += columns * g.y_step_b;
      }
      g.weights += packed != nullptr ? block * terms : block;
      output += block;
    }
  }
};

void LowerByOutputs(TileBuilder& builder, NodeId node, OutputVectors product) {
  product.vectors = (product.outputs + builder.lanes() - 1) / builder.lanes();
  product.by_sample = builder.NewValue(1, builder.lanes(), product.vectors);
  product.place = builder.AddPrepared(product.vectors * product.terms * builder.lanes());
  const auto shared = std::make_shared<const OutputVectors>(std::move(product));
  builder.AddPreparation(
      shared->weights, shared->vectors,
      absl::StrCat("outputs ", shared->terms, " ", shared->outputs, " ", shared->transposed, " ", shared->place),
      [shared, &kernels = builder.kernels()](int64_t vector, const void* const* operands, float* prepared) {
        shared->Pack(kernels, vector, operands, prepared);
      });
  builder.Add({.name = "multiply by outputs",
               .node = node,
               .reads = {shared->x},
               .writes = {shared->y, shared->by_sample},
               .run = [shared](const TileRun& run) { shared->Run(run); }});
}

}  // namespace

DenseBlocks ChooseDenseBlocks(const TileKernels& kernels, int64_t outputs, int64_t places) {
  const Blocks by_places = WeightedSumBlocks(kernels, outputs, places);
  if (places != 1) return {false, by_places};
  const Blocks by_outputs = WeightedSumBlocks(kernels, kernels.lanes, (outputs + kernels.lanes - 1) / kernels.lanes);
  const bool pays = by_outputs.cost < ThisMachine().transposed_block_share * by_places.cost;
  return {pays, pays ? by_outputs : by_places};
}

// y[t][n] = sum over k of x[t][k] * w[k][n], where all samples share w or its transpose. All axes
// of x before the last one count as t.
void LowerMatMul(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const Shape& w = at.graph.type(node.inputs[1]).shape;
  const bool transposed = node.attribute<bool>("transpose_b");
  const int64_t terms = w[transposed ? 1 : 0].size(), outputs = w[transposed ? 0 : 1].size();
  const TileValueId x = builder.Read(node.inputs[0]), y = builder.NewValue(node.outputs[0].shape);
  const int64_t places = builder.value(x).elements() / std::max<int64_t>(terms, 1);
  const int operand = builder.Operand(node.inputs[1]);
  builder.Define({node.id, 0}, y);
  std::vector<int32_t> offsets;
  for (int64_t r = 0; r < terms; ++r) offsets.push_back(static_cast<int32_t>(r * builder.lanes()));
  const DenseBlocks dense = ChooseDenseBlocks(builder.kernels(), outputs, places);
  if (dense.by_outputs) {
    LowerByOutputs(builder, node.id,
                   {.x = x,
                    .y = y,
                    .terms = terms,
                    .outputs = outputs,
                    .blocks = dense.blocks,
                    .weights = operand,
                    .transposed = transposed,
                    .offsets = std::move(offsets)});
    return;
  }
  SampleVectors product{x, y, terms, outputs, dense.blocks, operand, nullptr, std::move(offsets)};
  if (transposed) {
    PackedWeights packed{operand, 0, terms, {}, dense.blocks.rows, 0};
    for (int64_t r = 0; r < terms; ++r) packed.terms.push_back(static_cast<int32_t>(r));
    product.packed = PrepareWeights(builder, {std::move(packed)});
  }
  const auto shared = std::make_shared<const SampleVectors>(std::move(product));
  builder.Add({.name = "multiply", .node = node.id, .reads = {x}, .writes = {y}, .run = [shared](const TileRun& run) {
                 shared->Run(run);
               }});
}

}  // namespace gradweave
