#include "gradweave/runtime/model_file/graph_file.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/dim.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/proto/model.pb.h"
#include "gradweave/runtime/model_file/built_size.h"

namespace gradweave {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files hold little-endian elements, which are written and read as they are in memory");

// Constants of fewer bytes are never in the weights file, because they would keep it in memory.
constexpr size_t kLeastConstant = 1024;
constexpr int kMostNestedGraphs = 8;  // Limit of graphs nested in graphs.

void WriteAttribute(const AttributeValue& value, bool source_locations, SavedWeights* weights,
                    proto::Attribute& message) {
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, bool>)
          message.set_boolean(v);
        else if constexpr (std::is_same_v<T, int64_t>)
          message.set_integer(v);
        else if constexpr (std::is_same_v<T, double>)
          message.set_real(v);
        else if constexpr (std::is_same_v<T, std::string>)
          message.set_text(v);
        else if constexpr (std::is_same_v<T, DType>)
          message.set_dtype(std::string(DTypeName(v)));
        else if constexpr (std::is_same_v<T, Tensor>)
          WriteTensor(v, v.byte_size() < kLeastConstant ? nullptr : weights, *message.mutable_tensor());
        else if constexpr (std::is_same_v<T, Integers>) {
          for (int64_t number : v) message.mutable_integers()->add_values(number);
          message.mutable_integers();
        } else if constexpr (std::is_same_v<T, Shape>) {
          for (const Dim& dim : v) message.mutable_shape()->add_dims(dim.ToString());
          message.mutable_shape();
        } else {
          WriteGraph(*v, source_locations, weights, *message.mutable_graph());
        }
      },
      value);
}

absl::StatusOr<DType> ReadDType(const std::string& name) {
  const std::optional<DType> dtype = DTypeFromName(name);
  if (!dtype.has_value()) return absl::InvalidArgumentError(absl::StrCat("'", name, "' is not a dtype"));
  return *dtype;
}

// The context of reading a graph and the graphs in it.
struct Reading {
  const OpRegistry& registry;
  const Tensor* weights;
  const int64_t limit;
  int64_t room;  // Bytes left of the limit.

  absl::Status Spend(int64_t bytes) {
    room -= bytes;
    return room < 0 ? BeyondMemoryLimit(limit) : absl::OkStatus();
  }
};

absl::StatusOr<Graph> ReadGraphAtDepth(const proto::Graph& message, Reading& reading, int depth);

