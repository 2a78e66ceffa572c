// The partition of a placed graph into the parts that each device runs between copies.
#include "gradweave/graph/partition/device_parts.h"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gradweave/graph/passes/placement.h"
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

Graph PlaceOnCuda(const Graph& graph) {
  absl::StatusOr<Placement> placed =
      Place(graph, {.device = "cuda:0", .check = [](const Node&, absl::string_view) { return absl::OkStatus(); }});
  EXPECT_TRUE(placed.ok()) << placed.status();
  return std::move(placed->graph);
}

DeviceParts FindParts(const Graph& placed) {
  absl::StatusOr<DeviceParts> parts = FindDeviceParts(placed);
  EXPECT_TRUE(parts.ok()) << parts.status();
  return *std::move(parts);
}

// Describes the order: "cuda:0 Relu Exp" for a part, "Copy to cpu:0" for a copy. Sources are
// omitted.
std::vector<std::string> Describe(const Graph& placed, const DeviceParts& parts) {
  std::vector<std::string> items;
  for (OrderItem item : parts.order) {
    if (item.is_node()) {
      const Node& copy = placed.node(item.node());
      items.push_back(absl::StrCat(copy.op->name, " to ", copy.device));
      continue;
    }
    std::vector<std::string> words = {parts.parts[item.index].device};
    for (const Node& node : parts.parts[item.index].graph.nodes()) {
      if (!node.inputs.empty()) words.push_back(node.op->name);
    }
    items.push_back(absl::StrJoin(words, " "));
  }
  return items;
}

// Checks that the origins of a part's nodes have the same ops and types, that each node of the
// graph is copied or in exactly one part, and that an item reads only results of earlier items.
void CheckParts(const Graph& placed, const DeviceParts& parts) {
  absl::flat_hash_set<NodeId> made;
  auto is_input = [](const Node& node) { return node.inputs.empty() || node.op->name == "Variable"; };
  // Values that are available on every device.
  auto is_source = [&](NodeId id) {
    const Node* node = &placed.node(id);
    while (node->op->alias) node = &placed.node(node->inputs[0].node);
    return is_input(*node);
  };
  for (const Node& node : placed.nodes()) {
    if (is_input(node)) made.insert(node.id);
  }
  for (OrderItem item : parts.order) {
    if (item.is_node()) {
      const NodeId copied = placed.node(item.node()).inputs[0].node;
      EXPECT_TRUE(made.contains(copied) || is_source(copied));
      EXPECT_TRUE(made.insert(item.node()).second);
      continue;
    }
    const DevicePart& part = parts.parts[item.index];
    EXPECT_TRUE(VerifyGraph(part.graph).ok()) << VerifyGraph(part.graph);
    std::vector<NodeId> own;
    for (const Node& node : part.graph.nodes()) {
      const Port origin = part.OriginOf(Port{node.id, 0});
      EXPECT_EQ(placed.type(origin), part.graph.type({node.id, 0}));
      if (node.inputs.empty()) {
        EXPECT_TRUE(made.contains(origin.node) || is_source(origin.node)) << origin.node;
        continue;
      }
      EXPECT_EQ(placed.node(origin.node).op, node.op);
      EXPECT_EQ(placed.node(origin.node).device, part.device);
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        EXPECT_EQ(part.OriginOf(node.inputs[i]), placed.node(origin.node).inputs[i]);
      }
      own.push_back(origin.node);
    }
    for (NodeId id : own) EXPECT_TRUE(made.insert(id).second);
  }
  for (const Node& node : placed.nodes()) EXPECT_TRUE(made.contains(node.id) || is_source(node.id)) << node.id;
}

TEST(DeviceParts, AGraphOfOneDeviceIsOne) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4, 2});
  graph.SetOutput("y", {Relu(Exp(Reshape(x, {8})))});
  const Graph placed = PlaceOnCuda(graph);
  const DeviceParts parts = FindParts(placed);
  CheckParts(placed, parts);
  // The view of the input is available on every device.
  EXPECT_THAT(Describe(placed, parts), ElementsAre("cuda:0 Exp Relu"));
}

