// An autoencoder on Fashion-MNIST: an encoder turns each image of 784 numbers into a code of 32,
// and a decoder turns the code back into the image.
#include <unistd.h>

#include <iostream>

#include "absl/flags/flag.h"
#include "examples/example.h"
#include "examples/fashion_mnist.h"
#include "examples/fit_flags.h"

ABSL_FLAG(int64_t, code, 32, "Numbers in the code of an image, in [1, 784].");

const examples::Program kProgram{"autoencoder", "Trains an autoencoder on Fashion-MNIST.", 20, 128, 0.001};

namespace nn = gw::nn;

absl::Status Run(const examples::Flags& flags) {
  GW_ASSIGN_OR_RETURN(gw::FitOptions options, examples::FitFlags(flags));  // Epochs, batch size, seed and checkpoints.
  GW_RETURN_IF_ERROR(examples::CheckRange<int64_t>("code", absl::GetFlag(FLAGS_code), 1, 784, "[1, 784]"));
  gw::Graph graph;
  gw::Scope scope(graph);
  const gw::Value image = scope.Input("image", gw::kFloat32, {gw::Dim("batch"), 1, 28, 28});
  const nn::Sequential encoder{nn::Flatten{}, nn::Dense{256}, nn::Relu{}, nn::Dense{absl::GetFlag(FLAGS_code)}};
  const nn::Sequential decoder{nn::Dense{256}, nn::Relu{}, nn::Dense{784}, nn::Sigmoid{}, nn::Reshape{{1, 28, 28}}};
  const gw::Value decoded = nn::Sequential{encoder, decoder}(scope, image);
  const gw::Value loss = nn::MeanSquaredError(decoded, image);
  const gw::Update step = examples::Minimize(flags, gw::optim::Adam{.learning_rate = flags.learning_rate}, loss);

  GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, flags.session));
  GW_ASSIGN_OR_RETURN(gw::data::Dataset train, examples::FashionMnist(gw::data::Split::kTrain));
  GW_ASSIGN_OR_RETURN(gw::data::Dataset test, examples::FashionMnist(gw::data::Split::kTest));
  train = train.Select({image});
  test = test.Select({image});
  gw::TrainingCurves curves;
  options.validation = test;
  options.callbacks = {gw::PrintProgress(std::cout, isatty(STDOUT_FILENO) != 0), gw::RecordCurves(curves)};
  const gw::Training training{loss, step};
  GW_RETURN_IF_ERROR(examples::AddWatchers(session, training, {.samples = test}, options));
  GW_RETURN_IF_ERROR(gw::Fit(session, training, train, options).status());
  GW_RETURN_IF_ERROR(
      examples::DrawCurves(flags, {"autoencoder on Fashion-MNIST",
                                   "epoch",
                                   {{"train loss", curves.train["loss"]}, {"test loss", curves.validation["loss"]}}}));

  // Rows of test images, each above a row with the decoder's images for their codes.
  gw::data::BatchLoader loader(test, {.batch_size = 10, .shuffle = false});
  loader.StartEpoch(0);
  std::vector<examples::ImageRow> rows;
  while (const gw::data::Batch* batch = rows.size() < 8 ? loader.Next() : nullptr) {
    GW_ASSIGN_OR_RETURN(const auto results, session.Run({{image, batch->arrays[0]}}, {image, decoded}));
    rows.push_back({"original", results[0]});
    rows.push_back({"decoded", results[1]});
  }
  return examples::DrawImages(flags, "images", rows);
}

int main(int argc, char** argv) { return examples::Main(argc, argv, Run); }
