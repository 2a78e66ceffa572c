// How a session finds, or makes, the plan of a run.
#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/device_name.h"
#include "gradweave/graph/passes/placement.h"
#include "gradweave/runtime/session/session_state.h"

namespace gradweave {
namespace {

constexpr size_t kMostPlans = 32;

// Tries to fit a plan into a memory budget.
constexpr int kMostAttempts = 4;

absl::Status FeedError(const Node& input, const Tensor& tensor, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("Run: the feed of input '", input.name, "' is ",
                                                 tensor.type().ToString(), " and the input is ",
                                                 input.outputs[0].ToString(), ": ", problem));
}

}  // namespace

absl::Status BindSizes(const Node& input, const Tensor& tensor, DimBindings& bindings) {
  const TensorType& type = input.outputs[0];
  if (tensor.dtype() != type.dtype) {
    return FeedError(input, tensor, absl::StrCat("the dtype has to be ", DTypeName(type.dtype)));
  }
  if (tensor.rank() != type.shape.rank()) {
    return FeedError(input, tensor, absl::StrCat("it has to have ", type.shape.rank(), " dimensions"));
  }
  for (int axis = 0; axis < tensor.rank(); ++axis) {
    const std::optional<std::string> symbol = type.shape[axis].AsSymbol();
    if (!symbol.has_value()) continue;
    const auto [bound, is_new] = bindings.emplace(*symbol, tensor.size(axis));
    if (!is_new && bound->second != tensor.size(axis)) {
      return FeedError(input, tensor, absl::StrCat("another input has size ", bound->second, " for ", *symbol));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSizes(const Node& input, const Tensor& tensor, const DimBindings& bindings) {
  for (int axis = 0; axis < tensor.rank(); ++axis) {
    const Dim expected = input.outputs[0].shape[axis].Substitute(bindings);
    if (expected.is_known() && expected.size() != tensor.size(axis)) {
      return FeedError(input, tensor, absl::StrCat("axis ", axis, " has to have size ", expected.ToString()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Port> Session::State::PortOf(const Value& value, absl::string_view role) const {
  if (!value.valid()) {
    return absl::InvalidArgumentError(absl::StrCat("Run: a ", role, " is the value of a failed builder call, or none"));
  }
  const Port port = value.port();
  if (port.node >= graph.num_nodes() || port.output >= static_cast<int>(graph.node(port.node).outputs.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Run: a ", role, " is no value of the session's graph; a session knows the nodes that there were at Create"));
  }
  return port;
}

absl::StatusOr<PlanKey> Session::State::MakeKey(const std::vector<Feed>& feeds,
                                                const std::vector<Fetch>& fetches) const {
  PlanKey key;
  for (const auto& [value, tensor] : feeds) {
    GW_ASSIGN_OR_RETURN(Port port, PortOf(value, "feed"));
    if (graph.node(port.node).op->name != "Input") {
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
    for (const Value& value : fetch.values()) {
      GW_ASSIGN_OR_RETURN(Port port, PortOf(value, fetch.is_update() ? "update" : "fetch"));
      // Whatever assigns is an update, however it is asked for.
      if (graph.node(port.node).op->name == "Assign") key.updates.push_back(port);
      if (!fetch.is_update()) key.fetches.push_back(port);
    }
  }
  return key;
}

// A plan that takes no more memory than the budget for the sake of speed; 0: than there is.
absl::StatusOr<std::unique_ptr<CompiledGraph>> Session::State::CompileForDevices(Graph specialized,
                                                                                 const CompileOptions& options,
                                                                                 int64_t budget) const {
  if (cuda == nullptr) {
    return Executable::Compile(std::move(specialized), CpuKernels(), variables, options);
  }
  const std::string name = device.kind == Device::kCuda ? cuda->name() : kCpuDevice;
  GW_ASSIGN_OR_RETURN(Placement placement,
                      Place(specialized, {.device = name, .check = [&](const Node& node, absl::string_view) {
                                            return CheckCudaKernel(cuda->backend(), specialized, node);
                                          }}));
  for (const std::string& line : placement.moved) {
    if (told.insert(line).second) std::cerr << "gradweave: " << line << std::endl;
  }
  return CudaExecutable::Compile(
      std::move(placement), cuda, cuda_variables,
      {.cpu_kernels = &CpuKernels(), .cpu = options, .product_precision = product_precision, .memory_budget = budget});
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

// The graph with what the key computes as outputs.
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

absl::StatusOr<std::shared_ptr<CompiledGraph>> Session::State::CompileGraph(
    const Graph& wanted, const DimBindings& bindings, const absl::flat_hash_set<std::string>& fed) {
  // Dropping the variables' initial values comes first: they may be all that needs some node.
  GW_ASSIGN_OR_RETURN(Graph specialized, RunPipeline(wanted, {.bindings = bindings, .evaluate = MakeEvaluator()}));
  for (const Node& node : specialized.nodes()) {
    if (node.op->name == "Input" && !fed.contains(node.name)) {
      return absl::InvalidArgumentError(absl::StrCat("Run: the fetches need input '", node.name, "', ",
                                                     graph.node(graph.FindNamed(node.name)).outputs[0].ToString(),
                                                     ", and it is not fed"));
    }
  }
  for (const Node& node : specialized.nodes()) {
    for (const TensorType& type : node.outputs) {
      if (type.shape.is_static()) continue;
      return absl::InvalidArgumentError(absl::StrCat("Run: no feed gives all sizes of ",
                                                     DescribeNode(specialized, node), ", ", type.ToString(),
                                                     "; feed an input that has them"));
    }
  }
  GW_ASSIGN_OR_RETURN(std::unique_ptr<CompiledGraph> plan,
                      CompileForDevices(specialized, compile_options, memory_budget));
  GW_RETURN_IF_ERROR(FindMemory(specialized, plan));
  return std::shared_ptr<CompiledGraph>(std::move(plan));
}

// Puts a plan that computes values a second time in the place of one that takes more than the budget, where that takes
// less.
absl::Status Session::State::Shrink(const Graph& specialized, int64_t budget,
                                    std::unique_ptr<CompiledGraph>& plan) const {
  // What is computed a second time comes late on purpose; a row region or a convolution would take it along early.
  CompileOptions in_order = compile_options;
  in_order.in_order = true;
  in_order.row_fusion = RowFusion::kNever;
  in_order.keep_weights = false;
  // The pass knows nothing of places and scratch: what the plan takes beyond the budget comes off its goal.
  int64_t goal = budget;
  for (int i = 0; i < kMostAttempts && plan->arena_bytes() > budget && goal > 0; ++i) {
    GW_ASSIGN_OR_RETURN(Graph smaller, Rematerialize(specialized, goal));
    GW_ASSIGN_OR_RETURN(std::unique_ptr<CompiledGraph> other, CompileForDevices(std::move(smaller), in_order, budget));
    goal -= std::max<int64_t>(other->arena_bytes() - budget, 64);
    if (other->arena_bytes() < plan->arena_bytes()) plan = std::move(other);
  }
  return absl::OkStatus();
}

// Gives a plan its memory, or one that takes less, within the session's budget and what the device has. Other plans
// lose theirs first.
absl::Status Session::State::FindMemory(const Graph& specialized, std::unique_ptr<CompiledGraph>& plan) {
  if (plan->arena_bytes() > plan->arena_room()) GW_RETURN_IF_ERROR(ReleaseIdlePlans());
  const int64_t budget = memory_budget > 0 ? std::min(memory_budget, plan->arena_room()) : plan->arena_room();
  GW_RETURN_IF_ERROR(Shrink(specialized, budget, plan));
  if (memory_budget > 0 && plan->arena_bytes() > memory_budget) {
    return absl::ResourceExhaustedError(absl::StrCat("Run: the plan takes ", plan->arena_bytes(),
                                                     " bytes, and the session's memory_budget is ", memory_budget,
                                                     "; a smaller batch takes less"));
  }
  auto is_exhausted = [](const absl::Status& status) { return status.code() == absl::StatusCode::kResourceExhausted; };
  absl::Status status = plan->Allocate();
  if (!is_exhausted(status) || cuda == nullptr) return status;
  GW_RETURN_IF_ERROR(ReleaseIdlePlans());
  status = plan->Allocate();
  if (!is_exhausted(status) || plan->arena_bytes() > plan->arena_room()) return status;
  // There is as much, but not in one piece.
  GW_RETURN_IF_ERROR(Shrink(specialized, plan->arena_bytes() * 3 / 4, plan));
  return plan->Allocate();
}

// Takes the device's memory from plans that are kept for later runs and from variables that no other plan uses.
absl::Status Session::State::ReleaseIdlePlans() {
  for (auto plan = plans.begin(); plan != plans.end();) {
    // Runs that were prepared hold theirs.
    if (plan->second.use_count() > 1) {
      ++plan;
      continue;
    }
    plan_of.erase(plan->first);
    plan = plans.erase(plan);
  }
  if (cuda == nullptr) return absl::OkStatus();
  GW_RETURN_IF_ERROR(cuda->MakeCurrent());
  return cuda_variables->ReleaseUnused();
}

absl::StatusOr<std::shared_ptr<CompiledGraph>> Session::State::FindOrCompile(const std::vector<Feed>& feeds,
                                                                             const std::vector<Fetch>& fetches) {
  for (const Fetch& fetch : fetches) {
    if (!fetch.weight().has_value()) continue;
    return absl::InvalidArgumentError("Run: a running sum goes over the runs of a PreparedRun; use Prepare");
  }
  GW_ASSIGN_OR_RETURN(PlanKey key, MakeKey(feeds, fetches));
  if (auto found = plan_of.find(key); found != plan_of.end()) {
    // The key has the sizes; the dtypes have to be those of the inputs.
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
