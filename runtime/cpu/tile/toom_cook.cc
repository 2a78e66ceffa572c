#include "gradweave/runtime/cpu/tile/toom_cook.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/runtime/cpu/simd/filtering_points.h"
#include "gradweave/runtime/cpu/tile/blocks.h"
#include "gradweave/runtime/cpu/tile/toom_cook_kernels.h"

namespace gradweave {
namespace {

struct Choice {
  int pairs = 0;  // Pairs of opposite points, besides 0 and infinity; 0 means that the direct form is cheaper.
  int outputs = 0;
  // True for the transposed form (UnitConvolution only), in which tiles are of x and their results
  // overlap.
  bool product = false;
  Estimate row = {};  // Cost of one row of a group.
  int points() const { return 2 * pairs + 2; }
};

int64_t TilesOf(int64_t columns, int outputs) { return (columns + outputs - 1) / outputs; }

// Returns the cost of vector instructions. Products, additions and loads count as one each.
Estimate RowCost(Loop loop, double instructions) {
  return Estimate().Add(loop, {.calls = 1, .products = instructions});
}

// Returns the number of points for which a row costs least, or no pairs if the direct form costs
// less.
template <typename CostOf>
Choice Choose(int64_t kernel_width, bool product, const Estimate& direct, CostOf cost_of) {
  Choice best{.row = direct};
  for (const bool as_product : {false, true}) {
    if (as_product && !product) continue;
    for (int pairs = 1; pairs <= kMostToomCookPairs; ++pairs) {
      Choice choice{pairs, static_cast<int>(2 * pairs + 3 - kernel_width), as_product};
      if (choice.outputs < 2 || choice.outputs > kMostToomCookOutputs) continue;
      choice.row = cost_of(choice);
      if (choice.row.nanoseconds() < best.row.nanoseconds()) best = choice;
    }
  }
  return best;
}

// Overhead of a block in products, besides those of its terms.
constexpr double kBlockCost = 30;

Choice ChooseConvolution(const TileKernels& kernels, const UnitConvolution& c, int64_t input_columns, int64_t columns,
                         bool toom_cook) {
  const double outputs = static_cast<double>(c.outputs), inputs = static_cast<double>(c.inputs);
  const double terms = static_cast<double>(c.kernel_height) * inputs, width = static_cast<double>(c.kernel_width);
  const double each = kBlockCost / kernels.accumulators;
  // Every row reads all weights.
  const auto cost_of = [&](Loop loop, double instructions, double weights_of_channels) {
    const double weights = outputs * terms * weights_of_channels;
    return RowCost(loop, instructions)
        .Add(Loop::kTileSums, Moved(weights, weights * sizeof(float)))
        .Add(Loop::kTileBoundary, Moved(weights, weights * sizeof(float)), c.packings);
  };
  const Estimate direct =
      cost_of(Loop::kTileSums, static_cast<double>(columns) * outputs * (terms * width + each), width);
  // Otherwise the convolution would read rows that are never transformed.
  if (!toom_cook || c.top < 0 || c.top >= c.kernel_height) return {.row = direct};
  // Products have coefficients for all columns of y if the padding is smaller than the kernel.
  const int64_t first = c.left - (c.kernel_width - 1);
  const bool product = first <= 0 && c.left + input_columns >= columns;
  return Choose(c.kernel_width, product, direct, [&](const Choice& choice) {
    const int64_t tiles = TilesOf(choice.product ? input_columns : columns, choice.outputs);
    const double points = static_cast<double>(tiles * choice.points());
    const double instructions =
        choice.product ? points * (outputs * (terms + each + 2.5 + choice.pairs) + inputs * choice.pairs)
                       : points * (outputs * (terms + each + 1.5 + choice.pairs) + inputs * (1 + choice.pairs));
    return cost_of(Loop::kTileToomCook, instructions, choice.points());
  });
}

// Sums of a filter's gradient up to this size stay in the second-level cache from tile to tile.
constexpr double kCachedSumBytes = 256 << 10;

Choice ChooseFilterGrad(const UnitFilterGrad& g, int64_t rows, int64_t columns, int folded_lanes, bool toom_cook) {
  const double products = static_cast<double>(g.kernel_height * g.inputs * g.outputs);
  // Sums are folded, read and written once per tile.
  auto sums = [&](double number) {
    const double bytes = number * static_cast<double>(folded_lanes * sizeof(float));
    return number * (bytes > kCachedSumBytes ? 8 : 4) / static_cast<double>(rows);
  };
  const Estimate direct =
      RowCost(Loop::kTileFilters, products * static_cast<double>(columns * g.kernel_width) +
                                      sums(products * static_cast<double>(g.kernel_width * g.groups)));
  if (!toom_cook) return {.row = direct};
  return Choose(g.kernel_width, false, direct, [&](const Choice& choice) {
    const double points = static_cast<double>(TilesOf(columns, choice.outputs) * choice.points());
    const double instructions =
        points * (products + static_cast<double>(g.inputs) * (1 + choice.pairs) + static_cast<double>(g.outputs) * 3) +
        sums(products * static_cast<double>(choice.points() * g.groups));
    return RowCost(Loop::kTileFilters, instructions / ThisMachine().toom_cook_filter_share);
  });
}

constexpr int kMostToomCookPoints = 2 * kMostToomCookPairs + 2;

// The transform of a filter's row, by column of the filter and point; unused points are zero. The
// input's transform and the inverse are in the kernels.
using FilterMatrix = std::vector<std::array<double, kMostToomCookPoints>>;
FilterMatrix FilterTransform(const Choice& choice, int64_t width) {
  std::vector<double> points = {0};
  for (int i = 0; i < choice.pairs; ++i) {
    points.push_back(FilteringPoint(choice.pairs, i));
    points.push_back(-FilteringPoint(choice.pairs, i));
  }
  FilterMatrix transform(width);
  for (size_t j = 0; j < points.size(); ++j) {
    double distance = 1;
    for (double other : points) distance *= other == points[j] ? 1 : points[j] - other;
    for (int64_t l = 0; l < width; ++l) transform[l][j] = std::pow(points[j], static_cast<double>(l)) / distance;
  }
  transform[width - 1][points.size()] = 1;  // The point at infinity.
  return transform;
}

struct ToomCook {
  UnitConvolution c;
  Choice choice;
  FilterMatrix filter_transform;
  int64_t tiles;  // Tiles of a row.
  Blocks blocks;  // Blocks of outputs x tiles.
  TileValueId transformed, products;
  int64_t transformed_step, products_step;  // Distances between points, in floats.
  // Indexed by the slot of the first row that an output row reads, then by term: filter row, then
  // channel. The buffer of transformed rows has one slot for each row of the filter.
  std::vector<std::vector<int32_t>> offsets;
  int64_t weights;  // Offset in the prepared memory of the weights [group][point][row block][term][row of the block].

