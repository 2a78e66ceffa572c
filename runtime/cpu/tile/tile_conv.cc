// Convolutions and matrix products on tiles: weighted sums of vectors, with weights that all lanes
// share.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/runtime/cpu/tile/blocks.h"
#include "gradweave/runtime/cpu/tile/tile_lowering.h"
#include "gradweave/runtime/cpu/tile/toom_cook.h"
#include "gradweave/runtime/kernel/conv_geometry.h"

namespace gradweave {
namespace {

constexpr int64_t kBlockBytes = 28 << 10;

Blocks WeightedSumBlocks(const TileKernels& kernels, int64_t rows, int64_t columns) {
  return ChooseBlocks(kernels, rows, columns, [&](int a, int b) { return kernels.weighted_sum[a][b] != nullptr; });
}

// Weights packed in the order in which blocks of rows read them: [row block][term][row of the
// block]. The weight of row a and term r is source[a*row_step + terms[r]].
struct PackedWeights {
  int operand;               // Index of the region's operand.
  int64_t source, row_step;  // In elements.
  std::vector<int32_t> terms;
  std::vector<int> row_blocks;
  int64_t place;  // Offset in the prepared memory.

  std::string layout() const {
    return absl::StrCat("packed ", source, " ", row_step, " ", place, ": ", absl::StrJoin(terms, " "), ": ",
                        absl::StrJoin(row_blocks, " "));
  }
  int64_t size() const {
    int64_t rows = 0;
    for (int block : row_blocks) rows += block;
    return rows * static_cast<int64_t>(terms.size());
  }
  void Pack(const void* const* operands, float* prepared, int64_t block) const {
    const float* from = static_cast<const float*>(operands[operand]) + source;
    float* to = prepared + place;
    for (int64_t i = 0; i < block; ++i) {
      from += row_blocks[i] * row_step;
      to += row_blocks[i] * terms.size();
    }
    const int rows = row_blocks[block];
    for (size_t r = 0; r < terms.size(); ++r) {
      for (int a = 0; a < rows; ++a) *to++ = from[a * row_step + terms[r]];
    }
  }
};

// Reserves memory for the weights, which all belong to one operand, and adds the tasks that fill
// it.
std::shared_ptr<const std::vector<PackedWeights>> Prepare(TileBuilder& builder, std::vector<PackedWeights> weights) {
  for (PackedWeights& w : weights) w.place = builder.AddPrepared(w.size());
  auto shared = std::make_shared<const std::vector<PackedWeights>>(std::move(weights));
  std::vector<std::pair<int, int>> tasks;
  std::string layout;
  for (size_t i = 0; i < shared->size(); ++i) {
    absl::StrAppend(&layout, (*shared)[i].layout(), "; ");
    for (size_t block = 0; block < (*shared)[i].row_blocks.size(); ++block)
      tasks.emplace_back(static_cast<int>(i), static_cast<int>(block));
  }
  builder.AddPreparation(shared->at(0).operand, static_cast<int64_t>(tasks.size()), std::move(layout),
                         [shared, tasks](int64_t task, const void* const* operands, float* prepared) {
                           (*shared)[tasks[task].first].Pack(operands, prepared, tasks[task].second);
                         });
  return shared;
}

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
    std::vector<int32_t> offsets;   // By term, in floats. Terms are ordered by tap row, tap column and channel.
    std::vector<int64_t> tap_rows;  // Rows of the padded x, relative to that of the output row.
    int64_t terms_per_row;
    std::vector<ColumnBlock> column_blocks;
    int64_t first_weights;  // Packed weights of group 0; those of the other groups follow.
  };
  std::vector<Phase> phases;   // By row phase, then column phase.
  int64_t first_row, end_row;  // Rows of x within the padding.
  int64_t first_column, end_column;
  std::shared_ptr<const std::vector<PackedWeights>> weights;

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

std::function<void(const TileRun&)> RunOf(Convolution convolution) {
  auto shared = std::make_shared<const Convolution>(std::move(convolution));
  return [shared](const TileRun& run) { shared->Run(run); };
}

// Returns x of a convolution with the rows and columns of padding that taps read.
TileValueId PaddedInput(TileBuilder& builder, TileValueId x, const ConvGeometry& g, NodeId node) {
  const int64_t rows = (g.output_height - 1) * g.stride_y + (g.kernel_height - 1) * g.dilation_y + 1;
  const int64_t columns = (g.output_width - 1) * g.stride_x + (g.kernel_width - 1) * g.dilation_x + 1;
  return builder.Padded(x, g.top, g.left, std::max(rows, g.height + g.top), std::max(columns, g.width + g.left), node);
}

}  // namespace

