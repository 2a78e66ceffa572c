// Time measurement of one run.
#ifndef GRADWEAVE_RUNTIME_KERNEL_PROFILER_H_
#define GRADWEAVE_RUNTIME_KERNEL_PROFILER_H_

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace gradweave {

// Collects times during a run. Each thread writes to a row of its own, so no locks are needed.
class Profiler {
 public:
  explicit Profiler(int threads);

  // Returns the microseconds since construction.
  double Now() const { return std::chrono::duration<double, std::micro>(Clock::now() - start_).count(); }

  // Adds a row of spans for a device, below the rows of the threads, and returns its index. No
  // other thread may write meanwhile.
  int AddRow(std::string name);
  // An interval on a thread or a device row. Times are in microseconds as given by Now().
  struct Span {
    std::string name;
    double begin, end;
  };
  void AddSpan(int row, std::string name, double begin, double end) {
    rows_[row].spans.push_back({std::move(name), begin, end});
  }
  // Adds time that a thread spent on a part of the current step (an index into Kernel::parts).
  void AddPart(int thread, int part, double microseconds) {
    std::vector<double>& parts = rows_[thread].parts;
    if (part >= static_cast<int>(parts.size())) parts.resize(part + 1, 0);
    parts[part] += microseconds;
  }

  // Returns the time of each part since the last call, summed over threads, and resets the sums.
  std::vector<double> TakeParts();
  // Returns all spans in the Trace Event Format (JSON).
  std::string TraceEvents() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Row {
    std::string name;
    std::vector<Span> spans = {};
    std::vector<double> parts = {};
  };
  std::vector<Row> rows_;  // The rows of the threads come first.
  Clock::time_point start_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_PROFILER_H_