  int64_t terms() const { return c.kernel_height * c.inputs; }

  std::string layout() const {
    return absl::StrCat(absl::StrJoin({c.groups, c.inputs, c.outputs, c.kernel_height, c.kernel_width, c.start,
                                       c.group_step, c.output_step, c.input_step, c.row_step, c.column_step, weights},
                                      " "),
                        " pairs ", choice.pairs, choice.product ? " product: " : ": ", absl::StrJoin(blocks.rows, " "));
  }

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
          double sums[kMostToomCookPoints] = {};
          for (int64_t l = 0; l < c.kernel_width; ++l) {
            const double weight = w[(choice.product ? c.kernel_width - 1 - l : l) * c.column_step];
            for (int j = 0; j < kMostToomCookPoints; ++j) sums[j] += filter_transform[l][j] * weight;
          }
          float* at = to + (k * c.inputs + i) * rows + a;
          for (int j = 0; j < choice.points(); ++j) at[j * terms() * c.outputs] = static_cast<float>(sums[j]);
        }
      }
    }
  }

  // Evaluates a row of x at the points.
  void TransformRow(const TileRun& run, int64_t row) const {
    const TileValue& in = run.values[c.x];
    const int64_t channels = c.groups * c.inputs;
    const float* x = run.whole(c.x) + row * in.columns * run.lanes;
    float* v = run.whole(transformed) + row % c.kernel_height * channels * tiles * run.lanes;
    const int64_t x_step = in.rows * in.columns * run.lanes;
    if (choice.product) {
      GetToomCookKernels(run.lanes).evaluation[choice.pairs][choice.outputs]({.x = x,
                                                                              .x_step = x_step,
                                                                              .x_row = 0,
                                                                              .columns = in.columns,
                                                                              .channels = channels,
                                                                              .rows = 1,
                                                                              .v = v,
                                                                              .v_step = transformed_step});
    } else {
      GetToomCookKernels(run.lanes).input[choice.pairs]({.x = x,
                                                         .x_step = x_step,
                                                         .first = -c.left,
                                                         .columns = in.columns,
                                                         .step = choice.outputs,
                                                         .channels = channels,
                                                         .tiles = tiles,
                                                         .v = v,
                                                         .v_step = transformed_step});
    }
  }

  // Computes a row of a group's outputs from the sums at the points.
  void TransformBack(const TileRun& run, int64_t group, float* y, int64_t y_step) const {
    const float* bias = c.bias < 0 ? nullptr : static_cast<const float*>(run.operands[c.bias]) + group * c.outputs;
    const int64_t columns = run.values[c.y].columns;
    if (choice.product) {
      GetToomCookKernels(run.lanes).interpolation[choice.pairs][choice.outputs]({.products = run.whole(products),
                                                                                 .products_step = products_step,
                                                                                 .bias = bias,
                                                                                 .channels = c.outputs,
                                                                                 .tiles = tiles,
                                                                                 .first = c.left - (c.kernel_width - 1),
                                                                                 .columns = columns,
                                                                                 .y = y,
                                                                                 .y_step = y_step});
    } else {
      GetToomCookKernels(run.lanes).output[choice.pairs][choice.outputs]({.products = run.whole(products),
                                                                          .products_step = products_step,
                                                                          .bias = bias,
                                                                          .channels = c.outputs,
                                                                          .columns = columns,
                                                                          .y = y,
                                                                          .y_step = y_step});
    }
  }

  void Run(const TileRun& run) const {
    const TileKernels& kernels = run.kernels;
    const TileValue& in = run.values[c.x];
    const TileRun::Rows out = run.rows(c.y);
    WeightedSumArguments sums;
    sums.period = sums.terms = c.inputs;
    sums.bias = nullptr;
    sums.x_step = sums.y_step_b = run.lanes;
    sums.y_step_a = tiles * run.lanes;
    sums.products = choice.points();
    sums.x_product = transformed_step;
    sums.weight_product = terms() * c.outputs;
    sums.y_product = products_step;
    const float* transformed_rows = run.whole(transformed);
    float* at_points = run.whole(products);
    for (int64_t row = out.begin; row < out.end; ++row) {
      const int64_t top = row - c.top;
      const int64_t first = std::max<int64_t>(0, -top), end = std::min(c.kernel_height, in.rows - top);
      // Rows are processed in order, so only the last one is new.
      for (int64_t k = row == out.first ? first : std::max(first, c.kernel_height - 1); k < end; ++k)
        TransformRow(run, top + k);
      sums.repeats = std::max<int64_t>(end - first, 0);
      const std::vector<int32_t>& rows = offsets[(top + c.kernel_height) % c.kernel_height];
      sums.offsets = rows.data() + (sums.repeats == 0 ? 0 : first * c.inputs);
      for (int64_t group = 0; group < c.groups; ++group) {
        const float* panel = run.prepared + weights + group * choice.points() * terms() * c.outputs;
        const float* x = transformed_rows + group * c.inputs * tiles * run.lanes;
        float* y = at_points;
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
        TransformBack(run, group, out.at(group * c.outputs, row), out.channel_step);
      }
    }
  }
};

