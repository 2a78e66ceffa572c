// Row regions over values with channels: the nodes that the finder takes together, and results that
// are the same as those of the nodes one by one.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gtest/gtest.h"
#include "tests/cpu/measured_vectors.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

RowPartition FindAll(Graph& graph, const std::vector<Value>& outputs, RowSplit split = RowSplit::kAnyAxis) {
  graph.SetOutput("y", outputs);
  const BatchPartition one_by_one = {.order = NodeOrder(graph)};
  return FindRowRegions(
      graph, one_by_one, [](const Graph&, const Node&) { return true; },
      [](const Node& producer, const RowRegion&) { return producer.op->name == "Conv2D"; },
      [](const RowRegion&) { return true; }, split);
}

std::vector<std::string> Ops(const Graph& graph, const RowRegion& region) {
  std::vector<std::string> ops;
  for (const RowRegion::Member& member : region.nodes) ops.push_back(graph.node(member.node).op->name);
  return ops;
}

struct Images {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {4, 6, 8, 10});

  Value Input(const char* name, Shape shape) { return scope.Input(name, kFloat32, std::move(shape)); }
};

TEST(RowChannels, OperandsThatBroadcastDetermineTheColumns) {
  Images f;
  const Value channel = f.Input("channel", {6, 1, 1}), both = f.Input("both", {4, 6, 1, 1}),
              sample = f.Input("sample", {4, 1, 1, 1}), pixel = f.Input("pixel", {8, 10}),
              same = f.Input("same", {6, 8, 10});
  const Value y = (Exp(f.x) * channel + both - sample) * pixel + same;
  const RowPartition partition = FindAll(f.graph, {y});
  ASSERT_THAT(partition.regions, SizeIs(1));
  const RowRegion& region = partition.regions[0];
  EXPECT_EQ(region.rows, 24);
  EXPECT_EQ(region.columns, 80);
  EXPECT_THAT(region.operands, ElementsAre(RowRegion::Operand{f.x.port(), RowExtent::kFull},
                                           RowRegion::Operand{channel.port(), RowExtent::kPerRowPeriodic, 1, 6},
                                           RowRegion::Operand{both.port(), RowExtent::kPerRow},
                                           RowRegion::Operand{sample.port(), RowExtent::kPerRowPeriodic, 6, 4},
                                           RowRegion::Operand{pixel.port(), RowExtent::kPerColumn},
                                           RowRegion::Operand{same.port(), RowExtent::kFullPeriodic, 1, 6}));
}

TEST(RowChannels, WithTheLastAxisAsColumnsPeriodicOperandsStayOutside) {
  Images f;
  const Value y = Tanh(Exp(f.x) * f.Input("channel", {6, 1, 1}));
  EXPECT_THAT(FindAll(f.graph, {y}, RowSplit::kLastAxis).regions, SizeIs(0));
  EXPECT_THAT(FindAll(f.graph, {y}).regions, SizeIs(1));
}

// The softmax of attention scores [batch, heads, tokens, tokens] with masks of tokens and of
// samples.
TEST(RowChannels, SoftmaxDeterminesTheColumnsOfAMask) {
  Graph graph;
  Scope scope(graph);
  const Value scores = scope.Input("scores", kFloat32, {2, 3, 5, 5}), mask = scope.Input("mask", kFloat32, {5, 5}),
              padding = scope.Input("padding", kFloat32, {2, 1, 1, 5});
  const RowPartition partition = FindAll(graph, {Softmax(Neg(scores) + mask + padding)});
  ASSERT_THAT(partition.regions, SizeIs(1));
  EXPECT_EQ(partition.regions[0].columns, 5);
  EXPECT_THAT(partition.regions[0].operands,
              ElementsAre(RowRegion::Operand{scores.port(), RowExtent::kFull},
                          RowRegion::Operand{mask.port(), RowExtent::kFullPeriodic, 1, 5},
                          RowRegion::Operand{padding.port(), RowExtent::kFullPeriodic, 15, 2}));
}

