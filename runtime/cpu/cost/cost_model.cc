#include "gradweave/runtime/cpu/cost/cost_model.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/simd/vector_targets.h"
// vector_targets.h comes first.
#include "hwy/highway.h"

namespace gradweave {
namespace {

// The nanoseconds are what benchmarks/calibrate prints on a Sapphire Rapids (2 cores, 2 MB of
// second-level cache each, OpenBLAS 0.3.21): those of AVX2 with --avx2, which turns AVX-512 off in
// Highway and OpenBLAS. Exceptions are kSmallGemm's products and kGemv's far floats with AVX2,
// which are set so that close choices are right. The constants after the nanoseconds are limits and
// shares that were found by trying. Rows are in the order in which Highway prefers targets.
constexpr MachineClass kClasses[] = {
    {.name = "AVX-512",
     .targets = HWY_AVX3 | HWY_AVX3_DL,
     .lanes = 16,
     .nanoseconds = {{
         {24.6, 0.241, 0.0895, 0.422},   // kGemm
         {13.3, 0.2, 0.0232, 0.05},      // kSmallGemm
         {44.1, 0, 0.0391, 0.193},       // kGemv
         {4.09, 0.183, 0.0558, 0.14},    // kProduct
         {21.4, 0.175, 0.103, 0.231},    // kImplicit
         {2.84, 0, 0.0273, 0.181},       // kRowSums
         {4.25, 0, 0.00331, 0.00812},    // kColumns
         {20.8, 0.163, 0.0629, 0.0418},  // kDirectSums
         {26.8, 0.183, 0.0389, 0.115},   // kChannelSums
         {20, 0.22, 0.06, 0.22},         // kWinograd
         {19.3, 0, 0.0517, 0.133},       // kElements
         {0, 0, 0.58, 0},                // kWindows
         {14, 0.39, 0.065, 0},           // kWindowSums
         {10.1, 0.169, 0.0186, 0.151},   // kTileSums
         {35.2, 0.182, 0, 0},            // kTileToomCook
         {17.9, 0.326, 0, 0},            // kTileFilters
         {0, 0, 0.0192, 0.0224},         // kTileElements
         {0, 0, 0.456, 1.12},            // kTileBoundary
     }},
     .second_level_bytes = 1 << 20,
     .products_in_flight = 4,
     .toom_cook_filter_share = 0.75,
     .transposed_block_share = 0.97,
     .least_row_columns = 4,
     .least_tile_fill = 0.875,
     .most_batch_of_short_tiles = 16},
    {.name = "AVX2",
     .targets = HWY_AVX2,
     .lanes = 8,
     .nanoseconds = {{
         {25.3, 0.165, 0.19, 0.219},     // kGemm
         {24.6, 0.17, 0.109, 0.21},      // kSmallGemm
         {52.1, 0, 0.0318, 0.063},       // kGemv
         {4.39, 0.144, 0.0507, 0.089},   // kProduct
         {13.9, 0.14, 0.098, 0.17},      // kImplicit
         {4.97, 0, 0.0262, 0.0593},      // kRowSums
         {3.9, 0, 0.0158, 0.0119},       // kColumns
         {8.49, 0.141, 0.0589, 0.0213},  // kDirectSums
         {11.7, 0.156, 0.0125, 0.0336},  // kChannelSums
         {17.5, 0.19, 0.051, 0.14},      // kWinograd
         {17.4, 0, 0.0828, 0.151},       // kElements
         {0, 0, 0.78, 0},                // kWindows
         {13, 0.25, 0.082, 0},           // kWindowSums
         {17.3, 0.149, 0.0034, 0.0784},  // kTileSums
         {19.9, 0.165, 0, 0},            // kTileToomCook
         {19.1, 0.228, 0, 0},            // kTileFilters
         {0, 0, 0.0246, 0.0143},         // kTileElements
         {0, 0, 0.334, 0.953},           // kTileBoundary
     }},
     .second_level_bytes = 512 << 10,
     .products_in_flight = 8,
     .toom_cook_filter_share = 0.75,
     .transposed_block_share = 0.97,
     .least_row_columns = 4,
     .least_tile_fill = 0.875,
     .most_batch_of_short_tiles = 0},
};

// Derives the row of a class with half as many lanes, which nobody has measured. A vector takes as
// long as one with all lanes, so a float in the caches takes twice as long, and one beyond them the
// same. `instructions` is the number of instructions of a multiply-add.
constexpr MachineClass HalfOf(MachineClass row, const char* name, int64_t targets, double instructions) {
  row.name = name;
  row.targets = targets;
  row.lanes /= 2;
  for (Work& loop : row.nanoseconds) {
    loop.products *= instructions;
    loop.moved *= 2;
  }
  return row;
}
// The last row also serves processors without any of the targets.
constexpr MachineClass kDerivedClasses[] = {HalfOf(kClasses[1], "SSE4", HWY_SSE4, 2),
                                            HalfOf(kClasses[1], "NEON", HWY_NEON, 1)};

// Returns the first row that `is_wanted` accepts, or the last one.
template <typename IsWanted>
const MachineClass& ClassWhere(IsWanted is_wanted) {
  const auto* const found = std::find_if(std::begin(kClasses), std::end(kClasses), is_wanted);
  if (found != std::end(kClasses)) return *found;
  const auto* const derived = std::find_if(std::begin(kDerivedClasses), std::end(kDerivedClasses), is_wanted);
  return derived == std::end(kDerivedClasses) ? *std::prev(derived) : *derived;
}

void AddTo(Work& sum, const Work& work, double times) {
  sum.calls += work.calls * times;
  sum.products += work.products * times;
  sum.moved += work.moved * times;
  sum.far += work.far * times;
}

}  // namespace

Estimate& Estimate::Add(Loop loop, const Work& work, double times) {
  AddTo(work_[static_cast<int>(loop)], work, times);
  return *this;
}

Estimate& Estimate::Add(const Estimate& other, double times) {
  for (int i = 0; i < kNumLoops; ++i) AddTo(work_[i], other.work_[i], times);
  return *this;
}

double Estimate::nanoseconds() const {
  double sum = 0;
  for (int i = 0; i < kNumLoops; ++i) {
    const Work& unit = ThisMachine().nanoseconds[i];
    sum += work_[i].calls * unit.calls + work_[i].products * unit.products + work_[i].moved * unit.moved +
           work_[i].far * unit.far;
  }
  return sum;
}

const KernelChoice& Cheapest(const std::vector<KernelChoice>& choices) {
  // Estimates are not more exact than that.
  constexpr double kClearly = 0.95;
  GW_CHECK(!choices.empty(), "no kernel can run the node");
  const KernelChoice* best = &choices[0];
  for (const KernelChoice& choice : choices) {
    if (choice.estimate.nanoseconds() < kClearly * best->estimate.nanoseconds()) best = &choice;
  }
  return *best;
}

const MachineClass& ThisMachine() {
  static const MachineClass& machine = []() -> const MachineClass& {
    const int64_t supported = hwy::SupportedTargets();
    // SupportedTargets chooses among all targets of the processor, also those that are disabled.
    hwy::GetChosenTarget().Update(supported);
    const int64_t targets = supported & HWY_TARGETS;
    return ClassWhere([&](const MachineClass& row) { return (row.targets & targets) != 0; });
  }();
  return machine;
}

const MachineClass& MachineOfLanes(int lanes) {
  return ClassWhere([&](const MachineClass& row) { return row.lanes == lanes; });
}

Work Moved(double floats, double bytes) {
  return bytes <= ThisMachine().second_level_bytes ? Work{.moved = floats} : Work{.far = floats};
}

Estimate GemmEstimate(int64_t rows, int64_t columns, int64_t terms) {
  const double m = static_cast<double>(rows), n = static_cast<double>(columns), k = static_cast<double>(terms);
  Estimate estimate;
  if (rows == 1) return estimate.Add(Loop::kGemv, {.calls = 1}).Add(Loop::kGemv, Moved(n * k, n * k * sizeof(float)));
  // The limit of interface/gemm.c of OpenBLAS.
  const Loop loop = m * n * k <= 1e6 ? Loop::kSmallGemm : Loop::kGemm;
  // OpenBLAS computes whole vectors of columns, or of rows if columns are few. A vector of the
  // result is loaded, scaled and stored, in the time of a few terms.
  constexpr double kTermsOfResult = 3.5;
  const double lanes = ThisMachine().lanes, vectors = std::min(std::ceil(n / lanes) * m, std::ceil(m / lanes) * n);
  estimate.Add(loop, {.calls = 1, .products = vectors * (k + kTermsOfResult)});
  for (double floats : {m * k, n * k, m * n}) estimate.Add(loop, Moved(floats, floats * sizeof(float)));
  return estimate;
}

}  // namespace gradweave
