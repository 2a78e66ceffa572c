// Functions that compose ops, beside the numbers that other systems give
// (tests/ops/make_function_reference.py). Each is a row of an op that it uses.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/ops/activations.h"
#include "gradweave/ops/conv_nd.h"
#include "gradweave/ops/determinant.h"
#include "gradweave/ops/image.h"
#include "gradweave/ops/index_functions.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/padding.h"
#include "gradweave/ops/pool_nd.h"
#include "gradweave/ops/resize.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/spectral.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

using Values = std::vector<Value>;

const Array& Stored(const std::string& name) {
  static const auto* const results = new std::map<std::string, Array>{
#include "tests/ops/function_reference.inc"
  };
  const auto found = results->find(name);
  GW_CHECK(found != results->end());
  return found->second;
}

// The operands of make_function_reference.py.
OperandCase Waves(std::vector<int64_t> sizes, double phase = 1, double scale = 2) {
  OperandCase operand{std::move(sizes)};
  int64_t count = 1;
  for (int64_t size : operand.sizes) count *= size;
  for (int64_t i = 0; i < count; ++i)
    operand.values.push_back(static_cast<float>(scale * std::sin(phase + 1.7 * static_cast<double>(i))));
  return operand;
}

// The sizes of the operands that may be symbols.
enum class Symbols { kNone, kBatch, kAll };

struct Row {
  const char* op;
  std::string name;  // The name of the stored result and of the row. More results are "name_suffix".
  std::vector<OperandCase> operands;
  std::function<Values(const Values&)> build;
  Symbols symbols = Symbols::kNone;
  std::vector<std::string> suffixes = {""};
  int derivatives = 2;
};

void Add(OpCases& all, const Row& row) {
  std::vector<Array> results;
  for (const std::string& suffix : row.suffixes) results.push_back(Stored(row.name + suffix));
  OpCase added = {row.op, row.name, row.operands, row.build};
  added.reference = [results](const std::vector<Array>&) { return results; };
  added.derivatives = row.derivatives;
  added.symbolic = row.symbols != Symbols::kNone;
  added.symbolic_batch = row.symbols == Symbols::kBatch;
  added.float32_tolerance = 1e-4;
  all.cases.push_back(std::move(added));
}

// A function of the operands with one result.
template <typename Build>
std::function<Values(const Values&)> One(Build build) {
  return [build](const Values& x) { return Values{build(x)}; };
}

const OperandCase kImage = Waves({2, 1, 3, 4}), kLine = Waves({1, 7});

void AddResizes(OpCases& all) {
  auto resize = [&](const char* name, const OperandCase& x, ResizeOptions options, int derivatives = 2) {
    for (size_t i = x.sizes.size() - std::max(options.scales.size(), options.sizes.size()); i < x.sizes.size(); ++i)
      options.axes.push_back(static_cast<int64_t>(i));
    const Symbols symbols = x.sizes[0] > 1 ? Symbols::kBatch : Symbols::kNone;
    Add(all, {"Gather",
              std::string("resize_") + name,
              {x},
              One([options](const Values& v) { return Resize(v[0], options); }),
              symbols,
              {""},
              derivatives});
  };
  using Coordinates = ResizeCoordinates;
  constexpr ResizeMethod kCubic = ResizeMethod::kCubic, kNearest = ResizeMethod::kNearest;
  resize("linear", kImage, {.scales = {2, 1.5}});
  resize("align_corners", kImage, {.sizes = {5, 2}, .coordinates = Coordinates::kAlignCorners});
  resize("asymmetric", kLine, {.scales = {0.6f}, .coordinates = Coordinates::kAsymmetric});
  resize("pytorch_half_pixel", kImage, {.sizes = {1, 3}, .coordinates = Coordinates::kPytorchHalfPixel});
  resize("symmetric", kLine, {.scales = {0.6f}, .coordinates = Coordinates::kHalfPixelSymmetric});
  resize("cubic", kImage, {.sizes = {5, 6}, .method = kCubic});
  resize("cubic_down", kLine, {.scales = {0.8f}, .method = kCubic, .cubic_coefficient = -0.5});
  resize("cubic_exclude", kLine, {.scales = {1.5}, .method = kCubic, .exclude_outside = true});
  resize("cubic_align_corners", kImage, {.sizes = {5, 6}, .method = kCubic, .coordinates = Coordinates::kAlignCorners});
  resize("linear_antialias", Waves({1, 1, 7, 6}), {.sizes = {3, 4}, .exclude_outside = true, .antialias = true});
  resize("cubic_antialias", kLine, {.scales = {0.4f}, .method = kCubic, .exclude_outside = true, .antialias = true});
  const std::pair<const char*, ResizeNearest> nearest[] = {{"round_prefer_floor", ResizeNearest::kRoundPreferFloor},
                                                           {"round_prefer_ceil", ResizeNearest::kRoundPreferCeil},
                                                           {"floor", ResizeNearest::kFloor},
                                                           {"ceil", ResizeNearest::kCeil}};
  for (const auto& [name, which] : nearest) {
    resize(("nearest_" + std::string(name)).c_str(), kLine,
           {.sizes = {14}, .method = kNearest, .coordinates = Coordinates::kAlignCorners, .nearest = which});
    resize(("nearest_half_" + std::string(name)).c_str(), kLine, {.sizes = {4}, .method = kNearest, .nearest = which});
  }
  resize("crop", kImage,
         {.sizes = {3, 4},
          .coordinates = Coordinates::kTfCropAndResize,
          .region_start = {0.1, -0.2},
          .region_end = {0.9, 1.3},
          .extrapolation = 10});
}

