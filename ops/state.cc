#include "gradweave/ops/state.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave {
namespace {

absl::StatusOr<TensorTypes> DeclaredType(const OpView& op) {
  return TensorTypes{{op.attribute<DType>("dtype"), op.attribute<Shape>("shape")}};
}

absl::InlinedVector<BatchAxis, 2> NoBatch(const OpView&, absl::Span<const BatchAxis>) { return {BatchAxis{}}; }

}  // namespace

void RegisterStateOps(OpRegistry& registry) {
  const AttributeDefinition dtype = {"dtype", AttributeType::kDType, "Dtype of the value."};
  const AttributeDefinition shape = {"shape", AttributeType::kShape, "Shape of the value."};

  registry.Add({
      .name = "Input",
      .doc = "A value that each run feeds. The shape may contain symbols; the feeds determine their sizes.",
      .attributes = {dtype, shape},
      .infer = DeclaredType,
      .kind = OpKind::kInput,
      .stateful = true,
  });
  registry.Add({
      .name = "Constant",
      .doc = "A value that is known when the graph is built.",
      .attributes = {{"value", AttributeType::kTensor, "The value."}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        return TensorTypes{op.attribute<Tensor>("value").type()};
      },
      .batch = NoBatch,
      .kind = OpKind::kConstant,
  });
  registry.Add({
      .name = "Variable",
      .doc = "State of a session. A run reads the value from before the run. The session computes the initial value "
             "once, when it is created.",
      .operands = {{"initial_value", "Has the variable's dtype and shape. Left out if the value comes from a file.",
                    kAnyDType, OperandDefinition::kOptional}},
      .attributes = {dtype, shape, {"trainable", AttributeType::kBool, "True if optimizers update it.", true}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const TensorType type{op.attribute<DType>("dtype"), op.attribute<Shape>("shape")};
        if (!type.shape.is_static()) {
          return op.Error("the shape has to be known, and is ", type.ToString(),
                          "; only values of a run may depend on symbols");
        }
        if (op.num_operands() == 1 && !(op.operand(0) == type)) {
          return op.Error("the initial value has to have the variable's type, ", type.ToString());
        }
        return TensorTypes{type};
      },
      // After initialization, the state does not depend on its initial value.
      .gradient = [](GradientContext&) {},
      .batch = NoBatch,
      .kind = OpKind::kVariable,
      .stateful = true,
  });
  registry.Add({
      .name = "Assign",
      .version = 2,  // 2: `call`.
      .doc = "Sets a variable to the value at the end of the run. Every read within the run sees the old value. The "
             "result is the new value. A run may assign a variable only once.",
      .operands = {{"variable", "The value of a Variable node.", kAnyDType},
                   {"value", "Has the variable's dtype and shape.", kAnyDType}},
      .attributes =
          {{"with_training", AttributeType::kBool, "True if optimizers add it to their update.", false},
           {"call", AttributeType::kString,
            "The name of a node: optimizers add the assignment only if the loss depends on it. If empty, they "
            "add it if the loss shares a node with the assigned value.",
            ""}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        if (!(op.operand(0) == op.operand(1))) return op.Error("the value has to have the variable's dtype and shape");
        return TensorTypes{op.operand(0)};
      },
      .kind = OpKind::kAssign,
      .stateful = true,
  });
  registry.Add({
      .name = "Copy",
      .doc = "A copy of x in the memory of the node's device. Placement inserts copies between nodes of different "
             "devices.",
      .operands = {{"x", "Any shape.", kAnyDType}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> { return TensorTypes{op.operand(0)}; },
      .gradient = [](GradientContext& g) { g.Set(0, g.output_gradient()); },
      .batch = [](const OpView&, absl::Span<const BatchAxis> operands) -> absl::InlinedVector<BatchAxis, 2> {
        return {operands[0]};
      },
      .kind = OpKind::kCopy,
      .alias = true,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "DimSize",
      .doc = "The size of x along an axis as a scalar. It makes a symbolic dimension available as a value.",
      .operands = {{"x", "Any shape.", kAnyDType}},
      .attributes = {{"axis", AttributeType::kInteger, "In [0, rank)."},
                     {"dtype", AttributeType::kDType, "Result dtype; not bool.", kInt64}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const int64_t axis = op.attribute<int64_t>("axis");
        if (axis < 0 || axis >= op.shape(0).rank()) {
          return op.Error("axis ", axis, " is outside [0, ", op.shape(0).rank(), ")");
        }
        const DType result = op.attribute<DType>("dtype");
        if (!kNumeric.Contains(result)) return op.Error("the dtype has to be ", kNumeric.ToString());
        const Dim& size = op.shape(0)[static_cast<int>(axis)];
        if (size.is_known() && !Represents(result, static_cast<double>(size.size()))) {
          return op.Error("the size is ", size.ToString(), ", and ", DTypeName(result), " has no such number");
        }
        return TensorTypes{{result, Shape{}}};
      },
      // The result does not depend on x's elements.
      .gradient = [](GradientContext&) {},
      .batch = [](const OpView& op, absl::Span<const BatchAxis> operands) -> absl::InlinedVector<BatchAxis, 2> {
        const bool of_batch = operands[0].kind == BatchAxis::kAxis && operands[0].axis == op.attribute<int64_t>("axis");
        return {BatchAxis{of_batch ? BatchAxis::kSummed : BatchAxis::kAbsent}};
      },
      .kind = OpKind::kDimSize,
      .mixed_precision = MixedPrecision::kFollows,
  });
}

Value Scope::Variable(absl::string_view name, Operand initial_value, VariableOptions options) {
  if (initial_value.is_number())
    initial_value = Operand(Constant(Tensor::Scalar(static_cast<float>(initial_value.number()))));
  if (!initial_value.valid()) {
    if (initial_value.graph() != nullptr) graph_.RecordError(initial_value.graph()->status());
    return Value(&graph_, Port{});
  }
  if (name.empty()) {
    return BuilderError("Variable", {initial_value}, "the name is empty; sessions and files find variables by name");
  }
  const Value initial = initial_value.value();
  const OpDefinition* op = graph_.builder().registry->Find(OpKind::kVariable);
  const NamedAttribute attributes[] = {
      {"dtype", initial.dtype()}, {"shape", initial.shape()}, {"trainable", options.trainable}};
  const Port inputs[] = {initial.port()};
  const SourceLocation location =
      graph_.builder().location.file != nullptr ? graph_.builder().location : initial_value.location();
  absl::StatusOr<NodeId> node = graph_.AddNode({.op = op,
                                                .inputs = inputs,
                                                .attributes = attributes,
                                                .name = absl::StrCat(graph_.builder().name_prefix, name),
                                                .device = graph_.builder().device,
                                                .location = location});
  if (node.ok()) return graph_.value(*node);
  graph_.RecordError(node.status());
  return Value(&graph_, Port{});
}

Value Assign(Operand variable, Operand value, AssignOptions options) {
  if (!variable.is_value()) return NeedsValue("Assign", variable);
  const std::string call = options.call.valid() ? options.call.node().name : "";
  return AddOp("Assign", {variable, value}, {{"with_training", options.with_training}, {"call", call}});
}

Value Copy(Operand x) { return AddOp("Copy", {x}); }

Value DimSize(Operand x, int64_t axis, DType dtype) {
  const int64_t normalized = NormalizedAxis(axis, x.rank());
  if (x.valid() && !x.is_number() && normalized >= 0) {
    // A known size is a constant. The op reports sizes that the dtype cannot represent.
    const Dim& dim = x.shape()[static_cast<int>(normalized)];
    if (dim.is_known() && kNumeric.Contains(dtype) && Represents(dtype, static_cast<double>(dim.size()))) {
      return ConstantLike(x.value(), Tensor::ScalarOf(dtype, dim.size()), x.location());
    }
  }
  return AddOp("DimSize", {x}, {{"axis", normalized < 0 ? axis : normalized}, {"dtype", dtype}});
}

Value NumElements(Operand x, absl::Span<const int64_t> axes, DType dtype) {
  if (!x.is_value()) return NeedsValue("NumElements", x);
  Integers all(axes.begin(), axes.end());
  if (all.empty()) {
    for (int axis = 0; axis < x.rank(); ++axis) all.push_back(axis);
  }
  // Known sizes multiply to one number; each symbolic size needs a node.
  Dim known(1);
  Value product;
  for (int64_t axis : all) {
    const int64_t normalized = NormalizedAxis(axis, x.rank());
    if (normalized >= 0 && x.shape()[normalized].is_known()) {
      known = known * x.shape()[normalized];
      continue;
    }
    const Value size = DimSize(x, axis, dtype);
    product = product.graph() == nullptr ? size : Mul(product, size);
  }
  if (product.graph() != nullptr) return known == Dim(1) ? product : Mul(product, known.size());
  if (!Represents(dtype, static_cast<double>(known.size()))) {
    return BuilderError(
        "NumElements", {x},
        absl::StrCat("there are ", known.ToString(), ", and ", DTypeName(dtype), " has no such number"));
  }
  return ConstantLike(x.value(), Tensor::ScalarOf(dtype, known.size()), x.location());
}

Value FullLike(Operand x, double value) {
  if (!x.is_value()) return NeedsValue("FullLike", x);
  return BroadcastTo(ToValue(Operand(value), x.value()), x.shape());
}

}  // namespace gradweave