// Bytes of dy that are evaluated at the points at a time. They stay in the second-level cache until
// they are used, and are enough that sums are seldom read and written.
constexpr int64_t kEvaluatedBytes = 64 << 10;

struct ToomCookFilterGrad {
  UnitFilterGrad g;
  Choice choice;
  FilterMatrix filter_transform;
  int64_t tiles;     // Tiles of a row.
  int64_t channels;  // Channels of x.
  Blocks blocks;     // Blocks of outputs x terms.
  // x as [point][row][channel][tile], dy as [point][channel of a block][row][tile].
  TileValueId transformed, evaluated;
  int64_t rows_step;                         // Rows of dy that are evaluated at a time.
  int64_t transformed_step, evaluated_step;  // Distances between points, in floats.
  std::vector<int32_t>
      offsets;   // Indexed by term: filter row, then channel. Positions within one point of the transformed x.
  int64_t sums;  // Laid out as [group][point][output][term].
  bool by_rows;  // True if it runs by rows of dy, else by blocks of outputs.

  int64_t terms() const { return g.kernel_height * g.inputs; }

  // Transforms the rows of x that dy meets. Rows are processed in order, so rows of x that earlier
  // rows of dy met are there already.
  void TransformInput(const TileRun& run, const TileRun::Rows& dy) const {
    const TileValue& in = run.values[g.x];
    const int64_t row_size = channels * tiles * run.lanes;
    ToomCookInput input;
    input.x_step = in.rows * in.columns * run.lanes;
    input.first = -g.left;
    input.columns = in.columns;
    input.step = choice.outputs;
    input.channels = channels;
    input.tiles = tiles;
    input.v_step = transformed_step;
    const int64_t overlap = g.kernel_height - 1;
    float* v = run.whole(transformed);
    const float* x = run.whole(g.x);
    for (int64_t row = dy.begin == dy.first ? dy.begin : dy.begin + overlap; row < dy.end + overlap; ++row) {
      input.v = v + row * row_size;
      const int64_t source = row - g.top;
      if (source >= 0 && source < in.rows) {
        input.x = x + source * in.columns * run.lanes;
        GetToomCookKernels(run.lanes).input[choice.pairs](input);
      } else {
        for (int j = 0; j < choice.points(); ++j) std::fill_n(input.v + j * transformed_step, row_size, 0.0f);
      }
    }
  }

