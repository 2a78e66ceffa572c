#include "gradweave/ops/registry.h"

namespace gradweave {

// Each family registers its ops with an explicit call, because linkers drop static initializers
// from libraries.
void RegisterStateOps(OpRegistry& registry);
void RegisterElementwiseOps(OpRegistry& registry);
void RegisterRandomOps(OpRegistry& registry);
void RegisterReductionOps(OpRegistry& registry);
void RegisterShapeOps(OpRegistry& registry);
void RegisterIndexingOps(OpRegistry& registry);
void RegisterMatMulOps(OpRegistry& registry);
void RegisterConvOps(OpRegistry& registry);
void RegisterPoolOps(OpRegistry& registry);
void RegisterSoftmaxOps(OpRegistry& registry);
void RegisterAttentionOps(OpRegistry& registry);
void RegisterSortingOps(OpRegistry& registry);
void RegisterCollectiveOps(OpRegistry& registry);
void RegisterControlFlowOps(OpRegistry& registry);
void RegisterQuantizedOps(OpRegistry& registry);

void RegisterCoreOps(OpRegistry& registry) {
  RegisterStateOps(registry);
  RegisterElementwiseOps(registry);
  RegisterRandomOps(registry);
  RegisterReductionOps(registry);
  RegisterShapeOps(registry);
  RegisterIndexingOps(registry);
  RegisterMatMulOps(registry);
  RegisterConvOps(registry);
  RegisterPoolOps(registry);
  RegisterSoftmaxOps(registry);
  RegisterAttentionOps(registry);
  RegisterSortingOps(registry);
  RegisterCollectiveOps(registry);
  RegisterControlFlowOps(registry);
  RegisterQuantizedOps(registry);
}

const OpRegistry& CoreOps() {
  static const OpRegistry* const ops = [] {
    auto* registry = new OpRegistry();
    RegisterCoreOps(*registry);
    return registry;
  }();
  return *ops;
}

}  // namespace gradweave
