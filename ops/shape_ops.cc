#include "gradweave/ops/shape_ops.h"

namespace gradweave {

void RegisterShapeOps(OpRegistry& registry) {}

}  // namespace gradweave
