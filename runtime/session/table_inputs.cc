#include "gradweave/runtime/session/table_inputs.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"

namespace gradweave {
namespace {

absl::Status Check(const Node& input, const TensorType& table, const Dim& rows) {
  auto error = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat("PrepareRows: input '", input.name, "' is ",
                                                   input.outputs[0].ToString(), " and its table ", table.ToString(),
                                                   ": ", problem));
  };
  const TensorType& type = input.outputs[0];
  const bool scaled = type.dtype == kFloat32 && table.dtype == kUint8;
  if (type.dtype != table.dtype && !scaled) return error("the dtypes have to be the same, or float32 and uint8");
  if (type.shape.rank() == 0 || type.shape.rank() != table.shape.rank())
    return error("they have to have the same number of axes, one at least");
  if (!(type.shape[0] == rows)) return error("all inputs that read tables have to have the same first axis");
  for (int axis = 1; axis < type.shape.rank(); ++axis) {
    if (!(type.shape[axis] == table.shape[axis])) return error("only the first axes may differ");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Graph> ReadFromTables(const Graph& graph, absl::Span<const TableInput> tables) {
  if (tables.empty()) return absl::InvalidArgumentError("PrepareRows: there are no tables");
  const TensorType& first = graph.node(tables[0].input).outputs[0];
  const Dim rows = first.shape.rank() == 0 ? Dim(0) : first.shape[0];
  for (const TableInput& table : tables) GW_RETURN_IF_ERROR(Check(graph.node(table.input), table.type, rows));
  NodeId rows_input = -1;
  return Rewrite(
      graph, [&](const Node& node, absl::Span<const Port>, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        const TableInput* table = nullptr;
        for (const TableInput& candidate : tables) {
          if (candidate.input == node.id) table = &candidate;
        }
        if (table == nullptr) return std::nullopt;
        const LocationGuard location(result, node.location);
        if (rows_input < 0) {
          const NamedAttribute attributes[] = {{"dtype", kInt32}, {"shape", Shape{rows}}};
          GW_ASSIGN_OR_RETURN(rows_input,
                              result.AddNode({.op = node.op, .attributes = attributes, .name = kRowsInput}));
        }
        const NamedAttribute attributes[] = {
            {"dtype", table->type.dtype}, {"shape", table->type.shape}, {"trainable", false}};
        GW_ASSIGN_OR_RETURN(NodeId variable, result.AddNode({.op = node.op->registry->Find(OpKind::kVariable),
                                                             .attributes = attributes,
                                                             .name = table->name}));
        Value value = Gather(result.value(variable), result.value(rows_input));
        // Scales bytes as batches on the CPU do.
        if (table->type.dtype != node.outputs[0].dtype) value = Cast(value, kFloat32) / 255.0;
        GW_RETURN_IF_ERROR(result.status());
        return Ports{value.port()};
      });
}

}  // namespace gradweave