TEST(RowChannels, PoolsFeedTheirRegionAndSumsOfChannelsEndIt) {
  Images f;
  const Value a = Exp(f.x), pooled = Mean(a, {.axes = {2, 3}, .keep_dims = true}), scaled = a * Sigmoid(pooled);
  const Value sums = Sum(scaled, {.axes = {0, 2, 3}});
  const Value after = scaled * Reshape(sums, {6, 1, 1});
  const RowPartition partition = FindAll(f.graph, {after});
  ASSERT_THAT(partition.regions, SizeIs(1));
  const RowRegion& region = partition.regions[0];
  EXPECT_THAT(Ops(f.graph, region), ElementsAre("Exp", "Sum", "Div", "Sigmoid", "Mul", "Sum"));
  EXPECT_THAT(region.outputs, ElementsAre(RowRegion::Operand{scaled.port(), RowExtent::kFull},
                                          RowRegion::Operand{sums.port(), RowExtent::kPerRowPeriodic}));
}

TEST(RowChannels, TruthValuesBelongToTheFloatsThatTheyComeFrom) {
  Images f;
  const Value inside = LogicalAnd(Greater(f.x, 0), LogicalNot(Greater(f.x, 6)));
  const RowPartition partition = FindAll(f.graph, {Where(inside, f.x, 0) * Cast(inside, kFloat32)});
  ASSERT_THAT(partition.regions, SizeIs(1));
  EXPECT_THAT(Ops(f.graph, partition.regions[0]),
              UnorderedElementsAre("Greater", "Greater", "LogicalNot", "LogicalAnd", "Where", "Cast", "Mul"));
}

TEST(RowChannels, BeginWithAConvolution) {
  Images f;
  const Value w = f.Input("w", {5, 6, 3, 3}), scale = f.Input("scale", {5, 1, 1});
  const Value y = Relu(Conv2D(f.x, w) * scale);
  const RowPartition partition = FindAll(f.graph, {y});
  ASSERT_THAT(partition.regions, SizeIs(1));
  EXPECT_TRUE(partition.regions[0].has_producer);
  EXPECT_EQ(partition.regions[0].columns, 48);
  EXPECT_THAT(Ops(f.graph, partition.regions[0]), ElementsAre("Conv2D", "Mul", "Relu"));
}

Tensor RandomTensor(std::mt19937& random, DType dtype, const std::vector<int64_t>& sizes) {
  Tensor values(kFloat64, sizes);
  for (double& value : values.mutable_values<double>()) value = static_cast<double>(random() % 2000) / 1000 - 0.9995;
  return values.Cast(dtype);
}

// A graph with its feeds. Sums over rows, which regions may chunk differently, are not exact.
struct Fed {
  Graph graph;
  std::vector<Feed> feeds;
  std::vector<Value> exact, sums;
};

struct Results {
  std::vector<Tensor> values;
  std::string plan;
};

Results Run(const Fed& fed, RowFusion fusion, int threads) {
  std::vector<Fetch> fetches(fed.exact.begin(), fed.exact.end());
  fetches.insert(fetches.end(), fed.sums.begin(), fed.sums.end());
  absl::StatusOr<Session> session =
      Session::Create(fed.graph, {.threads = threads, .batch_tiles = BatchTiles::kNever, .row_fusion = fusion});
  EXPECT_TRUE(session.ok()) << session.status();
  if (!session.ok()) return {};
  Results results;
  // The second run finds packed weights.
  for (int run = 0; run < 2; ++run) {
    absl::StatusOr<std::vector<Tensor>> values = session->Run(fed.feeds, fetches);
    EXPECT_TRUE(values.ok()) << values.status();
    if (!values.ok()) return {};
    for (size_t i = 0; run == 1 && i < values->size(); ++i)
      EXPECT_TRUE(SameBits((*values)[i], results.values[i])) << "result " << i << " of the second run";
    results.values = *std::move(values);
  }
  results.plan = *session->DescribePlan(fed.feeds, fetches);
  return results;
}

