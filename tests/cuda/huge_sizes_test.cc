// The emulated CUDA device plans graphs in time that does not depend on the numbers in them.
#include "tests/session/huge_sizes.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"

namespace gradweave {
namespace {

using CudaHugeSizes = CudaSession;

TEST_F(CudaHugeSizes, PlansAreMadeSoon) {
  GRADWEAVE_NEEDS_EMULATION();
  Emulate({.memory_bytes = size_t{1} << 26});
  ExpectPlansAreMadeSoon({.device = kCuda0, .threads = 2});
}

}  // namespace
}  // namespace gradweave
