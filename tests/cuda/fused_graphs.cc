#include "tests/cuda/fused_graphs.h"

#include <cmath>
#include <cstring>
#include <iterator>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/partition/device_parts.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/passes/placement.h"
#include "gradweave/ops/builder.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/plan/lower.h"

namespace gradweave {
namespace {

// Each op as a chain of its own.
Graph EachOp(DType dtype, const Shape& shape) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", dtype, shape), y = scope.Input("y", dtype, shape);
  const Value truth = scope.Input("truth", kBool, shape), rate = scope.Input("rate", dtype, {});
  std::vector<Value> results;
  for (const char* op : kFusedUnary) results.push_back(AddOp(op, {x}));
  for (const char* op : kFusedBinary) results.push_back(AddOp(op, {x, y}));
  results.insert(results.end(), {Where(truth, x, y), LeakyRelu(x, 0.2), Elu(x, 1.5), Clip(x, -0.5, 0.25),
                                 Cast(truth, dtype), rate - x, x * 0.75});
  graph.SetOutput("results", results);
  return AfterPasses(graph);
}

Value AsNumber(Value x, DType dtype) { return x.dtype() == kBool ? Cast(x, dtype) : x; }

// All ops in two chains.
Graph AllOps(DType dtype, const Shape& shape) {
  Graph graph;
  Scope scope(graph);
  std::vector<Value> results;
  const Value x = scope.Input("x", dtype, shape), y = scope.Input("y", dtype, shape);
  Value sum = x * y;
  for (const char* op : kFusedUnary) sum = sum + AddOp(op, {x});
  results.push_back(Where(scope.Input("truth", kBool, shape), LeakyRelu(sum, 0.2), Elu(sum, 1.5)));
  const Value a = scope.Input("a", dtype, shape), b = scope.Input("b", dtype, shape);
  Value product = Clip(a, -0.5, 0.25);
  for (const char* op : kFusedBinary) product = product + AsNumber(AddOp(op, {a, b}), dtype);
  results.push_back(product);
  results.push_back(Greater(product, a));
  graph.SetOutput("results", results);
  return AfterPasses(graph);
}

// Random chains that branch and join, with bools, numbers, operands that broadcast, and several
// outputs.
Graph RandomGraph(int seed, DType dtype, const Shape& shape) {
  std::mt19937 random(seed);
  Graph graph;
  Scope scope(graph);
  std::vector<Value> values = {scope.Input("a", dtype, shape), scope.Input("b", dtype, shape),
                               scope.Input("c", dtype, shape), scope.Input("number", dtype, {})};
  Value truth = scope.Input("truth", kBool, shape);
  if (seed % 4 >= 2) {
    const Shape row = {shape[2]}, column = {shape[0], 1, 1}, matrix = {shape[1], 1};
    values.push_back(scope.Input("row", dtype, row));
    values.push_back(scope.Input("column", dtype, column));
    values.push_back(scope.Input("matrix", dtype, matrix));
    values.push_back(BroadcastTo(scope.Input("repeated", dtype, {shape[1], shape[2]}), shape));
    truth = scope.Input("truth_of_rows", kBool, {shape[0], shape[1], 1});
  }
  auto any = [&] { return values[random() % values.size()]; };
  auto whole = [&] {
    Value value = any();
    while (!(value.shape() == shape)) value = any();
    return value;
  };
  for (int i = 0; i < 14; ++i) {
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        // Tanh keeps the result finite for every op.
        values.push_back(Tanh(AddOp(kFusedUnary[random() % std::size(kFusedUnary)], {Abs(whole()) + 0.1})));
        break;
      case 3:
        values.push_back(Where(Less(any(), whole()), whole(), any()));
        break;
      case 4:
        values.push_back(Where(truth, any(), any()));
        break;
      case 5:
        values.push_back(Clip(whole(), -0.7, 0.6) * 0.3);
        break;
      default: {
        const char* op = kFusedBinary[random() % std::size(kFusedBinary)];
        // Gradient ops need operands of one shape.
        const Value second = absl::EndsWith(op, "Grad") ? whole() : any();
        values.push_back(Tanh(AsNumber(AddOp(op, {Abs(whole()), second}), dtype)));
      }
    }
  }
  graph.SetOutput("results", {values.back(), values[values.size() - 2], values[values.size() / 2],
                              GreaterEqual(values.back(), values[values.size() - 3])});
  return AfterPasses(graph);
}

