#include "gradweave/runtime/session.h"

#include <algorithm>
#include <cstring>
#include <iostream>
#include <list>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/passes/placement.h"
#include "gradweave/runtime/cuda/cuda_executable.h"
#include "gradweave/runtime/cuda/kernel_cache.h"
#include "gradweave/runtime/executable.h"
#include "gradweave/runtime/table_inputs.h"

namespace gradweave {
namespace {

constexpr int kMostThreads = 1024;
constexpr size_t kMostPlans = 32;

// What distinguishes one plan from another: what is fed, with which sizes, and what is computed.
struct PlanKey {
  std::vector<std::pair<Port, std::vector<int64_t>>> feeds;  // Sorted by port.
  std::vector<Port> fetches;
  std::vector<Port> updates;

  friend bool operator==(const PlanKey& a, const PlanKey& b) {
    return a.feeds == b.feeds && a.fetches == b.fetches && a.updates == b.updates;
  }
  template <typename H>
  friend H AbslHashValue(H h, const PlanKey& key) {
    return H::combine(std::move(h), key.feeds, key.fetches, key.updates);
  }
};

absl::Status FeedError(const Node& input, const Tensor& tensor, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("Run: the feed of input '", input.name, "' is ",
                                                 tensor.type().ToString(), " and the input is ",
                                                 input.outputs[0].ToString(), ": ", problem));
}

// Checks a feed against its input, and takes the sizes of the symbols from it.
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

// The sizes that are no bare symbols, once all symbols have sizes.
absl::Status CheckSizes(const Node& input, const Tensor& tensor, const DimBindings& bindings) {
  for (int axis = 0; axis < tensor.rank(); ++axis) {
    const Dim expected = input.outputs[0].shape[axis].Substitute(bindings);
    if (expected.is_known() && expected.size() != tensor.size(axis)) {
      return FeedError(input, tensor, absl::StrCat("axis ", axis, " has to have size ", expected.ToString()));
    }
  }
  return absl::OkStatus();
}

// Tries to fit a plan into a memory budget.
constexpr int kMostAttempts = 4;

absl::Status CheckOptions(const SessionOptions& options) {
  if (options.threads < 0 || options.threads > kMostThreads) {
    return absl::InvalidArgumentError(absl::StrCat("Session: threads is ", options.threads, " and has to be in [0, ",
                                                   kMostThreads, "], 0 for all processors"));
  }
  if (options.memory_budget < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("Session: memory_budget is ", options.memory_budget, " bytes; 0 means no limit"));
  }
  if (options.device_memory_limit < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("Session: device_memory_limit is ", options.device_memory_limit, " bytes; 0 means no limit"));
  }
  return options.device.CheckAvailable();
}

// The CUDA device that the options or nodes of the graph ask for; none where all is for the CPU.
absl::StatusOr<std::optional<Device>> FindCudaDevice(const Graph& graph, const Device& of_session) {
  std::optional<Device> found;
  if (of_session.kind == Device::kCuda) found = of_session;
  for (const Node& node : graph.nodes()) {
    if (node.device.empty()) continue;
    const absl::StatusOr<Device> device = Device::Parse(node.device);
    if (!device.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("Session: ", device.status().message(), "; in ", DescribeNode(graph, node)));
    }
    if (device->kind == Device::kCuda) {
      if (found.has_value() && !(*found == *device)) {
        return absl::InvalidArgumentError(absl::StrCat("Session: a session has one CUDA device, ", found->ToString(),
                                                       " here, and a node asks for ", device->ToString(), ": ",
                                                       DescribeNode(graph, node)));
      }
      found = *device;
    }
    if (absl::Status status = device->CheckAvailable(); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(status.message(), "; a node asks for it: ", DescribeNode(graph, node)));
    }
  }
  return found;
}

}  // namespace

struct Session::State {
  Graph graph;
  uint64_t seed = 0;
  CompileOptions compile_options;
  int64_t memory_budget = 0;
  Device device;
  std::unique_ptr<ThreadPool> pool;
  VariableStorage variables;
  // Null where all of the graph is for the CPU.
  std::shared_ptr<CudaDevice> cuda;
  std::shared_ptr<CudaVariables> cuda_variables;
  bool allow_tf32 = false;
  mutable absl::flat_hash_set<std::string> told;  // What the user was told of ops that the CPU runs.
  std::vector<std::string> variable_names;        // In the graph's order.

