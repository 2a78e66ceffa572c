// Batch regions in tiles of samples, compared with the same graphs run op by op: random networks
// with their gradients, for batches that fill tiles and batches that do not.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "gradweave/gradweave.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

// A random network of layers, its loss and the gradients of its variables.
struct RandomNetwork {
  Graph graph;
  Value image, label, loss;
  std::vector<Value> wanted;  // The loss, intermediate values and gradients.
  std::string description;

  explicit RandomNetwork(unsigned seed) : random_(seed) {
    Scope scope(graph);
    const int64_t channels = Pick({1, 2, 3, 5}), side = Pick({6, 8, 9, 12});
    image = scope.Input("image", kFloat32, {Dim("batch"), channels, side, side});
    label = scope.Input("label", kInt32, {Dim("batch")});
    Value x = image;
    const int layers = static_cast<int>(Pick({2, 3, 4, 5}));
    for (int i = 0; i < layers; ++i) x = AddImageLayer(scope, x);
    wanted.push_back(x);
    if (Pick({0, 1}) == 0) {
      x = Flatten(x);
    } else {
      x = Mean(x, {.axes = {2, 3}});
    }
    if (Pick({0, 1}) == 0) x = Sigmoid(Dense(scope, x, Pick({3, 17, 20})));
    if (Pick({0, 1}) == 0) x = Softmax(x) + Tanh(x);
    const Value logits = Dense(scope, x, Pick({2, 7, 10}));
    loss = Mean(SparseSoftmaxCrossEntropy(logits, label));
    wanted.push_back(logits);
    wanted.push_back(loss);
    variables_.push_back(image);
    for (const Value& gradient : Gradients({loss}, variables_)) wanted.push_back(gradient);
  }

 private:
  int64_t Pick(std::vector<int64_t> choices) { return choices[random_() % choices.size()]; }

  Value Parameter(Scope& scope, const Shape& shape, double bound) {
    const std::string name = "v" + std::to_string(variables_.size());
    variables_.push_back(scope.Variable(name, RandomUniform(scope, shape, -bound, bound)));
    return variables_.back();
  }

  Value Dense(Scope& scope, const Value& x, int64_t outputs) {
    description += " dense" + std::to_string(outputs);
    const int64_t inputs = x.shape()[1].size();
    return MatMul(x, Parameter(scope, {inputs, outputs}, 1 / std::sqrt(inputs))) + Parameter(scope, {outputs}, 0.5);
  }

  Value AddImageLayer(Scope& scope, const Value& x) {
    const int64_t channels = x.shape()[1].size(), side = std::min(x.shape()[2].size(), x.shape()[3].size());
    const int64_t kind = Pick({0, 0, 0, 1, 2, 3, 4, 5, 6, 7});
    description += " " + std::to_string(kind);
    if (kind == 0) {
      const int64_t kernel = Pick({1, 2, 3, 5}), stride = Pick({1, 1, 2, 3}), dilation = Pick({1, 1, 2});
      const int64_t padding = Pick({0, 1, 2});
      const int64_t groups = channels % 2 == 0 ? Pick({1, 2}) : 1, outputs = groups * Pick({1, 3, 4, 8});
      if ((kernel - 1) * dilation + 1 > side + 2 * padding) return x;
      const Value filter =
          Parameter(scope, {outputs, channels / groups, kernel, kernel}, 1 / std::sqrt(channels * kernel * kernel));
      description += "(k" + std::to_string(kernel) + "s" + std::to_string(stride) + "d" + std::to_string(dilation) +
                     "p" + std::to_string(padding) + "g" + std::to_string(groups) + "o" + std::to_string(outputs) + ")";
      const Conv2DOptions options = {.stride = {stride, stride},
                                     .padding = {padding, Pick({0, padding})},
                                     .dilation = {dilation, dilation},
                                     .groups = groups};
      if ((kernel - 1) * dilation + 1 > x.shape()[3].size() + 2 * options.padding[1]) return x;
      return Pick({0, 1}) == 0 ? Conv2D(x, filter, options)
                               : Conv2D(x, filter, Parameter(scope, {outputs}, 0.5), options);
    }
    if (kind == 1 || kind == 2) {
      if (side < 3) return x;
      Pool2DOptions options{.window = {Pick({2, 3}), 2}, .stride = {Pick({1, 2}), Pick({2, 3})}};
      if (Pick({0, 1}) == 0) options = {.window = {2, 2}};
      if (Pick({0, 1}) == 0) options.padding = {1, 0, 0, 1};
      options.count_padding = Pick({0, 1}) == 1;
      return kind == 1 ? AvgPool2D(x, options) : MaxPool2D(x, options);
    }
    if (kind == 3) return Relu(x);
    if (kind == 4) return Sigmoid(x) * Exp(x * 0.1);
    if (kind == 5) return x + Parameter(scope, {channels, 1, 1}, 1);
    if (kind == 6)
      return x * Parameter(scope, {x.shape()[3].size()}, 1) - Sum(x, {.axes = {3}, .keep_dims = true}) * 0.1;
    // Batch normalization: elements read sums over samples.
    return BatchNormTraining(x, Parameter(scope, {channels}, 1), Parameter(scope, {channels}, 1)).y;
  }