// Returns the plan of the regions.
std::string ExpectSameBits(const Fed& fed) {
  EXPECT_TRUE(fed.graph.status().ok()) << fed.graph.status();
  const Results alone = Run(fed, RowFusion::kNever, 1), fused = Run(fed, RowFusion::kAlways, 1);
  for (int threads : {1, 2, 3}) {
    const Results again = Run(fed, RowFusion::kAlways, threads);
    EXPECT_EQ(again.values.size(), alone.values.size());
    for (size_t i = 0; i < std::min(again.values.size(), alone.values.size()); ++i) {
      EXPECT_TRUE(SameBits(again.values[i], fused.values[i])) << "result " << i << " on " << threads << " threads";
      if (i < fed.exact.size()) {
        EXPECT_TRUE(SameBits(again.values[i], alone.values[i])) << "result " << i << "\n" << fused.plan;
        continue;
      }
      const std::vector<double> want = alone.values[i].ToDoubles(), got = again.values[i].ToDoubles();
      double scale = 1e-3;
      for (double value : want) scale = std::max(scale, std::abs(value));
      for (size_t k = 0; k < want.size(); ++k) EXPECT_NEAR(want[k], got[k], 2e-5 * scale) << "result " << i;
    }
  }
  return fused.plan;
}

// Random ops over one shape, with operands that broadcast along any axes.
class RandomChain {
 public:
  RandomChain(Fed& fed, unsigned seed, DType dtype, std::vector<int64_t> sizes)
      : fed_(fed), random_(seed), scope_(fed.graph), dtype_(dtype), sizes_(std::move(sizes)) {
    const int rank = static_cast<int>(sizes_.size());
    Integers spatial, others = {0};
    for (int axis = 2; axis < rank; ++axis) {
      spatial.push_back(axis);
      others.push_back(axis);
    }
    for (int i = 0; i < 3; ++i) values_.push_back(Input(sizes_));
    const std::vector<Value> wanted = {values_[0], Input(Stretched()), Input(Stretched())};
    const bool has_elements = std::find(sizes_.begin(), sizes_.end(), 0) == sizes_.end();
    for (int i = 0; i < 14; ++i) {
      const Value x = Any(), y = Any(), small = i < 2 ? wanted[i + 1] : Input(Stretched());
      switch (random_() % 14) {
        case 0:
          values_.push_back(Sin(x) + small);
          break;
        case 1:
          values_.push_back(small * Log(Square(x) + 1.5));
          break;
        case 2:
          values_.push_back(Pow(Abs(x) + 0.5, small));
          break;
        case 3:
          values_.push_back(Where(Greater(x, small), x, y));
          break;
        case 4:
          values_.push_back(Clip(x - small, 0, 6));
          break;
        case 5:
          values_.push_back(x * Sigmoid(x) - y);
          break;
        case 6:
          values_.push_back(Where(LogicalOr(Less(x, y), LogicalNot(LessEqual(x, small))), small, x));
          break;
        case 7:
          values_.push_back(Cast(GreaterEqual(x, small), dtype_) * y);
          break;
        case 8:
          values_.push_back(Where(Cast(Relu(x), kBool), y, Tanh(x)));
          break;
        case 9:
          values_.push_back(BroadcastTo(small, Shape(sizes_)) * 0.5 + x);
          break;
        case 10:
          if (has_elements && rank > 2) values_.push_back(x * Sigmoid(Mean(y, {.axes = spatial, .keep_dims = true})));
          break;
        case 11:
          if (rank > 2) fed_.exact.push_back(Sum(x * y, {.axes = others}));
          break;
        case 12:
          fed_.sums.push_back(Sum(x * small, {.axes = {0}}));
          break;
        default:
          if (has_elements) values_.push_back(Softmax(x) + Tanh(small));
          break;
      }
    }
    fed_.exact.push_back(values_.back());
    fed_.exact.push_back(values_[values_.size() / 2]);
    const std::vector<Value> gradients = Gradients({Sum(Square(values_.back()))}, wanted);
    fed_.sums.insert(fed_.sums.end(), gradients.begin(), gradients.end());
  }

