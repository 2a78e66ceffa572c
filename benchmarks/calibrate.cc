// Measures the constants of the CPU's cost model (runtime/cpu/cost/cost_model.h) on one thread. It
// runs every choice on a set of shapes, prints for each choice if the compiled row chooses the
// fastest way and the cost of a wrong choice, fits a row of constants to the times, and prints it.
// Paste the row into cost_model.cc, build, and run again to see the choices of the new row.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/cpu/ops/choices.h"
#include "gradweave/runtime/cpu/region_cost.h"
#include "gradweave/runtime/cpu/tile/tile_cost.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"
#include "gradweave/runtime/plan/lower.h"
#include "hwy/targets.h"

ABSL_FLAG(bool, avx2, false, "Measure the row of AVX2 on a machine with AVX-512.");
ABSL_FLAG(double, margin, 0.05, "Report choices that take this share longer than the best one.");
ABSL_FLAG(int32_t, rounds, 12, "Times that each way is measured; the shortest counts.");
ABSL_FLAG(bool, all, false, "Print every measured way beside its estimate.");

namespace {

// In nanoseconds: long compared with the clock's resolution, short compared with a time slice.
constexpr double kLeastWindow = 100e3;

[[noreturn]] void Fail(const absl::Status& status) {
  std::cerr << status << std::endl;
  std::exit(1);
}

// Returns the processor time of the calling thread in nanoseconds. Other programs add nothing to it
// but cache misses.
double ThreadTime() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

// Returns the shortest time of each way in nanoseconds. Ways take turns, so a slow moment of the
// machine affects all of them.
std::vector<double> Measure(const std::vector<std::function<void()>>& ways) {
  auto window = [](const std::function<void()>& way, int repeats) {
    const double start = ThreadTime();
    for (int i = 0; i < repeats; ++i) way();
    return (ThreadTime() - start) / repeats;
  };
  std::vector<double> least(ways.size(), std::numeric_limits<double>::infinity());
  std::vector<int> repeats(ways.size());
  for (size_t i = 0; i < ways.size(); ++i) {
    window(ways[i], 1);
    repeats[i] = 1 + static_cast<int>(kLeastWindow / std::max(window(ways[i], 2), 1.0));
  }
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    for (size_t i = 0; i < ways.size(); ++i) least[i] = std::min(least[i], window(ways[i], repeats[i]));
  }
  return least;
}

struct Sample {
  std::string name;
  gradweave::Estimate estimate;
  double nanoseconds;
};

// All measurements, and the number of choices that the model gets wrong.
struct Report {
  std::vector<Sample> samples;
  int choices = 0, wrong = 0;

  // Prints the model's choice, `chosen`, beside the fastest way.
  void Add(const std::string& name, const std::vector<std::string>& ways, const std::vector<double>& nanoseconds,
           size_t chosen) {
    const size_t best = std::min_element(nanoseconds.begin(), nanoseconds.end()) - nanoseconds.begin();
    ++choices;
    const bool agrees = nanoseconds[chosen] <= nanoseconds[best] * (1 + absl::GetFlag(FLAGS_margin));
    std::cout << absl::StrFormat("%s %-50s %s, %.1f us", agrees ? "right" : "WRONG", name, ways[chosen],
                                 nanoseconds[chosen] / 1e3);
    if (!agrees) {
      ++wrong;
      std::cout << absl::StrFormat("; %s takes %.1f us: the choice is %.2f times as long", ways[best],
                                   nanoseconds[best] / 1e3, nanoseconds[chosen] / nanoseconds[best]);
    }
    std::cout << "\n";
  }
  void Fit(const std::string& name, const gradweave::Estimate& estimate, double nanoseconds) {
    samples.push_back({name, estimate, nanoseconds});
    if (!absl::GetFlag(FLAGS_all)) return;
    std::cout << absl::StrFormat("%-60s %10.1f us, estimate %10.1f\n", name, nanoseconds / 1e3,
                                 estimate.nanoseconds() / 1e3);
  }
};

// ---- Kernels of single nodes ----

