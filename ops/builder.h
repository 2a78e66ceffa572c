// Helpers of the functions that add nodes: operands that carry the user's source line, and AddOp.
#ifndef GRADWEAVE_OPS_BUILDER_H_
#define GRADWEAVE_OPS_BUILDER_H_

#include <cstdint>
#include <initializer_list>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Converts the standard library's location to that of a node.
inline SourceLocation ToSourceLocation(const std::source_location& location) {
  return {location.file_name(), location.line()};
}

// An argument of a function that adds a node: a Value or a number. A number becomes a constant with
// the dtype of the other operands. The conversion to Operand happens in the caller's expression, so
// the default argument `location` is the line that errors name.
class Operand {
 public:
  Operand(Value value, std::source_location location = std::source_location::current())  // NOLINT: Add(x, y)
      : value_(value), location_(ToSourceLocation(location)) {}
  template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
  Operand(Number number, std::source_location location = std::source_location::current())  // NOLINT: Add(x, 1)
      : is_number_(true), number_(static_cast<double>(number)), location_(ToSourceLocation(location)) {}

  bool is_number() const { return is_number_; }
  const Value& value() const { return value_; }
  double number() const { return number_; }
  SourceLocation location() const { return location_; }

  // The type of a Value. A number has the type of an invalid Value, float32[].
  const Shape& shape() const { return value_.shape(); }
  DType dtype() const { return value_.dtype(); }
  int rank() const { return value_.rank(); }
  bool valid() const { return is_number_ || value_.valid(); }
  // True for a valid Value; false for a number.
  bool is_value() const { return !is_number_ && value_.valid(); }
  Graph* graph() const { return value_.graph(); }

 private:
  Value value_;
  bool is_number_ = false;
  double number_ = 0;
  SourceLocation location_;
};

// Adds a node that applies the op `op` from the registry of the first operand that is a Value.
// Returns output 0; Output(value, i) returns the other outputs. If an operand is invalid, returns
// an invalid Value without an error. If the op does not exist, the operands belong to different
// graphs or Graph::AddNode fails, records the error in the graph and returns an invalid Value.
Value AddOp(absl::string_view op, absl::Span<const Operand> operands,
            std::initializer_list<NamedAttribute> attributes = {});
inline Value AddOp(absl::string_view op, std::initializer_list<Operand> operands,
                   std::initializer_list<NamedAttribute> attributes = {}) {
  return AddOp(op, absl::Span<const Operand>(operands.begin(), operands.size()), attributes);
}

// The same for an op without operands. The op comes from the registry of the graph's builder. The
// name gets the prefix of the current scope.
Value AddSource(Graph& graph, absl::string_view op, std::initializer_list<NamedAttribute> attributes,
                SourceLocation location, absl::string_view name = "");

// Returns output `output` of the node whose output 0 is `value`.
inline Value Output(Value value, int output) {
  return value.valid() ? Value(value.graph(), {value.port().node, output}) : Value();
}

// Records an InvalidArgument error "<op>: <message>" with the operands' types and the user's line,
// and returns an invalid value: functions use it for mistakes that they find before a node can be
// made. If no operand belongs to a graph, the returned value carries the error to the graph of the
// first op that uses it.
Value BuilderError(absl::string_view op, absl::Span<const Operand> operands, absl::string_view message);

// The error of the call that made an invalid value without a graph; empty for other values.
std::string ErrorOfCall(const Value& value);

// The result of a function whose main operand x is not a value (Operand::is_value): x itself if it
// is invalid, or an error for a number.
Value NeedsValue(absl::string_view op, const Operand& x);

// A constant in the graph of `like`; not valid if `like` is not.
Value ConstantLike(const Value& like, Tensor value, SourceLocation location);

// Returns the operand as a Value. A number becomes a constant of like's dtype in like's graph.
// Records an error if the dtype cannot represent the number.
Value ToValue(const Operand& operand, const Value& like);

// Returns the axis, or axis + rank if it is negative; -1 if it is outside of [-rank, rank).
inline int64_t NormalizedAxis(int64_t axis, int64_t rank) {
  if (axis < 0) axis += rank;
  return axis < 0 || axis >= rank ? -1 : axis;
}

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_BUILDER_H_
