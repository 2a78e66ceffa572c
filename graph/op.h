// What an op is: its operands and attributes, its documentation, shape inference, gradient and treatment of the batch.
#ifndef GRADWEAVE_GRAPH_OP_H_
#define GRADWEAVE_GRAPH_OP_H_

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gradweave/graph/attribute.h"
#include "gradweave/graph/shape.h"

namespace gradweave {

struct Node;
struct OpDefinition;
class GradientContext;
class OpRegistry;
class Value;

using TensorTypes = absl::InlinedVector<TensorType, 2>;

struct OperandDefinition {
  enum Arity {
    kRequired,
    kOptional,  // May be left out; only operands after all required ones.
    kVariadic,  // Any number, one or more; only the last operand.
  };
  std::string name;
  std::string doc;  // Shape and meaning.
  DTypeSet dtypes = kAnyDType;
  Arity arity = kRequired;
};

struct AttributeDefinition {
  std::string name;
  AttributeType type = AttributeType::kInteger;
  std::string doc;                                             // Meaning and legal range.
  std::optional<AttributeValue> default_value = std::nullopt;  // None: the attribute has to be given.
};

// What shape inference and FLOP counts are given: a node that is about to be made, or one that exists. Attributes have
// their declared types and operands their declared number and dtypes by then.
class OpView {
 public:
  OpView(const OpDefinition& op, absl::Span<const AttributeValue> attributes, absl::Span<const TensorType> operands)
      : op_(op), attributes_(attributes), operands_(operands) {}

  const OpDefinition& op() const { return op_; }
  int num_operands() const { return static_cast<int>(operands_.size()); }
  absl::Span<const TensorType> operands() const { return operands_; }
  const TensorType& operand(int i) const { return operands_[i]; }
  const Shape& shape(int i) const { return operands_[i].shape; }
  DType dtype(int i) const { return operands_[i].dtype; }

  // The attribute of that name, which has type T.
  template <typename T>
  const T& attribute(absl::string_view name) const;
  absl::Span<const AttributeValue> attributes() const { return attributes_; }

  // An InvalidArgument error that names the op and says the rest; the graph adds operands and the user's line.
  template <typename... Parts>
  absl::Status Error(const Parts&... parts) const;

 private:
  const OpDefinition& op_;
  absl::Span<const AttributeValue> attributes_;
  absl::Span<const TensorType> operands_;
};

// How an output of an op treats the batch, where some of its operands have one.
struct BatchAxis {
  enum Kind {
    kAbsent,  // An operand without a batch axis, or an output that does not depend on one that has it.
    kAxis,    // Sample i of the output, along axis, depends on sample i of the batched operands alone.
    kSummed,  // The output is the sum over samples of what each sample alone gives.
    kMixed,   // Anything else.
  };
  Kind kind = kAbsent;
  int axis = 0;  // Of kAxis.

  static BatchAxis Axis(int axis) { return {kAxis, axis}; }
  friend bool operator==(const BatchAxis& a, const BatchAxis& b) {
    return a.kind == b.kind && (a.kind != kAxis || a.axis == b.axis);
  }
};

// The ops that passes and backends know by what they are. All other ops are known by their traits alone.
enum class OpKind : uint8_t {
  kOther,
  // Values that exist before a run, and what changes them.
  kInput,
  kConstant,
  kVariable,
  kAssign,
  // Ops that move elements, and sizes as values.
  kCopy,
  kReshape,
  kTranspose,
  kBroadcastTo,
  kDimSize,
  // Elementwise ops that rewriting rules make or look for.
  kAdd,
  kSub,
  kNeg,
  kCast,
  kStopGradient,
  // Ops with a lowering of their own.
  kSum,
  kMax,
  kSoftmax,
  kLogSoftmax,
  kSparseSoftmaxCrossEntropy,
  kSparseSoftmaxCrossEntropyGrad,
  kMatMul,
  kConv2D,
  kConv2DInputGrad,
  kConv2DFilterGrad,
  kAvgPool2D,
  kAvgPool2DGrad,
  kMaxPool2D,
  kMaxUnpool2D,
  kCount,  // The number of kinds.
};

struct OpDefinition {
  std::string name;     // "Conv2D".
  int64_t version = 1;  // Raised when attributes or meaning change; files record it.
  std::string doc;      // One paragraph: the formula, shapes and errors.
  std::vector<OperandDefinition> operands = {};
  std::vector<AttributeDefinition> attributes = {};