gw::Tensor RandomTensor(const gw::Shape& shape) {
  static auto* const random = new std::mt19937(1);
  gw::Tensor tensor(gw::kFloat32, shape.sizes());
  for (float& value : tensor.mutable_values<float>()) value = static_cast<float>((*random)() % 2001) / 1000.0f - 1.0f;
  return tensor;
}

// A kernel on memory of its own.
class BoundKernel {
 public:
  // If `keeps` is true, the kernel finds the packed weights of an earlier run.
  BoundKernel(const gradweave::KernelChoice& choice, const gradweave::KernelRequest& request, bool keeps)
      : kernel_(choice.make()), pool_(std::make_unique<gradweave::ThreadPool>(1)) {
    for (const gw::TensorType& type : request.operands) operands_.push_back(RandomTensor(type.shape));
    output_ = RandomTensor(request.output().shape);
    for (const gw::Tensor& operand : operands_) operand_data_.push_back(operand.values<float>().data());
    output_data_.push_back(output_.mutable_values<float>().data());
    scratch_.reset(std::aligned_alloc(64, (kernel_.scratch_bytes + 127) / 64 * 64));
    if (!keeps || kernel_.kept_bytes == 0) return;
    kept_.reset(std::aligned_alloc(64, (kernel_.kept_bytes + 127) / 64 * 64));
    Run();
    kept_is_current_ = true;
  }
  void Run() const {
    const absl::Status status = kernel_.run({.operands = operand_data_,
                                             .outputs = output_data_,
                                             .scratch = static_cast<std::byte*>(scratch_.get()),
                                             .kept = static_cast<std::byte*>(kept_.get()),
                                             .kept_is_current = kept_is_current_,
                                             .pool = pool_.get()});
    if (!status.ok()) Fail(status);
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  gradweave::Kernel kernel_;
  std::vector<gw::Tensor> operands_;
  gw::Tensor output_;
  std::vector<const void*> operand_data_;
  std::vector<void*> output_data_;
  std::unique_ptr<void, Free> scratch_, kept_;
  bool kept_is_current_ = false;
  std::unique_ptr<gradweave::ThreadPool> pool_;
};

using Choices = std::vector<gradweave::KernelChoice> (*)(const gradweave::KernelRequest&);

// Plans keep packed weights that do not change, so the time of a choice is the mean of a run that
// packs them and one that does not.
void RunNode(const std::string& name, const gw::Value& value, Choices choices_of, Report& report) {
  const gw::Graph& graph = *value.graph();
  const gradweave::Node& node = graph.node(value.port().node);
  const gradweave::KernelRequest request{node, graph.OperandTypes(node)};
  const std::vector<gradweave::KernelChoice> choices = choices_of(request);
  std::vector<std::string> names;
  std::vector<std::function<void()>> ways;
  for (const gradweave::KernelChoice& choice : choices) names.push_back(choice.name);
  // Each choice without and with kept weights.
  for (const bool keeps : {false, true}) {
    for (const gradweave::KernelChoice& choice : choices) {
      auto bound = std::make_shared<BoundKernel>(choice, request, keeps);
      ways.push_back([bound] { bound->Run(); });
    }
  }
  const std::vector<double> all = Measure(ways);
  std::vector<double> times;
  for (size_t i = 0; i < choices.size(); ++i) {
    times.push_back((all[i] + all[i + choices.size()]) / 2);
    report.Fit(name + " " + names[i], choices[i].estimate, times[i]);
  }
  report.Add(name, names, times, &gradweave::Cheapest(choices) - choices.data());
}

struct ConvCase {
  int64_t samples, channels, size, outputs, kernel, stride, padding, groups = 1;
};
constexpr ConvCase kConvs[] = {
    {4, 1, 28, 6, 5, 1, 2},       {4, 6, 14, 16, 5, 1, 0},         {4, 3, 32, 16, 3, 1, 1},
    {4, 16, 32, 16, 3, 1, 1},     {4, 32, 16, 32, 3, 1, 1},        {4, 64, 8, 64, 3, 1, 1},
    {2, 64, 16, 64, 3, 1, 1},     {1, 64, 28, 64, 3, 1, 1},        {1, 128, 14, 128, 3, 1, 1},
    {2, 128, 4, 128, 3, 1, 1},    {1, 256, 7, 256, 3, 1, 1},       {1, 512, 7, 512, 3, 1, 1},
    {1, 3, 64, 32, 7, 2, 3},      {1, 3, 224, 32, 7, 2, 3},        {1, 3, 112, 16, 3, 1, 1},
    {4, 16, 32, 32, 3, 2, 1},     {2, 64, 16, 128, 3, 2, 1},       {4, 32, 16, 32, 3, 1, 1, 32},
    {4, 32, 16, 64, 3, 1, 1, 4},  {4, 64, 16, 64, 1, 1, 0},        {4, 64, 16, 64, 1, 2, 0},
    {1, 32, 56, 32, 3, 1, 1},     {1, 64, 56, 64, 3, 1, 1},        {8, 128, 28, 128, 3, 1, 1},
    {4, 8, 12, 8, 3, 1, 1},       {4, 4, 9, 10, 3, 1, 1},          {1, 16, 16, 250, 3, 1, 1},
    {4, 20, 20, 48, 5, 1, 2},     {1, 384, 14, 384, 3, 1, 1, 384}, {1, 144, 16, 144, 3, 2, 1, 144},
    {1, 96, 56, 96, 3, 2, 1, 96}, {1, 384, 4, 384, 3, 1, 1, 384},  {1, 240, 14, 240, 5, 1, 2, 240}};

void RunConvs(Report& report) {
  for (const ConvCase& c : kConvs) {
    gw::Graph graph;
    gw::Scope scope(graph);
    const gw::Value x = scope.Input("x", gw::kFloat32, {c.samples, c.channels, c.size, c.size});
    const gw::Value filter =
        scope.Input("filter", gw::kFloat32, {c.outputs, c.channels / c.groups, c.kernel, c.kernel});
    const gw::Conv2DOptions options = {
        .stride = {c.stride, c.stride}, .padding = {c.padding, c.padding}, .groups = c.groups};
    const gw::Value y = gw::Conv2D(x, filter, options);
    const std::string name = absl::StrFormat("%dx%dx%d to %d, %dx%d/%d, groups %d", c.samples, c.channels, c.size,
                                             c.outputs, c.kernel, c.kernel, c.stride, c.groups);
    RunNode("convolution " + name, y, gradweave::Conv2DChoices, report);
    if (c.groups == 1) continue;
    const gw::Value dy = scope.Input("dy", gw::kFloat32, y.shape());
    RunNode("input gradient " + name, gw::Conv2DInputGrad(dy, filter, x.shape(), options),
            gradweave::Conv2DInputGradChoices, report);
    RunNode("filter gradient " + name, gw::Conv2DFilterGrad(x, dy, filter.shape(), options),
            gradweave::Conv2DFilterGradChoices, report);
  }
}

struct MatMulCase {
  int64_t rows, columns, terms;
  bool transpose_a = false, transpose_b = false;
};
constexpr MatMulCase kMatMuls[] = {{1, 16, 64},           {1, 64, 64},           {1, 512, 512},
                                   {1, 1000, 2048},       {2, 64, 64},           {2, 512, 512},
                                   {4, 256, 256},         {8, 64, 256},          {16, 16, 16},
                                   {64, 4, 64},           {64, 7, 64},           {64, 10, 84},
                                   {64, 1, 64},           {256, 1, 512},         {64, 64, 64},
                                   {256, 120, 400},       {256, 512, 512},       {256, 512, 512, false, true},
                                   {512, 512, 256, true}, {784, 256, 256, true}, {64, 512, 512},
                                   {64, 80, 96},          {48, 160, 192},        {128, 128, 2048},
                                   {128, 512, 1024},      {64, 1000, 1000},      {64, 1024, 1024},
                                   {32, 768, 768},        {16, 500, 500},        {8, 1024, 1024},
                                   {256, 1024, 256},      {256, 10, 84},         {1024, 1024, 128},
                                   {33, 17, 129},         {64, 32, 64},          {64, 64, 32},
                                   {64, 32, 64, true},    {128, 10, 1},          {12, 2048, 2048},
                                   {256, 256, 1},         {256, 256, 4},         {5, 100, 1000, false, true}};

void RunMatMuls(Report& report) {
  for (const MatMulCase& c : kMatMuls) {
    gw::Graph graph;
    gw::Scope scope(graph);
    using Sizes = std::vector<int64_t>;
    const gw::Value a =
        scope.Input("a", gw::kFloat32, gw::Shape(c.transpose_a ? Sizes{c.terms, c.rows} : Sizes{c.rows, c.terms}));
    const gw::Value b = scope.Input("b", gw::kFloat32,
                                    gw::Shape(c.transpose_b ? Sizes{c.columns, c.terms} : Sizes{c.terms, c.columns}));
    const gw::Value y = gw::MatMul(a, b, {.transpose_a = c.transpose_a, .transpose_b = c.transpose_b});
    RunNode(absl::StrFormat("product %dx%dx%d%s%s", c.rows, c.columns, c.terms, c.transpose_a ? " ta" : "",
                            c.transpose_b ? " tb" : ""),
            y, gradweave::MatMulChoices, report);
  }
}

// ---- Regions ----

struct GraphCase {
  std::string name;
  std::unique_ptr<gw::Graph> graph = std::make_unique<gw::Graph>();
  std::vector<gw::Feed> feeds = {};
  std::vector<gw::Fetch> fetches = {};
  std::vector<gw::Value> values = {};  // Values of all fetches.
};

void Finish(GraphCase& c, const gw::Value& input, const gw::Value& output, bool training) {
  if (!c.graph->status().ok()) Fail(c.graph->status());
  if (training) {
    const gw::Update step = gw::optim::Sgd{.learning_rate = 1e-6}.Minimize(gw::Mean(gw::Square(output)));
    c.fetches.push_back(step);
    c.values = step.assignments;
  } else {
    // One number per sample: otherwise the copy of the result would be measured.
    std::vector<int64_t> axes;
    for (int axis = 1; axis < output.rank(); ++axis) axes.push_back(axis);
    const gw::Value sums = gw::Sum(output, {.axes = gw::Integers(axes.begin(), axes.end())});
    c.fetches.push_back(sums);
    c.values = {sums};
  }
  c.feeds.emplace_back(input, RandomTensor(input.shape()));
}

// Dense layers of one width. If `shared` is true, an unrolled recurrence that shares its weights.
GraphCase Mlp(int64_t batch, int64_t width, int depth, bool training, bool shared = false) {
  GraphCase c{absl::StrFormat("%s of %d, %d layers, batch %d%s", shared ? "recurrence" : "dense", width, depth, batch,
                              training ? ", training" : "")};
  gw::Scope scope(*c.graph);
  const gw::Value input = scope.Input("x", gw::kFloat32, {batch, width});
  auto weights = [&](int layer) {
    return scope.Variable(absl::StrCat("w", layer), gw::RandomUniform(scope, {width, width}, -0.05, 0.05));
  };
  const gw::Value first = weights(0);
  gw::Value y = input;
  for (int layer = 0; layer < depth; ++layer) {
    const gw::Value product = gw::MatMul(y, shared || layer == 0 ? first : weights(layer));
    y = shared ? gw::Tanh(product + input * gw::Sigmoid(product)) : gw::Relu(product);
  }
  Finish(c, input, y, training);
  return c;
}

GraphCase ConvNet(int64_t batch, int64_t channels, int64_t size, int64_t kernel, int depth, bool pool, bool training) {
  GraphCase c{absl::StrFormat("%d convolutions %dx%d of %d on %dx%d%s, batch %d%s", depth, kernel, kernel, channels,
                              size, size, pool ? ", pools" : "", batch, training ? ", training" : "")};
  gw::Scope scope(*c.graph);
  const gw::Value input = scope.Input("x", gw::kFloat32, {batch, channels, size, size});
  gw::Value y = input;
  for (int layer = 0; layer < depth; ++layer) {
    const gw::Value filter = scope.Variable(
        absl::StrCat("f", layer), gw::RandomUniform(scope, {channels, channels, kernel, kernel}, -0.05, 0.05));
    y = gw::Relu(gw::Conv2D(y, filter, {.padding = {kernel / 2, kernel / 2}}));
    if (pool) y = gw::MaxPool2D(y);
  }
  Finish(c, input, y, training);
  return c;
}

GraphCase Elementwise(int64_t batch, int64_t elements, int depth) {
  GraphCase c{absl::StrFormat("%d elementwise ops on %d, batch %d", depth, elements, batch)};
  gw::Scope scope(*c.graph);
  const gw::Value input = scope.Input("x", gw::kFloat32, {batch, elements});
  gw::Value y = input;
  for (int i = 0; i < depth; ++i) y = gw::Relu(y * input);
  Finish(c, input, y, false);
  return c;
}

std::vector<GraphCase> TileCases() {
  std::vector<GraphCase> cases;
  for (const bool training : {false, true}) {
    for (int64_t width : {32, 64, 128, 256, 512}) cases.push_back(Mlp(64, width, 4, training));
    cases.push_back(Mlp(256, 256, 3, training));
    cases.push_back(Mlp(16, 128, 4, training));
    cases.push_back(Mlp(64, 512, 8, training));
    // The weights leave every cache of a core, and are too large to be kept packed.
    cases.push_back(Mlp(64, 512, 64, training));
    cases.push_back(Mlp(32, 64, 16, training, true));
    cases.push_back(Mlp(64, 128, 16, training, true));
    cases.push_back(ConvNet(64, 8, 16, 3, 3, true, training));
    cases.push_back(ConvNet(64, 16, 32, 3, 2, false, training));
    cases.push_back(ConvNet(32, 32, 16, 3, 3, false, training));
    cases.push_back(ConvNet(32, 64, 8, 3, 3, false, training));
    cases.push_back(ConvNet(16, 128, 8, 3, 2, false, training));
    cases.push_back(ConvNet(16, 256, 4, 3, 2, false, training));
    cases.push_back(ConvNet(16, 64, 32, 3, 2, false, training));
    cases.push_back(ConvNet(32, 16, 14, 5, 2, true, training));
    cases.push_back(ConvNet(32, 64, 8, 1, 3, false, training));
  }
  for (int64_t elements : {64, 1024, 16384}) cases.push_back(Elementwise(64, elements, 8));
  return cases;
}

// Normalization, softmax and sums of rows.
std::vector<GraphCase> RowCases() {
  std::vector<GraphCase> cases;
  for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{
           {4096, 4}, {4096, 8}, {4096, 12}, {4096, 16}, {4096, 32}, {512, 128}, {512, 1024}, {8, 4096}, {8, 32768}}) {
    GraphCase c{absl::StrFormat("normalized rows %dx%d", rows, columns)};
    gw::Scope scope(*c.graph);
    const gw::Value x = scope.Input("x", gw::kFloat32, {rows, columns});
    const gw::Value centered = x - gw::Mean(x, {.axes = {1}, .keep_dims = true});
    const gw::Value variance = gw::Mean(gw::Square(centered), {.axes = {1}, .keep_dims = true});
    const gw::Value y = gw::Softmax(gw::Relu(centered * gw::Rsqrt(variance + 1e-5)));
    Finish(c, x, y, false);
    cases.push_back(std::move(c));
  }
  return cases;
}