// Random chains that end in reductions, several at once and of values with other readers; chains
// read the results.
Graph RandomReductions(int seed, DType dtype) {
  std::mt19937 random(100 + seed);
  // Rows for a warp and for a block, few and many columns, and reduced axes that blocks share, with
  // and without remainders.
  const std::vector<Shape> shapes = {{6, 40},    {3, 700},       {300, 20}, {2, 9001},
                                     {5, 6, 33}, {2, 70, 3, 40}, {260, 3},  {70, 1, 64}};
  const Shape& shape = shapes[seed % shapes.size()];
  const int last = shape.rank() - 1;
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Input("a", dtype, shape), b = scope.Input("b", dtype, shape);
  const Value row = scope.Input("row", dtype, {shape[last]});
  std::vector<Value> whole = {a, b}, results;
  auto any = [&](const std::vector<Value>& values) { return values[random() % values.size()]; };
  Integers leading;
  for (int axis = 0; axis < last; ++axis) leading.push_back(axis);
  Integers all = leading;
  all.push_back(last);
  const std::vector<Integers> axes = {{last}, leading, all, {0, last}, {0}};
  for (int round = 0; round < 3; ++round) {
    const Value x = Tanh(any(whole) * any(whole) + row * 0.5);
    const Value y = Where(Less(x, any(whole)), x, Sigmoid(any(whole)));
    const Integers& over = axes[random() % axes.size()];
    const std::vector<Value> reduced = {
        Sum(x, {.axes = over, .keep_dims = true}),           Mean(y, {.axes = over, .keep_dims = true}),
        Max(y * x, {.axes = over, .keep_dims = true}),       Min(x - y, {.axes = over, .keep_dims = true}),
        LogSumExp(x + y, {.axes = over, .keep_dims = true}), Prod(y + 0.4, {.axes = over, .keep_dims = true})};
    // In some rounds, more reductions than one kernel takes.
    const size_t count = 1 + random() % reduced.size();
    Value sum = reduced[round];
    for (size_t i = 0; i < count; ++i) {
      const Value one = reduced[(i + seed) % reduced.size()];
      results.push_back(one);
      sum = sum + Tanh(one);
    }
    if (random() % 2 == 0) results.push_back(y);
    whole.push_back(Tanh(y - sum));
    // Reductions over other axes read the same chain.
    results.push_back(Sum(y, {.axes = axes[random() % axes.size()]}));
  }
  graph.SetOutput("results", results);
  return AfterPasses(graph);
}

// Gradients of average pools, which have one element of dy for each window, in chains with operands
// that broadcast in other ways, with and without reductions.
Graph PoolGradients(DType dtype) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", dtype, {3, 4, 6, 8}), y = scope.Input("y", dtype, {3, 4, 6, 8});
  const Value scale = scope.Input("scale", dtype, {4, 1, 1}), row = scope.Input("row", dtype, {8});
  std::vector<Value> results;
  for (const Integers& window : {Integers{2, 2}, Integers{1, 8}, Integers{2, 1}, Integers{3, 2}}) {
    const Value pooled = AvgPool2D(x, {.window = window});
    const Value dx = Gradients({Sum(Square(pooled))}, {x})[0];
    const Value chain = Tanh(dx * y + row) * scale;
    results.push_back(chain);
    results.push_back(Sum(chain, {.axes = {0, 2, 3}}));
  }
  // Two windows in one chain.
  const std::vector<Value> of_both =
      Gradients({Sum(Square(AvgPool2D(x, {.window = {2, 2}}))) + Sum(Exp(AvgPool2D(x, {.window = {2, 4}})))}, {x});
  results.push_back(of_both[0]);
  graph.SetOutput("results", results);
  return AfterPasses(graph);
}

