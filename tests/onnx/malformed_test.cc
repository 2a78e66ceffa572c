// ONNX files that are wrong in one place: each is refused in one printable line, in a moment and
// with little memory, and the line says where and what is wrong.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/proto/onnx.pb.h"
#include "gtest/gtest.h"
#include "tests/files/refusal.h"
#include "tests/onnx/model_parts.h"

namespace gradweave::onnx {
namespace {

// y = Relu(x w), with x [4, 2] and w [2, 3].
proto::Model GoodModel() {
  proto::Model m;
  m.set_ir_version(8);
  m.add_opset_import()->set_version(17);
  SetType(*m.mutable_graph()->add_input(), "x", {4, 2});
  proto::Tensor& w = *m.mutable_graph()->add_initializer();
  w.set_name("w");
  w.set_data_type(1);
  w.add_dims(2);
  w.add_dims(3);
  for (int i = 0; i < 6; ++i) w.add_float_data(static_cast<float>(i));
  AddNode(m, "MatMul", {"x", "w"}, {"product"});
  AddNode(m, "Relu", {"product"}, {"y"});
  SetType(*m.mutable_graph()->add_output(), "y", {4, 3});
  return m;
}

// Puts a node behind the model: its output z is the model's.
proto::Node& Ending(proto::Model& m, const std::string& op, std::vector<std::string> inputs) {
  m.mutable_graph()->mutable_output(0)->set_name("z");
  return AddNode(m, op, inputs, {"z"});
}

// Lets the model end in an If with an If in it, and so on, `depth` times.
void EndingInNestedIfs(proto::Model& m, int depth) {
  proto::Tensor& b = AddTensor(m, "b", {}, {});
  b.set_data_type(9);
  b.add_int32_data(1);
  proto::Node* node = &Ending(m, "If", {"b"});
  for (int i = 0; i < depth; ++i) {
    for (const char* name : {"then_branch", "else_branch"}) {
      proto::Attribute& branch = *node->add_attribute();
      branch.set_name(name);
      branch.mutable_g()->add_output()->set_name("inner");
    }
    node = node->mutable_attribute(0)->mutable_g()->add_node();
    node->set_op_type("If");
    node->add_input("b");
    node->add_output("inner");
  }
}

// Lets the model end in a Loop of 4,000 rounds whose body has another one, and so on. No condition
// is known, so all rounds would be unrolled.
void EndingInNestedLoops(proto::Model& m, int depth) {
  AddTensor(m, "rounds", {}, {4000});
  AddTensor(m, "go", {}, {}).set_data_type(9);
  m.mutable_graph()->mutable_initializer(m.graph().initializer_size() - 1)->add_int32_data(1);
  proto::Node* node = &Ending(m, "Loop", {"rounds", "go", "y"});
  for (int i = 0; i < depth; ++i) {
    proto::Attribute& body = *node->add_attribute();
    body.set_name("body");
    proto::Graph& graph = *body.mutable_g();
    for (const std::string name : {"i", "c", "v"}) graph.add_input()->set_name(name + std::to_string(i));
    graph.add_output()->set_name("on" + std::to_string(i));
    graph.add_output()->set_name("next" + std::to_string(i));
    // The condition is computed from the round, which only an unrolled loop knows.
    proto::Node& condition = *graph.add_node();
    condition.set_op_type("Equal");
    condition.add_input("i" + std::to_string(i));
    condition.add_input("i" + std::to_string(i));
    condition.add_output("on" + std::to_string(i));
    node = graph.add_node();
    node->set_op_type(i + 1 < depth ? "Loop" : "Neg");
    for (const std::string& input : i + 1 < depth ? std::vector<std::string>{"rounds", "go", "v" + std::to_string(i)}
                                                  : std::vector<std::string>{"v" + std::to_string(i)})
      node->add_input(input);
    node->add_output("next" + std::to_string(i));
  }
}

// Lets the model end in a function that calls another one twice in each of 8 places, and so on.
void EndingInDoublingFunctions(proto::Model& m, int depth) {
  m.add_opset_import()->set_domain("d");
  for (int i = 1; i <= depth; ++i) {
    proto::Function& f = *m.add_functions();
    f.set_name("F" + std::to_string(i));
    f.set_domain("d");
    f.add_opset_import()->set_version(17);
    f.add_opset_import()->set_domain("d");
    f.add_input("0");
    for (int k = 0; k < 8; ++k) {
      proto::Node& inner = *f.add_node();
      inner.set_op_type(i == 1 ? "Neg" : "F" + std::to_string(i - 1));
      if (i > 1) inner.set_domain("d");
      inner.add_input(std::to_string(k));
      inner.add_output(std::to_string(k + 1));
    }
    f.add_output("8");
  }
  Ending(m, "F" + std::to_string(depth), {"y"}).set_domain("d");
}

void External(proto::Model& m, const std::string& location, const std::string& offset = "0") {
  proto::Tensor& w = *m.mutable_graph()->mutable_initializer(0);
  w.clear_float_data();
  w.set_data_location(1);
  for (const auto& [key, value] : {std::make_pair("location", location), std::make_pair("offset", offset)}) {
    proto::Entry& entry = *w.add_external_data();
    entry.set_key(key);
    entry.set_value(value);
  }
}

struct Row {
  const char* name;
  std::function<void(proto::Model&)> spoil;
  const char* message;
};

const Row kRows[] = {
    {"no graph", [](proto::Model& m) { m.clear_graph(); },
     "DIR/malformed.onnx: it has no graph, so it is not an ONNX model, or it is truncated"},
    {"no outputs", [](proto::Model& m) { m.mutable_graph()->clear_output(); }, "DIR/malformed.onnx: it has no outputs"},
    {"newer IR", [](proto::Model& m) { m.set_ir_version(99); },
     "DIR/malformed.onnx: it has IR version 99, and this Gradweave reads up to 14"},
    {"newer opset", [](proto::Model& m) { m.mutable_opset_import(0)->set_version(29); },
     "DIR/malformed.onnx: it uses opset 29, and this Gradweave reads 1 to 28; export it with one of these"},
    {"opset 0", [](proto::Model& m) { m.mutable_opset_import(0)->set_version(0); },
     "DIR/malformed.onnx: it uses opset 0, and this Gradweave reads 1 to 28; export it with one of these"},
    {"no opset", [](proto::Model& m) { m.mutable_opset_import(0)->set_domain("com.example"); },
     "DIR/malformed.onnx: 1 node cannot be imported: node 'the MatMul' (MatMul): the file names no opset"},
    {"unknown domain", [](proto::Model& m) { Ending(m, "Gelu", {"y"}).set_domain("com.example"); },
     "DIR/malformed.onnx: 1 node cannot be imported: node 'the Gelu' (com.example.Gelu): the file names no opset of "
     "domain 'com.example'"},
    {"op before its opset", [](proto::Model& m) { Ending(m, "Gelu", {"y"}); },
     "DIR/malformed.onnx: 1 node cannot be imported: node 'the Gelu' (Gelu): there is no import of this op at opset "
     "17"},
    {"cycle", [](proto::Model& m) { m.mutable_graph()->mutable_node(0)->set_input(0, "y"); },
     "DIR/malformed.onnx: node 'the MatMul' (MatMul): it uses 'y', which a node behind it gives; nodes have to be in "
     "order, without cycles"},
    {"itself", [](proto::Model& m) { m.mutable_graph()->mutable_node(1)->set_input(0, "y"); },
     "DIR/malformed.onnx: node 'the Relu' (Relu): it uses 'y', which a node behind it gives; nodes have to be in "
     "order, without cycles"},
    {"missing initializer", [](proto::Model& m) { m.mutable_graph()->clear_initializer(); },
     "DIR/malformed.onnx: node 'the MatMul' (MatMul): it uses 'w', which no input, initializer or node gives"},
    {"missing output", [](proto::Model& m) { m.mutable_graph()->mutable_output(0)->set_name("\x1b[2J"); },
     "DIR/malformed.onnx: output '\\x1b[2J': no input, initializer or node gives it"},
    {"name twice",
     [](proto::Model& m) {
       m.mutable_graph()->mutable_node(1)->set_output(0, "product");
       m.mutable_graph()->mutable_output(0)->set_name("product");
     },
     "DIR/malformed.onnx: node 'the Relu' (Relu): its output 'product' is the name of another value"},
    {"initializer twice", [](proto::Model& m) { *m.mutable_graph()->add_initializer() = m.graph().initializer(0); },
     "DIR/malformed.onnx: initializer 'w': the name is taken"},
    {"initializer without name", [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->clear_name(); },
     "DIR/malformed.onnx: an initializer has no name"},
    {"missing operand", [](proto::Model& m) { m.mutable_graph()->mutable_node(0)->mutable_input()->RemoveLast(); },
     "DIR/malformed.onnx: node 'the MatMul' (MatMul): input 1 is missing"},
    {"few elements",
     [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->mutable_float_data()->RemoveLast(); },
     "DIR/malformed.onnx: initializer 'w': it is float32[2,3] and has 5 elements"},
    {"many elements", [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->add_float_data(1); },
     "DIR/malformed.onnx: initializer 'w': it is float32[2,3] and has 7 elements"},
    {"wrong bytes", [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->set_raw_data("12345"); },
     "DIR/malformed.onnx: initializer 'w': it is float32[2,3] and has 5 bytes in place of 24"},
    {"huge", [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->set_dims(0, int64_t{1} << 40); },
     "DIR/malformed.onnx: initializer 'w': it is float32[1099511627776,3], and the file has only 6 elements of it"},
    {"overflow", [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->set_dims(0, int64_t{1} << 62); },
     "DIR/malformed.onnx: initializer 'w': it has a negative size, or too many elements"},
    {"negative size", [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->set_dims(0, -2); },
     "DIR/malformed.onnx: initializer 'w': it has a negative size, or too many elements"},
    {"dtype", [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->set_data_type(77); },
     "DIR/malformed.onnx: initializer 'w': there is no dtype 77"},
    {"string", [](proto::Model& m) { m.mutable_graph()->mutable_initializer(0)->set_data_type(8); },
     "DIR/malformed.onnx: initializer 'w': the dtype string is not supported"},
    {"bool of 2",
     [](proto::Model& m) {
       m.mutable_graph()->mutable_initializer(0)->set_data_type(9);
       m.mutable_graph()->mutable_initializer(0)->set_raw_data(std::string(6, '\2'));
     },
     "DIR/malformed.onnx: initializer 'w': it is bool and has an element that is neither 0 nor 1"},
    {"input of 8 bits", [](proto::Model& m) { SetType(*m.mutable_graph()->mutable_input(0), "x", {}, 17); },
     "DIR/malformed.onnx: input 'x': the dtype float8e4m3fn is not supported"},
    {"sequence input", [](proto::Model& m) { m.mutable_graph()->mutable_input(0)->clear_type(); },
     "DIR/malformed.onnx: input 'x': it is not a tensor; sequences, maps and optional values are not supported"},
    {"input without shape",
     [](proto::Model& m) { m.mutable_graph()->mutable_input(0)->mutable_type()->mutable_tensor_type()->clear_shape(); },
     "DIR/malformed.onnx: input 'x': the file has no shape for it; ImportOptions::shapes can give one"},
    {"control characters",
     [](proto::Model& m) {
       m.mutable_graph()->mutable_input(0)->set_name("x\n\x1b");
       m.mutable_graph()->mutable_node(0)->set_input(0, "x\n\x1b");
     },
     "DIR/malformed.onnx: input 'x\\n\\x1b': Input: the name 'x\\n\\x1b' has a control character*"},
    {"shapes",
     [](proto::Model& m) {
       m.mutable_graph()->mutable_input(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->clear_dim();
     },
     "DIR/malformed.onnx: node 'the MatMul' (MatMul): its operands have no axes"},
    {"parent folder", [](proto::Model& m) { External(m, "../../etc/passwd"); },
     "DIR/malformed.onnx: initializer 'w': its external data is in '../../etc/passwd'; it has to be a file in the "
     "model's folder, or in one inside of it"},
    {"absolute path", [](proto::Model& m) { External(m, "/etc/passwd"); },
     "DIR/malformed.onnx: initializer 'w': its external data is in '/etc/passwd'; it has to be a file in the model's "
     "folder, or in one inside of it"},
    {"no path", [](proto::Model& m) { External(m, ""); },
     "DIR/malformed.onnx: initializer 'w': its external data is in ''; it has to be a file in the model's folder, or "
     "in one inside of it"},
    {"link", [](proto::Model& m) { External(m, "link.bin"); },
     "DIR/malformed.onnx: initializer 'w': its external data 'link.bin' is behind a symbolic link, and links are not "
     "followed"},
    {"pipe", [](proto::Model& m) { External(m, "pipe.bin"); },
     "DIR/malformed.onnx: initializer 'w': its external data 'pipe.bin' is not a regular file"},
    {"missing file", [](proto::Model& m) { External(m, "none.bin"); },
     "DIR/malformed.onnx: initializer 'w': its external data 'none.bin' cannot be read: No such file or directory"},
    {"short file", [](proto::Model& m) { External(m, "short.bin"); },
     "DIR/malformed.onnx: initializer 'w': its external data 'short.bin' has 8 bytes, and the tensor is at 0 with 24"},
    {"offset", [](proto::Model& m) { External(m, "short.bin", "18446744073709551615"); },
     "DIR/malformed.onnx: initializer 'w': its external data 'short.bin' has 8 bytes, and the tensor is at "
     "18446744073709551615 with 24"},
    {"no number", [](proto::Model& m) { External(m, "short.bin", "-1"); },
     "DIR/malformed.onnx: initializer 'w': the offset of its external data is not a number"},
    {"external huge",
     [](proto::Model& m) {
       External(m, "short.bin");
       m.mutable_graph()->mutable_initializer(0)->set_dims(0, int64_t{1} << 40);
     },
     "DIR/malformed.onnx: initializer 'w': it takes more memory than the limit of the import leaves"},
    {"huge ConstantOfShape",
     [](proto::Model& m) {
       AddTensor(m, "shape", {3}, {int64_t{1} << 40, int64_t{1} << 40, 2});
       Ending(m, "ConstantOfShape", {"shape"});
     },
     "DIR/malformed.onnx: node 'the ConstantOfShape' (ConstantOfShape): the shape [1099511627776,1099511627776,2] has "
     "too many elements"},
    {"negative ConstantOfShape",
     [](proto::Model& m) {
       AddTensor(m, "shape", {1}, {-1});
       Ending(m, "ConstantOfShape", {"shape"});
     },
     "DIR/malformed.onnx: node 'the ConstantOfShape' (ConstantOfShape): a size is negative"},
    {"Reshape",
     [](proto::Model& m) {
       AddTensor(m, "shape", {2}, {5, -1});
       Ending(m, "Reshape", {"y", "shape"});
     },
     "DIR/malformed.onnx: node 'the Reshape' (Reshape): Reshape: the 12 elements are not a multiple of 5, so no size "
     "fits the -1 in [5,-1]; operands are (float32[4,3]) at onnx:3"},
    {"Reshape to 0",
     [](proto::Model& m) {
       AddTensor(m, "shape", {3}, {4, 3, 0});
       Ending(m, "Reshape", {"y", "shape"});
     },
     "DIR/malformed.onnx: node 'the Reshape' (Reshape): size 2 is that of an axis that the input lacks"},
    {"Reshape by floats",
     [](proto::Model& m) {
       Ending(m, "Reshape", {"y", "w"});
     },
     "DIR/malformed.onnx: node 'the Reshape' (Reshape): 'w' has to be a list of integers, and is float32[2,3]"},
    {"huge Expand",
     [](proto::Model& m) {
       AddTensor(m, "shape", {3}, {int64_t{1} << 62, 4, 3});
       Ending(m, "Expand", {"y", "shape"});
     },
     "DIR/malformed.onnx: node 'the Expand' (Expand): BroadcastTo: the output would have more than 2^48 elements: "
     "float32[4611686018427387904,4,3]; operands are (x: float32[4,3]) at onnx:3"},
    {"Tile",
     [](proto::Model& m) {
       AddTensor(m, "repeats", {2}, {-1, 1});
       Ending(m, "Tile", {"y", "repeats"});
     },
     "DIR/malformed.onnx: node 'the Tile' (Tile): Tile: the multiple of axis 0 is negative; operands are "
     "(float32[4,3]) at onnx:3"},
    {"Transpose",
     [](proto::Model& m) {
       AddInts(Ending(m, "Transpose", {"y"}), "perm", {0, 0});
     },
     "DIR/malformed.onnx: node 'the Transpose' (Transpose): Transpose: the permutation [0,0] is not one of the 2 axes "
     "of x; operands are (x: float32[4,3]) at onnx:3"},
    {"Squeeze",
     [](proto::Model& m) {
       AddTensor(m, "axes", {1}, {7});
       Ending(m, "Squeeze", {"y", "axes"});
     },
     "DIR/malformed.onnx: node 'the Squeeze' (Squeeze): Squeeze: axis 7 is not an axis of size 1; operands are "
     "(float32[4,3]) at onnx:3"},
    {"axis", [](proto::Model& m) { AddInt(Ending(m, "Softmax", {"y"}), "axis", 9); },
     "DIR/malformed.onnx: node 'the Softmax' (Softmax): axis 9 is outside of the 2 axes"},
    {"Slice of step 0",
     [](proto::Model& m) {
       AddTensor(m, "zero", {1}, {0});
       Ending(m, "Slice", {"y", "zero", "zero", "zero", "zero"});
     },
     "DIR/malformed.onnx: node 'the Slice' (Slice): a step is 0"},
    {"Conv without kernel",
     [](proto::Model& m) {
       Ending(m, "Conv", {"y", "y"});
     },
     "DIR/malformed.onnx: node 'the Conv' (Conv): its input has to have a batch, channels and at least one axis more"},
    {"Conv of stride 0",
     [](proto::Model& m) {
       AddTensor(m, "s", {4}, {1, 1, 4, 3});
       AddNode(m, "Reshape", {"y", "s"}, {"image"});
       AddInts(Ending(m, "Conv", {"image", "image"}), "strides", {0, 1});
     },
     "DIR/malformed.onnx: node 'the Conv' (Conv): its kernel, strides and dilations have to be in [1, 2^24]"},
    {"Conv of huge padding",
     [](proto::Model& m) {
       AddTensor(m, "s", {4}, {1, 1, 4, 3});
       AddNode(m, "Reshape", {"y", "s"}, {"image"});
       AddInts(Ending(m, "Conv", {"image", "image"}), "pads", {int64_t{1} << 62, 0, 0, 0});
     },
     "DIR/malformed.onnx: node 'the Conv' (Conv): its paddings have to be in [0, 2^24]"},
    {"MaxPool without kernel",
     [](proto::Model& m) {
       AddTensor(m, "s", {4}, {1, 1, 4, 3});
       AddNode(m, "Reshape", {"y", "s"}, {"image"});
       Ending(m, "MaxPool", {"image"});
     },
     "DIR/malformed.onnx: node 'the MaxPool' (MaxPool): its kernel, strides and dilations need one number for each of "
     "2 axes"},
    {"Range of step 0",
     [](proto::Model& m) {
       AddTensor(m, "n", {}, {0});
       Ending(m, "Range", {"n", "n", "n"});
     },
     "DIR/malformed.onnx: node 'the Range' (Range): its step has to be a number other than 0"},
    {"huge Range",
     [](proto::Model& m) {
       AddTensor(m, "n", {}, {int64_t{1} << 62});
       AddTensor(m, "o", {}, {1});
       Ending(m, "Range", {"o", "n", "o"});
     },
     "DIR/malformed.onnx: node 'the Range' (Range): it has too many elements"},
    {"endless Loop",
     [](proto::Model& m) {
       proto::Node& node = Ending(m, "Loop", {"", "", "y"});
       proto::Attribute& body = *node.add_attribute();
       body.set_name("body");
       proto::Graph& g = *body.mutable_g();
       for (const char* name : {"i", "c", "v"}) g.add_input()->set_name(name);
       for (const char* name : {"c", "v"}) g.add_output()->set_name(name);
     },
     "DIR/malformed.onnx: 1 node cannot be imported: node 'the Loop' (Loop): it has more than 4096 rounds (opset 17)"},
    {"If without branches",
     [](proto::Model& m) {
       AddTensor(m, "b", {}, {1}).set_data_type(9);
       m.mutable_graph()->mutable_initializer(1)->add_int32_data(1);
       Ending(m, "If", {"b"});
     },
     "DIR/malformed.onnx: node 'the If' (If): it has no graph 'then_branch'"},
    {"deep nesting", [](proto::Model& m) { EndingInNestedIfs(m, 20); },
     "DIR/malformed.onnx: node 'the If' (If): node 'inner' (If): node 'inner' (If): node 'inner' (If): node 'inner' "
     "(If): node 'inner' (If): node 'inner' (If): node 'inner' (If): node 'inner' (If): node 'inner' (If): node "
     "'inner' (If): node 'inner' (If): node 'inner' (If): node 'inner' (If): node 'inner' (If): node 'inner' (If): "
     "node 'inner' (If): graphs and functions are nested more than 16 deep"},
    {"deeper nesting", [](proto::Model& m) { EndingInNestedIfs(m, 40); },
     "DIR/malformed.onnx: it is not an ONNX model, is damaged or truncated, or is nested too deep"},
    {"recursive function",
     [](proto::Model& m) {
       proto::Function& f = *m.add_functions();
       f.set_name("F");
       f.set_domain("d");
       f.add_input("a");
       f.add_output("b");
       proto::Node& inner = *f.add_node();
       inner.set_op_type("F");
       inner.set_domain("d");
       inner.add_input("a");
       inner.add_output("b");
       Ending(m, "F", {"y"}).set_domain("d");
     },
     "DIR/malformed.onnx: node 'the F' (d.F): graphs and functions are nested more than 16 deep"},
    {"LSTM of another hidden size",
     [](proto::Model& m) {
       AddFloats(m, "rows", {9, 1, 2}, std::vector<float>(18));
       AddFloats(m, "w1", {1, 12, 2}, std::vector<float>(24));
       AddFloats(m, "r1", {1, 12, 3}, std::vector<float>(36));
       AddInt(Ending(m, "LSTM", {"rows", "w1", "r1"}), "hidden_size", 2);
     },
     "DIR/malformed.onnx: node 'the LSTM' (LSTM): *"},
    {"Attention of other heads",
     [](proto::Model& m) {
       m.mutable_opset_import(0)->set_version(24);
       AddFloats(m, "q", {1, 2, 3, 4}, std::vector<float>(24));
       AddFloats(m, "k", {1, 2, 3, 5}, std::vector<float>(30));
       AddFloats(m, "past", {1, 1}, {0});
       Ending(m, "Attention", {"q", "k", "k", "", "past", "past"});
     },
     "DIR/malformed.onnx: node 'the Attention' (Attention): Concat: *"},
    {"long names",
     [](proto::Model& m) {
       m.mutable_graph()->mutable_node(0)->set_name(std::string(1 << 20, 'n'));
       m.mutable_graph()->mutable_node(0)->mutable_input()->RemoveLast();
     },
     "DIR/malformed.onnx: node 'nnnnnnnn*"},
    {"control characters in a list of integers",
     [](proto::Model& m) {
       AddFloats(m, "\x1b]0;", {1}, {1});
       Ending(m, "Reshape", {"y", "\x1b]0;"});
     },
     "DIR/malformed.onnx: node 'the Reshape' (Reshape): '\\x1b]0;' has to be a list of integers, and is float32[1]"},
    {"huge window",
     [](proto::Model& m) {
       AddTensor(m, "n", {}, {999999999});
       Ending(m, "HannWindow", {"n"});
     },
     "DIR/malformed.onnx: node 'the HannWindow' (HannWindow): the model takes more memory than the limit of 8589934592 "
     "bytes"},
    {"huge Resize",
     [](proto::Model& m) {
       AddTensor(m, "n", {2}, {4, int64_t{1} << 38});
       Ending(m, "Resize", {"y", "", "", "n"});
     },
     "DIR/malformed.onnx: node 'the Resize' (Resize): the model takes more memory than the limit of 8589934592 bytes"},
    {"Resize without scales", [](proto::Model& m) { Ending(m, "Resize", {"y"}); },
     "DIR/malformed.onnx: node 'the Resize' (Resize): *"},
    {"huge DFT",
     [](proto::Model& m) {
       AddTensor(m, "n", {}, {1000000});
       AddTensor(m, "s", {3}, {1, 12, 1});
       AddNode(m, "Reshape", {"y", "s"}, {"signal"});
       Ending(m, "DFT", {"signal", "n"});
     },
     "DIR/malformed.onnx: node 'the DFT' (DFT): the model takes more memory than the limit of 8589934592 bytes"},
    {"many opsets",
     [](proto::Model& m) {
       for (int i = 0; i < 2000; ++i) {
         m.add_opset_import()->set_domain(std::to_string(i));
       }
     },
     "DIR/malformed.onnx: it names more than 1000 opsets"},
};

TEST(MalformedOnnx, Models) {
  WriteTestFile("short.bin", std::string(8, '\0'));
  const std::string link = TestFolder() + "/link.bin";
  unlink(link.c_str());
  ASSERT_EQ(symlink("/etc/passwd", link.c_str()), 0);
  const std::string pipe = TestFolder() + "/pipe.bin";
  unlink(pipe.c_str());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const Row& row : kRows) {
    proto::Model model = GoodModel();
    row.spoil(model);
    const std::string path = WriteTestFile("malformed.onnx", model.SerializeAsString());
    ExpectRefused(row.name, row.message, [&] { return Import(path).status(); });
  }
}

// A few hundred bytes for 8^15 nodes, and for 4000^6 rounds.
TEST(MalformedOnnx, WhatIsBuiltEndsAtTheMemoryLimit) {
  proto::Model functions = GoodModel(), loops = GoodModel();
  EndingInDoublingFunctions(functions, 15);
  EndingInNestedLoops(loops, 6);
  for (const proto::Model& model : {functions, loops}) {
    const std::string bytes = model.SerializeAsString();
    ExpectRefused("bomb", "node 'the *", [&] {
      const absl::Status status = ImportBytes(bytes, {.memory_limit = 16 << 20}).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      EXPECT_TRUE(absl::EndsWith(status.message(), "the model takes more memory than the limit of 16777216 bytes"))
          << status;
      return status;
    });
  }
}

TEST(MalformedOnnx, TheModelItselfIsTaken) {
  const std::string path = WriteTestFile("good.onnx", GoodModel().SerializeAsString());
  EXPECT_TRUE(Import(path).ok()) << Import(path).status();
}

TEST(MalformedOnnx, BytesWithoutAFolderHaveNoExternalData) {
  proto::Model model = GoodModel();
  External(model, "short.bin");
  const std::string bytes = model.SerializeAsString();
  ExpectRefused("bytes", "initializer 'w': its elements are in another file, and bytes without a folder have none",
                [&] { return ImportBytes(bytes).status(); });
}

TEST(MalformedOnnx, FilesThatAreNone) {
  ExpectRefused("missing", "DIR/none.onnx: the file cannot be opened: No such file or directory",
                [] { return Import(TestFolder() + "/none.onnx").status(); });
  ExpectRefused("folder", "DIR: this is not a regular file*", [] { return Import(TestFolder()).status(); });
  const std::string empty = WriteTestFile("empty.onnx", "");
  ExpectRefused("empty", "DIR/empty.onnx: it has no graph, so it is not an ONNX model, or it is truncated",
                [&] { return Import(empty).status(); });
}

// A truncated file is never taken for another model: it is refused, or ends where a whole field
// ends.
TEST(MalformedOnnx, TruncatedBytes) {
  const std::string bytes = GoodModel().SerializeAsString();
  int refused = 0;
  for (size_t size = 0; size < bytes.size(); ++size) {
    const absl::StatusOr<ImportedModel> model = ImportBytes(absl::string_view(bytes).substr(0, size));
    if (model.ok()) {
      EXPECT_EQ(model->outputs.size(), 1u);
    } else {
      ++refused;
    }
  }
  EXPECT_GT(refused, static_cast<int>(bytes.size()) - 10);
}

TEST(MalformedOnnx, RandomBytes) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 300, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    EXPECT_FALSE(ImportBytes(bytes).ok());
  }
  // A byte of a model is another one: no call ends the process.
  const std::string good = GoodModel().SerializeAsString();
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    for (int i = 0; i < 1 + round % 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    const absl::StatusOr<ImportedModel> model = ImportBytes(bytes);
    if (!model.ok()) {
      EXPECT_FALSE(model.status().message().empty());
    }
  }
}

