// Model files and weights files that are wrong in one place: each is refused in one printable line,
// in a moment, and says what is wrong.
#include <sys/stat.h>
#include <zlib.h>

#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/gradweave.h"
#include "gradweave/proto/model.pb.h"
#include "gtest/gtest.h"
#include "tests/files/model_bytes.h"
#include "tests/files/refusal.h"
#include "tests/files/spoiled_models.h"

namespace gradweave {
namespace {

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
  return MessageOf(graph, path);
}

proto::Node& NodeOf(proto::Model& model, const std::string& op) {
  for (proto::Node& node : *model.mutable_graph()->mutable_nodes()) {
    if (node.op() == op) return node;
  }
  ADD_FAILURE() << "no node " << op;
  return *model.mutable_graph()->mutable_nodes(0);
}

std::string Repeat(const std::string& text, int count, const std::string& between) {
  std::string result;
  for (int i = 0; i < count; ++i)
    result += (i == 0 ? "" : between) + text + std::to_string(i) + " + b" + std::to_string(i) + ")/1)";
  return result;
}

const SpoiledModel kRows[] = {
    {"magic", [](proto::Model& m) { m.set_magic("gradweave modem"); },
     "DIR/malformed.gw: this is not a Gradweave model"},
    {"newer", [](proto::Model& m) { m.set_format_version(4); },
     "DIR/malformed.gw: the file has format version 4, and this Gradweave reads up to 3; upgrade Gradweave"},
    {"version 0", [](proto::Model& m) { m.set_format_version(0); },
     "DIR/malformed.gw: the file has format version 0, and the first one is 1: it is damaged or truncated"},
    {"not complete", [](proto::Model& m) { m.clear_complete(); }, "DIR/malformed.gw: the file is truncated"},
    {"folder", [](proto::Model& m) { m.set_weights_file("../w"); },
     "DIR/malformed.gw: the weights file is named '../w'; it has to be the name of a file beside the model, without a "
     "folder"},
    {"absolute", [](proto::Model& m) { m.set_weights_file("/dev/zero"); },
     "DIR/malformed.gw: the weights file is named '/dev/zero'; it has to be the name of a file beside the model, "
     "without a folder"},
    {"dots", [](proto::Model& m) { m.set_weights_file(".."); },
     "DIR/malformed.gw: the weights file is named '..'; it has to be the name of a file beside the model, without a "
     "folder"},
    {"no weights", [](proto::Model& m) { m.set_weights_file("none\x1b[2J"); },
     "DIR/none\\x1b[2J: the file cannot be opened: No such file or directory"},
    {"op", [](proto::Model& m) { NodeOf(m, "MatMul").set_op("\x1b]0;Mat\n"); },
     "DIR/malformed.gw: node 3: there is no op '\\x1b]0;Mat\\x0a'; a newer Gradweave may have it"},
    {"long op", [](proto::Model& m) { NodeOf(m, "MatMul").set_op(std::string(1 << 20, 'M')); },
     "DIR/malformed.gw: node 3: there is no op 'MMMMMMMM*"},
    {"op version", [](proto::Model& m) { NodeOf(m, "MatMul").set_op_version(1000); },
     "DIR/malformed.gw: node 3: op MatMul has version 1000, but this Gradweave supports it only up to version 1; "
     "upgrade Gradweave"},
    {"next op version",
     [](proto::Model& m) { NodeOf(m, "MatMul").set_op_version(NodeOf(m, "MatMul").op_version() + 1); },
     "DIR/malformed.gw: node 3: op MatMul has version 2, but this Gradweave supports it only up to version 1; "
     "upgrade Gradweave"},
    {"op version 0", [](proto::Model& m) { NodeOf(m, "MatMul").set_op_version(0); },
     "DIR/malformed.gw: node 3: op MatMul has version 0, and the first one is 1"},
    {"name", [](proto::Model& m) { NodeOf(m, "MatMul").set_name("a\033[31m"); },
     "DIR/malformed.gw: node 3: MatMul: the name 'a\\x1b[31m' has a control character; operands are (a: "
     "float32[batch,2], b: float32[2,3]), node 'a\\x1b[31m'"},
    {"no name", [](proto::Model& m) { NodeOf(m, "Variable").clear_name(); },
     "DIR/malformed.gw: node 2: Variable has no name, and runs and files find it by name"},
    {"same name", [](proto::Model& m) { NodeOf(m, "Variable").set_name("x"); },
     "DIR/malformed.gw: node 2: Variable: the name is taken; operands are (initial_value: float32[2,3]), node 'x'"},
    {"operand behind", [](proto::Model& m) { NodeOf(m, "MatMul").mutable_inputs(0)->set_node(999); },
     "DIR/malformed.gw: node 3: MatMul: operand 0 is not a value of the graph"},
    {"operand below", [](proto::Model& m) { NodeOf(m, "MatMul").mutable_inputs(0)->set_node(-1); },
     "DIR/malformed.gw: node 3: MatMul: operand 0 is not a value of the graph"},
    {"output of operand", [](proto::Model& m) { NodeOf(m, "MatMul").mutable_inputs(1)->set_output(7); },
     "DIR/malformed.gw: node 3: MatMul: operand 1 is not a value of the graph"},
    {"no operand", [](proto::Model& m) { NodeOf(m, "MatMul").clear_inputs(); },
     "DIR/malformed.gw: node 3: MatMul: takes 2 operands (a, b), and was given 0"},
    {"no variable", [](proto::Model& m) { NodeOf(m, "Assign").mutable_inputs(0)->set_node(0); },
     "DIR/malformed.gw: node 6: Assign: operand 0 has to be the value of a Variable node; operands are (variable: "
     "float32[batch,2], value: float32[2,3])"},
    {"no operand of Assign", [](proto::Model& m) { NodeOf(m, "Assign").clear_inputs(); },
     "DIR/malformed.gw: node 6: Assign: takes 2 operands (variable, value), and was given 0"},
    {"attribute", [](proto::Model& m) { NodeOf(m, "MatMul").add_attributes()->set_name("\x9b"); },
     "DIR/malformed.gw: node 3: an attribute has no value, or one of a kind that this version does not know"},
    {"unknown attribute",
     [](proto::Model& m) {
       proto::Attribute& attribute = *NodeOf(m, "MatMul").add_attributes();
       attribute.set_name("\x1b");
       attribute.set_boolean(true);
     },
     "DIR/malformed.gw: node 3: MatMul: there is no attribute '\\x1b'"},
    {"dtype", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_dtype("float\t"); },
     "DIR/malformed.gw: variable 'w': 'float\\x09' is not a dtype"},
    {"negative size", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_sizes(0, -2); },
     "DIR/malformed.gw: variable 'w': a tensor has a negative size, or too many elements"},
    {"overflow",
     [](proto::Model& m) {
       m.mutable_variables(0)->mutable_value()->set_sizes(0, int64_t{1} << 62);
       m.mutable_variables(0)->mutable_value()->set_sizes(1, int64_t{1} << 62);
     },
     "DIR/malformed.gw: variable 'w': a tensor has a negative size, or too many elements"},
    {"huge", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_sizes(0, int64_t{1} << 40); },
     "DIR/malformed.gw: variable 'w': a tensor float32[1099511627776,3] has 24 bytes and needs 13194139533312"},
    {"bytes", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->mutable_data()->pop_back(); },
     "DIR/malformed.gw: variable 'w': a tensor float32[2,3] has 23 bytes and needs 24"},
    {"type", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_dtype("int32"); },
     "DIR/malformed.gw: variable 'w': it is float32[2,3] and its value int32[2,3]"},
    {"no value", [](proto::Model& m) { m.clear_variables(); }, "DIR/malformed.gw: variable 'w' has no value"},
    {"two values", [](proto::Model& m) { *m.add_variables() = m.variables(0); },
     "DIR/malformed.gw: variable 'w' has two values"},
    {"other variable", [](proto::Model& m) { m.mutable_variables(0)->set_name("v"); },
     "DIR/malformed.gw: there is a value for 'v', which is not a variable of the graph"},
    {"place",
     [](proto::Model& m) {
       m.mutable_variables(0)->mutable_value()->clear_data();
       m.mutable_variables(0)->mutable_value()->set_length(24);
     },
     "DIR/malformed.gw: variable 'w': its place in the weights file is wrong, or the weights file is truncated"},
    {"output", [](proto::Model& m) { m.mutable_graph()->mutable_outputs(0)->mutable_ports(0)->set_node(1 << 30); },
     "DIR/malformed.gw: output 'pool' refers to a value that is not in the graph"},
    {"dimension",
     [](proto::Model& m) { NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(0, "2**n"); },
     "DIR/malformed.gw: node 0: a dimension of a shape is neither a number nor an expression"},
    {"long dimension",
     [](proto::Model& m) {
       NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(0, std::string(2000, 'n'));
     },
     "DIR/malformed.gw: node 0: a dimension of a shape is neither a number nor an expression"},
    {"bomb of terms",
     [](proto::Model& m) {
       NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(0, Repeat("floor((a", 20, "*"));
     },
     "DIR/malformed.gw: node 0: Input: the output would have more than 2^48 elements: float32[9223372036854775807,2], "
     "node 'x'"},
    {"nested quotients",
     [](proto::Model& m) {
       std::string dim = "n";
       for (int i = 0; i < 40; ++i) dim = "floor((" + dim + ")/1)";
       NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(0, dim);
     },
     "DIR/malformed.gw: node 0: a dimension of a shape is neither a number nor an expression"},
    {"dtype of the attribute", [](proto::Model& m) { NodeOf(m, "MatMul").add_attributes()->set_name("transpose_a"); },
     "DIR/malformed.gw: node 3: an attribute has no value, or one of a kind that this version does not know"},
    {"type of an attribute",
     [](proto::Model& m) {
       proto::Attribute& attribute = *NodeOf(m, "MatMul").add_attributes();
       attribute.set_name("transpose_a");
       attribute.set_text("yes");
     },
     "DIR/malformed.gw: node 3: MatMul: the attribute 'transpose_a' has to be a bool, and was given a string; operands "
     "are (a: float32[batch,2], b: float32[2,3])"},
    {"attribute left out", [](proto::Model& m) { NodeOf(m, "MaxPool2D").clear_attributes(); },
     "DIR/malformed.gw: node 8: MaxPool2D: the attribute 'window' has to be given"},
    {"operand of an input", [](proto::Model& m) { *NodeOf(m, "Input").add_inputs() = proto::Port(); },
     "DIR/malformed.gw: node 0: Input: operand 0 is not a value of the graph"},
    {"operands that do not fit",
     [](proto::Model& m) { *NodeOf(m, "MatMul").mutable_inputs(1) = NodeOf(m, "MatMul").inputs(0); },
     "DIR/malformed.gw: node 3: MatMul: a has 2 columns and b has batch rows after the requested transpositions; they "
     "have to be equal; operands are (a: float32[batch,2], b: float32[batch,2])"},
    {"negative window",
     [](proto::Model& m) {
       for (proto::Attribute& attribute : *NodeOf(m, "MaxPool2D").mutable_attributes()) {
         if (attribute.name() == "window") attribute.mutable_integers()->set_values(0, -1);
       }
     },
     "DIR/malformed.gw: node 8: MaxPool2D: the window has to be two numbers of at least 1, for height and width; "
     "operands are (x: float32[1,1,height,8])"},
    {"bool of 2",
     [](proto::Model& m) {
       proto::Tensor& value = *m.mutable_variables(0)->mutable_value();
       value.set_dtype("bool");
       value.set_data(std::string(6, 2));
     },
     "DIR/malformed.gw: variable 'w': a bool tensor has an element that is neither 0 nor 1"},
    {"port below 0", [](proto::Model& m) { m.mutable_graph()->mutable_outputs(0)->mutable_ports(0)->set_output(-1); },
     "DIR/malformed.gw: output 'pool' refers to a value that is not in the graph"},
    {"negative size of an input",
     [](proto::Model& m) { NodeOf(m, "Input").mutable_attributes(1)->mutable_shape()->set_dims(1, "-2"); },
     "DIR/malformed.gw: node 0: Input: the output would have a negative dimension: float32[batch,-2], node 'x'"},
    {"symbol of a variable",
     [](proto::Model& m) { NodeOf(m, "Variable").mutable_attributes(1)->mutable_shape()->set_dims(0, "n"); },
     "DIR/malformed.gw: node 2: Variable: the shape has to be known, and is float32[n,3]; only values of a run may "
     "depend on symbols; operands are (initial_value: float32[2,3]), node 'w'"},
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
     "DIR/malformed.gw: node 9: node 0: node 0: node 0: node 0: node 0: node 0: node 0: node 0: graphs are nested more "
     "than 8 deep"},
};

