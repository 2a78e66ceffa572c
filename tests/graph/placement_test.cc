// Placement: the device of each node, and the copies between devices.
#include "gradweave/graph/passes/placement.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/graph/verify.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The device has kernels for all ops except those in `missing`.
Placement PlaceOn(const std::string& device, const Graph& graph, const std::vector<std::string>& missing = {}) {
  absl::StatusOr<Placement> placed = Place(graph, {.device = device, .check = [&](const Node& node, absl::string_view) {
                                                     for (const std::string& op : missing) {
                                                       if (node.op->name == op)
                                                         return absl::UnimplementedError("there is no kernel for it");
                                                     }
                                                     return absl::OkStatus();
                                                   }});
  EXPECT_TRUE(placed.ok()) << placed.status();
  EXPECT_TRUE(VerifyGraph(placed->graph).ok());
  return *std::move(placed);
}

// Returns "Relu@cpu:0" for each node, in order.
std::vector<std::string> Nodes(const Graph& graph) {
  std::vector<std::string> nodes;
  for (const Node& node : graph.nodes()) nodes.push_back(node.op->name + "@" + node.device);
  return nodes;
}

TEST(Placement, GivesNodesTheDefaultDevice) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  graph.SetOutput("y", {Relu(x * 2)});
  EXPECT_THAT(Nodes(PlaceOn("cuda:0", graph).graph), ElementsAre("Input@", "Constant@", "Mul@cuda:0", "Relu@cuda:0"));
  EXPECT_THAT(Nodes(PlaceOn("cpu", graph).graph), ElementsAre("Input@", "Constant@", "Mul@cpu:0", "Relu@cpu:0"));
}

TEST(Placement, CopiesAValueOnceForADevice) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  const Value y = Relu(x);
  scope.SetDevice("cpu");
  const Value a = Exp(y), b = Tanh(y);
  scope.SetDevice("");
  graph.SetOutput("z", {Add(a, b)});
  EXPECT_THAT(Nodes(PlaceOn("cuda:0", graph).graph),
              ElementsAre("Input@", "Relu@cuda:0", "Copy@cpu:0", "Exp@cpu:0", "Tanh@cpu:0", "Copy@cuda:0",
                          "Copy@cuda:0", "Add@cuda:0"));
}

TEST(Placement, BringsAValueBackWithoutACopy) {
  Graph graph;
  Scope scope(graph);
  const Value x = Relu(scope.Input("x", kFloat32, {4}));
  scope.SetDevice("cpu");
  const Value there = Copy(x);
  scope.SetDevice("");
  graph.SetOutput("y", {Exp(there)});
  // The copy is not needed, but the user asked for it.
  EXPECT_THAT(Nodes(PlaceOn("cuda:0", graph).graph), ElementsAre("Input@", "Relu@cuda:0", "Copy@cpu:0", "Exp@cuda:0"));
}

TEST(Placement, MovesWhatTheDeviceCannotRunAndSaysSo) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  graph.SetOutput("y", {Exp(Tanh(Relu(Tanh(x))))});
  const Placement placement = PlaceOn("cuda:1", graph, {"Tanh"});
  EXPECT_THAT(Nodes(placement.graph), ElementsAre("Input@", "Tanh@cpu:0", "Copy@cuda:1", "Relu@cuda:1", "Copy@cpu:0",
                                                  "Tanh@cpu:0", "Copy@cuda:1", "Exp@cuda:1"));
  EXPECT_THAT(placement.moved,
              ElementsAre("Tanh runs on the CPU and not on cuda:1: there is no kernel for it (2 nodes)"));
}

TEST(Placement, LeavesViewsWhereTheirOperandIs) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  scope.SetDevice("cpu:0");
  const Value y = Relu(x);
  scope.SetDevice("");
  graph.SetOutput("z", {Reshape(y, {2, 2})});
  const Placement placement = PlaceOn("cuda:0", graph);
  EXPECT_THAT(Nodes(placement.graph), ElementsAre("Input@", "Relu@cpu:0", "Reshape@cpu:0"));
  EXPECT_THAT(placement.moved, IsEmpty());
}

TEST(Placement, KeepsAVariableWhereItsNewValueIsMade) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  const Value trained = scope.Variable("trained", scope.Constant(Tensor(kFloat32, {4})));
  const Value read = scope.Variable("read", scope.Constant(Tensor(kFloat32, {4})));
  scope.SetDevice("cpu");
  const Value on_cpu = Exp(trained) + read;
  scope.SetDevice("");
  graph.SetOutput("y", {on_cpu, Assign(trained, Sub(trained, x))});
  const Graph placed = PlaceOn("cuda:0", graph).graph;
  EXPECT_EQ(placed.node(placed.FindNamed("trained")).device, "cuda:0");
  EXPECT_EQ(placed.node(placed.FindNamed("read")).device, "cpu:0");
  int copies = 0;
  for (const Node& node : placed.nodes()) {
    if (node.op->name == "Assign") {
      EXPECT_EQ(node.device, "cuda:0");
    }
    copies += node.op->name == "Copy";
  }
  EXPECT_EQ(copies, 1);  // The trained variable is copied to the CPU.
}

TEST(Placement, PutsAVariableWhereItsNodeSays) {
  Graph graph;
  Scope scope(graph);
  scope.SetDevice("cpu");
  const Value v = scope.Variable("v", scope.Constant(Tensor(kFloat32, {4})));
  scope.SetDevice("");
  graph.SetOutput("y", {Assign(v, Relu(v))});
  // Specialize removes initial values.
  const Graph placed = PlaceOn("cuda:0", graph).graph;
  EXPECT_EQ(placed.node(placed.FindNamed("v")).device, "cpu:0");
  const Node& assign = placed.node(placed.outputs().at("y")[0].node);
  EXPECT_EQ(assign.device, "cpu:0");
  EXPECT_EQ(placed.node(assign.inputs[1].node).op->name, "Copy");
}

}  // namespace
}  // namespace gradweave
