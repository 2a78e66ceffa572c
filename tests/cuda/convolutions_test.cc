// Generated convolutions on the emulated CUDA device, compiled for it by the build. They give the
// same bits as single ops in every form.
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/runtime/cuda/fusion/conv_program.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gtest/gtest.h"
#include "tests/cuda/fused_graphs.h"
#include "tests/cuda/generated_groups.h"

namespace gradweave {
namespace {

using ::testing::IsSupersetOf;

// Returns the features of convolution programs that this program uses.
std::set<std::string> FormsOf(const ConvProgram& program) {
  std::set<std::string> forms;
  const ConvShape& shape = program.shape;
  const ConvTiling& tiling = program.tiling;
  auto add = [&](bool has, const std::string& form) {
    if (has) forms.insert(form);
  };
  add(shape.flipped, "turned around");
  add(shape.groups > 1, "groups");
  add(program.has_bias, "bias");
  add(tiling.samples > 1, "several samples");
  add(tiling.tile_rows * tiling.cell_rows < shape.output_height, "tiles of rows");
  add(tiling.tile_columns * tiling.cell_columns < shape.output_width, "tiles of columns");
  add(tiling.cell_columns == 2 && shape.output_width % 2 == 0 && shape.output_width % (2 * tiling.tile_columns) != 0,
      "tiles over the edge");
  add(tiling.output_slots > 1, "slots of outputs");
  add(shape.outputs % (tiling.outputs * tiling.output_slots) != 0, "absent outputs");
  add(tiling.outputs * tiling.output_slots < shape.outputs, "blocks of outputs");
  add(tiling.channel_block < shape.channels, "blocks of channels");
  add(tiling.slots > tiling.tile_rows * tiling.tile_columns * tiling.samples, "absent threads");
  add(tiling.cell_columns * shape.stride_x % 2 == 0, "pairs");
  add(tiling.cell_columns * shape.stride_x % 2 != 0, "single elements");
  add(shape.output_width % 2 != 0, "odd width");
  if (program.pool.has_value()) forms.insert(program.pool->largest ? "largest" : "mean");
  add(program.program.num_axes > 0, "broadcasts");
  add(program.outputs.empty(), "a pool alone");
  add(program.outputs.size() > 1, "several results");
  return forms;
}

// Every group, with and without special values, and with every operand that an output may
// overwrite.
TEST(GeneratedConvolutions, GiveTheBitsOfSingleOps) {
  GeneratedGroups generated;
  std::set<std::string> forms;
  for (const FusedGraph& fused : ConvGraphs()) {
    SCOPED_TRACE(fused.name);
    int convolutions = 0;
    for (const FusedGroup& group : FindFusedGroups(fused.graph, kAllFusions).groups) {
      if (group.convolution == nullptr) continue;
      ++convolutions;
      forms.merge(FormsOf(*group.convolution));
      generated.ExpectBitsOfSingleOps(fused, group, "generated_convolution", true);
    }
    EXPECT_GT(convolutions, 0);
  }
  EXPECT_GT(generated.runs_in_place(), 0);
  EXPECT_THAT(forms, IsSupersetOf({"turned around",
                                   "groups",
                                   "bias",
                                   "several samples",
                                   "tiles of rows",
                                   "tiles of columns",
                                   "tiles over the edge",
                                   "slots of outputs",
                                   "absent outputs",
                                   "blocks of outputs",
                                   "blocks of channels",
                                   "absent threads",
                                   "pairs",
                                   "single elements",
                                   "odd width",
                                   "largest",
                                   "mean",
                                   "broadcasts",
                                   "a pool alone",
                                   "several results"}));
}

// Returns the convolution groups of a graph with these outputs.
std::vector<FusedGroup> ConvolutionsOf(Graph& graph, const std::vector<Value>& outputs,
                                       const FusionOptions& options = kAllFusions) {
  graph.SetOutput("results", outputs);
  std::vector<FusedGroup> groups;
  for (const FusedGroup& group : FindFusedGroups(AfterPasses(graph), options).groups) {
    if (group.convolution != nullptr) groups.push_back(group);
  }
  return groups;
}

struct Image {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {4, 3, 10, 10}), filter = scope.Input("filter", kFloat32, {3, 3, 3, 3});
  Value y = Conv2D(x, filter, {.padding = {1, 1}});
};

TEST(ConvolutionGroups, TakeActivationAndPoolAlong) {
  Image image;
  const Value active = Sigmoid(image.y);
  const std::vector<FusedGroup> groups = ConvolutionsOf(image.graph, {AvgPool2D(active, {.window = {2, 2}})});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].nodes.size(), 3);
  // The group stores neither the sums nor the activations.
  EXPECT_EQ(groups[0].outputs.size(), 1);
}

TEST(ConvolutionGroups, AddAResidual) {
  Image image;
  const std::vector<FusedGroup> groups = ConvolutionsOf(image.graph, {Relu(image.y + Exp(image.x))});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].nodes.size(), 3);
  EXPECT_EQ(groups[0].operands.size(), 3);
}

