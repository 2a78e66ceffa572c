// The gradient of many slices of one value takes time, memory and nodes that are linear in their
// number.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using Parts = std::vector<Value>;
using Cut = std::function<Parts(Scope& scope, Value x, int64_t count)>;

// Sizes of the gradient of a chain of products of parts of x [2 * count, 64].
struct Numbers {
  int64_t nodes = 0, steps = 0, peak = 0;
  double flops = 0;
};

Numbers Measure(const Cut& cut, int64_t count) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {2 * count, 64});
  Value product;
  for (const Value& part : cut(scope, x, count)) {
    product = product.graph() == nullptr ? part : Tanh(Mul(product, part));
  }
  const int64_t before = graph.num_nodes();
  const Value gradient = Gradients({Sum(product)}, {x})[0];
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  Numbers numbers{.nodes = graph.num_nodes() - before};
  absl::StatusOr<Session> session =
      Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
  EXPECT_TRUE(session.ok()) << session.status();
  const Tensor feed(kFloat32, {2 * count, 64});
  const std::string plan = *session->DescribePlan({{x, feed}}, {gradient});
  // The last line of the table: "33 steps, 47946132 FLOPs, planned peak 38430016 bytes, ...".
  for (absl::string_view line : absl::StrSplit(plan, '\n')) {
    if (!absl::StrContains(line, "planned peak ")) continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    EXPECT_TRUE(absl::SimpleAtoi(words[0], &numbers.steps) && absl::SimpleAtod(words[2], &numbers.flops) &&
                absl::SimpleAtoi(words[6], &numbers.peak))
        << line;
  }
  return numbers;
}

struct Row {
  const char* name;
  Cut cut;
};

const std::vector<Row>& Rows() {
  static const auto& rows = *new std::vector<Row>{
      {"tiles", [](Scope&, Value x, int64_t count) { return Split(x, std::vector<Dim>(count, Dim(2)), 0); }},
      {"overlap",
       [](Scope&, Value x, int64_t count) {
         Parts parts;
         for (int64_t i = 0; i + 1 < count; ++i) parts.push_back(SliceAxis(x, 0, 2 * i, 2 * i + 3));
         return parts;
       }},
      {"steps",
       [](Scope&, Value x, int64_t count) {
         Parts parts;
         for (int64_t i = 0; i + 2 < count; ++i) parts.push_back(SliceAxis(x, 0, 2 * i + 4, 2 * i, -2));
         return parts;
       }},
      {"other_uses",
       [](Scope&, Value x, int64_t count) {
         Parts parts = Split(x, std::vector<Dim>(count, Dim(2)), 0);
         parts.push_back(Reshape(Sum(x), {1, 1}));
         return parts;
       }},
      {"slices_of_halves",
       [](Scope&, Value x, int64_t count) {
         Parts parts;
         for (const Value& half : Split(x, {Dim(count), Dim(count)}, 0)) {
           for (const Value& part : Split(half, std::vector<Dim>(count, Dim(1)), 0)) parts.push_back(part);
         }
         return parts;
       }},
      {"constant_indices",
       [](Scope& scope, Value x, int64_t count) {
         Parts parts;
         for (int64_t i = 0; i < count; ++i) {
           parts.push_back(Gather(x, scope.Constant(Tensor::Of<int32_t>({2}, {static_cast<int32_t>(i), 1}))));
         }
         return parts;
       }},
      {"stacked",
       [](Scope&, Value x, int64_t count) {
         const Parts parts = Split(x, std::vector<Dim>(count, Dim(2)), 0);
         return Parts{Tanh(Concat(Parts(parts.rbegin(), parts.rend()), 0))};
       }},
  };
  return rows;
}

TEST(SliceGradientsTest, NodesAndMemoryAreLinear) {
  for (const Row& row : Rows()) {
    SCOPED_TRACE(row.name);
    const Numbers few = Measure(row.cut, 50), many = Measure(row.cut, 200);
    // The factor is 4, with some room for slices that are missing at the ends.
    EXPECT_LT(many.nodes, 4.4 * static_cast<double>(few.nodes));
    EXPECT_LT(many.steps, 4.4 * static_cast<double>(few.steps));
    EXPECT_LT(many.flops, 4.4 * few.flops);
    EXPECT_LT(many.peak, 4.4 * static_cast<double>(few.peak));
  }
}

int CountOps(const Graph& graph, absl::string_view op) {
  int count = 0;
  for (const Node& node : graph.nodes()) count += node.op->name == op;
  return count;
}

TEST(SliceGradientsTest, PartsThatCoverAreConcatenated) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {Dim("batch"), 6});
  const Parts parts = Split(x, {Dim(1), Dim(3), Dim(2)}, 1);
  Gradients({Sum(Square(parts[0])), Sum(Square(parts[1])), Sum(Square(parts[2]))}, {x});
  EXPECT_EQ(CountOps(graph, "Concat"), 1);
  EXPECT_EQ(CountOps(graph, "Pad") + CountOps(graph, "SliceAdd"), 0);
}

TEST(SliceGradientsTest, OneSliceIsPadded) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {4, 6});
  Gradients({Sum(Square(SliceAxis(x, 1, 2, 4)))}, {x});
  EXPECT_EQ(CountOps(graph, "Pad"), 1);
  EXPECT_EQ(CountOps(graph, "SliceAdd"), 0);
}

// An order of symbolic starts is unknown, so these are added one by one.
TEST(SliceGradientsTest, SymbolicStarts) {
  Graph graph;
  Scope scope(graph);
  const Dim n("n");
  const Value x = scope.Input("x", kFloat64, {3 * n, 2}), size = scope.Input("size", kFloat64, {n});
  const Value loss = Sum(Mul(SliceAxis(x, 0, n, 2 * n), SliceAxis(x, 0, 2 * n, 3 * n))) + Sum(size);
  const Value gradient = Gradients({loss}, {x})[0];
  Session session = *Session::Create(graph, {.threads = 1});
  const Tensor rows = Tensor::Of<double>({6, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  EXPECT_EQ((*session.Run({{x, rows}, {size, Tensor(kFloat64, {2})}}, {gradient}))[0].ToDoubles(),
            (std::vector<double>{0, 0, 0, 0, 9, 10, 11, 12, 5, 6, 7, 8}));
}

}  // namespace
}  // namespace gradweave
