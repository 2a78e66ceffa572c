#include "gradweave/ops/matmul.h"

namespace gradweave {

void RegisterMatMulOps(OpRegistry& registry) {}

}  // namespace gradweave
