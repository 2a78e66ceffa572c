#include "gradweave/runtime/cpu/tile/toom_cook.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "gradweave/runtime/cpu/tile/blocks.h"

namespace gradweave {
namespace {

// Below this share of the direct convolution's cost the transforms pay: the estimate leaves caches out.
constexpr double kWorthwhile = 0.9;

struct Choice {
  int pairs = 0;  // Points are 0, infinity and these pairs of opposite numbers; pairs = 0: none is worthwhile.
  int outputs = 0;
  int points() const { return 2 * pairs + 2; }
};

int64_t TilesOf(int64_t columns, int outputs) { return (columns + outputs - 1) / outputs; }

Choice Choose(const UnitConvolution& c, int64_t columns) {
  const double direct = static_cast<double>(columns * c.kernel_height * c.kernel_width * c.inputs * c.outputs);
  Choice best;
  double least = kWorthwhile * direct;
  for (int pairs = 1; pairs <= kMostToomCookPairs; ++pairs) {
    const Choice choice{pairs, static_cast<int>(2 * pairs + 3 - c.kernel_width)};
    if (choice.outputs < 2 || choice.outputs > kMostToomCookOutputs) continue;
    const int64_t tiles = TilesOf(columns, choice.outputs);
    // In vector instructions: a product each, and the additions and loads of the transforms.
    const double products = static_cast<double>(choice.points() * tiles * c.kernel_height * c.inputs * c.outputs);
    const double in = static_cast<double>(tiles * c.inputs) * choice.points() * (1 + pairs);
    const double out = static_cast<double>(tiles * c.outputs) * choice.points() * (1.5 + pairs);
    if (products + in + out < least) least = products + in + out, best = choice;
  }
  return best;
}

// The transform of a filter's row: [point][column of the filter]. Its inverse and the input's are in the kernels.
std::vector<std::vector<double>> FilterTransform(const Choice& choice, int64_t width) {
  std::vector<double> points = {0};
  for (int i = 0; i < choice.pairs; ++i) {
    points.push_back(ToomCookPoint(choice.pairs, i));
    points.push_back(-ToomCookPoint(choice.pairs, i));
  }
  std::vector<std::vector<double>> transform;
  for (double point : points) {
    double distance = 1;
    for (double other : points) distance *= other == point ? 1 : point - other;
    std::vector<double> row;
    for (int64_t l = 0; l < width; ++l) row.push_back(std::pow(point, static_cast<double>(l)) / distance);
    transform.push_back(std::move(row));
  }
  std::vector<double> infinity(width, 0.0);
  infinity.back() = 1;
  transform.push_back(std::move(infinity));
  return transform;
}

struct ToomCook {
  UnitConvolution c;
  Choice choice;
  std::vector<std::vector<double>> filter_transform;
  int64_t tiles;  // Of a row.
  Blocks blocks;  // Of outputs x tiles.
  TileValueId transformed, products;
  int64_t transformed_step, products_step;  // Between points, in floats.
  // By the slot of the first row that a row of the output reads, and term: filter row, then channel. Transformed rows
  // lie in as many slots as the filter has rows.
  std::vector<std::vector<int32_t>> offsets;
  int64_t weights;  // In the prepared memory: [group][point][row block][term][row of the block].

  int64_t terms() const { return c.kernel_height * c.inputs; }

  // Transforms the weights of one block of outputs of a group.
  void Pack(int64_t task, const void* const* operands, float* prepared) const {
    const int64_t group = task / static_cast<int64_t>(blocks.rows.size());
    const int64_t block = task % static_cast<int64_t>(blocks.rows.size());
    int64_t output = 0;
    for (int64_t i = 0; i < block; ++i) output += blocks.rows[i];
    const int rows = blocks.rows[block];
    const float* from = static_cast<const float*>(operands[c.weights]) + c.start + group * c.group_step;
    float* to = prepared + weights + group * choice.points() * terms() * c.outputs + output * terms();
    for (int64_t k = 0; k < c.kernel_height; ++k) {
      for (int64_t i = 0; i < c.inputs; ++i) {
        for (int a = 0; a < rows; ++a) {
          const float* w = from + (output + a) * c.output_step + i * c.input_step + k * c.row_step;
          for (int j = 0; j < choice.points(); ++j) {
            double sum = 0;
            for (int64_t l = 0; l < c.kernel_width; ++l) sum += filter_transform[j][l] * w[l * c.column_step];
            to[j * terms() * c.outputs + (k * c.inputs + i) * rows + a] = static_cast<float>(sum);
          }
        }
      }
    }
  }

