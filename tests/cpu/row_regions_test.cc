// Row regions: which nodes the finder combines, and that regions give the same results as their
// nodes one by one.
#include "gradweave/graph/partition/row_regions.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cpu/measured_vectors.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

// Returns the regions of all nodes of the graph that its outputs need.
RowPartition FindAll(Graph& graph, const std::vector<Value>& outputs) {
  graph.SetOutput("y", outputs);
  const BatchPartition one_by_one = {.order = NodeOrder(graph)};
  return FindRowRegions(
      graph, one_by_one, [](const Graph&, const Node&) { return true; },
      [](const Node& producer, const RowRegion&) { return producer.op->name == "MatMul"; },
      [](const RowRegion&) { return true; });
}

std::vector<std::string> Ops(const Graph& graph, const RowRegion& region) {
  std::vector<std::string> ops;
  for (const RowRegion::Member& member : region.nodes) ops.push_back(graph.node(member.node).op->name);
  return ops;
}

// Returns the position in the order of the item that runs the node.
int PositionOf(const RowPartition& partition, const Value& value) {
  for (size_t i = 0; i < partition.order.size(); ++i) {
    const OrderItem item = partition.order[i];
    if (item == OrderItem::Node(value.port().node)) return static_cast<int>(i);
    if (item.is_node()) continue;
    for (const RowRegion::Member& member : partition.regions[item.index].nodes) {
      if (member.node == value.port().node) return static_cast<int>(i);
    }
  }
  return -1;
}

struct Fixture {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {4, 6, 8});
};

TEST(RowRegions, TakeTheNormalizationOfRowsTogether) {
  Fixture f;
  const Value scale = f.scope.Input("scale", kFloat32, {8}), number = f.scope.Input("number", kFloat32, {});
  const Value centered = f.x - Sum(f.x, {.axes = {2}, .keep_dims = true}) * number;
  const Value variance = Sum(Square(centered), {.axes = {2}, .keep_dims = true});
  const Value y = centered * Rsqrt(variance + number) * scale;
  const RowPartition partition = FindAll(f.graph, {y});
  ASSERT_THAT(partition.regions, SizeIs(1));
  const RowRegion& region = partition.regions[0];
  EXPECT_EQ(region.rows, 24);
  EXPECT_EQ(region.columns, 8);
  EXPECT_THAT(Ops(f.graph, region), ElementsAre("Sum", "Mul", "Sub", "Square", "Sum", "Add", "Rsqrt", "Mul", "Mul"));
  const RowRegion::Operand full{f.x.port(), RowExtent::kFull}, one{number.port(), RowExtent::kScalar},
      column{scale.port(), RowExtent::kPerColumn};
  EXPECT_THAT(region.operands, ElementsAre(full, one, column));
  const RowRegion::Operand result{y.port(), RowExtent::kFull};
  EXPECT_THAT(region.outputs, ElementsAre(result));
}

// The moving averages of an optimizer: m*0.9 does not depend on the gradient.
TEST(RowRegions, TakeInWhatTheyAloneReadOfVariables) {
  Fixture f;
  const Value m = f.scope.Input("m", kFloat32, {4, 6, 8});
  const Value rotated = Reverse(Square(Exp(f.x)), {0});
  const Value next = m * 0.9f + rotated * 0.1f;
  const Value other = f.x * 2.0f, outside = Reverse(other, {0});
  RowPartition partition = FindAll(f.graph, {next * Abs(rotated)});
  ASSERT_THAT(partition.regions, SizeIs(2));
  EXPECT_THAT(Ops(f.graph, partition.regions[0]), ElementsAre("Exp", "Square"));
  EXPECT_THAT(Ops(f.graph, partition.regions[1]), UnorderedElementsAre("Mul", "Mul", "Add", "Abs", "Mul"));
  // Other nodes read x*2 too, so it stays before the region.
  partition = FindAll(f.graph, {Square(next) + other, outside});
  EXPECT_LT(PositionOf(partition, other), PositionOf(partition, next));
  EXPECT_LT(PositionOf(partition, other), PositionOf(partition, outside));
}

