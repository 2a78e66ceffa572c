// Convolutions on tiles: weighted sums of vectors, with weights that all lanes share.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/runtime/cpu/tile/packed_weights.h"
#include "gradweave/runtime/cpu/tile/tile_cost.h"
#include "gradweave/runtime/cpu/tile/tile_lowering.h"
#include "gradweave/runtime/cpu/tile/toom_cook.h"

namespace gradweave {
namespace {

constexpr int64_t kBlockBytes = 28 << 10;

// A convolution with strides in its input (Conv2D) or in its output (Conv2DInputGrad). In the
// latter case each of the stride_y * stride_x phases of the output is a separate convolution with
// the taps that reach it.
struct Convolution {
  TileValueId x, y;                 // x includes its padding.
  int64_t groups, inputs, outputs;  // Channels of one group.
  int64_t input_stride_y, input_stride_x;
  int64_t output_stride_y, output_stride_x;
  int bias;  // Index of the operand; -1 means none.
  struct ColumnBlock {
    int size;
    int64_t first_term, terms;  // Terms of a row of taps: those that reach x from at least one of the columns.
    int64_t number;             // Adjacent blocks of this form.

    bool Continues(const ColumnBlock& next) const {
      return next.size == size && next.first_term == first_term && next.terms == terms;
    }
  };
  struct Phase {
    std::vector<int32_t> offsets;   // Indexed by term, in floats. Terms are ordered by tap row, tap column and channel.
    std::vector<int64_t> tap_rows;  // Rows of the padded x, relative to that of the output row.
    int64_t terms_per_row;
    std::vector<ColumnBlock> column_blocks;
    int64_t first_weights;  // Packed weights of group 0; those of the other groups follow.
  };
  std::vector<Phase> phases = {};      // Indexed by row phase and column phase.
  int64_t first_row = 0, end_row = 0;  // Rows of x in its padding.
  int64_t first_column = 0, end_column = 0;
  std::shared_ptr<const std::vector<PackedWeights>> weights = nullptr;

