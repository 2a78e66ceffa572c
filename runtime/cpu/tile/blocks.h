// Division of matrices of accumulators into register blocks.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_BLOCKS_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_BLOCKS_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "gradweave/runtime/cpu/tile/tile_kernels.h"

namespace gradweave {

// Sums of filter gradients up to this size stay in the first-level cache beside the other operands
// of a correlation.
inline constexpr int64_t kFirstLevelSumBytes = 16 << 10;

// Divides [0, count) into parts of at most `largest` and returns their sizes, which are as equal as
// possible.
inline std::vector<int> Parts(int64_t count, int largest) {
  std::vector<int> parts;
  const int64_t number = (count + largest - 1) / largest;
  for (int64_t i = 0; i < number; ++i) parts.push_back(static_cast<int>((i + 1) * count / number - i * count / number));
  return parts;
}

// Division of a matrix of rows x columns accumulators into blocks for which loops exist.
struct Blocks {
  std::vector<int> rows, columns;
  double cost = 0;  // Cost of one term, in multiply-adds.
};

// Chooses the cheapest division. The cost of a block's term is the number of its products, but at
// least the number of its loads or of the products that hide the latency of one.
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