  void Run(const TileRun& run) const {
    const TileKernels& kernels = run.kernels;
    const TileRun::Rows dy = by_rows ? run.rows(g.dy) : run.all_rows(g.dy);
    if (by_rows) TransformInput(run, dy);
    ToomCookEvaluation evaluation;
    evaluation.x_step = dy.channel_step;
    evaluation.x_row = dy.row_step;
    evaluation.columns = run.values[g.dy].columns;
    evaluation.v = run.whole(evaluated);
    evaluation.v_step = evaluated_step;
    CorrelationArguments products;
    products.dy_row = tiles * run.lanes;
    products.x_row = channels * tiles * run.lanes;
    products.x_step = run.lanes;
    products.columns = tiles;
    products.sum_step_a = terms() * kernels.folded_lanes;
    const float* x = run.whole(transformed);
    int64_t share = -1;
    for (int64_t group = 0; group < g.groups; ++group) {
      int64_t output = 0;
      for (int a : blocks.rows) {
        const bool is_wanted = ++share >= (by_rows ? 0 : run.unit) && (by_rows || share < run.end_unit);
        for (int64_t row = dy.begin; row < dy.end && is_wanted; row += rows_step) {
          evaluation.x = dy.at(group * g.outputs + output, row);
          evaluation.channels = a;
          evaluation.rows = products.rows = std::min(rows_step, dy.end - row);
          GetToomCookKernels(run.lanes).evaluation[choice.pairs][choice.outputs](evaluation);
          products.dy_step_a = products.rows * products.dy_row;
          for (int j = 0; j < choice.points(); ++j) {
            products.dy = evaluation.v + j * evaluated_step;
            products.x = x + j * transformed_step + row * products.x_row + group * g.inputs * tiles * run.lanes;
            products.offsets = offsets.data();
            products.sums =
                run.folded_sums + sums + ((group * choice.points() + j) * g.outputs + output) * products.sum_step_a;
            for (int b : blocks.columns) {
              kernels.correlation[a][b](products);
              products.offsets += b;
              products.sums += b * kernels.folded_lanes;
            }
          }
        }
        output += a;
      }
    }
  }

