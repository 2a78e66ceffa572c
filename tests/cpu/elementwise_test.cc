// Elementwise ops on the CPU: which ones have a vector loop, how accurate the loops are, and that
// every op runs inside a row region.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/ops/registry.h"
#include "gradweave/runtime/cpu/rows/row_program.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The elementwise ops that compute in dtype: all but views, and Cast and BroadcastTo, which move or
// convert elements.
std::vector<const OpDefinition*> ElementwiseOps(DType dtype) {
  std::vector<const OpDefinition*> ops;
  for (const auto& op : CoreOps().definitions()) {
    if (op->elementwise && op->kind != OpKind::kCast && op->kind != OpKind::kBroadcastTo &&
        op->operands.back().dtypes.Contains(dtype))
      ops.push_back(op.get());
  }
  return ops;
}

std::vector<std::string> OneByOne(DType dtype) {
  std::vector<std::string> names;
  for (const OpDefinition* op : ElementwiseOps(dtype)) {
    const ElementLoop loop = FindElementLoop(op->name, dtype);
    EXPECT_NE(loop.run, nullptr) << op->name;
    if (!loop.is_vector) names.push_back(op->name);
  }
  return names;
}

// A new op appears here until it has a vector form in vector_formulas-inl.h.
TEST(Elementwise, OpsThatComputeOneElementAtATime) {
  // Tan and remainders need more precision than a quotient of vectors has: near the poles, and
  // where a is far larger than b. A vector form of Pow needs more than working precision between
  // logarithm and exponential.
  EXPECT_THAT(OneByOne(kFloat32), ElementsAre("Tan", "Fmod", "Mod", "Pow"));
  // The rational approximation of erf is accurate to float32 alone. Halves come of float32.
  EXPECT_THAT(OneByOne(kFloat64),
              ElementsAre("Tan", "Gelu", "Erf", "RoundToFloat16", "RoundToBFloat16", "Fmod", "Mod", "Pow", "GeluGrad"));
}

template <typename T>
std::vector<T> Apply(const std::string& op, const std::vector<T>& x) {
  std::vector<T> y(x.size());
  const LoopOperand operand = {x.data()};
  const double numbers[] = {0.5};
  FindElementLoop(op, DTypeOf<T>).run(&operand, y.data(), static_cast<int64_t>(x.size()), numbers);
  return y;
}

struct Accuracy {
  const char* op;
  long double (*exact)(long double);
  double low, high;
  // Bounds of |y - exact| / max(|exact|, floor). A floor of 0 bounds the relative error.
  double float32_bound, float64_bound, floor;
};

const Accuracy kAccuracies[] = {
    {"Log", [](long double x) { return std::log(x); }, 1e-30, 1e30, 4e-7, 1e-15, 1e-3},
    {"Log", [](long double x) { return std::log(x); }, 0.5, 2, 4e-7, 1e-15, 0},
    {"Log1p", [](long double x) { return std::log1p(x); }, -0.9, 4, 4e-7, 1e-15, 0},
    {"Expm1", [](long double x) { return std::expm1(x); }, -20, 20, 4e-7, 1e-15, 0},
    {"Sin", [](long double x) { return std::sin(x); }, -100, 100, 4e-7, 1e-15, 1},
    {"Sin", [](long double x) { return std::sin(x); }, -1e6, 1e6, 4e-7, 1e-15, 1},
    {"Cos", [](long double x) { return std::cos(x); }, -100, 100, 4e-7, 1e-15, 1},
    {"Cos", [](long double x) { return std::cos(x); }, -1e6, 1e6, 4e-7, 1e-15, 1},
    {"Atan", [](long double x) { return std::atan(x); }, -20, 20, 4e-7, 1e-15, 0},
    {"Tan", [](long double x) { return std::tan(x); }, -100, 100, 4e-7, 1e-15, 0},
    {"Asin", [](long double x) { return std::asin(x); }, -1, 1, 4e-7, 1e-15, 0},
    {"Acos", [](long double x) { return std::acos(x); }, -1, 1, 4e-7, 1e-15, 0},
    {"Sinh", [](long double x) { return std::sinh(x); }, -2, 2, 6e-7, 2e-15, 0},
    {"Sinh", [](long double x) { return std::sinh(x); }, 1e-30, 89.3, 6e-7, 2e-15, 0},
    {"Cosh", [](long double x) { return std::cosh(x); }, -89.3, 89.3, 6e-7, 2e-15, 0},
    {"Asinh", [](long double x) { return std::asinh(x); }, -20, 20, 4e-7, 1e-15, 0},
    {"Asinh", [](long double x) { return std::asinh(x); }, 1e-30, 1e30, 4e-7, 1e-15, 0},
    {"Acosh", [](long double x) { return std::acosh(x); }, 1, 1e30, 6e-7, 2e-15, 0},
    {"Atanh", [](long double x) { return std::atanh(x); }, -0.999, 0.999, 4e-7, 1e-15, 0},
    {"Atanh", [](long double x) { return std::atanh(x); }, 1e-30, 0.5, 4e-7, 1e-15, 0},
    {"Softplus", [](long double x) { return std::log1p(std::exp(x)); }, -20, 20, 6e-7, 2e-15, 0},
    {"Selu", [](long double x) { return 1.0507009873554805L * (x > 0 ? x : 1.6732632423543772L * std::expm1(x)); }, -20,
     20, 6e-7, 2e-15, 0},
    {"Elu", [](long double x) { return x > 0 ? x : 0.5L * std::expm1(x); }, -20, 20, 6e-7, 2e-15, 0},
};