// The estimates of all nodes: with regions in tiles, in tiles without Toom-Cook, and one by one.
struct GraphEstimates {
  gradweave::Estimate tiled, direct, one_by_one;
};
GraphEstimates EstimatesOf(GraphCase& c) {
  c.graph->SetOutput("values", c.values);
  absl::StatusOr<gw::Graph> graph = gradweave::RunPipeline(*c.graph, {.evaluate = [](const auto& node, auto operands) {
    return gradweave::EvaluateNode(gradweave::CpuKernels(), node, operands);
  }});
  if (!graph.ok()) Fail(graph.status());
  const gradweave::BatchPartition partition =
      gradweave::FindBatchRegions(*graph, 1, gradweave::TileCompiler().supports);
  GraphEstimates estimates;
  for (const gradweave::OrderItem& item : partition.order) {
    if (item.is_node()) {
      const gradweave::Estimate node = gradweave::NodeEstimate(*graph, graph->node(item.node()), true);
      estimates.tiled.Add(node);
      estimates.direct.Add(node);
      estimates.one_by_one.Add(node);
    } else {
      const gradweave::BatchRegion& region = partition.regions[item.index];
      estimates.tiled.Add(gradweave::TileEstimate(*graph, region, true));
      estimates.direct.Add(gradweave::TileEstimate(*graph, region, false));
      estimates.one_by_one.Add(gradweave::OneByOneEstimate(*graph, region, true));
    }
  }
  return estimates;
}