// A model of format version 3: it has halves.
TEST(Malformed, Halves) {
  Graph graph;
  Scope scope(graph);
  const Value h = scope.Variable("h", scope.Constant(Tensor::Of<float>({3}, {1, 2, 3}).Cast(kFloat16)));
  const Value x = scope.Input("x", kBFloat16, {Dim("n"), 3});
  graph.SetOutput("y", {Cast(x, kFloat32) + Cast(h, kFloat32)});
  const SpoiledModel rows[] = {
      {"newer", [](proto::Model& m) { m.set_format_version(m.format_version() + 1); },
       "DIR/malformed.gw: the file has format version 4, and this Gradweave reads up to 3; upgrade Gradweave"},
      {"bytes", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->mutable_data()->pop_back(); },
       "DIR/malformed.gw: variable 'h': a tensor float16[3] has 5 bytes and needs 6"},
      {"bytes of float32",
       [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_data(std::string(12, 0)); },
       "DIR/malformed.gw: variable 'h': a tensor float16[3] has 12 bytes and needs 6"},
      {"other half", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_dtype("bfloat16"); },
       "DIR/malformed.gw: variable 'h': it is float16[3] and its value bfloat16[3]"},
      {"unknown half", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_dtype("float8\x1b"); },
       "DIR/malformed.gw: variable 'h': 'float8\\x1b' is not a dtype"},
      {"huge", [](proto::Model& m) { m.mutable_variables(0)->mutable_value()->set_sizes(0, int64_t{1} << 40); },
       "DIR/malformed.gw: variable 'h': a tensor float16[1099511627776] has 6 bytes and needs "
       "2199023255552"},
      {"computed with", [](proto::Model& m) { *NodeOf(m, "Add").mutable_inputs(0) = NodeOf(m, "Cast").inputs(0); },
       "DIR/malformed.gw: node 5: Add: *"},
  };
  const proto::Model good = MessageOf(graph, WriteTestFile("malformed.gw", ""));
  ASSERT_EQ(good.format_version(), 3);
  ExpectRefusals(rows, good);
}