template <typename T>
void ExpectAccurate(const Accuracy& row, double bound) {
  std::vector<T> x;
  constexpr int kPoints = 20000;
  for (int i = 0; i <= kPoints; ++i) {
    const double t = static_cast<double>(i) / kPoints;
    // Positive ranges over many orders of magnitude are sampled by their logarithm.
    x.push_back(
        static_cast<T>(row.low > 0 ? row.low * std::pow(row.high / row.low, t) : row.low + (row.high - row.low) * t));
  }
  const std::vector<T> y = Apply(row.op, x);
  double worst = 0;
  T at = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const long double exact = row.exact(x[i]);
    const double size = std::max(static_cast<double>(std::abs(exact)), row.floor);
    const double error = static_cast<double>(std::abs(y[i] - exact)) / std::max(size, 1e-300);
    if (!(error <= worst)) worst = error, at = x[i];
  }
  EXPECT_LE(worst, bound) << row.op << " of " << DTypeName(DTypeOf<T>) << " at " << at;
}

TEST(Elementwise, VectorFormsAreWithinTheirErrorBounds) {
  for (const Accuracy& row : kAccuracies) {
    ExpectAccurate<float>(row, row.float32_bound);
    ExpectAccurate<double>(row, row.float64_bound);
  }
}

struct Special {
  const char* op;
  double x, y;
};

const Special kSpecials[] = {
    {"Log", 0, -kInfinity},
    {"Log", -1, kNaN},
    {"Log", -kInfinity, kNaN},
    {"Log", kInfinity, kInfinity},
    {"Log", kNaN, kNaN},
    {"Log", 1, 0},
    {"Log1p", -1, -kInfinity},
    {"Log1p", -2, kNaN},
    {"Log1p", kInfinity, kInfinity},
    {"Log1p", kNaN, kNaN},
    {"Log1p", 0, 0},
    {"Expm1", kInfinity, kInfinity},
    {"Expm1", 1e4, kInfinity},
    {"Expm1", -kInfinity, -1},
    {"Expm1", kNaN, kNaN},
    {"Expm1", 0, 0},
    {"Sin", kInfinity, kNaN},
    {"Sin", kNaN, kNaN},
    {"Sin", 0, 0},
    {"Cos", -kInfinity, kNaN},
    {"Cos", kNaN, kNaN},
    {"Atan", kInfinity, M_PI_2},
    {"Atan", -kInfinity, -M_PI_2},
    {"Atan", kNaN, kNaN},
    {"Tan", kInfinity, kNaN},
    {"Asin", 1, M_PI_2},
    {"Asin", -1.5, kNaN},
    {"Acos", 1, 0},
    {"Acos", 1.5, kNaN},
    {"Sinh", 1e4, kInfinity},
    {"Sinh", -kInfinity, -kInfinity},
    {"Sinh", 0, 0},
    {"Sinh", kNaN, kNaN},
    {"Cosh", 1e4, kInfinity},
    {"Cosh", -kInfinity, kInfinity},
    {"Cosh", 0, 1},
    {"Cosh", kNaN, kNaN},
    {"Asinh", -kInfinity, -kInfinity},
    {"Asinh", kNaN, kNaN},
    {"Acosh", 1, 0},
    {"Acosh", 0.5, kNaN},
    {"Acosh", -kInfinity, kNaN},
    {"Acosh", kInfinity, kInfinity},
    {"Acosh", kNaN, kNaN},
    {"Atanh", 1, kInfinity},
    {"Atanh", -1, -kInfinity},
    {"Atanh", 1.5, kNaN},
    {"Atanh", kInfinity, kNaN},
    {"Atanh", kNaN, kNaN},
    {"Sign", -kInfinity, -1},
    {"Sign", -0.0, 0},
    {"Sign", kNaN, kNaN},
    {"Softplus", kInfinity, kInfinity},
    {"Softplus", -kInfinity, 0},
    {"Softplus", kNaN, kNaN},
    {"Selu", kInfinity, kInfinity},
    {"Selu", kNaN, kNaN},
    {"Elu", -kInfinity, -0.5},
    {"Elu", kInfinity, kInfinity},
    {"Elu", kNaN, kNaN},
    {"LeakyRelu", -kInfinity, -kInfinity},
    {"LeakyRelu", kNaN, kNaN},
};

