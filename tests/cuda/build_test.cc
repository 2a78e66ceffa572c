// Kernels compiled by nvcc exist for every op and have the same form as the emulated ones. Without
// a GPU, no test runs them.
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
