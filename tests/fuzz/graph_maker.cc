#include "tests/fuzz/graph_maker.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/activations.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"

namespace gradweave::fuzz {
namespace {

constexpr DType kDTypes[] = {kFloat32,  kFloat64, kInt32, kInt64,  kUint8,  kBool,  kFloat16,
                             kBFloat16, kInt8,    kInt16, kUint16, kUint32, kUint64};

// Wild graphs have dtypes that only store numbers, too: most ops refuse them.
DType AnyStoredDType(ByteReader& bytes, bool wild) { return kDTypes[bytes.Below(wild ? std::size(kDTypes) : 6)]; }

Dim AnyDim(ByteReader& bytes, bool wild) {
  if (wild && bytes.Below(4) == 0) return Dim(bytes.Number());
  switch (bytes.Below(12)) {
    case 0:
      return Dim("n");
    case 1:
      return Dim("m") + bytes.Below(3);
    case 2:
      return Dim("n") * Dim(bytes.Below(4));
    case 3:
      return FloorDivide(Dim("n") + bytes.Below(5), 1 + bytes.Below(3));
    case 4:
      return Dim(0);
    default:
      return Dim(1 + bytes.Below(6));
  }
}

// A shape with the elements of x: some of its axes joined, or axes of size 1 added.
Shape SameElements(ByteReader& bytes, const Shape& x) {
  Shape shape;
  for (const Dim& dim : x) {
    if (bytes.Below(8) == 0) shape.Append(1);
    if (shape.rank() > 0 && bytes.Flag()) {
      shape[shape.rank() - 1] = shape[shape.rank() - 1] * dim;
    } else {
      shape.Append(dim);
    }
  }
  return shape;
}

Shape AnyShape(ByteReader& bytes, bool wild, const Shape* operand) {
  Shape shape;
  if (operand != nullptr) {
    switch (bytes.Below(wild ? 5 : 4)) {
      case 0:
        return *operand;
      case 1:
        return SameElements(bytes, *operand);
      case 2:  // One number or size for each axis, as Slice and Pad take them.
        for (const Dim& dim : *operand) shape.Append(bytes.Flag() ? dim : Dim(bytes.Below(3)));
        return shape;
      case 3:  // A shape to which the operand broadcasts.
        shape.Append(AnyDim(bytes, wild));
        for (const Dim& dim : *operand) shape.Append(dim == Dim(1) ? AnyDim(bytes, wild) : dim);
        return shape;
      default:
        break;
    }
  }
  for (int64_t rank = bytes.Below(5); rank > 0; --rank) shape.Append(AnyDim(bytes, wild));
  return shape;
}

Integers AnyIntegers(ByteReader& bytes, bool wild, const AttributeDefinition& attribute, int rank) {
  Integers result;
  if (wild && bytes.Below(4) == 0) {
    for (int64_t count = bytes.Below(6); count > 0; --count) result.push_back(bytes.Number());
  } else if (attribute.name == "axes") {
    for (int axis = 0; axis < rank; ++axis) {
      if (bytes.Flag()) result.push_back(axis);
    }
  } else if (attribute.name == "permutation") {
    for (int axis = 0; axis < rank; ++axis) result.insert(result.begin() + bytes.Below(axis + 1), axis);
  } else if (attribute.name == "stride" || attribute.name == "dilation" || attribute.name == "window") {
    result = {1 + bytes.Below(3), 1 + bytes.Below(3)};
  } else if (attribute.name == "padding") {
    for (int side = 0; side < 4; ++side) result.push_back(bytes.Below(3));
  } else {
    for (int axis = 0; axis < rank; ++axis) result.push_back(bytes.Below(3));
  }
  return result;
}

double AnyReal(ByteReader& bytes, bool wild) {
  if (!wild) return bytes.Pick({0.5, 1.0, -0.25, 2.0});
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return bytes.Pick({0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e300, -1e300, 4.9e-324, 3e9, -1e19, 255.5, kInfinity,
                     -kInfinity, std::nan("")});
}

AttributeValue AnyAttribute(ByteReader& bytes, bool wild, const AttributeDefinition& attribute,
                            absl::Span<const Value> operands) {
  const Shape* shape = operands.empty() ? nullptr : &operands[0].shape();
  const int rank = shape == nullptr ? 2 : shape->rank();
  switch (attribute.type) {
    case AttributeType::kBool:
      return bytes.Flag();
    case AttributeType::kInteger:
      if (wild && bytes.Below(4) == 0) return bytes.Number();
      return attribute.name == "axis" ? bytes.Below(std::max(rank, 1)) : bytes.Below(5);
    case AttributeType::kReal:
      return AnyReal(bytes, wild);
    case AttributeType::kString:
      return std::string(bytes.Pick({"", "x", "cpu:0", "\n"}));
    case AttributeType::kIntegers:
      return AnyIntegers(bytes, wild, attribute, rank);
    case AttributeType::kDType:
      return AnyStoredDType(bytes, wild);
    case AttributeType::kShape:
      return AnyShape(bytes, wild, shape);
    case AttributeType::kTensor: {
      const DType dtype = AnyStoredDType(bytes, wild);
      return MakeFeed({dtype, {bytes.Below(4), bytes.Below(4)}}, {}, bytes.Byte(), 1, wild);
    }
    case AttributeType::kGraph:
      break;
  }
  return std::shared_ptr<const Graph>(std::make_shared<Graph>());
}

// Returns one of the values that `fits`, or an invalid one if there is none.
template <typename Fits>
Value AnyValue(ByteReader& bytes, const std::vector<Value>& values, Fits fits) {
  const auto start = static_cast<size_t>(bytes.Byte());
  for (size_t i = 0; i < values.size(); ++i) {
    const Value& value = values[(start + i) % values.size()];
    if (fits(value)) return value;
  }
  return {};
}

Value NewVariable(MadeGraph& made, const Shape& shape, DType dtype) {
  Scope scope(made.graph);
  const auto number = static_cast<uint64_t>(made.graph.num_nodes());
  // The weights of a product of many terms are small.
  const double scale = 1 / std::sqrt(std::max(1.0, shape.rank() < 2 ? 1.0 : static_cast<double>(shape[1].size())));
  return scope.Variable(absl::StrCat("v", number), scope.Constant(MakeFeed({dtype, shape}, {}, number, scale)));
}

bool IsKnown(const Dim& dim) { return dim.is_known() && dim.size() > 0 && dim.size() <= 4096; }

Value Convolution(ByteReader& bytes, MadeGraph& made, const Value& x) {
  const Shape& shape = x.shape();
  if (!IsKnown(shape[1]) || !IsKnown(shape[2]) || !IsKnown(shape[3])) return {};
  const int64_t channels = shape[1].size(), groups = channels % 2 == 0 && bytes.Below(4) == 0 ? 2 : 1;
  const int64_t kernel = bytes.Pick({1, 2, 3, 3, 5}), stride = bytes.Pick({1, 1, 1, 2, 3}),
                dilation = bytes.Pick({1, 1, 1, 2}), padding = bytes.Below(3);
  if ((kernel - 1) * dilation + 1 > std::min(shape[2].size(), shape[3].size()) + padding) return {};
  const int64_t outputs = groups * bytes.Pick({1, 3, 4, 8});
  const Value filter = NewVariable(made, {outputs, channels / groups, kernel, kernel}, x.dtype());
  const Conv2DOptions options = {.stride = {stride, bytes.Flag() ? stride : 1},
                                 .padding = {padding, bytes.Flag() ? padding : 0, padding, 0},
                                 .dilation = {dilation, dilation},
                                 .groups = groups};
  if ((kernel - 1) * dilation + 1 > shape[3].size() + options.padding[2]) return {};
  if (bytes.Flag()) return Conv2D(x, filter, options);
  return Conv2D(x, filter, NewVariable(made, {outputs}, x.dtype()), options);
}

Value Pool(ByteReader& bytes, const Value& x) {
  if (!IsKnown(x.shape()[2]) || !IsKnown(x.shape()[3])) return {};
  Pool2DOptions options = {.window = {1 + bytes.Below(3), 1 + bytes.Below(3)},
                           .stride = {1 + bytes.Below(3), 1 + bytes.Below(3)},
                           .count_padding = bytes.Flag()};
  if (bytes.Flag()) options.padding = {options.window[0] / 2, 0, 0, options.window[1] / 2};
  if (options.window[0] > x.shape()[2].size() || options.window[1] > x.shape()[3].size()) return {};
  return bytes.Flag() ? AvgPool2D(x, options) : MaxPool2D(x, options);
}

Value Product(ByteReader& bytes, MadeGraph& made, const Value& x) {
  const Dim& inner = x.shape()[x.rank() - 1];
  if (x.rank() < 2 || !IsKnown(inner)) return {};
  const int64_t outputs = bytes.Pick({1, 3, 10, 16, 33});
  const bool transpose = bytes.Flag();
  const Value weights = NewVariable(made, transpose ? Shape{outputs, inner} : Shape{inner, outputs}, x.dtype()) * 0.5;
  return MatMul(x, weights, {.transpose_b = transpose});
}

Value Activation(ByteReader& bytes, const Value& x) {
  switch (bytes.Below(12)) {
    case 0:
      return Relu(x);
    case 1:
      return Sigmoid(x);
    case 2:
      return Tanh(x);
    case 3:
      return Gelu(x);
    case 4:
      return Softplus(x);
    case 5:
      return Exp(Minimum(x, 3));
    case 6:
      return Square(x);
    case 7:
      return Swish(x);
    case 8:
      return Log1p(Abs(x));
    case 9:
      return Rsqrt(Square(x) + 0.5);
    case 10:
      return StopGradient(x);
    default:
      return LeakyRelu(x, 0.1);
  }
}

Value Binary(ByteReader& bytes, MadeGraph& made, const Value& x) {
  Value other =
      AnyValue(bytes, made.values, [&](const Value& y) { return y.dtype() == x.dtype() && y.shape() == x.shape(); });
  // A number for each column, or for each row of a matrix.
  if (bytes.Flag() && x.rank() > 0 && IsKnown(x.shape()[x.rank() - 1])) {
    other = NewVariable(made, {x.shape()[x.rank() - 1]}, x.dtype());
  } else if (bytes.Below(4) == 0 && x.rank() > 0) {
    other = Sum(x, {.axes = {x.rank() - 1}, .keep_dims = true}) * 0.125;
  }
  switch (bytes.Below(6)) {
    case 0:
      return x + other;
    case 1:
      return other - x;
    case 2:
      return x * other;
    case 3:
      return x / (Square(other) + 1);
    case 4:
      return Maximum(x, other);
    default:
      return Where(Greater(x, other), x, other * 0.5);
  }
}

Value Reduction(ByteReader& bytes, const Value& x) {
  Integers axes;
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (bytes.Flag()) axes.push_back(axis);
  }
  const ReductionOptions options = {.axes = axes, .keep_dims = bytes.Flag()};
  // A maximum of no elements is an error.
  for (const Dim& dim : x.shape()) {
    if (!IsKnown(dim) && !dim.AsSymbol().has_value()) return Sum(x, options);
  }
  switch (bytes.Below(5)) {
    case 0:
      return Mean(x, options);
    case 1:
      return Max(x, options);
    case 2:
      return LogSumExp(x, options);
    default:
      return Sum(x, options) * 0.25;
  }
}

Value Normalization(ByteReader& bytes, MadeGraph& made, const Value& x) {
  const Dim& columns = x.shape()[x.rank() - 1];
  // A batch of one pixel has no variance.
  if (x.rank() == 4 && IsKnown(x.shape()[1]) && !(x.shape()[2] * x.shape()[3] == Dim(1)) && bytes.Flag()) {
    const Value scale = NewVariable(made, {x.shape()[1]}, x.dtype());
    return BatchNormTraining(x, scale, NewVariable(made, {x.shape()[1]}, x.dtype())).y;
  }
  if (bytes.Flag()) return bytes.Flag() ? Softmax(x) : LogSoftmax(x);
  if (!IsKnown(columns)) return {};
  const Value scale = NewVariable(made, {columns}, x.dtype());
  return bytes.Flag() ? RmsNorm(x, scale) : LayerNorm(x, scale, NewVariable(made, {columns}, x.dtype()));
}

Value Move(ByteReader& bytes, const Value& x) {
  Integers permutation;
  switch (bytes.Below(6)) {
    case 0:
      return Flatten(x);
    case 1:
      for (int axis = 0; axis < x.rank(); ++axis) permutation.insert(permutation.begin() + bytes.Below(axis + 1), axis);
      return Transpose(x, permutation);
    case 2:
      return Concat({x, x * 0.5}, bytes.Below(x.rank()));
    case 3:
      return Reverse(x, {bytes.Below(x.rank())});
    case 4:
      return Reshape(x, SameElements(bytes, x.shape()));
    default: {
      const int64_t axis = bytes.Below(x.rank());
      return x.shape()[axis] == Dim(0) ? Value() : SliceAxis(x, axis, 0, 1);
    }
  }
}

Value Layer(ByteReader& bytes, MadeGraph& made) {
  const int64_t kind = bytes.Below(10);
  const bool image = kind <= 2;
  const Value x = AnyValue(bytes, made.values, [&](const Value& value) {
    return IsFloating(value.dtype()) && (image ? value.rank() == 4 : value.rank() > 0);
  });
  if (!x.valid()) return {};
  switch (kind) {
    case 0:
    case 1:
      return Convolution(bytes, made, x);
    case 2:
      return Pool(bytes, x);
    case 3:
      return Product(bytes, made, x);
    case 4:
    case 5:
      return Activation(bytes, x);
    case 6:
      return Binary(bytes, made, x);
    case 7:
      return Reduction(bytes, x);
    case 8:
      return Normalization(bytes, made, x);
    default:
      return Move(bytes, x);
  }
}

}  // namespace

