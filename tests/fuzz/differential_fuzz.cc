// One graph, run in many ways that must agree: bytes become a network with gradients and updates,
// which runs twice in each way. Where the documentation promises the same bits, results and
// variables are compared bit for bit; elsewhere, within the error that rounding can cause.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/print.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/plan/lower.h"
#include "gradweave/runtime/session/backends.h"
#include "gradweave/runtime/session/session.h"
#include "tests/fuzz/graph_maker.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

// Results of the first run, of the second run, and the variables after both.
using Outcome = absl::StatusOr<std::vector<Tensor>>;
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

struct Case {
  Graph graph;
  std::vector<Feed> feeds;
  std::vector<Fetch> fetches;
  Update update;
  DimBindings bindings;
  NamedTensors variables;  // Initial values.
  bool sums_rows = false;  // Some sum is over another axis than the last.
};

SessionOptions Plain() {
  return {
      .threads = 1, .seed = 7, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever, .toom_cook = false};
}

std::vector<Fetch> AllFetches(const Case& made) {
  std::vector<Fetch> fetches = made.fetches;
  if (!made.update.assignments.empty()) fetches.emplace_back(made.update);
  return fetches;
}

Outcome RunTwice(const Case& made, absl::StatusOr<Session> session) {
  GW_RETURN_IF_ERROR(session.status());
  std::vector<Tensor> all;
  for (int run = 0; run < 2; ++run) {
    GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, session->Run(made.feeds, AllFetches(made)));
    all.insert(all.end(), results.begin(), results.end());
  }
  for (const auto& [name, value] : made.variables) {
    GW_ASSIGN_OR_RETURN(all.emplace_back(), session->GetVariable(name));
  }
  return all;
}

Outcome RunWith(const Case& made, SessionOptions options) {
  options.variables = made.variables;
  return RunTwice(made, Session::Create(made.graph, std::move(options)));
}

Outcome RunPrepared(const Case& made, SessionOptions options) {
  options.variables = made.variables;
  GW_ASSIGN_OR_RETURN(Session session, Session::Create(made.graph, std::move(options)));
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<PreparedRun> run, session.Prepare(made.feeds, AllFetches(made)));
  std::vector<Tensor> all;
  for (int i = 0; i < 2; ++i) {
    GW_RETURN_IF_ERROR(run->Run());
    for (const Tensor& result : run->results()) all.push_back(result.Clone());
  }
  for (const auto& [name, value] : made.variables) {
    GW_ASSIGN_OR_RETURN(all.emplace_back(), session.GetVariable(name));
  }
  return all;
}

// Saves the session before its first run and continues in a session of the file.
Outcome RunSaved(const Case& made, SessionOptions options) {
  options.variables = made.variables;
  GW_ASSIGN_OR_RETURN(const Session session, Session::Create(made.graph, options));
  const std::string path = ScratchFile("saved.gw", "");
  GW_RETURN_IF_ERROR(SaveModel(session, path));
  GW_ASSIGN_OR_RETURN(const Model model, LoadModel(path));
  // The values of the loaded graph have other serials.
  Graph graph = model.graph;
  auto moved = [&](const Value& value) { return graph.value(value.port()); };
  Case loaded;
  loaded.graph = graph;
  for (const auto& [value, tensor] : made.feeds) loaded.feeds.emplace_back(moved(value), tensor);
  for (const Fetch& fetch : made.fetches) loaded.fetches.emplace_back(moved(fetch.values()[0]));
  for (const Value& value : made.update.assignments) loaded.update.assignments.push_back(moved(value));
  loaded.variables = made.variables;
  return RunTwice(loaded, CreateSession(model, options));
}

