// Where the time of a run goes.
#ifndef GRADWEAVE_RUNTIME_KERNEL_PROFILE_H_
#define GRADWEAVE_RUNTIME_KERNEL_PROFILE_H_

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gradweave {

// What a profiled run tells.
struct Profile {
  // A row for each step of the plan, and under a step that runs many nodes in tiles a row for each of its parts: node,
  // kernel, result, bytes, FLOPs, microseconds (of a part: summed over threads) and GFLOP/s; then the planned memory.
  std::string table;
  // The run in the Trace Event Format, which Perfetto and chrome://tracing open: a row of spans for each thread, and
  // one for each stream of a CUDA device.
  std::string trace;

  // Writes the trace to a file; Unavailable where it cannot be written.
  absl::Status WriteTrace(absl::string_view path) const;
};

// Collects times while a run goes on. Each thread writes to a part of its own.
class Profiler {
 public:
  explicit Profiler(int threads);

  // Microseconds since the profiler was made.
  double Now() const { return std::chrono::duration<double, std::micro>(Clock::now() - start_).count(); }

  // A row of spans below those of the threads, for a device; its number. While no other thread writes.
  int AddRow(std::string name);
  // A stretch of time on a thread, or in a row.
  struct Span {
    std::string name;
    double begin, end;
  };
  void AddSpan(int row, std::string name, double begin, double end) {
    rows_[row].spans.push_back({std::move(name), begin, end});
  }
  // Time that a thread spent on a part of the current step (Kernel::parts).
  void AddPart(int thread, int part, double microseconds) {
    std::vector<double>& parts = rows_[thread].parts;
    if (part >= static_cast<int>(parts.size())) parts.resize(part + 1, 0);
    parts[part] += microseconds;
  }

  // The sums over threads since the last call.
  std::vector<double> TakeParts();
  std::string TraceEvents() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Row {
    std::string name;
    std::vector<Span> spans = {};
    std::vector<double> parts = {};
  };
  std::vector<Row> rows_;  // The threads' first.
  Clock::time_point start_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_PROFILE_H_
