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

// Where a run stops that does not run this step of the plan and those behind it: "before step 3 of
// 12, ...".
std::string BeforeStep(const Plan& plan, int step);

// The first step that writes a variable in place; behind all steps if none does.
int FirstStepThatUpdates(const Plan& plan);

// Not thread-safe.
class CompiledGraph {
 public:
  virtual ~CompiledGraph() = default;

  // Takes the memory that runs need and the plan doesn't have yet, before the first run.
  // ResourceExhausted, with the plan's peak and its largest values, where there is no room; it may
  // be called again when there is more.
  virtual absl::Status Allocate() = 0;
  // The most bytes that the plan's arena could have now, beside the rest that Allocate takes; none
  // known: no limit.
  virtual int64_t arena_room() const { return std::numeric_limits<int64_t>::max(); }

  // Computes everything, copies the fetched values into `results` (as many as there are fetches, of
  // their types), and then lets assignments take effect. Feeds are the addresses of the inputs'
  // elements. After an error that the data caused, and after one of StopError, the variables are as
  // before.
  virtual absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                           uint64_t seed, uint64_t run_number, Profiler* profiler = nullptr,
                           const RunOptions& options = {}) = 0;

  // As Run, but may return while the run goes on; feeds may change then. After it, only Start and
  // Finish are called until Finish has waited for the runs that were started. Once one fails, those
  // started after it change nothing.
  virtual absl::Status Start(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                             uint64_t seed, uint64_t run_number, const RunOptions& options = {}) {
    return Run(feeds, results, pool, seed, run_number, nullptr, options);
  }
  // Results are those of the run that was started last, unless Start has written them. The error of
  // the first that failed.
  virtual absl::Status Finish(absl::Span<Tensor> results) { return absl::OkStatus(); }

  // A row for each step, and the sums; with the times of a run where there was a profiled one.
  virtual std::string Describe() const = 0;

  const Plan& plan() const { return *plan_; }
  const Graph& graph() const { return plan_->graph; }
  // The inputs that runs have to be given, in the order of Run's feeds.
  const std::vector<std::string>& input_names() const { return plan_->input_names; }
  // The planned peak of memory for values and scratch, on the device beside the CPU where the
  // session has one.
  int64_t arena_bytes() const { return plan_->arenas.back().bytes(); }
  // The types of the fetched values.
  std::vector<TensorType> fetch_types() const;

 protected:
  explicit CompiledGraph(std::unique_ptr<Plan> plan) : plan_(std::move(plan)) {}

  const std::unique_ptr<Plan> plan_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_COMPILED_GRAPH_H_
