#include "gradweave/runtime/cpu/tile/tile_lowering.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/formula_numbers.h"
#include "gradweave/runtime/kernel/label_check.h"

namespace gradweave {
namespace {

// Returns true if offsets inside a tile fit in 32 bits.
bool IsSmall(const Shape& shape) {
  int64_t elements = 1;
  for (int axis = 1; axis < shape.rank(); ++axis) elements *= shape[axis].size();
  return elements > 0 && elements < (int64_t{1} << 24);
}

bool BatchedAlone(const BatchNode& at, int i) {
  for (size_t k = 0; k < at.batched.size(); ++k) {
    if (at.batched[k] != (static_cast<int>(k) == i)) return false;
  }
  return true;
}

// ---- Elementwise ----

// Steps of an operand of an elementwise op, in elements, along the channels, rows and columns of
// the result. They are 0 along an axis that the operand broadcasts along.
struct BroadcastSteps {
  int64_t channel = 0, row = 0, column = 0;
};

// Returns the steps of an operand of that shape (without the batch), or nullopt if joined channels
// would need more than one step.
std::optional<BroadcastSteps> StepsOf(absl::Span<const int64_t> operand, absl::Span<const int64_t> result) {
  const int rank = static_cast<int>(result.size()), offset = rank - static_cast<int>(operand.size());
  BroadcastSteps steps;
  int64_t step = 1;
  bool any_channel = false, all_channels = true;
  for (int axis = rank - 1; axis >= 0; --axis) {
    const int64_t size = axis >= offset ? operand[axis - offset] : 1;
    const bool moves = size > 1;
    if (axis == rank - 1)
      steps.column = moves ? step : 0;
    else if (axis == rank - 2)
      steps.row = moves ? step : 0;
    else if (result[axis] > 1) {
      // The innermost of the joined axes gives the step. Either all of them move, or none.
      if (moves && !any_channel) steps.channel = step;
      any_channel |= moves;
      all_channels &= moves;
    }
    step *= size;
  }
  if (any_channel && !all_channels) return std::nullopt;
  return steps;
}

// Returns the sizes without the batch axis, which is axis 0 if there is one.
std::vector<int64_t> SampleSizes(const Shape& shape, bool batched) {
  std::vector<int64_t> sizes = shape.sizes();
  if (batched) sizes.erase(sizes.begin());
  return sizes;
}

// Returns the sizes of an operand without a batch. Its axis in the batch's position, if present,
// has size 1.
std::vector<int64_t> SharedSizes(const Shape& shape, int rank) {
  std::vector<int64_t> sizes = shape.sizes();
  if (static_cast<int>(sizes.size()) == rank) sizes.erase(sizes.begin());
  return sizes;
}

std::optional<BroadcastSteps> OperandSteps(const BatchNode& at, int i) {
  const Shape& result = at.node.outputs[0].shape;
  const Shape& operand = OperandType(at, i).shape;
  // The batch axis of a batched operand of lower rank would not align with that of the result.
  if (at.batched[i] && operand.rank() != result.rank()) return std::nullopt;
  const std::vector<int64_t> sizes = at.batched[i] ? SampleSizes(operand, true) : SharedSizes(operand, result.rank());
  return StepsOf(sizes, SampleSizes(result, true));
}

bool SupportsUnary(const BatchNode& at) {
  return IsFloat(OperandType(at, 0)) && IsFloat(at.node.outputs[0]) && FindElementLoop(at.node.op->name, kFloat32);
}

void LowerUnary(TileBuilder& builder, const BatchNode& at) {
  const TileValueId x = builder.Read(at.node.inputs[0]), y = builder.NewValue(at.node.outputs[0].shape);
  const ElementLoop loop = FindElementLoop(at.node.op->name, kFloat32);
  builder.Define({at.node.id, 0}, y);
  builder.Add({.name = at.node.op->name,
               .node = at.node.id,
               .reads = {x},
               .writes = {y},
               .by_rows = {x, y},
               .overwrites = {{x, y}},
               .run = [=, numbers = NumbersOf(at.node)](const TileRun& run) {
                 const TileRun::Rows from = run.rows(x), to = run.rows(y);
                 auto apply = [&](int64_t c, int64_t n) {
                   const LoopOperand operand = {from.at(c, from.begin)};
                   loop.run(&operand, to.at(c, to.begin), n, numbers.data());
                 };
                 const int64_t channels = run.values[y].channels, count = (to.end - to.begin) * to.row_step;
                 if (from.channel_step == count && to.channel_step == count) {
                   apply(0, channels * count);
                   return;
                 }
                 for (int64_t c = 0; c < channels; ++c) apply(c, count);
               }});
}

bool SupportsBinary(const BatchNode& at) {
  if (!IsFloat(at.node.outputs[0]) || !FindElementLoop(at.node.op->name, kFloat32)) return false;
  for (int i = 0; i < 2; ++i) {
    if (!IsFloat(OperandType(at, i)) || !OperandSteps(at, i).has_value()) return false;
  }
  return true;
}

// An operand of a binary op: lanes of this tile, or elements that all lanes share.
struct BinaryOperand {
  TileValueId value = -1;  // -1 means the region's operand.
  int operand = -1;
  BroadcastSteps steps;
  int64_t row_step = 0;  // For shared elements.