void LowerConv2D(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const Shape& filter = at.graph.type(node.inputs[1]).shape;
  const ConvGeometry g = ConvGeometry(at.node, at.graph.type(node.inputs[0]).shape, filter, node.outputs[0].shape);
  const TileValueId y = builder.NewValue(node.outputs[0].shape);
  builder.Define({node.id, 0}, y);
  const int bias = node.inputs.size() == 3 ? builder.Operand(node.inputs[2]) : -1;
  const TileValueId input = builder.Read(node.inputs[0]);
  if (g.unit_strides() && LowerToomCook(builder, node.id,
                                        {.x = input,
                                         .y = y,
                                         .groups = g.groups,
                                         .inputs = g.group_channels(),
                                         .outputs = g.group_outputs(),
                                         .kernel_height = g.kernel_height,
                                         .kernel_width = g.kernel_width,
                                         .top = g.top,
                                         .left = g.left,
                                         .weights = builder.Operand(node.inputs[1]),
                                         .start = 0,
                                         .group_step = g.group_outputs() * g.taps(),
                                         .output_step = g.taps(),
                                         .input_step = g.kernel_height * g.kernel_width,
                                         .row_step = g.kernel_width,
                                         .column_step = 1,
                                         .bias = bias})) {
    return;
  }
  Convolution c;
  c.x = PaddedInput(builder, input, g, node.id);
  c.y = y;
  c.groups = g.groups;
  c.inputs = g.group_channels();
  c.outputs = g.group_outputs();
  c.input_stride_y = g.stride_y;
  c.input_stride_x = g.stride_x;
  c.output_stride_y = c.output_stride_x = 1;
  c.bias = bias;
  const TileValue in = builder.value(c.x);
  const Blocks blocks = WeightedSumBlocks(builder.kernels(), c.outputs, g.output_width);
  c.SetInside(in, g.top, g.left, g.height, g.width);
  Convolution::Phase phase{.terms_per_row = c.inputs * g.kernel_width, .first_weights = 0};
  std::vector<int32_t> terms;
  std::vector<int64_t> tap_columns;
  for (int64_t k = 0; k < g.kernel_height; ++k) {
    phase.tap_rows.push_back(k * g.dilation_y);
    for (int64_t l = 0; l < g.kernel_width; ++l) {
      if (k == 0) tap_columns.push_back(l * g.dilation_x);
      for (int64_t i = 0; i < c.inputs; ++i) {
        terms.push_back(static_cast<int32_t>((i * g.kernel_height + k) * g.kernel_width + l));
        phase.offsets.push_back(
            static_cast<int32_t>(((i * in.rows + k * g.dilation_y) * in.columns + l * g.dilation_x) * builder.lanes()));
      }
    }
  }
  c.AddColumnBlocks(phase, blocks.columns, tap_columns);
  c.phases.push_back(std::move(phase));
  std::vector<PackedWeights> weights;
  for (int64_t group = 0; group < g.groups; ++group) {
    weights.push_back({builder.Operand(node.inputs[1]), group * c.outputs * g.taps(), g.taps(), terms, blocks.rows, 0});
  }
  c.weights = Prepare(builder, std::move(weights));
  const TileValueId x = c.x;
  builder.Add(
      {.name = "convolve", .node = node.id, .reads = {x}, .writes = {y}, .by_rows = {y}, .run = RunOf(std::move(c))});
}

