#include "gradweave/runtime/session/session.h"

#include <algorithm>
#include <any>
#include <cstring>
#include <new>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/passes/shard_state.h"
#include "gradweave/runtime/distributed/group.h"
#include "gradweave/runtime/session/backends.h"
#include "gradweave/runtime/session/running_sums.h"
#include "gradweave/runtime/session/session_state.h"
#include "gradweave/runtime/session/table_inputs.h"

namespace gradweave {
namespace {

constexpr int kMostThreads = 1024;

absl::Status CheckOptions(const SessionOptions& options) {
  if (options.threads < 0 || options.threads > kMostThreads) {
    return absl::InvalidArgumentError(absl::StrCat("Session: threads is ", options.threads, " and has to be in [0, ",
                                                   kMostThreads, "], 0 for all processors"));
  }
  if (options.memory_budget < 0) {
    return absl::InvalidArgumentError(absl::StrCat("Session: memory_budget is ", options.memory_budget,
                                                   " bytes and has to be at least 0; 0 means no limit"));
  }
  if (options.mixed_precision.has_value() && !IsHalf(*options.mixed_precision)) {
    return absl::InvalidArgumentError(absl::StrCat("Session: mixed_precision is ", DTypeName(*options.mixed_precision),
                                                   " and has to be ", kHalves.ToString()));
  }
  const int local_shards = options.group == nullptr ? 1 : options.group->local_shards();
  if (options.local_shard < 0 || options.local_shard >= local_shards) {
    return absl::InvalidArgumentError(
        absl::StrCat("Session: local_shard is ", options.local_shard, " and has to be in [0, ", local_shards, ")"));
  }
  for (const BackendEntry* entry : Backends()) {
    if (entry->backend.check_options == nullptr) continue;
    GW_RETURN_IF_ERROR(entry->backend.check_options(entry->options(options)));
  }
  return options.device.CheckAvailable();
}

// The devices that the options and nodes of the graph ask for: the CPU, and at most one other.
absl::StatusOr<std::vector<Device>> FindDevices(const Graph& graph, const Device& of_session) {
  std::vector<Device> found = {Device::Cpu()};
  if (!of_session.is_cpu()) found.push_back(of_session);
  for (const Node& node : graph.nodes()) {
    if (node.device.empty()) continue;
    const absl::StatusOr<Device> device = Device::Parse(node.device);
    if (!device.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("Session: ", device.status().message(), "; in ", DescribeNode(graph, node)));
    }
    if (!device->is_cpu() && !(*device == found.back())) {
      if (found.size() > 1) {
        return absl::InvalidArgumentError(absl::StrCat("Session: a session has one device beside the CPU, ",
                                                       found.back().ToString(), " here, and a node asks for ",
                                                       device->ToString(), ": ", DescribeNode(graph, node)));
      }
      found.push_back(*device);
    }
    if (absl::Status status = device->CheckAvailable(); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(status.message(), "; a node asks for it: ", DescribeNode(graph, node)));
    }
  }
  return found;
}

absl::StatusOr<std::shared_ptr<BackendDevice>> OpenDevice(const Device& device, const SessionOptions& options) {
  const BackendEntry& entry = *FindBackend(device.backend);
  return entry.backend.open(device.index, entry.options == nullptr ? std::any() : entry.options(options));
}

// Tensors for the fetched values of a run.
absl::StatusOr<std::vector<Tensor>> MakeResults(const CompiledGraph& executable) {
  std::vector<Tensor> results;
  for (const TensorType& type : executable.fetch_types()) {
    GW_ASSIGN_OR_RETURN(results.emplace_back(), Tensor::Create(type.dtype, type.shape.sizes()));
  }
  return results;
}

// True if the options have ended the run before it changed anything.
bool WasStopped(const absl::Status& status, const RunOptions& options) {
  const bool fits =
      status.code() == absl::StatusCode::kCancelled || status.code() == absl::StatusCode::kDeadlineExceeded;
  return fits && options.is_limited();
}

}  // namespace

