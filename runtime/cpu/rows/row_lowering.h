// The instructions of a row region: the loop of each node, and the places of its operands and
// result.
#ifndef GRADWEAVE_RUNTIME_CPU_ROWS_ROW_LOWERING_H_
#define GRADWEAVE_RUNTIME_CPU_ROWS_ROW_LOWERING_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cpu/rows/row_windows.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/formula_numbers.h"

namespace gradweave {

// Location of a value.
struct RowPlace {
  enum Kind { kOperand, kOutput, kScratch, kProduct, kPartial, kRowSums, kNumber } kind = kOperand;
  // Index of the operand or output, or of the scratch slot for rows or numbers. A number is its
  // index.
  int index = 0;
  // The position in elements: of a block's first row in scratch, which the program sets, of the
  // first column in partial sums, or of the first row in sums of rows.
  int64_t offset = 0;
  RowExtent extent = RowExtent::kFull;
  int64_t bytes = 0;               // Size of an element.
  int64_t repeat = 1, period = 1;  // RowRegion::Operand has the same for periodic operands.
  RowWindow window = {};           // The window of an operand.
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

// An output that is complete when all rows are, and the position of its partial sums or of its sums
// of rows. Element i of an output adds the sums of the rows i, i + period, i + 2*period and so on.
struct RowSums {
  int output;
  int64_t offset;
  int64_t period = 1;
};

struct RowCode {
  std::vector<RowInstruction> instructions;
  absl::InlinedVector<std::pair<int, int>, 2> overwrites;  // Kernel::overwrites.
  std::vector<RowSums> sums;                               // Over rows.
  std::vector<RowSums> row_sums;
  // Numbers of scratch slots for rows, of slots for one number per row, and of operands and outputs
  // that are rows.
  int full_slots = 0, number_slots = 0, streams = 0;
  absl::InlinedVector<int, 3> product_operands;  // Indices of the producer's operands.
  int product_output = -1;  // A convolution writes its result to this output's memory first; -1: to scratch.
};

// Lowers a region that RowsSupport and RowsBegin (row_choices.h) accept. Values that leave the
// region go to outputs, others to scratch slots, which are reused after the last read. A node may
// overwrite its operands, except windows. `by_samples` is true for a convolution that makes
// samples, in an output if possible. There is a window for each operand of the region, or none.
RowCode LowerRows(const Graph& graph, const RowRegion& region, bool by_samples, absl::Span<const RowWindow> windows);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ROWS_ROW_LOWERING_H_
