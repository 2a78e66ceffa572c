// Trains on Fashion-MNIST to an accuracy in as few seconds as possible. The net is small and has no
// normalization, so its steps run in tiles. The recipe is one cycle of the learning rate (Smith and
// Topin, "Super-convergence", 2018), Nesterov's momentum, smooth labels, mirrored images and
// averaged weights.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "examples/fashion_mnist.h"

const examples::Program kProgram{"sprint", "Trains on Fashion-MNIST to an accuracy, as fast as possible.", 3, 64, 0.08};

ABSL_FLAG(double, target, 0.9, "The test accuracy that runs should reach, in [0, 1].");
ABSL_FLAG(int64_t, width, 8, "Channels of the first convolution, in [1, 256]; later layers have multiples of it.");
ABSL_FLAG(int64_t, runs, 1, "Number of trainings, with seeds from --seed on, in [1, 1000].");

namespace nn = gw::nn;

namespace {

// Relu after the pool has the same result as before it, and a quarter of the elements.
nn::Sequential Net(int64_t width) {
  return {nn::Conv2D{.channels = width, .kernel = 5, .padding = 2},
          nn::MaxPool2D{},
          nn::Relu{},
          nn::Conv2D{.channels = 2 * width, .kernel = 3, .padding = 1},
          nn::MaxPool2D{},
          nn::Relu{},
          nn::Flatten{},
          nn::Dense{16 * width},
          nn::Relu{},
          nn::Dense{10}};
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

absl::Status Run(const examples::Flags& flags) {
  const double target = absl::GetFlag(FLAGS_target);
  const int64_t width = absl::GetFlag(FLAGS_width), runs = absl::GetFlag(FLAGS_runs);
  GW_RETURN_IF_ERROR(examples::CheckRange<double>("target", target, 0, 1, "[0, 1]"));
  GW_RETURN_IF_ERROR(examples::CheckRange<int64_t>("width", width, 1, 256, "[1, 256]"));
  GW_RETURN_IF_ERROR(examples::CheckRange<int64_t>("runs", runs, 1, 1000, "[1, 1000]"));
  GW_ASSIGN_OR_RETURN(gw::data::Dataset train, examples::FashionMnist(gw::data::Split::kTrain));
  GW_ASSIGN_OR_RETURN(const gw::data::Dataset test, examples::FashionMnist(gw::data::Split::kTest));
  train = gw::data::RandomFlips(train, "image");

  gw::Graph graph;
  gw::Scope scope(graph);
  const gw::Value image = scope.Input("image", gw::kFloat32, {gw::Dim("batch"), 1, 28, 28});
  const gw::Value label = scope.Input("label", gw::kInt32, {gw::Dim("batch")});
  const gw::Value x = (image - 0.2860) / 0.3530;  // The mean and the standard deviation of the training images.
  const nn::Sequential net = Net(width);
  const gw::Value loss = nn::SoftmaxCrossEntropy(net(scope, x), label, {.label_smoothing = 0.05});
  const int64_t steps = (train.size() + flags.fit.batch_size - 1) / flags.fit.batch_size;
  const gw::optim::Sgd sgd{
      .learning_rate = gw::optim::OneCycle(flags.learning_rate, flags.fit.epochs * steps, {.warmup = 0.2}),
      .momentum = 0.9,
      .nesterov = true,
      .weight_decay = 2e-4};
  const gw::optim::WeightAverages averages =
      gw::optim::AverageWeights(examples::Minimize(flags, sgd, loss), {.decay = 0.98});
  const gw::Value logits = net(scope, x, {.training = false, .values = averages.values});
  const gw::Metric accuracy = gw::metrics::Accuracy(logits, label);

  std::vector<double> seconds, accuracies;
  gw::TrainingCurves curves;
  for (int64_t run = 0; run < runs; ++run) {
    gw::SessionOptions session_options = flags.session;
    gw::FitOptions fit = flags.fit;
    session_options.seed = fit.seed = flags.fit.seed + run;
    fit.read_every = steps;
    fit.callbacks = {gw::RecordCurves(curves)};
    const auto start = std::chrono::steady_clock::now();
    GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, session_options));
    GW_RETURN_IF_ERROR(gw::Fit(session, {loss, averages.step}, train, fit).status());
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    GW_ASSIGN_OR_RETURN(const gw::MetricValues values, gw::Evaluate(session, {accuracy}, test));
    accuracies.push_back(values["accuracy"]);
    std::cout << absl::StrFormat("seed %d: %.2f s, test accuracy %.4f", fit.seed, seconds.back(), accuracies.back())
              << std::endl;
  }
  const auto reached = std::count_if(accuracies.begin(), accuracies.end(), [&](double a) { return a >= target; });
  std::cout << absl::StrFormat("median: %.2f s, test accuracy %.4f; %d of %d runs reached %g", Median(seconds),
                               Median(accuracies), reached, runs, target)
            << std::endl;
  return examples::DrawCurves(flags, {"the last run of sprint", "epoch", {{"train loss", curves.train["loss"]}}});
}

}  // namespace

int main(int argc, char** argv) { return examples::Main(argc, argv, Run); }