absl::Status Session::State::InitializeVariables(const std::vector<std::pair<std::string, Tensor>>& given) {
  absl::flat_hash_map<std::string, Tensor> values;
  for (const auto& [name, tensor] : given) {
    const NodeId id = graph.FindNamed(name);
    if (id < 0 || graph.node(id).op->kind != OpKind::kVariable) {
      return absl::NotFoundError(absl::StrCat("Session: the graph has no variable '", name, "'"));
    }
    if (!(tensor.type() == graph.node(id).outputs[0])) {
      return absl::InvalidArgumentError(absl::StrCat("Session: variable '", name, "' is ",
                                                     graph.node(id).outputs[0].ToString(), " and was given ",
                                                     tensor.type().ToString()));
    }
    values[name] = tensor.Clone();
  }
  std::vector<NodeId> missing;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind != OpKind::kVariable) continue;
    variable_names.push_back(node.name);
    if (!values.contains(node.name)) missing.push_back(node.id);
  }
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> computed, ComputeInitialValues(missing));
  for (size_t i = 0; i < missing.size(); ++i) values[graph.node(missing[i]).name] = computed[i];
  for (const auto& [name, value] : values) {
    if (sharded.count(name) == 0) {
      variables->Add(name, value);
      continue;
    }
    GW_ASSIGN_OR_RETURN(const Tensor part, PartOf(value));
    variables->Add(name, part);
    wholes[name] = value;
  }
  return absl::OkStatus();
}

// Computes the initial values of these variables with one plan of the CPU, so that they have the
// same bits for every device.
absl::StatusOr<std::vector<Tensor>> Session::State::ComputeInitialValues(absl::Span<const NodeId> wanted) const {
  if (wanted.empty()) return std::vector<Tensor>();
  Graph initial = graph;
  std::vector<Value> values;
  for (NodeId id : wanted) values.push_back(initial.value(Port{id, 0}));
  initial.ClearOutputs();
  initial.SetOutput(kFetches, values);
  auto check = [](const Graph& specialized) {
    for (const Node& node : specialized.nodes()) {
      if (node.op->kind != OpKind::kInput) continue;
      return absl::InvalidArgumentError(absl::StrCat("Session: the initial value of a variable needs input '",
                                                     node.name, "', and there is none yet"));
    }
    return absl::OkStatus();
  };
  GW_ASSIGN_OR_RETURN(std::unique_ptr<CompiledGraph> plan,
                      Lower(initial, {.pipeline = {.initial_values = true, .evaluate = CpuEvaluator()},
                                      .compile = {{.threads = pool->num_threads()}},
                                      .devices = {devices[0]},
                                      .device = devices[0]->name(),
                                      .check = check}));
  GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, MakeResults(*plan));
  GW_RETURN_IF_ERROR(plan->Run({}, absl::MakeSpan(results), *pool, seed, 0));
  return results;
}

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&& other) noexcept {
  std::shared_ptr<State> taken = std::move(other.state_);
  const Session old(std::move(*this));  // Its destructor knows what to do with a copy in a child.
  state_ = std::move(taken);
  return *this;
}
Session::~Session() {
  // State that another thread was changing during fork() cannot be destroyed.
  if (state_ != nullptr && state_->is_copy()) (void)new (std::nothrow) std::shared_ptr<State>(std::move(state_));
}

absl::Status Session::State::CheckProcess(absl::string_view call) const {
  if (!is_copy()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(call, ": the session was created before fork(), and this is the child, which has none of its ",
                   "threads; create a session in the child"));
}

absl::Status Session::CheckUsable(absl::string_view call) const {
  if (state_ == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(call, ": the session was moved from; call the one that it was ", "moved to"));
  }
  return state_->CheckProcess(call);
}

const Session::State& Session::CheckedState(absl::string_view call) const {
  GW_CHECK(state_ != nullptr, call, " of a session that was moved from");
  return *state_;
}

absl::StatusOr<Session> Session::Create(const Graph& graph, SessionOptions options) try {
  GW_RETURN_IF_ERROR(graph.status());
  GW_RETURN_IF_ERROR(CheckOptions(options));
  auto state = std::make_unique<State>();
  state->graph = graph;
  state->original = &graph;
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
  state->options = options;
  state->options.variables.clear();
  GW_ASSIGN_OR_RETURN(const std::vector<Device> devices, FindDevices(graph, options.device));
  for (const Device& device : devices) {
    GW_ASSIGN_OR_RETURN(state->devices.emplace_back(), OpenDevice(device, options));
  }
  state->variables = std::make_shared<Variables>(state->devices.size() > 1 ? state->devices.back() : nullptr);
  state->memory = std::make_shared<SessionMemory>(state->devices);
  if (options.group != nullptr && options.group->shard_optimizer()) {
    state->sharded = VariablesToShard(graph, options.group->shards());
  }
  GW_RETURN_IF_ERROR(state->InitializeVariables(options.variables));
  return Session(std::move(state));
}
GW_CATCH_OUT_OF_MEMORY("Session::Create")

