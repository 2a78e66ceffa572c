// Parts of a graph in which rows don't mix: what can be computed for a few rows at a time, from the first node to the
// last, while they are in a cache near the processor.
#ifndef GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_
#define GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"

namespace gradweave {

// Which elements of a value belong to row r and column c of a region.
enum class RowExtent {
  kFull,       // [rows, columns]: element (r, c).
  kPerRow,     // [rows]: element r.
  kPerColumn,  // [columns]: element c.
  kScalar,     // One element for all.
  kWhole,      // The node reads all of it for each row: an operand of a producer.
};

// Nodes over one set of rows, all axes but the last taken together, and of columns, the last axis, with values of one
// floating dtype and truth values: elementwise ops, reductions along the last axis, softmax and its logarithm along it,
// and, with no reader inside, sums over the rows. The first may be a producer: a node that can make its result a block
// of rows at a time, though from whole operands, as products do. The others read the block at once, and nothing else
// does.
struct RowRegion {
  // A value as a node of the region reads it. Reshapes and other nodes that share their operand's memory are looked
  // through: the port is of the node that makes the elements.
  struct Operand {
    Port port;
    RowExtent extent;
    friend bool operator==(const Operand& a, const Operand& b) { return a.port == b.port && a.extent == b.extent; }
  };
  // A node, what it reads, and its result: kPerColumn is a sum over the rows.
  struct Member {
    NodeId node;
    absl::InlinedVector<Operand, 2> operands;
    RowExtent result;
  };

  DType dtype = kFloat32;
  int64_t rows = 0, columns = 0;
  bool has_producer = false;
  std::vector<Member> nodes;      // In an order in which they can run.
  std::vector<Operand> operands;  // What nodes outside make, once for each extent in which it is read.
  std::vector<Operand> outputs;   // What nodes outside read, or what is an output of the graph.
};

// The regions of a graph with known shapes, and an order in which its nodes can run when each region, of either kind,
// runs as one: a node, or ~i with i the number of a batch region or, from the number of batch regions on, of a row
// region. Nodes that share their operand's memory are not in the order: they do nothing.
struct RowPartition {
  std::vector<RowRegion> regions;
  std::vector<int> order;
};

// With more nodes, a region's values no longer fit in a cache for a few rows; it is cut into parts, one after the
// other.
inline constexpr int kMostNodesOfRowRegion = 32;

// Maximal connected regions of at most kMostNodesOfRowRegion of the nodes that `supported` takes and that no batch
// region has, with a producer where `begins` says that the region can begin with that node; only those of two or more
// nodes that `keep` takes. Time is linear in the graph's size, but for a queue by which nodes keep their order.
RowPartition FindRowRegions(const Graph& graph, const BatchPartition& batch,
                            absl::FunctionRef<bool(const Graph&, const Node&)> supported,
                            absl::FunctionRef<bool(const Node& producer, const RowRegion&)> begins,
                            absl::FunctionRef<bool(const RowRegion&)> keep);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_
