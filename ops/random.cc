#include "gradweave/ops/random.h"

namespace gradweave {

void RegisterRandomOps(OpRegistry& registry) {}

}  // namespace gradweave