// Runs a plan. Errors other than those of the options use up the run's number.
absl::Status Session::State::RunPlan(CompiledGraph& executable, absl::Span<const void* const> feeds,
                                     absl::Span<Tensor> results, const RunOptions& options, Profiler* profiler) {
  ForgetWholes(executable);
  const absl::Status status = executable.Run(feeds, results, *pool, seed, next_run, profiler, options);
  if (!WasStopped(status, options)) ++next_run;
  return status;
}

absl::Status Session::State::StartPlan(CompiledGraph& executable, absl::Span<const void* const> feeds,
                                       absl::Span<Tensor> results, const RunOptions& options) {
  ForgetWholes(executable);
  const absl::Status status = executable.Start(feeds, results, *pool, seed, next_run, options);
  if (!WasStopped(status, options)) ++next_run;
  return status;
}

absl::StatusOr<std::vector<Tensor>> Session::Run(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches,
                                                 const RunOptions& options) try {
  GW_RETURN_IF_ERROR(CheckUsable("Run"));
  std::lock_guard lock(state_->mutex);
  state_->Settle();
  // A plan takes time to make.
  if (options.stopped()) return StopError(options, "before its first step");
  GW_ASSIGN_OR_RETURN(std::shared_ptr<CompiledGraph> executable, state_->FindOrCompile(feeds, fetches));
  GW_ASSIGN_OR_RETURN(std::vector<const void*> addresses, state_->FeedAddresses(*executable, feeds));
  GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, MakeResults(*executable));
  GW_RETURN_IF_ERROR(state_->RunPlan(*executable, addresses, absl::MakeSpan(results), options));
  return results;
}
GW_CATCH_OUT_OF_MEMORY("Run")

absl::StatusOr<Tensor> Session::GetVariable(absl::string_view name) const try {
  GW_RETURN_IF_ERROR(CheckUsable("GetVariable"));
  std::lock_guard lock(state_->mutex);
  Variable* const variable = state_->variables->Find(name);
  if (variable == nullptr) {
    return absl::NotFoundError(absl::StrCat("GetVariable: there is no variable '", name, "'"));
  }
  if (state_->sharded.count(variable->name) > 0) return state_->WholeOf(variable->name);
  state_->Settle();
  GW_RETURN_IF_ERROR(state_->variables->ToHost(*variable));
  return variable->host.Clone();
}
GW_CATCH_OUT_OF_MEMORY("GetVariable")

absl::Status Session::SetVariable(absl::string_view name, const Tensor& value) try {
  GW_RETURN_IF_ERROR(CheckUsable("SetVariable"));
  std::lock_guard lock(state_->mutex);
  Variable* const variable = state_->variables->Find(name);
  if (variable == nullptr) {
    return absl::NotFoundError(absl::StrCat("SetVariable: there is no variable '", name, "'"));
  }
  Tensor& host = variable->host;
  const bool is_sharded = state_->sharded.count(variable->name) > 0;
  const TensorType type = is_sharded ? state_->graph.node(state_->graph.FindNamed(name)).outputs[0] : host.type();
  if (!(type == value.type())) {
    return absl::InvalidArgumentError(absl::StrCat("SetVariable: variable '", name, "' is ", type.ToString(),
                                                   " and was given ", value.type().ToString()));
  }
  state_->Settle();
  Tensor own = value;
  if (is_sharded) {
    GW_ASSIGN_OR_RETURN(own, state_->PartOf(value));
    state_->wholes[variable->name] = value.Clone();
  }
  if (own.byte_size() > 0) std::memcpy(host.mutable_raw_data(), own.raw_data(), own.byte_size());
  variable->SetCurrent(true);
  return absl::OkStatus();
}
GW_CATCH_OUT_OF_MEMORY("SetVariable")

// Waits for started runs and stores their results, or the error for the prepared run that started
// them.
void Session::State::Settle() {
  if (started == nullptr) return;
  PreparedRun::State& run = *std::exchange(started, nullptr);
  run.failure.Update(run.executable->Finish(absl::MakeSpan(run.results)));
}

std::vector<std::string> Session::VariableNames() const { return CheckedState("VariableNames").variable_names; }
const Graph& Session::graph() const { return CheckedState("graph").graph; }
Device Session::device() const { return CheckedState("device").device; }
int Session::threads() const { return CheckedState("threads").pool->num_threads(); }

const SessionOptions& Session::options() const { return CheckedState("options").options; }

uint64_t Session::seed() const { return CheckedState("seed").seed; }

uint64_t Session::run_number() const {
  const State& state = CheckedState("run_number");
  if (state.is_copy()) return state.next_run;
  std::lock_guard lock(state.mutex);
  return state.next_run;
}