  // Computes the filter's gradient from the sums at the points.
  void TransformSums(const float* at_points, float* filter) const {
    const int64_t step = g.outputs * terms();  // Between points.
    for (int64_t group = 0; group < g.groups; ++group, at_points += choice.points() * step) {
      for (int64_t o = 0; o < g.outputs; ++o) {
        for (int64_t i = 0; i < g.inputs; ++i) {
          for (int64_t k = 0; k < g.kernel_height; ++k) {
            const float* from = at_points + o * terms() + k * g.inputs + i;
            for (int64_t l = 0; l < g.kernel_width; ++l) {
              double sum = 0;
              for (int j = 0; j < choice.points(); ++j) sum += filter_transform[l][j] * from[j * step];
              *filter++ = static_cast<float>(sum);
            }
          }
        }
      }
    }
  }
};

}  // namespace

UnitConvolution UnitConvolutionOf(const ConvGeometry& g) {
  return {.groups = g.groups,
          .inputs = g.group_channels(),
          .outputs = g.group_outputs(),
          .kernel_height = g.kernel_height,
          .kernel_width = g.kernel_width,
          .top = g.top,
          .left = g.left,
          .start = 0,
          .group_step = g.group_outputs() * g.taps(),
          .output_step = g.taps(),
          .input_step = g.kernel_height * g.kernel_width,
          .row_step = g.kernel_width,
          .column_step = 1};
}

UnitConvolution UnitInputGradOf(const ConvGeometry& g) {
  const int64_t area = g.kernel_height * g.kernel_width;
  return {.groups = g.groups,
          .inputs = g.group_outputs(),
          .outputs = g.group_channels(),
          .kernel_height = g.kernel_height,
          .kernel_width = g.kernel_width,
          .top = g.kernel_height - 1 - g.top,
          .left = g.kernel_width - 1 - g.left,
          .start = area - 1,
          .group_step = g.group_outputs() * g.taps(),
          .output_step = area,
          .input_step = g.taps(),
          .row_step = -g.kernel_width,
          .column_step = -1};
}

UnitFilterGrad UnitFilterGradOf(const ConvGeometry& g) {
  return {.groups = g.groups,
          .inputs = g.group_channels(),
          .outputs = g.group_outputs(),
          .kernel_height = g.kernel_height,
          .kernel_width = g.kernel_width,
          .top = g.top,
          .left = g.left};
}

Estimate RowEstimate(const TileKernels& kernels, const UnitConvolution& convolution, int64_t input_columns,
                     int64_t columns, bool toom_cook) {
  return ChooseConvolution(kernels, convolution, input_columns, columns, toom_cook).row;
}

Estimate RowEstimate(const TileKernels& kernels, const UnitFilterGrad& gradient, int64_t rows, int64_t columns,
                     bool toom_cook) {
  return ChooseFilterGrad(gradient, rows, columns, kernels.folded_lanes, toom_cook).row;
}