void LowerConv2DInputGrad(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const Shape& filter = at.graph.type(node.inputs[1]).shape;
  const Shape& dy_shape = at.graph.type(node.inputs[0]).shape;
  const ConvGeometry g = ConvGeometry(at.node, node.outputs[0].shape, filter, dy_shape);
  const TileValueId y = builder.NewValue(node.outputs[0].shape);
  builder.Define({node.id, 0}, y);
  const TileValueId input = builder.Read(node.inputs[0]);
  const int64_t area = g.kernel_height * g.kernel_width;
  // dx is the convolution of dy with the flipped filter, where inputs and outputs change places.
  if (g.unit_strides() && LowerToomCook(builder, node.id,
                                        {.x = input,
                                         .y = y,
                                         .groups = g.groups,
                                         .inputs = g.group_outputs(),
                                         .outputs = g.group_channels(),
                                         .kernel_height = g.kernel_height,
                                         .kernel_width = g.kernel_width,
                                         .top = g.kernel_height - 1 - g.top,
                                         .left = g.kernel_width - 1 - g.left,
                                         .weights = builder.Operand(node.inputs[1]),
                                         .start = area - 1,
                                         .group_step = g.group_outputs() * g.taps(),
                                         .output_step = area,
                                         .input_step = g.taps(),
                                         .row_step = -g.kernel_width,
                                         .column_step = -1,
                                         .bias = -1})) {
    return;
  }
  // Row y of dx receives tap k of row i of dy where y = i*stride + k*dilation - top. With y =
  // u*stride + phase, i = u + shift for the taps whose shift is an integer.
  auto shift = [](int64_t phase, int64_t before, int64_t distance, int64_t stride, int64_t& result) {
    const int64_t sum = phase + before - distance;
    if (sum % stride != 0) return false;
    result = sum / stride;
    return true;
  };
  int64_t least_y = 0, most_y = 0, least_x = 0, most_x = 0, s = 0;
  for (int64_t phase = 0; phase < g.stride_y; ++phase) {
    for (int64_t k = 0; k < g.kernel_height; ++k) {
      if (shift(phase, g.top, k * g.dilation_y, g.stride_y, s))
        least_y = std::min(least_y, s), most_y = std::max(most_y, s);
    }
  }
  for (int64_t phase = 0; phase < g.stride_x; ++phase) {
    for (int64_t l = 0; l < g.kernel_width; ++l) {
      if (shift(phase, g.left, l * g.dilation_x, g.stride_x, s))
        least_x = std::min(least_x, s), most_x = std::max(most_x, s);
    }
  }
  Convolution c;
  const int64_t rows = (g.height - 1) / g.stride_y + 1 + most_y - least_y;
  const int64_t columns = (g.width - 1) / g.stride_x + 1 + most_x - least_x;
  c.x = builder.Padded(input, -least_y, -least_x, std::max(rows, g.output_height - least_y),
                       std::max(columns, g.output_width - least_x), node.id);
  c.y = y;
  c.groups = g.groups;
  c.inputs = g.group_outputs();
  c.outputs = g.group_channels();
  c.input_stride_y = c.input_stride_x = 1;
  c.output_stride_y = g.stride_y;
  c.output_stride_x = g.stride_x;
  c.bias = -1;
  const TileValue in = builder.value(c.x);
  c.SetInside(in, -least_y, -least_x, g.output_height, g.output_width);
  std::vector<PackedWeights> weights;
  for (int64_t phase_y = 0; phase_y < g.stride_y; ++phase_y) {
    for (int64_t phase_x = 0; phase_x < g.stride_x; ++phase_x) {
      Convolution::Phase phase;
      std::vector<int32_t> terms;
      // Taps that reach this phase, and their shifts.
      std::vector<std::pair<int64_t, int64_t>> rows_of_taps, columns_of_taps;
      for (int64_t k = 0; k < g.kernel_height; ++k) {
        if (shift(phase_y, g.top, k * g.dilation_y, g.stride_y, s)) rows_of_taps.emplace_back(k, s - least_y);
      }
      for (int64_t l = 0; l < g.kernel_width; ++l) {
        if (shift(phase_x, g.left, l * g.dilation_x, g.stride_x, s)) columns_of_taps.emplace_back(l, s - least_x);
      }
      std::vector<int64_t> tap_columns;
      for (const auto& [l, column] : columns_of_taps) tap_columns.push_back(column);
      for (const auto& [k, row] : rows_of_taps) {
        phase.tap_rows.push_back(row);
        for (const auto& [l, column] : columns_of_taps) {
          for (int64_t o = 0; o < c.inputs; ++o) {
            terms.push_back(static_cast<int32_t>(o * g.taps() + k * g.kernel_width + l));
            phase.offsets.push_back(
                static_cast<int32_t>(((o * in.rows + row) * in.columns + column) * builder.lanes()));
          }
        }
      }
      phase.terms_per_row = c.inputs * static_cast<int64_t>(columns_of_taps.size());
      const int64_t count = std::max<int64_t>(0, (g.width - phase_x + g.stride_x - 1) / g.stride_x);
      const Blocks blocks = WeightedSumBlocks(builder.kernels(), c.outputs, std::max<int64_t>(count, 1));
      if (count > 0) c.AddColumnBlocks(phase, blocks.columns, tap_columns);
      phase.first_weights = static_cast<int64_t>(weights.size());
      for (int64_t group = 0; group < g.groups; ++group) {
        weights.push_back({builder.Operand(node.inputs[1]), group * c.inputs * g.taps(), area, terms, blocks.rows, 0});
      }
      c.phases.push_back(std::move(phase));
    }
  }
  c.weights = Prepare(builder, std::move(weights));
  const TileValueId x = c.x;
  builder.Add(
      {.name = "convolve", .node = node.id, .reads = {x}, .writes = {y}, .by_rows = {y}, .run = RunOf(std::move(c))});
}