  mutable std::mutex mutex;  // Held by whatever runs or touches variables.
  uint64_t next_run = 1;

  // Plans, the most recently used first.
  using Plan = std::pair<PlanKey, std::shared_ptr<CompiledGraph>>;
  std::list<Plan> plans;
  absl::flat_hash_map<PlanKey, std::list<Plan>::iterator> plan_of;

  absl::StatusOr<Port> PortOf(const Value& value, absl::string_view role) const;
  absl::StatusOr<PlanKey> MakeKey(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) const;
  absl::StatusOr<std::unique_ptr<CompiledGraph>> CompileForDevices(Graph specialized,
                                                                   const CompileOptions& options) const;
  Graph GraphOf(const PlanKey& key) const;
  absl::StatusOr<std::shared_ptr<CompiledGraph>> CompileGraph(const Graph& wanted, const DimBindings& bindings,
                                                              const absl::flat_hash_set<std::string>& fed);
  absl::Status Shrink(const Graph& specialized, int64_t budget, std::unique_ptr<CompiledGraph>& plan) const;
  absl::Status FindMemory(const Graph& specialized, std::unique_ptr<CompiledGraph>& plan);
  absl::Status ReleaseIdlePlans();
  absl::StatusOr<std::string> KeepTable(const Node& input, const Tensor& table);
  absl::StatusOr<std::shared_ptr<CompiledGraph>> Compile(const PlanKey& key, const std::vector<Feed>& feeds);
  absl::StatusOr<std::shared_ptr<CompiledGraph>> FindOrCompile(const std::vector<Feed>& feeds,
                                                               const std::vector<Fetch>& fetches);
  absl::StatusOr<std::vector<const void*>> FeedAddresses(const CompiledGraph& executable,
                                                         const std::vector<Feed>& feeds) const;
  absl::Status InitializeVariables(const std::vector<std::pair<std::string, Tensor>>& given);
  Evaluator MakeEvaluator() const {
    return
        [](const Node& node, absl::Span<const Tensor> operands) { return EvaluateNode(CpuKernels(), node, operands); };
  }
};

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

absl::StatusOr<std::unique_ptr<CompiledGraph>> Session::State::CompileForDevices(Graph specialized,
                                                                                 const CompileOptions& options) const {
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
  return CudaExecutable::Compile(std::move(placement), cuda, cuda_variables,
                                 {.cpu_kernels = &CpuKernels(), .threads = options.threads, .allow_tf32 = allow_tf32});
}

absl::StatusOr<std::shared_ptr<CompiledGraph>> Session::State::Compile(const PlanKey& key,
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
  return CompileGraph(GraphOf(key), bindings, fed);
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
  GW_ASSIGN_OR_RETURN(std::unique_ptr<CompiledGraph> plan, CompileForDevices(specialized, compile_options));
  GW_RETURN_IF_ERROR(FindMemory(specialized, plan));
  return std::shared_ptr<CompiledGraph>(std::move(plan));
}

