// Finds or makes the plan of a run.
#include <algorithm>
#include <iostream>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/ops/attention.h"
#include "gradweave/ops/builder.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/distributed/group.h"
#include "gradweave/runtime/session/session_state.h"

namespace gradweave {
namespace {

constexpr size_t kMostPlans = 32;

absl::Status FeedError(const Node& input, const Tensor& tensor, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("Run: the feed of input '", input.name, "' is ",
                                                 tensor.type().ToString(), " and the input is ",
                                                 input.outputs[0].ToString(), ": ", problem));
}

// A size that is a linear expression of one symbol: 32*height + 1.
struct LinearSize {
  std::string symbol;
  int64_t factor, rest;
};
std::optional<LinearSize> LinearSizeOf(const Dim& size) {
  std::set<std::string> symbols;
  size.CollectSymbols(symbols);
  if (symbols.size() != 1) return std::nullopt;
  const std::string& symbol = *symbols.begin();
  const Dim at_0 = size.Substitute({{symbol, 0}}), at_1 = size.Substitute({{symbol, 1}});
  const Dim factor = at_1 - at_0;
  if (factor.size() < 1 || !(size == factor * Dim(symbol) + at_0)) return std::nullopt;
  return LinearSize{symbol, factor.size(), at_0.size()};
}

}  // namespace

Evaluator CpuEvaluator() {
  return [](const Node& node, absl::Span<const Tensor> operands) { return EvaluateNode(CpuKernels(), node, operands); };
}

