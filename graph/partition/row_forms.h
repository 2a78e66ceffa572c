// How single nodes read and write their values by rows and columns.
#ifndef GRADWEAVE_GRAPH_PARTITION_ROW_FORMS_H_
#define GRADWEAVE_GRAPH_PARTITION_ROW_FORMS_H_

#include <cstdint>
#include <optional>

#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/row_regions.h"

namespace gradweave {

// Returns how an operand that broadcasts to the shape `full` is read by rows of `columns` elements;
// nullopt if no RowExtent describes it. `full` must have elements.
std::optional<RowRegion::Operand> OperandByRows(Port port, const Shape& operand, const Shape& full, int64_t columns);

// Returns the columns at which such an operand has a simple form: one entry per row, or one per
// column. Returns 0 if any columns are possible, because the operand is as large as `full` or has
// one element.
int64_t NaturalColumns(const Shape& operand, const Shape& full);

// Returns the product of the last `axes` sizes, or of all if there are fewer.
int64_t LastAxes(const Shape& shape, int axes);

// The columns of the operand of a reduction or softmax, and the extent of the result.
struct RowForm {
  int64_t columns;
  RowExtent result;
};
// Returns the form of a node with one operand of shape x that has elements; nullopt if the node is
// neither softmax along the last axis nor a reduction of columns, of rows, or of both around one
// kept group of axes.
std::optional<RowForm> FormOf(const Node& node, const Shape& x);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_ROW_FORMS_H_
