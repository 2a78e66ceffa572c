#include "tests/fuzz/run_model.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/verify.h"
#include "gradweave/runtime/session/session.h"
#include "tests/fuzz/graph_maker.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kMostMemory = 1 << 24;
constexpr std::chrono::seconds kMostTime(1);  // A loop may be legal and long.

// Returns the sizes of all symbols of the inputs.
DimBindings BindingsOf(const Graph& graph) {
  DimBindings bindings;
  std::set<std::string> symbols;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kInput) node.outputs[0].shape.CollectSymbols(symbols);
  }
  for (const std::string& symbol : symbols) bindings[symbol] = 1 + static_cast<int64_t>(bindings.size() % 3);
  return bindings;
}

using Results = absl::StatusOr<std::vector<Tensor>>;

// Runs all outputs of a small model.
Results RunOutputs(Session& session, const DimBindings& bindings) {
  Graph graph = session.graph();
  std::vector<Feed> feeds;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind != OpKind::kInput) continue;
    feeds.emplace_back(graph.value(node.id), MakeFeed(node.outputs[0], bindings, static_cast<uint64_t>(node.id)));
  }
  std::vector<Fetch> fetches;
  for (const auto& [name, ports] : graph.outputs()) {
    for (Port port : ports) {
      if (fetches.size() < 16) fetches.emplace_back(graph.value(port));
    }
  }
  return session.Run(feeds, fetches, {.deadline = RunOptions::Clock::now() + kMostTime});
}

bool SameResults(const Results& a, const Results& b) {
  return a.status() == b.status() &&
         (!a.ok() || std::equal(a->begin(), a->end(), b->begin(), b->end(),
                                [](const Tensor& x, const Tensor& y) { return SameBits(x, y); }));
}

}  // namespace

void RunModel(const Model& model) {
  const absl::Status verified = VerifyGraph(model.graph);
  GW_CHECK(verified.ok(), verified.ToString());
  const DimBindings bindings = BindingsOf(model.graph);
  if (!IsSmall(model.graph, bindings)) return;
  const SessionOptions options{.threads = 1, .memory_budget = kMostMemory};
  absl::StatusOr<Session> session = CreateSession(model, options);
  if (!session.ok()) return;
  // A file holds the state before the run.
  const std::string path = ScratchFile("saved.gw", "");
  const absl::Status saved = SaveModel(*session, path, {.source_locations = true});  // Errors name them.
  GW_CHECK(saved.ok(), saved.ToString());
  const absl::StatusOr<Model> again = LoadModel(path);
  GW_CHECK(again.ok(), again.status().ToString());
  absl::StatusOr<Session> other = CreateSession(*again, options);
  GW_CHECK(other.ok(), other.status().ToString());
  for (int run = 0; run < 2; ++run) {
    const Results results = RunOutputs(*session, bindings), results_again = RunOutputs(*other, bindings);
    if (absl::IsDeadlineExceeded(results.status()) || absl::IsDeadlineExceeded(results_again.status())) return;
    GW_CHECK(results.status().code() != absl::StatusCode::kInternal, results.status().ToString());
    GW_CHECK(SameResults(results, results_again), results.status().ToString(), " and ",
             results_again.status().ToString());
    if (!results.ok()) return;
  }
}

}  // namespace gradweave::fuzz
