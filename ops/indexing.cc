#include "gradweave/ops/indexing.h"

namespace gradweave {

void RegisterIndexingOps(OpRegistry& registry) {}

}  // namespace gradweave
