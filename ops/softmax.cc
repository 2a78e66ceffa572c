#include "gradweave/ops/softmax.h"

namespace gradweave {

void RegisterSoftmaxOps(OpRegistry& registry) {}

}  // namespace gradweave
