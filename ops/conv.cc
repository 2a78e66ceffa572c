#include "gradweave/ops/conv.h"

namespace gradweave {

void RegisterConvOps(OpRegistry& registry) {}

}  // namespace gradweave
