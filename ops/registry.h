// All the ops that Gradweave has.
#ifndef GRADWEAVE_OPS_REGISTRY_H_
#define GRADWEAVE_OPS_REGISTRY_H_

#include "gradweave/graph/op.h"

namespace gradweave {

// The core ops; made at the first call, and never destroyed.
const OpRegistry& CoreOps();

// Adds the core ops to a registry of the user's, beside ops of its own.
void RegisterCoreOps(OpRegistry& registry);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_REGISTRY_H_
