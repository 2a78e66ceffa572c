// Graphs whose elementwise chains are compiled for the emulated device when the tests are built.
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
#define GRADWEAVE_NAME(name) #name,
inline constexpr const char* kFusedUnary[] = {GRADWEAVE_FUSED_UNARY(GRADWEAVE_NAME)};
inline constexpr const char* kFusedBinary[] = {GRADWEAVE_FUSED_BINARY(GRADWEAVE_NAME)};
#undef GRADWEAVE_NAME

struct FusedGraph {
  std::string name;
  Graph graph;  // As a session would run it: with known shapes, after all passes.
  // Of numbers for its inputs, such that most of what it computes is finite.
  double low = -2, high = 2;
};

// For float32 and float64: every op that is fused, each as a chain of its own and all in few; operands that broadcast;
// several outputs; random graphs; and random chains that end in reductions of every kind over rows, columns and all of
// a tensor. The training step of SmallNetwork is the last.
std::vector<FusedGraph> FusedGraphs();

// For float32 and float64: layer normalization, softmax and its logarithm, with gradients, and random graphs, all over
// rows of many lengths (row_graphs.cc). Inference and training step of SmallEncoder are the last two.
std::vector<FusedGraph> RowGraphs();

// For float32 and float64: convolutions and their gradients for the input in all forms, with what elementwise ops and
// pools make of them, and random graphs (conv_graphs.cc). Of channels so few that they are computed directly in both
// forms, with the same bits.
std::vector<FusedGraph> ConvGraphs();

// All of these.
std::vector<FusedGraph> AllFusedGraphs();

// All that a plan may have, for IEEE products.
inline constexpr FusionOptions kAllFusions{.reductions = true, .rows = true, .convolution_channels = 128};

// What a session would run of a graph.
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

// What a session makes of a graph for what it fetches and updates.
Graph PlanOf(const Graph& graph, const std::vector<Value>& fetches, const std::vector<Value>& updates,
             const DimBindings& bindings = {});

// Numbers between the bounds, or truth values.
Tensor RandomTensor(const TensorType& type, double low, double high, std::mt19937& random);

// Where the tensors differ in type or bits, empty if nowhere. NaNs are equal: which one an op gives is the compiler's
// choice.
std::string Difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b);

// The graph as a session cuts it for a device: what fused groups are found in.
std::vector<Graph> DevicePartsOf(const Graph& graph);

// Runs AllFusedGraphs, and trains SmallNetwork, in sessions on the CUDA device, with generated kernels and
// with interpreted ones. Internal where results differ; else the error of a session, Unavailable where there is no
// compiler of kernels.
absl::Status CompareGeneratedWithInterpreted(const Device& device);

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CUDA_FUSED_GRAPHS_H_