  // The output types, or an error made with OpView::Error.
  std::function<absl::StatusOr<TensorTypes>(const OpView&)> infer;

  // Vector-Jacobian products: for each operand the gradient of the loss, written with ops, given those of the outputs.
  // Null: the op is not differentiable, and asking is an error, unless every output has a dtype that carries no
  // gradient.
  std::function<void(GradientContext&)> gradient = nullptr;

  // Where the batch goes, one result for each output, given where each operand has it (kAbsent or kAxis). Null: kMixed
  // for all.
  std::function<absl::InlinedVector<BatchAxis, 2>(const OpView&, absl::Span<const BatchAxis>)> batch = nullptr;

  // Floating-point operations of one execution, an addition and a multiplication counting one each, for static shapes.
  // Null: none worth counting beside the others.
  std::function<double(const OpView&, absl::Span<const TensorType> outputs)> flops = nullptr;

  OpKind kind = OpKind::kOther;

  // Traits. An op with the right ones is rewritten, fused, tiled and placed like its siblings.
  bool elementwise = false;  // An output element depends on the operand elements at its place, broadcasting included.
  bool broadcasts = false;   // Elementwise, and the operands may have different shapes that broadcast to the output's.
  bool reduction = false;    // Reduces operand 0 along the attribute `axes`; `keep_dims` keeps them with size 1.
  bool alias = false;  // A view: the output has the elements of operand 0 in their order, and may share its memory.
  bool commutative = false;  // Swapping the two operands changes nothing.
  bool stateful = false;     // Holds state or makes random numbers: neither folded nor merged with an equal node.
  bool same_dtypes = false;  // All operands must have the same dtype.

  // Whether the op brings a value that exists before the run: an input, a constant or a variable.
  bool is_source() const { return kind == OpKind::kInput || kind == OpKind::kConstant || kind == OpKind::kVariable; }

  const OpRegistry* registry = nullptr;  // The registry that holds this definition; set by Add.

  // The index of the attribute of that name; -1 where there is none.
  int AttributeIndex(absl::string_view name) const;
  // Whether an output of this dtype or a gradient through this op can carry derivatives.
  bool differentiable() const { return gradient != nullptr; }
};

// The ops that graphs may use, by name. Definitions stay at their address as long as the registry lives.
class OpRegistry {
 public:
  OpRegistry() = default;
  OpRegistry(const OpRegistry&) = delete;
  OpRegistry& operator=(const OpRegistry&) = delete;

  // Takes a definition; its name and kind, unless kOther, must be new and its infer set.
  void Add(OpDefinition definition);

  // Null where there is no op of that name.
  const OpDefinition* Find(absl::string_view name) const;
  // The op of that kind, which must not be kOther. Null where there is none.
  const OpDefinition* Find(OpKind kind) const { return by_kind_[static_cast<size_t>(kind)]; }

  // All, in the order they were added.
  const std::vector<std::unique_ptr<OpDefinition>>& definitions() const { return definitions_; }

 private:
  std::vector<std::unique_ptr<OpDefinition>> definitions_;
  absl::flat_hash_map<std::string, const OpDefinition*> by_name_;
  std::array<const OpDefinition*, static_cast<size_t>(OpKind::kCount)> by_kind_ = {};
};

template <typename T>
const T& OpView::attribute(absl::string_view name) const {
  return std::get<T>(attributes_[op_.AttributeIndex(name)]);
}

template <typename... Parts>
absl::Status OpView::Error(const Parts&... parts) const {
  return absl::InvalidArgumentError(absl::StrCat(op_.name, ": ", parts...));
}

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_OP_H_
