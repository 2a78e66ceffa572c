// CompiledGraph: a plan that runs.
#ifndef GRADWEAVE_RUNTIME_PLAN_COMPILED_GRAPH_H_
#define GRADWEAVE_RUNTIME_PLAN_COMPILED_GRAPH_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/kernel/profiler.h"
#include "gradweave/runtime/kernel/run_options.h"
#include "gradweave/runtime/kernel/thread_pool.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

// The error of a run that its options stop: Cancelled or DeadlineExceeded. `where` ends the
// sentence "the run was cancelled ...".
absl::Status StopError(const RunOptions& options, absl::string_view where);

// Describes the place of a run that stops before this step of the plan: "before step 3 of 12, ...".
std::string BeforeStep(const Plan& plan, int step);

// Returns the first step that writes a variable in place, or the number of steps if none does.
int FirstStepThatUpdates(const Plan& plan);

// Not thread-safe.
class CompiledGraph {
 public:
  virtual ~CompiledGraph() = default;

  // Allocates the memory that runs need, before the first run. Returns ResourceExhausted, with the
  // plan's peak and its largest values, if there is no room; it may be called again when there is
  // more.
  virtual absl::Status Allocate() = 0;
  // The most bytes that the plan's arena could have now, beside the other memory that Allocate
  // takes; nullopt if no limit is known.
  virtual int64_t arena_room() const { return std::numeric_limits<int64_t>::max(); }

  // Computes everything, copies the fetched values into `results` (as many as there are fetches, of
  // their types), and then lets assignments take effect. Feeds are the addresses of the inputs'
  // elements. After an error that the data caused, and after a StopError, the variables have their
  // old values.
  virtual absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                           uint64_t seed, uint64_t run_number, Profiler* profiler = nullptr,
                           const RunOptions& options = {}) = 0;

  // Like Run, but may return before the run ends; feeds may change then. After it, only Start and
  // Finish are called until Finish has waited for the started runs. If a run fails, later ones
  // change nothing.
  virtual absl::Status Start(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                             uint64_t seed, uint64_t run_number, const RunOptions& options = {}) {
    return Run(feeds, results, pool, seed, run_number, nullptr, options);
  }
  // Waits for the started runs. Writes the results of the last one, unless Start has written them.
  // Returns the error of the first run that failed.
  virtual absl::Status Finish(absl::Span<Tensor> results) { return absl::OkStatus(); }

  // Returns a table with a row for each step, and the sums; with times if there was a profiled run.
  virtual std::string Describe() const = 0;

  const Plan& plan() const { return *plan_; }
  const Graph& graph() const { return plan_->graph; }
  // The inputs that runs have to be given, in the order of Run's feeds.
  const std::vector<std::string>& input_names() const { return plan_->input_names; }
  // The planned peak of memory for values and scratch; on the other device, if the session has one
  // beside the CPU.
  int64_t arena_bytes() const { return plan_->arenas.back().bytes(); }
  // The types of the fetched values.
  std::vector<TensorType> fetch_types() const;

 protected:
  explicit CompiledGraph(std::unique_ptr<Plan> plan) : plan_(std::move(plan)) {}

  const std::unique_ptr<Plan> plan_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_COMPILED_GRAPH_H_
