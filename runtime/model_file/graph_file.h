// Serialization of graphs.
#ifndef GRADWEAVE_RUNTIME_MODEL_FILE_GRAPH_FILE_H_
#define GRADWEAVE_RUNTIME_MODEL_FILE_GRAPH_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

namespace proto {
class Graph;
class Tensor;
}  // namespace proto

// Returns the graph as bytes (message Graph of proto/model.proto). `source_locations` adds the
// source line of each node.
std::string GraphToBytes(const Graph& graph, bool source_locations = false);

// Parses a graph that GraphToBytes wrote and takes its ops from the registry. The input is not
// trusted. Returns InvalidArgument for bytes that are not a graph, unknown attributes, wrong types,
// operands that follow their use, duplicate names and nesting deeper than 8. Returns Unimplemented
// for ops that the registry lacks or has only in an older version.
absl::StatusOr<Graph> GraphFromBytes(absl::string_view bytes, const OpRegistry& registry);

// The same two functions for a message inside another.
void WriteGraph(const Graph& graph, bool source_locations, proto::Graph& message);
absl::StatusOr<Graph> ReadGraph(const proto::Graph& message, const OpRegistry& registry);
// Writes dtype and sizes, and the elements if `elements` is true.
void WriteTensor(const Tensor& tensor, bool elements, proto::Tensor& message);
// Return InvalidArgument for an unknown dtype or sizes that are negative or too large; ReadTensor
// also for a wrong number of bytes and for bool elements other than 0 and 1.
absl::StatusOr<Tensor> ReadTensor(const proto::Tensor& message);
absl::StatusOr<TensorType> ReadTensorType(const proto::Tensor& message);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_MODEL_FILE_GRAPH_FILE_H_
