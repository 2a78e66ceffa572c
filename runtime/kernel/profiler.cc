#include "gradweave/runtime/kernel/profiler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace gradweave {

Profiler::Profiler(int threads) : start_(Clock::now()) {
  for (int thread = 0; thread < threads; ++thread) rows_.push_back({absl::StrCat("thread ", thread)});
}

int Profiler::AddRow(std::string name) {
  rows_.push_back({std::move(name)});
  return static_cast<int>(rows_.size()) - 1;
}

std::vector<double> Profiler::TakeParts() {
  std::vector<double> sums;
  for (Row& row : rows_) {
    sums.resize(std::max(sums.size(), row.parts.size()), 0);
    for (size_t i = 0; i < row.parts.size(); ++i) sums[i] += row.parts[i];
    row.parts.clear();
  }
  return sums;
}

std::string Profiler::TraceEvents() const {
  std::string text = "{\"traceEvents\":[";
  const char* separator = "";
  for (size_t row = 0; row < rows_.size(); ++row) {
    absl::StrAppendFormat(&text,
                          "%s\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"%s\"}}",
                          separator, row, rows_[row].name);
    separator = ",";
    for (const Span& span : rows_[row].spans) {
      const std::string name = absl::StrReplaceAll(span.name, {{"\\", "\\\\"}, {"\"", "\\\""}});
      absl::StrAppendFormat(&text, ",\n{\"name\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}",
                            name, row, span.begin, span.end - span.begin);
    }
  }
  return text + "\n]}\n";
}

}  // namespace gradweave