// Batch normalization in inference is a factor and a term for each channel.
TEST(ConvolutionGroups, ScaleChannelsByVariables) {
  Image image;
  const Value mean = image.scope.Input("mean", kFloat32, {3, 1, 1}),
              variance = image.scope.Input("v", kFloat32, {3, 1, 1});
  const std::vector<FusedGroup> groups = ConvolutionsOf(image.graph, {Relu((image.y - mean) * Rsqrt(variance + 1e-5))});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].nodes.size(), 4);
}

// If not all nodes fit into a program, the first ones join the group.
TEST(ConvolutionGroups, TakeWhatFits) {
  Image image;
  Value sum = Relu(image.y);
  for (int i = 0; i < 20; ++i) sum = Tanh(sum + image.scope.Input(absl::StrCat("x", i), kFloat32, sum.shape()));
  const std::vector<FusedGroup> groups = ConvolutionsOf(image.graph, {sum});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_GT(groups[0].nodes.size(), 5);
  EXPECT_LT(groups[0].nodes.size(), 30);
}

// A normalization of the result depends on the whole result.
TEST(ConvolutionGroups, LeaveWhatWaitsForTheResult) {
  Image image;
  const Value centered = image.y - Mean(image.y, {.axes = {0, 2, 3}, .keep_dims = true});
  const std::vector<FusedGroup> groups = ConvolutionsOf(image.graph, {Relu(centered)});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].nodes.size(), 1);
}

// Each has a sum that depends on the whole other result, so only one of them can include its sum.
TEST(ConvolutionGroups, DoNotWaitForEachOther) {
  Image image;
  const Value z = Conv2D(Exp(image.x), image.filter, {.padding = {1, 1}});
  const std::vector<FusedGroup> groups = ConvolutionsOf(image.graph, {image.y + Mean(z), z - Mean(image.y)});
  ASSERT_EQ(groups.size(), 2);
  EXPECT_EQ(groups[0].nodes.size() + groups[1].nodes.size(), 3);
}

TEST(ConvolutionGroups, LeavePoolsWhoseWindowsOverlapOrArePadded) {
  for (const Pool2DOptions& options :
       {Pool2DOptions{.window = {2, 2}, .stride = {1, 1}}, Pool2DOptions{.window = {2, 2}, .padding = {1, 1}},
        Pool2DOptions{.window = {3, 3}}}) {
    Image image;
    const std::vector<FusedGroup> groups = ConvolutionsOf(image.graph, {MaxPool2D(Relu(image.y), options)});
    ASSERT_EQ(groups.size(), 1);
    EXPECT_EQ(groups[0].nodes.size(), 2);
  }
}

TEST(ConvolutionGroups, AreOfFewChannels) {
  auto groups_of = [](int64_t channels, int most) {
    Graph graph;
    Scope scope(graph);
    const Value y =
        Conv2D(scope.Input("x", kFloat32, {2, channels, 8, 8}), scope.Input("filter", kFloat32, {4, channels, 3, 3}));
    return ConvolutionsOf(graph, {y}, {.convolution_channels = most}).size();
  };
  EXPECT_EQ(groups_of(32, 32), 1);
  EXPECT_EQ(groups_of(33, 32), 0);
  EXPECT_EQ(groups_of(33, 0), 0);
  EXPECT_EQ(groups_of(128, 128), 1);
}

// A kernel for distant taps would read everything between them.
TEST(ConvolutionGroups, AreOfTapsThatAreNear) {
  auto groups_of = [](int64_t dilation) {
    Graph graph;
    Scope scope(graph);
    const Value y = Conv2D(scope.Input("x", kFloat32, {2, 1, 1, 300}), scope.Input("filter", kFloat32, {2, 1, 1, 3}),
                           {.dilation = {1, dilation}});
    return ConvolutionsOf(graph, {y}).size();
  };
  EXPECT_EQ(groups_of(32), 1);
  EXPECT_EQ(groups_of(33), 0);
}

// The search is fast even for thousands of convolutions, each of which precedes the activation of
// another.
TEST(ConvolutionGroups, AreFoundInLargeGraphs) {
  Graph graph;
  Scope scope(graph);
  const Value filter = scope.Input("filter", kFloat32, {1, 1, 3, 3});
  std::vector<Value> sums, results;
  for (int i = 0; i < 3000; ++i) {
    sums.push_back(Conv2D(scope.Input(absl::StrCat("x", i), kFloat32, {1, 1, 4, 4}), filter));
    if (i > 0) results.push_back(Relu(sums[i - 1]));
  }
  results.push_back(sums.back());
  graph.SetOutput("results", results);
  EXPECT_EQ(FindFusedGroups(graph, kAllFusions).groups.size(), 3000);
}

}  // namespace
}  // namespace gradweave
