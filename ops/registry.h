// The ops that come with Gradweave.
#ifndef GRADWEAVE_OPS_REGISTRY_H_
#define GRADWEAVE_OPS_REGISTRY_H_

#include "gradweave/graph/op.h"

namespace gradweave {

// Returns the core ops. The first call creates the registry; it is never destroyed.
const OpRegistry& CoreOps();

// Adds the core ops to a registry of the user, next to the user's own ops.
void RegisterCoreOps(OpRegistry& registry);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_REGISTRY_H_