absl::StatusOr<std::unique_ptr<CompiledGraph>> LowerCase(const Case& made, const std::string& left_out,
                                                         std::shared_ptr<Variables> variables) {
  static const auto* const kCpu = new std::shared_ptr<BackendDevice>(*FindBackend("cpu")->backend.open(0, {}));
  Graph wanted = made.graph;
  wanted.ClearOutputs();
  std::vector<Value> fetches, updates;
  for (const Fetch& fetch : made.fetches) fetches.push_back(wanted.value(fetch.values()[0].port()));
  for (const Value& value : made.update.assignments) updates.push_back(wanted.value(value.port()));
  wanted.SetOutput(kFetches, fetches);
  wanted.SetOutput(kUpdates, updates);
  auto evaluate = [](const Node& node, absl::Span<const Tensor> operands) {
    return EvaluateNode(CpuKernels(), node, operands);
  };
  return Lower(wanted, {.pipeline = {.bindings = made.bindings, .evaluate = evaluate},
                        .compile = {{.threads = 1,
                                     .batch_tiles = BatchTiles::kNever,
                                     .row_fusion = RowFusion::kNever,
                                     .toom_cook = false}},
                        .devices = {*kCpu},
                        .device = "cpu:0",
                        .variables = std::move(variables),
                        .left_out = left_out});
}

Outcome RunWithout(const Case& made, const std::string& stage) {
  auto variables = std::make_shared<Variables>();
  for (const auto& [name, value] : made.variables) variables->Add(name, value.Clone());
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<CompiledGraph> plan, LowerCase(made, stage, variables));
  std::vector<const void*> feeds;
  for (const std::string& name : plan->input_names()) {
    for (const auto& [value, tensor] : made.feeds) {
      if (value.node().name == name) feeds.push_back(tensor.raw_data());
    }
  }
  ThreadPool pool(1);
  std::vector<Tensor> all;
  for (uint64_t run = 1; run <= 2; ++run) {
    std::vector<Tensor> results;
    for (const TensorType& type : plan->fetch_types()) results.emplace_back(type.dtype, type.shape.sizes());
    GW_RETURN_IF_ERROR(plan->Run(feeds, absl::MakeSpan(results), pool, Plain().seed, run));
    all.insert(all.end(), results.begin(), results.end());
  }
  for (const auto& [name, value] : made.variables) all.push_back(variables->Find(name)->host.Clone());
  return all;
}

// Returns the first difference between bits as text. All NaN count as equal.
std::string CompareBits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  if (a.size() != b.size()) return "another number of tensors";
  for (size_t i = 0; i < a.size(); ++i) {
    if (SameBits(a[i], b[i])) continue;
    if (!(a[i].type() == b[i].type())) return absl::StrCat("tensor ", i, " has another type");
    const std::vector<double> x = a[i].ToDoubles(), y = b[i].ToDoubles();
    for (size_t k = 0; k < x.size(); ++k) {
      if (std::isnan(x[k]) ? std::isnan(y[k]) : x[k] == y[k] && std::signbit(x[k]) == std::signbit(y[k])) continue;
      return absl::StrCat("tensor ", i, " ", a[i].type().ToString(), ", element ", k, ": ", x[k], " and ", y[k]);
    }
  }
  return "";
}

constexpr double kRounding = 0x1p-21;

// A copy with random relative changes of floating elements.
Tensor Perturbed(const Tensor& tensor, std::mt19937_64& random) {
  const auto change = [&] { return (static_cast<double>(random() % 257) - 128) / 128 * kRounding; };
  Tensor copy = tensor.Clone();
  for (float& value : copy.mutable_values<float>()) value = static_cast<float>(value * (1 + change()));
  for (double& value : copy.mutable_values<double>()) value *= 1 + change();
  return copy;
}

