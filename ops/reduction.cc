#include "gradweave/ops/reduction.h"

namespace gradweave {

void RegisterReductionOps(OpRegistry& registry) {}

}  // namespace gradweave