void AddInputs(ByteReader& bytes, DType floating, MadeGraph& made) {
  Scope scope(made.graph);
  const Dim n = bytes.Flag() ? Dim("n") : Dim(bytes.Pick({1, 2, 3, 5, 16, 17, 37}));
  const int64_t channels = 1 + bytes.Below(4), height = 1 + bytes.Below(10), width = 1 + bytes.Below(10);
  const int64_t columns = bytes.Pick({1, 3, 16, 17, 40});
  auto add = [&](absl::string_view name, DType dtype, Shape shape) {
    made.inputs.push_back(scope.Input(name, dtype, std::move(shape)));
    made.values.push_back(made.inputs.back());
  };
  add("image", floating, {n, channels, height, width});
  add("matrix", floating, {n, columns});
  add("vector", floating, {columns});
  add("indices", kInt32, {n});
  if (bytes.Below(4) == 0) add("other", kDTypes[bytes.Below(6)], {Dim("m"), n});
}

void AddAnyNode(ByteReader& bytes, bool wild, MadeGraph& made) {
  const auto& definitions = CoreOps().definitions();
  const OpDefinition& op = *definitions[bytes.Below(static_cast<int64_t>(definitions.size()))];
  if (op.is_source() || op.kind == OpKind::kCopy) {
    if (op.kind == OpKind::kVariable && made.values.size() < 64) {
      made.values.push_back(NewVariable(made, {1 + bytes.Below(5), 1 + bytes.Below(5)}, AnyStoredDType(bytes, wild)));
    }
    return;
  }
  std::vector<Value> operands;
  for (size_t i = 0; i < op.operands.size(); ++i) {
    const OperandDefinition& definition = op.operands[i];
    int64_t count = 1;
    if (definition.arity == OperandDefinition::kOptional) count = bytes.Below(2);
    if (definition.arity == OperandDefinition::kVariadic) count = 1 + bytes.Below(3);
    const bool is_variable = op.kind == OpKind::kAssign && i == 0;
    for (; count > 0; --count) {
      const bool same_shape = bytes.Flag();
      auto fits = [&](const Value& value) {
        return definition.dtypes.Contains(value.dtype()) &&
               !(op.same_dtypes && !operands.empty() && value.dtype() != operands[0].dtype()) &&
               !(is_variable && value.node().op->kind != OpKind::kVariable);
      };
      Value operand;
      if (same_shape && !operands.empty()) {
        operand = AnyValue(bytes, made.values,
                           [&](const Value& value) { return fits(value) && value.shape() == operands[0].shape(); });
      }
      if (!operand.valid()) operand = AnyValue(bytes, made.values, fits);
      if (!operand.valid()) return;
      operands.push_back(operand);
    }
  }
  std::vector<NamedAttribute> attributes;
  for (const AttributeDefinition& attribute : op.attributes) {
    if (attribute.default_value.has_value() && bytes.Flag()) continue;
    attributes.emplace_back(attribute.name, AnyAttribute(bytes, wild, attribute, operands));
  }
  std::vector<Port> inputs;
  for (const Value& operand : operands) inputs.push_back(operand.port());
  const absl::StatusOr<NodeId> node = made.graph.AddNode({.op = &op, .inputs = inputs, .attributes = attributes});
  if (!node.ok()) {
    CheckMessage(node.status());
    return;
  }
  for (Port port : made.graph.node(*node).ports()) made.values.push_back(made.graph.value(port));
}