// Puts a plan that computes values a second time in the place of one that takes more than the budget, where that takes
// less.
absl::Status Session::State::Shrink(const Graph& specialized, int64_t budget,
                                    std::unique_ptr<CompiledGraph>& plan) const {
  // What is computed a second time comes late on purpose; a row region would take it along early.
  CompileOptions in_order = compile_options;
  in_order.row_fusion = RowFusion::kNever;
  // The pass knows nothing of places and scratch: what the plan takes beyond the budget comes off its goal.
  int64_t goal = budget;
  for (int i = 0; i < kMostAttempts && plan->arena_bytes() > budget && goal > 0; ++i) {
    GW_ASSIGN_OR_RETURN(Graph smaller, Rematerialize(specialized, goal));
    GW_ASSIGN_OR_RETURN(std::unique_ptr<CompiledGraph> other, CompileForDevices(std::move(smaller), in_order));
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
  GW_ASSIGN_OR_RETURN(std::shared_ptr<CompiledGraph> executable, Compile(key, feeds));
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

// Tensors for what a run fetches.
absl::StatusOr<std::vector<Tensor>> MakeResults(const CompiledGraph& executable) {
  std::vector<Tensor> results;
  for (const TensorType& type : executable.fetch_types()) {
    GW_ASSIGN_OR_RETURN(results.emplace_back(), Tensor::Create(type.dtype, type.shape.sizes()));
  }
  return results;
}

absl::Status Session::State::InitializeVariables(const std::vector<std::pair<std::string, Tensor>>& given) {
  absl::flat_hash_map<std::string, Tensor> values;
  for (const auto& [name, tensor] : given) {
    const NodeId id = graph.FindNamed(name);
    if (id < 0 || graph.node(id).op->name != "Variable") {
      return absl::NotFoundError(absl::StrCat("Session: the graph has no variable '", name, "'"));
    }
    if (!(tensor.type() == graph.node(id).outputs[0])) {
      return absl::InvalidArgumentError(absl::StrCat("Session: variable '", name, "' is ",
                                                     graph.node(id).outputs[0].ToString(), " and was given ",
                                                     tensor.type().ToString()));
    }
    values[name] = tensor.Clone();
  }
  // The others' initial values, all by one plan.
  Graph initial = graph;
  std::vector<Value> wanted;
  std::vector<std::string> names;
  for (const Node& node : graph.nodes()) {
    if (node.op->name != "Variable") continue;
    variable_names.push_back(node.name);
    if (values.contains(node.name)) continue;
    wanted.push_back(initial.value(Port{node.id, 0}));
    names.push_back(node.name);
  }
  if (!wanted.empty()) {
    initial.ClearOutputs();
    initial.SetOutput(kFetches, wanted);
    GW_ASSIGN_OR_RETURN(Graph specialized, RunPipeline(initial, {.initial_values = true, .evaluate = MakeEvaluator()}));
    for (const Node& node : specialized.nodes()) {
      if (node.op->name != "Input") continue;
      return absl::InvalidArgumentError(absl::StrCat("Session: the initial value of a variable needs input '",
                                                     node.name, "', and there is none yet"));
    }
    GW_ASSIGN_OR_RETURN(
        std::unique_ptr<Executable> executable,
        Executable::Compile(std::move(specialized), CpuKernels(), {}, {.threads = pool->num_threads()}));
    GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, MakeResults(*executable));
    GW_RETURN_IF_ERROR(executable->Run({}, absl::MakeSpan(results), *pool, seed, 0));
    for (size_t i = 0; i < names.size(); ++i) values[names[i]] = results[i];
  }
  variables = std::move(values);
  return absl::OkStatus();
}

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

absl::StatusOr<Session> Session::Create(const Graph& graph, SessionOptions options) {
  GW_RETURN_IF_ERROR(graph.status());
  GW_RETURN_IF_ERROR(CheckOptions(options));
  auto state = std::make_unique<State>();
  state->graph = graph;
  state->seed = options.seed;
  state->next_run = options.run_number;
  const int threads = options.threads > 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  state->pool = std::make_unique<ThreadPool>(threads);
  state->compile_options = {.threads = threads,
                            .batch_tiles = options.batch_tiles,
                            .row_fusion = options.row_fusion,
                            .toom_cook = options.toom_cook};
  state->memory_budget = options.memory_budget;
  state->device = options.device;
  state->allow_tf32 = options.allow_tf32;
  GW_ASSIGN_OR_RETURN(const std::optional<Device> cuda, FindCudaDevice(graph, options.device));
  if (cuda.has_value()) {
    const std::string cache = options.kernel_cache.empty() ? KernelCache::DefaultFolder() : options.kernel_cache;
    GW_ASSIGN_OR_RETURN(state->cuda,
                        CudaDevice::Open(cuda->index, options.device_memory_limit, {options.generated_kernels, cache}));
  }
  GW_RETURN_IF_ERROR(state->InitializeVariables(options.variables));
  if (cuda.has_value()) state->cuda_variables = std::make_shared<CudaVariables>(state->cuda, state->variables);
  return Session(std::move(state));
}

absl::StatusOr<std::vector<Tensor>> Session::Run(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  std::lock_guard lock(state_->mutex);
  GW_ASSIGN_OR_RETURN(std::shared_ptr<CompiledGraph> executable, state_->FindOrCompile(feeds, fetches));
  GW_ASSIGN_OR_RETURN(std::vector<const void*> addresses, state_->FeedAddresses(*executable, feeds));
  GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, MakeResults(*executable));
  GW_RETURN_IF_ERROR(
      executable->Run(addresses, absl::MakeSpan(results), *state_->pool, state_->seed, state_->next_run++));
  return results;
}