void Session::SetRunNumber(uint64_t number) {
  GW_CHECK(state_ != nullptr, "SetRunNumber of a session that was moved from");
  if (state_->is_copy()) return;  // It has no next run, and a thread that is not here may hold the lock.
  std::lock_guard lock(state_->mutex);
  state_->next_run = number;
}

absl::StatusOr<std::string> Session::DescribePlan(const std::vector<Feed>& feeds,
                                                  const std::vector<Fetch>& fetches) try {
  GW_RETURN_IF_ERROR(CheckUsable("DescribePlan"));
  std::lock_guard lock(state_->mutex);
  GW_ASSIGN_OR_RETURN(std::shared_ptr<CompiledGraph> executable, state_->FindOrCompile(feeds, fetches));
  return executable->Describe();
}
GW_CATCH_OUT_OF_MEMORY("DescribePlan")

absl::StatusOr<Profile> Session::ProfileRun(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches,
                                            const RunOptions& options) try {
  GW_RETURN_IF_ERROR(CheckUsable("ProfileRun"));
  std::lock_guard lock(state_->mutex);
  state_->Settle();
  // A plan takes time to make.
  if (options.stopped()) return StopError(options, "before its first step");
  GW_ASSIGN_OR_RETURN(std::shared_ptr<CompiledGraph> executable, state_->FindOrCompile(feeds, fetches));
  GW_ASSIGN_OR_RETURN(std::vector<const void*> addresses, state_->FeedAddresses(*executable, feeds));
  GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, MakeResults(*executable));
  Profiler profiler(state_->pool->num_threads());
  GW_RETURN_IF_ERROR(state_->RunPlan(*executable, addresses, absl::MakeSpan(results), options, &profiler));
  return Profile{executable->Describe(), profiler.TraceEvents()};
}
GW_CATCH_OUT_OF_MEMORY("ProfileRun")

// Adds the table to the variables, or returns the existing variable for the same input and table.
std::string Session::State::KeepTable(const Node& input, const Tensor& table, PreparedRun::State& run) {
  std::string name;
  for (int i = 0;; ++i) {
    name = absl::StrCat("table ", i, " of ", input.name);
    if (graph.FindNamed(name) >= 0) continue;
    const Variable* const there = variables->Find(name);
    if (there == nullptr) variables->Add(name, table);
    if (there == nullptr || (there->host.raw_data() == table.raw_data() && there->host.type() == table.type())) break;
  }
  ++table_users[name];
  run.tables.push_back(name);
  return name;
}

// Removes the tables that no other run reads. No plan of the run may be left.
void Session::State::ForgetTables(const PreparedRun::State& run) {
  for (const std::string& name : run.tables) {
    if (--table_users[name] > 0) continue;
    table_users.erase(name);
    variables->Remove(name);
  }
}

// Gives each running sum of the fetches a variable, and the graph that adds to them.
absl::StatusOr<Graph> Session::State::KeepSums(const Graph& wanted, const std::vector<Fetch>& fetches,
                                               PreparedRun::State& run) {
  std::vector<RunningSum> sums;
  int fetched = 0, number = 0;
  for (const Fetch& fetch : fetches) {
    if (fetch.is_update()) continue;
    if (fetch.weight().has_value()) {
      std::string name;
      do {
        name = absl::StrCat("running sum ", number++);
      } while (graph.FindNamed(name) >= 0 || variables->Find(name) != nullptr);
      sums.push_back({.fetch = fetched, .weight = *fetch.weight(), .name = std::move(name)});
    }
    ++fetched;
  }
  if (sums.empty()) return wanted;
  GW_ASSIGN_OR_RETURN(Graph with_sums, AddRunningSums(wanted, sums));
  for (const RunningSum& sum : sums) {
    const Shape& shape = with_sums.node(with_sums.FindNamed(sum.name)).outputs[0].shape;
    run.sums.push_back(sum.name);
    variables->Add(sum.name, Tensor(kFloat64, shape.sizes()));
  }
  return with_sums;
}

absl::Status Session::State::ClearSums(const PreparedRun::State& run) {
  Settle();
  for (const std::string& name : run.sums) {
    Variable& sum = *variables->Find(name);
    std::fill_n(sum.host.mutable_data<double>(), sum.host.num_elements(), 0.0);
    sum.SetCurrent(true);
  }
  return absl::OkStatus();
}

