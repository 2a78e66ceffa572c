// The definition of an op: operands, attributes, documentation, shape inference, gradient and batch
// rule.
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

// The types of a node's operands or outputs, in order.
using TensorTypes = absl::InlinedVector<TensorType, 2>;

// An operand of an op.
struct OperandDefinition {
  enum Arity {
    kRequired,
    kOptional,  // May be left out. Optional operands follow all required ones.
    kVariadic,  // One or more operands. Only the last operand can be variadic.
  };
  std::string name;
  std::string doc;  // Shape and meaning.
  DTypeSet dtypes = kComputed;
  Arity arity = kRequired;
};

// An attribute of an op.
struct AttributeDefinition {
  std::string name;
  AttributeType type = AttributeType::kInteger;
  std::string doc;                                             // Meaning and valid range.
  std::optional<AttributeValue> default_value = std::nullopt;  // Nullopt if the attribute is required.
};

// The arguments of shape inference and of FLOP counts: an existing node, or one that is about to be
// created. Attributes already have their declared types; operands have their declared number and
// dtypes.
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

  // Returns the value of the attribute `name`, which has type T.
  template <typename T>
  const T& attribute(absl::string_view name) const;
  absl::Span<const AttributeValue> attributes() const { return attributes_; }

  // Returns InvalidArgument "<op>: <parts>". The graph adds the operands' types and the user's
  // line.
  template <typename... Parts>
  absl::Status Error(const Parts&... parts) const;

 private:
  const OpDefinition& op_;
  absl::Span<const AttributeValue> attributes_;
  absl::Span<const TensorType> operands_;
};

// How an output of an op depends on the batch, if some of its operands have a batch axis.
struct BatchAxis {
  enum Kind {
    kAbsent,  // The operand has no batch axis, or the output does not depend on one that has.
    kAxis,    // Sample i of the output, along `axis`, depends only on sample i of the batched operands.
    kSummed,  // The output is the sum over samples of the per-sample results.
    kMixed,   // Any other dependence.
  };
  Kind kind = kAbsent;
  int axis = 0;  // For kAxis only.

  static BatchAxis Axis(int axis) { return {kAxis, axis}; }
  friend bool operator==(const BatchAxis& a, const BatchAxis& b) {
    return a.kind == b.kind && (a.kind != kAxis || a.axis == b.axis);
  }
};

// The ops that passes and backends treat specially. They know all other ops only by their traits.
enum class OpKind : uint8_t {
  kOther,
  // Values that exist before a run, and the op that changes them.
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
  // Ops that read and write parts of a value. Gradients of many parts are joined, and optimizers
  // update rows of a variable.
  kConcat,
  kSlice,
  kSliceAdd,
  kGather,
  kScatterAdd,
  kTakeRows,
  // Elementwise ops that rewrite rules create or match.
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
  kAttention,
  kAttentionGrad,
  // Loops, which passes merge and move values out of.
  kScan,
  // Ops that data parallelism replaces or adds.
  kRandomUniform,
  kRandomNormal,
  kAllReduce,
  kShardIndex,
  kCount,  // The number of kinds.
};

// The types that an op takes and makes in mixed precision; see graph/passes/mixed_precision.h.
enum class MixedPrecision : uint8_t {
  kFloat32,  // Takes and makes float32: reductions, losses, and functions with large or steep results.
  kHalf,     // Takes and makes halves, and sums in float32: products and convolutions.
  kFollows,  // Takes and makes halves if its operands are halves anyway: most other ops.
};

// An op: everything that graphs, passes and the documentation know about it. Kernels are separate.
struct OpDefinition {
  std::string name;     // "Conv2D".
  int64_t version = 1;  // Raised when the attributes or the meaning change. Files record it.
  std::string doc;      // One paragraph with the formula, shapes and errors.
  std::vector<OperandDefinition> operands = {};
  std::vector<AttributeDefinition> attributes = {};

  // Returns the output types, or an error from OpView::Error.
  std::function<absl::StatusOr<TensorTypes>(const OpView&)> infer;

  // Sets the gradient of the loss with respect to each operand (a vector-Jacobian product) from the
  // gradients of the outputs; see GradientContext. Null if the op is not differentiable: a gradient
  // through it is then an error, unless no output has a floating dtype.
  std::function<void(GradientContext&)> gradient = nullptr;

  // Returns how each output depends on the batch, given the batch axis of each operand (kAbsent or
  // kAxis). Null means kMixed for all outputs.
  std::function<absl::InlinedVector<BatchAxis, 2>(const OpView&, absl::Span<const BatchAxis>)> batch = nullptr;

  // Returns the floating-point operations of one execution for static shapes. An addition and a
  // multiplication count as one each. Null if the op's work is negligible.
  std::function<double(const OpView&, absl::Span<const TensorType> outputs)> flops = nullptr;

  OpKind kind = OpKind::kOther;

  // Traits. Passes and backends rewrite, fuse, tile and place ops with equal traits alike.
  bool elementwise = false;  // An output element depends only on the operands' (broadcast) elements at its position.
  bool broadcasts = false;   // Elementwise, with operands of different shapes that broadcast to the output's shape.
  bool reduction = false;    // Reduces operand 0 along the attribute `axes`; `keep_dims` keeps them with size 1.
  bool alias = false;        // A view: the output has the elements of operand 0 in order and may share its memory.
  bool commutative = false;  // Swapping the two operands changes nothing.
  bool stateful = false;     // Has state or random numbers: passes neither fold it nor merge it with an equal node.
  bool same_dtypes = false;  // All operands must have the same dtype.
  bool collective = false;   // All shards of a group run it, in the order that its last operand, `after`, gives.
  MixedPrecision mixed_precision = MixedPrecision::kFloat32;

  // True if the operand with this index in `operands` may have this dtype. An operand that may be
  // float32 may be a half too: the op then computes in float32 and rounds its results.
  bool Takes(size_t operand, DType dtype) const {
    const DTypeSet& dtypes = operands[operand].dtypes;
    return dtypes.Contains(dtype) || (IsHalf(dtype) && dtypes.Contains(kFloat32));
  }

  // True if the op's value exists before the run: an input, a constant or a variable.
  bool is_source() const { return kind == OpKind::kInput || kind == OpKind::kConstant || kind == OpKind::kVariable; }

  const OpRegistry* registry = nullptr;  // The registry that holds this definition. Set by Add.

  // Returns the index of the attribute `name`, or -1 if there is none.
  int AttributeIndex(absl::string_view name) const;
  // True if gradients can pass through this op.
  bool differentiable() const { return gradient != nullptr; }
};

// A set of op definitions, by name. A definition keeps its address while the registry lives.
class OpRegistry {
 public:
  OpRegistry() = default;
  OpRegistry(const OpRegistry&) = delete;
  OpRegistry& operator=(const OpRegistry&) = delete;

  // Adds a definition. Its name must be new and its `infer` must be set. Its kind must be new
  // unless it is kOther.
  void Add(OpDefinition definition);

  // Returns the op of this name, or null.
  const OpDefinition* Find(absl::string_view name) const;
  // Returns the op of this kind, which must not be kOther, or null.
  const OpDefinition* Find(OpKind kind) const { return by_kind_[static_cast<size_t>(kind)]; }

  // All definitions, in the order of their addition.
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
