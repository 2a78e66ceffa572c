// NaN in, NaN out on the CPU: at every place of a row and for rows of every length, kernel by
// kernel, in row regions and in tiles.
#include "gtest/gtest.h"
#include "tests/ops/nan_rows.h"

namespace gradweave {
namespace {

class NaN : public testing::TestWithParam<int> {};

TEST_P(NaN, StaysAtEveryPlaceOfRowsOfEveryLength) {
  const int64_t n = GetParam();
  for (DType dtype : {kFloat32, kFloat64}) {
    ExpectNansStay(dtype, n, n, {.batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
    ExpectNansStay(dtype, n, n, {.batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kAlways});
    ExpectNansStay(dtype, n, n, {.batch_tiles = BatchTiles::kAlways});
  }
}

INSTANTIATE_TEST_SUITE_P(Length, NaN, testing::ValuesIn(kRowLengths));

TEST(NaN, IsWhatArgMaxAndArgMinFind) { ExpectNansAreFound({}); }

TEST(NaN, ComparesUnequalToEverything) { ExpectNansCompareUnequal({}); }

}  // namespace
}  // namespace gradweave
