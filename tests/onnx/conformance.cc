// Runs ONNX's backend test cases and writes a table of the results.
//
//   bazel run //tests/onnx:conformance -- --suite=/usr/share/libonnx-testdata/data/node
//
// Cases that failed, and with --all those out of scope, follow with their reasons. The counts by
// family are those that conformance_test compares: --counts writes them alone, and --doc writes
// docs/onnx.md.
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "tests/onnx/cases.h"

ABSL_FLAG(std::string, suite, "/usr/share/libonnx-testdata/data", "Folder with cases, at any depth.");
ABSL_FLAG(bool, all, false, "Lists the cases that are out of scope too.");
ABSL_FLAG(bool, doc, false, "Writes the text of docs/onnx.md.");
ABSL_FLAG(bool, counts, false, "Writes only lines '<family> <passed>'.");

int main(int argc, char** argv) {
  using gradweave::onnx::CaseResult;
  absl::ParseCommandLine(argc, argv);
  const std::vector<CaseResult> results = gradweave::onnx::RunSuite(absl::GetFlag(FLAGS_suite));
  struct Counts {
    int of[3] = {};
  };
  std::map<std::string, Counts> families;
  Counts total;
  for (const CaseResult& result : results) {
    ++families[result.family].of[result.outcome];
    ++total.of[result.outcome];
  }
  if (absl::GetFlag(FLAGS_doc)) {
    std::fputs(gradweave::onnx::OnnxDoc(results).c_str(), stdout);
    return 0;
  }
  if (absl::GetFlag(FLAGS_counts)) {
    for (const auto& [family, counts] : families) {
      if (counts.of[0] > 0) std::printf("%s %d\n", family.c_str(), counts.of[0]);
    }
    return 0;
  }
  std::printf("%-24s %8s %8s %14s\n", "family", "passed", "failed", "out of scope");
  for (const auto& [family, counts] : families)
    std::printf("%-24s %8d %8d %14d\n", family.c_str(), counts.of[0], counts.of[1], counts.of[2]);
  std::printf("%-24s %8d %8d %14d\n", "all", total.of[0], total.of[1], total.of[2]);
  for (const CaseResult& result : results) {
    if (result.outcome == CaseResult::kFailed)
      std::printf("failed: %s: %s\n", result.name.c_str(), result.reason.c_str());
  }
  for (const CaseResult& result : results) {
    if (absl::GetFlag(FLAGS_all) && result.outcome == CaseResult::kOutOfScope)
      std::printf("out of scope: %s: %s\n", result.name.c_str(), result.reason.c_str());
  }
  return 0;
}
