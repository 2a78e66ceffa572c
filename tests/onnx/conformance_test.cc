// Runs the backend test cases of Debian's libonnx-testdata and compares the number that pass with passing.txt.
//
// `bazel run //tests/onnx:conformance -- --counts` writes passing.txt.
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "gtest/gtest.h"
#include "tests/onnx/cases.h"

namespace gradweave::onnx {
namespace {

constexpr char kSuite[] = "/usr/share/libonnx-testdata/data";

TEST(Conformance, NoFewerCasesPassThanBefore) {
  if (!std::filesystem::exists(kSuite)) GTEST_SKIP() << kSuite << " is missing: install libonnx-testdata";
  std::map<std::string, int> passed;
  std::map<std::string, std::string> failures;
  for (const CaseResult& result : RunSuite(kSuite)) {
    if (result.outcome == CaseResult::kPassed) ++passed[result.family];
    if (result.outcome == CaseResult::kFailed) failures[result.family] += "\n  " + result.name + ": " + result.reason;
  }
  std::ifstream stored("tests/onnx/passing.txt");
  std::string family;
  int count = 0, families = 0;
  while (stored >> family >> count) {
    ++families;
    EXPECT_GE(passed[family], count) << "cases of the family " << family << " that fail:" << failures[family];
  }
  EXPECT_GT(families, 50) << "passing.txt is missing or short";
}

}  // namespace
}  // namespace gradweave::onnx
