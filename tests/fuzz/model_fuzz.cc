// Model files. An input is a message Model without its checksum, or any other bytes. A model that
// loads is run on small feeds, saved, and loaded again.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/verify.h"
#include "gradweave/ops/registry.h"
#include "gradweave/proto/model.pb.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "tests/files/model_bytes.h"
#include "tests/fuzz/graph_maker.h"
#include "tests/fuzz/message_mutator.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kMostBytes = 1 << 24;

// Texts that mean something in a file.
const std::vector<std::string>& Words() {
  static const auto* const words = [] {
    auto* all =
        new std::vector<std::string>{"float32", "float64", "int32",      "int64", "uint8",      "bool",
                                     "0",       "1",       "3",          "-1",    "n",          "n + 1",
                                     "2*n",     "n*m",     "floor(n/2)", "-n",    "4294967296", "9223372036854775807",
                                     "",        "cpu:0",   "cuda",       "x",     "v/weight_0", "\x1b[2J",
                                     "..\\/w",  "\xff\xfe"};
    for (const auto& op : CoreOps().definitions()) {
      all->push_back(op->name);
      for (const AttributeDefinition& attribute : op->attributes) {
        if (std::find(all->begin(), all->end(), attribute.name) == all->end()) all->push_back(attribute.name);
      }
    }
    return all;
  }();
  return *words;
}

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
  return session.Run(feeds, fetches);
}

bool SameResults(const Results& a, const Results& b) {
  return a.status() == b.status() &&
         (!a.ok() || std::equal(a->begin(), a->end(), b->begin(), b->end(),
                                [](const Tensor& x, const Tensor& y) { return SameBits(x, y); }));
}

void RunModel(const Model& model) {
  const absl::Status verified = VerifyGraph(model.graph);
  GW_CHECK(verified.ok(), verified.ToString());
  const DimBindings bindings = BindingsOf(model.graph);
  if (!IsSmall(model.graph, bindings)) return;
  const SessionOptions options{.threads = 1, .memory_budget = kMostBytes};
  absl::StatusOr<Session> session = CreateSession(model, options);
  if (!session.ok()) return;
  // A file holds the state before the run.
  const std::string path = ScratchFile("saved.gw", "");
  const absl::Status saved = SaveModel(*session, path);
  GW_CHECK(saved.ok(), saved.ToString());
  const absl::StatusOr<Model> again = LoadModel(path);
  GW_CHECK(again.ok(), again.status().ToString());
  absl::StatusOr<Session> other = CreateSession(*again, options);
  GW_CHECK(other.ok(), other.status().ToString());
  for (int run = 0; run < 2; ++run) {
    const Results results = RunOutputs(*session, bindings), results_again = RunOutputs(*other, bindings);
    GW_CHECK(results.status().code() != absl::StatusCode::kInternal, results.status().ToString());
    GW_CHECK(SameResults(results, results_again), results.status().ToString(), " and ",
             results_again.status().ToString());
    if (!results.ok()) return;
  }
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gradweave;  // NOLINT
  proto::Model message;
  std::string file(fuzz::AsText(data, size));
  if (message.ParseFromString(file)) file = FileOf(message);
  const std::string path = fuzz::ScratchFile("model.gw", file);
  const absl::StatusOr<Model> model = LoadModel(path, {.memory_limit = fuzz::kMostBytes});
  fuzz::CheckMessage(model.status());
  GW_CHECK(model.ok() || absl::StartsWith(model.status().message(), path.substr(0, path.rfind('/'))),
           model.status().ToString());
  if (model.ok()) fuzz::RunModel(*model);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  using namespace gradweave;  // NOLINT
  const absl::string_view bytes = fuzz::AsText(data, size);
  proto::Model message;
  std::string mutated;
  // One input of eight is no message any more.
  if (seed % 8 != 0 && message.ParseFromString(std::string(bytes))) {
    fuzz::MutateMessage(message, fuzz::Words(), seed);
    mutated = message.SerializeAsString();
  }
  if (mutated.empty() || mutated.size() > max_size) mutated = fuzz::MutatedBytes(bytes, max_size, seed);
  std::copy(mutated.begin(), mutated.end(), reinterpret_cast<char*>(data));
  return mutated.size();
}