// Runs a session and returns the graph's outputs.
absl::StatusOr<std::vector<Tensor>> RunInSession(const FusedGraph& fused, const SessionOptions& options) {
  Graph graph = fused.graph;
  std::mt19937 random(11);
  std::vector<Feed> feeds;
  for (const Node& node : fused.graph.nodes()) {
    if (node.op->name != "Input") continue;
    feeds.push_back({graph.value(node.id), RandomTensor(node.outputs[0], fused.low, fused.high, random)});
  }
  std::vector<Fetch> fetches;
  for (const auto& [name, ports] : fused.graph.outputs()) {
    for (Port port : ports) fetches.push_back(graph.value(port));
  }
  GW_ASSIGN_OR_RETURN(Session session, Session::Create(graph, options));
  return session.Run(feeds, fetches);
}

// Returns the losses of a few steps. From the third step on, CUDA graphs are replayed.
absl::StatusOr<std::vector<Tensor>> TrainInSession(const SessionOptions& options) {
  const SmallNetwork network;
  GW_ASSIGN_OR_RETURN(Session session, Session::Create(network.graph, options));
  std::vector<Tensor> losses;
  for (int i = 0; i < 4; ++i) {
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, session.Run(network.Feeds(i), {network.loss, network.step}));
    losses.push_back(results[0]);
  }
  return losses;
}

}  // namespace

Graph AfterPasses(const Graph& graph, const DimBindings& bindings) {
  GW_CHECK(graph.status().ok(), graph.status().ToString());
  const absl::StatusOr<Graph> specialized =
      RunPipeline(graph, {.bindings = bindings, .evaluate = [](const Node& node, absl::Span<const Tensor> operands) {
                            return EvaluateNode(CpuKernels(), node, operands);
                          }});
  GW_CHECK(specialized.ok(), specialized.status().ToString());
  return *specialized;
}

std::vector<Graph> DevicePartsOf(const Graph& graph) {
  const absl::StatusOr<Placement> placed =
      Place(graph, {.device = "cuda:0", .check = [](const Node&, absl::string_view) { return absl::OkStatus(); }});
  GW_CHECK(placed.ok(), placed.status().ToString());
  absl::StatusOr<DeviceParts> parts = FindDeviceParts(placed->graph);
  GW_CHECK(parts.ok(), parts.status().ToString());
  std::vector<Graph> graphs;
  for (DevicePart& part : parts->parts) graphs.push_back(std::move(part.graph));
  return graphs;
}

Graph PlanOf(const Graph& whole, const std::vector<Value>& fetches, const std::vector<Value>& updates,
             const DimBindings& bindings) {
  Graph graph = whole;
  auto in_copy = [&](const std::vector<Value>& values) {
    std::vector<Value> result;
    for (const Value& value : values) result.push_back(graph.value(value.port()));
    return result;
  };
  graph.ClearOutputs();
  graph.SetOutput(kFetches, in_copy(fetches));
  graph.SetOutput(kUpdates, in_copy(updates));
  return AfterPasses(graph, bindings);
}

std::vector<FusedGraph> FusedGraphs() {
  std::vector<FusedGraph> graphs;
  for (DType dtype : {kFloat32, kFloat64}) {
    // Sizes with and without a remainder in a pack, and of more than one block.
    const Shape odd = {3, 5, 7}, large = {4, 24, 40};
    graphs.push_back({absl::StrCat("each_op_", DTypeName(dtype)), EachOp(dtype, odd)});
    graphs.push_back({absl::StrCat("all_ops_", DTypeName(dtype)), AllOps(dtype, large), 0.05, 1});
    graphs.push_back({absl::StrCat("pool_gradients_", DTypeName(dtype)), PoolGradients(dtype)});
    for (int seed = 0; seed < 8; ++seed) {
      graphs.push_back({absl::StrCat("random_", DTypeName(dtype), "_", seed),
                        RandomGraph(seed, dtype, seed % 2 == 0 ? odd : large)});
    }
    for (int seed = 0; seed < 8; ++seed) {
      graphs.push_back({absl::StrCat("reductions_", DTypeName(dtype), "_", seed), RandomReductions(seed, dtype)});
    }
  }
  const SmallNetwork network;
  graphs.push_back({"training", PlanOf(network.graph, {network.loss}, network.step.assignments,
                                       {{"batch", SmallNetwork::kSamples}})});
  return graphs;
}

