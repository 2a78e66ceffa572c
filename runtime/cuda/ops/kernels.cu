#include "gradweave/runtime/cuda/ops/kernels.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cuda/ops/launch.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Each family defines one of these beside its kernels.
using RegisterFamily = void(KernelRegistry& registry);
RegisterFamily RegisterStateKernels, RegisterElementwiseKernels, RegisterRandomKernels, RegisterReductionKernels,
    RegisterShapeKernels, RegisterIndexingKernels, RegisterMatMulKernels, RegisterConvKernels, RegisterPoolKernels,
    RegisterSoftmaxKernels, RegisterSortingKernels;

namespace {

KernelRegistry& Kernels() {
  static KernelRegistry* const kernels = [] {
    auto* registry = new KernelRegistry();
    for (RegisterFamily* family :
         {RegisterStateKernels, RegisterElementwiseKernels, RegisterRandomKernels, RegisterReductionKernels,
          RegisterShapeKernels, RegisterIndexingKernels, RegisterMatMulKernels, RegisterConvKernels,
          RegisterPoolKernels, RegisterSoftmaxKernels, RegisterSortingKernels}) {
      family(*registry);
    }
    return registry;
  }();
  return *kernels;
}

}  // namespace

const KernelRegistry& CudaKernels() { return Kernels(); }

void AddCudaKernel(absl::string_view op, KernelFactory factory) { Kernels().Add(op, std::move(factory)); }

// Kernels count elements with 32 bits, which GPUs divide several times faster.
absl::Status CheckSizes(const KernelRequest& request) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  auto check = [&](const TensorType& type) {
    if (type.shape.num_elements().size() <= kMost) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat("CUDA kernels support tensors of less than 2^31 elements, but ",
                                                 request.node.op->name, " has a ", type.ToString()));
  };
  for (const TensorType& type : request.operands) {
    if (absl::Status status = check(type); !status.ok()) return status;
  }
  for (const TensorType& type : request.node.outputs) {
    if (absl::Status status = check(type); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
