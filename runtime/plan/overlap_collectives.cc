// The stage that lets sums over shards run beside other steps.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_format.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/distributed/collective_kernels.h"
#include "gradweave/runtime/distributed/communicator.h"
#include "gradweave/runtime/plan/planner.h"

namespace gradweave {
namespace {

// A place in the new order: a step as it was, or a part of a step that becomes two.
struct Entry {
  enum Kind { kStep, kStart, kWait };
  int step;
  Kind kind = kStep;
};

class Overlapper {
 public:
  explicit Overlapper(Plan& plan) : plan_(plan), steps_(std::move(plan.steps)), states_(steps_.size(), kToDo) {}

  void Run() {
    for (int i = 0; i < Size(steps_); ++i) {
      if (!IsCollective(i)) continue;
      // The second operand gives the order of the chain, which the steps keep; its elements are not
      // read.
      steps_[i].operands.resize(1);
      chain_.push_back(i);
    }
    StartReady();
    for (int i = 0; i < Size(steps_); ++i) {
      if (states_[i] != kToDo) continue;
      WaitForOperands(i);
      if (IsAllReduce(i)) {
        StartReady();
        GW_CHECK(states_[i] == kStarted, "a sum over shards has not started");
        continue;
      }
      order_.push_back({i});
      states_[i] = kDone;
      if (IsCollective(i)) ++next_in_chain_;
      StartReady();
    }
    for (int i : chain_) Wait(i);
    DelayUpdates();
    JoinNeighbors();
    MakeSteps();
  }

 private:
  enum State { kToDo, kStarted, kDone };

  template <typename T>
  static int Size(const std::vector<T>& list) {
    return static_cast<int>(list.size());
  }
  const Node& NodeOf(int step) const { return plan_.graph.node(steps_[step].node); }
  bool IsAllReduce(int step) const {
    return steps_[step].num_nodes == 1 && NodeOf(step).op->kind == OpKind::kAllReduce;
  }
  bool IsCollective(int step) const { return steps_[step].num_nodes == 1 && NodeOf(step).op->collective; }
  // The step that computes an operand; -1 if it exists before the run.
  int ProducerOf(Port operand) const { return plan_.step_of[plan_.Root(operand).node]; }

  // Starts the next sums of the chain whose operands exist.
  void StartReady() {
    for (; next_in_chain_ < Size(chain_); ++next_in_chain_) {
      const int step = chain_[next_in_chain_];
      if (!IsAllReduce(step)) return;
      const int producer = ProducerOf(steps_[step].operands[0]);
      if (producer >= 0 && states_[producer] != kDone) return;
      order_.push_back({step, Entry::kStart});
      states_[step] = kStarted;
    }
  }
  void Wait(int step) {
    if (states_[step] != kStarted) return;
    order_.push_back({step, Entry::kWait});
    states_[step] = kDone;
  }
  void WaitForOperands(int step) {
    for (Port operand : steps_[step].operands) {
      if (const int producer = ProducerOf(operand); producer >= 0) Wait(producer);
    }
  }

  bool MayFail(const Entry& entry) const { return entry.kind != Entry::kStart && steps_[entry.step].kernel.fallible; }

  // Moves steps after the last step that can fail, unless a step that can fail depends on them.
  // They can then write new values directly into variables.
  void DelayUpdates() {
    const auto first =
        std::find_if(order_.begin(), order_.end(), [](const Entry& e) { return e.kind == Entry::kWait; });
    auto last = order_.end();
    while (last != first && !MayFail(*(last - 1))) --last;
    absl::flat_hash_set<Port> read;  // The ports that steps which stay read.
    std::vector<Entry> stay, moved;
    for (auto entry = last; entry != first;) {
      --entry;
      const PlanStep& step = steps_[entry->step];
      const bool stays = entry->kind != Entry::kStep || MayFail(*entry) || IsCollective(entry->step) ||
                         std::any_of(step.outputs.begin(), step.outputs.end(),
                                     [&](Port output) { return read.contains(plan_.Root(output)); });
      if (stays) {
        for (Port operand : step.operands) read.insert(plan_.Root(operand));
      }
      (stays ? stay : moved).push_back(*entry);
    }
    std::copy(moved.rbegin(), moved.rend(), std::copy(stay.rbegin(), stay.rend(), first));
  }

  // A sum that is waited for at once stays one step.
  void JoinNeighbors() {
    std::vector<Entry> joined;
    for (const Entry& entry : order_) {
      if (entry.kind == Entry::kWait && joined.back().kind == Entry::kStart && joined.back().step == entry.step) {
        joined.back().kind = Entry::kStep;
      } else {
        joined.push_back(entry);
      }
    }
    order_ = std::move(joined);
  }

  void MakeSteps() {
    const std::shared_ptr<distributed::Communicator>& communicator = plan_.options.communicator;
    const auto row = std::make_shared<distributed::OverlappedRow>();
    std::vector<int> numbers(steps_.size());  // Indexed by old number: that of the step or its start.
    std::vector<Kernel> waits(steps_.size());
    int64_t bytes = 0;
    int beside = 0;
    for (const Entry& entry : order_) {
      PlanStep& step = steps_[entry.step];
      if (entry.kind == Entry::kWait) {
        plan_.steps[numbers[entry.step]].waited_for = Size(plan_.steps);
        plan_.steps.push_back({.kernel = std::move(waits[entry.step]),
                               .node = plan_.steps[numbers[entry.step]].node,
                               .operands = {plan_.steps[numbers[entry.step]].outputs[0]}});
        continue;
      }
      numbers[entry.step] = Size(plan_.steps);
      const TensorType& type = NodeOf(entry.step).outputs[0];
      if (IsAllReduce(entry.step)) bytes += type.byte_size();
      if (entry.kind == Entry::kStart) {
        distributed::OverlappedKernels kernels =
            distributed::MakeOverlappedAllReduce(communicator, type.dtype, type.shape.num_elements().size(),
                                                 NodeOf(entry.step).display_name(), beside == 0, row);
        ++beside;
        step.kernel = std::move(kernels.start);
        waits[entry.step] = std::move(kernels.wait);
      }
      plan_.steps.push_back(std::move(step));
    }
    for (int& step : plan_.step_of) step = step < 0 ? step : numbers[step];
    const auto sums = std::count_if(chain_.begin(), chain_.end(), [&](int step) {
      return plan_.graph.node(plan_.steps[numbers[step]].node).op->kind == OpKind::kAllReduce;
    });
    if (sums == 0) return;
    const distributed::LinkCost& link = communicator->link();
    plan_.choices.push_back(absl::StrFormat(
        "sums over shards: %d of %d bytes together, %d of them beside other steps; small ones are joined up to %d "
        "bytes, as a message takes %.1f us and %.3f ns for each byte",
        sums, bytes, beside, BucketBytes(link, communicator->shards()), link.seconds_per_message * 1e6,
        link.seconds_per_byte * 1e9));
  }

  Plan& plan_;
  std::vector<PlanStep> steps_;
  std::vector<State> states_;  // Indexed by step.
  std::vector<int> chain_;     // The collective steps, in the order of all shards.
  int next_in_chain_ = 0;      // The first one that has not started.
  std::vector<Entry> order_;
};

}  // namespace

absl::Status OverlapCollectives(Plan& plan) {
  const std::shared_ptr<distributed::Communicator>& communicator = plan.options.communicator;
  const bool alone = communicator == nullptr || communicator->shards() == 1;
  if (alone || plan.devices.size() > 1 || plan.options.in_order) return absl::OkStatus();
  Overlapper(plan).Run();
  return absl::OkStatus();
}

}  // namespace gradweave
