// Model files whose loops and branches have bodies that are wrong in one place: each is refused in
// one printable line, in a moment, and says what is wrong.
#include <cstdint>
#include <string>
#include <vector>

#include "gradweave/gradweave.h"
#include "gradweave/proto/model.pb.h"
#include "gtest/gtest.h"
#include "tests/files/refusal.h"
#include "tests/files/spoiled_models.h"

namespace gradweave {
namespace {

using Values = std::vector<Value>;

// The sum of x * w along axis 0, doubled if it is positive.
proto::Model GoodModel(const std::string& path) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n"), 2});
  const Value w = scope.Input("w", kFloat32, {});
  const Value zero = scope.Constant(Tensor(kFloat32, {2}));
  const ScanResult sums = Scan({zero}, {x}, [&](const Values& h, const Values& v) {
    const Value sum = h[0] + v[0] * w;
    return ScanStep{{sum}, {sum}};
  });
  const Value total = Sum(sums.states[0]);
  graph.SetOutput("y", If(
                           Greater(total, 0), {total}, [](const Values& v) { return Values{v[0] * 2}; },
                           [](const Values& v) { return v; }));
  return MessageOf(graph, path);
}

proto::Attribute& AttributeOf(proto::Model& model, const std::string& op, const std::string& name) {
  for (proto::Node& node : *model.mutable_graph()->mutable_nodes()) {
    if (node.op() != op) continue;
    for (proto::Attribute& attribute : *node.mutable_attributes()) {
      if (attribute.name() == name) return attribute;
    }
  }
  ADD_FAILURE() << "no attribute " << name;
  return *model.mutable_graph()->mutable_nodes(0)->mutable_attributes(0);
}

proto::Graph& BodyOf(proto::Model& model) { return *AttributeOf(model, "Scan", "body").mutable_graph(); }
// The outputs are in the order of their names.
proto::Output& OperandsOf(proto::Model& model) { return *BodyOf(model).mutable_outputs(0); }
proto::Output& ResultsOf(proto::Model& model) { return *BodyOf(model).mutable_outputs(1); }

const SpoiledModel kRows[] = {
    {"no outputs", [](proto::Model& m) { BodyOf(m).clear_outputs(); },
     "DIR/malformed.gw: node 3: Scan: the body lacks the outputs 'operands' and 'results'*"},
    {"no body", [](proto::Model& m) { *AttributeOf(m, "Scan", "body").mutable_graph() = proto::Graph(); },
     "DIR/malformed.gw: node 3: Scan: the body lacks the outputs 'operands' and 'results'*"},
    {"other attribute", [](proto::Model& m) { AttributeOf(m, "Scan", "body").set_integer(1); },
     "DIR/malformed.gw: node 3: Scan: the attribute 'body' has to be a graph, and was given a integer*"},
    {"operand left out", [](proto::Model& m) { OperandsOf(m).mutable_ports()->RemoveLast(); },
     "DIR/malformed.gw: node 3: Scan: the body has 2 operands, and the node gives it 3*"},
    {"operand that is none", [](proto::Model& m) { *OperandsOf(m).mutable_ports(0) = ResultsOf(m).ports(0); },
     "DIR/malformed.gw: node 3: Scan: the body has operand 0 that is not an Input of its own*"},
    {"operand twice", [](proto::Model& m) { *OperandsOf(m).mutable_ports(0) = OperandsOf(m).ports(1); },
     "DIR/malformed.gw: node 3: Scan: the body has operand 1 that is not an Input of its own*"},
    {"operands in another order", [](proto::Model& m) { OperandsOf(m).mutable_ports()->SwapElements(1, 2); },
     "DIR/malformed.gw: node 3: Scan: the body takes float32[] as operand 1 and is given float32[2]*"},
    {"operand outside of the body", [](proto::Model& m) { OperandsOf(m).mutable_ports(0)->set_node(1 << 20); },
     "DIR/malformed.gw: node 3: output 'operands' refers to a value that is not in the graph"},
    {"state of another type", [](proto::Model& m) { *ResultsOf(m).mutable_ports(0) = OperandsOf(m).ports(2); },
     "DIR/malformed.gw: node 3: Scan: state 0 is float32[2] before a step and float32[] after it*"},
    {"result too many", [](proto::Model& m) { *ResultsOf(m).add_ports() = ResultsOf(m).ports(0); },
     "DIR/malformed.gw: node 3: Scan: the body gives 3 results, and there are 1 states and 1 axes of outputs*"},
    {"states", [](proto::Model& m) { AttributeOf(m, "Scan", "states").set_integer(INT64_MAX); },
     "DIR/malformed.gw: node 3: Scan: has 9223372036854775807 states and 1 inputs, and 3 operands*"},
    {"negative states", [](proto::Model& m) { AttributeOf(m, "Scan", "states").set_integer(-1); },
     "DIR/malformed.gw: node 3: Scan: has -1 states and 1 inputs, and 3 operands*"},
    {"axis of an input",
     [](proto::Model& m) { AttributeOf(m, "Scan", "input_axes").mutable_integers()->set_values(0, INT64_MIN); },
     "DIR/malformed.gw: node 3: Scan: input 0 is float32[n,2], and axis -9223372036854775808 is outside [0, 2)*"},
    {"axis of an output",
     [](proto::Model& m) { AttributeOf(m, "Scan", "output_axes").mutable_integers()->set_values(0, 2); },
     "DIR/malformed.gw: node 3: Scan: a slice of output 0 is float32[2], and axis 2 is outside [0, 1]*"},
    {"length", [](proto::Model& m) { AttributeOf(m, "Scan", "length").mutable_shape()->set_dims(0, "7"); },
     "DIR/malformed.gw: node 3: Scan: input 0 is float32[n,2] and has n slices along axis 0, and the loop has 7 "
     "steps*"},
    {"rank of the length", [](proto::Model& m) { AttributeOf(m, "Scan", "length").mutable_shape()->add_dims("n"); },
     "DIR/malformed.gw: node 3: Scan: the length has to be one number of at least 0, and is [n,n]*"},
    {"device", [](proto::Model& m) { BodyOf(m).mutable_nodes(3)->set_device("cuda:7"); },
     "DIR/malformed.gw: node 3: Scan: the body has the node Mul*"},
    {"variable",
     [](proto::Model& m) {
       proto::Node& node = *BodyOf(m).add_nodes();
       node.set_op("Variable");
       node.set_op_version(1);
       node.set_name("v");
       *node.add_attributes() = m.graph().nodes(0).attributes(0);
       proto::Attribute& shape = *node.add_attributes();
       shape.set_name("shape");
       shape.mutable_shape();
     },
     "DIR/malformed.gw: node 3: Scan: the body has the node Variable() 'v', and a body has no state*"},
    {"mistake in the body", [](proto::Model& m) { BodyOf(m).mutable_nodes(3)->mutable_inputs(0)->set_node(9); },
     "DIR/malformed.gw: node 3: node 3: Mul: operand 0 is not a value of the graph"},
    {"branches",
     [](proto::Model& m) {
       proto::Output& results = *AttributeOf(m, "If", "else_branch").mutable_graph()->mutable_outputs(1);
       *results.add_ports() = results.ports(0);
     },
     "DIR/malformed.gw: node 7: If: then_branch gives (float32[]) and else_branch gives (float32[], float32[])*"},
    {"predicate",
     [](proto::Model& m) {
       for (proto::Node& node : *m.mutable_graph()->mutable_nodes()) {
         if (node.op() == "If") *node.mutable_inputs(0) = node.inputs(1);
       }
     },
     "DIR/malformed.gw: node 7: If: the predicate is float32[] and has to be a bool scalar*"},
};

TEST(Malformed, Bodies) { ExpectRefusals(kRows, GoodModel(WriteTestFile("malformed.gw", ""))); }

}  // namespace
}  // namespace gradweave
