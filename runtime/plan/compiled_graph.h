// A graph compiled for known sizes, on whichever devices.
#ifndef GRADWEAVE_RUNTIME_PLAN_COMPILED_GRAPH_H_
#define GRADWEAVE_RUNTIME_PLAN_COMPILED_GRAPH_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/kernel/profile.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// The outputs of a graph that is compiled: values to give back, and Assign nodes to carry out.
inline constexpr absl::string_view kFetches = "fetches";
inline constexpr absl::string_view kUpdates = "updates";

// A session's variable.
struct StoredVariable {
  Tensor tensor;  // It keeps its place while compiled graphs point to it.
  // How often it may have been set on the host; of all copies.
  std::shared_ptr<uint64_t> version = std::make_shared<uint64_t>(0);
};
using VariableStorage = absl::flat_hash_map<std::string, StoredVariable>;

// Not thread-safe.
class CompiledGraph {
 public:
  virtual ~CompiledGraph() = default;

  // Takes what memory runs need and the plan hasn't got, before the first run. ResourceExhausted, with the plan's peak
  // and its largest values, where there is no room; it may be called again when there is more.
  virtual absl::Status Allocate() { return absl::OkStatus(); }
  // The most bytes that the plan's arena could have now, beside the rest that Allocate takes; none known: no limit.
  virtual int64_t arena_room() const { return std::numeric_limits<int64_t>::max(); }

  // The inputs that runs have to be given, in the order of Run's feeds.
  virtual const std::vector<std::string>& input_names() const = 0;

  // Computes everything, copies the fetched values into `results` (as many as there are fetches, of their types), and
  // then lets assignments take effect. Feeds are the addresses of the inputs' elements. After an error that the data
  // caused the variables are as before.
  virtual absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                           uint64_t seed, uint64_t run_number, Profiler* profiler = nullptr) = 0;

  // As Run, but may return while the run goes on; feeds may change then. After it, only Start and Finish are called
  // until Finish has waited for the runs that were started. Once one fails, those started after it change nothing.
  virtual absl::Status Start(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                             uint64_t seed, uint64_t run_number) {
    return Run(feeds, results, pool, seed, run_number);
  }
  // Results are those of the run that was started last, unless Start has written them. The error of the first that
  // failed.
  virtual absl::Status Finish(absl::Span<Tensor> results) { return absl::OkStatus(); }

  virtual const Graph& graph() const = 0;
  // The planned peak of memory for values and scratch; of the device that the session is on.
  virtual int64_t arena_bytes() const = 0;
  // A row for each step, and the sums; with the times of a run where there was a profiled one.
  virtual std::string Describe() const = 0;

  // The types of the fetched values.
  std::vector<TensorType> fetch_types() const {
    std::vector<TensorType> types;
    if (auto fetches = graph().outputs().find(kFetches); fetches != graph().outputs().end()) {
      for (Port port : fetches->second) types.push_back(graph().type(port));
    }
    return types;
  }
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_COMPILED_GRAPH_H_