TEST(MalformedOnnx, ManyEmptyNodesTakeNoMemory) {
  std::string graph;
  for (int i = 0; i < 4000000; ++i) graph.append("\x0a\x00", 2);
  std::string bytes("\x3a");  // Model.graph.
  for (size_t size = graph.size(); size > 0; size >>= 7)
    bytes += static_cast<char>((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
  bytes += graph;
  ExpectRefused("nodes", "the model takes more memory than the limit of 100000000 bytes",
                [&] { return ImportBytes(bytes, {.memory_limit = 100000000}).status(); });
}

TEST(MalformedOnnx, AllNodesThatCannotBeImportedAreListed) {
  proto::Model model = GoodModel();
  AddNode(model, "Fft", {"y"}, {"a"}).set_domain("com.example");
  AddNode(model, "Frobnicate", {"y"}, {"b"});
  Ending(model, "Add", {"a", "b"});
  model.add_opset_import()->set_domain("com.example");
  model.mutable_opset_import(1)->set_version(3);
  const std::string path = WriteTestFile("unknown.onnx", model.SerializeAsString());
  ExpectRefused("unknown",
                "DIR/unknown.onnx: 2 nodes cannot be imported: node 'the Fft' (com.example.Fft): there is no import of "
                "this op at opset 3; node 'the Frobnicate' (Frobnicate): there is no import of this op at opset 17",
                [&] { return Import(path).status(); });
  EXPECT_EQ(Import(path).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(MalformedOnnx, AnInputOnWhichAShapeDependsIsNamed) {
  proto::Model model = GoodModel();
  SetType(*model.mutable_graph()->add_input(), "shape", {1}, 7);
  Ending(model, "Reshape", {"y", "shape"});
  const absl::StatusOr<ImportedModel> imported = ImportBytes(model.SerializeAsString());
  EXPECT_EQ(imported.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(imported.status().GetPayload(kNeededInputs), absl::Cord("shape"));
  ImportOptions options;
  options.fixed["shape"] = Tensor::Of<int64_t>({1}, {12});
  absl::StatusOr<ImportedModel> fixed = ImportBytes(model.SerializeAsString(), options);
  ASSERT_TRUE(fixed.ok()) << fixed.status();
  EXPECT_EQ(fixed->Output("z").shape(), Shape{12});
  EXPECT_EQ(fixed->inputs, std::vector<std::string>{"x"});
}

}  // namespace
}  // namespace gradweave::onnx
