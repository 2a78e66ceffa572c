// ONNX's backend test cases: folders with a model, and inputs and outputs of it.
#ifndef GRADWEAVE_TESTS_ONNX_CASES_H_
#define GRADWEAVE_TESTS_ONNX_CASES_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/proto/onnx.pb.h"

namespace gradweave::onnx {

// The result of one case.
struct CaseResult {
  enum Outcome { kPassed, kFailed, kOutOfScope };
  std::string name;    // The folder's, "test_averagepool_2d_same_upper".
  std::string family;  // The first word of the name: "averagepool".
  Outcome outcome = kFailed;
  std::string reason;         // Why it failed or is out of scope.
  std::set<std::string> ops;  // Ops of the model with their domains.
  // True if a gradient of the floating outputs reaches a floating input that is fed.
  bool has_gradient = false;
};

// The inputs and outputs of one data set, in the order of the model.
struct CaseData {
  std::vector<Tensor> inputs, outputs;
};

absl::StatusOr<proto::Model> ReadModel(const std::string& path);
absl::StatusOr<CaseData> ReadData(const std::string& folder);

// Why the model cannot be in scope, by its dtypes and domains alone; empty if it is in scope. Names
// of cases do not matter.
std::string OutOfScope(const proto::Model& model);

// Imports the model. Inputs on which shapes depend get their values from the data. `fed` gets the
// others.
absl::StatusOr<ImportedModel> ImportCase(const std::string& path, const proto::Model& model, const CaseData& data,
                                         std::vector<std::pair<std::string, Tensor>>& fed);

// Compares with ONNX's tolerances: |a - b| <= 1e-7 + 1e-3 |b|; integers are equal.
absl::Status Compare(const Tensor& got, const Tensor& expected);

// Imports and runs the model of a folder on the CPU, and compares all outputs.
CaseResult RunCase(const std::string& folder);

// The text of docs/onnx.md, from the results of all suites.
std::string OnnxDoc(const std::vector<CaseResult>& results);

// Runs all cases below the folder, in the order of their names.
std::vector<CaseResult> RunSuite(const std::string& folder);

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_TESTS_ONNX_CASES_H_
