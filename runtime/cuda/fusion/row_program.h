// Row kernels: what one generated kernel does with the rows of a region (graph/partition/row_regions.h). The threads of a
// row keep its values in registers from the first op to the last, reductions of the row in the middle included.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_PROGRAM_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"

namespace gradweave {

// A value of a row: one for each element, or one number for all of the row.
struct RowInstruction {
  // kNumber, kLoad, kLoadBool, kStore, kStoreBool, kReduce, or a formula; other loads don't occur.
  FusedOp op;
  FusedReductionKind reduction = FusedReductionKind::kSum;  // Of kReduce.
  bool varies = false;                                      // Whether elements of the row have values of their own.
  int operands[3] = {-1, -1, -1};                           // Instructions before it.
  int index = -1;                                           // The tensor, or the first number.
  // A phase is a loop over a row's elements that ends in reductions. What varies is computed in the loop of its phase,
  // other values before it. Reductions take up elements in their phase's loop, and have a value from the next on. What
  // is stored is stored after the loop.
  int phase = 0;
};

struct RowProgram {
  DType dtype;  // In which it computes; beside it there are truth values, as 0 and 1.
  uint32_t rows = 0, columns = 0;
  // The threads of a row, and the elements of each, [parts, elements]. A row is cut as reduce.h cuts that of a
  // reduction, so that sums have the same bits.
  uint32_t threads = 0, parts = 1, elements = 0;
  int num_phases = 1;
  std::vector<RowInstruction> instructions;  // In an order in which they can run.
  std::vector<double> numbers;
  // Tensors are operands, then outputs.
  std::vector<Port> operands, outputs;
  std::vector<RowExtent> extents;  // Of tensors.
  // {operand, output}: the output may be the operand's memory.
  std::vector<std::pair<int, int>> overwrites;
};

// What FindRowRegions takes into regions for row kernels: elementwise ops that can be fused, reductions of rows, and
// softmax, but where a sum of such a row would be split: an op's own kernel does not do that.
bool RowKernelSupports(const Graph& graph, const Node& node);

// The region's program. Nothing where no op reads what a reduction gives, so that elementwise chains and their ends do
// as well; where the program has too many tensors or numbers; and where a row's values don't fit in registers.
std::optional<RowProgram> MakeRowProgram(const Graph& graph, const RowRegion& region);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_PROGRAM_H_
