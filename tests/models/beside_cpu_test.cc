// Compares a GPU with the CPU: equal training curves, and products with the requested precision.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "examples/lenet_layers.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/models/reference.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

Session MakeSession(const Graph& graph, const SessionOptions& options) {
  absl::StatusOr<Session> session = Session::Create(graph, options);
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

// Trains the book's LeNet on batches of 256 images, which differ in each step: a bright bar in the
// row of the class, with noise. Returns the losses.
std::vector<double> LossesOfLeNet(const Device& device, int steps) {
  constexpr int64_t kSamples = 256, kSide = 28;
  Graph graph;
  Scope scope(graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, kSide, kSide});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  const Value loss = nn::SoftmaxCrossEntropy(examples::LeNet()(scope, image), label);
  const Update step = optim::Sgd{.learning_rate = 0.9}.Minimize(loss);
  Session session = MakeSession(graph, {.device = device, .seed = 1});
  std::vector<double> losses;
  for (int i = 0; i < steps; ++i) {
    Tensor images = Numbers(kFloat32, 1000 + i, {kSamples, 1, kSide, kSide}, 0, 0.2);
    const Tensor labels = IntegerNumbers(kInt32, 2000 + i, {kSamples}, 10);
    for (int64_t sample = 0; sample < kSamples; ++sample) {
      float* bar = images.mutable_data<float>() + (sample * kSide + 2 * labels.data<int32_t>()[sample] + 4) * kSide;
      for (int64_t pixel = 0; pixel < 2 * kSide; ++pixel) bar[pixel] += 0.8f;
    }
    const absl::StatusOr<std::vector<Tensor>> results = session.Run({{image, images}, {label, labels}}, {loss, step});
    EXPECT_TRUE(results.ok()) << results.status();
    losses.push_back(results.ok() ? (*results)[0].ToDouble() : NAN);
  }
  return losses;
}

TEST(BesideTheCpu, LeNetHasTheSameTrainingCurve) {
  constexpr int kSteps = 50;
  const std::vector<double> want = LossesOfLeNet(Device::Cpu(), kSteps), got = LossesOfLeNet(TestDevice(), kSteps);
  double largest = 0;
  for (int i = 0; i < kSteps; ++i) {
    EXPECT_NEAR(got[i], want[i], 1e-4 * want[i]) << "step " << i;
    largest = std::max(largest, std::abs(got[i] - want[i]) / want[i]);
  }
  // tools/gpu_check reads this property.
  RecordProperty("largest_relative_difference", absl::StrCat(largest));
}

TEST(BesideTheCpu, ProductsAreAsPreciseAsWasAskedFor) {
  constexpr int64_t kRows = 300, kInner = 200, kColumns = 250;
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Input("a", kFloat32, {kRows, kInner}), b = scope.Input("b", kFloat32, {kInner, kColumns});
  const Value product = MatMul(a, b);
  const Tensor x = Numbers(kFloat32, 1, {kRows, kInner}), y = Numbers(kFloat32, 2, {kInner, kColumns});
  // The error bounds that ProductPrecision documents, and that of sums in float32.
  const std::pair<ProductPrecision, double> bounds[] = {
      {ProductPrecision::kIeee, 1e-5}, {ProductPrecision::kTf32, 0.002}, {ProductPrecision::kBfloat16, 0.016}};
  for (const auto& [precision, bound] : bounds) {
    Session session = MakeSession(graph, {.device = TestDevice(), .cuda = {.product_precision = precision}});
    const absl::StatusOr<std::vector<Tensor>> results = session.Run({{a, x}, {b, y}}, {product});
    ASSERT_TRUE(results.ok()) << results.status();
    double largest = 0;  // Error relative to the sum of an element's absolute terms.
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      double sum = 0, absolute = 0;
      for (int64_t k = 0; k < kInner; ++k) {
        const double term = static_cast<double>(x.data<float>()[i / kColumns * kInner + k]) *
                            y.data<float>()[k * kColumns + i % kColumns];
        sum += term;
        absolute += std::abs(term);
      }
      largest = std::max(largest, std::abs((*results)[0].data<float>()[i] - sum) / absolute);
    }
    EXPECT_LE(largest, bound) << ProductPrecisionName(precision);
    RecordProperty(absl::StrCat("error_", ProductPrecisionName(precision)), absl::StrCat(largest));
  }
}

}  // namespace
}  // namespace gradweave