absl::StatusOr<AttributeValue> ReadAttribute(const proto::Attribute& message, Reading& reading, int depth) {
  switch (message.value_case()) {
    case proto::Attribute::kBoolean:
      return AttributeValue(message.boolean());
    case proto::Attribute::kInteger:
      return AttributeValue(static_cast<int64_t>(message.integer()));
    case proto::Attribute::kReal:
      return AttributeValue(message.real());
    case proto::Attribute::kText:
      return AttributeValue(message.text());
    case proto::Attribute::kIntegers:
      return AttributeValue(Integers(message.integers().values().begin(), message.integers().values().end()));
    case proto::Attribute::kDtype: {
      GW_ASSIGN_OR_RETURN(DType dtype, ReadDType(message.dtype()));
      return AttributeValue(dtype);
    }
    case proto::Attribute::kShape: {
      Shape shape;
      for (const std::string& text : message.shape().dims()) {
        const std::optional<Dim> dim = DimFromString(text);
        if (!dim.has_value())
          return absl::InvalidArgumentError("a dimension of a shape is neither a number nor an expression");
        shape.Append(*dim);
      }
      return AttributeValue(shape);
    }
    case proto::Attribute::kTensor: {
      GW_ASSIGN_OR_RETURN(Tensor tensor, ReadTensor(message.tensor(), reading.weights));
      if (message.tensor().length() == 0) return AttributeValue(std::move(tensor));
      // A graph that held a view would keep all weights in memory. Many constants may have one
      // place there.
      GW_RETURN_IF_ERROR(reading.Spend(static_cast<int64_t>(tensor.byte_size())));
      GW_ASSIGN_OR_RETURN(Tensor copy, Tensor::Create(tensor.dtype(), tensor.sizes()));
      std::memcpy(copy.mutable_raw_data(), tensor.raw_data(), tensor.byte_size());
      return AttributeValue(std::move(copy));
    }
    case proto::Attribute::kGraph: {
      GW_ASSIGN_OR_RETURN(Graph graph, ReadGraphAtDepth(message.graph(), reading, depth + 1));
      return AttributeValue(std::shared_ptr<const Graph>(std::make_shared<Graph>(std::move(graph))));
    }
    case proto::Attribute::VALUE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("an attribute has no value, or one of a kind that this version does not know");
}

absl::Status ReadNode(const proto::Node& message, Reading& reading, int depth, Graph& graph) {
  const OpDefinition* op = reading.registry.Find(message.op());
  if (op == nullptr) {
    return absl::UnimplementedError(absl::StrCat("there is no op '", message.op(), "'; a newer Gradweave may have it"));
  }
  if (message.op_version() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("op ", op->name, " has version ", message.op_version(), ", and the first one is 1"));
  }
  if (message.op_version() > op->version) {
    return absl::UnimplementedError(absl::StrCat("op ", op->name, " has version ", message.op_version(),
                                                 ", but this Gradweave supports it only up to version ", op->version,
                                                 "; upgrade Gradweave"));
  }
  std::vector<NamedAttribute> attributes;
  for (const proto::Attribute& attribute : message.attributes()) {
    GW_ASSIGN_OR_RETURN(AttributeValue value, ReadAttribute(attribute, reading, depth));
    attributes.emplace_back(attribute.name(), std::move(value));
  }
  std::vector<Port> inputs;
  for (const proto::Port& input : message.inputs()) inputs.push_back({input.node(), input.output()});
  SourceLocation location;
  if (!message.source_file().empty()) location = {graph.Intern(message.source_file()), message.source_line()};
  GW_ASSIGN_OR_RETURN(const NodeId node, graph.AddNode({.op = op,
                                                        .inputs = inputs,
                                                        .attributes = attributes,
                                                        .name = message.name(),
                                                        .device = message.device(),
                                                        .location = location}));
  return reading.Spend(OutputBytes(graph.node(node)));
}

absl::StatusOr<Graph> ReadGraphAtDepth(const proto::Graph& message, Reading& reading, int depth) {
  if (depth > kMostNestedGraphs)
    return absl::InvalidArgumentError(absl::StrCat("graphs are nested more than ", kMostNestedGraphs, " deep"));
  Graph graph;
  for (int i = 0; i < message.nodes_size(); ++i) {
    if (absl::Status status = ReadNode(message.nodes(i), reading, depth, graph); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("node ", i, ": ", status.message()));
    }
  }
  for (const proto::Output& output : message.outputs()) {
    std::vector<Value> values;
    for (const proto::Port& port : output.ports()) {
      if (!graph.Exists({port.node(), port.output()})) {
        return absl::InvalidArgumentError(
            absl::StrCat("output '", output.name(), "' refers to a value that is not in the graph"));
      }
      values.push_back(graph.value(Port{port.node(), port.output()}));
    }
    graph.SetOutput(output.name(), values);
  }
  graph.builder().registry = &reading.registry;
  graph.builder().next_seed = message.next_seed();
  return graph;
}

}  // namespace

void WriteTensor(const Tensor& tensor, SavedWeights* weights, proto::Tensor& message) {
  message.set_dtype(std::string(DTypeName(tensor.dtype())));
  for (int64_t size : tensor.sizes()) message.add_sizes(size);
  if (weights == nullptr || tensor.byte_size() == 0) {
    message.set_data(tensor.raw_data(), tensor.byte_size());
    return;
  }
  message.set_offset(weights->bytes);
  message.set_length(tensor.byte_size());
  weights->tensors.push_back(tensor);
  weights->bytes = RoundUp(weights->bytes + tensor.byte_size(), SavedWeights::kAlignment);
}

