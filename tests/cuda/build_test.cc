// The kernels as nvcc compiled them: there for every op, and of one kind with the emulated ones. They run in no test
// without a GPU.
#include <string>

#include "gradweave/ops/registry.h"
#include "gradweave/runtime/cuda/ops/kernels.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

TEST(CudaBuild, HasTheKernelsOfTheEmulatedDevice) {
  int kernels = 0;
  for (const auto& op : CoreOps().definitions()) {
    const bool emulated = cuda_emulated::CudaKernels().Find(op->name) != nullptr;
    EXPECT_EQ(cuda::CudaKernels().Find(op->name) != nullptr, emulated) << op->name;
    kernels += emulated;
  }
  EXPECT_GT(kernels, 80);
}

}  // namespace
}  // namespace gradweave
