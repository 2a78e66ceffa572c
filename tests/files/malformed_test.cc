// Files that are wrong in one place: each is refused in one printable line, in a moment, and says what is wrong.
#include <zlib.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <sstream>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/proto/model.pb.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

// y = x W, with a constant, a pool and an update of W.
proto::Model GoodModel(const std::string& path) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2, 3}, {1, 2, 3, 4, 5, 6})));
  graph.SetOutput("y", {MatMul(x, w)});
  graph.SetOutput("update", {Assign(w, w * 2)});
  const Value image = scope.Input("image", kFloat32, {1, 1, Dim("height"), 8});
  graph.SetOutput("pool", {MaxPool2D(image, {.window = {2, 2}})});
  const absl::StatusOr<Session> session = Session::Create(graph);
  EXPECT_TRUE(session.ok()) << session.status();
  EXPECT_TRUE(SaveModel(*session, path).ok());
  std::stringstream contents;
  contents << std::ifstream(path, std::ios::binary).rdbuf();
  proto::Model model;
  EXPECT_TRUE(model.ParseFromString(contents.str()));
  model.clear_crc32();
  return model;
}

// Writes the model with a right checksum, so that the reader goes on to what is wrong.
void Write(const proto::Model& model, const std::string& path) {
  std::string bytes = model.SerializeAsString();
  const uint32_t checksum =
      static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
  bytes.append("\x85\x01");
  bytes.append(reinterpret_cast<const char*>(&checksum), 4);
  std::ofstream(path, std::ios::binary) << bytes;
}

proto::Node& NodeOf(proto::Model& model, const std::string& op) {
  for (proto::Node& node : *model.mutable_graph()->mutable_nodes()) {
    if (node.op() == op) return node;
  }
  ADD_FAILURE() << "no node " << op;
  return *model.mutable_graph()->mutable_nodes(0);
}

struct Row {
  const char* name;
  std::function<void(proto::Model&)> spoil;
  const char* message;
};

std::string Repeat(const std::string& text, int count, const std::string& between) {
  std::string result;
  for (int i = 0; i < count; ++i)
    result += (i == 0 ? "" : between) + text + std::to_string(i) + " + b" + std::to_string(i) + ")/1)";
  return result;
}