void AddGrids(OpCases& all) {
  const OperandCase grid = Waves({2, 2, 3, 2}, 3, 1.4);
  auto sample = [&](const char* mode, const char* padding, bool corners, GridMode by, GridPadding outside) {
    Add(all, {"Gather",
              absl::StrCat("grid_", mode, "_", padding, "_", corners ? 1 : 0),
              {kImage, grid},
              One([=](const Values& x) {
                return GridSample(x[0], x[1], {by, outside, corners});
              }),
              Symbols::kBatch});
    // These numbers were computed with float32.
    if (by == GridMode::kCubic && outside != GridPadding::kZeros) all.cases.back().float64_tolerance = 1e-6;
  };
  sample("linear", "zeros", false, GridMode::kLinear, GridPadding::kZeros);
  sample("linear", "border", true, GridMode::kLinear, GridPadding::kBorder);
  sample("linear", "reflection", false, GridMode::kLinear, GridPadding::kReflection);
  sample("linear", "reflection", true, GridMode::kLinear, GridPadding::kReflection);
  sample("cubic", "zeros", false, GridMode::kCubic, GridPadding::kZeros);
  sample("cubic", "border", false, GridMode::kCubic, GridPadding::kBorder);
  sample("cubic", "reflection", true, GridMode::kCubic, GridPadding::kReflection);
  sample("nearest", "zeros", false, GridMode::kNearest, GridPadding::kZeros);
  sample("nearest", "border", false, GridMode::kNearest, GridPadding::kBorder);
  sample("nearest", "reflection", true, GridMode::kNearest, GridPadding::kReflection);
  Add(all, {"Gather",
            "grid_volume",
            {Waves({2, 1, 2, 3, 2}), Waves({2, 2, 1, 2, 3}, 3, 1.4)},
            One([](const Values& x) { return GridSample(x[0], x[1]); }),
            Symbols::kBatch});
}

void AddImages(OpCases& all) {
  for (const auto& [name, mode] :
       {std::pair("pad_reflect", BorderMode::kReflect), std::pair("pad_edge", BorderMode::kEdge),
        std::pair("pad_wrap", BorderMode::kWrap)}) {
    Add(all, {"Gather",
              name,
              {Waves({2, 3})},
              One([mode = mode](const Values& x) {
                return PadBorder(x[0], {.low = {1, 2}, .high = {0, 5}, .mode = mode});
              }),
              Symbols::kAll});
  }
  Add(all, {"Gather",
            "pad_crop",
            {Waves({5})},
            One([](const Values& x) { return PadBorder(x[0], {.low = {2}, .high = {-2}}); }),
            Symbols::kAll});
  const OperandCase blocks = Waves({1, 8, 1, 2});
  Add(all, {"Transpose", "depth_to_space", {blocks}, One([](const Values& x) { return DepthToSpace(x[0], 2); })});
  Add(all, {"Transpose", "pixel_shuffle", {blocks}, One([](const Values& x) {
              return DepthToSpace(x[0], 2, BlockOrder::kColumnRowDepth);
            })});
  Add(all, {"Transpose", "space_to_depth", {Waves({1, 1, 4, 6})}, One([](const Values& x) {
              return SpaceToDepth(x[0], 2);
            })});
  Add(all, {"Pad", "col2im", {Waves({1, 8, 6})}, One([](const Values& x) {
              return Col2Im(x[0], {5, 7}, {2, 2},
                            {.stride = {2, 3}, .dilation = {2, 1}, .padding_low = {1, 0}, .padding_high = {1, 0}});
            })});
}

