// NaN in, NaN out on the CUDA device, by the kernels of single ops and by the interpreting
// kernel. Generated kernels are compared with these (generated_test, rows_test, convolutions_test).
#include "gtest/gtest.h"
#include "tests/cuda/session.h"
#include "tests/ops/nan_rows.h"

namespace gradweave {
namespace {

using CudaNaN = CudaSession;

TEST_F(CudaNaN, StaysAtEveryPlaceOfRowsOfEveryLength) {
  for (DType dtype : {kFloat32, kFloat64}) {
    for (int n : kRowLengths) {
      ExpectNansStay(dtype, n, n, {.device = kCuda0, .cuda = {.generated_kernels = GeneratedKernels::kNever}});
    }
    // Rows for a block, and rows that blocks share.
    for (int n : {700, 9001}) ExpectNansStay(dtype, 20, n, {.device = kCuda0});
  }
  // It was the device that ran them.
  if (api_ != nullptr) {
    EXPECT_GT(api_->CountCalls("Launch"), 1000);
  }
}

TEST_F(CudaNaN, IsWhatArgMaxAndArgMinFind) { ExpectNansAreFound({.device = kCuda0}); }

TEST_F(CudaNaN, ComparesUnequalToEverything) { ExpectNansCompareUnequal({.device = kCuda0}); }

}  // namespace
}  // namespace gradweave
