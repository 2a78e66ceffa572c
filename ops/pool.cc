#include "gradweave/ops/pool.h"

namespace gradweave {

void RegisterPoolOps(OpRegistry& registry) {}

}  // namespace gradweave