absl::StatusOr<Tensor> ReadTensor(const proto::Tensor& message, const Tensor* weights) {
  GW_ASSIGN_OR_RETURN(DType dtype, ReadDType(message.dtype()));
  const std::vector<int64_t> sizes(message.sizes().begin(), message.sizes().end());
  if (!CheckedNumElements(sizes).has_value())
    return absl::InvalidArgumentError("a tensor has a negative size, or too many elements");
  const TensorType type{dtype, Shape(sizes)};
  const uint64_t bytes = static_cast<uint64_t>(type.byte_size());
  Tensor tensor;
  if (message.length() > 0) {
    const uint64_t available = weights == nullptr ? 0 : weights->byte_size();
    if (!message.data().empty() || message.length() != bytes || message.offset() % SavedWeights::kAlignment != 0 ||
        message.offset() > available || bytes > available - message.offset()) {
      return absl::InvalidArgumentError("its place in the weights file is wrong, or the weights file is truncated");
    }
    const auto owner = std::make_shared<Tensor>(*weights);
    tensor = Tensor::View(dtype, sizes, static_cast<char*>(owner->mutable_raw_data()) + message.offset(), owner);
  } else {
    if (bytes != message.data().size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a tensor ", type.ToString(), " has ", message.data().size(), " bytes and needs ", bytes));
    }
    GW_ASSIGN_OR_RETURN(tensor, Tensor::Create(dtype, sizes));
    if (bytes > 0) std::memcpy(tensor.mutable_raw_data(), message.data().data(), bytes);
  }
  if (dtype == kBool) {
    // Any other byte would be an invalid bool.
    const auto* elements = static_cast<const unsigned char*>(tensor.raw_data());
    if (std::any_of(elements, elements + bytes, [](unsigned char byte) { return byte > 1; }))
      return absl::InvalidArgumentError("a bool tensor has an element that is neither 0 nor 1");
  }
  return tensor;
}

void WriteGraph(const Graph& graph, bool source_locations, SavedWeights* weights, proto::Graph& message) {
  for (const Node& node : graph.nodes()) {
    proto::Node& written = *message.add_nodes();
    written.set_op(node.op->name);
    written.set_op_version(node.op->version);
    for (size_t i = 0; i < node.attributes.size(); ++i) {
      const AttributeDefinition& definition = node.op->attributes[i];
      if (definition.default_value.has_value() && SameAttribute(*definition.default_value, node.attributes[i]))
        continue;
      proto::Attribute& attribute = *written.add_attributes();
      attribute.set_name(definition.name);
      WriteAttribute(node.attributes[i], source_locations, weights, attribute);
    }
    for (Port input : node.inputs) {
      proto::Port& port = *written.add_inputs();
      port.set_node(input.node);
      port.set_output(input.output);
    }
    written.set_name(node.name);
    written.set_device(node.device);
    if (source_locations && node.location.file != nullptr) {
      written.set_source_file(node.location.file);
      written.set_source_line(node.location.line);
    }
  }
  for (const auto& [name, ports] : graph.outputs()) {
    proto::Output& output = *message.add_outputs();
    output.set_name(name);
    for (Port port : ports) {
      proto::Port& written = *output.add_ports();
      written.set_node(port.node);
      written.set_output(port.output);
    }
  }
  message.set_next_seed(graph.builder().next_seed);
}

absl::Status BeyondMemoryLimit(int64_t limit) {
  return absl::ResourceExhaustedError(absl::StrCat("the model takes more memory than the limit of ", limit, " bytes"));
}

absl::StatusOr<Graph> ReadGraph(const proto::Graph& message, const OpRegistry& registry, const Tensor* weights,
                                int64_t limit, int64_t room) {
  Reading reading{.registry = registry, .weights = weights, .limit = limit, .room = room};
  return ReadGraphAtDepth(message, reading, 0);
}

absl::StatusOr<std::string> GraphToBytes(const Graph& graph, bool source_locations) try {
  proto::Graph message;
  WriteGraph(graph, source_locations, nullptr, message);
  const size_t bytes = message.ByteSizeLong();
  std::string contents;
  if (bytes > INT32_MAX || !message.SerializeToString(&contents)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the graph needs ", bytes, " bytes, and less than 2 GiB can be written"));
  }
  return contents;
}
GW_CATCH_OUT_OF_MEMORY("GraphToBytes")

absl::StatusOr<Graph> GraphFromBytes(absl::string_view bytes, const OpRegistry& registry, int64_t memory_limit) try {
  const int64_t built = BuiltBytes(bytes, MessageKind::kGraph, memory_limit);
  if (built > memory_limit) return BeyondMemoryLimit(memory_limit);
  proto::Graph message;
  if (bytes.size() > INT32_MAX || !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return absl::InvalidArgumentError("the bytes are not a graph");
  return ReadGraph(message, registry, nullptr, memory_limit, memory_limit - built);
}
GW_CATCH_OUT_OF_MEMORY("GraphFromBytes")

}  // namespace gradweave
