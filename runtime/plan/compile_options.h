// How a graph is compiled into a plan, whatever the devices.
#ifndef GRADWEAVE_RUNTIME_PLAN_COMPILE_OPTIONS_H_
#define GRADWEAVE_RUNTIME_PLAN_COMPILE_OPTIONS_H_

#include <cstdint>

namespace gradweave {

// Whether the CPU runs chains of ops on a few samples at a time, from the first op to the last, before it touches the
// next samples: where that is expected to be faster, nowhere, or wherever it is possible (for tests).
enum class BatchTiles { kAuto, kNever, kAlways };

// Whether elementwise ops and reductions over the same rows run together, some rows at a time: where that is expected
// to be faster, nowhere, or wherever it is possible (for tests).
enum class RowFusion { kAuto, kNever, kAlways };

struct CompileOptions {
  int threads = 1;  // Of the pool that runs will have.
  BatchTiles batch_tiles = BatchTiles::kAuto;
  RowFusion row_fusion = RowFusion::kAuto;
  // Whether nodes that come late have to stay late, as where values are computed a second time to save memory. Then no
  // step takes nodes along before their turn.
  bool in_order = false;
  bool toom_cook = true;  // Whether convolutions may take Toom and Cook's algorithm.
  // Whether plans keep weights in the order in which loops read them while the variables are unchanged, for as much
  // memory again.
  bool keep_weights = true;
  // Upper limit in bytes for an arena that is made larger for the sake of speed; 0 means no limit.
  int64_t arena_limit = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_COMPILE_OPTIONS_H_
