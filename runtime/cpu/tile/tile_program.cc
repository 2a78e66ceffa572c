#include "gradweave/runtime/cpu/tile/tile_program.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/cpu/tile/tile_cost.h"
#include "gradweave/runtime/plan/memory_plan.h"

namespace gradweave {
namespace {

// Pieces that a group of instructions passes on should stay in the first-level cache beside the
// other operands.
constexpr int64_t kPieceBytes = 20 << 10;
// Threads share the only tile of a small batch. These are the most parts of a group of
// instructions, and the least rows and operations of a part. A part takes many times as long as the
// wake-up of a thread. It has several rows because Toom-Cook transforms rows that two parts read
// for each of them.
constexpr int64_t kMostParts = 4, kLeastRowsOfPart = 4;
constexpr double kPartFlops = 2'000'000;
// Number of instructions to search for one that can continue with the current rows.
constexpr size_t kLookAhead = 48;

}  // namespace

TileRun::Rows TileRun::rows(TileValueId id) const {
  const TileValue& value = values[id];
  const int64_t per_unit = value.rows / units;
  Rows result = all_rows(id);
  result.begin = unit * per_unit;
  result.end = end_unit * per_unit;
  result.first = first_unit * per_unit;
  // A piece begins with the first of the current rows.
  if (value.stored_rows < value.rows) result.data -= result.begin * result.row_step;
  return result;
}

TileRun::Rows TileRun::all_rows(TileValueId id) const {
  const TileValue& value = values[id];
  Rows result;
  result.begin = result.first = 0;
  result.end = value.rows;
  result.row_step = value.columns * lanes;
  result.channel_step = value.stored_rows * result.row_step;
  result.data = whole(id);
  return result;
}

float* TileRun::whole(TileValueId id) const {
  const TileValue& value = values[values[id].root];
  switch (value.place) {
    case TileValue::Place::kOperand:
      return static_cast<float*>(const_cast<void*>(operands[value.index])) + tile * value.elements() * lanes;
    case TileValue::Place::kOutput:
      return static_cast<float*>(outputs[value.index]) + tile * value.elements() * lanes;
    case TileValue::Place::kMemory:
      break;
  }
  return memory + value.offset + (value.copies > 1 ? part * value.stored_elements() * lanes : 0);
}

// An execution order of instructions, the locations of their values, and the run itself.
class TileProgram {
 public:
  TileProgram(TileBuilder builder, const BatchRegion& region, int threads);

  absl::Status Run(const KernelArguments& arguments) const;
  size_t scratch_bytes() const {
    return (groups_ * partial_floats_ + tile_memories() * thread_floats() + prepared_floats_) * sizeof(float);
  }
  std::string Describe() const;
  size_t prepared_bytes() const { return prepared_floats_ * sizeof(float); }
  // Operands that preparations read.
  absl::InlinedVector<int, 2> prepared_operands() const {
    absl::InlinedVector<int, 2> operands;
    for (const TileBuilder::Preparation& preparation : preparations_) operands.push_back(preparation.operand);
    return operands;
  }
  std::string prepared_layout() const {
    std::string layout = absl::StrCat("tiles of ", lanes_);
    for (const TileBuilder::Preparation& preparation : preparations_) {
      absl::StrAppend(&layout, "; ", preparation.layout);
    }
    return layout;
  }
  bool fallible() const { return !checks_.empty(); }
  std::vector<Kernel::Part> parts() const {
    std::vector<Kernel::Part> parts;
    for (const TileInstruction& instruction : instructions_) {
      parts.push_back({instruction.name, instruction.node, instruction.flops});
    }
    return parts;
  }

 private:
  // Instructions that run alternately, each on some rows at a time.
  struct Group {
    std::vector<int> instructions;
    int64_t units = 1, step = 1;
    int64_t parts = 1;  // Parts that threads compute if they share a tile.
  };
  struct Sum {
    int output;
    int64_t offset, elements;
    TileBuilder::Finish finish;
  };