// Times of the graph under each of the options.
std::vector<double> MeasureGraph(const GraphCase& c, const std::vector<gw::SessionOptions>& options) {
  std::vector<std::function<void()>> ways;
  for (gw::SessionOptions each : options) {
    each.threads = 1;
    absl::StatusOr<gw::Session> session = gw::Session::Create(*c.graph, each);
    if (!session.ok()) Fail(session.status());
    auto kept = std::make_shared<gw::Session>(*std::move(session));
    auto run = kept->Prepare(c.feeds, c.fetches);
    if (!run.ok()) Fail(run.status());
    ways.push_back([kept, run = std::shared_ptr<gw::PreparedRun>(*std::move(run))] {
      if (const absl::Status status = run->Run(); !status.ok()) Fail(status);
    });
  }
  return Measure(ways);
}

void RunTiles(Report& report) {
  for (GraphCase& c : TileCases()) {
    const GraphEstimates estimates = EstimatesOf(c);
    const std::vector<double> times = MeasureGraph(c, {{.batch_tiles = gw::BatchTiles::kNever},
                                                       {.batch_tiles = gw::BatchTiles::kAlways},
                                                       {.batch_tiles = gw::BatchTiles::kAuto},
                                                       {.batch_tiles = gw::BatchTiles::kAlways, .toom_cook = false}});
    report.Fit(c.name + " in tiles", estimates.tiled, times[1]);
    report.Fit(c.name + " in tiles without Toom-Cook", estimates.direct, times[3]);
    report.Fit(c.name + " one by one", estimates.one_by_one, times[0]);
    report.Add(c.name, {"one by one", "in tiles", "the plan"}, {times[0], times[1], times[2]}, 2);
    const bool same = estimates.tiled.nanoseconds() == estimates.direct.nanoseconds();
    if (!same) report.Add(c.name, {"Toom-Cook", "direct sums"}, {times[1], times[3]}, 0);
  }
}

