// Parts of a graph in which samples don't mix: what can be computed for a few samples at a time, from the first node to
// the last, before the next samples are touched.
#ifndef GRADWEAVE_GRAPH_PARTITION_BATCH_REGIONS_H_
#define GRADWEAVE_GRAPH_PARTITION_BATCH_REGIONS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Nodes whose outputs for a sample depend on the operands of that sample, and sums over samples of such values. The
// batch is axis 0 of everything that has one.
struct BatchRegion {
  struct Operand {
    Port port;
    bool batched;  // Whether sample i of the region reads element i of axis 0; else all samples read all of it.
    friend bool operator==(const Operand& a, const Operand& b) { return a.port == b.port && a.batched == b.batched; }
  };
  struct Output {
    Port port;
    bool summed;  // Whether it is a sum over samples; else element i of axis 0 belongs to sample i.
  };

  // A node, which operands it reads by sample, and whether its outputs are sums over samples.
  struct Member {
    NodeId node;
    absl::InlinedVector<bool, 4> batched;
    bool summed;
  };

  int64_t batch = 0;              // Samples.
  std::vector<Member> nodes;      // In the order of the graph.
  std::vector<Operand> operands;  // Values that nodes outside make.
  std::vector<Output> outputs;    // Values that nodes outside read, or that are outputs of the graph.
};

// A node of a region, as it looks from inside.
struct BatchNode {
  const Graph& graph;
  const Node& node;
  absl::Span<const bool> batched;  // By operand.
  bool summed;                     // Whether the outputs are sums over samples.
};

// The regions of a graph with known shapes, and an order in which its nodes can run when each region runs as one.
struct BatchPartition {
  std::vector<BatchRegion> regions;
  std::vector<int> order;  // A node, or ~region.
};

// Maximal regions of the nodes that `supported` takes, by their ops' declarations (OpDefinition::batch). The batch is
// the commonest size of the inputs' axis 0; with no such inputs, or fewer samples than `least_batch`, there are none.
// Time and memory are linear in the graph's size.
BatchPartition FindBatchRegions(const Graph& graph, int64_t least_batch,
                                absl::FunctionRef<bool(const BatchNode&)> supported);

// The same with only the regions that `keep` takes, and those that share values with them sample by sample; the nodes
// of the others are left to run one by one.
BatchPartition FindBatchRegions(const Graph& graph, int64_t least_batch,
                                absl::FunctionRef<bool(const BatchNode&)> supported,
                                absl::FunctionRef<bool(const BatchRegion&)> keep);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_BATCH_REGIONS_H_
