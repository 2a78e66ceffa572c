// Row programs: one generated kernel for all nodes of a row region (graph/partition/row_regions.h).
// The threads of a row keep its values in registers from the first op to the last, across
// reductions of the row.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_PROGRAM_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"

namespace gradweave {

// A value of a row: one for each element, or one number for the whole row.
struct RowInstruction {
  // kNumber, kLoad, kLoadBool, kStore, kStoreBool, kReduce or a formula. Other loads do not occur.
  FusedOp op;
  FusedReductionKind reduction = FusedReductionKind::kSum;  // For kReduce.
  bool varies = false;                                      // True if the elements of a row have different values.
  int operands[3] = {-1, -1, -1};                           // Earlier instructions; -1 if unused.
  int index = -1;                                           // The tensor, or the first number.
  // A phase is a loop over the elements of a row that ends in reductions. Varying values are
  // computed in the loop of their phase, other values before it. A reduction takes elements in the
  // loop of its phase and has a value from the next phase on. Stores follow the loop.
  int phase = 0;
};

// A program that runs one row at a time.
struct RowProgram {
  DType dtype;  // The dtype in which it computes. Truth values are 0 and 1.
  uint32_t rows = 0, columns = 0;
  // Threads of a row, and elements of each thread, [parts, elements]. A row is divided as reduce.h
  // divides a row of a reduction, so that sums have the same bits.
  uint32_t threads = 0, parts = 1, elements = 0;
  int num_phases = 1;
  std::vector<RowInstruction> instructions;  // In an executable order.
  std::vector<double> numbers;
  // Tensors are the operands, then the outputs.
  std::vector<Port> operands, outputs;
  std::vector<RowExtent> extents;  // Indexed by tensor.
  // {operand, output} pairs: the output may overwrite the operand.
  std::vector<std::pair<int, int>> overwrites;
};

// Returns true if FindRowRegions may take the node into a region of a row kernel: fusible
// elementwise ops, reductions of rows, and softmax. Softmax is excluded if a reduction of such rows
// would split them, because the op's own kernel does not.
bool RowKernelSupports(const Graph& graph, const Node& node);

// Returns the region's program. Returns nullopt if no op reads the result of a reduction, since
// elementwise chains that end in reductions serve as well; if there are too many tensors or
// numbers; or if a row's values do not fit in registers.
std::optional<RowProgram> MakeRowProgram(const Graph& graph, const RowRegion& region);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_PROGRAM_H_
