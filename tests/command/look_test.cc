// The subcommands that look at models: inspect, check and diff; and calls that are wrong.
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "tests/command/command_runner.h"

namespace gradweave {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

using LookTest = CommandTest;

TEST_F(LookTest, InspectPrintsWhatAModelHas) {
  SaveLeNet();
  const std::string text = RunOk("inspect lenet.gw --shape image=256,1,28,28 --threads=1");
  EXPECT_EQ(text.substr(0, text.find("cost")), R"(lenet.gw: a Gradweave model

inputs
  image  float32[batch,1,28,28]

outputs
  logits         float32[batch,10]  needs image
  probabilities  float32[batch,10]  needs image

parameters
  trainable  10 variables  61,706 numbers  246.8 KB

ops, 42 nodes
  Variable 10, BroadcastTo 5, Constant 5, RandomUniform 5, Sigmoid 4, Add 3, MatMul 3,
  AvgPool2D 2, Conv2D 2, Input, Reshape, Softmax

)");
  // Peak memory depends on the processor.
  EXPECT_THAT(text, ContainsRegex("\ncost of a run, batch = 256\n  output               FLOPs  peak memory\n"
                                  "  logits         216.6 MFLOP  +[0-9.]+ [KM]B\n"));
}

TEST_F(LookTest, InspectTellsTrainingStepsFromOutputs) {
  SaveLeNetStep();
  const std::string text = RunOk("inspect step.gw --variables");
  EXPECT_THAT(text, HasSubstr("  train_step     an update of 10 variables  needs image, label\n"));
  EXPECT_THAT(text, HasSubstr("  trainable  10 variables  61,706 numbers  246.8 KB\n"
                              "  other        1 variable        1 number   4 bytes\n"));
  EXPECT_THAT(text, HasSubstr("sgd/learning_rate  float32[]          no               0.9       0.9\n"));
}

// Indexed by hand: 5*5 weights and a bias for each of 6 channels, and so on; 2*25 + 1 operations
// for each of 28*28*6 elements.
TEST_F(LookTest, InspectPrintsLayersAndPlan) {
  SaveLeNet();
  const std::string text = RunOk("inspect lenet.gw --shape=image=2,1,28,28 --layers --plan");
  EXPECT_THAT(text, HasSubstr("\nconv2d_1                  float32[2,6,28,28]          156    470,400\n"));
  EXPECT_THAT(text, HasSubstr("\ndense_1                   float32[2,120]           48,120    192,240\n"));
  EXPECT_THAT(text, HasSubstr("plan of logits, probabilities\nstep "));
  EXPECT_THAT(text, HasSubstr("lower bound "));
  EXPECT_THAT(RunOk("inspect lenet.gw --outputs=logits"), Not(HasSubstr("  probabilities ")));
}

TEST_F(LookTest, CheckFindsFaults) {
  SaveLeNet();
  EXPECT_EQ(RunOk("check lenet.gw"),
            "lenet.gw: no fault found\n"
            "  format     Gradweave model\n"
            "  checksums  right\n"
            "  graph      42 nodes, 2 outputs\n"
            "  values     10 variables, 61,706 numbers, all finite\n");
  std::string bytes = ReadFile("lenet.gw");
  bytes[bytes.size() / 2] ^= 1;
  WriteFile("damaged.gw", bytes);
  const CommandResult damaged = Run("check damaged.gw");
  EXPECT_EQ(damaged.code, 1);
  EXPECT_THAT(damaged.err, HasSubstr("gradweave check: damaged.gw: "));
  ExpectError("check lenet.gw --memory_limit=1000", 1,
              absl::StrCat("check: lenet.gw: the file has ", bytes.size(), " bytes, but the limit is 1000"));
  ExpectError("check lenet.gw --memory_limit=0", 1, "check: --memory_limit=0 is outside its range, [1, 2^62]");

  Model model = *LoadModel(Path("lenet.gw"));
  model.variables[1].second = model.variables[1].second.Clone();
  model.variables[1].second.mutable_data<float>()[2] = std::nanf("");
  ASSERT_TRUE(SaveModel(model, Path("nan.gw")).ok());
  ExpectError("check nan.gw", 1,
              "check: nan.gw: variable 'conv2d_1/bias', float32[6], has 1 element that are NaN or infinite");
}

TEST_F(LookTest, DiffTellsGraphsAndWeights) {
  SaveLeNet();
  SaveLeNetStep();
  EXPECT_EQ(RunOk("diff lenet.gw lenet.gw"), "graphs: the same, 42 nodes\nvariables: the same, 10\n");
  const CommandResult step = Run("diff lenet.gw step.gw");
  EXPECT_EQ(step.code, 1);
  EXPECT_EQ(step.err, "");
  EXPECT_THAT(step.out, HasSubstr("graphs: different; the first 42 lines are the same, then\n"
                                  "  - output \"logits\" = %40\n  + %42 \"label\" = Input()"));
  EXPECT_THAT(step.out, HasSubstr("  Assign                             0      10\n"));
  EXPECT_THAT(step.out, HasSubstr("variables: 10 the same\n  + sgd/learning_rate  float32[]\n"));

  Model model = *LoadModel(Path("lenet.gw"));
  model.variables[1].second = Tensor::Of<float>({6}, {0, 0, 0.5f, 0, -2, 0});  // The bias was zeros.
  ASSERT_TRUE(SaveModel(model, Path("other.gw")).ok());
  const CommandResult other = Run("diff other.gw lenet.gw");
  EXPECT_EQ(other.code, 1);
  EXPECT_EQ(other.out,
            "graphs: the same, 42 nodes\n"
            "variables: 9 the same\n"
            "  variable       type        elements that differ  largest difference  relative\n"
            "  conv2d_1/bias  float32[6]                2 of 6                   2         1\n");
}

TEST_F(LookTest, ErrorsAreOneLine) {
  SaveLeNet();
  WriteFile("image.png", "\x89PNG\r\n\x1a\n");
  WriteFile("table.csv", "a,b\n1,2\n");
  ExpectError("inspect none.gw", 1, "inspect: none.gw: the file cannot be opened: No such file or directory");
  ExpectError("inspect .", 1, "inspect: .: this is not a regular file but a folder");
  ExpectError("inspect image.png", 1, "inspect: image.png: this is not a model but a PNG image");
  ExpectError("diff lenet.gw table.csv", 1, "diff: table.csv: this is not a model but text");
  ExpectError("inspect lenet.gw --shape imag=2,1,28,28", 1,
              "inspect: the model has no input 'imag'; did you mean 'image'?");
  ExpectError("inspect lenet.gw --shape image=2,1,28,27", 1,
              "inspect: the shape [2,1,28,27] does not fit input 'image', float32[batch,1,28,28]; size 3 has to be 28");
  ExpectError("inspect lenet.gw --shape image=2", 1,
              "inspect: the shape [2] does not fit input 'image', float32[batch,1,28,28]; 4 sizes are expected");
  ExpectError("inspect lenet.gw --shape image=0,1,28,28", 1,
              "inspect: --shape image=0,1,28,28: sizes in [1, 2^31] with commas between them are expected");
  ExpectError("inspect lenet.gw --outputs=loss", 1,
              "inspect: the model has no output 'loss'; there are 'logits' and 'probabilities'");
  ExpectError("inspect lenet.gw --device=gpu", 1,
              "inspect: 'gpu' is not a device; devices are cuda and cuda:<index>, cpu and cpu:<index>");
}

TEST_F(LookTest, WrongCallsHaveExitCode2) {
  ExpectError("inspect", 2, "inspect: an argument is missing: MODEL is expected");
  ExpectError("inspect a b", 2, "inspect: 'b' is one argument too many");
  ExpectError("inspect a --shap image=1", 2, "inspect: there is no flag --shap; did you mean '--shape'?");
  ExpectError("inspect a --nolayer", 2, "inspect: there is no flag --nolayer; did you mean '--layers'?");
  ExpectError("inspect a --threads=x", 2,
              "inspect: --threads=x has no such value; whole numbers in [0, 1024] are expected");
  ExpectError("inspect a --threads", 2, "inspect: --threads needs a value: --threads=NUMBER");
  ExpectError("inspect a --shape image", 2, "inspect: --shape=image has no such value; NAME=SIZES is expected");
  const CommandResult none = Run("");
  EXPECT_EQ(none.code, 2);
  EXPECT_EQ(none.err, "gradweave: a command is expected; gradweave --help lists them\n");
  const CommandResult near = Run("inspekt a");
  EXPECT_EQ(near.code, 2);
  EXPECT_EQ(near.err, "gradweave: there is no command 'inspekt'; did you mean 'inspect'?\n");
}

TEST_F(LookTest, FlagsAreWrittenInAnyWay) {
  SaveLeNet();
  const std::string text = RunOk("inspect lenet.gw --layers --shape image=2,1,28,28");
  EXPECT_EQ(RunOk("inspect --shape=image=2,1,28,28 --layers=true -- lenet.gw"), text);
  EXPECT_EQ(RunOk("inspect lenet.gw --layers --no-layers"), RunOk("inspect lenet.gw --nolayers"));
  EXPECT_EQ(RunOk("check lenet.gw --memory-limit 1000000"), RunOk("check lenet.gw --memory_limit=1000000"));
}

TEST_F(LookTest, HelpAndVersion) {
  EXPECT_THAT(RunOk("--help"), HasSubstr("\n  inspect  "));
  EXPECT_THAT(RunOk("inspect --help"), HasSubstr("\n  --shape=NAME=SIZES  Sizes of an input"));
  EXPECT_EQ(RunOk("help inspect"), RunOk("inspect -h"));
  EXPECT_EQ(RunOk("--version"), absl::StrCat("gradweave ", Version(), "\n"));
}

}  // namespace
}  // namespace gradweave