void LowerConv2DFilterGrad(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const Shape& filter = node.outputs[0].shape;
  const ConvGeometry g =
      ConvGeometry(at.node, at.graph.type(node.inputs[0]).shape, filter, at.graph.type(node.inputs[1]).shape);
  const TileValueId image = builder.Read(node.inputs[0]), dy = builder.Read(node.inputs[1]);
  if (g.unit_strides() && LowerToomCookFilterGrad(builder, node.id,
                                                  {.x = image,
                                                   .dy = dy,
                                                   .groups = g.groups,
                                                   .inputs = g.group_channels(),
                                                   .outputs = g.group_outputs(),
                                                   .kernel_height = g.kernel_height,
                                                   .kernel_width = g.kernel_width,
                                                   .top = g.top,
                                                   .left = g.left})) {
    return;
  }
  const TileValueId x = PaddedInput(builder, image, g, node.id);
  const int64_t sums = builder.AddFoldedSums({node.id, 0}, filter.num_elements().size());
  const TileValue in = builder.value(x);
  const int64_t inputs = g.group_channels(), outputs = g.group_outputs(), taps = g.taps();
  std::vector<int32_t> offsets;
  for (int64_t i = 0; i < inputs; ++i) {
    for (int64_t k = 0; k < g.kernel_height; ++k) {
      for (int64_t l = 0; l < g.kernel_width; ++l) {
        offsets.push_back(
            static_cast<int32_t>(((i * in.rows + k * g.dilation_y) * in.columns + l * g.dilation_x) * builder.lanes()));
      }
    }
  }
  const TileKernels& kernels = builder.kernels();
  const Blocks blocks =
      ChooseBlocks(kernels, outputs, taps, [&](int a, int b) { return kernels.correlation[a][b] != nullptr; });
  // Process rows in pieces only if the sums, which every piece reads and writes, stay in the
  // first-level cache.
  const int64_t row_bytes = g.output_width * builder.lanes() * static_cast<int64_t>(sizeof(float));
  const bool by_rows =
      filter.num_elements().size() * kernels.folded_lanes * static_cast<int64_t>(sizeof(float)) <= kFirstLevelSumBytes;
  TileInstruction instruction{.name = "correlate", .node = node.id, .reads = {x, dy}, .summed = {dy, x}};
  if (by_rows) instruction.by_rows = {dy};
  instruction.run = [=](const TileRun& run) {
    const TileKernels& kernels = run.kernels;
    const TileRun::Rows rows = run.rows(dy);
    CorrelationArguments c;
    c.dy_step_a = rows.channel_step;
    c.dy_row = rows.row_step;
    c.x_row = g.stride_y * in.columns * run.lanes;
    c.x_step = g.stride_x * run.lanes;
    c.columns = g.output_width;
    c.sum_step_a = taps * kernels.folded_lanes;
    for (int64_t group = 0; group < g.groups; ++group) {
      int64_t channel = group * outputs;
      for (int a : blocks.rows) {
        // Take only as many rows as keep the block's part of dy in the cache while all taps use it.
        const int64_t step = std::max<int64_t>(1, kBlockBytes / (a * row_bytes));
        for (int64_t row = rows.begin; row < rows.end; row += step) {
          c.rows = std::min(step, rows.end - row);
          c.dy = rows.at(channel, row);
          c.x = run.whole(x) + group * inputs * in.rows * in.columns * run.lanes + row * c.x_row;
          int64_t tap = 0;
          for (int b : blocks.columns) {
            c.offsets = offsets.data() + tap;
            c.sums = run.folded_sums + sums + (channel * taps + tap) * kernels.folded_lanes;
            kernels.correlation[a][b](c);
            tap += b;
          }
        }
        channel += a;
      }
    }
  };
  builder.Add(std::move(instruction));
}

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
  std::vector<int32_t> offsets;  // By term.

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

