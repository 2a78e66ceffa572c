#include "gradweave/runtime/plan/fit_plan.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/runtime/plan/compile_options.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {
namespace {

// The most batch regions whose combinations are all planned, and planned with recomputed values.
constexpr size_t kMostCombined = 4, kMostCombinedRecomputing = 2;
// The most regions that are changed one by one if there are more than kMostCombined.
constexpr size_t kMostChanged = 24;
// Rematerialize gets goals near the budget first, and then these shares of it. It knows nothing of
// places and scratch, so plans take more than its goal.
constexpr int kGoalsNearBudget = 4;
constexpr double kShares[] = {0.5, 0.25, 0};

using Tiled = std::vector<bool>;  // StepOptions::tiled.

struct Outcome {
  int64_t bytes = std::numeric_limits<int64_t>::max();
  double nanoseconds = 0;
};

struct Search {
  const Graph& graph;
  const int64_t budget;
  const MakePlan make;
  std::unique_ptr<CompiledGraph>& best;
  StepOptions options = {};  // Those of the first plan.
  Tiled wanted = {};         // The tiles of the first plan; empty if the user has chosen them.
  bool on_cpu = false;       // True if the plan uses no other device.

  bool Fits() const { return best->arena_bytes() <= budget; }
  std::vector<RowFusion> RowChoices() const {
    if (options.row_fusion != RowFusion::kAuto) return {options.row_fusion};
    return {RowFusion::kAuto, RowFusion::kNever};
  }

  // Makes a plan, and keeps it if it is better than the best one.
  absl::StatusOr<Outcome> Try(Graph planned, const StepOptions& with) {
    GW_ASSIGN_OR_RETURN(std::unique_ptr<CompiledGraph> plan, make(std::move(planned), with));
    const Outcome outcome{plan->arena_bytes(), plan->plan().nanoseconds};
    const bool fits = outcome.bytes <= budget;
    if (fits != Fits() ? fits
        : fits         ? outcome.nanoseconds < best->plan().nanoseconds
                       : outcome.bytes < best->arena_bytes())
      best = std::move(plan);
    return outcome;
  }

  // Tries these tiles until a plan fits. Returns the least bytes.
  absl::StatusOr<Outcome> TryTiled(const Tiled& tiled) {
    StepOptions with = options;
    with.tiled = tiled;
    Outcome least;
    for (RowFusion rows : RowChoices()) {
      with.row_fusion = rows;
      for (bool keep : {true, false}) {
        if (keep && !options.keep_weights) continue;
        with.keep_weights = keep;
        GW_ASSIGN_OR_RETURN(const Outcome outcome, Try(graph, with));
        if (outcome.bytes < least.bytes) least = outcome;
        if (outcome.bytes <= budget) return least;
      }
    }
    return least;
  }

