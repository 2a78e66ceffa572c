// How the functions that add nodes are written: operands with the user's line, and AddOp.
#ifndef GRADWEAVE_OPS_BUILDER_H_
#define GRADWEAVE_OPS_BUILDER_H_

#include <cstdint>
#include <initializer_list>
#include <source_location>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

inline SourceLocation ToSourceLocation(const std::source_location& location) {
  return {location.file_name(), location.line()};
}

// An argument of a function that adds a node: a Value, or a number, which becomes a constant of the dtype of the other
// operands. Conversion happens in the caller's expression, so its default argument is the line that errors name.
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

  // Of a Value; a number has the type of an invalid value, float32[].
  const Shape& shape() const { return value_.shape(); }
  DType dtype() const { return value_.dtype(); }
  int rank() const { return value_.rank(); }
  bool valid() const { return is_number_ || value_.valid(); }
  Graph* graph() const { return value_.graph(); }

 private:
  Value value_;
  bool is_number_ = false;
  double number_ = 0;
  SourceLocation location_;
};

// Adds a node that applies the op of that name. Its registry is that of the first operand that is a Value. Returns
// output 0; further outputs are Output(value, i). An error goes to the graph, which keeps the first, and the result is
// invalid; so it is, silently, where an operand is invalid.
Value AddOp(absl::string_view op, absl::Span<const Operand> operands,
            std::initializer_list<NamedAttribute> attributes = {});
inline Value AddOp(absl::string_view op, std::initializer_list<Operand> operands,
                   std::initializer_list<NamedAttribute> attributes = {}) {
  return AddOp(op, absl::Span<const Operand>(operands.begin(), operands.size()), attributes);
}

// The same for an op without operands, from the builder's registry. The name is prefixed with the current scope's.
Value AddSource(Graph& graph, absl::string_view op, std::initializer_list<NamedAttribute> attributes,
                SourceLocation location, absl::string_view name = "");

// Another output of the node that value is output 0 of.
inline Value Output(Value value, int output) {
  return value.valid() ? Value(value.graph(), {value.port().node, output}) : Value();
}

// Records an InvalidArgument error "<op>: <message>" with the operands' types and the user's line, and returns an
// invalid value: what functions use for mistakes that they find before a node can be made.
Value BuilderError(absl::string_view op, absl::Span<const Operand> operands, absl::string_view message);

// A constant in the graph of `like`, which is valid.
Value ConstantLike(const Value& like, Tensor value, SourceLocation location);

// The operand as a value: a number becomes a constant of the dtype, in the graph of `like`.
Value ToValue(const Operand& operand, const Value& like);

// axis, or axis + rank where it is negative; -1 where it is outside [-rank, rank).
inline int64_t NormalizedAxis(int64_t axis, int64_t rank) {
  if (axis < 0) axis += rank;
  return axis < 0 || axis >= rank ? -1 : axis;
}

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_BUILDER_H_
