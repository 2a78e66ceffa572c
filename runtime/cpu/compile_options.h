// How graphs are compiled for the CPU.
#ifndef GRADWEAVE_RUNTIME_CPU_COMPILE_OPTIONS_H_
#define GRADWEAVE_RUNTIME_CPU_COMPILE_OPTIONS_H_

namespace gradweave {

// Whether chains of ops run on a few samples at a time, from the first op to the last, before the next samples are
// touched: where that is expected to be faster, nowhere, or wherever it is possible (for tests).
enum class BatchTiles { kAuto, kNever, kAlways };

// Whether elementwise ops and reductions over the same rows run together, some rows at a time: where that is expected
// to be faster, nowhere, or wherever it is possible (for tests).
enum class RowFusion { kAuto, kNever, kAlways };

struct CompileOptions {
  int threads = 1;  // Of the pool that runs will have.
  BatchTiles batch_tiles = BatchTiles::kAuto;
  RowFusion row_fusion = RowFusion::kAuto;
  // Whether what nodes come late for has to stay so, as where values are computed a second time: nothing that waits for
  // no other is taken along early.
  bool in_order = false;
  bool toom_cook = true;  // Whether convolutions may take Toom and Cook's algorithm.
  // Whether plans keep weights in the order in which loops read them while the variables are unchanged, for as much
  // memory again.
  bool keep_weights = true;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_COMPILE_OPTIONS_H_
