// Helpers of the factories of CUDA kernels. For .cu files.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_FACTORIES_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_FACTORIES_H_

#include <utility>

#include "absl/status/statusor.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/ops/launch.h"
#include "gradweave/runtime/kernel/axis.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Returns Unimplemented if an operand or output has 2^31 elements or more.
absl::Status CheckSizes(const KernelRequest& request);

// Registers a factory that runs after CheckSizes.
template <typename Factory>
void Add(KernelRegistry& registry, const char* op, Factory factory) {
  registry.Add(op, [factory](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    GW_RETURN_IF_ERROR(CheckSizes(request));
    return factory(request);
  });
}

// Registers make(request, T()) for an op whose first output is float32 or float64.
template <typename Make>
void AddFloating(KernelRegistry& registry, const char* op, Make make) {
  Add(registry, op, [make](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? make(request, float{}) : make(request, double{});
  });
}

// Returns a kernel that copies a tensor of `bytes` bytes. In place, it does nothing.
inline Kernel CopyKernel(size_t bytes) {
  return {.name = "copy",
          .run =
              [bytes](const KernelArguments& arguments) {
                if (arguments.outputs[0] == arguments.operands[0] || bytes == 0) return absl::OkStatus();
                return arguments.device<CudaContext>().api->CopyAsync(arguments.outputs[0], arguments.operands[0],
                                                                      bytes, CudaCopyKind::kDeviceToDevice,
                                                                      arguments.device<CudaContext>().stream);
              },
          .overwrites = {{0, 0}}};
}

inline int64_t NumElements(const TensorType& type) { return type.shape.num_elements().size(); }

// Returns the code with which the node's kernel reports bad data.
inline int32_t ErrorCode(const KernelRequest& request) { return request.node.id + 1; }

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_FACTORIES_H_