  void SetInside(const TileValue& padded, int64_t top, int64_t left, int64_t height, int64_t width) {
    first_row = top;
    end_row = std::min(top + height, padded.rows);
    first_column = left;
    end_column = std::min(left + width, padded.columns);
  }
  // Divides columns of the output into blocks. The terms of neighbouring tap columns are `inputs`
  // apart.
  void AddColumnBlocks(Phase& phase, const std::vector<int>& sizes, absl::Span<const int64_t> tap_columns) const;
  void Run(const TileRun& run) const;
};

void Convolution::AddColumnBlocks(Phase& phase, const std::vector<int>& sizes,
                                  absl::Span<const int64_t> tap_columns) const {
  int64_t column = 0;
  for (int size : sizes) {
    // Skip taps that are left of x for the block's last column or right of it for the first: they
    // read only padding.
    int64_t first = static_cast<int64_t>(tap_columns.size()), end = 0;
    for (int64_t tap = 0; tap < static_cast<int64_t>(tap_columns.size()); ++tap) {
      const int64_t from = column * input_stride_x + tap_columns[tap];
      const int64_t to = (column + size - 1) * input_stride_x + tap_columns[tap];
      if (to < first_column || from >= end_column) continue;
      first = std::min(first, tap);
      end = std::max(end, tap + 1);
    }
    const ColumnBlock block{size, first < end ? first * inputs : 0, std::max<int64_t>(end - first, 0) * inputs, 1};
    column += size;
    if (!phase.column_blocks.empty() && phase.column_blocks.back().Continues(block)) {
      ++phase.column_blocks.back().number;
    } else {
      phase.column_blocks.push_back(block);
    }
  }
}

void Convolution::Run(const TileRun& run) const {
  const TileKernels& kernels = run.kernels;
  const TileValue& in = run.values[x];
  const float* source = run.whole(x);
  const TileRun::Rows out = run.rows(y);
  WeightedSumArguments g;
  g.x_step = input_stride_x * run.lanes;
  g.y_step_a = out.channel_step;
  g.y_step_b = output_stride_x * run.lanes;
  for (int64_t row = out.begin; row < out.end; ++row) {
    const float* source_row = source + row / output_stride_y * input_stride_y * in.columns * run.lanes;
    for (int64_t phase_x = 0; phase_x < output_stride_x; ++phase_x) {
      const Phase& phase = phases[row % output_stride_y * output_stride_x + phase_x];
      // Range of tap rows that reach x.
      const int64_t top = row / output_stride_y * input_stride_y;
      int64_t first = static_cast<int64_t>(phase.tap_rows.size()), end = 0;
      for (int64_t k = 0; k < static_cast<int64_t>(phase.tap_rows.size()); ++k) {
        if (top + phase.tap_rows[k] < first_row || top + phase.tap_rows[k] >= end_row) continue;
        first = std::min(first, k);
        end = k + 1;
      }
      g.repeats = std::max<int64_t>(end - first, 0);
      g.period = phase.terms_per_row;
      for (int64_t group = 0; group < groups; ++group) {
        const PackedWeights& packed = (*weights)[phase.first_weights + group];
        const float* panel = run.prepared + packed.place;
        int64_t channel = group * outputs;
        for (int block : packed.row_blocks) {
          g.bias = bias < 0 ? nullptr : static_cast<const float*>(run.operands[bias]) + channel;
          const float* from = source_row + group * inputs * in.rows * in.columns * run.lanes;
          float* to = out.at(channel, row) + phase_x * run.lanes;
          for (const ColumnBlock& columns : phase.column_blocks) {
            // A phase that no tap reaches has no terms.
            const int64_t term = g.repeats == 0 ? 0 : first * phase.terms_per_row + columns.first_term;
            g.offsets = phase.offsets.data() + term;
            g.weights = panel + term * block;
            g.weight_step = block;
            g.terms = columns.terms;
            g.x = from;
            g.y = to;
            g.products = columns.number;
            g.x_product = columns.size * g.x_step;
            g.y_product = columns.size * g.y_step_b;
            kernels.weighted_sum[block][columns.size](g);
            from += columns.number * g.x_product;
            to += columns.number * g.y_product;
          }
          panel += block * static_cast<int64_t>(phase.offsets.size());
          channel += block;
        }
      }
    }
  }
}

// Returns x of a convolution with the rows and columns of padding that taps read.
TileValueId PaddedInput(TileBuilder& builder, TileValueId x, const ConvGeometry& g, NodeId node) {
  const int64_t rows = (g.output_height - 1) * g.stride_y + (g.kernel_height - 1) * g.dilation_y + 1;
  const int64_t columns = (g.output_width - 1) * g.stride_x + (g.kernel_width - 1) * g.dilation_x + 1;
  return builder.Padded(x, g.top, g.left, std::max(rows, g.height + g.top), std::max(columns, g.width + g.left), node);
}

// Returns the offset of a tap of a channel in the padded x, in floats.
int32_t TapOffset(const TileBuilder& builder, const TileValue& x, int64_t channel, int64_t row, int64_t column) {
  return static_cast<int32_t>(((channel * x.rows + row) * x.columns + column) * builder.lanes());
}

bool LowerToomCook(TileBuilder& builder, const Node& node, UnitConvolution convolution, TileValueId x, TileValueId y,
                   int bias) {
  convolution.x = x;
  convolution.y = y;
  convolution.weights = builder.Operand(node.inputs[1]);
  convolution.bias = bias;
  if (IsPackedAgain(builder.graph(), node.inputs[1], AssignedVariables(builder.graph()))) {
    const double tiles = static_cast<double>((builder.batch() + builder.lanes() - 1) / builder.lanes());
    convolution.packings = 1 / (tiles * static_cast<double>(builder.value(y).rows));
  }
  return LowerToomCook(builder, node.id, convolution);
}

void AddConvolution(TileBuilder& builder, NodeId node, Convolution convolution) {
  const TileValueId x = convolution.x, y = convolution.y;
  const auto shared = std::make_shared<const Convolution>(std::move(convolution));
  builder.Add({.name = "convolve",
               .node = node,
               .reads = {x},
               .writes = {y},
               .by_rows = {y},
               .run = [shared](const TileRun& run) { shared->Run(run); }});
}

// How the gradient of an input reads dy along one axis. Row y of dx receives tap k of row i of dy
// where y = i*stride + k*distance - before. With y = u*stride + phase, i = u + shift for the taps
// whose shift is an integer.
struct PhaseAxis {
  int64_t taps, stride, distance, before;

