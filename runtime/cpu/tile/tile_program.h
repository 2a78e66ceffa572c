// Batch regions compiled for tiles. A tile holds as many samples as a vector has lanes, and runs
// from the region's first instruction to its last before the next tile starts. Intermediate values
// thus stay in the core's cache.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TILE_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TILE_PROGRAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/runtime/cpu/tile/region_compiler.h"
#include "gradweave/runtime/cpu/tile/tile_kernels.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// A tensor of one sample, viewed as [channels][rows][columns] of four-byte elements. Images keep
// their axes, a matrix is one channel, a vector one row, and further axes are joined into the
// channels. In a tile each element is a vector of lanes.
struct TileValue {
  int64_t channels = 1, rows = 1, columns = 1;
  int64_t elements() const { return channels * rows * columns; }

  enum class Place { kMemory, kOperand, kOutput } place = Place::kMemory;
  int index = -1;      // Index of the region's operand or output that is stored in tiles.
  int root = -1;       // The value whose memory this one aliases; itself if none.
  int64_t offset = 0;  // In the tile's memory, in floats.
  // Rows of each channel in memory. Fewer than `rows` if a group of instructions passes the value
  // on in pieces.
  int64_t stored_rows = 0;
  // Copies in memory, one for each thread that computes a part of the tile; 1 if they share the
  // value.
  int64_t copies = 1;
  int64_t stored_elements() const { return channels * stored_rows * columns; }
};
using TileValueId = int;

// State of a run that instructions see: a tile, or some rows of it.
struct TileRun {
  absl::Span<const TileValue> values;
  const TileKernels& kernels;
  int lanes;
  float* memory;                // Memory of this tile.
  const void* const* operands;  // Operands of the region.
  void* const* outputs;
  const float* prepared;                // Weights, packed in the order in which blocks read them.
  float *sums, *folded_sums;            // Sums over samples, by lane and by folded lane.
  int64_t tile, first_sample, samples;  // samples < lanes only in the last tile.
  int64_t unit, end_unit, units;        // The rows to compute, as fractions of all rows.
  // The part of the units that this thread computes, and its first unit. One thread computes all
  // units unless there is only one tile.
  int64_t part = 0, first_unit = 0;

  // Rows [begin, end) of a value. Row r of channel c starts at data + c*channel_step + r*row_step,
  // in floats.
  struct Rows {
    float* data;
    int64_t channel_step, row_step;
    int64_t begin, end;
    int64_t first;  // First row of the part. A thread computes the rows of its part in order.
    float* at(int64_t channel, int64_t row) const { return data + channel * channel_step + row * row_step; }
  };
  Rows rows(TileValueId id) const;
  Rows all_rows(TileValueId id) const;
  float* whole(TileValueId id) const;
};

// One instruction of a tile program.
struct TileInstruction {
  std::string name;
  NodeId node = -1;
  absl::InlinedVector<TileValueId, 3> reads, writes;
  // Values that the instruction can process by rows: to compute rows [unit, end_unit) of the result
  // it touches only rows [unit, end_unit) of these. Empty if the instruction cannot be split into
  // rows.
  absl::InlinedVector<TileValueId, 3> by_rows = {};
  // Otherwise the number of independent shares of the work: the instruction computes the shares
  // [unit, end_unit).
  int64_t shares = 1;
  // Values among `writes` that hold nothing between two calls.
  absl::InlinedVector<TileValueId, 2> scratch = {};
  bool folds = false;  // True if it adds to the folded sums.
  // {operand, output} pairs: the output may overwrite the operand.
  absl::InlinedVector<std::pair<TileValueId, TileValueId>, 2> overwrites = {};
  absl::InlinedVector<TileValueId, 2> summed = {};  // Operands whose absent samples must be zero.
  std::function<void(const TileRun&)> run;
  std::function<void(const TileRun&)> begin = nullptr;  // Runs once for a tile, before the first rows.
  double flops = 0;                                     // For the whole batch.
};

// A value that spreads dy: all elements of each of its adjacent windows of height x width are
// factor times one element of dy.
struct Spread {
  TileValueId dy;
  int64_t height, width;
  float factor;
};

// Collects the values and instructions of a region while its ops are lowered.
class TileBuilder {
 public:
  explicit TileBuilder(const RegionRequest& request);

  const TileKernels& kernels() const { return kernels_; }
  int lanes() const { return kernels_.lanes; }
  int64_t batch() const { return region_.batch; }
  // Returns true if convolutions may use the Toom-Cook algorithm.
  bool toom_cook() const { return toom_cook_; }
  const Graph& graph() const { return graph_; }
  const TileValue& value(TileValueId id) const { return values_[id]; }
  const std::vector<TileValue>& values() const { return values_; }

