// Instructions of a row region: which loop computes each node, and where its operands and its result lie.
#ifndef GRADWEAVE_RUNTIME_CPU_ROWS_ROW_LOWERING_H_
#define GRADWEAVE_RUNTIME_CPU_ROWS_ROW_LOWERING_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/formula_numbers.h"

namespace gradweave {

// Location of a value.
struct RowPlace {
  enum Kind { kOperand, kOutput, kScratch, kProduct, kPartial, kRowSums, kNumber } kind = kOperand;
  // Index of the operand or output, or of the scratch slot for rows or numbers. A number is its index.
  int index = 0;
  // In scratch, the position of a block's first row, which the program sets; for partial sums, of the
  // first column; for sums of rows, of the first row.
  int64_t offset = 0;
  RowExtent extent = RowExtent::kFull;
  int64_t bytes = 0;               // Size of an element.
  int64_t repeat = 1, period = 1;  // Of a periodic operand, as in RowRegion::Operand.
};

enum class RowAction { kProduct, kElements, kRowSum, kRowMax, kSoftmax, kSumRows };

struct RowInstruction {
  RowAction action;
  LoopFunction loop = nullptr;  // Set for kElements.
  FormulaNumbers numbers;
  absl::InlinedVector<RowPlace, 3> operands;
  RowPlace result;
  NodeId node = -1;
  std::string name;
  double flops = 0;
};

// An output that is complete when all rows are: the position of its partial sums, or of its sums of
// rows, of which it adds those that are `period` rows apart.
struct RowSums {
  int output;
  int64_t offset;
  int64_t period = 1;
};

struct RowCode {
  std::vector<RowInstruction> instructions;
  absl::InlinedVector<std::pair<int, int>, 2> overwrites;  // As Kernel::overwrites.
  std::vector<RowSums> sums;                               // Over rows.
  std::vector<RowSums> row_sums;
  // The scratch slots for rows and for one number per row, and the operands and outputs that are rows.
  int full_slots = 0, number_slots = 0, streams = 0;
  absl::InlinedVector<int, 3> product_operands;  // Indices of the producer's operands.
  int product_output = -1;                       // The output in whose memory a convolution writes first; -1 if none.
};

// Lowers a region that RowsSupport and RowsBegin (row_choices.h) accept. Values that leave the region
// go to outputs, others to scratch slots, which are reused after the last read. A node may overwrite
// its operands. `by_samples` is true for a convolution that makes samples, in an output if possible.
RowCode LowerRows(const Graph& graph, const RowRegion& region, bool by_samples);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ROWS_ROW_LOWERING_H_
