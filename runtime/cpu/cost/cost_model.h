// The cost model of the CPU backend. Every choice between kernels compares estimates of this model.
// Its constants are data in the source, one row for each class of machines, so plans and results
// depend neither on measurements at run time nor on the number of threads. The target
// //benchmarks:calibrate measures the row of the machine that it runs on and lists the choices that
// the model gets wrong there.
#ifndef GRADWEAVE_RUNTIME_CPU_COST_COST_MODEL_H_
#define GRADWEAVE_RUNTIME_CPU_COST_COST_MODEL_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Loops that differ in speed.
enum class Loop : uint8_t {
  kGemm,          // OpenBLAS, matrix times matrix, both copied to panels first.
  kSmallGemm,     // OpenBLAS, matrices small enough to be multiplied in place.
  kGemv,          // OpenBLAS, vector times matrix.
  kProduct,       // Product of product/product.h.
  kImplicit,      // Implicit products of conv/.
  kRowSums,       // A product of one row, as a sum of rows of the matrix.
  kColumns,       // Im2col and col2im.
  kDirectSums,    // A convolution with neighbouring columns in the lanes.
  kChannelSums,   // A convolution with output channels in the lanes.
  kWinograd,      // Minimal filtering in two dimensions, of conv/winograd.h.
  kElements,      // Elementwise ops, reductions and softmax on tensors.
  kWindows,       // Pools on tensors.
  kWindowSums,    // Convolutions with few channels per group, neighbouring columns in the lanes.
  kTileSums,      // Weighted sums on tiles: convolutions and dense layers.
  kTileToomCook,  // Toom-Cook convolutions on tiles.
  kTileFilters,   // Gradients of filters on tiles.
  kTileElements,  // Elementwise ops, pools, sums and softmax on tiles.
  kTileBoundary,  // Conversion of tensors to tiles and back.
};
inline constexpr int kNumLoops = static_cast<int>(Loop::kTileBoundary) + 1;

// The amounts of work that a loop does, or the cost of a unit of each in nanoseconds of one thread.
struct Work {
  double calls = 0;  // Starts of an inner loop.
  // Vector multiply-adds, and the slots that stay empty because a latency or a load is the limit.
  double products = 0;
  double moved = 0;  // Floats that are read or written in the first two levels of cache.
  double far = 0;    // Floats that are read or written beyond them.
};

// The work of one way to compute something, by loop.
class Estimate {
 public:
  Estimate& Add(Loop loop, const Work& work, double times = 1);
  Estimate& Add(const Estimate& other, double times = 1);
  // Returns the expected time of one thread on this machine.
  double nanoseconds() const;
  const Work& operator[](Loop loop) const { return work_[static_cast<int>(loop)]; }

 private:
  std::array<Work, kNumLoops> work_;
};

// One of several ways to run a node.
struct KernelChoice {
  std::string name;
  Estimate estimate;
  std::function<Kernel()> make;
};
// Returns the first choice, or a later one that is clearly cheaper. Requires at least one.
const KernelChoice& Cheapest(const std::vector<KernelChoice>& choices);

// A class of machines, which have vectors of one length.
struct MachineClass {
  const char* name;
  int64_t targets;  // A set of Highway's targets.
  int lanes;        // Float32 lanes of a vector.
  std::array<Work, kNumLoops> nanoseconds;

  // Bytes of a core's second-level cache that one operand of a loop can occupy.
  double second_level_bytes;
  // Independent multiply-adds that hide the latency of one.
  int products_in_flight;
  // The Toom-Cook form of a filter's gradient must take less than this share of the direct form's
  // instructions: it reads its operands at the points from the second-level cache.
  double toom_cook_filter_share;
  // Sums of a dense layer on tiles with outputs in the lanes must cost less than this share of sums
  // with samples in the lanes: the results are transposed at the end.
  double transposed_block_share;
  // Row regions with fewer columns do not pay: a row costs a call of each loop.
  int64_t least_row_columns;
  // Batches of fewer samples than this share of a tile's lanes run node by node: absent samples
  // cost as much as others, while single nodes run on all threads.
  double least_tile_fill;
  // Up to this batch, tiles have half as many lanes as a vector: several threads then share a batch
  // that would fill only one tile.
  int64_t most_batch_of_short_tiles;
};
// Returns the class of this machine. Highway's targets must not be disabled after the first call.
const MachineClass& ThisMachine();
// Returns the class of machines whose vectors have that many lanes, or the last row.
const MachineClass& MachineOfLanes(int lanes);

// Returns the work of moving `floats`, which are part of an operand of `bytes`: beyond the
// second-level cache if the operand does not fit into it.
Work Moved(double floats, double bytes);

// Returns the cost of y = a*b by OpenBLAS, with a [rows, terms] and b [terms, columns].
Estimate GemmEstimate(int64_t rows, int64_t columns, int64_t terms);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_COST_COST_MODEL_H_