absl::StatusOr<Tensor> Session::GetVariable(absl::string_view name) const {
  std::lock_guard lock(state_->mutex);
  auto found = state_->variables.find(name);
  if (found == state_->variables.end()) {
    return absl::NotFoundError(absl::StrCat("GetVariable: there is no variable '", name, "'"));
  }
  if (state_->cuda != nullptr) {
    GW_RETURN_IF_ERROR(state_->cuda->MakeCurrent());
    GW_RETURN_IF_ERROR(state_->cuda_variables->ToHost(state_->cuda_variables->Find(name)));
  }
  return found->second.Clone();
}

absl::Status Session::SetVariable(absl::string_view name, const Tensor& value) {
  std::lock_guard lock(state_->mutex);
  auto found = state_->variables.find(name);
  if (found == state_->variables.end()) {
    return absl::NotFoundError(absl::StrCat("SetVariable: there is no variable '", name, "'"));
  }
  Tensor& variable = found->second;
  if (!(variable.type() == value.type())) {
    return absl::InvalidArgumentError(absl::StrCat("SetVariable: variable '", name, "' is ", variable.type().ToString(),
                                                   " and was given ", value.type().ToString()));
  }
  if (value.byte_size() > 0) std::memcpy(variable.mutable_raw_data(), value.raw_data(), value.byte_size());
  if (state_->cuda != nullptr) {
    CudaVariables::Variable& on_both = state_->cuda_variables->Find(name);
    on_both.host_current = true;
    on_both.device_current = false;
  }
  return absl::OkStatus();
}

std::vector<std::string> Session::VariableNames() const { return state_->variable_names; }
const Graph& Session::graph() const { return state_->graph; }
Device Session::device() const { return state_->device; }
int Session::threads() const { return state_->pool->num_threads(); }

uint64_t Session::seed() const { return state_->seed; }

uint64_t Session::run_number() const {
  std::lock_guard lock(state_->mutex);
  return state_->next_run;
}

absl::StatusOr<std::string> Session::DescribePlan(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  std::lock_guard lock(state_->mutex);
  GW_ASSIGN_OR_RETURN(std::shared_ptr<CompiledGraph> executable, state_->FindOrCompile(feeds, fetches));
  return executable->Describe();
}

absl::StatusOr<Profile> Session::ProfileRun(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  std::lock_guard lock(state_->mutex);
  GW_ASSIGN_OR_RETURN(std::shared_ptr<CompiledGraph> executable, state_->FindOrCompile(feeds, fetches));
  GW_ASSIGN_OR_RETURN(std::vector<const void*> addresses, state_->FeedAddresses(*executable, feeds));
  GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, MakeResults(*executable));
  Profiler profiler(state_->pool->num_threads());
  GW_RETURN_IF_ERROR(
      executable->Run(addresses, absl::MakeSpan(results), *state_->pool, state_->seed, state_->next_run++, &profiler));
  return Profile{executable->Describe(), profiler.TraceEvents()};
}

// A place for the table among the variables; one that is there already for an input and a table.
absl::StatusOr<std::string> Session::State::KeepTable(const Node& input, const Tensor& table) {
  for (int i = 0;; ++i) {
    const std::string name = absl::StrCat("table ", i, " of ", input.name);
    if (graph.FindNamed(name) >= 0) continue;
    auto [place, is_new] = variables.try_emplace(name, table);
    if (!is_new && (place->second.raw_data() != table.raw_data() || !(place->second.type() == table.type()))) continue;
    if (is_new && cuda != nullptr) cuda_variables->Add(name, table);
    return name;
  }
}

struct PreparedRun::State {
  Session::State* session;
  std::shared_ptr<CompiledGraph> executable;
  std::vector<Feed> feeds;
  std::vector<const void*> addresses;
  std::vector<Tensor> results;
  bool reads_tables = false;  // The only feed, if any, is the rows' numbers.
};

absl::StatusOr<std::unique_ptr<PreparedRun>> Session::Prepare(const std::vector<Feed>& feeds,
                                                              const std::vector<Fetch>& fetches) {
  std::lock_guard lock(state_->mutex);
  auto run = std::make_unique<PreparedRun::State>();
  run->session = state_.get();
  run->feeds = feeds;
  GW_ASSIGN_OR_RETURN(run->executable, state_->FindOrCompile(feeds, fetches));
  GW_ASSIGN_OR_RETURN(run->addresses, state_->FeedAddresses(*run->executable, feeds));
  GW_ASSIGN_OR_RETURN(run->results, MakeResults(*run->executable));
  return std::unique_ptr<PreparedRun>(new PreparedRun(std::move(run)));
}