// The case with every floating value of a node multiplied by random numbers near 1, as if it were
// rounded to fewer bits. Another seed gives other numbers.
absl::StatusOr<Case> Rounded(const Case& made, int64_t seed) {
  Graph wanted = made.graph;
  wanted.ClearOutputs();
  std::vector<Value> fetches;
  for (const Fetch& fetch : made.fetches) fetches.push_back(wanted.value(fetch.values()[0].port()));
  for (const auto& [input, tensor] : made.feeds) fetches.push_back(wanted.value(input.port()));
  std::vector<Value> updates;
  for (const Value& value : made.update.assignments) updates.push_back(wanted.value(value.port()));
  wanted.SetOutput(kFetches, fetches);
  wanted.SetOutput(kUpdates, updates);
  auto round = [seed](const Node& node, absl::Span<const Port> inputs,
                      Graph& result) -> absl::StatusOr<std::optional<Ports>> {
    if (node.op->is_source() || node.op->kind == OpKind::kAssign) return std::nullopt;
    GW_ASSIGN_OR_RETURN(const NodeId copy, result.AddNodeLike(node, inputs));
    Ports ports = result.node(copy).ports();
    for (Port& port : ports) {
      const TensorType type = result.type(port);
      if (!IsFloating(type.dtype)) continue;
      const NamedAttribute attributes[] = {{"shape", type.shape},
                                           {"dtype", type.dtype},
                                           {"seed", seed + result.num_nodes()},
                                           {"low", 1 - kRounding},
                                           {"high", 1 + kRounding}};
      GW_ASSIGN_OR_RETURN(const NodeId factor,
                          result.AddNode({.op = CoreOps().Find("RandomUniform"), .attributes = attributes}));
      const Port operands[] = {port, {factor, 0}};
      GW_ASSIGN_OR_RETURN(const NodeId product, result.AddNode({.op = CoreOps().Find("Mul"), .inputs = operands}));
      port = {product, 0};
    }
    return ports;
  };
  Case rounded;
  GW_ASSIGN_OR_RETURN(rounded.graph, Rewrite(wanted, round));
  std::vector<Value> values = rounded.graph.Output(kFetches);
  for (size_t i = 0; i < made.fetches.size(); ++i) rounded.fetches.emplace_back(values[i]);
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < made.feeds.size(); ++i) {
    rounded.feeds.emplace_back(values[made.fetches.size() + i], Perturbed(made.feeds[i].second, random));
  }
  rounded.update.assignments = rounded.graph.Output(kUpdates);
  // Variables that nothing uses are gone.
  for (const auto& [name, value] : made.variables) {
    if (rounded.graph.FindNamed(name) >= 0) rounded.variables.emplace_back(name, Perturbed(value, random));
  }
  return rounded;
}

// How much rounding can change each element of an outcome. It tells results that amplify rounding,
// or jump, from wrong ones.
std::vector<std::vector<double>> Spread(const Case& made, const std::vector<Tensor>& expected) {
  constexpr int kRuns = 24;
  std::vector<std::vector<double>> spread;
  for (const Tensor& tensor : expected) spread.emplace_back(tensor.num_elements(), 0.0);
  for (int run = 0; run < kRuns; ++run) {
    const absl::StatusOr<Case> rounded = Rounded(made, int64_t{1'000'000} * (run + 1));
    GW_CHECK(rounded.ok(), rounded.status().ToString());
    const Outcome outcome = RunWith(*rounded, Plain());
    if (!outcome.ok()) continue;
    // The results of two runs, and the variables that are left.
    size_t next = 2 * made.fetches.size();
    std::vector<const Tensor*> got(expected.size(), nullptr);
    for (size_t i = 0; i < next; ++i) got[i] = &(*outcome)[i];
    for (size_t i = 0; i < made.variables.size(); ++i) {
      if (rounded->graph.FindNamed(made.variables[i].first) >= 0)
        got[2 * made.fetches.size() + i] = &(*outcome)[next++];
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      if (got[i] == nullptr) continue;
      const std::vector<double> x = expected[i].ToDoubles(), y = got[i]->ToDoubles();
      for (size_t k = 0; k < x.size(); ++k) {
        const double change = std::abs(x[k] - y[k]);
        spread[i][k] = std::isfinite(change) ? std::max(spread[i][k], change) : HUGE_VAL;
      }
    }
  }
  return spread;
}

// Returns the first difference that rounding does not explain, as text.
std::string CompareClose(const Case& made, const std::vector<Tensor>& expected, const std::vector<Tensor>& actual) {
  if (expected.size() != actual.size()) return "another number of tensors";
  std::vector<std::vector<double>> spread;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!(expected[i].type() == actual[i].type())) return absl::StrCat("tensor ", i, " has another type");
    const bool is_float = expected[i].dtype() == kFloat32;
    const std::vector<double> want = expected[i].ToDoubles(), got = actual[i].ToDoubles();
    double scale = 0;
    for (double value : want) scale = std::isfinite(value) ? std::max(scale, std::abs(value)) : scale;
    const double tolerance =
        IsFloating(expected[i].dtype()) ? (is_float ? 2e-5 * scale + 1e-36 : 1e-12 * scale + 1e-300) : 0;
    for (size_t k = 0; k < want.size(); ++k) {
      if (want[k] == got[k] || (std::isnan(want[k]) && std::isnan(got[k]))) continue;
      const double difference = std::abs(want[k] - got[k]);
      if (difference <= tolerance) continue;
      if (spread.empty()) spread = Spread(made, expected);
      if (difference <= 4 * spread[i][k] + tolerance || spread[i][k] == HUGE_VAL) continue;
      return absl::StrCat("tensor ", i, " ", expected[i].type().ToString(), ", element ", k, ": ", want[k], " and ",
                          got[k], "; rounding changes it by ", spread[i][k]);
    }
  }
  return "";
}