  std::mt19937 random_;
  std::vector<Value> variables_;
};

struct Data {
  Tensor images, labels;
  Data(const RandomNetwork& network, int64_t batch) {
    std::vector<int64_t> sizes = {batch};
    for (int axis = 1; axis < 4; ++axis) sizes.push_back(network.image.shape()[axis].size());
    images = Tensor(kFloat32, sizes);
    labels = Tensor(kInt32, {batch});
    std::mt19937 random(7);
    for (float& pixel : images.mutable_values<float>()) pixel = static_cast<float>(random() % 1000) / 500 - 1;
    for (int32_t& label : labels.mutable_values<int32_t>()) label = static_cast<int32_t>(random() % 2);
  }
};

std::vector<Tensor> RunNetwork(const RandomNetwork& network, const Data& data, BatchTiles tiles, int threads) {
  absl::StatusOr<Session> session =
      Session::Create(network.graph, {.threads = threads, .seed = 9, .batch_tiles = tiles});
  EXPECT_TRUE(session.ok()) << session.status() << network.description;
  if (!session.ok()) return {};
  absl::StatusOr<std::vector<Tensor>> results =
      session->Run({{network.image, data.images}, {network.label, data.labels}},
                   std::vector<Fetch>(network.wanted.begin(), network.wanted.end()));
  EXPECT_TRUE(results.ok()) << results.status() << network.description;
  return results.ok() ? *std::move(results) : std::vector<Tensor>();
}

bool PlanHasTiles(const RandomNetwork& network, const Data& data) {
  absl::StatusOr<Session> session = Session::Create(network.graph, {.batch_tiles = BatchTiles::kAlways});
  const absl::StatusOr<std::string> plan =
      session->DescribePlan({{network.image, data.images}, {network.label, data.labels}}, {network.loss});
  return plan.ok() && plan->find("tiles of") != std::string::npos;
}

class BatchTilesOf : public testing::TestWithParam<int> {};