TEST(RowRegions, EndInSumsOverRows) {
  Fixture f;
  const Value weights = Softmax(Exp(f.x));
  const Value sum = Sum(weights, {.axes = {0, 1}});
  const Value after = weights * sum;
  const RowPartition partition = FindAll(f.graph, {after});
  ASSERT_THAT(partition.regions, SizeIs(1));
  EXPECT_THAT(Ops(f.graph, partition.regions[0]), ElementsAre("Exp", "Softmax", "Sum"));
  const RowRegion::Operand full{weights.port(), RowExtent::kFull}, summed{sum.port(), RowExtent::kPerColumn};
  EXPECT_THAT(partition.regions[0].outputs, ElementsAre(full, summed));
  EXPECT_GT(PositionOf(partition, after), PositionOf(partition, sum));
}

TEST(RowRegions, MakeNoCycleThroughNodesOutside) {
  Fixture f;
  const Value w = f.scope.Input("w", kFloat32, {8, 8});
  const Value a = Exp(f.x), b = Tanh(a), product = MatMul(b, w), c = Relu(product), y = c + a;
  const RowPartition partition = FindAll(f.graph, {y});
  ASSERT_THAT(partition.regions, SizeIs(2));
  EXPECT_THAT(Ops(f.graph, partition.regions[0]), ElementsAre("Exp", "Tanh"));
  EXPECT_THAT(Ops(f.graph, partition.regions[1]), ElementsAre("MatMul", "Relu", "Add"));
  EXPECT_LT(PositionOf(partition, b), PositionOf(partition, y));
}

TEST(RowRegions, BeginWithAProductThatTheyAloneRead) {
  Fixture f;
  const Value w = f.scope.Input("w", kFloat32, {8, 8}), bias = f.scope.Input("bias", kFloat32, {8});
  const Value biased = Reshape(MatMul(Reshape(f.x, {24, 8}), w), {4, 6, 8}) + bias;
  const RowPartition partition = FindAll(f.graph, {biased});
  ASSERT_THAT(partition.regions, SizeIs(1));
  EXPECT_TRUE(partition.regions[0].has_producer);
  EXPECT_THAT(Ops(f.graph, partition.regions[0]), ElementsAre("MatMul", "Add"));
  const RowRegion::Operand left{f.x.port(), RowExtent::kWhole}, right{w.port(), RowExtent::kWhole},
      column{bias.port(), RowExtent::kPerColumn};
  EXPECT_THAT(partition.regions[0].operands, ElementsAre(left, right, column));
}

TEST(RowRegions, LeaveProductsThatOthersReadAndAllButOne) {
  Fixture f;
  const Value w = f.scope.Input("w", kFloat32, {8, 8});
  const Value fetched = MatMul(f.x, w), first = MatMul(f.x, Exp(w)), second = MatMul(f.x, Tanh(w));
  const Value y = Relu(fetched), z = Neg(first + second);
  const RowPartition partition = FindAll(f.graph, {fetched, y, z});
  ASSERT_THAT(partition.regions, SizeIs(1));
  EXPECT_THAT(Ops(f.graph, partition.regions[0]), ElementsAre("MatMul", "Add", "Neg"));
  EXPECT_EQ(partition.regions[0].nodes[0].node, second.port().node);
}

TEST(RowRegions, LookThroughReshapesThatKeepColumnsAndEndAtOthers) {
  Fixture f;
  const Value a = Exp(f.x), b = Tanh(Reshape(a, {24, 8})), c = Neg(Reshape(b, {24, 2, 4})), y = Abs(c);
  const RowPartition partition = FindAll(f.graph, {y});
  ASSERT_THAT(partition.regions, SizeIs(2));
  EXPECT_THAT(Ops(f.graph, partition.regions[0]), ElementsAre("Exp", "Tanh"));
  EXPECT_THAT(Ops(f.graph, partition.regions[1]), ElementsAre("Neg", "Abs"));
  EXPECT_EQ(partition.regions[1].rows, 48);
  const RowRegion::Operand read{b.port(), RowExtent::kFull};
  EXPECT_THAT(partition.regions[1].operands, ElementsAre(read));
}

