// A generative adversarial network learns to draw what a discriminator takes for Fashion-MNIST.
#include <unistd.h>

#include <iostream>

#include "examples/example.h"
#include "examples/fashion_mnist.h"
#include "examples/fit_flags.h"

const examples::Program kProgram{"gan", "Trains a generator of images on Fashion-MNIST.", 6, 128, 0.001};
namespace nn = gw::nn;

absl::Status Run(const examples::Flags& flags) {
  GW_ASSIGN_OR_RETURN(gw::FitOptions options, examples::FitFlags(flags));  // Epochs, batch size, seed and checkpoints.
  gw::Graph graph;
  gw::Scope scope(graph);
  const nn::ConvTranspose2D grow{.channels = 16, .kernel = 4, .stride = 2, .padding = 1};
  const nn::ConvTranspose2D draw{.channels = 1, .kernel = 4, .stride = 2, .padding = 1};
  const nn::Conv2D shrink{.channels = 16, .kernel = 4, .stride = 2, .padding = 1};
  const nn::Sequential start{nn::Dense{32 * 7 * 7}, nn::BatchNorm{}, nn::Relu{}, nn::Reshape{{32, 7, 7}}};
  const nn::Sequential generator{start, grow, nn::BatchNorm{}, nn::Relu{}, draw, nn::Sigmoid{}};
  const nn::Sequential discriminator{shrink, nn::LeakyRelu{}, shrink, nn::LeakyRelu{}, nn::Flatten{}, nn::Dense{1}};
  const gw::Value image = scope.Input("image", gw::kFloat32, {gw::Dim("batch"), 1, 28, 28});
  const gw::Value fake = generator(scope, gw::RandomNormal(scope, {flags.fit.batch_size, 64}));
  const gw::Value real_score = discriminator(scope, image), fake_score = discriminator(scope, fake);
  // Softplus(-score) is the cross entropy to the answer "real", softplus(score) to "fake".
  const gw::Value judge_loss = gw::Mean(gw::Softplus(-real_score)) + gw::Mean(gw::Softplus(fake_score));
  const gw::Value draw_loss = gw::Mean(gw::Softplus(-fake_score));
  const gw::optim::Adam adam{.learning_rate = flags.learning_rate, .beta1 = 0.5};
  // The generator learns from the discriminator that has just learned.
  const gw::Update step =
      gw::optim::Then(examples::Minimize(flags, adam, judge_loss, gw::optim::TrainableVariables(graph, real_score)),
                      examples::Minimize(flags, adam, draw_loss, gw::optim::TrainableVariables(graph, fake)));
  // The same noise after each epoch shows the same pictures grow.
  const gw::Value noise = scope.Variable("noise", gw::RandomNormal(scope, {10, 64}), {.trainable = false});
  const gw::Value samples = generator(scope, noise, {.training = false});

  GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, flags.session));
  GW_ASSIGN_OR_RETURN(const gw::data::Dataset train, examples::FashionMnist(gw::data::Split::kTrain));
  gw::TrainingCurves curves;
  std::vector<examples::ImageRow> rows;
  const auto draw_samples = [&](gw::TrainingState& state) -> absl::Status {
    GW_ASSIGN_OR_RETURN(const auto drawn, session.Run({}, {samples}));
    rows.push_back({"epoch " + std::to_string(state.epoch + 1), drawn[0]});
    return absl::OkStatus();
  };
  options.callbacks = {gw::PrintProgress(std::cout, isatty(STDOUT_FILENO) != 0), gw::RecordCurves(curves, 1),
                       gw::Callback{.after_epoch = draw_samples}};
  const gw::Training training{judge_loss, step, {gw::metrics::Mean("generator loss", draw_loss)}};
  GW_RETURN_IF_ERROR(examples::AddWatchers(session, training, {.samples = train.Select({image})}, options));
  GW_RETURN_IF_ERROR(gw::Fit(session, training, train.Select({image}), options).status());
  GW_RETURN_IF_ERROR(examples::DrawImages(flags, "samples", rows));
  return examples::DrawCurves(
      flags, {"gan on Fashion-MNIST",
              "epoch",
              {{"discriminator loss", curves.train["loss"]}, {"generator loss", curves.train["generator loss"]}}});
}

int main(int argc, char** argv) { return examples::Main(argc, argv, Run); }