std::vector<FusedGraph> AllFusedGraphs() {
  std::vector<FusedGraph> graphs;
  for (std::vector<FusedGraph> some : {FusedGraphs(), RowGraphs(), ConvGraphs()}) {
    std::move(some.begin(), some.end(), std::back_inserter(graphs));
  }
  return graphs;
}

SmallNetwork::SmallNetwork() {
  Scope scope(graph);
  x = scope.Input("x", kFloat32, {Dim("batch"), 1, 4, 6});
  label = scope.Input("label", kInt32, {Dim("batch")});
  const nn::Sequential layers{nn::Conv2D{.channels = 3, .kernel = 3, .padding = 1},
                              nn::Sigmoid{},
                              nn::AvgPool2D{.pool = 2},
                              nn::Flatten{},
                              nn::Dense{9},
                              nn::Sigmoid{},
                              nn::Dense{4}};
  loss = nn::SoftmaxCrossEntropy(layers(scope, x), label);
  step = optim::Adam{.learning_rate = 0.05}.Minimize(loss);
  GW_CHECK(graph.status().ok(), graph.status().ToString());
}

std::vector<Feed> SmallNetwork::Feeds(int step_number) const {
  Tensor values(kFloat32, {kSamples, 1, 4, 6}), labels(kInt32, {kSamples});
  for (int64_t i = 0; i < values.num_elements(); ++i) {
    values.mutable_data<float>()[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i) + step_number));
  }
  for (int i = 0; i < kSamples; ++i) labels.mutable_data<int32_t>()[i] = (i + step_number) % 4;
  return {{x, values}, {label, labels}};
}

Tensor RandomTensor(const TensorType& type, double low, double high, std::mt19937& random) {
  Tensor tensor(kFloat64, type.shape.sizes());
  for (double& value : tensor.mutable_values<double>()) {
    value = low + (high - low) * static_cast<double>(random() % 10001) / 10000;
    if (type.dtype == kBool) value = static_cast<double>(random() % 2);
  }
  return tensor.Cast(type.dtype);
}

std::string Difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  if (a.size() != b.size()) return absl::StrCat("there are ", a.size(), " and ", b.size(), " tensors");
  for (size_t k = 0; k < a.size(); ++k) {
    if (!(a[k].type() == b[k].type())) return absl::StrCat("tensor ", k, " has two types");
    const size_t size = DTypeSize(a[k].dtype());
    const std::vector<double> of_a = a[k].ToDoubles(), of_b = b[k].ToDoubles();
    for (size_t i = 0; i < of_a.size(); ++i) {
      if (std::isnan(of_a[i]) && std::isnan(of_b[i])) continue;
      if (std::memcmp(static_cast<const char*>(a[k].raw_data()) + i * size,
                      static_cast<const char*>(b[k].raw_data()) + i * size, size) != 0) {
        return absl::StrCat("element ", i, " of tensor ", k, " is ", of_a[i], " and ", of_b[i]);
      }
    }
  }
  return "";
}

absl::Status CompareGeneratedWithInterpreted(const Device& device) {
  auto compare = [&](const std::string& name, auto run) -> absl::Status {
    SessionOptions options = {.device = device, .threads = 1, .cuda = {.generated_kernels = GeneratedKernels::kAlways}};
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> generated, run(options));
    options.cuda.generated_kernels = GeneratedKernels::kNever;
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> interpreted, run(options));
    const std::string difference = Difference(generated, interpreted);
    return difference.empty() ? absl::OkStatus() : absl::InternalError(absl::StrCat(name, ": ", difference));
  };
  for (const FusedGraph& fused : AllFusedGraphs()) {
    if (!fused.graph.outputs().contains("results")) continue;  // The training step.
    GW_RETURN_IF_ERROR(
        compare(fused.name, [&](const SessionOptions& options) { return RunInSession(fused, options); }));
  }
  return compare("training", TrainInSession);
}

}  // namespace gradweave
