// Generated kernels of elementwise chains on a GPU give the same bits as interpreted ones.
#include "gtest/gtest.h"
#include "tests/cuda/fused_graphs.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

TEST(GeneratedKernels, GiveTheBitsOfTheInterpretedOnThisDevice) {
  const absl::Status status = CompareGeneratedWithInterpreted(TestDevice());
  if (absl::IsUnavailable(status)) GTEST_SKIP() << status;
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace gradweave
