// How the CPU makes one kernel of a batch region.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_REGION_COMPILER_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_REGION_COMPILER_H_

#include <cstdint>
#include <vector>

#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// A batch region to make a kernel of. Between two regions, values may be kept in tiles.
struct RegionRequest {
  const Graph& graph;
  const BatchRegion& region;
  std::vector<bool> tiled_operands, tiled_outputs;  // Indexed by operand and output of the region.
  int threads = 1;
  bool toom_cook = true;  // Allows the Toom-Cook algorithm for convolutions.
};

// How batch regions run.
struct RegionCompiler {
  int64_t least_batch;                      // With fewer samples, nodes run one by one.
  bool (*supports)(const BatchNode& node);  // True if the node may be in a region.
  // Bytes of a value with a batch axis that is kept in tiles.
  int64_t (*tiled_bytes)(const TensorType& type);
  Kernel (*make)(const RegionRequest& request);
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_REGION_COMPILER_H_