void RunRows(Report& report) {
  for (GraphCase& c : RowCases()) {
    const std::vector<double> times =
        MeasureGraph(c, {{.batch_tiles = gw::BatchTiles::kNever, .row_fusion = gw::RowFusion::kNever},
                         {.batch_tiles = gw::BatchTiles::kNever, .row_fusion = gw::RowFusion::kAlways},
                         {.batch_tiles = gw::BatchTiles::kNever, .row_fusion = gw::RowFusion::kAuto}});
    report.Add(c.name, {"one by one", "rows together", "the plan"}, times, 2);
  }
}

// ---- The fit ----

// Returns the constants of the machine's row that come closest to all samples, by their relative
// errors. Constants that few samples depend on stay near those of the compiled row. A zero in that
// row means that the model leaves the amount out, so it stays zero.
std::vector<double> Fit(const std::vector<Sample>& samples) {
  constexpr int kUnits = 4;
  constexpr double kTrust = 0.1;  // Weight of the compiled row, in samples of one constant.
  const int n = gradweave::kNumLoops * kUnits;
  auto units = [](const gradweave::Work& work) {
    return std::vector<double>{work.calls, work.products, work.moved, work.far};
  };
  std::vector<double> compiled;
  for (const gradweave::Work& work : gradweave::ThisMachine().nanoseconds)
    for (double unit : units(work)) compiled.push_back(unit);
  std::vector<double> x = compiled;
  std::vector<std::vector<double>> rows;  // Counts by the time that they take.
  for (const Sample& sample : samples) {
    std::vector<double>& row = rows.emplace_back();
    for (int loop = 0; loop < gradweave::kNumLoops; ++loop)
      for (double count : units(sample.estimate[static_cast<gradweave::Loop>(loop)]))
        row.push_back(count / sample.nanoseconds);
  }
  // Least squares with positive constants. Samples with large errors count less the next time.
  std::vector<double> weights(rows.size(), 1);
  for (int pass = 0; pass < 5; ++pass) {
    std::vector<std::vector<double>> normal(n, std::vector<double>(n, 0));
    std::vector<double> right(n, 0);
    for (size_t r = 0; r < rows.size(); ++r) {
      for (int i = 0; i < n; ++i) {
        right[i] += weights[r] * rows[r][i];
        for (int j = 0; j < n && rows[r][i] != 0; ++j) normal[i][j] += weights[r] * rows[r][i] * rows[r][j];
      }
    }
    for (int i = 0; i < n; ++i) {
      if (compiled[i] == 0) continue;
      normal[i][i] += kTrust / (compiled[i] * compiled[i]);
      right[i] += kTrust / compiled[i];
    }
    for (int round = 0; round < 5000; ++round) {
      for (int i = 0; i < n; ++i) {
        if (compiled[i] == 0) continue;
        double rest = right[i];
        for (int j = 0; j < n; ++j) rest -= j == i ? 0 : normal[i][j] * x[j];
        x[i] = std::max(compiled[i] / 4, rest / normal[i][i]);
      }
    }
    for (size_t r = 0; r < rows.size(); ++r) {
      double estimate = 0;
      for (int i = 0; i < n; ++i) estimate += rows[r][i] * x[i];
      weights[r] = 1 / std::max(0.1, std::abs(estimate - 1));
    }
  }
  return x;
}