template <typename T>
void ExpectSpecial(const Special& row) {
  const T y = Apply<T>(row.op, {static_cast<T>(row.x)})[0];
  if (std::isnan(row.y)) {
    EXPECT_TRUE(std::isnan(y)) << row.op << "(" << row.x << ") is " << y;
  } else {
    EXPECT_EQ(y, static_cast<T>(row.y)) << row.op << "(" << row.x << ")";
  }
}

TEST(Elementwise, NaNAndInfinitiesGiveWhatTheFunctionsGive) {
  for (const Special& row : kSpecials) {
    ExpectSpecial<float>(row);
    ExpectSpecial<double>(row);
  }
}

// Processors differ in what minimum, maximum and conversions to integers make of these.
const double kSpecialNumbers[] = {kNaN, kInfinity, -kInfinity, 0, -0.0, 1e-40, -1e-40, 1, -1, 2.5, 1e30, -1e30};

// Operands of an op: each of the special numbers, or each pair of them.
template <typename T>
std::vector<std::vector<T>> SpecialOperands(size_t count) {
  std::vector<std::vector<T>> operands(count);
  for (double a : kSpecialNumbers) {
    for (double b : kSpecialNumbers) {
      operands[0].push_back(static_cast<T>(a));
      if (count == 2) operands[1].push_back(static_cast<T>(b));
      if (count == 1) break;
    }
  }
  return operands;
}

// Runs the loop of an op on special operands; `formula` computes the expected result of one
// element. The vector form and the C library round differently.
template <typename T, typename Formula>
void ExpectSpecialNumbers(const char* op, size_t count, Formula formula) {
  const std::vector<std::vector<T>> x = SpecialOperands<T>(count);
  std::vector<LoopOperand> operands;
  for (const std::vector<T>& operand : x) operands.push_back({operand.data()});
  std::vector<T> y(x[0].size());
  const double numbers[] = {-0.5, 0.5};
  FindElementLoop(op, DTypeOf<T>).run(operands.data(), y.data(), static_cast<int64_t>(y.size()), numbers);
  for (size_t i = 0; i < y.size(); ++i) {
    const T expected = formula(x, i);
    const bool close = std::abs(y[i] - expected) <= T(1e-6) * std::max<T>(std::abs(expected), 1);
    EXPECT_TRUE(std::isnan(expected) ? std::isnan(y[i]) : y[i] == expected || close)
        << op << " of " << DTypeName(DTypeOf<T>) << " " << x[0][i] << ", " << x.back()[i] << " is " << y[i]
        << " and not " << expected;
  }
}

template <typename T>
void ExpectSpecialNumbersOfAllOps() {
  formulas::ForUnaryFormulas([]<formulas::Takes takes, typename Formula>(formulas::Row<takes, Formula> row) {
    if constexpr (formulas::kAccepted<takes, T>)
      ExpectSpecialNumbers<T>(row.op, 1, [](const auto& x, size_t i) { return Formula()(x[0][i]); });
  });
  formulas::ForBinaryFormulas([]<formulas::Takes takes, typename Formula>(formulas::Row<takes, Formula> row) {
    if constexpr (formulas::kAccepted<takes, T>)
      ExpectSpecialNumbers<T>(row.op, 2, [](const auto& x, size_t i) { return Formula()(x[0][i], x[1][i]); });
  });
  formulas::ForNumberedFormulas([](auto row) {
    using Formula = typename decltype(row)::template Formula<T>;
    const double numbers[] = {-0.5, 0.5};
    ExpectSpecialNumbers<T>(
        row.op, 1, [&](const auto& x, size_t i) { return formulas::WithNumbers<Formula, T>(numbers)(x[0][i]); });
  });
}

TEST(Elementwise, VectorFormsTakeSpecialNumbersAsTheFormulasDo) {
  ExpectSpecialNumbersOfAllOps<float>();
  ExpectSpecialNumbersOfAllOps<double>();
}

