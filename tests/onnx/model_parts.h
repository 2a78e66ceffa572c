// Parts of ONNX models that tests write.
#ifndef GRADWEAVE_TESTS_ONNX_MODEL_PARTS_H_
#define GRADWEAVE_TESTS_ONNX_MODEL_PARTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "gradweave/proto/onnx.pb.h"

namespace gradweave::onnx {

using Ints = std::vector<int64_t>;

inline void SetType(proto::ValueInfo& info, const std::string& name, const Ints& sizes, int dtype = 1) {
  info.set_name(name);
  info.mutable_type()->mutable_tensor_type()->set_elem_type(dtype);
  auto* shape = info.mutable_type()->mutable_tensor_type()->mutable_shape();
  for (const int64_t size : sizes) shape->add_dim()->set_dim_value(size);
}

inline proto::Node& AddNode(proto::Model& m, const std::string& op, const std::vector<std::string>& inputs,
                            const std::vector<std::string>& outputs) {
  proto::Node& node = *m.mutable_graph()->add_node();
  node.set_op_type(op);
  node.set_name("the " + op);
  for (const std::string& input : inputs) node.add_input(input);
  for (const std::string& output : outputs) node.add_output(output);
  return node;
}

inline void AddInts(proto::Node& node, const std::string& name, const Ints& numbers) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  for (const int64_t number : numbers) attribute.add_ints(number);
}

inline void AddInt(proto::Node& node, const std::string& name, int64_t number) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_i(number);
}

inline proto::Tensor& AddTensor(proto::Model& m, const std::string& name, const Ints& sizes, const Ints& numbers) {
  proto::Tensor& tensor = *m.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(7);
  for (const int64_t size : sizes) tensor.add_dims(size);
  for (const int64_t number : numbers) tensor.add_int64_data(number);
  return tensor;
}

// A float input with sizes that are numbers or names.
inline void AddInput(proto::Model& m, const std::string& name, const std::vector<std::string>& sizes, int dtype = 1) {
  proto::ValueInfo& info = *m.mutable_graph()->add_input();
  SetType(info, name, {}, dtype);
  auto* shape = info.mutable_type()->mutable_tensor_type()->mutable_shape();
  for (const std::string& size : sizes) {
    const bool is_number = size.find_first_not_of("0123456789") == std::string::npos;
    if (is_number) {
      shape->add_dim()->set_dim_value(std::stoll(size));
    } else {
      shape->add_dim()->set_dim_param(size);
    }
  }
}

// A float initializer.
inline void AddFloats(proto::Model& m, const std::string& name, const Ints& sizes, const std::vector<float>& numbers) {
  proto::Tensor& tensor = *m.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(1);
  for (const int64_t size : sizes) tensor.add_dims(size);
  for (const float number : numbers) tensor.add_float_data(number);
}

inline void AddText(proto::Node& node, const std::string& name, const std::string& text) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_s(text);
}

// A model of this opset without nodes. AddOutput tells its outputs.
inline proto::Model EmptyModel(int64_t opset = 17) {
  proto::Model m;
  m.set_ir_version(8);
  m.add_opset_import()->set_version(opset);
  return m;
}
inline void AddOutput(proto::Model& m, const std::string& name) { SetType(*m.mutable_graph()->add_output(), name, {}); }

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_TESTS_ONNX_MODEL_PARTS_H_
