// Options for compiling a graph into a plan, for any device.
#ifndef GRADWEAVE_RUNTIME_PLAN_COMPILE_OPTIONS_H_
#define GRADWEAVE_RUNTIME_PLAN_COMPILE_OPTIONS_H_

#include <cstdint>

namespace gradweave {

// Tiles: the CPU runs a chain of ops on a few samples, from the first op to the last, before it
// takes the next samples. kAuto uses them if they are expected to be faster, kAlways wherever
// possible (for tests).
enum class BatchTiles { kAuto, kNever, kAlways };

// Row regions: elementwise ops and reductions over the same rows run together, some rows at a time.
// kAuto uses them if they are expected to be faster, kAlways wherever possible (for tests).
enum class RowFusion { kAuto, kNever, kAlways };

struct CompileOptions {
  int threads = 1;  // Size of the thread pool of the runs.
  BatchTiles batch_tiles = BatchTiles::kAuto;
  RowFusion row_fusion = RowFusion::kAuto;
  // True if nodes must keep their order, because the plan recomputes values late to save memory.
  // Then no step runs nodes before their turn.
  bool in_order = false;
  bool toom_cook = true;  // Allows convolutions with fewer multiplications (Toom-Cook, Winograd).
  // Allows plans to keep packed weights while the variables do not change. They need as much memory
  // as the weights.
  bool keep_weights = true;
  // Upper limit in bytes for an arena that is enlarged for speed; 0 means no limit.
  int64_t arena_limit = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_COMPILE_OPTIONS_H_
