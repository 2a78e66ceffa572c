// Each model has the trained parameters of the architecture that it stands for, and its training
// step lowers the loss.
#include "benchmarks/models.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <string>

#include "gtest/gtest.h"

namespace benchmarks {
namespace {

TEST(ModelsTest, HaveTheParametersOfTheirArchitectures) {
  // For resnet18, resnet50 and mobilenet these are the numbers in torchvision's documentation, for
  // vit those of timm's deit_tiny_patch16_224; the others are those of peers/torch_models.py.
  const std::map<std::string, int64_t> expected = {
      {"lenet", 61706},         {"mlp", 235146},        {"vgg", 82330},          {"resnet", 78042},
      {"transformer", 198272},  {"resnet18", 11689512}, {"resnet50", 25557032},  {"mobilenet", 3504872},
      {"mobilenet64", 2236682}, {"unet", 482449},       {"autoencoder", 108881}, {"lstm", 100106},
      {"gpt", 875520},          {"vit", 5717416},       {"embedding", 3204810},  {"tabular", 13130},
      {"deep_mlp", 16815114},   {"audio", 26915}};
  std::map<std::string, int64_t> found;
  for (const std::string& name : ModelNames()) found[name] = BuildModel(name).parameters;
  EXPECT_EQ(found, expected);
}

TEST(ModelsTest, TrainingStepsLowerTheLoss) {
  for (const char* name : {"lstm", "gpt", "unet", "autoencoder", "embedding", "tabular", "audio", "mobilenet64"}) {
    ModelRun run = Training(name, 2, {.threads = 1});
    run.Step();
    const float first = run.run->results()[0].values<float>()[0];
    for (int i = 0; i < 10; ++i) run.Step();
    const float last = run.run->results()[0].values<float>()[0];
    EXPECT_TRUE(std::isfinite(last)) << name;
    EXPECT_LT(last, first) << name;
  }
}

}  // namespace
}  // namespace benchmarks
