// Helpers of the functions that compose ops.
#ifndef GRADWEAVE_OPS_COMPOSITION_H_
#define GRADWEAVE_OPS_COMPOSITION_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/ops/builder.h"

namespace gradweave {

// While it lives, all new nodes of x's graph get the line of the user's call.
class CallLocation {
 public:
  // x must be a value.
  explicit CallLocation(const Operand& x)
      : guard_(*x.graph(), x.graph()->builder().location.file != nullptr ? SourceLocation() : x.location()) {}

 private:
  LocationGuard guard_;
};

// True if all operands are valid. Otherwise records why the first of the others is not, in the
// graph of the first valid one, unless that graph knows: it is an empty Value, or a call with
// numbers alone made it, whose error no graph has yet.
bool AllValid(absl::string_view op, absl::Span<const Operand> operands);
inline bool AllValid(absl::string_view op, std::initializer_list<Operand> operands) {
  return AllValid(op, absl::Span<const Operand>(operands.begin(), operands.size()));
}

// The result of a call that has already recorded an error.
inline Value Invalid(const Operand& x) { return Value(x.graph(), Port{}); }

// "axis 3 is outside [-2, 2)", of x's rank.
std::string AxisError(const Operand& x, int64_t axis);

// A size of x as an int64: a number if it is known, else a value.
Operand SizeOf(const Value& x, int axis);

// A constant in x's graph: these numbers in x's dtype, or indices in int64.
Value Numbers(const Operand& x, absl::Span<const int64_t> sizes, absl::Span<const double> numbers);
Value Numbers(const Operand& x, absl::Span<const int64_t> sizes, absl::Span<const int64_t> numbers);

// x [n] with `after` axes of size 1 appended, so that it broadcasts along an axis that `after` axes
// follow.
Value WithAxesBehind(const Value& x, int after);

// The permutation that exchanges the axis with the last one.
Integers WithLast(int rank, int64_t axis);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_COMPOSITION_H_
