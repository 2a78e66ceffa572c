// Row regions: parts of a graph in which rows do not mix. A device can run such a part for a few
// rows at a time, from the first node to the last, while the rows are in a near cache.
#ifndef GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_
#define GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/graph/partition/order_item.h"

namespace gradweave {

// The elements of a value that belong to row r and column c of a region.
enum class RowExtent {
  kFull,       // [rows, columns]: element (r, c).
  kPerRow,     // [rows]: element r.
  kPerColumn,  // [columns]: element c.
  kScalar,     // A single element, for all rows and columns.
  kWhole,      // All elements, for each row: an operand of a producer.
};

// A set of nodes over the same rows (all axes but the last, merged) and columns (the last axis).
// Its values have one floating dtype or are bool. The nodes are elementwise ops, reductions,
// softmax and log-softmax along the last axis, and sums over the rows that no node inside reads.
// The first node may be a producer: a node that can compute its result by blocks of rows, though
// from whole operands, such as a matrix product. The other nodes read each block at once, and
// nothing else reads it.
struct RowRegion {
  // A value as a node of the region reads it. The port belongs to the node that computes the
  // elements: reshapes and other aliases are skipped.
  struct Operand {
    Port port;
    RowExtent extent;
    friend bool operator==(const Operand& a, const Operand& b) { return a.port == b.port && a.extent == b.extent; }
  };
  // A node, its operands and its result. The result kPerColumn is a sum over the rows.
  struct Member {
    NodeId node;
    absl::InlinedVector<Operand, 2> operands;
    RowExtent result;
  };

  DType dtype = kFloat32;
  int64_t rows = 0, columns = 0;
  bool has_producer = false;
  std::vector<Member> nodes;      // In an execution order.
  std::vector<Operand> operands;  // Values of nodes outside, once for each extent that is read.
  std::vector<Operand> outputs;   // Values that nodes outside read, and outputs of the graph.
};

// The row regions of a graph with known shapes, and an execution order in which each region of
// either kind runs as one. Aliases are missing from the order because they compute nothing.
struct RowPartition {
  std::vector<RowRegion> regions;
  std::vector<OrderItem> order;  // Nodes, batch regions and row regions.
};

// The largest number of nodes in a region. With more nodes, the values of a few rows no longer fit
// in a cache, so larger regions are cut into consecutive parts.
inline constexpr int kMostNodesOfRowRegion = 32;

// Returns maximal connected regions of at most kMostNodesOfRowRegion nodes that `supported` accepts
// and that belong to no batch region. A region has a producer if `begins` accepts one. Regions with
// a single node, and those that `keep` rejects, are dropped. Time is linear in the size of the
// graph, apart from a priority queue that keeps nodes near their original order.
RowPartition FindRowRegions(const Graph& graph, const BatchPartition& batch,
                            absl::FunctionRef<bool(const Graph&, const Node&)> supported,
                            absl::FunctionRef<bool(const Node& producer, const RowRegion&)> begins,
                            absl::FunctionRef<bool(const RowRegion&)> keep);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_
