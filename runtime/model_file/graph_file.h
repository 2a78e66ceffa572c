// The file form of graphs.
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

// The graph as bytes (message Graph of proto/model.proto), with the source lines of its nodes where asked for.
std::string GraphToBytes(const Graph& graph, bool source_locations = false);

// The graph that GraphToBytes wrote, its ops taken from the registry. Believes nothing: InvalidArgument for bytes that
// are no graph, unknown attributes, wrong types, operands that do not come before their use, names that are taken,
// nesting deeper than 8; Unimplemented for ops that the registry lacks or has only in an older version.
absl::StatusOr<Graph> GraphFromBytes(absl::string_view bytes, const OpRegistry& registry);

// The same for messages inside others. Errors of tensors are InvalidArgument.
void WriteGraph(const Graph& graph, bool source_locations, proto::Graph& message);
absl::StatusOr<Graph> ReadGraph(const proto::Graph& message, const OpRegistry& registry);
// Dtype and sizes, and the elements where asked for.
void WriteTensor(const Tensor& tensor, bool elements, proto::Tensor& message);
absl::StatusOr<Tensor> ReadTensor(const proto::Tensor& message);
absl::StatusOr<TensorType> ReadTensorType(const proto::Tensor& message);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_MODEL_FILE_GRAPH_FILE_H_
