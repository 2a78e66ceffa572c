#include "gradweave/ops/elementwise.h"

namespace gradweave {

void RegisterElementwiseOps(OpRegistry& registry) {}

}  // namespace gradweave