TEST_P(BatchTilesOf, RandomNetworksAgreeWithOpByOp) {
  const RandomNetwork network(GetParam());
  ASSERT_TRUE(network.graph.status().ok()) << network.graph.status() << network.description;
  for (int64_t batch : {1, 5, 16, 32, 37}) {
    const Data data(network, batch);
    const std::vector<Tensor> plain = RunNetwork(network, data, BatchTiles::kNever, 1);
    const std::vector<Tensor> tiled = RunNetwork(network, data, BatchTiles::kAlways, 1);
    EXPECT_TRUE(PlanHasTiles(network, data)) << network.description;
    const std::vector<Tensor> on_three = RunNetwork(network, data, BatchTiles::kAlways, 3);
    ASSERT_EQ(plain.size(), network.wanted.size());
    ASSERT_EQ(tiled.size(), plain.size());
    for (size_t i = 0; i < plain.size(); ++i) {
      const std::vector<double> want = plain[i].ToDoubles(), got = tiled[i].ToDoubles();
      double scale = 0.05, worst = 0;  // Gradients that cancel consist of rounding errors.
      for (double value : want) scale = std::max(scale, std::abs(value));
      for (size_t k = 0; k < want.size(); ++k) worst = std::max(worst, std::abs(want[k] - got[k]));
      EXPECT_LE(worst, 2e-5 * scale) << "result " << i << ", batch " << batch << "," << network.description;
      EXPECT_TRUE(SameBits(tiled[i], on_three[i])) << "result " << i << ", batch " << batch << network.description;
    }
  }
}

// The gradient of a mean is one number that depends on the batch size. It must not split the
// region.
TEST(BatchTilesOfAMean, AreOneRegion) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3}), labels = scope.Input("labels", kInt32, {Dim("batch")});
  const Value loss = Mean(SparseSoftmaxCrossEntropy(Exp(x), labels));
  const Value dx = Gradients({loss}, {x})[0];
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kAlways});
  ASSERT_TRUE(session.ok()) << session.status();
  for (int64_t batch : {64, 5000}) {
    const absl::StatusOr<std::string> plan =
        session->DescribePlan({{x, Tensor(kFloat32, {batch, 3})}, {labels, Tensor(kInt32, {batch})}}, {loss, dx});
    ASSERT_TRUE(plan.ok()) << plan.status();
    const size_t first = plan->find("tiles of");
    EXPECT_NE(first, std::string::npos) << *plan;
    EXPECT_EQ(plan->find("tiles of", first + 1), std::string::npos) << *plan;
  }
}

// The activation's gradient reads the pooled gradient directly instead of its spread, even if the
// spread is fetched too.
// A U-Net in small. Large filters, strides, pools, biases and a skip connection: all instructions
// that threads divide by rows, by outputs, or not at all.
TEST(BatchTilesOfOneTile, AreSharedByThreadsWithTheSameBits) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3, 32, 32});
  std::vector<Value> variables;
  auto convolve = [&](const Value& from, int64_t outputs, int64_t kernel, int64_t stride) {
    const int64_t inputs = from.shape()[1].size();
    auto variable = [&](const Shape& shape, double bound) {
      variables.push_back(
          scope.Variable("v" + std::to_string(variables.size()), RandomUniform(scope, shape, -bound, bound)));
      return variables.back();
    };
    const Value filter = variable({outputs, inputs, kernel, kernel}, 1 / std::sqrt(inputs * kernel * kernel));
    return Conv2D(from, filter, variable({outputs}, 0.5),
                  {.stride = {stride, stride}, .padding = {kernel / 2, kernel / 2}});
  };
  const Value first = Relu(convolve(x, 24, 3, 1));
  Value y = Relu(convolve(MaxPool2D(first), 32, 3, 1));
  y = Sigmoid(convolve(AvgPool2D(y), 32, 5, 1)) * 2;
  y = ConvTranspose2D(y, scope.Variable("up", RandomUniform(scope, {32, 24, 4, 4}, -0.05, 0.05)), {.stride = {4, 4}});
  y = convolve(y + first, 16, 3, 2);
  std::vector<Value> wanted = {y, Mean(Square(y))};
  for (const Value& gradient : Gradients({wanted[1]}, variables)) wanted.push_back(gradient);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  const std::vector<Fetch> fetches(wanted.begin(), wanted.end());
  for (bool toom_cook : {true, false}) {
    for (int64_t batch : {5, 8}) {
      Tensor images(kFloat32, {batch, 3, 32, 32});
      std::mt19937 random(3);
      for (float& pixel : images.mutable_values<float>()) pixel = static_cast<float>(random() % 1000) / 500 - 1;
      auto run = [&](BatchTiles tiles, int threads, bool is_shared) {
        absl::StatusOr<Session> session =
            Session::Create(graph, {.threads = threads, .seed = 9, .batch_tiles = tiles, .toom_cook = toom_cook});
        EXPECT_TRUE(session.ok()) << session.status();
        const absl::StatusOr<std::string> plan = session->DescribePlan({{x, images}}, fetches);
        // Shorter vectors hold fewer samples, so that there are several tiles.
        const bool is_one_tile = is_shared && ThisMachine().lanes >= batch;
        EXPECT_TRUE(plan.ok() && (plan->find("rows in up to") != std::string::npos) == is_one_tile) << *plan;
        absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, images}}, fetches);
        EXPECT_TRUE(results.ok()) << results.status();
        return *std::move(results);
      };
      const std::vector<Tensor> alone = run(BatchTiles::kNever, 1, false), tiled = run(BatchTiles::kAlways, 1, true);
      const std::vector<Tensor> again = run(BatchTiles::kAlways, 3, true);
      for (size_t i = 0; i < alone.size(); ++i) {
        const std::vector<double> expected = alone[i].ToDoubles(), got = tiled[i].ToDoubles();
        EXPECT_EQ(got, again[i].ToDoubles()) << i;
        double largest = 0;
        for (double value : expected) largest = std::max(largest, std::abs(value));
        for (size_t k = 0; k < expected.size(); ++k) ASSERT_NEAR(got[k], expected[k], 2e-5 * largest) << i << " " << k;
      }
    }
  }
}

