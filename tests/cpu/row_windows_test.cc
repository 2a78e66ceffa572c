// Row regions read slices along the last axis where they are. The results are those of copies, bit
// for bit.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using Values = std::vector<Value>;

Tensor Waves(DType dtype, const std::vector<int64_t>& sizes) {
  Tensor tensor(dtype, sizes);
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    const double value = std::sin(0.37 * static_cast<double>(i) + 1);
    if (dtype == kFloat32) {
      tensor.mutable_data<float>()[i] = static_cast<float>(value);
    } else {
      tensor.mutable_data<double>()[i] = value;
    }
  }
  return tensor;
}

Values Gates(const Value& x, int64_t count) {
  const int64_t size = x.shape()[x.rank() - 1].size() / count;
  return Split(x, std::vector<Dim>(count, Dim(size)), -1);
}

// The values that a step of an LSTM computes from its gates.
Value Cell(const Values& g) { return Sigmoid(g[0]) * Tanh(g[1]) + Sigmoid(g[2]) * Tanh(g[3]); }

struct Row {
  std::string name;
  std::vector<int64_t> sizes;
  int copies;  // Slices that are copied.
  std::function<Values(const Value& x)> function;
  DType dtype = kFloat32;
};

TEST(RowWindows, GiveTheBitsOfCopies) {
  const Row rows[] = {
      {"gates", {6, 128}, 0, [](const Value& x) { return Values{Cell(Gates(x, 4))}; }},
      {"many rows", {700, 160}, 0, [](const Value& x) { return Values{Cell(Gates(x, 4))}; }},
      {"three axes", {3, 5, 144}, 0, [](const Value& x) { return Values{Cell(Gates(x, 4))}; }},
      {"float64", {6, 128}, 0, [](const Value& x) { return Values{Cell(Gates(x, 4))}; }, kFloat64},
      {"a step that reads the whole too",
       {6, 128},
       0,
       [](const Value& x) {
         return Values{Cell(Gates(x, 4)), Exp(x) * 2};
       }},
      {"a slice that is a result",
       {6, 128},
       1,
       [](const Value& x) {
         const Values gates = Gates(x, 4);
         return Values{Cell(gates), gates[2]};
       }},
      {"a slice that a product reads",
       {6, 128},
       1,
       [](const Value& x) {
         const Values gates = Gates(x, 4);
         return Values{Cell(gates), MatMul(gates[1], gates[1], {.transpose_b = true})};
       }},
      {"a slice that is read as another shape",
       {6, 128},
       1,
       [](const Value& x) {
         const Values gates = Gates(x, 4);
         return Values{Cell(gates), Sin(Reshape(gates[3], {2, 96})) + 1};
       }},
      {"short rows", {6, 64}, 4, [](const Value& x) { return Values{Cell(Gates(x, 4))}; }},
      {"rows of other lengths",
       {6, 192},
       1,
       [](const Value& x) {
         const Values parts = Split(x, {Dim(64), Dim(128)}, 1);
         return Values{Sin(parts[0]) * Reshape(Slice(parts[1], {.start = {0, 3}, .limit = {6, 67}}), {6, 64})};
       }},
      {"every second column",
       {6, 128},
       1,
       [](const Value& x) {
         const Value half = Slice(x, {.start = {0, 0}, .limit = {6, 128}, .steps = {1, 2}});
         return Values{Exp(half) * half};
       }},
      {"a bias and a softmax",
       {6, 128},
       2,  // Those of the bias.

       [](const Value& x) {
         const Values gates = Gates(x, 2);
         const Value bias = Reshape(SliceAxis(SliceAxis(x, 0, 0, 1), 1, 0, 64), {64});
         return Values{Softmax(gates[0] + bias) * gates[1]};
       }},
      {"a product in the region",
       {6, 128},
       1,  // The buffer of the matrix.

       [](const Value& x) {
         const Value square = MatMul(x, x, {.transpose_a = true});
         return Values{Tanh(MatMul(x, Reshape(SliceAxis(square, 0, 0, 64), {128, 64})) + Gates(x, 2)[1])};
       }},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    std::vector<Tensor> results[2];
    for (int fused = 0; fused < 2; ++fused) {
      Graph graph;
      Scope scope(graph);
      const Value x = scope.Input("x", row.dtype, Shape(std::vector<Dim>(row.sizes.begin(), row.sizes.end())));
      const Values values = row.function(x);
      ASSERT_TRUE(graph.status().ok()) << graph.status();
      absl::StatusOr<Session> session =
          Session::Create(graph, {.threads = 2,
                                  .batch_tiles = BatchTiles::kNever,
                                  .row_fusion = fused == 1 ? RowFusion::kAlways : RowFusion::kNever});
      ASSERT_TRUE(session.ok()) << session.status();
      const absl::StatusOr<std::vector<Tensor>> run =
          session->Run({{x, Waves(row.dtype, row.sizes)}}, std::vector<Fetch>(values.begin(), values.end()));
      ASSERT_TRUE(run.ok()) << run.status();
      results[fused] = *run;
      if (fused == 0) continue;
      const absl::StatusOr<Profile> profile =
          session->ProfileRun({{x, Waves(row.dtype, row.sizes)}}, std::vector<Fetch>(values.begin(), values.end()));
      ASSERT_TRUE(profile.ok()) << profile.status();
      int copies = 0;
      for (size_t at = 0; (at = profile->table.find(" slice_", at)) != std::string::npos; ++at) ++copies;
      EXPECT_EQ(copies, row.copies) << profile->table;
    }
    ASSERT_EQ(results[0].size(), results[1].size());
    for (size_t i = 0; i < results[0].size(); ++i) EXPECT_TRUE(SameBits(results[0][i], results[1][i])) << i;
  }
}

}  // namespace
}  // namespace gradweave