void AddConvolutions(OpCases& all) {
  const OperandCase x1 = Waves({2, 4, 9}), w1 = Waves({6, 2, 3}, 2), x3 = Waves({3, 4, 3, 3, 3});
  auto conv = [&](const char* name, std::vector<OperandCase> operands, const ConvNDOptions& options) {
    Add(all, {"Conv2D", name, std::move(operands), One([options](const Values& x) {
                return x.size() == 2 ? ConvND(x[0], x[1], options) : ConvND(x[0], x[1], x[2], options);
              }),
              Symbols::kBatch});
  };
  conv("conv1", {x1, w1}, {.stride = {2}, .dilation = {2}, .padding_low = {1}, .padding_high = {2}, .groups = 2});
  conv("conv1_same_upper", {x1, w1}, {.stride = {3}, .auto_padding = AutoPadding::kSameUpper, .groups = 2});
  conv("conv1_same_lower", {x1, Waves({1, 4, 4}, 2)}, {.auto_padding = AutoPadding::kSameLower});
  conv("conv3", {x3, Waves({2, 2, 2, 2, 2}, 2), Waves({2}, 5)},
       {.stride = {1, 2, 1}, .dilation = {2, 1, 1}, .padding_low = {1, 0, 1}, .padding_high = {0, 1, 0}, .groups = 2});
  conv("conv3_stride", {x3, Waves({2, 4, 3, 1, 2}, 2)},
       {.stride = {2, 1, 1}, .padding_low = {1, 0, 1}, .padding_high = {1, 0, 1}});
  OperandCase first_rows = w1;
  first_rows.sizes = {4, 2, 3};
  first_rows.values.resize(24);
  auto transpose = [&](const char* name, std::vector<OperandCase> operands, const ConvTransposeNDOptions& options,
                       Symbols symbols) {
    Add(all, {"Conv2DInputGrad", name, std::move(operands), One([options](const Values& x) {
                return x.size() == 2 ? ConvTransposeND(x[0], x[1], options)
                                     : ConvTransposeND(x[0], x[1], x[2], options);
              }),
              symbols});
  };
  transpose(
      "conv_transpose1", {Waves({2, 4, 3}), first_rows, Waves({4}, 5)},
      {.stride = {3}, .dilation = {2}, .padding_low = {1}, .padding_high = {1}, .output_padding = {2}, .groups = 2},
      Symbols::kBatch);
  transpose("conv_transpose3", {Waves({3, 4, 2, 2, 1}), Waves({4, 1, 2, 2, 2}, 2)},
            {.stride = {2, 1, 2},
             .dilation = {2, 1, 1},
             .padding_low = {1, 0, 0},
             .padding_high = {1, 0, 0},
             .output_padding = {1, 0, 1},
             .groups = 2},
            Symbols::kBatch);
  transpose("conv_transpose_same", {Waves({1, 1, 3, 3}), Waves({1, 2, 3, 3}, 2)},
            {.stride = {2, 2}, .auto_padding = AutoPadding::kSameUpper}, Symbols::kNone);
}

