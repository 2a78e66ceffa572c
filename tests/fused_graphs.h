// Graphs whose elementwise chains are compiled for the emulated device when the tests are built, and what that made.
#ifndef GRADWEAVE_TESTS_FUSED_GRAPHS_H_
#define GRADWEAVE_TESTS_FUSED_GRAPHS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/gradweave.h"
#include "gradweave/runtime/cuda/emulated_api.h"

namespace gradweave {

struct FusedGraph {
  std::string name;
  Graph graph;  // With inputs alone, and known shapes.
};

// For float32 and float64: every op that is fused, each as a chain of its own and all in few; operands that broadcast;
// several outputs; and random graphs. The training step of SmallNetwork is the last.
std::vector<FusedGraph> FusedGraphs();

// Two dense layers, for sessions.
struct SmallNetwork {
  static constexpr int64_t kSamples = 6;
  Graph graph;
  Value x, label, loss;
  Update step;

  SmallNetwork();
  std::vector<Feed> Feeds(int step_number) const;
};

// The kernels of all chains of FusedGraphs, by print_fused_kernels.
absl::Span<const EmulatedKernel> FusedKernels();

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_FUSED_GRAPHS_H_