TEST(RowRegions, LeaveOutWhatMixesRowsOrStretchesOtherwise) {
  Fixture f;
  const Value middle = f.scope.Input("middle", kFloat32, {6, 1}), a = Exp(f.x);
  const Value y = a * middle, z = Softmax(a, 1), m = Sum(a, {.axes = {1}});
  EXPECT_THAT(FindAll(f.graph, {y, z, m}).regions, IsEmpty());
}

TEST(RowRegions, AreCutWhereTheyAreLong) {
  Fixture f;
  std::vector<Value> sums = {Exp(f.x)};
  for (int i = 0; i < 69; ++i)
    sums.push_back(sums.back() + f.scope.Input("x" + std::to_string(i), kFloat32, {4, 6, 8}));
  const RowPartition partition = FindAll(f.graph, sums);
  ASSERT_THAT(partition.regions, SizeIs(3));
  EXPECT_THAT(partition.regions[0].nodes, SizeIs(kMostNodesOfRowRegion));
  EXPECT_THAT(partition.regions[2].nodes, SizeIs(70 - 2 * kMostNodesOfRowRegion));
  EXPECT_LT(PositionOf(partition, sums[31]), PositionOf(partition, sums[32]));
}

// A graph of random ops over [leading axes, columns] and their gradients.
struct RandomRows {
  Graph graph;
  std::vector<Value> inputs, exact, sums;
  std::vector<Tensor> data;

  RandomRows(unsigned seed, DType dtype) : random_(seed) {
    Scope scope(graph);
    const int64_t columns = Pick({16, 17, 64, 130, 515});
    std::vector<int64_t> sizes = seed % 2 == 0 ? std::vector<int64_t>{Pick({3, 20}), Pick({1, 7, 16})}
                                               : std::vector<int64_t>{Pick({2, 29, 200})};
    std::vector<int64_t> per_row = sizes;
    per_row.push_back(1);
    sizes.push_back(columns);
    auto input = [&](const std::vector<int64_t>& of) {
      Shape shape;
      Tensor values(kFloat64, of);
      for (int64_t size : of) shape.Append(size);
      for (double& value : values.mutable_values<double>())
        value = static_cast<double>(random_() % 2000) / 1000 - 0.9995;
      inputs.push_back(scope.Input("x" + std::to_string(inputs.size()), dtype, shape));
      data.push_back(values.Cast(dtype));
      return inputs.back();
    };
    full_ = {input(sizes), input(sizes)};
    per_row_ = {input(per_row)};
    const Value bias = input({columns}), scale = input({columns}), number = input({});
    const int last = static_cast<int>(sizes.size()) - 1;
    std::vector<int64_t> leading;
    for (int axis = 0; axis < last; ++axis) leading.push_back(axis);
    const int64_t terms = Pick({5, 64, 330});
    std::vector<int64_t> left = sizes, right = sizes;
    left[last] = right[last - 1] = terms;
    // Operands of products: with two leading axes, one matrix for all or one for each.
    const Value a = input(left),
                b = input(last == 2 && Pick({0, 1}) == 0 ? right : std::vector<int64_t>{terms, columns});
    const Value square = input({columns, columns});
    for (int i = 0; i < 16; ++i) {
      const Value x = Any(full_), r = Any(per_row_);
      switch (Pick({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14})) {
        case 0:
          full_.push_back(x + Any(full_));
          break;
        case 1:
          full_.push_back(Any(full_) * Sigmoid(x));
          break;
        case 2:
          full_.push_back(x + bias);
          break;
        case 3:
          full_.push_back(scale * x);
          break;
        case 4:
          full_.push_back(x - r);
          break;
        case 5:
          full_.push_back(Tanh(r) * x);
          break;
        case 6:
          full_.push_back(number * x);
          break;
        case 7:
          full_.push_back(Softmax(x));
          break;
        case 8:
          per_row_.push_back(Sum(x, {.axes = {last}, .keep_dims = true}) * 0.01);
          break;
        case 9:
          per_row_.push_back(Rsqrt(Square(r) + 0.5));
          break;
        case 10:
          per_row_.push_back(Max(StopGradient(x), {.axes = {last}, .keep_dims = true}));
          break;
        case 11:
          sums.push_back(Sum(x * x, {.axes = leading}));
          break;
        case 12:
          full_.push_back(Tanh(MatMul(a, b) + bias));
          break;
        case 13:
          full_.push_back(MatMul(x, square, {.transpose_b = true}) * 0.02 + x);
          break;
        default:
          full_.push_back(Softmax(MatMul(a, b) * 0.1 + x));
          break;
      }
    }
    exact = {full_.back(), per_row_.back(), full_[full_.size() / 2]};
    const std::vector<Value> wanted(inputs.begin(), inputs.begin() + 4);
    const std::vector<Value> gradients = Gradients({Sum(Square(full_.back()))}, wanted);
    exact.insert(exact.end(), gradients.begin(), gradients.begin() + 3);
    sums.push_back(gradients[3]);
  }

