#include "gradweave/ops/state.h"

namespace gradweave {

void RegisterStateOps(OpRegistry& registry) {}

}  // namespace gradweave