  struct Tap {
    int64_t tap, shift;
  };
  std::vector<Tap> TapsOf(int64_t phase) const {
    std::vector<Tap> result;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t sum = phase + before - tap * distance;
      if (sum % stride == 0) result.push_back({tap, sum / stride});
    }
    return result;
  }
  // Returns the smallest and the largest shift, which include 0.
  std::pair<int64_t, int64_t> Range() const {
    std::pair<int64_t, int64_t> range{0, 0};
    for (int64_t phase = 0; phase < stride; ++phase) {
      for (const Tap& tap : TapsOf(phase)) {
        range.first = std::min(range.first, tap.shift);
        range.second = std::max(range.second, tap.shift);
      }
    }
    return range;
  }
};

// Adds the phases of an input's gradient to `c`, and returns the weights that they read.
std::vector<PackedWeights> AddGradientPhases(const TileBuilder& builder, const ConvGeometry& g,
                                             const PhaseAxis& vertical, const PhaseAxis& horizontal, int operand,
                                             Convolution& c) {
  const TileValue in = builder.value(c.x);
  const int64_t least_y = vertical.Range().first, least_x = horizontal.Range().first;
  std::vector<PackedWeights> weights;
  for (int64_t phase_y = 0; phase_y < g.stride_y; ++phase_y) {
    for (int64_t phase_x = 0; phase_x < g.stride_x; ++phase_x) {
      Convolution::Phase phase;
      std::vector<int32_t> terms;
      const std::vector<PhaseAxis::Tap> columns = horizontal.TapsOf(phase_x);
      std::vector<int64_t> tap_columns;
      for (const PhaseAxis::Tap& column : columns) tap_columns.push_back(column.shift - least_x);
      for (const PhaseAxis::Tap& row : vertical.TapsOf(phase_y)) {
        phase.tap_rows.push_back(row.shift - least_y);
        for (const PhaseAxis::Tap& column : columns) {
          for (int64_t o = 0; o < c.inputs; ++o) {
            terms.push_back(static_cast<int32_t>(o * g.taps() + row.tap * g.kernel_width + column.tap));
            phase.offsets.push_back(TapOffset(builder, in, o, row.shift - least_y, column.shift - least_x));
          }
        }
      }
      phase.terms_per_row = c.inputs * static_cast<int64_t>(columns.size());
      const int64_t count = std::max<int64_t>(0, (g.width - phase_x + g.stride_x - 1) / g.stride_x);
      const Blocks blocks = WeightedSumBlocks(builder.kernels(), c.outputs, std::max<int64_t>(count, 1));
      if (count > 0) c.AddColumnBlocks(phase, blocks.columns, tap_columns);
      phase.first_weights = static_cast<int64_t>(weights.size());
      for (int64_t group = 0; group < g.groups; ++group) {
        weights.push_back(
            {operand, group * c.inputs * g.taps(), g.kernel_height * g.kernel_width, terms, blocks.rows, 0});
      }
      c.phases.push_back(std::move(phase));
    }
  }
  return weights;
}

// The gradient of a filter as sums over all samples, row by row of dy.
struct FilterCorrelation {
  ConvGeometry g;
  TileValueId x, dy;
  Blocks blocks;                 // Blocks of outputs x taps.
  std::vector<int32_t> offsets;  // Indexed by tap, in the padded x.
  int64_t sums;
  bool by_rows;  // True if it runs by rows of dy, else by blocks of outputs.