const Row kRows[] = {
    {"magic", [](proto::Model& m) { m.set_magic("gradweave modem"); }, "this is not a Gradweave model"},
    {"newer", [](proto::Model& m) { m.set_format_version(3); }, "format version 3, and this Gradweave reads up to 2"},
    {"version 0", [](proto::Model& m) { m.set_format_version(0); }, "the format version is not positive"},
    {"not complete", [](proto::Model& m) { m.clear_complete(); }, "the file is truncated"},
    {"folder", [](proto::Model& m) { m.set_weights_file("../w"); }, "the name of the weights file has a folder"},
    {"absolute", [](proto::Model& m) { m.set_weights_file("/dev/zero"); }, "the name of the weights file has a folder"},
    {"dots", [](proto::Model& m) { m.set_weights_file(".."); }, "the name of the weights file has a folder"},
    {"no weights", [](proto::Model& m) { m.set_weights_file("none\x1b[2J"); },
     "none\\x1b[2J: the file cannot be opened"},
    {"op", [](proto::Model& m) { NodeOf(m, "MatMul").set_op("\x1b]0;Mat\n"); }, "there is no op '\\x1b]0;Mat\\x0a'"},
    {"long op", [](proto::Model& m) { NodeOf(m, "MatMul").set_op(std::string(1 << 20, 'M')); }, "MMMM ..."},
    {"op version", [](proto::Model& m) { NodeOf(m, "MatMul").set_op_version(1000); }, "op MatMul has version 1000"},
    {"next op version",
     [](proto::Model& m) { NodeOf(m, "MatMul").set_op_version(NodeOf(m, "MatMul").op_version() + 1); },
     "supports it only up to version 1; upgrade Gradweave"},
    {"op version 0", [](proto::Model& m) { NodeOf(m, "MatMul").set_op_version(0); }, "op MatMul has version 0"},
    {"name", [](proto::Model& m) { NodeOf(m, "MatMul").set_name("a\033[31m"); }, "has a control character"},
    {"no name", [](proto::Model& m) { NodeOf(m, "Variable").clear_name(); }, "Variable has no name"},
    {"same name", [](proto::Model& m) { NodeOf(m, "Variable").set_name("x"); }, "the name is taken"},
    {"operand behind", [](proto::Model& m) { NodeOf(m, "MatMul").mutable_inputs(0)->set_node(999); },
     "operand 0 is not a value of the graph"},
    {"operand below", [](proto::Model& m) { NodeOf(m, "MatMul").mutable_inputs(0)->set_node(-1); },
     "operand 0 is not a value of the graph"},
    {"output of operand", [](proto::Model& m) { NodeOf(m, "MatMul").mutable_inputs(1)->set_output(7); },
     "operand 1 is not a value of the graph"},
    {"no operand", [](proto::Model& m) { NodeOf(m, "MatMul").clear_inputs(); }, "MatMul"},
    {"no variable", [](proto::Model& m) { NodeOf(m, "Assign").mutable_inputs(0)->set_node(0); },
     "Assign: operand 0 is not the value of a Variable node"},
    {"no operand of Assign", [](proto::Model& m) { NodeOf(m, "Assign").clear_inputs(); },
     "Assign: operand 0 is not the value of a Variable node"},
    {"attribute", [](proto::Model& m) { NodeOf(m, "MatMul").add_attributes()->set_name("\x9b"); },
     "an attribute has no value"},
    {"unknown attribute",
     [](proto::Model& m) {
       proto::Attribute& attribute = *NodeOf(m, "MatMul").add_attributes();
       attribute.set_name("\x1b");
       attribute.set_boolean(true);
     },
     "\\x1b"},
    {"dtype", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_dtype("float\t"); },
     "'float\\x09' is not a dtype"},
    {"negative size", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_sizes(0, -2); },
     "a tensor has a negative size, or too many elements"},
    {"overflow",
     [](proto::Model& m) {
       m.mutable_variables(0)->mutable_value()->set_sizes(0, int64_t{1} << 62);
       m.mutable_variables(0)->mutable_value()->set_sizes(1, int64_t{1} << 62);
     },
     "a tensor has a negative size, or too many elements"},
    {"huge", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_sizes(0, int64_t{1} << 40); },
     "has 24 bytes and needs"},
    {"bytes", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->mutable_data()->pop_back(); },
     "a tensor float32[2,3] has 23 bytes and needs 24"},
    {"type", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_dtype("int32"); },
     "variable 'w': it is float32[2,3] and its value int32[2,3]"},
    {"no value", [](proto::Model& m) { m.clear_variables(); }, "a variable has no value"},
    {"two values", [](proto::Model& m) { *m.add_variables() = m.variables(0); }, "variable 'w' has two values"},
    {"other variable", [](proto::Model& m) { m.mutable_variables(0)->set_name("v"); },
     "a value for a variable that the graph does not have"},
    {"place",
     [](proto::Model& m) {
       m.mutable_variables(0)->mutable_value()->clear_data();
       m.mutable_variables(0)->mutable_value()->set_length(24);
     },
     "its place in the weights file is wrong"},
    {"output", [](proto::Model& m) { m.mutable_graph()->mutable_outputs(0)->mutable_ports(0)->set_node(1 << 30); },
     "refers to a value that is not in the graph"},
    {"dimension",
     [](proto::Model& m) { NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(0, "2**n"); },
     "a dimension of a shape is neither a number nor an expression"},
    {"long dimension",
     [](proto::Model& m) {
       NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(0, std::string(2000, 'n'));
     },
     "a dimension of a shape is neither a number nor an expression"},
    {"bomb of terms",
     [](proto::Model& m) {
       NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(0, Repeat("floor((a", 20, "*"));
     },
     "the output would have more than 2^48 elements"},
    {"nested quotients",
     [](proto::Model& m) {
       std::string dim = "n";
       for (int i = 0; i < 40; ++i) dim = "floor((" + dim + ")/1)";
       NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(0, dim);
     },
     "a dimension of a shape is neither a number nor an expression"},
    {"nested graphs",
     [](proto::Model& m) {
       proto::Graph* graph = m.mutable_graph();
       for (int i = 0; i < 20; ++i) {
         proto::Node& node = *graph->add_nodes();
         node.set_op("Constant");
         node.set_op_version(1);
         graph = node.add_attributes()->mutable_graph();
       }
     },
     "graphs are nested more than 8 deep"},
};

TEST(MalformedModels, AreRefusedWithOneLine) {
  const std::string path = ::testing::TempDir() + "/malformed.gw";
  const proto::Model good = GoodModel(path);
  Write(good, path);
  ASSERT_TRUE(LoadModel(path).ok()) << LoadModel(path).status();
  for (const Row& row : kRows) {
    proto::Model bad = good;
    row.spoil(bad);
    Write(bad, path);
    const auto start = std::chrono::steady_clock::now();
    const absl::Status status = LoadModel(path).status();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1)) << row.name;
    const std::string message(status.message());
    EXPECT_FALSE(status.ok()) << row.name;
    EXPECT_THAT(message, HasSubstr(row.message)) << row.name;
    EXPECT_EQ(message.rfind(::testing::TempDir(), 0), 0u) << row.name << ": " << message;
    EXPECT_LT(message.size(), 1200u) << row.name;
    for (char c : message) EXPECT_TRUE(c >= ' ' && c <= '~') << row.name << ": " << static_cast<int>(c);
  }
}

// Layers of strides on a symbolic height are saved and read: the builder and the reader have the same limits.
TEST(MalformedModels, WhatIsSavedLoads) {
  const std::string path = ::testing::TempDir() + "/deep.gw";
  Graph graph;
  Scope scope(graph);
  Value x = scope.Input("image", kFloat32, {1, 1, Dim("height"), Dim("width")});
  for (int i = 0; i < 40; ++i) x = MaxPool2D(x, {.window = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
  graph.SetOutput("y", {x});
  const absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE(SaveModel(*session, path).ok());
  EXPECT_TRUE(LoadModel(path).ok()) << LoadModel(path).status();
}

}  // namespace
}  // namespace gradweave
