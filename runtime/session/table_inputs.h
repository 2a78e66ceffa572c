// Inputs that read rows of tables instead of feeds.
#ifndef GRADWEAVE_RUNTIME_SESSION_TABLE_INPUTS_H_
#define GRADWEAVE_RUNTIME_SESSION_TABLE_INPUTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

// The name of the input for the numbers of the rows, int32[n].
inline constexpr char kRowsInput[] = "table rows";

struct TableInput {
  NodeId input;
  std::string name;  // The variable that holds the table.
  TensorType type;   // The table's type.
};

// Returns the graph with the inputs replaced by Gather(variable, rows), divided by 255 for a
// float32 input of a table of bytes. Returns InvalidArgument if the first axes of inputs differ, or
// if an input's dtype or other axes differ from the table's.
absl::StatusOr<Graph> ReadFromTables(const Graph& graph, absl::Span<const TableInput> tables);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_TABLE_INPUTS_H_
