// Graphs whose fused chains are compiled for the emulated device when the tests are built.
#ifndef GRADWEAVE_TESTS_CUDA_FUSED_GRAPHS_H_
#define GRADWEAVE_TESTS_CUDA_FUSED_GRAPHS_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gradweave/gradweave.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"

namespace gradweave {

// The names of the ops that chains are made of, by their number of operands.
#define GRADWEAVE_NAME(takes, name, ...) #name,
inline constexpr const char* kFusedUnary[] = {GRADWEAVE_UNARY_FORMULAS(GRADWEAVE_NAME)};
inline constexpr const char* kFusedBinary[] = {GRADWEAVE_BINARY_FORMULAS(GRADWEAVE_NAME)
                                                   GRADWEAVE_COMPARISON_FORMULAS(GRADWEAVE_NAME)};
#undef GRADWEAVE_NAME

// A graph for tests of fusion.
struct FusedGraph {
  std::string name;
  Graph graph;  // After specialization and all passes, as a session would run it.
  // Range of random inputs for which most results are finite.
  double low = -2, high = 2;
};

// Returns graphs in float32 and float64: every fusible op as a chain of its own and all in a few
// chains; operands that broadcast; several outputs; random graphs; and random chains that end in
// reductions of every kind over rows, columns and whole tensors. The training step of SmallNetwork
// comes last.
std::vector<FusedGraph> FusedGraphs();

// Returns graphs in float32 and float64: layer normalization, softmax and log-softmax, with
// gradients, and random graphs, all over rows of many lengths (row_graphs.cc). Inference and
// training step of SmallEncoder come last.
std::vector<FusedGraph> RowGraphs();

// Returns graphs in float32 and float64: convolutions and their gradients for the input in all
// forms, with elementwise ops and pools behind them, and random graphs (conv_graphs.cc). They have
// so few channels that the non-generated form is direct too and gives the same bits.
std::vector<FusedGraph> ConvGraphs();

// Returns the graphs of all three functions.
std::vector<FusedGraph> AllFusedGraphs();

// All fusions that a plan may use with IEEE products.
inline constexpr FusionOptions kAllFusions{.reductions = true, .rows = true, .convolution_channels = 128};

// Returns the graph after a session's passes.
Graph AfterPasses(const Graph& graph, const DimBindings& bindings = {});

// A convolution and two dense layers, for sessions.
struct SmallNetwork {
  static constexpr int64_t kSamples = 6;
  Graph graph;
  Value x, label, loss;
  Update step;

  SmallNetwork();
  std::vector<Feed> Feeds(int step_number) const;
};

// A transformer's encoder block, for sessions.
struct SmallEncoder {
  Graph graph;
  Value x, output, loss;
  Update step;

  SmallEncoder();
  std::vector<Feed> Feeds(int step_number) const;
};

// Returns the graph that a session plans for the given fetches and updates.
Graph PlanOf(const Graph& graph, const std::vector<Value>& fetches, const std::vector<Value>& updates,
             const DimBindings& bindings = {});

// Returns random numbers between the bounds, or random bools.
Tensor RandomTensor(const TensorType& type, double low, double high, std::mt19937& random);

// Describes where the tensors differ in type or bits; empty if they are equal. All NaNs are equal,
// since the compiler may choose which one an op gives.
std::string Difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b);

// Returns the parts into which a session divides the graph by device. Fused groups are found in
// these.
std::vector<Graph> DevicePartsOf(const Graph& graph);

// Runs AllFusedGraphs and trains SmallNetwork in sessions on the CUDA device, with generated and
// with interpreted kernels. Returns Internal if results differ. Otherwise returns a session's
// error, which is Unavailable if there is no kernel compiler.
absl::Status CompareGeneratedWithInterpreted(const Device& device);

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CUDA_FUSED_GRAPHS_H_
