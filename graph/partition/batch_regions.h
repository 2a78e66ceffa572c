// Batch regions: parts of a graph in which samples do not mix. A device can run such a part for a
// few samples at a time, from the first node to the last, before it touches the next samples.
#ifndef GRADWEAVE_GRAPH_PARTITION_BATCH_REGIONS_H_
#define GRADWEAVE_GRAPH_PARTITION_BATCH_REGIONS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/order_item.h"

namespace gradweave {

// A set of nodes whose outputs for a sample depend only on that sample's operands, or are sums over
// samples of such values. Every value with a batch has it on axis 0.
struct BatchRegion {
  // A value that the region reads.
  struct Operand {
    Port port;
    // True if sample i reads element i of axis 0. False if every sample reads the whole value.
    bool batched;
    friend bool operator==(const Operand& a, const Operand& b) { return a.port == b.port && a.batched == b.batched; }
  };
  // A value of the region that is used outside.
  struct Output {
    Port port;
    // True if the output is a sum over samples. False if element i of axis 0 belongs to sample i.
    bool summed;
  };

  // A node, the operands that it reads by sample, and whether its outputs are sums over samples.
  struct Member {
    NodeId node;
    absl::InlinedVector<bool, 4> batched;
    bool summed;
  };

  int64_t batch = 0;              // Number of samples.
  std::vector<Member> nodes;      // In the order of the graph.
  std::vector<Operand> operands;  // Values of nodes outside.
  std::vector<Output> outputs;    // Values that nodes outside read, and outputs of the graph.
};

// A node as part of a region: the argument of `supported`.
struct BatchNode {
  const Graph& graph;
  const Node& node;
  absl::Span<const bool> batched;  // Indexed by operand.
  bool summed;                     // True if the outputs are sums over samples.
};

// The regions of a graph with known shapes, and an execution order in which each region runs as
// one.
struct BatchPartition {
  std::vector<BatchRegion> regions;
  std::vector<OrderItem> order;  // Nodes and batch regions.
};

// Returns maximal regions of the nodes that `supported` accepts, based on OpDefinition::batch. The
// batch size is the size of axis 0 with the most bytes among the inputs. There are no regions if it
// is below `least_batch` or if there are no such inputs. Time and memory are linear in the size of
// the graph.
BatchPartition FindBatchRegions(const Graph& graph, int64_t least_batch,
                                absl::FunctionRef<bool(const BatchNode&)> supported);

// The same, but keeps only the regions that `keep` accepts and regions that exchange values with
// them sample by sample. The nodes of the other regions run one by one.
BatchPartition FindBatchRegions(const Graph& graph, int64_t least_batch,
                                absl::FunctionRef<bool(const BatchNode&)> supported,
                                absl::FunctionRef<bool(const BatchRegion&)> keep);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_BATCH_REGIONS_H_
