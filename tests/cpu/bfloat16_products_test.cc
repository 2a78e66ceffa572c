// Products of bfloat16 numbers on the CPU: which ones have a kernel of their own, and their results.
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kKernel[] = "bfloat16 product";

Tensor Numbers(const std::vector<int64_t>& sizes, float step) {
  Tensor tensor(kFloat32, sizes);
  for (int64_t i = 0; i < tensor.num_elements(); ++i)
    tensor.mutable_data<float>()[i] = std::sin(step * static_cast<float>(i + 1));
  return tensor;
}

std::vector<double> Rounded(const Tensor& x) { return x.Cast(kBFloat16).ToDoubles(); }

Session MakeSession(const Graph& graph, std::optional<DType> half, int threads = 2) {
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = threads, .mixed_precision = half});
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

// Two dense layers.
struct Model {
  Graph graph;
  Value x, hidden, y, w1, w2;
  Update step;

  Model() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("batch"), 50});
    w1 = scope.Variable("w1", scope.Constant(Numbers({50, 70}, 0.7f)));
    w2 = scope.Variable("w2", scope.Constant(Numbers({70, 10}, 0.3f)));
    hidden = Relu(MatMul(x, w1));
    y = MatMul(hidden, w2);
    step = optim::Sgd{.learning_rate = 0.01}.Minimize(Mean(Square(y)));
  }
};

TEST(BFloat16Products, BothOperandsAreRoundedAndSumsAreFloat32) {
  const Model model;
  Session session = MakeSession(model.graph, kBFloat16);
  const Tensor x = Numbers({33, 50}, 0.9f);
  EXPECT_THAT(*session.DescribePlan({{model.x, x}}, {model.y}), HasSubstr(kKernel));
  const std::vector<double> a = Rounded(x), b = Rounded(Numbers({50, 70}, 0.7f));
  const Tensor hidden = (*session.Run({{model.x, x}}, {model.hidden}))[0];
  for (int64_t row = 0; row < 33; ++row) {
    for (int64_t column = 0; column < 70; ++column) {
      double sum = 0;
      for (int64_t term = 0; term < 50; ++term) sum += a[row * 50 + term] * b[term * 70 + column];
      // The result is rounded to bfloat16, which has 8 bits.
      EXPECT_NEAR(hidden.data<float>()[row * 70 + column], std::max(sum, 0.0), std::abs(sum) / 256 + 1e-5);
    }
  }
}

TEST(BFloat16Products, OtherTypesHaveTheirOwnKernels) {
  const Model model;
  const Feed feed = {model.x, Numbers({33, 50}, 0.9f)};
  EXPECT_THAT(*MakeSession(model.graph, kFloat16).DescribePlan({feed}, {model.y}), Not(HasSubstr(kKernel)));
  EXPECT_THAT(*MakeSession(model.graph, std::nullopt).DescribePlan({feed}, {model.y}), Not(HasSubstr(kKernel)));
}

TEST(BFloat16Products, TrainingGivesTheSameBitsForAnyThreads) {
  const Model model;
  std::vector<Tensor> first;
  for (int threads : {1, 2, 5}) {
    Session session = MakeSession(model.graph, kBFloat16, threads);
    for (int64_t batch : {64, 64, 31}) {
      ASSERT_TRUE(session.Run({{model.x, Numbers({batch, 50}, 0.9f)}}, {model.step}).ok());
    }
    std::vector<Tensor> now = {*session.GetVariable("w1"), *session.GetVariable("w2")};
    if (first.empty()) first = now;
    for (size_t i = 0; i < now.size(); ++i) {
      EXPECT_EQ(std::memcmp(now[i].raw_data(), first[i].raw_data(), now[i].byte_size()), 0) << threads << " threads";
    }
    // The weights have changed, so inference packs them again.
    const Tensor x = Numbers({7, 50}, 0.2f);
    Session fresh = MakeSession(model.graph, kBFloat16, threads);
    ASSERT_TRUE(fresh.SetVariable("w1", now[0]).ok() && fresh.SetVariable("w2", now[1]).ok());
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ((*session.Run({{model.x, x}}, {model.y}))[0].ToDoubles(),
                (*fresh.Run({{model.x, x}}, {model.y}))[0].ToDoubles());
    }
  }
}

// Products by batch, with every transposition, stored halves and a broadcast operand.
TEST(BFloat16Products, BatchesAndTranspositions) {
  for (int layout = 0; layout < 4; ++layout) {
    SCOPED_TRACE(layout);
    const MatMulOptions options = {.transpose_a = (layout & 1) != 0, .transpose_b = (layout & 2) != 0};
    Graph graph;
    Scope scope(graph);
    const Value a = scope.Input("a", kFloat32, {3, options.transpose_a ? 40 : 17, options.transpose_a ? 17 : 40});
    const Value b = scope.Input("b", kBFloat16, {2, 1, options.transpose_b ? 9 : 40, options.transpose_b ? 40 : 9});
    const Value y = Cast(MatMul(Cast(a, kBFloat16), b, options), kFloat32);
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    Session session = MakeSession(graph, std::nullopt);
    const Tensor x = Numbers({3, a.shape()[1].size(), a.shape()[2].size()}, 0.9f);
    const Tensor z = Numbers({2, 1, b.shape()[2].size(), b.shape()[3].size()}, 0.4f).Cast(kBFloat16);
    EXPECT_THAT(*session.DescribePlan({{a, x}, {b, z}}, {y}), HasSubstr(kKernel));
    const Tensor result = (*session.Run({{a, x}, {b, z}}, {y}))[0];
    const std::vector<double> left = Rounded(x), right = z.ToDoubles(), found = result.ToDoubles();
    for (int64_t i = 0; i < result.num_elements(); ++i) {
      const int64_t column = i % 9, row = i / 9 % 17, matrix = i / (9 * 17) % 3, outer = i / (9 * 17 * 3);
      double sum = 0;
      for (int64_t term = 0; term < 40; ++term) {
        sum += left[matrix * 680 + (options.transpose_a ? term * 17 + row : row * 40 + term)] *
               right[outer * 360 + (options.transpose_b ? column * 40 + term : term * 9 + column)];
      }
      EXPECT_NEAR(found[i], sum, std::abs(sum) / 256 + 1e-5) << i;
    }
  }
}

