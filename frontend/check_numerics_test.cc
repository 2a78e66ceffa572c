// The node in which a NaN or an infinity begins.
#include "gradweave/frontend/check_numerics.h"

#include <cmath>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string Explain(const Graph& graph, const std::vector<Feed>& feeds, const std::vector<Value>& values) {
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  EXPECT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::string> text = ExplainNonFinite(*session, feeds, values);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

struct Vectors : public ::testing::Test {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {Dim("n"), 3});
};

TEST_F(Vectors, NamesTheFirstNodeThatMakesOne) {
  const Value loss = Mean(Exp(x) * 0 + Log(x) * x);  // 0*log(0) is NaN.
  EXPECT_THAT(
      Explain(graph, {{x, Tensor::Of<float>({2, 3}, {1, 2, 3, 4, 0, 0.5f})}}, {loss}),
      AllOf(StartsWith("element [1,1] of Log(x: float32[n,3]) at "), HasSubstr("check_numerics_test.cc:"),
            HasSubstr(" is -inf (-0.693147 to 1.38629, 0 NaN and 1 infinite of 6); operand x: 0 to 4, 0 NaN and 0 "
                      "infinite of 6; it becomes NaN in Mul(")));
}

TEST_F(Vectors, NamesTheInputThatHasOne) {
  EXPECT_THAT(
      Explain(graph, {{x, Tensor::Of<float>({1, 3}, {1, kNan, 3})}}, {Sum(Tanh(x * 2))}),
      AllOf(StartsWith("element [0,1] of Input() 'x'"), HasSubstr("is nan (1 to 3, 1 NaN and 0 infinite of 3)")));
}

TEST_F(Vectors, NamesTheVariableThatHasOne) {
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({3}, {0, kInfinity, 0})));
  EXPECT_THAT(Explain(graph, {{x, Tensor(kFloat32, {1, 3})}}, {Sum(x * w)}), StartsWith("element [1] of Variable("));
}

// Minus infinity in a mask is meant; the row in which all is masked is not.
TEST_F(Vectors, TakesAnInfinityOfAConstantAsIntended) {
  const Value mask = scope.Constant(Tensor::Of<float>({2, 3}, {0, -kInfinity, 0, -kInfinity, -kInfinity, -kInfinity}));
  const Value scores = scope.Input("scores", kFloat32, {2, 3});
  const std::string text = Explain(graph, {{scores, Tensor(kFloat32, {2, 3})}}, {Sum(Softmax(scores + mask))});
  EXPECT_THAT(text, AllOf(Not(HasSubstr("Constant")), HasSubstr("element [1,0] of ")));
}

TEST_F(Vectors, FollowsGradientsAndAssignments) {
  const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {3})));
  const Value loss = Sum(Sqrt(w * x));
  const Value step = Assign(w, w - Gradients({loss}, {w})[0]);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::string> text =
      ExplainNonFinite(*session, {{x, Tensor::Of<float>({1, 3}, {1, 1, 1})}}, {step});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr(" infinite of 3); operand "));
  EXPECT_EQ(session->GetVariable("w")->ToDoubles(), (std::vector<double>{0, 0, 0})) << "the assignment took effect";
}

TEST_F(Vectors, SaysIfAllIsFinite) {
  EXPECT_EQ(Explain(graph, {{x, Tensor(kFloat32, {1, 3})}}, {Sum(x)}),
            "all values are finite if they are computed one by one");
}

}  // namespace
}  // namespace gradweave
