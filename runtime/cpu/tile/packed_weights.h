// Weights that weighted sums on tiles read.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_PACKED_WEIGHTS_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_PACKED_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gradweave/runtime/cpu/tile/blocks.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"

namespace gradweave {

// Returns the division of rows x columns weighted sums into blocks.
Blocks WeightedSumBlocks(const TileKernels& kernels, int64_t rows, int64_t columns);

// Weights packed in the order in which blocks of rows read them: [row block][term][row of the
// block]. The weight of row a and term r is source[a*row_step + terms[r]].
struct PackedWeights {
  int operand;               // Index of the region's operand.
  int64_t source, row_step;  // In elements.
  std::vector<int32_t> terms;
  std::vector<int> row_blocks;
  int64_t place;  // Offset in the prepared memory.

  // Equal texts mean equal places of the same weights (TileBuilder::AddPreparation).
  std::string layout() const;
  int64_t size() const;
  // Copies the weights of one block of rows.
  void Pack(const void* const* operands, float* prepared, int64_t block) const;
};

// Reserves memory for the weights, which all belong to one operand, and adds the tasks that fill
// it.
std::shared_ptr<const std::vector<PackedWeights>> PrepareWeights(TileBuilder& builder,
                                                                 std::vector<PackedWeights> weights);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_PACKED_WEIGHTS_H_