  // Tries these tiles with recomputed values. Such plans keep nodes in order, and keep no packed
  // weights.
  absl::Status TryRecomputing(const Tiled& tiled) {
    StepOptions with = options;
    with.tiled = tiled;
    with.keep_weights = false;
    with.in_order = true;
    // A row region computes its values early, so fused rows may take more or less. Other devices
    // compile a kernel for each region.
    with.row_fusion = RowFusion::kNever;
    GW_RETURN_IF_ERROR(TryGoals(with));
    if (!on_cpu || options.row_fusion == RowFusion::kNever) return absl::OkStatus();
    with.row_fusion = options.row_fusion;
    return TryGoals(with);
  }
  absl::Status TryGoals(const StepOptions& with) {
    const auto bytes_of = [&](int64_t goal) -> absl::StatusOr<int64_t> {
      GW_ASSIGN_OR_RETURN(Graph smaller, Rematerialize(graph, goal));
      GW_ASSIGN_OR_RETURN(const Outcome outcome, Try(std::move(smaller), with));
      return outcome.bytes;
    };
    int64_t goal = budget;
    for (int i = 0; i < kGoalsNearBudget && goal > 0; ++i) {
      GW_ASSIGN_OR_RETURN(const int64_t bytes, bytes_of(goal));
      if (bytes <= budget) return absl::OkStatus();
      // The next goal is lower by the bytes that the plan takes beyond the budget.
      goal -= std::max<int64_t>(bytes - budget, 64);
    }
    for (const double share : kShares) {
      const auto smaller = static_cast<int64_t>(share * static_cast<double>(budget));
      if (!on_cpu || smaller >= goal) continue;
      GW_ASSIGN_OR_RETURN(const int64_t bytes, bytes_of(smaller));
      if (bytes <= budget) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  // Returns the combinations of tiles to plan first: the one that the cost model wants, none, all,
  // and, if there are few regions, every other one.
  std::vector<Tiled> Combinations(size_t most_combined) const {
    std::vector<Tiled> result = {wanted};
    const size_t regions = wanted.size();
    auto add = [&](Tiled tiled) {
      if (std::find(result.begin(), result.end(), tiled) == result.end()) result.push_back(std::move(tiled));
    };
    add(Tiled(regions, false));
    add(Tiled(regions, true));
    for (size_t bits = 0; regions <= most_combined && bits >> regions == 0; ++bits) {
      Tiled tiled(regions);
      for (size_t i = 0; i < regions; ++i) tiled[i] = (bits >> i & 1) != 0;
      add(std::move(tiled));
    }
    return result;
  }

  // Changes the tiles of each region alone, and then of more and more regions. Makes one plan for
  // each, without kept weights.
  absl::Status TryManyRegions() {
    StepOptions with = options;
    with.keep_weights = false;
    std::vector<std::pair<int64_t, size_t>> by_bytes;
    for (size_t i = 0; i < std::min(wanted.size(), kMostChanged); ++i) {
      with.tiled = wanted;
      with.tiled[i] = !wanted[i];
      GW_ASSIGN_OR_RETURN(const Outcome outcome, Try(graph, with));
      by_bytes.emplace_back(outcome.bytes, i);
    }
    std::sort(by_bytes.begin(), by_bytes.end());
    with.tiled = wanted;
    for (const auto& [bytes, i] : by_bytes) {
      with.tiled[i] = !wanted[i];
      GW_ASSIGN_OR_RETURN(const Outcome outcome, Try(graph, with));
      if (outcome.bytes <= budget) break;
    }
    return absl::OkStatus();
  }

  absl::Status Run() {
    if (!on_cpu) return TryRecomputing(wanted);
    std::vector<std::pair<Tiled, double>> expected;
    for (const Tiled& tiled : Combinations(kMostCombined)) {
      GW_ASSIGN_OR_RETURN(const Outcome outcome, TryTiled(tiled));
      expected.emplace_back(tiled, outcome.nanoseconds);
      // The cost model prefers its own tiles to all others.
      if (expected.size() == 1 && Fits()) return absl::OkStatus();
    }
    if (wanted.size() > kMostCombined) GW_RETURN_IF_ERROR(TryManyRegions());
    const std::vector<Tiled> recomputing = Combinations(kMostCombinedRecomputing);
    for (const auto& [tiled, nanoseconds] : expected) {
      if (std::find(recomputing.begin(), recomputing.end(), tiled) == recomputing.end()) continue;
      // Recomputing takes time, so it cannot make these tiles faster than expected.
      if (!Fits() || nanoseconds < best->plan().nanoseconds) GW_RETURN_IF_ERROR(TryRecomputing(tiled));
    }
    return absl::OkStatus();
  }
};

}  // namespace

absl::Status FitPlan(const Graph& graph, int64_t budget, MakePlan make, std::unique_ptr<CompiledGraph>& plan) {
  if (plan->arena_bytes() <= budget) return absl::OkStatus();
  Search search{graph, budget, make, plan, plan->plan().options};
  search.on_cpu = plan->plan().devices.size() == 1;
  search.options.arena_limit = budget;
  search.options.wants_estimate = search.on_cpu;
  if (search.on_cpu && search.options.batch_tiles == BatchTiles::kAuto) search.wanted = plan->plan().tiled;
  return search.Run();
}

}  // namespace gradweave