  std::vector<Tensor> Run(RowFusion fusion, int threads, std::string* plan = nullptr) const {
    std::vector<Feed> feeds;
    for (size_t i = 0; i < inputs.size(); ++i) feeds.emplace_back(inputs[i], data[i]);
    std::vector<Fetch> fetches(exact.begin(), exact.end());
    fetches.insert(fetches.end(), sums.begin(), sums.end());
    absl::StatusOr<Session> session =
        Session::Create(graph, {.threads = threads, .batch_tiles = BatchTiles::kNever, .row_fusion = fusion});
    EXPECT_TRUE(session.ok()) << session.status();
    if (!session.ok()) return {};
    absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, fetches);
    EXPECT_TRUE(results.ok()) << results.status();
    if (plan != nullptr) *plan = *session->DescribePlan(feeds, fetches);
    return results.ok() ? *std::move(results) : std::vector<Tensor>();
  }

 private:
  int64_t Pick(std::vector<int64_t> choices) { return choices[random_() % choices.size()]; }
  Value Any(const std::vector<Value>& values) { return values[random_() % values.size()]; }

  std::mt19937 random_;
  std::vector<Value> full_, per_row_;
};

class RowFusionOf : public testing::TestWithParam<int> {};

// Sums over rows may be chunked differently than in single nodes. All other ops run the same loops.
TEST_P(RowFusionOf, RandomGraphsAgreeWithOneByOne) {
  for (DType dtype : {kFloat32, kFloat64}) {
    const RandomRows rows(GetParam(), dtype);
    ASSERT_TRUE(rows.graph.status().ok()) << rows.graph.status();
    std::string plan, plain_plan;
    const std::vector<Tensor> plain = rows.Run(RowFusion::kNever, 1, &plain_plan);
    const std::vector<Tensor> fused = rows.Run(RowFusion::kAlways, 1, &plan);
    const std::vector<Tensor> on_three = rows.Run(RowFusion::kAlways, 3);
    EXPECT_THAT(plan, HasSubstr("rows in blocks"));
    EXPECT_THAT(plain_plan, Not(HasSubstr("rows in blocks")));
    ASSERT_EQ(plain.size(), rows.exact.size() + rows.sums.size());
    ASSERT_EQ(fused.size(), plain.size());
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_TRUE(SameBits(fused[i], on_three[i])) << DTypeName(dtype) << ", result " << i;
      if (i < rows.exact.size()) {
        EXPECT_TRUE(SameBits(plain[i], fused[i])) << DTypeName(dtype) << ", result " << i << "\n" << plan;
        continue;
      }
      const std::vector<double> want = plain[i].ToDoubles(), got = fused[i].ToDoubles();
      double scale = 1e-3;
      for (double value : want) scale = std::max(scale, std::abs(value));
      for (size_t k = 0; k < want.size(); ++k) {
        ASSERT_NEAR(want[k], got[k], (dtype == kFloat32 ? 1e-5 : 1e-13) * scale)
            << DTypeName(dtype) << ", result " << i << ", " << k;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RowFusionOf, testing::Range(0, 60));

TEST(RowFusion, MaximaHaveTheSameBits) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {6, 40});
  const Value y = Max(Neg(x), {.axes = {1}, .keep_dims = true});
  Tensor values(kFloat32, {6, 40});
  absl::Span<float> elements = values.mutable_values<float>();
  for (int i = 0; i < 240; ++i) elements[i] = i % 3 == 0 ? 0.0f : -0.0f;
  for (int i = 80; i < 160; ++i) elements[i] = static_cast<float>(i);
  elements[100] = std::nanf("1");
  elements[139] = -std::nanf("2");
  for (int i = 160; i < 200; ++i) elements[i] = INFINITY;
  std::vector<Tensor> results;
  for (RowFusion fusion : {RowFusion::kNever, RowFusion::kAlways}) {
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .row_fusion = fusion});
    ASSERT_TRUE(session.ok()) << session.status();
    const absl::StatusOr<std::vector<Tensor>> result = session->Run({{x, values}}, {y});
    ASSERT_TRUE(result.ok()) << result.status();
    results.push_back((*result)[0]);
  }
  EXPECT_TRUE(SameBits(results[0], results[1]));
  EXPECT_TRUE(std::isnan(results[1].ToDoubles()[2]));
  EXPECT_EQ(results[1].ToDoubles()[4], -INFINITY);
}