  // Memory of a thread in floats: a tile's values, then sums.
  int64_t thread_floats() const { return RoundUp(memory_floats_ + sums_floats(), 16); }
  // Each part of a tile has its own sums by lane.
  int64_t sums_floats() const { return parts_ * sums_elements_ * lanes_ + folded_elements_ * kernels_.folded_lanes; }
  // Threads that share a tile share its memory.
  int64_t tile_memories() const { return parts_ > 1 ? 1 : threads_; }
  // The instructions that MakeGroups has put into groups.
  struct GroupState {
    std::vector<int> group_of_value;  // Indexed by root: the group that writes it.
    std::vector<int> writer;          // Indexed by root: the last instruction that writes it.
    std::vector<bool> done;           // Indexed by instruction.
  };
  // The lifetime of a root in groups, and how instructions touch it.
  struct ValueUse {
    int first = std::numeric_limits<int>::max(), last = -1;
    bool whole = false;      // True unless everything that touches it does so by rows within one group.
    int last_position = -1;  // Position of the last instruction that touches it.
    // True if the previous instruction that touches it is in the same group and touches all rows at
    // once. Overwriting rows would destroy them for it.
    bool whole_before = false;
  };

  void MakeGroups();
  // Returns true if the instruction may run row by row with a group and reads one of its values.
  // Rows written in the group may be read by rows in it. All other values must be complete.
  bool CanJoin(int i, int group, const GroupState& state) const;
  int64_t UnitsOf(int i) const;
  bool FitsUnits(const Group& group, int i, int64_t units) const;
  void PlaceValues();
  std::vector<ValueUse> FindUses() const;
  // Returns the number of parts into which threads divide a group. It depends on sizes alone.
  int64_t PartsOf(const Group& group) const;
  // Sets the number of units that run at a time, and stores only these of the values that allow it.
  void CutIntoPieces(Group& group, const std::vector<ValueUse>& uses);
  // Returns the operand whose memory the result may take, or -1.
  TileValueId OverwrittenOperand(const TileInstruction& instruction, TileValueId written, int position,
                                 const std::vector<ValueUse>& uses) const;
  void BeginGroup(TileRun& run, const Group& group, int thread, Profiler* profiler) const;
  void RunPart(TileRun& run, const Group& group, int64_t part, int thread, Profiler* profiler) const;
  void ClearAbsentSamples(const TileRun& run, const TileInstruction& instruction, bool by_rows) const;
  // Runs the only tile, whose parts threads compute.
  void RunShared(TileRun& run, const KernelArguments& arguments) const;

