// The CPU plans graphs in time that does not depend on the numbers in them.
#include "tests/session/huge_sizes.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

TEST(HugeSizes, PlansAreMadeSoon) { ExpectPlansAreMadeSoon({.threads = 2}); }

TEST(HugeSizes, PlansInTilesAndRowsAreMadeSoon) {
  ExpectPlansAreMadeSoon({.threads = 2, .batch_tiles = BatchTiles::kAlways, .row_fusion = RowFusion::kAlways});
}

TEST(HugeSizes, PlansOfSingleNodesAreMadeSoon) {
  ExpectPlansAreMadeSoon({.threads = 2, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
}

}  // namespace
}  // namespace gradweave