TEST(BatchTilesOfAnAveragePool, SpreadTheGradientInTheActivationsGradient) {
  for (Value (*activation)(Operand) : {Sigmoid, Tanh, Relu}) {
    for (const bool fetch_spread : {false, true}) {
      Graph graph;
      Scope scope(graph);
      const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3, 6, 4});
      const Value y = activation(x);
      const Value pooled = AvgPool2D(y, {.window = {3, 2}});
      const std::vector<Value> gradients = Gradients({Sum(pooled * pooled)}, {x, y});
      std::vector<Fetch> fetches = {gradients[0]};
      if (fetch_spread) fetches.push_back(gradients[1]);
      Tensor images(kFloat32, {21, 3, 6, 4});
      std::mt19937 random(5);
      for (float& pixel : images.mutable_values<float>()) pixel = static_cast<float>(random() % 1000) / 500 - 1;
      std::vector<Tensor> results[2];
      for (const bool tiled : {false, true}) {
        absl::StatusOr<Session> session =
            Session::Create(graph, {.batch_tiles = tiled ? BatchTiles::kAlways : BatchTiles::kNever});
        ASSERT_TRUE(session.ok()) << session.status();
        absl::StatusOr<std::vector<Tensor>> run = session->Run({{x, images}}, fetches);
        ASSERT_TRUE(run.ok()) << run.status();
        results[tiled] = *std::move(run);
        if (tiled) {
          EXPECT_NE(session->DescribePlan({{x, images}}, fetches)->find("Grad of spread"), std::string::npos);
        }
      }
      for (size_t i = 0; i < fetches.size(); ++i) {
        const std::vector<double> want = results[0][i].ToDoubles(), got = results[1][i].ToDoubles();
        for (size_t k = 0; k < want.size(); ++k) ASSERT_NEAR(got[k], want[k], 1e-6) << i << ", " << k;
      }
    }
  }
}

