#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

// The largest number of nodes that are repeated for one later use.
constexpr int kMostCopies = 8;
// The cost of reading or writing one byte, in floating-point operations.
constexpr double kFlopsPerByte = 4;

// The nodes of a graph in the order of their execution. A node may run more than once.
class Schedule {
 public:
  explicit Schedule(const Graph& graph);

  int64_t FindPeak();
  // Moves runs forward that free at least as many bytes as they take, so fewer bytes are live.
  // Updates are an example: the graph has them behind all gradients.
  void FreeEarly();
  // Shortens the lifetime of one value that is live at the peak, by computing it again after the
  // peak. Returns false if no value qualifies.
  bool ShortenOne();
  absl::StatusOr<Graph> ToGraph() const;

 private:
  // One output of one run of a node.
  struct Value {
    int run = -1;
    int32_t output = 0;
  };
  struct Run {
    const Node* node;
    std::vector<Value> inputs;
    int position = 0;  // In `order_`.
    // Indexed by output: positions of its uses. A root includes the uses of all values that share
    // its memory.
    std::vector<std::vector<int>> uses;
    // Indexed by output; 0 for a value that is outside of the arena or shares another value's
    // memory.
    std::vector<int64_t> bytes;
  };
  struct Candidate {
    Value value;
    std::vector<int> again;  // Runs to repeat, in order. The last one computes the value.
    double score = 0;        // Bytes saved per operation.
  };

  Value Root(Value value) const {
    while (runs_[value.run].node->op->alias) value = runs_[value.run].inputs[0];
    return value;
  }
  // The last position at which a root's memory is read, and the first such position after `after`.
  int LastUse(Value root) const {
    const std::vector<int>& uses = runs_[root.run].uses[root.output];
    return uses.empty() ? runs_[root.run].position : uses.back();
  }
  int NextUse(Value root, int after) const {
    const std::vector<int>& uses = runs_[root.run].uses[root.output];
    return *std::upper_bound(uses.begin(), uses.end(), after);
  }
  class FreeingOrder;

  void FindLives();
  bool Collect(Value root, std::vector<int>& again) const;
  double Cost(const std::vector<int>& again) const;
  void Apply(const Candidate& candidate);

  const Graph& graph_;
  std::vector<Run> runs_;
  std::vector<int> order_;
  std::map<std::string, std::vector<Value>, std::less<>> outputs_;
  int peak_ = 0;  // Position in `order_`.
};

Schedule::Schedule(const Graph& graph) : graph_(graph) {
  const std::vector<bool> needed = NeededNodes(graph);
  std::vector<int> run_of(graph.num_nodes(), -1);
  for (const Node& node : graph.nodes()) {
    if (!needed[node.id]) continue;
    Run run{.node = &node};
    for (Port input : node.inputs) run.inputs.push_back({run_of[input.node], input.output});
    run_of[node.id] = static_cast<int>(runs_.size());
    order_.push_back(run_of[node.id]);
    runs_.push_back(std::move(run));
  }
  for (const auto& [name, ports] : graph.outputs()) {
    for (Port port : ports) outputs_[name].push_back({run_of[port.node], port.output});
  }
}

void Schedule::FindLives() {
  for (size_t i = 0; i < order_.size(); ++i) {
    Run& run = runs_[order_[i]];
    run.position = static_cast<int>(i);
    const size_t outputs = run.node->outputs.size();
    run.uses.assign(outputs, {});
    run.bytes.assign(outputs, 0);
    // The result of an Assign is stored in the variable, not in the arena.
    const bool in_arena = !run.node->op->is_source() && !run.node->op->alias && run.node->op->kind != OpKind::kAssign;
    for (size_t output = 0; output < outputs && in_arena; ++output)
      run.bytes[output] = run.node->outputs[output].byte_size();
    for (Value input : run.inputs) {
      const Value root = Root(input);
      runs_[root.run].uses[root.output].push_back(run.position);
    }
  }
  for (const auto& [name, values] : outputs_) {
    for (Value value : values) {
      const Value root = Root(value);
      runs_[root.run].uses[root.output].push_back(static_cast<int>(order_.size()));
    }
  }
}

int64_t Schedule::FindPeak() {
  FindLives();
  std::vector<int64_t> change(order_.size() + 2, 0);
  for (int i : order_) {
    const Run& run = runs_[i];
    for (int32_t output = 0; output < static_cast<int32_t>(run.bytes.size()); ++output) {
      change[run.position] += run.bytes[output];
      change[LastUse({i, output}) + 1] -= run.bytes[output];
    }
  }
  int64_t live = 0, most = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    live += change[i];
    if (live > most) most = live, peak_ = static_cast<int>(i);
  }
  return most;
}

