// How matrices of accumulators are cut into blocks that fit in registers.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_BLOCKS_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_BLOCKS_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "gradweave/runtime/cpu/tile/tile_kernels.h"

namespace gradweave {

// Sums of filter gradients up to this size stay in the first-level cache beside what else a correlation reads.
inline constexpr int64_t kFirstLevelSumBytes = 16 << 10;

// Parts of [0, count), as equal as they can be, of at most `largest`.
inline std::vector<int> Parts(int64_t count, int largest) {
  std::vector<int> parts;
  const int64_t number = (count + largest - 1) / largest;
  for (int64_t i = 0; i < number; ++i) parts.push_back(static_cast<int>((i + 1) * count / number - i * count / number));
  return parts;
}

// How a matrix of rows x columns accumulators is cut into blocks for which there are loops.
struct Blocks {
  std::vector<int> rows, columns;
  double cost = 0;  // Of one term, in products.
};

// A block's term costs its products, but no less than its loads or as many products as hide the latency of one.
template <typename HasLoop>
Blocks ChooseBlocks(const TileKernels& kernels, int64_t rows, int64_t columns, HasLoop has_loop) {
  Blocks best;
  const double in_flight = kernels.products_in_flight;
  for (int a = 1; a <= std::min<int64_t>(rows, kMostBlockRows); ++a) {
    for (int b = 1; b <= std::min<int64_t>(columns, kMostBlockColumns); ++b) {
      if (!has_loop(a, b)) continue;
      Blocks blocks{Parts(rows, a), Parts(columns, b), 0};
      for (int r : blocks.rows) {
        for (int c : blocks.columns) blocks.cost += std::max({r * c + 0.25, r + c + 0.5, in_flight}) + 0.02 * (r + c);
      }
      if (best.rows.empty() || blocks.cost < best.cost) best = std::move(blocks);
    }
  }
  return best;
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_BLOCKS_H_