  struct Source {
    const float* data;
    int64_t channel, row, column;  // Steps in floats.
  };
  Source At(const TileRun& run) const {
    if (value < 0) {
      return {static_cast<const float*>(run.operands[operand]), steps.channel, steps.row, steps.column};
    }
    const TileRun::Rows rows = run.rows(value);
    return {rows.data, steps.channel == 0 ? 0 : rows.channel_step, steps.row == 0 ? 0 : rows.row_step,
            steps.column * run.lanes};
  }
};

void LowerBinary(TileBuilder& builder, const BatchNode& at) {
  if (LowerBinaryOfSpread(builder, at)) return;
  const TileValueId y = builder.NewValue(at.node.outputs[0].shape);
  TileInstruction instruction{.name = at.node.op->name, .node = at.node.id, .writes = {y}, .by_rows = {y}};
  BinaryOperand operands[2];
  bool by_rows = true;
  for (int i = 0; i < 2; ++i) {
    operands[i].steps = *OperandSteps(at, i);
    if (!at.batched[i]) {
      operands[i].operand = builder.Operand(at.node.inputs[i]);
      continue;
    }
    const TileValueId x = operands[i].value = builder.Read(at.node.inputs[i]);
    instruction.reads.push_back(x);
    if (builder.value(x).rows == builder.value(y).rows) {
      instruction.by_rows.push_back(x);
      if (builder.value(x).elements() == builder.value(y).elements()) instruction.overwrites.push_back({x, y});
    } else {
      by_rows = false;
    }
  }
  // An operand with a single row for all rows of the result cannot be split with it.
  if (!by_rows) instruction.by_rows.clear();
  const ElementLoop loop = FindElementLoop(at.node.op->name, kFloat32);
  instruction.run = [=, numbers = NumbersOf(at.node)](const TileRun& run) {
    const TileRun::Rows to = run.rows(y);
    const TileValue& shape = run.values[y];
    const BinaryOperand::Source a = operands[0].At(run), b = operands[1].At(run);
    // Returns true if an operand is contiguous vectors, or one element, along a row or along all
    // current rows.
    auto runs_on = [&](const BinaryOperand& operand, bool rows) {
      if (operand.value < 0) return operand.steps.column == 0 && (!rows || operand.steps.row == 0);
      return (operand.steps.column == 1 || shape.columns == 1) && (!rows || operand.steps.row != 0 || shape.rows == 1);
    };
    const bool whole_rows = runs_on(operands[0], false) && runs_on(operands[1], false);
    const bool all_rows = runs_on(operands[0], true) && runs_on(operands[1], true);
    auto apply = [&](const float* from_a, const float* from_b, float* result, int64_t n) {
      const LoopOperand pair[2] = {{from_a, operands[0].value >= 0}, {from_b, operands[1].value >= 0}};
      loop.run(pair, result, n, numbers.data());
    };
    for (int64_t c = 0; c < shape.channels; ++c) {
      if (all_rows) {
        apply(a.data + c * a.channel + to.begin * a.row, b.data + c * b.channel + to.begin * b.row, to.at(c, to.begin),
              (to.end - to.begin) * to.row_step);
        continue;
      }
      for (int64_t r = to.begin; r < to.end; ++r) {
        const float* from_a = a.data + c * a.channel + r * a.row;
        const float* from_b = b.data + c * b.channel + r * b.row;
        if (whole_rows) {
          apply(from_a, from_b, to.at(c, r), to.row_step);
          continue;
        }
        for (int64_t i = 0; i < shape.columns; ++i) {
          apply(from_a + i * a.column, from_b + i * b.column, to.at(c, r) + i * run.lanes, run.lanes);
        }
      }
    }
  };
  builder.Define({at.node.id, 0}, y);
  builder.Add(std::move(instruction));
}

// ---- Shapes ----

bool SupportsAlias(const BatchNode& at) { return IsFloat(at.node.outputs[0]); }

void LowerAlias(TileBuilder& builder, const BatchNode& at) {
  builder.Define({at.node.id, 0}, builder.Alias(builder.Read(at.node.inputs[0]), at.node.outputs[0].shape));
}

// ---- Convolutions and products ----

bool SupportsConv(const BatchNode& at) {
  for (size_t i = 0; i < at.node.inputs.size(); ++i) {
    if (!IsFloat(OperandType(at, static_cast<int>(i)))) return false;
  }
  const Shape& x = at.node.op->kind == OpKind::kConv2DInputGrad ? at.node.outputs[0].shape : OperandType(at, 0).shape;
  const Integers& padding = at.node.attribute<Integers>("padding");
  // Padding larger than the image would allow any sizes.
  for (int side = 0; side < 4; ++side) {
    if (padding[side] > x[2 + side / 2].size() + 64) return false;
  }
  if (!IsSmall({1, x[1], x[2] + Dim(padding[0] + padding[1]), x[3] + Dim(padding[2] + padding[3])})) return false;
  // A lowering lists the taps, for each of its rows, and the phases of strides.
  constexpr int64_t kMostListed = 1 << 20, kMostPhases = 4096;
  const Shape& filter =
      at.node.op->kind == OpKind::kConv2DFilterGrad ? at.node.outputs[0].shape : OperandType(at, 1).shape;
  const int64_t rows = filter[2].size(), columns = filter[3].size();
  const Integers& stride = at.node.attribute<Integers>("stride");
  if (std::max({rows, columns, stride[0], stride[1]}) > kMostPhases || stride[0] * stride[1] > kMostPhases ||
      std::max(filter[0].size(), filter[1].size()) > kMostListed || rows * rows * columns > kMostListed ||
      rows * rows * columns * filter[1].size() > 16 * kMostListed) {
    return false;
  }
  return at.summed || BatchedAlone(at, 0);
}

// Supports products with a matrix that all samples share. If the product sums over samples, one big
// product is faster than tiles.
bool SupportsMatMul(const BatchNode& at) {
  return IsFloat(OperandType(at, 0)) && !at.summed && BatchedAlone(at, 0) && OperandType(at, 1).shape.rank() == 2 &&
         !at.node.attribute<bool>("transpose_a") && IsSmall(OperandType(at, 1).shape) &&
         OperandType(at, 1).shape.num_elements().size() <= std::numeric_limits<int32_t>::max();
}

// ---- Sums ----

bool SupportsSum(const BatchNode& at) { return IsFloat(OperandType(at, 0)); }

// The axes of a sample's sum, where neighbouring axes that are both kept or both summed are one.
struct SummedAxes {
  struct Axis {
    int64_t size = 1, step = 1;  // Step of the result in elements; 0 for a summed axis.
    bool summed = false;
  };
  Axis inner;                   // The innermost axis.
  int outer_axes = 0;           // The number of the other axes.
  int64_t results = 1;          // Elements of the result.
  std::vector<int32_t> places;  // The position in the result for each run of the innermost axis.
};

SummedAxes SummedAxesOf(const Shape& shape, const Integers& axes) {
  using Axis = SummedAxes::Axis;
  std::vector<Axis> joined;
  int64_t results = 1;
  for (int axis = shape.rank() - 1; axis >= 1; --axis) {
    const bool summed = std::find(axes.begin(), axes.end(), axis) != axes.end();
    const int64_t size = shape[axis].size();
    if (!joined.empty() && joined.back().summed == summed) {
      joined.back().size *= size;
    } else {
      joined.push_back({size, summed ? 0 : results, summed});
    }
    if (!summed) results *= size;
  }
  std::reverse(joined.begin(), joined.end());
  if (joined.empty()) joined.emplace_back();
  const Axis inner = joined.back();
  joined.pop_back();
  std::vector<int32_t> places = {0};
  for (const Axis& axis : joined) {
    std::vector<int32_t> more;
    for (int32_t place : places) {
      for (int64_t i = 0; i < axis.size; ++i) more.push_back(static_cast<int32_t>(place + i * axis.step));
    }
    places = std::move(more);
  }
  return {inner, static_cast<int>(joined.size()), results, std::move(places)};
}

void LowerSum(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const TileValueId x = builder.Read(node.inputs[0]);
  SummedAxes axes = SummedAxesOf(OperandType(at, 0).shape, node.attribute<Integers>("axes"));
  const SummedAxes::Axis inner = axes.inner;
  const int64_t results = axes.results;
  const auto shared = std::make_shared<const std::vector<int32_t>>(std::move(axes.places));
  // Sums over images that leave [channels] can be accumulated from rows as they arrive.
  const TileValue view = builder.value(x);
  const bool by_channel = at.summed && inner.summed && axes.outer_axes <= 1 &&
                          static_cast<int64_t>(shared->size()) == view.channels && view.channels > 1;
  TileInstruction instruction{.name = "sum", .node = node.id, .reads = {x}};
  int64_t sums = 0;
  TileValueId y = -1;
  if (at.summed) {
    sums = builder.AddSums({node.id, 0}, results);
    instruction.summed = {x};
  } else {
    y = builder.NewValue(node.outputs[0].shape);
    builder.Define({node.id, 0}, y);
    instruction.writes = {y};
  }
  if (by_channel) {
    instruction.by_rows = {x};
    instruction.run = [=](const TileRun& run) {
      const TileRun::Rows from = run.rows(x);
      for (int64_t c = 0; c < view.channels; ++c) {
        run.kernels.add_up(from.at(c, from.begin), (from.end - from.begin) * view.columns, run.lanes,
                           run.sums + sums + c * run.lanes);
      }
    };
  } else {
    instruction.run = [=](const TileRun& run) {
      const float* from = run.whole(x);
      float* to = y < 0 ? run.sums + sums : run.whole(y);
      if (y >= 0) std::fill_n(to, results * run.lanes, 0.0f);
      for (int32_t place : *shared) {
        if (inner.summed) {
          run.kernels.add_up(from, inner.size, run.lanes, to + place * run.lanes);
        } else {
          GetRowLoops<float>().accumulate(from, to + place * run.lanes, inner.size * run.lanes);
        }
        from += inner.size * run.lanes;
      }
    };
  }
  builder.Add(std::move(instruction));
}

// ---- Softmax ----

bool SupportsSoftmax(const BatchNode& at) {
  const int rank = OperandType(at, 0).shape.rank();
  return IsFloat(OperandType(at, 0)) && rank > 1 && at.node.attribute<int64_t>("axis") == rank - 1;
}

void LowerSoftmax(TileBuilder& builder, const BatchNode& at) {
  const TileValueId x = builder.Read(at.node.inputs[0]), y = builder.NewValue(at.node.outputs[0].shape);
  builder.Define({at.node.id, 0}, y);
  builder.Add({.name = "softmax",
               .node = at.node.id,
               .reads = {x},
               .writes = {y},
               .by_rows = {x, y},
               .overwrites = {{x, y}},
               .run = [=](const TileRun& run) {
                 const TileRun::Rows from = run.rows(x), to = run.rows(y);
                 for (int64_t c = 0; c < run.values[x].channels; ++c) {
                   for (int64_t r = from.begin; r < from.end; ++r)
                     run.kernels.softmax(from.at(c, r), run.values[x].columns, to.at(c, r));
                 }
               }});
}

bool SupportsCrossEntropy(const BatchNode& at) {
  const Shape& logits = OperandType(at, 0).shape;
  for (size_t i = 0; i < at.batched.size(); ++i) {
    if (!at.batched[i]) return false;
  }
  // Labels are read where the run is given them.
  if (at.graph.node(at.node.inputs[1].node).op->kind == OpKind::kMaxPool2D) return false;
  return IsFloat(OperandType(at, 0)) && logits.rank() > 1 && logits[logits.rank() - 1].size() > 0;
}

// Returns the labels of a position for all samples of a tile. Absent samples repeat the last one.
template <typename T>
void LabelsOf(const TileRun& run, const T* labels, int64_t places, int64_t place, int32_t* result) {
  for (int64_t lane = 0; lane < run.lanes; ++lane) {
    const int64_t sample = run.first_sample + std::min(lane, run.samples - 1);
    result[lane] = static_cast<int32_t>(labels[sample * places + place]);
  }
}

void LowerCrossEntropy(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const bool gradient = node.op->kind == OpKind::kSparseSoftmaxCrossEntropyGrad;
  const TileValueId x = builder.Read(node.inputs[0]), y = builder.NewValue(node.outputs[0].shape);
  const TileValueId dy = gradient ? builder.Read(node.inputs[2]) : -1;
  const int labels = builder.Operand(node.inputs[1], true);
  const DType dtype = OperandType(at, 1).dtype;
  const Shape& shape = OperandType(at, 0).shape;
  const int64_t classes = shape[shape.rank() - 1].size(), places = builder.value(x).elements() / classes;
  const int64_t count = places * builder.batch();
  builder.AddCheck([=](const void* const* operands) {
    return WithLabelType(dtype, [&](auto zero) {
      return CheckLabels(static_cast<const decltype(zero)*>(operands[labels]), count, classes);
    });
  });
  builder.Define({node.id, 0}, y);
  TileInstruction instruction{.name = "cross entropy", .node = node.id, .reads = {x}, .writes = {y}};
  if (gradient) instruction.reads.push_back(dy);
  instruction.run = [=](const TileRun& run) {
    alignas(64) int32_t of_lanes[16];
    for (int64_t place = 0; place < places; ++place) {
      WithLabelType(dtype, [&](auto zero) {
        LabelsOf(run, static_cast<const decltype(zero)*>(run.operands[labels]), places, place, of_lanes);
      });
      const float* logits = run.whole(x) + place * classes * run.lanes;
      if (gradient) {
        run.kernels.cross_entropy_gradient(logits, classes, of_lanes, run.whole(dy) + place * run.lanes,
                                           run.whole(y) + place * classes * run.lanes);
      } else {
        run.kernels.cross_entropy(logits, classes, of_lanes, run.whole(y) + place * run.lanes);
      }
    }
  };
  builder.Add(std::move(instruction));
}

// ---- All of them ----

struct TileLowering {
  OpKind op;
  bool (*supports)(const BatchNode& at);
  void (*lower)(TileBuilder& builder, const BatchNode& at);
};

const TileLowering kLowerings[] = {
    {OpKind::kConv2D, SupportsConv, LowerConv2D},
    {OpKind::kConv2DInputGrad, SupportsConv, LowerConv2DInputGrad},
    {OpKind::kConv2DFilterGrad, SupportsConv, LowerConv2DFilterGrad},
    {OpKind::kMatMul, SupportsMatMul, LowerMatMul},
    {OpKind::kAvgPool2D, SupportsPool, LowerAvgPool},
    {OpKind::kAvgPool2DGrad, SupportsPool, LowerAvgPoolGrad},
    {OpKind::kMaxPool2D, SupportsPool, LowerMaxPool},
    {OpKind::kMaxUnpool2D, SupportsUnpool, LowerUnpool},
    {OpKind::kSum, SupportsSum, LowerSum},
    {OpKind::kReshape, SupportsAlias, LowerAlias},
    {OpKind::kStopGradient, SupportsAlias, LowerAlias},
    {OpKind::kSoftmax, SupportsSoftmax, LowerSoftmax},
    {OpKind::kSparseSoftmaxCrossEntropy, SupportsCrossEntropy, LowerCrossEntropy},
    {OpKind::kSparseSoftmaxCrossEntropyGrad, SupportsCrossEntropy, LowerCrossEntropy},
};

const TileLowering* FindLowering(const BatchNode& at) {
  for (const TileLowering& lowering : kLowerings) {
    if (at.node.op->kind == lowering.op) return &lowering;
  }
  static const TileLowering unary = {OpKind::kOther, SupportsUnary, LowerUnary},
                            binary = {OpKind::kOther, SupportsBinary, LowerBinary};
  if (at.node.inputs.size() == 1) return &unary;
  if (at.node.inputs.size() == 2) return &binary;
  return nullptr;
}

}  // namespace

bool TilesSupport(const BatchNode& at) {
  for (Port input : at.node.inputs) {
    const TensorType& type = at.graph.type(input);
    if (type.shape.rank() > 0 && !IsSmall(type.shape)) return false;
  }
  for (const TensorType& type : at.node.outputs) {
    if (!at.summed && !IsSmall(type.shape)) return false;
  }
  const TileLowering* lowering = FindLowering(at);
  return lowering != nullptr && lowering->supports(at);
}

void LowerToTiles(TileBuilder& builder, const BatchNode& at) {
  FindLowering(at)->lower(builder, at);
  if (at.node.op->flops == nullptr) return;
  const TensorTypes operands = at.graph.OperandTypes(at.node);
  builder.SetFlops(at.node.id, at.node.op->flops(OpView(*at.node.op, at.node.attributes, operands), at.node.outputs));
}

}  // namespace gradweave
