// Runs every case of every op.
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gradweave/ops/registry.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gtest/gtest.h"
#include "tests/ops/op_case.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

std::string NameOfCase(const ::testing::TestParamInfo<OpCase>& info) { return info.param.op + "_" + info.param.name; }
std::string NameOfError(const ::testing::TestParamInfo<OpErrorCase>& info) {
  return info.param.op + "_" + info.param.name;
}

class OpHarness : public ::testing::TestWithParam<OpCase> {};

TEST_P(OpHarness, ComputesDifferentiatesAndRepeats) { EXPECT_EQ(CheckOpCase(GetParam(), TestDevice()), ""); }

INSTANTIATE_TEST_SUITE_P(Rows, OpHarness, ::testing::ValuesIn(AllOpCases().cases), NameOfCase);

class OpErrors : public ::testing::TestWithParam<OpErrorCase> {};

TEST_P(OpErrors, NameTheMistake) {
  Graph graph;
  Scope scope(graph);
  GetParam().build(scope);
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(graph.status().message());
  for (const std::string& part : GetParam().message_parts) EXPECT_THAT(message, ::testing::HasSubstr(part));
  EXPECT_THAT(message, ::testing::HasSubstr("tests/ops/cases/"));
}

INSTANTIATE_TEST_SUITE_P(Rows, OpErrors, ::testing::ValuesIn(AllOpCases().errors), NameOfError);

TEST(OpRegistry, EveryOpHasARowAndAKernel) {
  std::set<std::string> tested;
  for (const OpCase& row : AllOpCases().cases) tested.insert(row.op);
  // The session itself implements these ops; they have no kernels.
  const std::set<std::string> held = {"Input", "Constant", "Variable", "Assign", "Copy"};
  for (const auto& op : CoreOps().definitions()) {
    EXPECT_TRUE(tested.count(op->name)) << op->name << " has no row in tests/ops/cases/";
    EXPECT_TRUE(held.count(op->name) || CpuKernels().Find(op->name) != nullptr) << op->name << " has no CPU kernel";
  }
  for (const std::string& op : tested) EXPECT_NE(CoreOps().Find(op), nullptr) << op;
}

}  // namespace
}  // namespace gradweave
