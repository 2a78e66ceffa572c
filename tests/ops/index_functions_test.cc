// Indices that are out of range fail the run, at the user's line, and do not reach other elements.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/index_functions.h"
#include "gradweave/ops/pool_nd.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

struct Row {
  const char* name;
  Shape indices;
  std::vector<int32_t> good, bad;
  Value (*apply)(const Value& x, const Value& indices);  // x is float32[2,3].
};

const Row kRows[] = {
    {"gather elements",
     {2, 1},
     {-3, 2},
     {0, 3},
     [](const Value& x, const Value& i) { return GatherElements(x, i, 1); }},
    {"gather elements below",
     {2, 1},
     {-3, 2},
     {-4, 0},
     [](const Value& x, const Value& i) { return GatherElements(x, i, 1); }},
    {"scatter elements",
     {1, 3},
     {-2, 1, 0},
     {0, 2, 0},
     [](const Value& x, const Value& i) { return ScatterElements(x, i, SliceAxis(x, 0, 0, 1), {.axis = 0}); }},
    // As one row, these places would be inside of x.
    {"gather slices",
     {2, 2},
     {0, 2, -1, -3},
     {0, 3, 0, 0},
     [](const Value& x, const Value& i) { return GatherND(x, i); }},
    {"gather slices below", {1, 2}, {1, 0}, {1, -4}, [](const Value& x, const Value& i) { return GatherND(x, i); }},
    {"gather slices of samples",
     {2, 1},
     {2, -3},
     {0, 3},
     [](const Value& x, const Value& i) { return GatherND(x, i, 1); }},
    {"scatter slices",
     {1, 1},
     {-2},
     {2},
     [](const Value& x, const Value& i) { return ScatterND(x, i, SliceAxis(x, 0, 0, 1), ScatterReduction::kMax); }},
    {"unpool",
     {2, 3},
     {0, 1, 2, 3, 4, 6},
     {0, 1, 2, 3, 4, 7},
     [](const Value& x, const Value& i) { return MaxUnpoolND(x, i, {7}); }},
};

TEST(IndexFunctions, RefuseIndicesOutOfRange) {
  for (const Row& row : kRows) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {2, 3}), indices = scope.Input("indices", kInt32, row.indices);
    const Value y = row.apply(x, indices);
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    absl::StatusOr<Session> session = Session::Create(graph, {.device = TestDevice(), .threads = 1});
    ASSERT_TRUE(session.ok()) << session.status();
    auto run = [&](const std::vector<int32_t>& numbers) {
      const Tensor fed = Tensor::Of<int32_t>(row.indices.sizes(), numbers);
      return session->Run({{x, Tensor(kFloat32, {2, 3})}, {indices, fed}}, {y}).status();
    };
    EXPECT_TRUE(run(row.good).ok()) << row.name << ": " << run(row.good);
    const absl::Status status = run(row.bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << row.name << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("index_functions_test.cc")) << row.name;
  }
}

}  // namespace
}  // namespace gradweave
