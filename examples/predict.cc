// Loads a trained model from its file and classifies one image. It uses no code of the model.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/frontend/pictures.h"
#include "gradweave/gradweave.h"

ABSL_FLAG(std::string, model, "lenet.gw", "The model file.");
ABSL_FLAG(int64_t, index, 0, "Index of the test image, in [0, number of test images).");
ABSL_FLAG(std::string, image, "", "PNG file to classify instead of a test image: light on dark, like Fashion-MNIST.");
ABSL_FLAG(std::string, data_dir, gw::data::kFashionMnistFolder,
          "Folder with the four idx files of Fashion-MNIST, plain or .gz.");

namespace {

constexpr int64_t kSide = 28;

absl::StatusOr<gw::GrayImage> ChosenImage(std::string& title) {
  if (const std::string path = absl::GetFlag(FLAGS_image); !path.empty()) {
    GW_ASSIGN_OR_RETURN(gw::GrayImage image, gw::ReadPng(path));
    title = path;
    if (image.width == kSide && image.height == kSide) return image;
    absl::StrAppend(&title, absl::StrFormat(", resized from %d x %d", image.width, image.height));
    return gw::Resized(image, kSide, kSide);
  }
  GW_ASSIGN_OR_RETURN(gw::data::Dataset test,
                      gw::data::LoadFashionMnist(absl::GetFlag(FLAGS_data_dir), gw::data::Split::kTest));
  const int64_t index = absl::GetFlag(FLAGS_index);
  if (index < 0 || index >= test.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--index=", index, " is outside its range, [0, ", test.size(), ")"));
  }
  title = absl::StrCat("test image ", index, ", ",
                       gw::data::FashionMnistClasses()[test.Find("label")->data<int32_t>()[index]]);
  gw::GrayImage image(kSide, kSide);
  const uint8_t* pixels = test.Find("image")->data<uint8_t>() + index * kSide * kSide;
  image.pixels.assign(pixels, pixels + kSide * kSide);
  return image;
}

absl::Status Run() {
  const std::string path = absl::GetFlag(FLAGS_model);
  GW_ASSIGN_OR_RETURN(gw::Model model, gw::LoadModel(path));
  std::string title;
  GW_ASSIGN_OR_RETURN(gw::GrayImage image, ChosenImage(title));
  const gw::NodeId input = model.graph.FindNamed("image");
  const std::vector<gw::Value> probabilities = model.graph.Output("probabilities");
  if (input < 0 || probabilities.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the model has no input 'image' or no output 'probabilities'"));
  }
  gw::Tensor pixels(gw::kUint8, {1, 1, kSide, kSide});
  std::copy(image.pixels.begin(), image.pixels.end(), pixels.mutable_data<uint8_t>());
  // The loader scales the pixels as it does in training.
  gw::data::BatchLoader loader({{"image", pixels}}, {.shuffle = false});
  loader.StartEpoch(0);
  const gw::data::Batch* const batch = loader.Next();
  if (batch == nullptr) return loader.status();
  GW_ASSIGN_OR_RETURN(gw::Session session, gw::CreateSession(model));
  GW_ASSIGN_OR_RETURN(std::vector<gw::Tensor> results,
                      session.Run({{model.graph.value(input), batch->arrays[0]}}, {probabilities[0]}));

  // Prints the image with one probability next to each of its first lines.
  const std::vector<double> values = results[0].ToDoubles();
  const std::vector<std::string>& classes = gw::data::FashionMnistClasses();
  const std::string picture = gw::ToText(image);
  std::cout << title << "\n";
  for (int64_t row = 0; row < kSide; ++row) {
    std::cout << picture.substr(row * (2 * kSide + 1), 2 * kSide);
    if (row < static_cast<int64_t>(std::min(values.size(), classes.size())))
      std::cout << absl::StrFormat("  %-10s %.9f", classes[row], values[row]);
    std::cout << "\n";
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Classifies an image with a trained model.");
  absl::ParseCommandLine(argc, argv);
  if (const char* folder = std::getenv("BUILD_WORKING_DIRECTORY"); folder != nullptr && chdir(folder) != 0) return 1;
  const absl::Status status = Run();
  if (status.ok()) return 0;
  std::cerr << "predict: " << status.message() << std::endl;
  return 1;
}