// The order of FreeEarly: after each run of the old order, the runs that it has made ready and that
// free memory.
class Schedule::FreeingOrder {
 public:
  // FindLives has been called.
  explicit FreeingOrder(const Schedule& schedule)
      : schedule_(schedule),
        runs_(schedule.runs_),
        uses_(runs_.size()),
        assigned_(runs_.size(), -1),
        readers_(runs_.size()),
        done_(runs_.size(), false) {
    for (size_t i = 0; i < runs_.size(); ++i) {
      for (const std::vector<int>& of_output : runs_[i].uses) uses_[i].push_back(static_cast<int>(of_output.size()));
      if (runs_[i].node->op->kind == OpKind::kAssign)
        assigned_[schedule.Root(runs_[i].inputs[1]).run] = schedule.Root(runs_[i].inputs[0]).run;
    }
    for (int i : schedule.order_) {
      for (Value input : runs_[i].inputs) readers_[input.run].push_back(i);
    }
  }

  std::vector<int> Find() {
    // Sources take no memory, so they come first. A learning rate, for example, then delays no
    // reader.
    for (int i : schedule_.order_) {
      if (runs_[i].node->op->is_source() && runs_[i].inputs.empty()) RunNext(i);
    }
    for (int i : schedule_.order_) {
      if (done_[i]) continue;
      RunNext(i);
      while (true) {
        waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), [&](int other) { return done_[other]; }),
                       waiting_.end());
        const auto next = std::find_if(waiting_.begin(), waiting_.end(), [&](int other) { return Frees(other); });
        if (next == waiting_.end()) break;
        RunNext(*next);
      }
    }
    return std::move(order_);
  }

 private:
  bool IsReady(int i) const {
    return std::all_of(runs_[i].inputs.begin(), runs_[i].inputs.end(), [&](Value input) { return done_[input.run]; });
  }
  bool ReadsRoot(Value input, Value root) const {
    const Value read = schedule_.Root(input);
    return read.run == root.run && read.output == root.output;
  }
  int64_t UsesOf(int i, Value root) const {
    return std::count_if(runs_[i].inputs.begin(), runs_[i].inputs.end(),
                         [&](Value input) { return ReadsRoot(input, root); });
  }
  // True if the run frees at least as many bytes as it takes.
  bool Frees(int i) const {
    const Run& run = runs_[i];
    // The assignment itself is a use.
    if (assigned_[i] >= 0 && uses_[assigned_[i]][0] > UsesOf(i, {assigned_[i], 0}) + 1) return false;
    int64_t bytes = 0;
    for (int64_t taken : run.bytes) bytes += taken;
    for (size_t k = 0; k < run.inputs.size(); ++k) {
      const Value root = schedule_.Root(run.inputs[k]);
      if (std::any_of(run.inputs.begin(), run.inputs.begin() + static_cast<int64_t>(k),
                      [&](Value other) { return ReadsRoot(other, root); })) {
        continue;
      }
      if (uses_[root.run][root.output] == UsesOf(i, root)) bytes -= runs_[root.run].bytes[root.output];
    }
    return bytes <= 0;
  }
  void RunNext(int i) {
    done_[i] = true;
    order_.push_back(i);
    for (Value input : runs_[i].inputs) {
      const Value root = schedule_.Root(input);
      --uses_[root.run][root.output];
    }
    for (int reader : readers_[i]) {
      if (!done_[reader] && IsReady(reader) && std::find(waiting_.begin(), waiting_.end(), reader) == waiting_.end())
        waiting_.push_back(reader);
    }
  }

  const Schedule& schedule_;
  const std::vector<Run>& runs_;
  std::vector<std::vector<int>> uses_;  // Indexed by run and output: uses of a root that are still to come.
  // Indexed by run: the variable that its value is assigned to. A variable that is read later cannot
  // take its new value in place.
  std::vector<int> assigned_;
  std::vector<std::vector<int>> readers_;
  std::vector<bool> done_;
  std::vector<int> order_, waiting_;  // The new order, and runs that are ready.
};

void Schedule::FreeEarly() {
  // The search is quadratic in the number of runs that could be next.
  constexpr size_t kMostRuns = 8192;
  if (runs_.size() > kMostRuns) return;
  FindLives();
  order_ = FreeingOrder(*this).Find();
}

// Collects the runs to repeat in order to compute the value from sources and from values that are
// still live at the peak; keeping those longer does not raise the peak. Returns false if the value
// cannot be computed again or needs more than kMostCopies runs.
bool Schedule::Collect(Value root, std::vector<int>& again) const {
  if (std::find(again.begin(), again.end(), root.run) != again.end()) return true;
  const Run& run = runs_[root.run];
  // A second execution would return other random numbers or another state.
  if (run.node->op->stateful || run.node->op->kind == OpKind::kAssign) return false;
  again.push_back(root.run);
  if (static_cast<int>(again.size()) > kMostCopies) return false;
  for (Value input : run.inputs) {
    const Value operand = Root(input);
    if (runs_[operand.run].node->op->is_source() || LastUse(operand) >= peak_) continue;
    if (!Collect(operand, again)) return false;
  }
  return true;
}

