// Serialization of graphs.
#ifndef GRADWEAVE_RUNTIME_MODEL_FILE_GRAPH_FILE_H_
#define GRADWEAVE_RUNTIME_MODEL_FILE_GRAPH_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

namespace proto {
class Graph;
class Tensor;
}  // namespace proto

// The error for a model that would take more.
absl::Status BeyondMemoryLimit(int64_t limit);

// Returns the graph as bytes (message Graph of proto/model.proto). `source_locations` adds the
// source line of each node. Returns InvalidArgument for a graph that needs 2 GiB or more, its
// constants included.
absl::StatusOr<std::string> GraphToBytes(const Graph& graph, bool source_locations = false);

// Parses a graph that GraphToBytes wrote and takes its ops from the registry. The input is not
// trusted. Returns InvalidArgument for bytes that are not a graph, unknown attributes, wrong types,
// operands that follow their use, duplicate names and nesting deeper than 8. Returns Unimplemented
// for ops that the registry lacks or has only in an older version, and ResourceExhausted if the
// message and the graph would take more than `memory_limit` bytes, as estimated before they are
// built.
absl::StatusOr<Graph> GraphFromBytes(absl::string_view bytes, const OpRegistry& registry,
                                     int64_t memory_limit = int64_t{8} << 30);

// Tensors whose elements go to a weights file.
struct SavedWeights {
  static constexpr int64_t kAlignment = 64;
  std::vector<Tensor> tensors = {};  // One behind the other, each at a multiple of kAlignment.
  uint64_t bytes = 0;                // Where the next one begins.
};

// The same two functions for a message inside another. Without weights, the message has the
// elements of all tensors.
void WriteGraph(const Graph& graph, bool source_locations, SavedWeights* weights, proto::Graph& message);
// `weights` are the bytes of the weights file, of which tensors become views, or null if there is
// none. Shapes and the constants of the weights file may take `room` bytes; the error tells the
// whole limit.
absl::StatusOr<Graph> ReadGraph(const proto::Graph& message, const OpRegistry& registry, const Tensor* weights,
                                int64_t limit, int64_t room);
void WriteTensor(const Tensor& tensor, SavedWeights* weights, proto::Tensor& message);
// Returns InvalidArgument for an unknown dtype, sizes that are negative or too large, a wrong
// number of bytes, a wrong position in the weights, and bool elements other than 0 and 1.
absl::StatusOr<Tensor> ReadTensor(const proto::Tensor& message, const Tensor* weights);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_MODEL_FILE_GRAPH_FILE_H_
