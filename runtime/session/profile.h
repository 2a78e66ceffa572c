// The result of Session::ProfileRun.
#ifndef GRADWEAVE_RUNTIME_SESSION_PROFILE_H_
#define GRADWEAVE_RUNTIME_SESSION_PROFILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gradweave {

// Result of a profiled run.
struct Profile {
  // A table with a row for each step of the plan, and the planned memory at its end. Under a step
  // that runs many nodes in tiles it has a row for each of the step's parts. Columns are node,
  // kernel, result, bytes, FLOPs, microseconds (for a part: the sum over threads) and GFLOP/s.
  std::string table;
  // The run in the Trace Event Format, which Perfetto and chrome://tracing open. It has a row of
  // spans for each thread and for each stream of a CUDA device.
  std::string trace;

  // Writes the trace to a file. Returns Unavailable if the file cannot be written.
  absl::Status WriteTrace(absl::string_view path) const;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_PROFILE_H_