  void Run(const TileRun& run) const {
    const TileKernels& kernels = run.kernels;
    const TileValue& in = run.values[x];
    const TileRun::Rows rows = by_rows ? run.rows(dy) : run.all_rows(dy);
    const int64_t row_bytes = g.output_width * run.lanes * static_cast<int64_t>(sizeof(float));
    CorrelationArguments c;
    c.dy_step_a = rows.channel_step;
    c.dy_row = rows.row_step;
    c.x_row = g.stride_y * in.columns * run.lanes;
    c.x_step = g.stride_x * run.lanes;
    c.columns = g.output_width;
    c.sum_step_a = g.taps() * kernels.folded_lanes;
    int64_t share = -1;
    for (int64_t group = 0; group < g.groups; ++group) {
      int64_t channel = group * g.group_outputs();
      for (int a : blocks.rows) {
        const bool is_wanted = ++share >= (by_rows ? 0 : run.unit) && (by_rows || share < run.end_unit);
        // Take only as many rows as keep the block's part of dy in the cache while all taps use it.
        const int64_t step = std::max<int64_t>(1, kBlockBytes / (a * row_bytes));
        for (int64_t row = rows.begin; row < rows.end && is_wanted; row += step) {
          c.rows = std::min(step, rows.end - row);
          c.dy = rows.at(channel, row);
          c.x = run.whole(x) + group * g.group_channels() * in.rows * in.columns * run.lanes + row * c.x_row;
          int64_t tap = 0;
          for (int b : blocks.columns) {
            c.offsets = offsets.data() + tap;
            c.sums = run.folded_sums + sums + (channel * g.taps() + tap) * kernels.folded_lanes;
            kernels.correlation[a][b](c);
            tap += b;
          }
        }
        channel += a;
      }
    }
  }
};

}  // namespace

void LowerConv2D(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const ConvGeometry g(node, OperandType(at, 0).shape, OperandType(at, 1).shape, node.outputs[0].shape);
  const TileValueId y = builder.NewValue(node.outputs[0].shape);
  builder.Define({node.id, 0}, y);
  const int bias = node.inputs.size() == 3 ? builder.Operand(node.inputs[2]) : -1;
  const TileValueId input = builder.Read(node.inputs[0]);
  if (g.unit_strides() && LowerToomCook(builder, node, UnitConvolutionOf(g), input, y, bias)) return;
  Convolution c{.x = PaddedInput(builder, input, g, node.id),
                .y = y,
                .groups = g.groups,
                .inputs = g.group_channels(),
                .outputs = g.group_outputs(),
                .input_stride_y = g.stride_y,
                .input_stride_x = g.stride_x,
                .output_stride_y = 1,
                .output_stride_x = 1,
                .bias = bias};
  const TileValue in = builder.value(c.x);
  const Blocks blocks = WeightedSumBlocks(builder.kernels(), c.outputs, g.output_width);
  c.SetInside(in, g.top, g.left, g.height, g.width);
  Convolution::Phase phase{.terms_per_row = c.inputs * g.kernel_width, .first_weights = 0};
  std::vector<int32_t> terms;
  std::vector<int64_t> tap_columns;
  for (int64_t l = 0; l < g.kernel_width; ++l) tap_columns.push_back(l * g.dilation_x);
  for (int64_t k = 0; k < g.kernel_height; ++k) {
    phase.tap_rows.push_back(k * g.dilation_y);
    for (int64_t l = 0; l < g.kernel_width; ++l) {
      for (int64_t i = 0; i < c.inputs; ++i) {
        terms.push_back(static_cast<int32_t>((i * g.kernel_height + k) * g.kernel_width + l));
        phase.offsets.push_back(TapOffset(builder, in, i, k * g.dilation_y, l * g.dilation_x));
      }
    }
  }
  c.AddColumnBlocks(phase, blocks.columns, tap_columns);
  c.phases.push_back(std::move(phase));
  std::vector<PackedWeights> weights;
  for (int64_t group = 0; group < g.groups; ++group)
    weights.push_back({builder.Operand(node.inputs[1]), group * c.outputs * g.taps(), g.taps(), terms, blocks.rows, 0});
  c.weights = PrepareWeights(builder, std::move(weights));
  AddConvolution(builder, node.id, std::move(c));
}

