// Row regions: parts of a graph in which rows do not mix. A device can run such a part for a few
// rows at a time, from the first node to the last, while the rows are in a near cache.
#ifndef GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_
#define GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/graph/partition/order_item.h"

namespace gradweave {

// The elements of a value that belong to row r and column c of a region. A periodic operand has one
// entry for `repeat` rows after each other, and begins again after `period` entries: row r reads
// entry r / repeat % period. With rows (n, channel), one number per channel has repeat 1 and a
// period of as many rows as there are channels.
enum class RowExtent {
  kFull,            // [rows, columns]: element (r, c).
  kPerRow,          // [rows]: element r.
  kPerColumn,       // [columns]: element c.
  kScalar,          // A single element, for all rows and columns.
  kFullPeriodic,    // [period, columns]: element (r / repeat % period, c).
  kPerRowPeriodic,  // [period]: element r / repeat % period.
  kWhole,           // All elements, for each row: an operand of a producer.
};

// The division of values into rows and columns.
enum class RowSplit {
  kLastAxis,  // The last axis is the columns. There are no periodic operands.
  kAnyAxis,   // The nodes decide: an operand [c, 1, 1] divides [n, c, h, w] into n*c rows.
};

// A set of nodes over the same rows (leading axes, merged) and columns (the other axes, merged).
// Its values have one floating dtype or are bool. The nodes are elementwise ops, reductions of
// rows, softmax and log-softmax along the last axis, and sums over the rows that no node inside
// reads. The first node may be a producer, such as a matrix product: it computes its result in
// blocks of rows, from whole operands. The other nodes read each block at once, and nothing else
// reads it.
struct RowRegion {
  // A value as a node of the region reads it. The port belongs to the node that computes the
  // elements: reshapes and other aliases are skipped.
  struct Operand {
    Port port;
    RowExtent extent;
    int64_t repeat = 1, period = 1;  // Row r reads entry r / repeat % period.
    friend bool operator==(const Operand& a, const Operand& b) {
      return a.port == b.port && a.extent == b.extent && a.repeat == b.repeat && a.period == b.period;
    }
    template <typename H>
    friend H AbslHashValue(H h, const Operand& o) {
      return H::combine(std::move(h), o.port, static_cast<int>(o.extent), o.repeat, o.period);
    }
  };
  // A node, its operands and its result. The result kPerColumn is a sum over the rows. The result
  // kPerRowPeriodic is a sum over the columns and over the rows that are as far apart as the result
  // has elements, such as the sum of each channel.
  struct Member {
    NodeId node;
    absl::InlinedVector<Operand, 2> operands;
    RowExtent result;
  };

  DType dtype = kFloat32;
  int64_t rows = 0, columns = 0;
  bool has_producer = false;
  std::vector<Member> nodes;      // In an execution order.
  std::vector<Operand> operands;  // Values of nodes outside, once for each way in which they are read.
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
                            absl::FunctionRef<bool(const RowRegion&)> keep, RowSplit split = RowSplit::kLastAxis);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_ROW_REGIONS_H_