absl::Status BindSizes(const Node& input, const Tensor& tensor, DimBindings& bindings) {
  const TensorType& type = input.outputs[0];
  if (tensor.dtype() != type.dtype) {
    return FeedError(input, tensor, absl::StrCat("the dtype has to be ", DTypeName(type.dtype)));
  }
  if (tensor.rank() != type.shape.rank()) {
    return FeedError(input, tensor, absl::StrCat("it has to have ", type.shape.rank(), " dimensions"));
  }
  for (int axis = 0; axis < tensor.rank(); ++axis) {
    const std::optional<LinearSize> size = LinearSizeOf(type.shape[axis]);
    if (!size.has_value()) continue;
    const int64_t multiple = tensor.size(axis) - size->rest;
    if (multiple < 0 || multiple % size->factor != 0) {
      return FeedError(input, tensor,
                       absl::StrCat("axis ", axis, " has to have a size ", type.shape[axis].ToString(),
                                    " with a whole number ", size->symbol));
    }
    const auto [bound, is_new] = bindings.emplace(size->symbol, multiple / size->factor);
    if (!is_new && bound->second != multiple / size->factor) {
      return FeedError(input, tensor, absl::StrCat("another input has size ", bound->second, " for ", size->symbol));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSizes(const Node& input, const Tensor& tensor, const DimBindings& bindings) {
  for (int axis = 0; axis < tensor.rank(); ++axis) {
    const Dim expected = input.outputs[0].shape[axis].Substitute(bindings);
    if (expected.is_known() && expected.size() != tensor.size(axis)) {
      // The usual reason is the last batch of a data set, or a batch of an evaluation.
      const bool is_fixed_batch = axis == 0 && input.outputs[0].shape[axis].is_known();
      return FeedError(
          input, tensor,
          absl::StrCat("axis ", axis, " has to have size ", expected.ToString(),
                       is_fixed_batch ? "; a symbol such as Dim(\"batch\") in the shape of the Input takes "
                                        "any size"
                                      : ""));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Port> Session::State::PortOf(const Value& value, absl::string_view role) const {
  if (!value.valid()) {
    const std::string error = ErrorOfCall(value);
    return absl::InvalidArgumentError(absl::StrCat("Run: ", role, " is the value of a failed builder call, or none",
                                                   error.empty() ? "" : ": ", error));
  }
  const Port port = value.port();
  const int count = graph.num_nodes();
  if (value.graph() == original && port.node >= count &&
      (count == 0 || value.serial() > graph.node(count - 1).serial)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Run: ", role, ", number ", port.node,
                     " of its graph, was added to the graph after Session::Create, and the session has the graph as it "
                     "was then; make values, updates and metrics before the session"));
  }
  if (port.node >= count || graph.node(port.node).serial != value.serial()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Run: ", role, ", number ", port.node,
                     " of its graph, is not a value of the session's graph; a session "
                     "takes values of the graph that it was created from, as it was then"));
  }
  return port;
}

absl::StatusOr<PlanKey> Session::State::MakeKey(const std::vector<Feed>& feeds,
                                                const std::vector<Fetch>& fetches) const {
  PlanKey key;
  for (const auto& [value, tensor] : feeds) {
    GW_ASSIGN_OR_RETURN(Port port, PortOf(value, "a feed"));
    if (graph.node(port.node).op->kind != OpKind::kInput) {
      return absl::InvalidArgumentError(
          absl::StrCat("Run: only inputs are fed, and ", DescribeNode(graph, graph.node(port.node)), " is none"));
    }
    key.feeds.emplace_back(port, std::vector<int64_t>(tensor.sizes().begin(), tensor.sizes().end()));
  }
  std::sort(key.feeds.begin(), key.feeds.end());
  for (size_t i = 1; i < key.feeds.size(); ++i) {
    if (key.feeds[i].first == key.feeds[i - 1].first) {
      return absl::InvalidArgumentError(
          absl::StrCat("Run: input '", graph.node(key.feeds[i].first.node).name, "' is fed twice"));
    }
  }
  for (const Fetch& fetch : fetches) {
    if (fetch.is_update() && fetch.values().empty() && !fetch.may_be_empty()) {
      return absl::InvalidArgumentError(
          "Run: an update has no assignments, so it would change nothing; what made it has recorded the reason in its "
          "graph, if there is one");
    }
    for (const Value& value : fetch.values()) {
      GW_ASSIGN_OR_RETURN(Port port, PortOf(value, fetch.is_update() ? "an update" : "a fetch"));
      // An assignment is an update, even if it is fetched as a value.
      if (graph.node(port.node).op->kind == OpKind::kAssign) key.updates.push_back(port);
      if (!fetch.is_update()) key.fetches.push_back(port);
    }
  }
  return key;
}

absl::StatusOr<std::shared_ptr<CompiledGraph>> Session::State::Compile(const Graph& wanted,
                                                                       const std::vector<Feed>& feeds) {
  DimBindings bindings;
  absl::flat_hash_set<std::string> fed;
  for (const auto& [value, tensor] : feeds) {
    const Node& input = graph.node(value.port().node);
    GW_RETURN_IF_ERROR(BindSizes(input, tensor, bindings));
    fed.insert(input.name);
  }
  for (const auto& [value, tensor] : feeds) {
    GW_RETURN_IF_ERROR(CheckSizes(graph.node(value.port().node), tensor, bindings));
  }
  return CompileGraph(wanted, bindings, fed);
}

// Returns the graph with the fetches of the key as outputs.
Graph Session::State::GraphOf(const PlanKey& key) const {
  Graph wanted = graph;
  std::vector<Value> fetches, updates;
  for (Port port : key.fetches) fetches.push_back(wanted.value(port));
  for (Port port : key.updates) updates.push_back(wanted.value(port));
  wanted.ClearOutputs();
  wanted.SetOutput(kFetches, fetches);
  wanted.SetOutput(kUpdates, updates);
  return wanted;
}

// Checks that every input is fed and that the feeds determine all sizes.
absl::Status Session::State::CheckInputs(const Graph& specialized, const absl::flat_hash_set<std::string>& fed) const {
  for (const Node& node : specialized.nodes()) {
    if (node.op->kind != OpKind::kInput || fed.contains(node.name)) continue;
    return absl::InvalidArgumentError(absl::StrCat("Run: the fetches need input '", node.name, "', ",
                                                   graph.node(graph.FindNamed(node.name)).outputs[0].ToString(),
                                                   ", and it is not fed"));
  }
  for (const Node& node : specialized.nodes()) {
    for (const TensorType& type : node.outputs) {
      if (type.shape.is_static()) continue;
      return absl::InvalidArgumentError(absl::StrCat("Run: no feed gives all sizes of ",
                                                     DescribeNode(specialized, node), ", ", type.ToString(),
                                                     "; feed an input that has them"));
    }
  }
  return absl::OkStatus();
}

// Only the CPU has kernels for attention.
absl::StatusOr<Graph> Session::State::Expand(const Graph& specialized) const {
  return ExpandAttention(
      specialized, [&](const Graph& all, const Node& node) { return devices.size() > 1 || !AttentionPays(all, node); });
}

absl::StatusOr<std::shared_ptr<CompiledGraph>> Session::State::CompileGraph(
    const Graph& wanted, const DimBindings& bindings, const absl::flat_hash_set<std::string>& fed) {
  // A new plan may move the memory that plans share.
  Settle();
  StepOptions steps{compile_options};
  if (options.group != nullptr) steps.communicator = options.group->communicator(options.local_shard);
  return Lower(wanted, {.pipeline = {.bindings = bindings,
                                     .evaluate = CpuEvaluator(),
                                     .expand = [this](const Graph& specialized) { return Expand(specialized); },
                                     .mixed_precision = options.mixed_precision,
                                     .shards = options.group == nullptr ? 0 : options.group->shards(),
                                     .sharded_variables = sharded},
                        .compile = steps,
                        .devices = devices,
                        .device = device.name(),
                        .variables = variables,
                        .memory = memory,
                        .memory_budget = memory_budget,
                        .check = [&](const Graph& specialized) { return CheckInputs(specialized, fed); },
                        .release_memory = [this] { return ReleaseIdlePlans(); },
                        .tell =
                            [this](const std::string& line) {
                              if (told.insert(line).second) std::cerr << "gradweave: " << line << std::endl;
                            }});
}

// Frees the device's memory of plans that are kept for later runs, and of variables that no other
// plan uses.
absl::Status Session::State::ReleaseIdlePlans() {
  for (auto plan = plans.begin(); plan != plans.end();) {
    // Prepared runs hold their plans.
    if (plan->second.use_count() > 1) {
      ++plan;
      continue;
    }
    plan_of.erase(plan->first);
    plan = plans.erase(plan);
  }
  memory->Trim();
  return variables->ReleaseUnused();
}

absl::StatusOr<std::shared_ptr<CompiledGraph>> Session::State::FindOrCompile(const std::vector<Feed>& feeds,
                                                                             const std::vector<Fetch>& fetches) {
  for (const Fetch& fetch : fetches) {
    if (!fetch.weight().has_value()) continue;
    return absl::InvalidArgumentError("Run: a running sum goes over the runs of a PreparedRun; use Prepare");
  }
  GW_ASSIGN_OR_RETURN(PlanKey key, MakeKey(feeds, fetches));
  if (auto found = plan_of.find(key); found != plan_of.end()) {
    // The key has the sizes; the dtypes have to equal the inputs'.
    for (const auto& [value, tensor] : feeds) {
      const Node& input = graph.node(value.port().node);
      if (tensor.dtype() != input.outputs[0].dtype) {
        return FeedError(input, tensor, absl::StrCat("the dtype has to be ", DTypeName(input.outputs[0].dtype)));
      }
    }
    plans.splice(plans.begin(), plans, found->second);
    return found->second->second;
  }
  GW_ASSIGN_OR_RETURN(std::shared_ptr<CompiledGraph> executable, Compile(GraphOf(key), feeds));
  plans.emplace_front(key, executable);
  plan_of[std::move(key)] = plans.begin();
  if (plans.size() > kMostPlans) {
    plan_of.erase(plans.back().first);
    plans.pop_back();
  }
  return executable;
}

absl::StatusOr<std::vector<const void*>> Session::State::FeedAddresses(const CompiledGraph& executable,
                                                                       const std::vector<Feed>& feeds) const {
  std::vector<const void*> addresses;
  for (const std::string& name : executable.input_names()) {
    const NodeId input = graph.FindNamed(name);
    for (const auto& [value, tensor] : feeds) {
      if (value.port().node == input) addresses.push_back(tensor.raw_data());
    }
  }
  return addresses;
}

}  // namespace gradweave