 private:
  Value Any() { return values_[random_() % values_.size()]; }
  Value Input(const std::vector<int64_t>& sizes) {
    const Value input = scope_.Input("x" + std::to_string(fed_.feeds.size()), dtype_, Shape(sizes));
    fed_.feeds.emplace_back(input, RandomTensor(random_, dtype_, sizes));
    return input;
  }
  std::vector<int64_t> Stretched() {
    std::vector<int64_t> sizes = sizes_;
    for (int64_t& size : sizes) {
      if (random_() % 2 == 0) size = 1;
    }
    while (!sizes.empty() && sizes[0] == 1 && random_() % 2 == 0) sizes.erase(sizes.begin());
    return sizes;
  }

  Fed& fed_;
  std::mt19937 random_;
  Scope scope_;
  const DType dtype_;
  const std::vector<int64_t> sizes_;
  std::vector<Value> values_;
};

class RowChannelsOf : public testing::TestWithParam<int> {};

TEST_P(RowChannelsOf, RandomChainsAgreeWithOneByOne) {
  const std::vector<std::vector<int64_t>> shapes = {
      {3, 5, 7, 9},  {2, 16, 4, 4}, {1, 3, 90, 91}, {20, 6, 1, 1}, {2, 1, 8, 8},  {4, 6, 20},     {33, 17},
      {2, 3, 1, 11}, {9, 7, 1},     {0, 3, 4, 4},   {2, 3, 0, 4},  {40, 8, 6, 6}, {2, 2, 3, 4, 5}};
  const int seed = GetParam();
  for (DType dtype : {kFloat32, kFloat64}) {
    Fed fed;
    const RandomChain chain(fed, seed, dtype, shapes[seed % shapes.size()]);
    SCOPED_TRACE(DTypeName(dtype));
    ExpectSameBits(fed);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RowChannelsOf, testing::Range(0, 78));

// The result of all samples leaves the second-level cache, that of one fits.
TEST(RowChannels, ConvolutionsHandOverSamples) {
  struct Case {
    int64_t channels, outputs, size, kernel, stride, groups;
    bool bias;
  };
  for (const Case& c : {Case{8, 24, 56, 3, 1, 1, false}, Case{24, 24, 57, 3, 1, 24, true},
                        Case{16, 33, 50, 1, 1, 1, true}, Case{6, 40, 90, 5, 2, 2, false}}) {
    Fed fed;
    Scope scope(fed.graph);
    std::mt19937 random(3);
    auto input = [&](const std::vector<int64_t>& sizes) {
      const Value value = scope.Input("x" + std::to_string(fed.feeds.size()), kFloat32, Shape(sizes));
      fed.feeds.emplace_back(value, RandomTensor(random, kFloat32, sizes));
      return value;
    };
    const Value x = input({9, c.channels, c.size, c.size});
    const Value w = scope.Variable(
        "w", scope.Constant(RandomTensor(random, kFloat32, {c.outputs, c.channels / c.groups, c.kernel, c.kernel})));
    const Conv2DOptions options = {
        .stride = {c.stride, c.stride}, .padding = {c.kernel / 2, c.kernel / 2}, .groups = c.groups};
    const Value y = c.bias ? Conv2D(x, w, input({c.outputs}), options) : Conv2D(x, w, options);
    const Value scale = input({c.outputs, 1, 1}), residual = input(y.shape().sizes());
    const Value made = Relu((y - scale) * scale + residual);
    fed.exact = {made, Mean(made, {.axes = {2, 3}}), Sum(made * 0.01, {.axes = {0, 2, 3}})};
    const std::string plan = ExpectSameBits(fed);
    // This region has only sums left.
    fed.exact.erase(fed.exact.begin());
    const std::string plan_of_sums = ExpectSameBits(fed);
    if (!HasMeasuredVectors()) continue;
    EXPECT_THAT(plan, HasSubstr("convolution (")) << c.kernel;
    EXPECT_THAT(plan_of_sums, HasSubstr("convolution (")) << c.kernel;
  }
}

}  // namespace
}  // namespace gradweave