absl::Status Session::State::SetSums(const PreparedRun::State& run, absl::Span<const Tensor> sums) {
  Settle();
  if (sums.size() != run.sums.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("SetSums: the run has ", run.sums.size(), " running sums and is given ", sums.size(), " values"));
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    const Tensor& host = variables->Find(run.sums[i])->host;
    if (sums[i].type() == host.type()) continue;
    return absl::InvalidArgumentError(absl::StrCat("SetSums: running sum ", i, " is ", host.type().ToString(),
                                                   " and was given ", sums[i].type().ToString()));
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    Variable& sum = *variables->Find(run.sums[i]);
    if (sums[i].byte_size() > 0) std::memcpy(sum.host.mutable_raw_data(), sums[i].raw_data(), sums[i].byte_size());
    sum.SetCurrent(true);
  }
  return absl::OkStatus();
}

void Session::State::ForgetSums(const PreparedRun::State& run) {
  for (const std::string& name : run.sums) variables->Remove(name);
}

absl::StatusOr<std::unique_ptr<PreparedRun>> Session::Prepare(const std::vector<Feed>& feeds,
                                                              const std::vector<Fetch>& fetches) try {
  GW_RETURN_IF_ERROR(CheckUsable("Prepare"));
  // Declared before the lock, because its destructor takes the lock.
  std::unique_ptr<PreparedRun> prepared(new PreparedRun(std::make_unique<PreparedRun::State>(state_)));
  std::lock_guard lock(state_->mutex);
  PreparedRun::State& run = *prepared->state_;
  run.feeds = feeds;
  if (std::any_of(fetches.begin(), fetches.end(), [](const Fetch& fetch) { return fetch.weight().has_value(); })) {
    GW_ASSIGN_OR_RETURN(const PlanKey key, state_->MakeKey(feeds, fetches));
    GW_ASSIGN_OR_RETURN(const Graph wanted, state_->KeepSums(state_->GraphOf(key), fetches, run));
    GW_ASSIGN_OR_RETURN(run.executable, state_->Compile(wanted, feeds));
  } else {
    GW_ASSIGN_OR_RETURN(run.executable, state_->FindOrCompile(feeds, fetches));
  }
  GW_ASSIGN_OR_RETURN(run.addresses, state_->FeedAddresses(*run.executable, feeds));
  GW_ASSIGN_OR_RETURN(run.results, MakeResults(*run.executable));
  return prepared;
}
GW_CATCH_OUT_OF_MEMORY("Prepare")

absl::StatusOr<std::unique_ptr<PreparedRun>> Session::PrepareRows(const std::vector<TableFeed>& tables, int64_t rows,
                                                                  const std::vector<Fetch>& fetches) try {
  GW_RETURN_IF_ERROR(CheckUsable("PrepareRows"));
  std::unique_ptr<PreparedRun> prepared(new PreparedRun(std::make_unique<PreparedRun::State>(state_)));
  std::lock_guard lock(state_->mutex);
  if (rows < 1) return absl::InvalidArgumentError(absl::StrCat("PrepareRows: ", rows, " rows are none"));
  GW_ASSIGN_OR_RETURN(const PlanKey key, state_->MakeKey({}, fetches));
  PreparedRun::State& run = *prepared->state_;
  std::vector<TableInput> inputs;
  for (const auto& [value, table] : tables) {
    GW_ASSIGN_OR_RETURN(const Port port, state_->PortOf(value, "table's input"));
    const Node& input = state_->graph.node(port.node);
    if (input.op->kind != OpKind::kInput) {
      return absl::InvalidArgumentError(
          absl::StrCat("PrepareRows: only inputs read tables, and ", DescribeNode(state_->graph, input), " is none"));
    }
    inputs.push_back({port.node, state_->KeepTable(input, table, run), table.type()});
  }
  GW_ASSIGN_OR_RETURN(const Graph summing, state_->KeepSums(state_->GraphOf(key), fetches, run));
  GW_ASSIGN_OR_RETURN(const Graph wanted, ReadFromTables(summing, inputs));
  const NodeId rows_input = wanted.FindNamed(kRowsInput);
  const Tensor numbers(kInt32, {rows});
  DimBindings bindings;
  if (rows_input >= 0) {
    GW_RETURN_IF_ERROR(BindSizes(wanted.node(rows_input), numbers, bindings));
    GW_RETURN_IF_ERROR(CheckSizes(wanted.node(rows_input), numbers, bindings));
    run.feeds = {{Value(), numbers}};
    run.addresses = {numbers.raw_data()};
  }
  GW_ASSIGN_OR_RETURN(run.executable, state_->CompileGraph(wanted, bindings, {kRowsInput}));
  if (run.executable->input_names().empty()) run.addresses.clear();
  GW_ASSIGN_OR_RETURN(run.results, MakeResults(*run.executable));
  run.reads_tables = true;
  return prepared;
}
GW_CATCH_OUT_OF_MEMORY("PrepareRows")

}  // namespace gradweave
