// The subcommands that work on graphs: grad, compare and dot.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "tests/command/command_runner.h"

namespace gradweave {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

using GraphTest = CommandTest;

TEST_F(GraphTest, GradAddsGradientsAsOutputs) {
  // The gradient of sum(w * x^2) is x^2 for w, and 2*w*x for x.
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {2});
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2}, {3, 5})));
  graph.SetOutput("y", {w * Square(x)});
  graph.SetOutput("count", {Cast(Sum(x), kInt32)});
  ASSERT_TRUE(SaveModel(*Session::Create(graph), Path("small.gw")).ok());
  ASSERT_TRUE(data::WriteNpy(Path("x.npy"), Tensor::Of<float>({2}, {2, -1})).ok());

  EXPECT_THAT(RunOk("grad small.gw --loss y --wrt x,w -o gradients.gw"),
              HasSubstr("and the outputs\n  grad/x  float32[2]\n  grad/w  float32[2]\n"));
  EXPECT_EQ(RunOk("run gradients.gw --input x=x.npy --outputs=grad/x,grad/w,y"),
            "grad/x  float32[2]\n  12  -10\ngrad/w  float32[2]\n  4  1\ny  float32[2]\n  12  5\n");
  // An ONNX file has them too.
  RunOk("grad small.gw --loss y --wrt x,w -o gradients.onnx");
  EXPECT_EQ(RunOk("run gradients.onnx --input x=x.npy --outputs=grad/x,grad/w,y"),
            "grad/x  float32[2]\n  12  -10\ngrad/w  float32[2]\n  4  1\ny  float32[2]\n  12  5\n");
  // A gradient of a gradient: 2*w for the sum of grad/x.
  RunOk("grad gradients.gw --loss grad/x --wrt x -o second.gw");
  EXPECT_EQ(RunOk("run second.gw --input x=x.npy --outputs=grad/x"), "grad/x  float32[2]\n  6  10\n");

  EXPECT_THAT(RunOk("grad small.gw --loss y -o trainable.gw"), Not(HasSubstr("grad/x")));
  ExpectError("grad small.gw --loss z -o new.gw", 1, "grad: the model has no output 'z'; did you mean 'y'?");
  ExpectError("grad small.gw --loss count -o new.gw", 1, "grad: output 'count' is not a single floating value");
  ExpectError("grad small.gw --loss y --wrt v -o new.gw", 1,
              "grad: the model has no variable or input 'v'; did you mean 'w'?");
  ExpectError("grad small.gw -o new.gw", 2, "grad: --loss=NAME is expected, the output to differentiate");
  ExpectError("grad small.gw --loss y", 2, "grad: -o FILE is expected, the file to write");
  ExpectError("grad small.gw --loss y -o none/new.gw", 1,
              "grad: none/new.gw: the file cannot be written: No such file or directory");
  EXPECT_FALSE(Exists("new.gw"));
}

TEST_F(GraphTest, GradOfATrainingGraphIsWhatTheStepUses) {
  SaveLeNetStep();
  EXPECT_THAT(RunOk("grad step.gw --loss loss -o gradients.gw"), HasSubstr("  grad/dense_3/bias     float32[10]\n"));
  // The gradient of a bias behind softmax cross-entropy sums up to 0.
  RunOk("run gradients.gw --random --outputs=grad/dense_3/bias --output_dir out");
  const Tensor gradient = *data::ReadNpy(Path("out/grad_dense_3_bias.npy"));
  double sum = 0, largest = 0;
  for (const double value : gradient.ToDoubles()) {
    sum += value;
    largest = std::max(largest, std::abs(value));
  }
  EXPECT_NEAR(sum, 0, 1e-6);
  EXPECT_GT(largest, 0.1);
}

TEST_F(GraphTest, CompareFindsTheFirstNodeThatDiffers) {
  SaveLeNet();
  EXPECT_EQ(RunOk("compare lenet.gw --device=cpu,cpu --tolerance=0"),
            "cpu beside cpu\n"
            "  output         type           largest difference  relative\n"
            "  logits         float32[1,10]                   0         0  equal\n"
            "  probabilities  float32[1,10]                   0         0  equal\n");
  EXPECT_THAT(RunOk("compare lenet.gw --no-passes --shape image=64,1,28,28"),
              ContainsRegex("^every value kept beside the plan for cpu\n.*\n  logits .* equal\n.* equal\n$"));
  ExpectError("compare lenet.gw", 2, "compare: --device=FIRST,SECOND is expected, or --no_passes with one device");
  ExpectError("compare lenet.gw --no-passes --outputs=logit", 1,
              "compare: the model has no output 'logit'; did you mean 'logits'?");
  ExpectError("compare lenet.gw --no-passes --tolerance=-1", 1, "compare: --tolerance has to be at least 0");

  // Random numbers are the same on both sides; a NaN beside a NaN is no difference.
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  graph.SetOutput("noise", {RandomNormal(scope, {3, 3}) + Sum(x)});
  graph.SetOutput("nan", {Log(x - 2)});
  ASSERT_TRUE(SaveModel(*Session::Create(graph), Path("random.gw")).ok());
  EXPECT_THAT(RunOk("compare random.gw --no-passes --tolerance=0"), HasSubstr("  nan     float32[1]"));
}