void AddPools(OpCases& all) {
  const OperandCase x1 = Waves({2, 2, 9}), x2 = Waves({1, 2, 5, 6}), x3 = Waves({1, 2, 4, 3, 5});
  auto max = [&](const char* name, const OperandCase& x, const PoolNDOptions& options, Symbols symbols) {
    Add(all, {"MaxPool2D",
              name,
              {x},
              [options](const Values& v) {
                const MaxPoolResult result = MaxPoolND(v[0], options);
                return Values{result.values, result.indices};
              },
              symbols,
              {"", "_indices"}});
  };
  max("max_pool1", x1,
      {.window = {3}, .stride = {2}, .dilation = {2}, .padding_low = {1}, .padding_high = {1}, .ceil_mode = true},
      Symbols::kBatch);
  max("max_pool2", x2,
      {.window = {2, 3}, .stride = {2, 2}, .padding_low = {1, 1}, .padding_high = {1, 1}, .ceil_mode = true},
      Symbols::kNone);
  max("max_pool3", x3,
      {.window = {2, 2, 3},
       .stride = {2, 1, 2},
       .dilation = {1, 2, 1},
       .padding_low = {1, 0, 1},
       .padding_high = {1, 0, 1}},
      Symbols::kNone);
  Add(all, {"MaxPool2D",
            "max_pool2_columns",
            {x2},
            One([](const Values& x) {
              return MaxPoolND(x[0], {.window = {2, 2}, .column_major = true}).indices;
            }),
            Symbols::kAll,
            {""},
            0});
  for (bool count : {false, true}) {
    auto average = [&](int axes, const OperandCase& x, PoolNDOptions options, Symbols symbols) {
      options.count_padding = count;
      Add(all, {"AvgPool2D",
                absl::StrCat("avg_pool", axes, "_", count ? 1 : 0),
                {x},
                One([options](const Values& v) { return AvgPoolND(v[0], options); }),
                symbols});
    };
    average(1, x1, {.window = {3}, .stride = {2}, .padding_low = {1}, .padding_high = {1}, .ceil_mode = true},
            Symbols::kBatch);
    average(2, x2,
            {.window = {3, 3}, .stride = {2, 2}, .padding_low = {1, 1}, .padding_high = {1, 1}, .ceil_mode = true},
            Symbols::kNone);
    average(3, x3, {.window = {2, 2, 2}, .stride = {2, 1, 2}, .padding_low = {1, 1, 1}, .padding_high = {1, 1, 1}},
            Symbols::kAll);
  }
  OperandCase first_channel = Waves({2, 2, 9});
  Add(all, {"AvgPool2D",
            "avg_pool_dilated",
            {first_channel},
            One([](const Values& x) {
              const Value pooled = AvgPoolND(x[0], {.window = {2}, .stride = {2}, .dilation = {3}});
              return SliceAxis(pooled, 1, 0, 1);
            }),
            Symbols::kBatch});
  Add(all, {"AvgPool2D",
            "lp_pool2",
            {x2},
            One([](const Values& x) {
              return LpPoolND(x[0], 2, {.window = {2, 3}, .stride = {2, 1}});
            }),
            Symbols::kAll});
  Add(all, {"AvgPool2D",
            "lp_pool3",
            {x2},
            One([](const Values& x) {
              return LpPoolND(x[0], 3, {.window = {2, 2}});
            }),
            Symbols::kAll});
  Add(all, {"Scatter",
            "max_unpool2",
            {x2},
            One([](const Values& x) {
              const MaxPoolResult pooled = MaxPoolND(x[0], {.window = {2, 2}});
              return MaxUnpoolND(pooled.values, pooled.indices, x[0].shape());
            }),
            Symbols::kAll});
}

void AddNorms(OpCases& all) {
  const OperandCase x = Waves({2, 4, 3});
  const LocalResponseOptions odd = {.size = 3, .alpha = 0.5, .beta = 0.7, .bias = 1.5};
  Add(all, {"AvgPool2D",
            "lrn_odd",
            {x},
            One([odd](const Values& v) { return LocalResponseNorm(v[0], odd); }),
            Symbols::kAll});
  Add(all, {"AvgPool2D",
            "lrn_even",
            {x},
            One([](const Values& v) {
              return LocalResponseNorm(v[0], {.size = 2, .alpha = 0.5, .beta = 0.7, .bias = 1.5});
            }),
            Symbols::kAll});
  Add(all, {"Rsqrt",
            "group_norm",
            {x, Waves({4}, 5), Waves({4}, 6)},
            One([](const Values& v) { return GroupNorm(v[0], 2, v[1], v[2], 1e-3); }),
            Symbols::kBatch});
  Add(all, {"Sqrt",
            "mean_variance",
            {x},
            One([](const Values& v) {
              return MeanVarianceNorm(v[0], {0, 2});
            }),
            Symbols::kAll});
  for (int64_t p : {1, 2}) {
    Add(all, {"Div",
              "lp_normalize_" + std::to_string(p),
              {x},
              One([p](const Values& v) { return LpNormalize(v[0], p, p); }),
              Symbols::kAll});
  }
}