// The transposition pays if it makes the blocks cheaper by at least this factor.
constexpr double kWorthTransposing = 0.97;

}  // namespace

// y[t][n] = sum over k of x[t][k] * w[k][n], where all samples share w or its transpose. All axes
// of x before the last one count as t.
void LowerMatMul(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const Shape& w = at.graph.type(node.inputs[1]).shape;
  const bool transposed = node.attribute<bool>("transpose_b");
  const int64_t terms = w[transposed ? 1 : 0].size(), outputs = w[transposed ? 0 : 1].size();
  const int64_t lanes = builder.lanes();
  const TileValueId x = builder.Read(node.inputs[0]), y = builder.NewValue(node.outputs[0].shape);
  const int64_t places = builder.value(x).elements() / std::max<int64_t>(terms, 1);
  const int operand = builder.Operand(node.inputs[1]);
  builder.Define({node.id, 0}, y);
  std::vector<int32_t> offsets;
  for (int64_t r = 0; r < terms; ++r) offsets.push_back(static_cast<int32_t>(r * lanes));
  const Blocks blocks = WeightedSumBlocks(builder.kernels(), outputs, places);
  const int64_t vectors = (outputs + lanes - 1) / lanes;
  const Blocks of_outputs = WeightedSumBlocks(builder.kernels(), lanes, vectors);
  if (places == 1 && of_outputs.cost < kWorthTransposing * blocks.cost) {
    const auto product =
        std::make_shared<const OutputVectors>(OutputVectors{.x = x,
                                                            .y = y,
                                                            .by_sample = builder.NewValue(1, lanes, vectors),
                                                            .terms = terms,
                                                            .outputs = outputs,
                                                            .vectors = vectors,
                                                            .blocks = of_outputs,
                                                            .weights = operand,
                                                            .transposed = transposed,
                                                            .place = builder.AddPrepared(vectors * terms * lanes),
                                                            .offsets = std::move(offsets)});
    builder.AddPreparation(
        operand, vectors, absl::StrCat("outputs ", terms, " ", outputs, " ", transposed, " ", product->place),
        [product, &kernels = builder.kernels()](int64_t vector, const void* const* operands, float* prepared) {
          product->Pack(kernels, vector, operands, prepared);
        });
    builder.Add({.name = "multiply by outputs",
                 .node = node.id,
                 .reads = {x},
                 .writes = {y, product->by_sample},
                 .run = [product](const TileRun& run) { product->Run(run); }});
    return;
  }
  PackedWeights packed{operand, 0, transposed ? terms : 1, {}, blocks.rows, 0};
  for (int64_t r = 0; r < terms; ++r) packed.terms.push_back(static_cast<int32_t>(transposed ? r : r * outputs));
  // Rows of w are read in place. Columns would take a cache line for each element, so they are
  // packed.
  const auto weights = transposed ? Prepare(builder, {std::move(packed)}) : nullptr;
  builder.Add({.name = "multiply", .node = node.id, .reads = {x}, .writes = {y}, .run = [=](const TileRun& run) {
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
                     transposed ? run.prepared + (*weights)[0].place : static_cast<const float*>(run.operands[operand]);
                 int64_t output = 0;
                 for (int block : blocks.rows) {
                   g.weight_step = transposed ? block : outputs;
                   g.x = run.whole(x);
                   g.y = run.whole(y) + output * run.lanes;
                   for (int columns : blocks.columns) {
                     kernels.weighted_sum[block][columns](g);
                     g.x += columns * g.x_step;
                     g.y += columns * g.y_step_b;
                   }
                   g.weights += transposed ? block * terms : block;
                   output += block;
                 }
               }});
}

}  // namespace gradweave