// A product reads rows of its left operand for each of its parts, so no result may overwrite them
// earlier.
TEST(RowFusion, ResidualOfAProductDoesNotOverwriteWhatTheProductReads) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {40, 256}), w = scope.Input("w", kFloat32, {256, 256});
  const Value hidden = Tanh(x), residual = MatMul(hidden, w) + hidden, y = MatMul(residual, w);
  std::mt19937 random(5);
  std::vector<Tensor> data = {Tensor(kFloat32, {40, 256}), Tensor(kFloat32, {256, 256})};
  for (Tensor& tensor : data) {
    for (float& value : tensor.mutable_values<float>()) value = static_cast<float>(random() % 2001) / 1000 - 1;
  }
  std::vector<Tensor> results;
  for (RowFusion fusion : {RowFusion::kNever, RowFusion::kAlways}) {
    absl::StatusOr<Session> session =
        Session::Create(graph, {.threads = 2, .batch_tiles = BatchTiles::kNever, .row_fusion = fusion});
    ASSERT_TRUE(session.ok()) << session.status();
    const std::vector<Feed> feeds = {{x, data[0]}, {w, data[1]}};
    const absl::StatusOr<std::vector<Tensor>> result = session->Run(feeds, {y});
    ASSERT_TRUE(result.ok()) << result.status();
    results.push_back((*result)[0]);
    const bool has_region = absl::StrContains(*session->DescribePlan(feeds, {y}), "product, rows");
    if (fusion == RowFusion::kNever || HasMeasuredVectors()) {
      EXPECT_EQ(has_region, fusion == RowFusion::kAlways);
    }
  }
  EXPECT_TRUE(SameBits(results[0], results[1]));
}

// An update computed in a region goes directly into the variable, while readers still see the old
// value.
TEST(RowFusion, UpdatesOfVariables) {
  for (RowFusion fusion : {RowFusion::kNever, RowFusion::kAlways}) {
    Graph graph;
    Scope scope(graph);
    const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2, 3}, {1, 2, 3, 4, 5, 6})));
    const Value x = scope.Input("x", kFloat32, {2, 3});
    const Update step{{Assign(w, w - Exp(x) * 0.5f)}};
    const Value old = w * 1.5f;
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .row_fusion = fusion});
    ASSERT_TRUE(session.ok()) << session.status();
    const std::vector<Feed> feeds = {{x, Tensor::Of<float>({2, 3}, {0, 0, 0, 0, 0, 0})}};
    for (int run = 0; run < 2; ++run) {
      const absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {old, step});
      ASSERT_TRUE(results.ok()) << results.status();
      EXPECT_EQ((*results)[0].ToDoubles()[5], (6 - 0.5 * run) * 1.5);
    }
  }
}

// Adam reads and writes a weight and both moments where they lie, in one step.
TEST(RowFusion, AdamIsOneStep) {
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Full(1, {256, 64})), x = scope.Input("x", kFloat32, {64, 256});
  const Update step = optim::Adam{}.Minimize(Sum(Square(Transpose(Square(Exp(x))) * w)));
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kNever});
  ASSERT_TRUE(session.ok()) << session.status();
  const std::string plan = *session->DescribePlan({{x, Tensor(kFloat32, {64, 256})}}, {step});
  EXPECT_THAT(plan, HasSubstr("  17 nodes  ")) << plan;
}

}  // namespace
}  // namespace gradweave
