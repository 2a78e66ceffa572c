#include "gradweave/runtime/profile.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace gradweave {

std::vector<double> Profiler::TakeParts() {
  std::vector<double> sums;
  for (OfThread& thread : threads_) {
    sums.resize(std::max(sums.size(), thread.parts.size()), 0);
    for (size_t i = 0; i < thread.parts.size(); ++i) sums[i] += thread.parts[i];
    thread.parts.clear();
  }
  return sums;
}

std::string Profiler::TraceEvents() const {
  std::string text = "{\"traceEvents\":[";
  const char* separator = "";
  for (int thread = 0; thread < threads(); ++thread) {
    absl::StrAppendFormat(&text, "%s\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"thread %d\"}}",
                          separator, thread, thread);
    separator = ",";
    for (const Span& span : spans(thread)) {
      const std::string name = absl::StrReplaceAll(span.name, {{"\\", "\\\\"}, {"\"", "\\\""}});
      absl::StrAppendFormat(&text, ",\n{\"name\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}", name,
                            thread, span.begin, span.end - span.begin);
    }
  }
  return text + "\n]}\n";
}

absl::Status Profile::WriteTrace(absl::string_view path) const {
  std::ofstream file{std::string(path)};
  file << trace;
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the trace cannot be written to '", path, "'"));
}

}  // namespace gradweave