void AddTransforms(OpCases& all) {
  const OperandCase x = Waves({2, 5, 2}), real = Waves({2, 6, 1});
  auto dft = [&](const char* name, const OperandCase& operand, const DftOptions& options, Symbols symbols) {
    Add(all, {"MatMul", name, {operand}, One([options](const Values& v) { return Dft(v[0], options); }), symbols});
  };
  dft("dft", x, {.axis = 1}, Symbols::kBatch);
  dft("dft_inverse", x, {.axis = -2, .inverse = true}, Symbols::kBatch);
  dft("dft_onesided", real, {.axis = 1, .onesided = true}, Symbols::kBatch);
  dft("dft_longer", x, {.axis = 0, .length = 7}, Symbols::kNone);
  dft("dft_shorter", x, {.axis = 1, .length = 3}, Symbols::kBatch);
  Add(all, {"MatMul",
            "stft",
            {Waves({2, 10, 1}), Waves({4}, 2)},
            One([](const Values& v) { return Stft(v[0], v[1], {.frame_length = 4, .frame_step = 2}); }),
            Symbols::kBatch});
  for (int64_t n : {1, 2, 3, 5}) {
    Add(all, {"Mul",
              "determinant_" + std::to_string(n),
              {Waves({2, n, n})},
              One([](const Values& v) { return Determinant(v[0]); }),
              Symbols::kBatch});
  }
}

void AddIndices(OpCases& all) {
  const OperandCase x = Waves({3, 4}, 2), index = {{2, 3}, kInt64, 0, 0, {0, -1, 2, 1, 1, -4}},
                    updates = Waves({2, 3}, 4), v = Waves({2, 3, 2});
  Add(all, {"Gather",
            "gather_elements",
            {x, index},
            One([](const Values& o) { return GatherElements(o[0], o[1], 1); }),
            Symbols::kAll});
  const std::pair<const char*, ScatterReduction> reductions[] = {{"set", ScatterReduction::kSet},
                                                                 {"add", ScatterReduction::kAdd},
                                                                 {"mul", ScatterReduction::kMul},
                                                                 {"max", ScatterReduction::kMax},
                                                                 {"min", ScatterReduction::kMin}};
  const OperandCase places = {{3, 2}, kInt32, 0, 0, {1, 2, 0, 0, -1, -1}};
  for (const auto& [name, reduction] : reductions) {
    Add(all, {"Scatter",
              std::string("scatter_elements_") + name,
              {x, index, updates},
              One([reduction = reduction](const Values& o) {
                return ScatterElements(o[0], o[1], o[2], {.axis = -1, .reduction = reduction});
              }),
              Symbols::kAll});
    Add(all, {"Scatter",
              std::string("scatter_nd_") + name,
              {v, places, Waves({3, 2}, 4)},
              One([reduction = reduction](const Values& o) { return ScatterND(o[0], o[1], o[2], reduction); })});
  }
  Add(all, {"Gather", "gather_nd", {v, {{3, 2}, kInt64, 0, 0, {1, 2, 0, -3, -1, 0}}}, One([](const Values& o) {
              return GatherND(o[0], o[1]);
            })});
  Add(all, {"Gather",
            "gather_nd_batch",
            {v, {{2, 2, 1}, kInt32, 0, 0, {2, -1, 0, 1}}},
            One([](const Values& o) { return GatherND(o[0], o[1], 1); }),
            Symbols::kBatch});
}

void AddActivations(OpCases& all) {
  const std::pair<const char*, Value (*)(const Value&)> rows[] = {
      {"celu", [](const Value& x) { return Celu(x, 1.7); }},
      {"selu_scaled", [](const Value& x) { return Selu(x, 1.5, 0.75); }},
      {"thresholded_relu", [](const Value& x) { return ThresholdedRelu(x, 0.8); }},
      {"hard_shrink", [](const Value& x) { return Shrink(x, 0.7); }},
      {"soft_shrink", [](const Value& x) { return Shrink(x, 0.7, 0.7); }},
      {"hard_sigmoid", [](const Value& x) { return HardSigmoid(x, 0.3, 0.6); }},
      {"softsign", [](const Value& x) { return Softsign(x); }},
      {"log_sigmoid", [](const Value& x) { return LogSigmoid(x); }},
      {"tanh_gelu", [](const Value& x) { return TanhGelu(x); }},
  };
  for (const auto& [name, function] : rows)
    Add(all, {"Where",
              name,
              {Waves({12}, 1, 3)},
              One([function = function](const Values& x) { return function(x[0]); }),
              Symbols::kAll});
}

}  // namespace

OpCases StoredCases() {
  OpCases all;
  AddResizes(all);
  AddGrids(all);
  AddImages(all);
  AddConvolutions(all);
  AddPools(all);
  AddNorms(all);
  AddTransforms(all);
  AddIndices(all);
  AddActivations(all);
  return all;
}

}  // namespace gradweave