void AddLayer(ByteReader& bytes, MadeGraph& made) {
  const Value value = Layer(bytes, made);
  if (value.valid()) made.values.push_back(value);
}

DimBindings MakeBindings(ByteReader& bytes, const MadeGraph& made) {
  std::set<std::string> symbols;
  for (const Value& input : made.inputs) {
    for (const Dim& dim : input.shape()) dim.CollectSymbols(symbols);
  }
  DimBindings bindings;
  for (const std::string& symbol : symbols) bindings[symbol] = 1 + bytes.Below(5);
  return bindings;
}

bool IsSmall(const Graph& graph, const DimBindings& bindings, double most_flops) {
  constexpr double kMostElements = 65536;
  double flops = 0;
  auto substitute = [&](const TensorType& type) {
    TensorType result{type.dtype, {}};
    for (const Dim& dim : type.shape) result.shape.Append(dim.Substitute(bindings));
    return result;
  };
  for (const Node& node : graph.nodes()) {
    TensorTypes operands, outputs;
    for (Port port : node.inputs) operands.push_back(substitute(graph.type(port)));
    for (const TensorType& type : node.outputs) {
      double elements = 1;
      outputs.push_back(substitute(type));
      for (const Dim& dim : outputs.back().shape) {
        if (!dim.is_known() || dim.size() < 0) return false;
        elements *= static_cast<double>(std::max<int64_t>(dim.size(), 1));
      }
      if (elements > kMostElements) return false;
      flops += elements;
    }
    if (node.op->flops != nullptr) flops += node.op->flops(OpView(*node.op, node.attributes, operands), outputs);
    // Also for NaN.
    if (!(flops <= most_flops)) return false;
  }
  return true;
}

Tensor MakeFeed(const TensorType& type, const DimBindings& bindings, uint64_t seed, double scale, bool wild) {
  std::vector<int64_t> sizes;
  for (const Dim& dim : type.shape) sizes.push_back(dim.Substitute(bindings).size());
  std::mt19937_64 random(seed);
  Tensor values(kFloat64, sizes);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kWild[] = {0, -0.0, -1, 1e30, -kInfinity, kInfinity, 200, 5e-324};
  for (double& value : values.mutable_values<double>()) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    value = IsFloating(type.dtype) ? (2 * unit - 1) * scale : type.dtype == kBool ? (unit > 0.5) : std::floor(3 * unit);
    if (!wild || random() % 8 != 0) continue;
    if (IsFloating(type.dtype)) {
      value = random() % 9 == 0 ? std::nan("") : kWild[random() % 8];
    } else if (type.dtype != kBool) {
      value = type.dtype == kUint8 ? 255 : random() % 2 == 0 ? -1 : 2147483647;
    }
  }
  return values.Cast(type.dtype);
}

}  // namespace gradweave::fuzz
