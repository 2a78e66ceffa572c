// Division of matrices of accumulators into register blocks.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_BLOCKS_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_BLOCKS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
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

// Returns the sum of cost(rows of the block, columns of the block) over the blocks of such a
// division.
template <typename Cost>
double SumOverBlocks(int64_t rows, int most_rows, int64_t columns, int most_columns, Cost cost) {
  // More blocks are not visited one by one: parts have two sizes at most.
  constexpr double kMostVisited = 1 << 16;
  const int64_t down = DivideUp(rows, most_rows), across = DivideUp(columns, most_columns);
  double sum = 0;
  if (static_cast<double>(down) * static_cast<double>(across) <= kMostVisited) {
    const std::vector<int> of_columns = Parts(columns, most_columns);
    for (int r : Parts(rows, most_rows)) {
      for (int c : of_columns) sum += cost(r, c);
    }
    return sum;
  }
  for (int64_t larger_rows : {0, 1}) {
    for (int64_t larger_columns : {0, 1}) {
      const int64_t of_rows = larger_rows == 1 ? rows % down : down - rows % down;
      const int64_t of_columns = larger_columns == 1 ? columns % across : across - columns % across;
      sum += static_cast<double>(of_rows) * static_cast<double>(of_columns) *
             cost(static_cast<int>(rows / down + larger_rows), static_cast<int>(columns / across + larger_columns));
    }
  }
  return sum;
}

// Chooses the cheapest division. The cost of a block's term is the number of its products, but at
// least the number of its loads or of the products that hide the latency of one.
template <typename HasLoop>
Blocks ChooseBlocks(const TileKernels& kernels, int64_t rows, int64_t columns, HasLoop has_loop) {
  int best_rows = 0, best_columns = 0;
  double least = 0;
  const double in_flight = MachineOfLanes(kernels.lanes).products_in_flight;
  for (int a = 1; a <= std::min<int64_t>(rows, kMostBlockRows); ++a) {
    for (int b = 1; b <= std::min<int64_t>(columns, kMostBlockColumns); ++b) {
      if (!has_loop(a, b)) continue;
      const double cost = SumOverBlocks(rows, a, columns, b, [&](int r, int c) {
        return std::max({r * c + 0.25, r + c + 0.5, in_flight}) + 0.02 * (r + c);
      });
      if (best_rows > 0 && cost >= least) continue;
      best_rows = a;
      best_columns = b;
      least = cost;
    }
  }
  return best_rows == 0 ? Blocks() : Blocks{Parts(rows, best_rows), Parts(columns, best_columns), least};
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_BLOCKS_H_
