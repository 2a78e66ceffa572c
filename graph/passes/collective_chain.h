// The chain of a graph's collective ops, for passes that rebuild it.
#ifndef GRADWEAVE_GRAPH_PASSES_COLLECTIVE_CHAIN_H_
#define GRADWEAVE_GRAPH_PASSES_COLLECTIVE_CHAIN_H_

#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Adds nodes to a graph, and collective ops to the end of its chain.
class CollectiveChain {
 public:
  // Sets the graph, which has to outlive the chain. Call it before the first node is added.
  void SetGraph(Graph& graph) { graph_ = &graph; }

  // Adds a node with the line and the device of `like`. InvalidArgument if the registry of `like`
  // lacks the op.
  absl::StatusOr<Port> Add(const Node& like, absl::string_view op, absl::Span<const Port> inputs,
                           absl::Span<const NamedAttribute> attributes);
  // Adds a copy of a node, with these operands.
  absl::StatusOr<Ports> Copy(const Node& node, absl::Span<const Port> inputs);
  // The same with other attributes, all of them, in the order of the op's definition.
  absl::StatusOr<Port> AddWith(const Node& node, absl::InlinedVector<AttributeValue, 1> attributes,
                               absl::Span<const Port> inputs);
  // Adds a copy of a collective op with the operand x, or the collective op `op`.
  absl::StatusOr<Port> CopyCollective(const Node& node, Port x);
  absl::StatusOr<Port> AddCollective(const Node& like, absl::string_view op, int64_t shards, Port x);

 private:
  Graph* graph_ = nullptr;
  Port last_;  // The end of the chain.
};

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_COLLECTIVE_CHAIN_H_
