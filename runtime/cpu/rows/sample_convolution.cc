#include "gradweave/runtime/cpu/rows/sample_convolution.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/ops/choices.h"
#include "gradweave/runtime/kernel/conv_geometry.h"

namespace gradweave {
namespace {

// Calls of inner loops that take as long as starting the kernel of a sample.
constexpr double kCallsPerSample = 5;

// A node with the first sample alone.
struct OneSample {
  Node node;
  TensorTypes operands;

  OneSample(const Graph& graph, const Node& of) : node(of), operands(graph.OperandTypes(of)) {
    operands[0].shape[0] = Dim(1);
    node.outputs[0].shape[0] = Dim(1);
  }

  // Returns the kernel of that name; nullopt if no kernel of one sample has it.
  std::optional<Kernel> Make(const std::string& name, int threads, bool toom_cook) const {
    for (const KernelChoice& choice : Conv2DChoices({node, operands, threads, toom_cook})) {
      if (choice.name == name) return choice.make();
    }
    return std::nullopt;
  }
};

}  // namespace

std::string ConvolutionKernel(const Graph& graph, const Node& node, bool toom_cook) {
  return Cheapest(Conv2DChoices({node, graph.OperandTypes(node), 1, toom_cook})).name;
}

bool SampleConvolution::Pays(const Graph& graph, const Node& node, bool toom_cook) {
  const TensorType& y = node.outputs[0];
  const double samples = static_cast<double>(y.shape[0].size()), bytes = static_cast<double>(y.byte_size());
  const double floats = bytes / sizeof(float);
  // The region reads what the convolution wrote.
  Estimate apart, together;
  apart.Add(Loop::kElements, {.calls = 1}).Add(Loop::kElements, Moved(2 * floats, bytes));
  together.Add(Loop::kElements, {.calls = kCallsPerSample * samples})
      .Add(Loop::kElements, Moved(2 * floats, bytes / samples));
  if (!(together.nanoseconds() < apart.nanoseconds())) return false;
  const OneSample one(graph, node);
  const std::vector<KernelChoice> choices = Conv2DChoices({one.node, one.operands, 1, toom_cook});
  const std::string name = ConvolutionKernel(graph, node, toom_cook);
  return std::any_of(choices.begin(), choices.end(), [&](const KernelChoice& choice) { return choice.name == name; });
}

SampleConvolution::SampleConvolution(const Graph& graph, const Node& node, int threads, bool toom_cook) {
  const OneSample one(graph, node);
  const ConvGeometry g(one.node, one.operands[0].shape, one.operands[1].shape, one.node.outputs[0].shape);
  samples_ = node.outputs[0].shape[0].size();
  outputs_ = g.outputs;
  pixels_ = g.pixels();
  taps_ = g.taps();
  x_bytes_ = one.operands[0].byte_size();
  y_bytes_ = one.node.outputs[0].byte_size();
  const std::string name = ConvolutionKernel(graph, node, toom_cook);
  std::optional<Kernel> alone = one.Make(name, 1, toom_cook), shared = one.Make(name, threads, toom_cook);
  GW_CHECK(alone.has_value() && shared.has_value(), "a convolution of one sample has other kernels");
  by_sample_ = *std::move(alone);
  on_all_threads_ = *std::move(shared);
  auto bytes = [](const Kernel& kernel) {
    return kernel.kept_bytes > 0 ? kernel.scratch_bytes_with_kept : kernel.scratch_bytes;
  };
  thread_bytes_ = RoundUp(bytes(by_sample_), size_t{64});
  scratch_bytes_ = RoundUp(std::max(threads * thread_bytes_, bytes(on_all_threads_)), size_t{64});
}

void SampleConvolution::RunKernel(const Kernel& kernel, const Run& run, int64_t sample, std::byte* scratch,
                                  ThreadPool& pool, bool packed, std::byte* y) const {
  const void* const operands[] = {run.x + sample * x_bytes_, run.filter, run.bias};
  void* const outputs[] = {y};
  KernelArguments own = run.arguments;
  own.operands = absl::MakeConstSpan(operands, run.bias == nullptr ? 2 : 3);
  own.outputs = absl::MakeConstSpan(outputs);
  own.scratch = scratch;
  own.kept = run.kept;
  own.kept_is_current = packed;
  own.pool = &pool;
  own.profiler = nullptr;
  const absl::Status status = kernel.run(own);
  GW_CHECK(status.ok(), "a convolution failed");
}

void SampleConvolution::ComputeFirst(const Run& run, std::byte* y) const {
  RunKernel(on_all_threads_, run, 0, run.scratch, *run.arguments.pool, false, y);
}

void SampleConvolution::Compute(const Run& run, int64_t sample, int thread, std::byte* y) const {
  ThreadPool own_pool(1);
  RunKernel(by_sample_, run, sample, run.scratch + thread * thread_bytes_, own_pool, true, y);
}

}  // namespace gradweave