  // Returns the value of a port that is read sample by sample. If it comes from outside the region,
  // adds the instruction that loads it into the tile.
  TileValueId Read(Port port);
  // Returns the index of the region's operand for a port that all samples read as a whole or, if
  // `batched`, that each sample reads in place.
  int Operand(Port port, bool batched = false) const;
  // Adds a value with the shape of one sample, or with the given sizes.
  TileValueId NewValue(const Shape& shape_with_batch);
  TileValueId NewValue(int64_t channels, int64_t rows, int64_t columns);
  // Adds another view of the same elements.
  TileValueId Alias(TileValueId of, const Shape& shape_with_batch);
  // Returns x with padding: `top` rows and `left` columns of zeros before each channel, and zeros
  // behind up to `rows` and `columns`. Calls with equal arguments return the same value.
  TileValueId Padded(TileValueId x, int64_t top, int64_t left, int64_t rows, int64_t columns, NodeId node);
  void Define(Port port, TileValueId value) { of_port_[port] = value; }
  // Defers a port to its readers. `lower` defines it for readers that need its value.
  void Defer(Port port, Spread spread, std::function<void()> lower) { deferred_[port] = {spread, std::move(lower)}; }
  // Returns the spread of a deferred port, or null if the port is not deferred.
  const Spread* DeferredSpread(Port port) const {
    auto found = deferred_.find(port);
    return found == deferred_.end() ? nullptr : &found->second.spread;
  }
  // Returns the value of a port, or -1 if the region has not computed it or has deferred it.
  TileValueId Defined(Port port) const;

  // Appends an instruction.
  void Add(TileInstruction instruction) { instructions_.push_back(std::move(instruction)); }
  // Attributes the node's floating-point operations to its last instruction, if the latest
  // instruction belongs to the node.
  void SetFlops(NodeId node, double flops) {
    if (!instructions_.empty() && instructions_.back().node == node) instructions_.back().flops = flops;
  }
  // Reserves memory for `floats` that preparations fill before the tiles run, and returns its
  // offset.
  int64_t AddPrepared(int64_t floats);
  // Calls prepare(task, operands of the region, prepared memory) before the tiles for each task in
  // [0, tasks), on any thread. The calls are skipped if `operand`, the only one that they read, is
  // unchanged since the last run. Preparations of equal layouts write the same bytes for the same
  // operand to the same places.
  using Prepare = std::function<void(int64_t task, const void* const* operands, float* prepared)>;
  void AddPreparation(int operand, int64_t tasks, std::string layout, Prepare prepare) {
    preparations_.push_back({operand, tasks, std::move(layout), std::move(prepare)});
  }
  // A check that each run performs first.
  using Check = std::function<absl::Status(const void* const* operands)>;
  void AddCheck(Check check) { checks_.push_back(std::move(check)); }
  // Copies a port of the region to the region's output of that index, in tiles or sample by sample.
  void StoreOutput(Port port, int output, bool tiled);
  // Reserves `elements` lane sums for a summed output and returns their offset. When all tiles are
  // done, finish(sums over all samples, output) computes the output; if it is null, the sums are
  // the output.
  using Finish = std::function<void(const float* sums, float* output)>;
  int64_t AddSums(Port port, int64_t elements, Finish finish = nullptr);
  // The same for folded sums.
  int64_t AddFoldedSums(Port port, int64_t elements, Finish finish = nullptr);

 private:
  friend class TileProgram;
  struct Deferred {
    Spread spread;
    std::function<void()> lower;
  };
  struct Preparation {
    int operand;
    int64_t tasks;
    std::string layout;
    Prepare run;
  };
  struct Sums {
    Port port;
    bool folded;
    int64_t offset, elements;  // In elements, among the folded sums or the others.
    Finish finish;
  };

  const Graph& graph_;
  const BatchRegion& region_;
  const std::vector<bool>& tiled_operands_;
  const TileKernels& kernels_;
  const bool toom_cook_;
  std::vector<TileValue> values_;
  absl::flat_hash_map<Port, TileValueId> of_port_;
  absl::flat_hash_map<Port, Deferred> deferred_;
  absl::flat_hash_map<std::vector<int64_t>, TileValueId> padded_;
  std::vector<TileInstruction> instructions_;
  std::vector<Preparation> preparations_;
  std::vector<Check> checks_;
  std::vector<Sums> sums_;
  int64_t prepared_floats_ = 0;
  int64_t sums_elements_ = 0, folded_elements_ = 0;
};

// Returns true if the node can be lowered to tiles.
bool TilesSupport(const BatchNode& node);
// Adds the node's instructions.
void LowerToTiles(TileBuilder& builder, const BatchNode& node);

// Returns the compiler that runs batch regions in tiles.
RegionCompiler TileCompiler();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_PROGRAM_H_
