// Bodies: graphs that a node holds as attributes, such as the step of a Scan.
//
// A body has two outputs. kBodyOperands are its Input nodes, in the order in which the node passes
// values to it; kBodyResults are the values that it computes. An Input that no result needs is an
// operand too, so passes keep all of them. A body has no state and no random numbers: it has no
// variables, assignments, random ops, and no inputs besides its operands. Its symbols are those of
// the graph around it.
#ifndef GRADWEAVE_GRAPH_BODY_H_
#define GRADWEAVE_GRAPH_BODY_H_

#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

inline constexpr absl::string_view kBodyOperands = "operands";
inline constexpr absl::string_view kBodyResults = "results";

// Upper limit for nested bodies. Files have the same limit.
inline constexpr int kMostNestedBodies = 8;

// The value of an attribute that holds a body.
using Body = std::shared_ptr<const Graph>;

// True if an attribute of the node is a body.
bool HasBody(const Node& node);
// True if a node of the graph has a body.
bool HasBodies(const Graph& graph);

// Returns the ports of the output of this name; none if the graph lacks it.
absl::Span<const Port> BodyPorts(const Graph& body, absl::string_view output);

// Returns the types of the body's results. Returns InvalidArgument with the reason, which begins
// with `name`, if the graph is not a body as described above, if its operands do not have the types
// `operands`, or if bodies are nested more than kMostNestedBodies deep.
absl::StatusOr<TensorTypes> CheckBody(const Graph& body, absl::string_view name, absl::Span<const TensorType> operands);

// Compares like SameAttribute, but compares graphs with SameGraph.
bool SameAttributeOrBody(const AttributeValue& a, const AttributeValue& b);

// True if both graphs compute the same outputs with the same nodes in the same order. Names and
// source lines may differ, except the names of inputs and variables.
bool SameGraph(const Graph& a, const Graph& b);

// Adds to `to` copies of the nodes of `from` that the wanted ports need, and adds the copy of each
// of their outputs to `places`. Ports that are in `places` already are not copied. Returns errors
// of Graph::AddNode.
absl::Status CopyNodes(const Graph& from, absl::Span<const Port> wanted, Graph& to,
                       absl::flat_hash_map<Port, Port>& places);

// The floating-point operations of one execution of a body of known shapes.
double BodyFlops(const Graph& body);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_BODY_H_