void LowerConv2DInputGrad(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const ConvGeometry g(node, node.outputs[0].shape, OperandType(at, 1).shape, OperandType(at, 0).shape);
  const TileValueId y = builder.NewValue(node.outputs[0].shape);
  builder.Define({node.id, 0}, y);
  const TileValueId input = builder.Read(node.inputs[0]);
  if (g.unit_strides() && LowerToomCook(builder, node, UnitInputGradOf(g), input, y, -1)) return;
  const PhaseAxis vertical{g.kernel_height, g.stride_y, g.dilation_y, g.top};
  const PhaseAxis horizontal{g.kernel_width, g.stride_x, g.dilation_x, g.left};
  const auto [least_y, most_y] = vertical.Range();
  const auto [least_x, most_x] = horizontal.Range();
  const int64_t rows = (g.height - 1) / g.stride_y + 1 + most_y - least_y;
  const int64_t columns = (g.width - 1) / g.stride_x + 1 + most_x - least_x;
  Convolution c{.x = builder.Padded(input, -least_y, -least_x, std::max(rows, g.output_height - least_y),
                                    std::max(columns, g.output_width - least_x), node.id),
                .y = y,
                .groups = g.groups,
                .inputs = g.group_outputs(),
                .outputs = g.group_channels(),
                .input_stride_y = 1,
                .input_stride_x = 1,
                .output_stride_y = g.stride_y,
                .output_stride_x = g.stride_x,
                .bias = -1};
  c.SetInside(builder.value(c.x), -least_y, -least_x, g.output_height, g.output_width);
  c.weights =
      PrepareWeights(builder, AddGradientPhases(builder, g, vertical, horizontal, builder.Operand(node.inputs[1]), c));
  AddConvolution(builder, node.id, std::move(c));
}

void LowerConv2DFilterGrad(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const Shape& filter = node.outputs[0].shape;
  const ConvGeometry g(node, OperandType(at, 0).shape, filter, OperandType(at, 1).shape);
  const TileValueId image = builder.Read(node.inputs[0]), dy = builder.Read(node.inputs[1]);
  UnitFilterGrad unit = UnitFilterGradOf(g);
  unit.x = image;
  unit.dy = dy;
  if (g.unit_strides() && LowerToomCookFilterGrad(builder, node.id, unit)) return;
  const TileKernels& kernels = builder.kernels();
  FilterCorrelation c{g, PaddedInput(builder, image, g, node.id), dy};
  c.sums = builder.AddFoldedSums({node.id, 0}, filter.num_elements().size());
  for (int64_t i = 0; i < g.group_channels(); ++i) {
    for (int64_t k = 0; k < g.kernel_height; ++k) {
      for (int64_t l = 0; l < g.kernel_width; ++l)
        c.offsets.push_back(TapOffset(builder, builder.value(c.x), i, k * g.dilation_y, l * g.dilation_x));
    }
  }
  c.blocks = ChooseBlocks(kernels, g.group_outputs(), g.taps(),
                          [&](int a, int b) { return kernels.correlation[a][b] != nullptr; });
  TileInstruction instruction{.name = "correlate",
                              .node = node.id,
                              .reads = {c.x, dy},
                              .shares = g.groups * static_cast<int64_t>(c.blocks.rows.size()),
                              .folds = true,
                              .summed = {dy, c.x}};
  // Process rows in pieces only if the sums, which every piece reads and writes, stay in the
  // first-level cache.
  c.by_rows =
      filter.num_elements().size() * kernels.folded_lanes * static_cast<int64_t>(sizeof(float)) <= kFirstLevelSumBytes;
  if (c.by_rows) instruction.by_rows = {dy};
  instruction.run = [c = std::move(c)](const TileRun& run) { c.Run(run); };
  builder.Add(std::move(instruction));
}

}  // namespace gradweave