bool LowerToomCook(TileBuilder& builder, NodeId node, const UnitConvolution& convolution) {
  const TileValue y = builder.value(convolution.y);
  const int64_t input_columns = builder.value(convolution.x).columns;
  const Choice choice =
      ChooseConvolution(builder.kernels(), convolution, input_columns, y.columns, builder.toom_cook());
  if (choice.pairs == 0) return false;
  const int lanes = builder.lanes();
  ToomCook t{.c = convolution, .choice = choice};
  t.filter_transform = FilterTransform(choice, convolution.kernel_width);
  t.tiles = TilesOf(choice.product ? input_columns : y.columns, choice.outputs);
  t.blocks = ChooseBlocks(builder.kernels(), convolution.outputs, t.tiles,
                          [&](int a, int b) { return builder.kernels().weighted_sum[a][b] != nullptr; });
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
      convolution.weights, convolution.groups * static_cast<int64_t>(shared->blocks.rows.size()), shared->layout(),
      [shared](int64_t task, const void* const* operands, float* prepared) { shared->Pack(task, operands, prepared); });
  builder.Add({.name = shared->choice.product ? "Toom-Cook product" : "Toom-Cook",
               .node = node,
               .reads = {convolution.x},
               .writes = {convolution.y, shared->transformed, shared->products},
               .by_rows = {convolution.y},
               .scratch = {shared->transformed, shared->products},
               .run = [shared](const TileRun& run) { shared->Run(run); }});
  return true;
}

bool LowerToomCookFilterGrad(TileBuilder& builder, NodeId node, const UnitFilterGrad& gradient) {
  const TileValue dy = builder.value(gradient.dy);
  const int lanes = builder.lanes();
  const Choice choice =
      ChooseFilterGrad(gradient, dy.rows, dy.columns, builder.kernels().folded_lanes, builder.toom_cook());
  if (choice.pairs == 0) return false;
  ToomCookFilterGrad t{.g = gradient, .choice = choice};
  t.filter_transform = FilterTransform(choice, gradient.kernel_width);
  t.tiles = TilesOf(dy.columns, choice.outputs);
  t.channels = gradient.groups * gradient.inputs;
  t.blocks = ChooseBlocks(builder.kernels(), gradient.outputs, t.terms(),
                          [&](int a, int b) { return builder.kernels().correlation[a][b] != nullptr; });
  const int64_t x_rows = dy.rows + gradient.kernel_height - 1;
  t.transformed = builder.NewValue(choice.points(), x_rows * t.channels, t.tiles);
  t.transformed_step = x_rows * t.channels * t.tiles * lanes;
  const int64_t most = *std::max_element(t.blocks.rows.begin(), t.blocks.rows.end());
  const int64_t row_bytes = choice.points() * most * t.tiles * lanes * static_cast<int64_t>(sizeof(float));
  t.rows_step = std::clamp<int64_t>(kEvaluatedBytes / row_bytes, 1, dy.rows);
  t.evaluated = builder.NewValue(choice.points(), most * t.rows_step, t.tiles);
  t.evaluated_step = most * t.rows_step * t.tiles * lanes;
  for (int64_t k = 0; k < gradient.kernel_height; ++k) {
    for (int64_t i = 0; i < gradient.inputs; ++i)
      t.offsets.push_back(static_cast<int32_t>((k * t.channels + i) * t.tiles * lanes));
  }
  const int64_t elements = gradient.groups * choice.points() * gradient.outputs * t.terms();
  // Process rows in pieces only if the sums, which every piece reads and writes, stay in the
  // first-level cache.
  t.by_rows = elements * builder.kernels().folded_lanes * static_cast<int64_t>(sizeof(float)) <= kFirstLevelSumBytes;
  const auto shared = std::make_shared<ToomCookFilterGrad>(std::move(t));
  shared->sums = builder.AddFoldedSums(
      {node, 0}, elements, [shared](const float* sums, float* result) { shared->TransformSums(sums, result); });
  TileInstruction instruction{.name = "Toom-Cook correlate",
                              .node = node,
                              .reads = {gradient.x, gradient.dy},
                              .writes = {shared->transformed, shared->evaluated},
                              .shares = gradient.groups * static_cast<int64_t>(shared->blocks.rows.size()),
                              .scratch = {shared->evaluated},
                              .folds = true,
                              .summed = {gradient.dy, gradient.x},
                              .run = [shared](const TileRun& run) { shared->Run(run); }};
  if (shared->by_rows) {
    instruction.by_rows = {gradient.dy};
  } else {
    instruction.begin = [shared](const TileRun& run) { shared->TransformInput(run, run.all_rows(shared->g.dy)); };
  }
  builder.Add(std::move(instruction));
  return true;
}

}  // namespace gradweave
