// A batch region compiled for tiles: the whole region is computed for as many samples as a vector has lanes, from its
// first instruction to its last, before the next samples are touched, so that what lies between stays in the core's
// cache.
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
#include "gradweave/runtime/cpu/tile/tile_kernels.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// The tensor of one sample, seen as [channels][rows][columns] of elements of four bytes: images as they are, matrices
// as one channel, vectors as one row, more axes joined into the channels. In a tile each element is a vector of lanes.
struct TileValue {
  int64_t channels = 1, rows = 1, columns = 1;
  int64_t elements() const { return channels * rows * columns; }

  enum class Place { kMemory, kOperand, kOutput } place = Place::kMemory;
  int index = -1;           // Of the region's operand or output that is kept in tiles.
  int root = -1;            // The value whose memory this one shares, itself if none.
  int64_t offset = 0;       // In the tile's memory, in floats.
  int64_t stored_rows = 0;  // Of each channel; fewer than rows where a group of instructions passes them on in pieces.
};
using TileValueId = int;

// What instructions see when they run on a tile, or on some of its rows.
struct TileRun {
  absl::Span<const TileValue> values;
  const TileKernels& kernels;
  int lanes;
  float* memory;                // Of this tile.
  const void* const* operands;  // Of the region.
  void* const* outputs;
  const float* prepared;                // Weights in the order in which blocks read them.
  float *sums, *folded_sums;            // Sums over samples, lane by lane, and in folded lanes.
  int64_t tile, first_sample, samples;  // samples < lanes in the last tile alone.
  int64_t unit, end_unit, units;        // The rows to compute, as parts of all rows.

  // Rows [begin, end) of a value, and where row r of channel c is: data + c*channel_step + r*row_step, in floats.
  struct Rows {
    float* data;
    int64_t channel_step, row_step;
    int64_t begin, end;
    float* at(int64_t channel, int64_t row) const { return data + channel * channel_step + row * row_step; }
  };
  Rows rows(TileValueId id) const;
  float* whole(TileValueId id) const;
};

struct TileInstruction {
  std::string name;
  NodeId node = -1;
  absl::InlinedVector<TileValueId, 3> reads, writes;
  // Values of which rows [unit, end_unit) are all that is touched for rows [unit, end_unit) of the result; empty where
  // the instruction cannot be split into rows.
  absl::InlinedVector<TileValueId, 3> by_rows = {};
  // Operands that an output may overwrite.
  absl::InlinedVector<std::pair<TileValueId, TileValueId>, 2> overwrites = {};
  absl::InlinedVector<TileValueId, 2> summed = {};  // Operands whose absent samples have to be zero.
  std::function<void(const TileRun&)> run;
  std::function<void(const TileRun&)> begin = nullptr;  // Once for a tile, before the first rows.
  double flops = 0;                                     // Of the whole batch.
};

// A value whose windows of height x width elements, side by side, are all factor times an element of dy.
struct Spread {
  TileValueId dy;
  int64_t height, width;
  float factor;
};

// What lowering an op adds to.
class TileBuilder {
 public:
  explicit TileBuilder(const RegionRequest& request);

  const TileKernels& kernels() const { return kernels_; }
  int lanes() const { return kernels_.lanes; }
  int64_t batch() const { return region_.batch; }
  bool toom_cook() const { return toom_cook_; }
  const Graph& graph() const { return graph_; }
  const TileValue& value(TileValueId id) const { return values_[id]; }
  const std::vector<TileValue>& values() const { return values_; }

  // The value of a port that is read by sample, brought into the tile if it comes from outside.
  TileValueId Read(Port port);
  // The region's operand that holds a port which all samples read as a whole, or, with batched, by sample as it lies.
  int Operand(Port port, bool batched = false) const;
  // A new value of the shape of one sample, or of given sizes.
  TileValueId NewValue(const Shape& shape_with_batch);
  TileValueId NewValue(int64_t channels, int64_t rows, int64_t columns);
  // Another view of the same elements.
  TileValueId Alias(TileValueId of, const Shape& shape_with_batch);
  // A value with `top` and `left` elements around each channel of x, and sizes rows and columns with them; zeros where
  // x has nothing. One for all that ask for the same.
  TileValueId Padded(TileValueId x, int64_t top, int64_t left, int64_t rows, int64_t columns, NodeId node);
  void Define(Port port, TileValueId value) { of_port_[port] = value; }
  // Leaves a port to whoever reads it: `lower` defines it for those who need its value.
  void Defer(Port port, Spread spread, std::function<void()> lower) { deferred_[port] = {spread, std::move(lower)}; }
  // What the port spreads, if it was left to the reader; else null.
  const Spread* DeferredSpread(Port port) const {
    auto found = deferred_.find(port);
    return found == deferred_.end() ? nullptr : &found->second.spread;
  }
  // What the port is; -1 where the region has not computed it, or has deferred it.
  TileValueId Defined(Port port) const;

  void Add(TileInstruction instruction) { instructions_.push_back(std::move(instruction)); }
  // Gives the floating-point operations of a node to its last instruction, if the latest is one of it.
  void SetFlops(NodeId node, double flops) {
    if (!instructions_.empty() && instructions_.back().node == node) instructions_.back().flops = flops;
  }
  // Memory for `floats` that preparations fill before the tiles run; its place.
  int64_t AddPrepared(int64_t floats);
  // Calls prepare(task, operands of the region, prepared memory) for tasks [0, tasks), on any thread; unless that
  // operand, which is all that it reads, is as it was when it was last called.
  using Prepare = std::function<void(int64_t task, const void* const* operands, float* prepared)>;
  void AddPreparation(int operand, int64_t tasks, Prepare prepare) {
    preparations_.push_back({operand, tasks, std::move(prepare)});
  }
  // Something that a run checks first.
  using Check = std::function<absl::Status(const void* const* operands)>;
  void AddCheck(Check check) { checks_.push_back(std::move(check)); }
  // Puts a port of the region where the region's output of that index is, in tiles or sample by sample.
  void StoreOutput(Port port, int output, bool tiled);
  // The place of `elements` lane sums of which a summed output is made: by finish(sums over all samples, output) once
  // all tiles are done, or if that is null as they are.
  using Finish = std::function<void(const float* sums, float* output)>;
  int64_t AddSums(Port port, int64_t elements, Finish finish = nullptr);
  // The same among folded sums.
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
    Prepare run;
  };
  struct Sums {
    Port port;
    bool folded;
    int64_t offset, elements;  // In elements, of those that are folded or of the others.
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

// Whether tiles have instructions for the node.
bool TilesSupport(const BatchNode& node);
// Adds them.
void LowerToTiles(TileBuilder& builder, const BatchNode& node);

// How the CPU runs regions: in tiles.
RegionCompiler TileCompiler();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_PROGRAM_H_