void PrintRow(const std::vector<double>& x) {
  const char* const names[] = {"kGemm",        "kSmallGemm",    "kGemv",        "kProduct",     "kImplicit",
                               "kRowSums",     "kColumns",      "kDirectSums",  "kChannelSums", "kWinograd",
                               "kElements",    "kWindows",      "kWindowSums",  "kTileSums",    "kTileToomCook",
                               "kTileFilters", "kTileElements", "kTileBoundary"};
  static_assert(std::size(names) == gradweave::kNumLoops);
  std::cout << "\n{.name = \"" << gradweave::ThisMachine().name << "\", .nanoseconds = {{\n";
  for (int loop = 0; loop < gradweave::kNumLoops; ++loop) {
    std::cout << absl::StrFormat("    {%.3g, %.3g, %.3g, %.3g},  // %s\n", x[4 * loop], x[4 * loop + 1],
                                 x[4 * loop + 2], x[4 * loop + 3], names[loop]);
  }
  std::cout << "}}, ...}\n";
}

}  // namespace

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (absl::GetFlag(FLAGS_avx2)) {
    // OpenBLAS chooses its kernels when it is loaded, so the program starts again.
    if (std::getenv("OPENBLAS_CORETYPE") == nullptr) {
      setenv("OPENBLAS_CORETYPE", "Haswell", 1);
      execv("/proc/self/exe", argv);
      Fail(absl::InternalError("the program cannot start itself again"));
    }
    hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL);
  }
  std::cout << "Class " << gradweave::ThisMachine().name << ", one thread.\n";
  Report report;
  RunConvs(report);
  RunMatMuls(report);
  RunRows(report);
  RunTiles(report);
  std::cout << absl::StrFormat("%d of %d choices take over %.0f %% longer than the best.\n", report.wrong,
                               report.choices, absl::GetFlag(FLAGS_margin) * 100);
  PrintRow(Fit(report.samples));
  return 0;
}