double Schedule::Cost(const std::vector<int>& again) const {
  double cost = 0;
  for (int i : again) {
    const Node& node = *runs_[i].node;
    const TensorTypes operands = graph_.OperandTypes(node);
    if (node.op->flops) cost += node.op->flops(OpView(*node.op, node.attributes, operands), node.outputs);
    for (const TensorType& output : node.outputs) cost += kFlopsPerByte * static_cast<double>(output.byte_size());
  }
  return cost;
}

bool Schedule::ShortenOne() {
  Candidate best;
  for (int i = 0; i < peak_; ++i) {
    const int index = order_[i];
    const Run& run = runs_[index];
    for (int32_t output = 0; output < static_cast<int32_t>(run.bytes.size()); ++output) {
      const Value value{index, output};
      // Fetched values, and values that the run at the peak reads, must stay.
      if (run.bytes[output] == 0 || LastUse(value) <= peak_ || LastUse(value) >= static_cast<int>(order_.size()))
        continue;
      if (NextUse(value, peak_ - 1) == peak_) continue;
      Candidate candidate{.value = value};
      if (!Collect(value, candidate.again)) continue;
      candidate.score = static_cast<double>(run.bytes[output]) / Cost(candidate.again);
      if (candidate.score > best.score) best = std::move(candidate);
    }
  }
  if (best.again.empty()) return false;
  Apply(best);
  return true;
}

void Schedule::Apply(const Candidate& candidate) {
  const int until = NextUse(candidate.value, peak_);
  std::vector<int> again = candidate.again;
  std::sort(again.begin(), again.end(), [&](int a, int b) { return runs_[a].position < runs_[b].position; });
  // Views of a repeated value are repeated too.
  std::map<int, int> copies;
  std::vector<int> added;
  auto copy = [&](auto&& self, int index) -> int {
    if (auto found = copies.find(index); found != copies.end()) return found->second;
    Run repeated{.node = runs_[index].node, .inputs = runs_[index].inputs};
    for (Value& input : repeated.inputs) {
      const Value root = Root(input);
      if (std::find(again.begin(), again.end(), root.run) != again.end()) input.run = self(self, input.run);
    }
    const int made = static_cast<int>(runs_.size());
    runs_.push_back(std::move(repeated));
    added.push_back(made);
    copies[index] = made;
    return made;
  };
  for (int index : again) copy(copy, index);
  // Later uses of the value, direct or through views, read the copy.
  for (size_t i = until; i < order_.size(); ++i) {
    const int user = order_[i];
    for (size_t k = 0; k < runs_[user].inputs.size(); ++k) {
      const Value input = runs_[user].inputs[k];
      const Value root = Root(input);
      if (root.run != candidate.value.run || root.output != candidate.value.output) continue;
      const int repeated = copy(copy, input.run);
      runs_[user].inputs[k].run = repeated;
    }
  }
  order_.insert(order_.begin() + until, added.begin(), added.end());
}

absl::StatusOr<Graph> Schedule::ToGraph() const {
  Graph result;
  result.builder() = graph_.builder();
  std::vector<NodeId> moved(runs_.size(), -1);
  for (int i : order_) {
    const Run& run = runs_[i];
    absl::InlinedVector<Port, 8> inputs;
    for (Value input : run.inputs) {
      GW_CHECK(moved[input.run] >= 0, run.node->display_name());
      inputs.push_back({moved[input.run], input.output});
    }
    const Node& node = *run.node;
    GW_ASSIGN_OR_RETURN(moved[i], result.AddNodeLike(node, inputs));
  }
  for (const auto& [name, values] : outputs_) {
    std::vector<gradweave::Value> ports;
    for (Value value : values) ports.push_back(result.value(Port{moved[value.run], value.output}));
    result.SetOutput(name, ports);
  }
  return result;
}

}  // namespace

absl::StatusOr<Graph> Rematerialize(const Graph& graph, int64_t budget_bytes) {
  Schedule schedule(graph);
  if (schedule.FindPeak() > budget_bytes) schedule.FreeEarly();
  // Each step moves a value's lifetime away from the peak, or the loop ends. Twice the number of
  // nodes is a safe limit on the number of steps.
  for (int steps = 2 * graph.num_nodes(); schedule.FindPeak() > budget_bytes && steps > 0; --steps) {
    if (!schedule.ShortenOne()) break;
  }
  return schedule.ToGraph();
}

}  // namespace gradweave