// Returns true if a run of the case meets a NaN or an infinity, be it in a value that is not
// fetched.
bool MeetsNonFinite(const Case& made) {
  Case all = made;
  Graph& graph = all.graph;
  all.fetches.clear();
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kAssign) continue;
    for (Port port : node.ports()) {
      if (IsFloating(graph.type(port).dtype)) all.fetches.emplace_back(graph.value(port));
    }
  }
  const Outcome outcome = RunWith(all, Plain());
  if (!outcome.ok()) return false;
  for (const Tensor& tensor : *outcome) {
    for (double value : tensor.ToDoubles()) {
      if (!std::isfinite(value)) return true;
    }
  }
  return false;
}

enum class Promise {
  kSameBits,
  kClose,
  // Close, if all values are finite. Convolutions in tiles mix the elements of a row (Toom-Cook)
  // and multiply weights by the zeros of the padding, so a NaN or an infinity may reach more
  // elements.
  kCloseIfFinite,
};

void Expect(const Case& made, absl::string_view way, Promise promise, const Outcome& expected, const Outcome& actual) {
  GW_CHECK(expected.status().code() == actual.status().code(), way, ": ", expected.status().ToString(), " and ",
           actual.status().ToString());
  if (!expected.ok()) return;
  const std::string difference =
      promise == Promise::kSameBits ? CompareBits(*expected, *actual) : CompareClose(made, *expected, *actual);
  if (!difference.empty() && promise == Promise::kCloseIfFinite && MeetsNonFinite(made)) return;
  GW_CHECK(difference.empty(), way, ": ", difference, "\n", GraphToText(made.graph));
}

void CompareAll(const Case& made) {
  const Outcome plain = RunWith(made, Plain());
  // Errors that the data causes, such as an index outside of a tensor.
  if (!plain.ok()) {
    GW_CHECK(absl::IsOutOfRange(plain.status()) || absl::IsInvalidArgument(plain.status()), plain.status().ToString());
  }
  SessionOptions options = Plain();
  options.threads = 2;
  Expect(made, "two threads", Promise::kSameBits, plain, RunWith(made, options));
  Expect(made, "a prepared run", Promise::kSameBits, plain, RunPrepared(made, options));
  Expect(made, "saved and loaded", Promise::kSameBits, plain, RunSaved(made, Plain()));

  options = Plain();
  options.row_fusion = RowFusion::kAlways;
  const Outcome rows = RunWith(made, options);
  Expect(made, "row regions", made.sums_rows ? Promise::kClose : Promise::kSameBits, plain, rows);
  options.threads = 2;
  Expect(made, "row regions on two threads", Promise::kSameBits, rows, RunWith(made, options));

  options = Plain();
  options.batch_tiles = BatchTiles::kAlways;
  Expect(made, "tiles", Promise::kCloseIfFinite, plain, RunWith(made, options));
  options.toom_cook = true;
  options.row_fusion = RowFusion::kAlways;
  const Outcome tiles = RunWith(made, options);
  Expect(made, "tiles, row regions and Toom-Cook", Promise::kCloseIfFinite, plain, tiles);
  options.threads = 2;
  Expect(made, "tiles on two threads", Promise::kSameBits, tiles, RunWith(made, options));
  Expect(made, "the choices of the cost model", Promise::kCloseIfFinite, plain,
         RunWith(made, {.threads = 2, .seed = 7}));

  for (const std::string& stage : StagesThatMayBeLeftOut()) {
    const bool moves_products = stage == "flatten_products" || stage == "hoist_from_loops";
    Expect(made, absl::StrCat("without ", stage), moves_products ? Promise::kClose : Promise::kSameBits, plain,
           RunWithout(made, stage));
  }

  // Recomputed values are the same bits.
  const absl::StatusOr<std::unique_ptr<CompiledGraph>> plan = [&] {
    auto variables = std::make_shared<Variables>();
    for (const auto& [name, value] : made.variables) variables->Add(name, value.Clone());
    return LowerCase(made, "", variables);
  }();
  if (!plan.ok()) {
    GW_CHECK(!plain.ok(), plan.status().ToString());
    return;
  }
  options = Plain();
  options.memory_budget = std::max<int64_t>((*plan)->arena_bytes() * 2 / 3, 1);
  const Outcome small = RunWith(made, options);
  if (!absl::IsResourceExhausted(small.status())) Expect(made, "a memory budget", Promise::kSameBits, plain, small);
}