TEST(DeviceParts, CopiesLeadFromPhaseToPhase) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  const Value before = Relu(x);
  scope.SetDevice("cpu");
  const Value on_cpu = Exp(Tanh(before)), beside = Sin(x);
  scope.SetDevice("");
  graph.SetOutput("y", {Add(on_cpu, Neg(before)), beside});
  const Graph placed = PlaceOnCuda(graph);
  const DeviceParts parts = FindParts(placed);
  CheckParts(placed, parts);
  // Nodes after the copy in the graph come after it, so the device works while the CPU works.
  EXPECT_THAT(Describe(placed, parts), ElementsAre("cuda:0 Relu", "Copy to cpu:0", "cuda:0 Neg", "cpu:0 Tanh Exp Sin",
                                                   "Copy to cuda:0", "cuda:0 Add"));
}

// On each device, two nodes could run together if the other device had no node between them.
TEST(DeviceParts, DontWaitForThemselves) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  scope.SetDevice("cpu");
  const Value h = Exp(x);
  scope.SetDevice("cuda");
  const Value d = Tanh(x), on_device = Relu(h);
  scope.SetDevice("cpu");
  const Value on_cpu = Relu(d);
  graph.SetOutput("y", {on_device, on_cpu});
  const Graph placed = PlaceOnCuda(graph);
  const DeviceParts parts = FindParts(placed);
  CheckParts(placed, parts);
  EXPECT_EQ(parts.parts.size(), 4u);
}

TEST(DeviceParts, UpdatesAndWhatIsComputedAgainStayLate) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {4})));
  const Value y = Exp(x * w);
  scope.SetDevice("cpu");
  const Value loss = Sin(y);
  scope.SetDevice("");
  const Value again = Exp(x * w);  // A copy, as Rematerialize makes it.
  const Value gradient = loss * again;
  graph.SetOutput("y", {Assign(w, w - gradient)});
  const Graph placed = PlaceOnCuda(graph);
  const DeviceParts parts = FindParts(placed);
  CheckParts(placed, parts);
  EXPECT_THAT(Describe(placed, parts), ElementsAre("cuda:0 Mul Exp", "Copy to cpu:0", "cuda:0 Mul Exp", "cpu:0 Sin",
                                                   "Copy to cuda:0", "cuda:0 Mul Sub Assign"));
}

// A value of another device is an Input if it may have a batch.
TEST(DeviceParts, ValuesFromElsewhereAreInputsOrVariables) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 3});
  const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {3, 3})));
  const Value hidden = Exp(x), square = MatMul(w, w), sums = Sum(hidden, {.axes = {0}});
  scope.SetDevice("cpu");
  graph.SetOutput("y", {Add(MatMul(hidden, square), sums)});
  const Graph placed = PlaceOnCuda(graph);
  const DeviceParts parts = FindParts(placed);
  CheckParts(placed, parts);
  std::vector<std::string> sources;
  for (const Node& node : parts.parts[parts.order.back().index].graph.nodes()) {
    if (node.inputs.empty()) sources.push_back(absl::StrCat(node.op->name, node.outputs[0].ToString()));
  }
  EXPECT_THAT(sources, ElementsAre("Inputfloat32[5,3]", "Variablefloat32[3,3]", "Variablefloat32[3]"));
}

TEST(DeviceParts, OfAnyGraphRunInOrder) {
  std::mt19937 random(3);
  int parts_of_all = 0;
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    Graph graph;
    Scope scope(graph);
    const Value v = scope.Variable("v", scope.Constant(Tensor(kFloat32, {2, 3})));
    std::vector<Value> values = {scope.Input("x", kFloat32, {2, 3}), v, scope.Constant(Tensor(kFloat32, {2, 3}))};
    auto any = [&] { return values[random() % values.size()]; };
    for (int i = 0; i < 25; ++i) {
      const char* const devices[] = {"", "cpu", "cuda"};
      scope.SetDevice(devices[random() % 3]);
      switch (random() % 5) {
        case 0:
          values.push_back(Reshape(Reshape(any(), {3, 2}), {2, 3}));
          break;
        case 1:
          values.push_back(Copy(any()));
          break;
        case 2:
          values.push_back(Add(any(), any()));
          break;
        case 3:
          values.push_back(Sub(any(), Sum(any(), {.axes = {0}})));
          break;
        default:
          values.push_back(Tanh(any()));
      }
    }
    scope.SetDevice("");
    graph.SetOutput("y", {values.back(), any()});
    graph.SetOutput("updates", {Assign(v, any())});
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    const Graph placed = PlaceOnCuda(graph);
    const DeviceParts parts = FindParts(placed);
    CheckParts(placed, parts);
    parts_of_all += static_cast<int>(parts.parts.size());
  }
  EXPECT_GT(parts_of_all, 600);
}

}  // namespace
}  // namespace gradweave