  const TileKernels& kernels_;
  const int lanes_, threads_;
  const int64_t batch_, tiles_, groups_;
  std::vector<TileValue> values_;
  std::vector<TileInstruction> instructions_;
  std::vector<TileBuilder::Preparation> preparations_;
  std::vector<TileBuilder::Check> checks_;
  std::vector<Group> order_;
  std::vector<Sum> sums_;
  int64_t prepared_floats_, partial_floats_, sums_elements_, folded_elements_, memory_floats_ = 0;
  int64_t parts_ = 1;  // The most parts of a group.
};

TileProgram::TileProgram(TileBuilder builder, const BatchRegion& region, int threads)
    : kernels_(builder.kernels()),
      lanes_(builder.lanes()),
      threads_(threads),
      batch_(region.batch),
      tiles_((batch_ + lanes_ - 1) / lanes_),
      groups_(std::min(tiles_, kMostTileChunks)),
      values_(std::move(builder.values_)),
      instructions_(std::move(builder.instructions_)),
      preparations_(std::move(builder.preparations_)),
      checks_(std::move(builder.checks_)),
      prepared_floats_(builder.prepared_floats_),
      partial_floats_(RoundUp(builder.sums_elements_ + builder.folded_elements_, 16)),
      sums_elements_(builder.sums_elements_),
      folded_elements_(builder.folded_elements_) {
  for (const TileBuilder::Sums& sums : builder.sums_) {
    for (size_t i = 0; i < region.outputs.size(); ++i) {
      if (region.outputs[i].port == sums.port)
        sums_.push_back(
            {static_cast<int>(i), sums.offset + (sums.folded ? sums_elements_ : 0), sums.elements, sums.finish});
    }
  }
  MakeGroups();
  PlaceValues();
}

void TileProgram::MakeGroups() {
  GroupState state;
  state.group_of_value.assign(values_.size(), -1);
  state.writer.assign(values_.size(), -1);
  state.done.assign(instructions_.size(), false);
  for (size_t i = 0; i < instructions_.size(); ++i) {
    for (TileValueId id : instructions_[i].writes) state.writer[values_[id].root] = static_cast<int>(i);
  }
  std::vector<int> waiting(instructions_.size());
  std::iota(waiting.begin(), waiting.end(), 0);
  while (!waiting.empty()) {
    const int number = static_cast<int>(order_.size());
    Group& group = order_.emplace_back();
    auto take = [&](size_t at) {
      const int i = waiting[at];
      waiting.erase(waiting.begin() + at);
      state.done[i] = true;
      group.instructions.push_back(i);
      for (TileValueId id : instructions_[i].writes) state.group_of_value[values_[id].root] = number;
    };
    group.units = UnitsOf(waiting[0]);
    bool grown = !instructions_[waiting[0]].by_rows.empty();
    take(0);
    while (grown) {
      grown = false;
      for (size_t at = 0; at < std::min(waiting.size(), kLookAhead) && !grown; ++at) {
        const int i = waiting[at];
        const int64_t units = std::min(group.units, UnitsOf(i));
        if (instructions_[i].by_rows.empty() || !CanJoin(i, number, state) || !FitsUnits(group, i, units)) continue;
        group.units = units;
        take(at);
        grown = true;
      }
    }
  }
}

bool TileProgram::CanJoin(int i, int group, const GroupState& state) const {
  const auto& by_rows = instructions_[i].by_rows;
  bool touches = false;
  for (TileValueId id : instructions_[i].reads) {
    const int root = values_[id].root, writer = state.writer[root];
    if (writer < 0 || writer == i) continue;
    if (!state.done[writer]) return false;
    if (state.group_of_value[root] != group) continue;
    const auto& written = instructions_[writer].by_rows;
    if (id != root || std::find(by_rows.begin(), by_rows.end(), id) == by_rows.end() ||
        std::find(written.begin(), written.end(), id) == written.end()) {
      return false;
    }
    touches = true;
  }
  return touches;
}

int64_t TileProgram::UnitsOf(int i) const {
  if (instructions_[i].by_rows.empty()) return instructions_[i].shares;
  int64_t units = std::numeric_limits<int64_t>::max();
  for (TileValueId id : instructions_[i].by_rows) units = std::min(units, values_[id].rows);
  return units;
}

bool TileProgram::FitsUnits(const Group& group, int i, int64_t units) const {
  auto divides = [&](TileValueId id) { return values_[id].rows % units == 0; };
  auto fits = [&](int member) {
    return std::all_of(instructions_[member].by_rows.begin(), instructions_[member].by_rows.end(), divides);
  };
  return fits(i) && std::all_of(group.instructions.begin(), group.instructions.end(), fits);
}

void TileProgram::PlaceValues() {
  const std::vector<ValueUse> uses = FindUses();
  for (Group& group : order_) CutIntoPieces(group, uses);
  // Values that overwrite one another share a buffer.
  std::vector<int> buffer(values_.size(), -1);
  std::vector<BufferLifetime> lifetimes;
  int position = 0;
  for (const Group& group : order_) {
    for (int i : group.instructions) {
      for (TileValueId written : instructions_[i].writes) {
        const TileValue& value = values_[written];
        if (value.root != written || value.place != TileValue::Place::kMemory || buffer[written] >= 0) continue;
        const ValueUse& use = uses[written];
        const TileValueId operand = OverwrittenOperand(instructions_[i], written, position, uses);
        if (operand >= 0) buffer[written] = buffer[values_[operand].root];
        if (buffer[written] < 0) {
          buffer[written] = static_cast<int>(lifetimes.size());
          lifetimes.push_back({0, use.first, use.last});
        }
        BufferLifetime& lifetime = lifetimes[buffer[written]];
        lifetime.last = std::max(lifetime.last, use.last);
        lifetime.bytes =
            std::max<int64_t>(lifetime.bytes, value.stored_elements() * value.copies * lanes_ * sizeof(float));
      }
      ++position;
    }
  }
  const MemoryPlan plan = PlanMemory(lifetimes);
  memory_floats_ = plan.arena_bytes / static_cast<int64_t>(sizeof(float));
  for (size_t id = 0; id < values_.size(); ++id) {
    if (buffer[id] >= 0) values_[id].offset = plan.offsets[buffer[id]] / static_cast<int64_t>(sizeof(float));
  }
}

std::vector<TileProgram::ValueUse> TileProgram::FindUses() const {
  std::vector<ValueUse> uses(values_.size());
  int position = 0;
  for (int g = 0; g < static_cast<int>(order_.size()); ++g) {
    for (int i : order_[g].instructions) {
      const auto& by_rows = instructions_[i].by_rows;
      auto touch = [&](TileValueId id) {
        const int root = values_[id].root;
        ValueUse& use = uses[root];
        use.whole_before = use.last == g && use.whole;
        use.whole |= id != root || std::find(by_rows.begin(), by_rows.end(), id) == by_rows.end();
        use.whole |= use.last >= 0 && use.last != g;
        use.first = std::min(use.first, g);
        use.last = g;
        use.last_position = position;
      };
      for (TileValueId id : instructions_[i].reads) touch(id);
      for (TileValueId id : instructions_[i].writes) touch(id);
      ++position;
    }
  }
  return uses;
}

void TileProgram::CutIntoPieces(Group& group, const std::vector<ValueUse>& uses) {
  std::vector<TileValueId> pieces, all;
  for (int i : group.instructions) {
    for (TileValueId id : instructions_[i].by_rows) all.push_back(id);
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  int64_t unit_bytes = 0;
  for (TileValueId id : all) {
    unit_bytes += values_[id].elements() / group.units * lanes_ * static_cast<int64_t>(sizeof(float));
    if (values_[id].root == id && values_[id].place == TileValue::Place::kMemory && !uses[id].whole)
      pieces.push_back(id);
  }
  group.step = group.instructions.size() == 1
                   ? group.units
                   : std::clamp<int64_t>(kPieceBytes / std::max<int64_t>(unit_bytes, 1), 1, group.units);
  group.parts = PartsOf(group);
  parts_ = std::max(parts_, group.parts);
  group.step = std::min(group.step, DivideUp(group.units, group.parts));
  if (group.step == group.units) return;
  for (TileValueId id : pieces) {
    values_[id].stored_rows = values_[id].rows / group.units * group.step;
    values_[id].copies = group.parts;
  }
  for (int i : group.instructions) {
    for (TileValueId id : instructions_[i].scratch) values_[id].copies = group.parts;
  }
}

int64_t TileProgram::PartsOf(const Group& group) const {
  double flops = 0;
  for (int i : group.instructions) {
    // Parts would add to the same sums.
    if (tiles_ > 1 || (instructions_[i].folds && !instructions_[i].by_rows.empty())) return 1;
    flops += instructions_[i].flops;
  }
  const bool by_rows = !instructions_[group.instructions[0]].by_rows.empty();
  const int64_t most = std::min(kMostParts, by_rows ? group.units / kLeastRowsOfPart : group.units);
  return std::clamp<int64_t>(static_cast<int64_t>(flops / kPartFlops), 1, std::max<int64_t>(most, 1));
}

TileValueId TileProgram::OverwrittenOperand(const TileInstruction& instruction, TileValueId written, int position,
                                            const std::vector<ValueUse>& uses) const {
  for (const auto& [operand, result] : instruction.overwrites) {
    const TileValue& root = values_[values_[operand].root];
    const ValueUse& use = uses[values_[operand].root];
    const bool same = values_[operand].elements() == values_[written].elements() &&
                      root.stored_elements() == values_[written].stored_elements() &&
                      (values_[operand].root == operand || root.stored_rows == root.rows);
    if (result == written && same && root.place == TileValue::Place::kMemory && use.last_position == position &&
        !use.whole_before)
      return operand;
  }
  return -1;
}

void TileProgram::ClearAbsentSamples(const TileRun& run, const TileInstruction& instruction, bool by_rows) const {
  if (run.samples == lanes_) return;
  for (TileValueId id : instruction.summed) {
    const auto& of_rows = instruction.by_rows;
    if ((std::find(of_rows.begin(), of_rows.end(), id) != of_rows.end()) != by_rows) continue;
    const TileRun::Rows rows = by_rows ? run.rows(id) : run.all_rows(id);
    for (int64_t c = 0; c < values_[id].channels; ++c)
      kernels_.clear_lanes(rows.at(c, rows.begin), (rows.end - rows.begin) * values_[id].columns, run.samples);
  }
}

// Does the work that a group does once for a tile. Threads may share the rest.
void TileProgram::BeginGroup(TileRun& run, const Group& group, int thread, Profiler* profiler) const {
  run.units = group.units;
  run.unit = run.first_unit = run.part = 0;
  run.end_unit = group.units;
  for (int i : group.instructions) {
    const double before = profiler == nullptr ? 0 : profiler->Now();
    ClearAbsentSamples(run, instructions_[i], false);
    if (instructions_[i].begin) instructions_[i].begin(run);
    if (profiler != nullptr) profiler->AddPart(thread, i, profiler->Now() - before);
  }
}

void TileProgram::RunPart(TileRun& run, const Group& group, int64_t part, int thread, Profiler* profiler) const {
  const double group_begin = profiler == nullptr ? 0 : profiler->Now();
  double before = group_begin;
  run.part = part;
  run.first_unit = part * group.units / group.parts;
  const int64_t end = (part + 1) * group.units / group.parts;
  for (run.unit = run.first_unit; run.unit < end; run.unit = run.end_unit) {
    run.end_unit = std::min(end, run.unit + group.step);
    for (int i : group.instructions) {
      const TileInstruction& instruction = instructions_[i];
      ClearAbsentSamples(run, instruction, true);
      instruction.run(run);
      if (profiler == nullptr) continue;
      const double now = profiler->Now();
      profiler->AddPart(thread, i, now - before);
      before = now;
    }
  }
  if (profiler == nullptr) return;
  std::string name = absl::StrCat("tile ", run.tile, ":");
  for (int i : group.instructions) absl::StrAppend(&name, " ", instructions_[i].name);
  profiler->AddSpan(thread, std::move(name), group_begin, profiler->Now());
}

void TileProgram::RunShared(TileRun& run, const KernelArguments& arguments) const {
  for (const Group& group : order_) {
    if (arguments.stopped()) return;
    BeginGroup(run, group, 0, arguments.profiler);
    arguments.pool->ParallelFor(group.parts, [&](int64_t part, int thread) {
      TileRun own = run;
      own.sums += part * sums_elements_ * lanes_;
      RunPart(own, group, part, thread, arguments.profiler);
    });
  }
}

absl::Status TileProgram::Run(const KernelArguments& arguments) const {
  for (const TileBuilder::Check& check : checks_) GW_RETURN_IF_ERROR(check(arguments.operands.data()));
  float* partials = reinterpret_cast<float*>(arguments.scratch);
  float* of_threads = partials + groups_ * partial_floats_;
  float* prepared = arguments.kept != nullptr ? reinterpret_cast<float*>(arguments.kept)
                                              : of_threads + tile_memories() * thread_floats();
  const void* const* operands = arguments.operands.data();
  for (const TileBuilder::Preparation& preparation : preparations_) {
    if (arguments.kept_is_current) break;
    arguments.pool->ParallelFor(preparation.tasks,
                                [&](int64_t task, int) { preparation.run(task, operands, prepared); });
  }
  // Runs tiles [begin, end) in a memory for tiles, and stores their sums.
  auto run_tiles = [&](int64_t begin, int64_t end, int thread, float* partial) {
    TileRun run{.values = values_, .kernels = kernels_, .lanes = lanes_};
    run.memory = of_threads + thread * thread_floats();
    run.operands = operands;
    run.outputs = arguments.outputs.data();
    run.prepared = prepared;
    run.sums = run.memory + memory_floats_;
    run.folded_sums = run.sums + parts_ * sums_elements_ * lanes_;
    std::memset(run.sums, 0, sums_floats() * sizeof(float));
    for (run.tile = begin; run.tile < end && !arguments.stopped(); ++run.tile) {
      run.first_sample = run.tile * lanes_;
      run.samples = std::min<int64_t>(lanes_, batch_ - run.first_sample);
      if (parts_ > 1) {
        RunShared(run, arguments);
        continue;
      }
      for (const Group& group : order_) {
        BeginGroup(run, group, thread, arguments.profiler);
        RunPart(run, group, 0, thread, arguments.profiler);
      }
    }
    std::memset(partial, 0, partial_floats_ * sizeof(float));
    for (int64_t part = 0; part < parts_; ++part)
      kernels_.add_lane_sums(run.sums + part * sums_elements_ * lanes_, sums_elements_, partial);
    kernels_.add_folded_sums(run.folded_sums, folded_elements_, partial + sums_elements_);
  };
  if (parts_ > 1) {
    run_tiles(0, 1, 0, partials);
  } else {
    // Each group takes an equal part of the tiles, in order.
    arguments.pool->ParallelFor(groups_, [&](int64_t group, int thread) {
      run_tiles(group * tiles_ / groups_, (group + 1) * tiles_ / groups_, thread, partials + group * partial_floats_);
    });
  }
  arguments.pool->ParallelFor(static_cast<int64_t>(sums_.size()), [&](int64_t i, int) {
    const Sum& sum = sums_[i];
    float* total = partials + sum.offset;
    for (int64_t group = 1; group < groups_; ++group)
      GetRowLoops<float>().accumulate(total + group * partial_floats_, total, sum.elements);
    float* result = static_cast<float*>(arguments.outputs[sum.output]);
    if (sum.finish) {
      sum.finish(total, result);
    } else {
      std::memcpy(result, total, sum.elements * sizeof(float));
    }
  });
  return absl::OkStatus();
}

std::string TileProgram::Describe() const {
  return absl::StrCat("tiles of ", lanes_, ", ", instructions_.size(), " instructions in ", order_.size(), " groups, ",
                      memory_floats_ * sizeof(float) / 1024, " KiB",
                      parts_ > 1 ? absl::StrCat(", rows in up to ", parts_, " parts") : "");
}

namespace {

Kernel MakeTileKernel(const RegionRequest& request) {
  const BatchRegion& region = request.region;
  TileBuilder builder(request);
  for (const BatchRegion::Member& member : region.nodes) {
    LowerToTiles(builder, {request.graph, request.graph.node(member.node), member.batched, member.summed});
  }
  for (size_t i = 0; i < region.outputs.size(); ++i) {
    if (region.outputs[i].summed) continue;
    builder.StoreOutput(region.outputs[i].port, static_cast<int>(i), request.tiled_outputs[i]);
  }
  auto program = std::make_shared<TileProgram>(std::move(builder), region, request.threads);
  Kernel kernel{.name = program->Describe()};
  kernel.scratch_bytes = program->scratch_bytes();
  kernel.kept_bytes = program->prepared_bytes();
  kernel.scratch_bytes_with_kept = kernel.scratch_bytes - kernel.kept_bytes;
  kernel.kept_operands = program->prepared_operands();
  kernel.kept_layout = program->prepared_layout();
  kernel.fallible = program->fallible();
  kernel.parts = program->parts();
  kernel.run = [program](const KernelArguments& arguments) { return program->Run(arguments); };
  return kernel;
}

int64_t TiledBytes(const TensorType& type) {
  const int64_t batch = type.shape[0].size(), lanes = LanesOfTiles(batch);
  return batch == 0 ? 0 : type.byte_size() / batch * RoundUp(batch, lanes);
}

}  // namespace

RegionCompiler TileCompiler() {
  return {.least_batch = static_cast<int64_t>(LanesOfTiles(1) * ThisMachine().least_tile_fill),
          .supports = TilesSupport,
          .tiled_bytes = TiledBytes,
          .make = MakeTileKernel};
}

}  // namespace gradweave