// The last elements of a range and those far from zero take other paths.
TEST(Elementwise, ResultsDoNotDependOnThePositionOfAnElement) {
  std::vector<float> x;
  for (int i = 0; i < 77; ++i) x.push_back(i % 7 == 3 ? 1e6f + static_cast<float>(i) : 0.37f * static_cast<float>(i));
  for (const OpDefinition* op : ElementwiseOps(kFloat32)) {
    if (op->operands.size() != 1 || op->attributes.size() > 1) continue;
    const std::vector<float> whole = Apply(op->name, x);
    for (size_t i = 0; i < x.size(); ++i) {
      const float alone = Apply<float>(op->name, {x[i]})[0];
      EXPECT_EQ(std::bit_cast<uint32_t>(alone), std::bit_cast<uint32_t>(whole[i])) << op->name << "(" << x[i] << ")";
    }
  }
}

// The op of floating values, applied to x and, as other operands, to y; truth values are x > y.
Value ApplyOp(const OpDefinition& op, const Value& x, const Value& y) {
  std::vector<Port> operands;
  for (size_t i = 0; i < op.operands.size(); ++i) {
    const bool is_last = i + 1 == op.operands.size() && i > 0;
    const Value operand = !op.operands[i].dtypes.Contains(x.dtype()) ? Greater(x, y) : is_last ? y : x;
    operands.push_back(operand.port());
  }
  std::vector<NamedAttribute> attributes;
  double number = 0.25;
  for (const AttributeDefinition& attribute : op.attributes)
    if (attribute.type == AttributeType::kReal) attributes.emplace_back(attribute.name, number += 0.5);
  Graph* graph = x.graph();
  const absl::StatusOr<NodeId> node = graph->AddNode({.op = &op, .inputs = operands, .attributes = attributes});
  EXPECT_TRUE(node.ok()) << node.status();
  if (!node.ok()) return x;
  const Value result = graph->value(*node);
  return result.dtype() == kBool ? Where(result, x, y) : result;
}

// The ops of the nodes that are neither sources nor in the graph's first row region.
std::vector<std::string> NodesOutsideOfTheRegion(Graph& graph, const Value& y) {
  graph.SetOutput("y", std::vector<Value>{y});
  const BatchPartition one_by_one = {.order = NodeOrder(graph)};
  const RowPartition partition = FindRowRegions(
      graph, one_by_one, RowCompiler().supports, [](const Node&, const RowRegion&) { return false; },
      [](const RowRegion&) { return true; });
  std::vector<bool> inside(graph.num_nodes(), false);
  if (!partition.regions.empty()) {
    for (const RowRegion::Member& member : partition.regions[0].nodes) inside[member.node] = true;
  }
  std::vector<std::string> outside;
  for (const Node& node : graph.nodes()) {
    if (!inside[node.id] && !node.op->is_source()) outside.push_back(node.op->name);
  }
  return outside;
}

// Softmax(op(x + b) * 2) of rows is one step, and its bits are those of the nodes one by one.
TEST(Elementwise, EveryOpRunsInsideItsRowRegion) {
  for (DType dtype : {kFloat32, kFloat64}) {
    for (const OpDefinition* op : ElementwiseOps(dtype)) {
      Graph graph;
      Scope scope(graph);
      const Value x = scope.Input("x", dtype, {40, 48}), b = scope.Input("b", dtype, {48});
      const Value sum = x + b;
      const Value y = Softmax(ApplyOp(*op, sum, Square(sum)) * 2);
      ASSERT_TRUE(graph.status().ok()) << op->name << ": " << graph.status();
      EXPECT_THAT(NodesOutsideOfTheRegion(graph, y), IsEmpty()) << op->name;
      Tensor of_x(kFloat32, {40, 48}), of_b(kFloat32, {48});
      for (int i = 0; i < 1920; ++i)
        of_x.mutable_data<float>()[i] = 0.1f + 0.001f * static_cast<float>((i * 37) % 1000);
      for (int i = 0; i < 48; ++i) of_b.mutable_data<float>()[i] = 0.01f * static_cast<float>(i);
      const std::vector<Feed> feeds = {{x, of_x.Cast(dtype)}, {b, of_b.Cast(dtype)}};
      std::vector<Tensor> results;
      for (RowFusion fusion : {RowFusion::kNever, RowFusion::kAlways}) {
        absl::StatusOr<Session> session =
            Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kNever, .row_fusion = fusion});
        ASSERT_TRUE(session.ok()) << session.status();
        const absl::StatusOr<std::vector<Tensor>> result = session->Run(feeds, {y});
        ASSERT_TRUE(result.ok()) << op->name << ": " << result.status();
        results.push_back((*result)[0]);
      }
      EXPECT_TRUE(SameBits(results[0], results[1])) << op->name << " of " << DTypeName(dtype);
    }
  }
}

}  // namespace
}  // namespace gradweave
