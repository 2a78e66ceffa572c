// Helper of the functions that compose ops.
#ifndef GRADWEAVE_OPS_COMPOSITION_H_
#define GRADWEAVE_OPS_COMPOSITION_H_

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

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_COMPOSITION_H_