TEST(Malformed, Models) { ExpectRefusals(kRows, GoodModel(WriteTestFile("malformed.gw", ""))); }

// Files that are no message, or not the one that was written.
TEST(Malformed, BytesOfModels) {
  const std::string path = WriteTestFile("malformed.gw", "");
  const std::string good = FileOf(GoodModel(path));
  std::string flipped = good;
  flipped[good.size() / 2] = static_cast<char>(flipped[good.size() / 2] ^ 1);
  const std::vector<std::tuple<const char*, std::string, const char*>> rows = {
      {"empty", "", "DIR/malformed.gw: this is not a Gradweave model"},
      {"text", "batch,loss\n1,0.5\n", "DIR/malformed.gw: this is not a Gradweave model"},
      {"beginning alone", good.substr(0, 17),
       "DIR/malformed.gw: the file has format version 0, and the first one is 1: it is damaged or truncated"},
      {"half", good.substr(0, good.size() / 2), "DIR/malformed.gw: the file is damaged or truncated"},
      {"without the checksum", good.substr(0, good.size() - 6), "DIR/malformed.gw: the file is truncated"},
      {"one byte less", good.substr(0, good.size() - 1), "DIR/malformed.gw: the file is damaged or truncated"},
      {"one byte more", good + '\0', "DIR/malformed.gw: the file is damaged or truncated"},
      {"one bit", flipped, "DIR/malformed.gw: the checksum is wrong: the file is damaged"},
      {"twice", good + good, "DIR/malformed.gw: the checksum is wrong: the file is damaged"},
  };
  for (const auto& [name, bytes, message] : rows) {
    WriteTestFile("malformed.gw", bytes);
    ExpectRefused(name, message, [&] { return LoadModel(path).status(); });
  }
  WriteTestFile("malformed.gw", good);
  ExpectRefused("above the limit", "DIR/malformed.gw: the file has 515 bytes, but the limit is 100",
                [&] { return LoadModel(path, {.memory_limit = 100}).status(); });
  ExpectRefused("missing", "DIR/malformed.gwx: the file cannot be opened: No such file or directory",
                [&] { return LoadModel(path + "x").status(); });
  ExpectRefused("folder", "DIR: this is not a regular file",
                [&] { return LoadModel(path.substr(0, path.rfind('/'))).status(); });
  ExpectRefused("device", "/dev/zero: this is not a regular file", [] { return LoadModel("/dev/zero").status(); });
  const std::string pipe = path + ".pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0644), 0);
  ExpectRefused("pipe", "DIR/malformed.gw.pipe: this is not a regular file", [&] { return LoadModel(pipe).status(); });
  std::remove(pipe.c_str());
}