// A convolution and its gradients, of operands in a dtype.
struct Convolution {
  Graph graph;
  Value x, filter, bias, factor;
  std::vector<Fetch> results;  // y, dx and the gradient of the filter.

  Convolution(DType dtype, const std::vector<int64_t>& image, const std::vector<int64_t>& weights,
              const Conv2DOptions& options) {
    Scope scope(graph);
    const auto rounded = [&](const Value& value) { return dtype == kFloat32 ? RoundToBFloat16(value) : value; };
    const auto shape = [](const std::vector<int64_t>& sizes) {
      return Shape(std::vector<Dim>(sizes.begin(), sizes.end()));
    };
    x = scope.Input("x", dtype, shape(image));
    filter = scope.Input("filter", dtype, shape(weights));
    bias = scope.Input("bias", dtype, {Dim(weights[0])});
    const Value y = Conv2D(rounded(x), rounded(filter), bias, options);
    factor = scope.Input("factor", dtype, y.shape());
    results = {y};
    for (const Value& gradient : Gradients({Sum(y * rounded(factor))}, {x, filter})) results.push_back(gradient);
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }
};

TEST(BFloat16Products, ConvolutionsAndTheirGradients) {
  const struct {
    std::vector<int64_t> image, filter;
    Conv2DOptions options;
  } cases[] = {
      {{2, 96, 3, 5}, {96, 96, 3, 3}, {.padding = {1, 1}}},
      {{2, 100, 6, 4}, {97, 100, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
      {{2, 130, 3, 5}, {113, 130, 1, 1}, {}},
      {{1, 96, 4, 3}, {96, 96, 5, 5}, {.stride = {2, 2}, .padding = {2, 2}}},
      {{1, 192, 4, 4}, {200, 96, 3, 3}, {.groups = 2}},
      {{1, 96, 5, 7}, {98, 96, 2, 3}, {.stride = {1, 3}, .dilation = {2, 1}}},
      {{1, 96, 1, 270}, {96, 96, 1, 1}, {.padding = {0, 2}}},
  };
  for (const auto& c : cases) {
    Convolution conv(kFloat32, c.image, c.filter, c.options), exact(kFloat64, c.image, c.filter, c.options);
    SCOPED_TRACE(conv.x.type().ToString() + ", " + conv.filter.type().ToString());
    std::vector<int64_t> sizes;
    for (int i = 0; i < 4; ++i) sizes.push_back(conv.factor.shape()[i].size());
    const Tensor x = Numbers(c.image, 0.9f), filter = Numbers(c.filter, 0.7f), factor = Numbers(sizes, 0.3f),
                 bias = Numbers({c.filter[0]}, 0.5f);
    const auto wide = [](const Tensor& numbers) { return numbers.Cast(kBFloat16).Cast(kFloat64); };
    Session reference = MakeSession(exact.graph, std::nullopt);
    const absl::StatusOr<std::vector<Tensor>> expected = reference.Run({{exact.x, wide(x)},
                                                                        {exact.filter, wide(filter)},
                                                                        {exact.factor, wide(factor)},
                                                                        {exact.bias, bias.Cast(kFloat64)}},
                                                                       exact.results);
    ASSERT_TRUE(expected.ok()) << expected.status();
    std::vector<std::vector<double>> first;
    for (int threads : {1, 3}) {
      Session session = MakeSession(conv.graph, std::nullopt, threads);
      const std::vector<Feed> feeds = {{conv.x, x}, {conv.filter, filter}, {conv.factor, factor}, {conv.bias, bias}};
      const std::string plan = *session.DescribePlan(feeds, conv.results);
      size_t kernels = 0;
      for (size_t at = plan.find("bfloat16 convolution"); at != std::string::npos;
           at = plan.find("bfloat16 convolution", at + 1))
        ++kernels;
      EXPECT_GE(kernels, 3u) << plan;
      const absl::StatusOr<std::vector<Tensor>> found = session.Run(feeds, conv.results);
      ASSERT_TRUE(found.ok()) << found.status();
      for (size_t i = 0; i < 3; ++i) {
        const std::vector<double> have = (*found)[i].ToDoubles(), want = (*expected)[i].ToDoubles();
        if (threads == 1) first.push_back(have);
        EXPECT_EQ(have, first[i]) << "result " << i;
        // The gradients of roundings are rounded, to 8 bits.
        const double relative = i == 0 ? 1e-5 : 1.0 / 256;
        for (size_t k = 0; k < want.size(); ++k)
          ASSERT_NEAR(have[k], want[k], 1e-4 + relative * std::abs(want[k])) << "result " << i << ", element " << k;
      }
    }
  }
}

}  // namespace
}  // namespace gradweave