  void Run(const TileRun& run) const {
    const TileKernels& kernels = GetTileKernels();
    const TileValue& in = run.values[c.x];
    const TileRun::Rows out = run.rows(c.y);
    float* slots = run.whole(transformed);
    ToomCookInput input;
    input.x_step = in.rows * in.columns * run.lanes;
    input.first = -c.left;
    input.columns = in.columns;
    input.step = choice.outputs;
    input.channels = c.groups * c.inputs;
    input.tiles = tiles;
    input.v_step = transformed_step;
    float* results = run.whole(products);
    ToomCookOutput output;
    output.products = results;
    output.products_step = products_step;
    output.channels = c.outputs;
    output.columns = run.values[c.y].columns;
    output.y_step = out.channel_step;
    WeightedSumArguments sums;
    sums.period = sums.terms = c.inputs;
    sums.bias = nullptr;
    sums.x_step = sums.y_step_b = run.lanes;
    sums.y_step_a = tiles * run.lanes;
    for (int64_t row = out.begin; row < out.end; ++row) {
      const int64_t top = row - c.top;
      const int64_t first = std::max<int64_t>(0, -top), end = std::min(c.kernel_height, in.rows - top);
      // Rows come in their order, so that all but the last are there already.
      for (int64_t k = row == 0 ? first : std::max(first, c.kernel_height - 1); k < end; ++k) {
        input.x = run.whole(c.x) + (top + k) * in.columns * run.lanes;
        input.v = slots + (top + k) % c.kernel_height * input.channels * tiles * run.lanes;
        kernels.toom_cook_input[choice.pairs](input);
      }
      sums.repeats = std::max<int64_t>(end - first, 0);
      const std::vector<int32_t>& rows = offsets[(top + c.kernel_height) % c.kernel_height];
      sums.offsets = rows.data() + (sums.repeats == 0 ? 0 : first * c.inputs);
      for (int64_t group = 0; group < c.groups; ++group) {
        for (int j = 0; j < choice.points(); ++j) {
          const float* panel = run.prepared + weights + (group * choice.points() + j) * terms() * c.outputs;
          const float* x = slots + j * transformed_step + group * c.inputs * tiles * run.lanes;
          float* y = results + j * products_step;
          for (int a : blocks.rows) {
            sums.weight_step = a;
            sums.weights = panel + first * c.inputs * a;
            sums.x = x;
            sums.y = y;
            for (int b : blocks.columns) {
              kernels.weighted_sum[a][b](sums);
              sums.x += b * run.lanes;
              sums.y += b * run.lanes;
            }
            panel += a * terms();
            y += a * sums.y_step_a;
          }
        }
        output.bias = c.bias < 0 ? nullptr : static_cast<const float*>(run.operands[c.bias]) + group * c.outputs;
        output.y = out.at(group * c.outputs, row);
        kernels.toom_cook_output[choice.pairs][choice.outputs](output);
      }
    }
  }
};

}  // namespace

bool LowerToomCook(TileBuilder& builder, NodeId node, const UnitConvolution& convolution) {
  const TileValue y = builder.value(convolution.y);
  // Rows whose transforms never come to be would be read otherwise.
  if (!builder.toom_cook() || convolution.top < 0 || convolution.top >= convolution.kernel_height) return false;
  const Choice choice = Choose(convolution, y.columns);
  if (choice.pairs == 0) return false;
  const int lanes = builder.lanes();
  ToomCook t{.c = convolution, .choice = choice};
  t.filter_transform = FilterTransform(choice, convolution.kernel_width);
  t.tiles = TilesOf(y.columns, choice.outputs);
  t.blocks = ChooseBlocks(convolution.outputs, t.tiles,
                          [](int a, int b) { return GetTileKernels().weighted_sum[a][b] != nullptr; });
  const int64_t channels = convolution.groups * convolution.inputs;
  t.transformed = builder.NewValue(choice.points(), convolution.kernel_height * channels, t.tiles);
  t.transformed_step = convolution.kernel_height * channels * t.tiles * lanes;
  t.products = builder.NewValue(choice.points(), convolution.outputs, t.tiles);
  t.products_step = convolution.outputs * t.tiles * lanes;
  for (int64_t slot = 0; slot < convolution.kernel_height; ++slot) {
    std::vector<int32_t>& offsets = t.offsets.emplace_back();
    for (int64_t k = 0; k < convolution.kernel_height; ++k) {
      for (int64_t i = 0; i < convolution.inputs; ++i) {
        const int64_t row = (slot + k) % convolution.kernel_height * channels + i;
        offsets.push_back(static_cast<int32_t>(row * t.tiles * lanes));
      }
    }
  }
  t.weights = builder.AddPrepared(convolution.groups * choice.points() * t.terms() * convolution.outputs);
  const auto shared = std::make_shared<const ToomCook>(std::move(t));
  builder.AddPreparation(
      convolution.groups * static_cast<int64_t>(shared->blocks.rows.size()),
      [shared](int64_t task, const void* const* operands, float* prepared) { shared->Pack(task, operands, prepared); });
  builder.Add({.name = "Toom-Cook",
               .node = node,
               .reads = {convolution.x},
               .writes = {convolution.y, shared->transformed, shared->products},
               .by_rows = {convolution.y},
               .run = [shared](const TileRun& run) { shared->Run(run); }});
  return true;
}

}  // namespace gradweave