absl::StatusOr<std::unique_ptr<PreparedRun>> Session::PrepareRows(const std::vector<TableFeed>& tables, int64_t rows,
                                                                  const std::vector<Fetch>& fetches) {
  std::lock_guard lock(state_->mutex);
  if (rows < 1) return absl::InvalidArgumentError(absl::StrCat("PrepareRows: ", rows, " rows are none"));
  GW_ASSIGN_OR_RETURN(const PlanKey key, state_->MakeKey({}, fetches));
  std::vector<TableInput> inputs;
  for (const auto& [value, table] : tables) {
    GW_ASSIGN_OR_RETURN(const Port port, state_->PortOf(value, "table's input"));
    const Node& input = state_->graph.node(port.node);
    if (input.op->name != "Input") {
      return absl::InvalidArgumentError(
          absl::StrCat("PrepareRows: only inputs read tables, and ", DescribeNode(state_->graph, input), " is none"));
    }
    GW_ASSIGN_OR_RETURN(std::string name, state_->KeepTable(input, table));
    inputs.push_back({port.node, std::move(name), table.type()});
  }
  GW_ASSIGN_OR_RETURN(const Graph wanted, ReadFromTables(state_->GraphOf(key), inputs));
  auto run = std::make_unique<PreparedRun::State>();
  run->session = state_.get();
  const NodeId rows_input = wanted.FindNamed(kRowsInput);
  const Tensor numbers(kInt32, {rows});
  DimBindings bindings;
  if (rows_input >= 0) {
    GW_RETURN_IF_ERROR(BindSizes(wanted.node(rows_input), numbers, bindings));
    GW_RETURN_IF_ERROR(CheckSizes(wanted.node(rows_input), numbers, bindings));
    run->feeds = {{Value(), numbers}};
    run->addresses = {numbers.raw_data()};
  }
  GW_ASSIGN_OR_RETURN(run->executable, state_->CompileGraph(wanted, bindings, {kRowsInput}));
  if (run->executable->input_names().empty()) run->addresses.clear();
  GW_ASSIGN_OR_RETURN(run->results, MakeResults(*run->executable));
  run->reads_tables = true;
  return std::unique_ptr<PreparedRun>(new PreparedRun(std::move(run)));
}

PreparedRun::PreparedRun(std::unique_ptr<State> state) : state_(std::move(state)) {}
PreparedRun::~PreparedRun() = default;

absl::Status PreparedRun::Run() {
  Session::State& session = *state_->session;
  std::lock_guard lock(session.mutex);
  return state_->executable->Run(state_->addresses, absl::MakeSpan(state_->results), *session.pool, session.seed,
                                 session.next_run++);
}

const std::vector<Tensor>& PreparedRun::results() const { return state_->results; }

absl::Status PreparedRun::SetFeed(int i, const Tensor& tensor) {
  if (state_->reads_tables || i < 0 || i >= static_cast<int>(state_->feeds.size())) {
    return absl::InvalidArgumentError(absl::StrCat("SetFeed: there is no feed ", i));
  }
  Feed& feed = state_->feeds[i];
  if (!(feed.second.type() == tensor.type())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "SetFeed: feed ", i, " was prepared as ", feed.second.type().ToString(), " and is ", tensor.type().ToString()));
  }
  feed.second = tensor;
  GW_ASSIGN_OR_RETURN(state_->addresses, state_->session->FeedAddresses(*state_->executable, state_->feeds));
  return absl::OkStatus();
}

absl::Status PreparedRun::SetRows(absl::Span<const int64_t> rows) {
  if (!state_->reads_tables) return absl::InvalidArgumentError("SetRows: the run was not made by PrepareRows");
  if (state_->feeds.empty()) return absl::OkStatus();
  Tensor& numbers = state_->feeds[0].second;
  if (numbers.num_elements() != static_cast<int64_t>(rows.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("SetRows: the run was prepared for ", numbers.num_elements(), " rows and is given ", rows.size()));
  }
  std::copy(rows.begin(), rows.end(), numbers.mutable_data<int32_t>());
  return absl::OkStatus();
}

}  // namespace gradweave