TEST_F(GraphTest, CompareNamesADifference) {
  // Tiles sum up products in another order than one product of all samples, on every processor.
  Graph graph;
  Scope scope(graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), 3, 32, 32});
  const nn::Sequential net{nn::Conv2D{.channels = 16, .kernel = 3, .padding = 1},
                           nn::Relu{},
                           nn::Conv2D{.channels = 16, .kernel = 3, .padding = 1},
                           nn::Relu{},
                           nn::Flatten{},
                           nn::Dense{10}};
  graph.SetOutput("logits", {net(scope, image)});
  ASSERT_TRUE(SaveModel(*Session::Create(graph, {.seed = 1}), Path("net.gw")).ok());
  const CommandResult result = Run("compare net.gw --no-passes --tolerance=0 --shape image=64,3,32,32");
  EXPECT_EQ(result.code, 1) << result.err;
  EXPECT_THAT(result.out, HasSubstr(" different\n"));
  EXPECT_THAT(result.out, ContainsRegex("first node that differs: Conv2D.*relative difference [0-9.]+e-0[5-9]\n$"));
}

TEST_F(GraphTest, DotDrawsRolesScopesAndShapes) {
  SaveLeNetStep();
  EXPECT_EQ(RunOk("dot step.gw -o all.dot"), "all.dot\n");
  const std::string all = ReadFile("all.dot");
  EXPECT_THAT(all, HasSubstr("label=\"image\\nfloat32[batch,1,28,28]\", shape=ellipse, fillcolor=\"#cfe2ff\""));
  EXPECT_THAT(all, HasSubstr(" {\n    label=\"conv2d_1\"; "));
  EXPECT_THAT(all, HasSubstr("[label=\"Conv2DInputGrad\", shape=box, fillcolor=\"#ffe0b3\"]"));
  EXPECT_THAT(all, HasSubstr("[label=\"Assign\", shape=box, fillcolor=\"#d5f0d0\"]"));
  EXPECT_THAT(all, HasSubstr("[label=\"learning_rate\\nfloat32[]\", shape=cylinder, fillcolor=\"#d5f0d0\"]"));
  EXPECT_THAT(all, HasSubstr(" [label=\"[batch,6,28,28]\"];\n"));
  EXPECT_THAT(all, Not(HasSubstr("RandomUniform")));  // Initial values are left out.

  // Folding: the update first, then scopes, gradients, and scopes with numbers.
  const std::vector<std::pair<int, std::string>> boxes = {
      {90, "update"}, {60, "conv2d_1"}, {30, "gradients"}, {20, "dense (3 times)"}};
  for (const auto& [most, folded] : boxes) {
    RunOk(absl::StrCat("dot step.gw -o folded.dot --max_nodes=", most));
    const std::string text = ReadFile("folded.dot");
    int count = 0;
    for (absl::string_view line : absl::StrSplit(text, '\n')) {
      count += line.find("  b") != line.npos && line.find(" -> ") == line.npos ? 1 : 0;
    }
    EXPECT_LE(count, most);
    EXPECT_THAT(text, HasSubstr(absl::StrCat("[label=\"", folded, "\\n"))) << most;
  }
  RunOk("dot step.gw -o part.dot --outputs=logits");
  EXPECT_THAT(ReadFile("part.dot"), Not(HasSubstr("Assign")));
}

TEST_F(GraphTest, DotCallsGraphviz) {
  SaveLeNet();
  // A program in the place of Graphviz's: it writes its arguments and the text that it was given.
  WriteFile("dot", "#!/bin/sh\n[ \"$1 $2\" = '-Tsvg -o' ] || exit 1\n{ echo picture; /bin/cat \"$4\"; } >\"$3\"\n");
  ASSERT_EQ(std::system(absl::StrCat("chmod +x '", Path("dot"), "'").c_str()), 0);
  const CommandResult svg = Run("dot lenet.gw -o lenet.svg", "PATH=.:/bin");
  EXPECT_EQ(svg.code, 0) << svg.err;
  EXPECT_THAT(ReadFile("lenet.svg"), HasSubstr("picture\ndigraph gradweave {\n"));
  const CommandResult failed = Run("dot lenet.gw -o lenet.png", "PATH=.:/bin");
  EXPECT_EQ(failed.code, 1);
  EXPECT_EQ(failed.err, "gradweave dot: lenet.png: Graphviz's program dot has failed\n");
  const CommandResult none = Run("dot lenet.gw -o lenet.pdf", "PATH=/nowhere");
  EXPECT_EQ(none.code, 1);
  EXPECT_EQ(none.err,
            "gradweave dot: lenet.pdf: pdf needs Graphviz's program dot, which is not here; apt-get install graphviz, "
            "or write a file .dot\n");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) files += entry.path().filename() != "dot";
  EXPECT_EQ(files, 4);  // lenet.gw, lenet.svg, .out and .err.
  ExpectError("dot lenet.gw -o lenet.jpg", 2, "dot: -o lenet.jpg: a file .dot, .svg, .png or .pdf is expected");
  ExpectError("dot lenet.gw -o x.dot --max_nodes=0", 1, "dot: --max_nodes=0 is outside its range, [1, 1000000]");
}

}  // namespace
}  // namespace gradweave