// Cases of a model file's claims about its weights file, and of the weights file.
TEST(Malformed, Weights) {
  const std::string path = WriteTestFile("malformed.gw", "");
  proto::Model good = GoodModel(path);
  const std::string weights(128, '\0');
  proto::Tensor& value = *good.mutable_variables(0)->mutable_value();
  value.clear_data();
  value.set_offset(64);
  value.set_length(24);
  good.set_weights_file("malformed.weights");
  good.set_weights_length(weights.size());
  good.set_weights_crc32(static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(weights.data()), static_cast<uInt>(weights.size()))));
  WriteTestFile("malformed.gw", FileOf(good));
  const std::string weights_path = WriteTestFile("malformed.weights", weights);
  ASSERT_TRUE(LoadModel(path).ok()) << LoadModel(path).status();

  using Spoil = std::function<void(proto::Model&, proto::Tensor&)>;
  const std::vector<std::tuple<const char*, Spoil, const char*>> rows = {
      {"length of the file", [](proto::Model& m, proto::Tensor&) { m.set_weights_length(127); },
       "DIR/malformed.weights: the file has 128 bytes and should have 127: it is truncated or damaged"},
      {"checksum", [](proto::Model& m, proto::Tensor&) { m.set_weights_crc32(1); },
       "DIR/malformed.weights: the checksum is wrong: the file is damaged"},
      {"offset", [](proto::Model&, proto::Tensor& t) { t.set_offset(32); },
       "DIR/malformed.gw: variable 'w': its place in the weights file is wrong, or the weights file is truncated"},
      {"offset behind the end", [](proto::Model&, proto::Tensor& t) { t.set_offset(128); },
       "DIR/malformed.gw: variable 'w': its place in the weights file is wrong, or the weights file is truncated"},
      {"offset near 2^64", [](proto::Model&, proto::Tensor& t) { t.set_offset(~uint64_t{63}); },
       "DIR/malformed.gw: variable 'w': its place in the weights file is wrong, or the weights file is truncated"},
      {"length", [](proto::Model&, proto::Tensor& t) { t.set_length(20); },
       "DIR/malformed.gw: variable 'w': its place in the weights file is wrong, or the weights file is truncated"},
      {"length near 2^64", [](proto::Model&, proto::Tensor& t) { t.set_length(~uint64_t{0}); },
       "DIR/malformed.gw: variable 'w': its place in the weights file is wrong, or the weights file is truncated"},
      {"elements twice", [](proto::Model&, proto::Tensor& t) { t.set_data(std::string(24, 'x')); },
       "DIR/malformed.gw: variable 'w': its place in the weights file is wrong, or the weights file is truncated"},
      {"sizes", [](proto::Model&, proto::Tensor& t) { t.set_sizes(0, int64_t{1} << 40); },
       "DIR/malformed.gw: variable 'w': its place in the weights file is wrong, or the weights file is truncated"},
      {"name with a zero byte",
       [](proto::Model& m, proto::Tensor&) { m.set_weights_file(std::string("malformed.weights\0", 18)); },
       "DIR/malformed.gw: the weights file is named 'malformed.weights\\x00'; it has to be the name of a file beside "
       "the model, without a folder"},
      {"folder", [](proto::Model& m, proto::Tensor&) { m.set_weights_file("folder.weights"); },
       "DIR/folder.weights: this is not a regular file"},
      {"pipe", [](proto::Model& m, proto::Tensor&) { m.set_weights_file("pipe.weights"); },
       "DIR/pipe.weights: this is not a regular file"},
  };
  WriteTestFile("folder.weights/inside", "");
  const std::string pipe = path.substr(0, path.rfind('/')) + "/pipe.weights";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0644), 0);
  for (const auto& [name, spoil, message] : rows) {
    proto::Model bad = good;
    spoil(bad, *bad.mutable_variables(0)->mutable_value());
    WriteTestFile("malformed.gw", FileOf(bad));
    ExpectRefused(name, message, [&] { return LoadModel(path).status(); });
  }
  std::remove(pipe.c_str());
  WriteTestFile("malformed.gw", FileOf(good));
  WriteTestFile("malformed.weights", weights.substr(1));
  ExpectRefused("truncated",
                "DIR/malformed.weights: the file has 127 bytes and should have 128: it is truncated or damaged",
                [&] { return LoadModel(path).status(); });
  WriteTestFile("malformed.weights", weights + "x");
  ExpectRefused("too long",
                "DIR/malformed.weights: the file has 129 bytes and should have 128: it is truncated or damaged",
                [&] { return LoadModel(path).status(); });
  WriteTestFile("malformed.weights", "x" + weights.substr(1));
  ExpectRefused("other bytes", "DIR/malformed.weights: the checksum is wrong: the file is damaged",
                [&] { return LoadModel(path).status(); });
  WriteTestFile("malformed.weights", std::string(1 << 20, '\0'));
  ExpectRefused("above the limit", "DIR/malformed.weights: the file has 1048576 bytes, but the limit is *",
                [&] { return LoadModel(path, {.memory_limit = 1 << 16}).status(); });
  std::remove(weights_path.c_str());
  ExpectRefused("missing", "DIR/malformed.weights: the file cannot be opened: No such file or directory",
                [&] { return LoadModel(path).status(); });
}

// Layers of strides on a symbolic height are saved and read: the builder and the reader have the
// same limits.
TEST(Malformed, WhatIsSavedLoads) {
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