// Adds gradients of the last value, and an update of each variable that they reach.
void AddTraining(MadeGraph& made, Update& update) {
  std::vector<Value> wanted;
  for (const Value& input : made.inputs) {
    if (IsFloating(input.dtype())) wanted.push_back(input);
  }
  const size_t inputs = wanted.size();
  for (NodeId id = 0; id < made.graph.num_nodes(); ++id) {
    const Value value = made.graph.value(id);
    if (made.graph.node(id).op->kind == OpKind::kVariable && IsFloating(value.dtype())) wanted.push_back(value);
  }
  auto y = std::find_if(made.values.rbegin(), made.values.rend(),
                        [](const Value& value) { return IsFloating(value.dtype()); });
  const Value loss = Sum(Square(*y)) * 0.125;
  const std::vector<Value> gradients = Gradients({loss}, wanted);
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (i < inputs) {
      made.values.push_back(gradients[i]);
    } else {
      update.assignments.push_back(Assign(wanted[i], wanted[i] - gradients[i] * 0.01));
    }
  }
}

bool SumsRows(const Graph& graph) {
  for (const Node& node : graph.nodes()) {
    if (!node.op->reduction) continue;
    const int last = graph.type(node.inputs[0]).shape.rank() - 1;
    for (int64_t axis : node.attribute<Integers>("axes")) {
      if (axis != last) return true;
    }
  }
  return false;
}

void Run(ByteReader bytes) {
  MadeGraph made;
  const DType dtype = bytes.Below(4) == 0 ? kFloat64 : kFloat32;
  AddInputs(bytes, dtype, made);
  const bool trains = bytes.Flag();
  // Some graphs have tiny numbers, down to where float32 loses bits.
  const double scale = bytes.Pick({1.0, 1.0, 1.0, 4.0, 0x1p-30, 0x1p-100});
  const uint64_t seed = bytes.Byte();
  const DimBindings bindings = MakeBindings(bytes, made);
  for (int i = 0; i < 16 && !bytes.empty() && made.values.size() < 32; ++i) {
    if (bytes.Below(3) == 0) {
      AddAnyNode(bytes, false, made);
    } else {
      AddLayer(bytes, made);
    }
  }
  Case tried;
  if (trains) AddTraining(made, tried.update);
  // Some ops have no gradient.
  if (!made.graph.status().ok()) return;
  if (!IsSmall(made.graph, bindings, 4e6)) return;
  tried.bindings = bindings;
  for (const Value& input : made.inputs) {
    tried.feeds.emplace_back(input, MakeFeed(input.type(), bindings, seed + tried.feeds.size(), scale));
  }
  // Only the training assigns, so that each variable has one new value.
  for (auto value = made.values.rbegin(); value != made.values.rend() && tried.fetches.size() < 8; ++value) {
    if (value->node().op->kind != OpKind::kAssign) tried.fetches.emplace_back(*value);
  }
  tried.graph = made.graph;
  tried.sums_rows = SumsRows(tried.graph);
  const absl::StatusOr<Session> session = Session::Create(tried.graph, Plain());
  CheckMessage(session.status());
  if (!session.ok()) return;
  for (const std::string& name : session->VariableNames()) {
    tried.variables.emplace_back(name, *session->GetVariable(name));
  }
  CompareAll(tried);
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gradweave::fuzz::Run(gradweave::fuzz::ByteReader(data, size));
  return 0;
}
