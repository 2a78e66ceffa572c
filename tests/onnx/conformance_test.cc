// Runs the backend test cases of Debian's libonnx-testdata and compares the number that pass with
// passing.txt.
//
// `bazel run //tests/onnx:conformance -- --counts` writes passing.txt.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/onnx/cases.h"

namespace gradweave::onnx {
namespace {

constexpr char kSuite[] = "/usr/share/libonnx-testdata/data";

const std::vector<CaseResult>& Results() {
  static const auto* const kResults = new std::vector<CaseResult>(RunSuite(kSuite));
  return *kResults;
}

class Conformance : public ::testing::Test {
  void SetUp() override {
    if (!std::filesystem::exists(kSuite)) GTEST_SKIP() << kSuite << " is missing: install libonnx-testdata";
  }
};

TEST_F(Conformance, DocumentIsThatOfTheResults) {
  std::ifstream stream("docs/onnx.md");
  const std::string text(std::istreambuf_iterator<char>(stream), {});
  EXPECT_EQ(text, OnnxDoc(Results())) << "`bazel run //tests/onnx:conformance -- --doc > docs/onnx.md` writes it";
}

TEST_F(Conformance, NoFewerCasesPassThanBefore) {
  std::map<std::string, int> passed;
  std::map<std::string, std::string> failures;
  for (const CaseResult& result : Results()) {
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
