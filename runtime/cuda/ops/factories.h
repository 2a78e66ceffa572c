// Helpers of the factories of CUDA kernels. For .cu files.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_FACTORIES_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_FACTORIES_H_

#include <utility>

#include "absl/status/statusor.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/ops/launch.h"
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
                return arguments.cuda->api->CopyAsync(arguments.outputs[0], arguments.operands[0], bytes,
                                                      CudaCopyKind::kDeviceToDevice, arguments.cuda->stream);
              },
          .overwrites = {{0, 0}}};
}

inline int64_t NumElements(const TensorType& type) { return type.shape.num_elements().size(); }

// Element counts before, along and after an axis.
struct AxisSizes {
  int64_t outer = 1, size = 1, inner = 1;
  AxisSizes(const Shape& shape, int64_t axis) : size(shape[axis].size()) {
    for (int i = 0; i < axis; ++i) outer *= shape[i].size();
    for (int i = static_cast<int>(axis) + 1; i < shape.rank(); ++i) inner *= shape[i].size();
  }
};

// Returns the code with which the node's kernel reports bad data.
inline int32_t ErrorCode(const KernelRequest& request) { return request.node.id + 1; }

// Calls function(Index()) with the C++ type for a dtype of indices: int32, int64 or uint8.
template <typename Function>
absl::StatusOr<Kernel> VisitIndices(DType dtype, Function function) {
  switch (dtype) {
    case kInt32:
      return function(int32_t{});
    case kInt64:
      return function(int64_t{});
    default:
      return function(uint8_t{});
  }
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_FACTORIES_H_
