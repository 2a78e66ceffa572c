// Benchmarks of kernels, passes, files and LeNet: `bazel run //benchmarks:engine_benchmark`.
#include "benchmark/benchmark.h"

#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "benchmarks/models.h"

namespace benchmarks {
namespace {

// Runs one op on tensors of ones. The session plans before the measurement.
void RunOp(benchmark::State& state, const std::vector<std::vector<int64_t>>& sizes,
           const std::function<gw::Value(const std::vector<gw::Value>&)>& build, double flops) {
  gw::Graph graph;
  gw::Scope scope(graph);
  std::vector<gw::Value> inputs;
  std::vector<gw::Feed> feeds;
  double bytes = 0;
  for (const std::vector<int64_t>& size : sizes) {
    inputs.push_back(scope.Input("x" + std::to_string(inputs.size()), gw::kFloat32, gw::Shape(size)));
    gw::Tensor tensor(gw::kFloat32, size);
    for (float& value : tensor.mutable_values<float>()) value = 1;
    bytes += static_cast<double>(tensor.byte_size());
    feeds.emplace_back(inputs.back(), tensor);
  }
  // The run fetches only one element, so that it measures the op and not a copy of the result.
  const gw::Value result = build(inputs);
  gw::Integers steps(result.rank(), 1);
  gw::Shape start, limit;
  for (int axis = 0; axis < result.rank(); ++axis) {
    start.Append(0);
    limit.Append(1);
  }
  const gw::Value element = gw::Slice(result, {.start = start, .limit = limit, .steps = steps});
  absl::StatusOr<gw::Session> session = gw::Session::Create(graph, {.threads = static_cast<int>(state.range(0))});
  if (!session.ok()) return state.SkipWithError(session.status().ToString().c_str());
  auto run = session->Prepare(feeds, {element});
  if (!run.ok()) return state.SkipWithError(run.status().ToString().c_str());
  for (auto _ : state) {
    if (!(*run)->Run().ok()) return state.SkipWithError("the run failed");
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes) * state.iterations());
  if (flops > 0) state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

// LeNet's sizes at batch size 256. The argument is the number of threads.
void Conv1(benchmark::State& state) {
  RunOp(
      state, {{256, 1, 28, 28}, {6, 1, 5, 5}},
      [](const auto& x) {
        return gw::Conv2D(x[0], x[1], {.padding = {2, 2}});
      },
      2.0 * 256 * 6 * 784 * 25);
}
void Conv2(benchmark::State& state) {
  RunOp(
      state, {{256, 6, 14, 14}, {16, 6, 5, 5}}, [](const auto& x) { return gw::Conv2D(x[0], x[1]); },
      2.0 * 256 * 16 * 100 * 150);
}
void Conv2FilterGrad(benchmark::State& state) {
  RunOp(
      state, {{256, 6, 14, 14}, {256, 16, 10, 10}},
      [](const auto& x) {
        return gw::Conv2DFilterGrad(x[0], x[1], {16, 6, 5, 5});
      },
      2.0 * 256 * 16 * 100 * 150);
}
void Conv2InputGrad(benchmark::State& state) {
  RunOp(
      state, {{256, 16, 10, 10}, {16, 6, 5, 5}},
      [](const auto& x) {
        return gw::Conv2DInputGrad(x[0], x[1], {256, 6, 14, 14});
      },
      2.0 * 256 * 16 * 100 * 150);
}
void Dense1(benchmark::State& state) {
  RunOp(
      state, {{256, 400}, {400, 120}}, [](const auto& x) { return gw::MatMul(x[0], x[1]); }, 2.0 * 256 * 400 * 120);
}
void Sigmoid1(benchmark::State& state) {
  RunOp(
      state, {{256, 6, 28, 28}}, [](const auto& x) { return gw::Sigmoid(x[0]); }, 0);
}
void AvgPool1(benchmark::State& state) {
  RunOp(
      state, {{256, 6, 28, 28}}, [](const auto& x) { return gw::AvgPool2D(x[0]); }, 0);
}
void BiasGrad1(benchmark::State& state) {
  RunOp(
      state, {{256, 6, 28, 28}},
      [](const auto& x) {
        return gw::Sum(x[0], {.axes = {0, 2, 3}});
      },
      0);
}
BENCHMARK(Conv1)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(Conv2)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(Conv2FilterGrad)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(Conv2InputGrad)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(Dense1)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(Sigmoid1)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(AvgPool1)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(BiasGrad1)->Arg(1)->Arg(2)->UseRealTime();

// The arguments are batch size and threads.
void LeNetTrainingStep(benchmark::State& state) {
  ModelRun run = Training("lenet", state.range(0), {.threads = static_cast<int>(state.range(1))});
  for (auto _ : state) run.Step();
  state.SetItemsProcessed(state.range(0) * state.iterations());
}
void LeNetInferenceRun(benchmark::State& state) {
  ModelRun run = Inference("lenet", state.range(0), {.threads = static_cast<int>(state.range(1))});
  for (auto _ : state) run.Step();
  state.SetItemsProcessed(state.range(0) * state.iterations());
}
BENCHMARK(LeNetTrainingStep)->Args({256, 1})->Args({256, 2})->UseRealTime();
BENCHMARK(LeNetInferenceRun)->Args({256, 1})->Args({256, 2})->Args({1, 1})->UseRealTime();

// Measures the construction of the graph with gradients and updates.
void BuildLeNetWithGradients(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(BuildModel("lenet").graph->num_nodes());
}
BENCHMARK(BuildLeNetWithGradients);

// Measures passes, kernel creation and memory planning of LeNet's training step. Each new session
// plans again.
void CompileLeNetStep(benchmark::State& state) {
  const Model lenet = BuildModel("lenet");
  const gw::Tensor images(gw::kFloat32, {256, 1, 28, 28}), labels(gw::kInt32, {256});
  for (auto _ : state) {
    state.PauseTiming();
    absl::StatusOr<gw::Session> session = gw::Session::Create(*lenet.graph, {.threads = 1});
    state.ResumeTiming();
    auto run = session->Prepare({{lenet.input, images}, {lenet.label, labels}}, {lenet.loss, lenet.step});
    if (!run.ok()) return state.SkipWithError(run.status().ToString().c_str());
  }
}
BENCHMARK(CompileLeNetStep)->Unit(benchmark::kMillisecond);

// The same for a chain of layers and its gradient. The argument is the number of nodes.
void CompileChain(benchmark::State& state) {
  gw::Graph graph;
  gw::Scope scope(graph);
  const gw::Value x = scope.Input("x", gw::kFloat32, {gw::Dim("batch"), 8});
  const gw::Value w = scope.Variable("w", gw::RandomUniform(scope, {8}, 0.5, 1.5));
  gw::Value y = x;
  // A layer has six nodes: a multiplication, a sigmoid and four nodes of their gradients.
  for (int64_t i = 0; i < state.range(0) / 6; ++i) y = gw::Sigmoid(y * w);
  const gw::Value gradient = gw::Gradients({gw::Sum(y)}, {w})[0];
  for (auto _ : state) {
    state.PauseTiming();
    absl::StatusOr<gw::Session> session = gw::Session::Create(graph, {.threads = 1});
    state.ResumeTiming();
    auto run = session->Prepare({{x, gw::Tensor(gw::kFloat32, {64, 8})}}, {gradient});
    if (!run.ok()) return state.SkipWithError(run.status().ToString().c_str());
  }
  state.counters["nodes"] = graph.num_nodes();
}
BENCHMARK(CompileChain)->Arg(10000)->Arg(100000)->Unit(benchmark::kMillisecond);

// Measures the gradient of a chain of sines. The argument is the length of the chain.
void DifferentiateChain(benchmark::State& state) {
  for (auto _ : state) {
    state.PauseTiming();
    gw::Graph graph;
    gw::Scope scope(graph);
    const gw::Value x = scope.Input("x", gw::kFloat32, {4});
    gw::Value y = x;
    for (int64_t i = 0; i < state.range(0); ++i) y = gw::Sin(y);
    state.ResumeTiming();
    benchmark::DoNotOptimize(gw::Gradients({y}, {x}));
  }
}
BENCHMARK(DifferentiateChain)->Arg(10000)->Arg(100000)->Unit(benchmark::kMillisecond);

// A file that the program removes again when it ends.
struct SavedModel {
  explicit SavedModel(const gw::Graph& graph)
      : path((std::filesystem::temp_directory_path() / ("gradweave_benchmark_" + std::to_string(getpid()) + ".gw"))
                 .string()) {
    absl::StatusOr<gw::Session> session = gw::Session::Create(graph, {.threads = 1});
    status = session.ok() ? gw::SaveModel(*session, path) : session.status();
  }
  ~SavedModel() { (void)gw::RemoveModel(path); }
  const std::string path;
  absl::Status status;
};

void Load(benchmark::State& state, const gw::Graph& graph, gw::LoadOptions options) {
  const SavedModel saved(graph);
  if (!saved.status.ok()) return state.SkipWithError(saved.status.ToString().c_str());
  for (auto _ : state) {
    absl::StatusOr<gw::Model> model = gw::LoadModel(saved.path, options);
    if (!model.ok()) return state.SkipWithError(model.status().ToString().c_str());
  }
}

// Measures LoadModel of LeNet with its training step, from a file in the page cache.
void LoadLeNet(benchmark::State& state) { Load(state, *BuildModel("lenet").graph, {}); }
BENCHMARK(LoadLeNet)->Unit(benchmark::kMillisecond);

// The same for 16 weights of the given number of MiB in total. The second argument is 1 if the file
// is mapped. The file is in the page cache if memory suffices.
void LoadWeights(benchmark::State& state) {
  const int64_t bytes = state.range(0) << 20;
  gw::Graph graph;
  gw::Scope scope(graph);
  for (int i = 0; i < 16; ++i) scope.Variable("w" + std::to_string(i), gw::RandomNormal(scope, {bytes / 64}));
  Load(state, graph, {.map_weights = state.range(1) == 1});
  state.SetBytesProcessed(bytes * state.iterations());
}
BENCHMARK(LoadWeights)->Args({1024, 0})->Args({1024, 1})->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace benchmarks