// Results of a convolution with stride 1 and its gradients: float32 in tiles, or float64.
struct ConvolutionRun {
  std::vector<Tensor> results;
  std::string plan;
};
ConvolutionRun RunConvolution(DType dtype, int64_t kernel, int64_t padding, bool absolute, bool toom_cook) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", dtype, {Dim("batch"), 12, 11, 16}),
              w = scope.Input("w", dtype, {16, 12, kernel, kernel}), bias = scope.Input("bias", dtype, {16});
  const Value y = Conv2D(x, w, bias, {.padding = {padding, padding}});
  const Value dy = scope.Input("dy", dtype, y.shape());
  std::vector<Value> wanted = Gradients({Sum(y * dy)}, {x, w});
  wanted.push_back(y);
  absl::StatusOr<Session> session =
      Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kAlways, .toom_cook = toom_cook});
  EXPECT_TRUE(session.ok()) << session.status();
  auto random = [&, generator = std::mt19937(3)](const std::vector<int64_t>& sizes) mutable {
    int64_t count = 1;
    for (int64_t size : sizes) count *= size;
    std::vector<double> values;
    for (int64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(generator() % 2000) / 1000 - 1;
      values.push_back(absolute ? std::abs(value) : value);
    }
    return dtype == kFloat64 ? Tensor::Of<double>(sizes, values)
                             : Tensor::Of<float>(sizes, std::vector<float>(values.begin(), values.end()));
  };
  const std::vector<Feed> feeds = {{x, random({24, 12, 11, 16})},
                                   {w, random({16, 12, kernel, kernel})},
                                   {bias, random({16})},
                                   {dy, random({24, 16, 12 + 2 * padding - kernel, 17 + 2 * padding - kernel})}};
  const std::vector<Fetch> fetches(wanted.begin(), wanted.end());
  absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, fetches);
  absl::StatusOr<std::string> plan = session->DescribePlan(feeds, fetches);
  EXPECT_TRUE(results.ok() && plan.ok()) << results.status();
  return {*std::move(results), *std::move(plan)};
}

TEST(ToomCook, ErrorsAreWithinTheStatedBound) {
  for (int64_t kernel = 2; kernel <= 7; ++kernel) {
    for (int64_t padding : {int64_t{0}, kernel / 2, kernel - 1}) {
      const ConvolutionRun exact = RunConvolution(kFloat64, kernel, padding, false, true);
      const ConvolutionRun terms = RunConvolution(kFloat64, kernel, padding, true, true);
      const ConvolutionRun got = RunConvolution(kFloat32, kernel, padding, false, true);
      EXPECT_NE(got.plan.find("Toom-Cook "), std::string::npos) << kernel << " wide\n" << got.plan;
      // With two columns, transforming the image does not pay.
      if (kernel > 2) {
        EXPECT_NE(got.plan.find("Toom-Cook correlate"), std::string::npos) << kernel << " wide\n" << got.plan;
      }
      // The transposed form pays if the result, of the gradient or of the convolution, is
      // sufficiently wider than its input.
      if (kernel > 4 && padding != kernel / 2) {
        EXPECT_NE(got.plan.find("Toom-Cook product"), std::string::npos) << kernel << " wide\n" << got.plan;
      }
      for (size_t i = 0; i < 3; ++i) {
        const std::vector<double> want = exact.results[i].ToDoubles(), sizes = terms.results[i].ToDoubles();
        const std::vector<double> values = got.results[i].ToDoubles();
        const size_t columns = exact.results[i].sizes().back();
        for (size_t row = 0; row < want.size(); row += columns) {
          const double largest = *std::max_element(&sizes[row], &sizes[row] + columns);
          for (size_t k = row; k < row + columns; ++k)
            ASSERT_LE(std::abs(values[k] - want[k]), 1e-6 * largest) << kernel << " wide, result " << i << ", " << k;
        }
      }
    }
  }
}

TEST(ToomCook, IsLeftOutOnRequest) {
  EXPECT_EQ(RunConvolution(kFloat32, 3, 1, false, false).plan.find("Toom-Cook"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Seeds, BatchTilesOf, testing::Range(0, 60));

}  // namespace
}  // namespace gradweave
