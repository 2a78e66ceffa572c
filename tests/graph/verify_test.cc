// The verifier finds what a pass or a reader may spoil in a graph.
#include "gradweave/graph/verify.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

// Nodes: 0 "x", 1 "y", 2 Add, 3 Sum, 4 Constant, 5 Variable "w".
struct Example {
  Graph graph;

  Example() {
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {2, 3}), y = scope.Input("y", kFloat32, {2, 3});
    graph.SetOutput("sum", {Sum(x + y, {.axes = {0}})});
    scope.Variable("w", scope.Constant(Tensor(kFloat32, {3})));
  }
  // Graphs offer no way to spoil a node. The node is not const, so it may be changed all the same.
  Node& node(NodeId id) { return const_cast<Node&>(graph.node(id)); }
};

TEST(VerifyGraph, AcceptsAGraph) {
  Example example;
  EXPECT_EQ(example.graph.num_nodes(), 6);
  EXPECT_TRUE(VerifyGraph(example.graph).ok()) << VerifyGraph(example.graph);
}

TEST(VerifyGraph, FindsEachFault) {
  const struct {
    const char* name;
    std::function<void(Example&)> spoil;
    const char* message;
  } rows[] = {
      {"no op", [](Example& e) { e.node(3).op = nullptr; }, "node 3, : no op"},
      {"id", [](Example& e) { e.node(2).id = 3; }, "node 2, Add: the id is not the position"},
      {"own value",
       [](Example& e) {
         e.node(2).inputs[1] = Port{2, 0};
       },
       "node 2, Add: an operand is not a value"},
      {"later value",
       [](Example& e) {
         e.node(2).inputs[1] = Port{3, 0};
       },
       "node 2, Add: an operand is not a value"},
      {"no node",
       [](Example& e) {
         e.node(2).inputs[0] = Port{-1, 0};
       },
       "node 2, Add: an operand is not a value"},
      {"no port",
       [](Example& e) {
         e.node(2).inputs[0] = Port{0, 1};
       },
       "node 2, Add: an operand is not a value"},
      {"negative port",
       [](Example& e) {
         e.node(2).inputs[0] = Port{0, -1};
       },
       "node 2, Add: an operand is not a value"},
      {"few attributes", [](Example& e) { e.node(3).attributes.pop_back(); }, "node 3, Sum: the number of attributes"},
      {"attribute's type", [](Example& e) { e.node(3).attributes[0] = 1.0; }, "has the wrong type"},
      {"dtype", [](Example& e) { e.node(2).outputs[0].dtype = kFloat64; },
       "node 2, Add: the outputs are (float64[2,3]"},
      {"shape", [](Example& e) { e.node(3).outputs[0].shape = {4}; }, "node 3, Sum: the outputs are (float32[4])"},
      {"attributes of another op", [](Example& e) { e.node(1).attributes = e.node(5).attributes; }, "node 1, Input"},
      {"same inputs", [](Example& e) { e.node(1).name = "x"; }, "node 1: the name 'x' is taken"},
      {"variable and input", [](Example& e) { e.node(5).name = "y"; }, "node 5: the name 'y' is taken"},
      {"output",
       [](Example& e) {
         e.graph.SetOutput("last", {Value(&e.graph, Port{0, 1})});
       },
       "output 'last' is not a value of the graph"},
  };
  for (const auto& row : rows) {
    Example example;
    row.spoil(example);
    const absl::Status status = VerifyGraph(example.graph);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << row.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(row.message)) << row.name;
  }
}

// Names of other nodes may be the same: nothing looks them up.
TEST(VerifyGraph, AcceptsEqualNamesOfNodesThatNobodyFeeds) {
  Example example;
  example.node(2).name = "x";
  example.node(3).name = "x";
  EXPECT_TRUE(VerifyGraph(example.graph).ok()) << VerifyGraph(example.graph);
}

}  // namespace
}  // namespace gradweave
