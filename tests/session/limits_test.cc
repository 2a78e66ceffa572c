// Sizes and numbers at the limits of their types: empty tensors of huge sizes cost nothing, and
// what cannot be computed is an error.
#include <cmath>
#include <cstdint>
#include <ctime>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/gradient.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kHuge = int64_t{1} << 40;

// A value whose size is huge and whose elements are few or none, and what each element of it is.
struct EmptyCase {
  const char* name;
  std::vector<int64_t> x;
  std::function<Value(Scope&, const Value& x)> make;
  double expected = 0;
};

Value FilterOf(Scope& scope, std::vector<int64_t> sizes) {
  return scope.Variable("filter", scope.Constant(Tensor(kFloat32, sizes)));
}

std::vector<EmptyCase> EmptyCases() {
  return {
      {"sum of rows", {kHuge, 0}, [](Scope&, const Value& x) { return Sum(x, {.axes = {0}}); }},
      {"sum of all", {kHuge, 0}, [](Scope&, const Value& x) { return Sum(x); }},
      {"sum of inner axes",
       {3, kHuge, 5, 0},
       [](Scope&, const Value& x) {
         return Sum(x, {.axes = {1, 3}});
       }},
      {"product",
       {2, 0, kHuge},
       [](Scope&, const Value& x) {
         return Prod(x, {.axes = {1, 2}});
       },
       1},
      {"largest",
       {2, kHuge, 0},
       [](Scope&, const Value& x) {
         return Max(x, {.axes = {1, 2}});
       },
       -HUGE_VAL},
      {"log of sums",
       {kHuge, 7, 0},
       [](Scope&, const Value& x) {
         return LogSumExp(x, {.axes = {0, 2}});
       },
       -HUGE_VAL},
      {"log of sums of an axis", {kHuge, 7, 0}, [](Scope&, const Value& x) { return LogSumExp(x, {.axes = {0}}); }},
      {"sum after elementwise ops", {kHuge, 0}, [](Scope&, const Value& x) { return Sum(Tanh(x) * x + 1); }},
      {"mean of samples", {kHuge, 0, 3}, [](Scope&, const Value& x) { return Sum(Mean(Square(x), {.axes = {2}})); }},
      {"softmax", {kHuge, 0}, [](Scope&, const Value& x) { return Softmax(x, 0); }},
      {"softmax of columns", {kHuge, 7, 0}, [](Scope&, const Value& x) { return Softmax(x, 0); }},
      {"largest index", {kHuge, 7, 0}, [](Scope&, const Value& x) { return Cast(ArgMax(x, {.axis = 1}), kFloat32); }},
      {"concatenation",
       {kHuge, 0},
       [](Scope&, const Value& x) {
         return Concat({x, x * 2}, 1);
       }},
      {"transposition", {kHuge, 0, 2}, [](Scope&, const Value& x) { return Transpose(x) + 1; }},
      {"slice", {kHuge, 0}, [](Scope&, const Value& x) { return SliceAxis(x, 0, 5, kHuge, 3); }},
      {"reverse",
       {kHuge, 0},
       [](Scope&, const Value& x) {
         return Reverse(x, {0, 1});
       }},
      {"pad",
       {0, 3},
       [](Scope&, const Value& x) {
         return Pad(x, {.low = {0, kHuge}, .high = {0, 1}});
       }},
      {"gather",
       {kHuge, 0},
       [](Scope& scope, const Value& x) { return Gather(x, scope.Constant(Tensor(kInt64, {5}))); }},
      {"product of matrices",
       {kHuge, 0, 3},
       [](Scope&, const Value& x) { return MatMul(x, x, {.transpose_b = true}); }},
      {"product without terms", {3, 0}, [](Scope&, const Value& x) { return MatMul(x, x, {.transpose_b = true}); }},
      {"many products of rows",
       {0, 1, 3},
       [](Scope&, const Value& x) {
         return MatMul(x, BroadcastTo(SliceAxis(x, 2, 0, 1), {0, 3, int64_t{1} << 29}));
       }},
      {"convolution of no samples",
       {0, 2, 3, kHuge},
       [](Scope& scope, const Value& x) {
         return Conv2D(x, FilterOf(scope, {4, 2, 3, 3}));
       }},
      {"convolution to no channels",
       {kHuge, 2, 0, 3},
       [](Scope& scope, const Value& x) {
         return Conv2D(x, FilterOf(scope, {0, 2, 3, 3}), {.padding = {2, 2}});
       }},
      {"convolution with padding",
       {0, 2, 3, 3},
       [](Scope& scope, const Value& x) {
         return Conv2D(x, FilterOf(scope, {4, 2, 3, 3}), {.padding = {1 << 20, 1 << 20}});
       }},
      {"pool of no channels",
       {kHuge, 0, 4, 4},
       [](Scope&, const Value& x) {
         return AvgPool2D(x, {.window = {2, 2}});
       }},
      {"normalization",
       {0, 3, kHuge},
       [](Scope&, const Value& x) {
         return x - Mean(x, {.axes = {0, 2}, .keep_dims = true});
       }},
  };
}

double ProcessorSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

TEST(EmptyTensorsOfHugeSizes, CostNothing) {
  const SessionOptions options[] = {
      {.threads = 2},
      {.threads = 2, .batch_tiles = BatchTiles::kAlways, .row_fusion = RowFusion::kAlways},
      {.threads = 2, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever}};
  for (const EmptyCase& c : EmptyCases()) {
    for (const SessionOptions& option : options) {
      SCOPED_TRACE(c.name);
      Graph graph;
      Scope scope(graph);
      const Value x = scope.Input("x", kFloat32, Shape(c.x));
      const Value y = c.make(scope, x);
      ASSERT_TRUE(graph.status().ok()) << graph.status();
      std::vector<Fetch> fetches = {y};
      for (const Value& gradient : Gradients({Sum(y)}, {x})) fetches.push_back(gradient);
      ASSERT_TRUE(graph.status().ok()) << graph.status();
      const double begin = ProcessorSeconds();
      absl::StatusOr<Session> session = Session::Create(graph, option);
      ASSERT_TRUE(session.ok()) << session.status();
      const absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, Tensor(kFloat32, c.x)}}, fetches);
      ASSERT_TRUE(results.ok()) << results.status();
      EXPECT_LT(ProcessorSeconds() - begin, 1);
      EXPECT_THAT((*results)[0].ToDoubles(), Each(c.expected));
    }
  }
}

// A builder call that must fail, and a part of its error.
struct RefusedCase {
  const char* name;
  std::function<Value(Scope&, const Value& x, const Value& integers)> make;  // float32 [2, 4] and int32 [5].
  const char* message;
};

const RefusedCase kRefused[] = {
    {"pad, low",
     [](Scope&, const Value& x, const Value&) {
       return Pad(x, {.low = {0, -kMax}, .high = {0, kMax}});
     },
     "have to be in [-2^48, 2^48]"},
    {"pad, high",
     [](Scope&, const Value& x, const Value&) {
       return Pad(x, {.low = {0, 0}, .high = {kMax, 0}});
     },
     "have to be in [-2^48, 2^48]"},
    {"pad, interior",
     [](Scope&, const Value& x, const Value&) {
       return Pad(x, {.low = {0, 0}, .high = {0, 0}, .interior = {0, kMax}});
     },
     "interior along axis 1 is 9223372036854775807"},
    {"pad, interior and low",
     [](Scope&, const Value& x, const Value&) {
       return Pad(x, {.low = {0, -3}, .high = {0, 0}, .interior = {0, (int64_t{1} << 48) - 1}});
     },
     "more than 2^48 elements"},
    {"pad, value",
     [](Scope&, const Value&, const Value& integers) {
       return Pad(integers, {.low = {1}, .high = {0}, .value = 1e300});
     },
     "the value is 1e+300 and has to be a number that int32 has"},
    {"pad, no number",
     [](Scope&, const Value&, const Value& integers) {
       return Pad(integers, {.low = {1}, .high = {0}, .value = std::nan("")});
     },
     "the value is nan"},
    {"pad, half",
     [](Scope&, const Value&, const Value& integers) { return Pad(integers, {.low = {1}, .high = {0}, .value = 0.5}); },
     "the value is 0.5"},
    {"pad, 256 of uint8",
     [](Scope&, const Value&, const Value& integers) {
       return Pad(Cast(integers, kUint8), {.low = {1}, .high = {0}, .value = 256});
     },
     "the value is 256 and has to be a number that uint8 has"},
    {"slice, step", [](Scope&, const Value& x, const Value&) { return SliceAxis(x, 0, 0, 2, kMax); },
     "the step along axis 0 is 9223372036854775807 and has to be in [1, 2^48]"},
    {"slice, lowest step", [](Scope&, const Value& x, const Value&) { return SliceAxis(x, 0, 1, 0, -kMax - 1); },
     "the step along axis 0 is -9223372036854775808"},
    {"slice, limit", [](Scope&, const Value& x, const Value&) { return SliceAxis(x, 0, 0, kMax); },
     "have to lie in order"},
    {"arg max",
     [](Scope&, const Value& x, const Value&) {
       return ArgMax(BroadcastTo(SliceAxis(x, 1, 0, 1), {2, (int64_t{1} << 31) + 1}), {.axis = 1, .dtype = kInt32});
     },
     "int32 has no numbers for all of them; int64 has"},
    {"arg min",
     [](Scope&, const Value& x, const Value&) {
       return ArgMin(BroadcastTo(SliceAxis(x, 1, 0, 1), {2, kHuge}), {.axis = -1, .dtype = kInt32});
     },
     "int32 has no numbers for all of them; int64 has"},
    {"max pool",
     [](Scope&, const Value& x, const Value&) {
       return MaxPool2D(BroadcastTo(Sum(x), {1, 1, 1 << 16, (1 << 15) + 1}), {.window = {2, 2}});
     },
     "at most 2^31: int32 indices count them"},
    {"max pool of nothing",
     [](Scope&, const Value& x, const Value&) {
       return MaxPool2D(BroadcastTo(Sum(x), {1, 1, 4, 0}), {.window = {1, 2}, .padding = {0, 1}});
     },
     "at least 1"},
    {"size", [](Scope&, const Value& x, const Value&) { return DimSize(BroadcastTo(Sum(x), {kHuge}), 0, kInt32); },
     "the size is 1099511627776, and int32 has no such number"},
    {"size of uint8",
     [](Scope&, const Value& x, const Value&) { return DimSize(BroadcastTo(Sum(x), {256}), 0, kUint8); },
     "the size is 256, and uint8 has no such number"},
    {"size as bool", [](Scope&, const Value& x, const Value&) { return DimSize(x, 0, kBool); }, "the dtype has to be"},
    {"number of elements",
     [](Scope&, const Value& x, const Value&) { return NumElements(BroadcastTo(Sum(x), {kHuge}), {}, kInt32); },
     "int32 has no such number"},
    {"number of elements, twice",
     [](Scope&, const Value& x, const Value&) {
       return NumElements(BroadcastTo(Sum(x), {kHuge}), {0, 0, 0}, kInt32);
     },
     "int32 has no such number"},
    {"number beyond int64", [](Scope&, const Value&, const Value& integers) { return Cast(integers, kInt64) + 0x1p63; },
     "is not a valid int64"},
    {"number beyond int32", [](Scope&, const Value&, const Value& integers) { return integers * 1e300; },
     "is not a valid int32"},
    {"axes", [](Scope&, const Value& x, const Value&) { return Reshape(Sum(x), Shape(std::vector<int64_t>(256, 1))); },
     "the output would have 256 axes"},
    {"range", [](Scope& scope, const Value&, const Value&) { return Range(scope, int64_t{1} << 61); },
     "Range: a tensor cannot have the shape [2305843009213693952]"},
    {"range of steps",
     [](Scope& scope, const Value&, const Value&) { return Range(scope, kMax, {.start = 1, .dtype = kFloat64}); },
     "Range: a tensor cannot have the shape [9223372036854775807]"},
    {"assignment to an input", [](Scope&, const Value& x, const Value&) { return Assign(x, x); },
     "Assign: operand 0 has to be the value of a Variable node"},
    {"assignment of an assignment",
     [](Scope& scope, const Value& x, const Value&) {
       const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {2, 4})));
       return Assign(Assign(w, x), x);
     },
     "Assign: operand 0 has to be the value of a Variable node"},
};

TEST(NumbersAtTheLimits, AreRefusedWhereTheyAreGiven) {
  for (const RefusedCase& c : kRefused) {
    SCOPED_TRACE(c.name);
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {2, 4}), integers = scope.Input("integers", kInt32, {5});
    EXPECT_FALSE(c.make(scope, x, integers).valid());
    EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr(c.message));
  }
}

TEST(NumbersAtTheLimits, AreTakenUpToThere) {
  Graph graph;
  Scope scope(graph);
  constexpr int64_t kMost = int64_t{1} << 48;
  const Value x = scope.Input("x", kFloat32, {5});
  const Value first = SliceAxis(x, 0, 1, 5, kMost);
  const Value removed = Pad(x, {.low = {-kMost}, .high = {kMost - 3}});
  const Value backwards = SliceAxis(x, 0, 4, 0, -kMost);
  const Value apart = Pad(SliceAxis(x, 0, 0, 1), {.low = {1}, .high = {1}, .interior = {kMost - 1}});
  const Value filled = Pad(Cast(x, kInt32), {.low = {1}, .high = {0}, .value = -2147483648.0});
  const Value largest = Pad(Cast(x, kInt64), {.low = {0}, .high = {1}, .value = -0x1p63});
  const std::vector<Value> gradients = Gradients({Sum(first), Sum(removed), Sum(backwards), Sum(apart)}, {x});
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::vector<Tensor>> results =
      session->Run({{x, Tensor::Of<float>({5}, {1, 2, 3, 4, 5})}},
                   {first, removed, backwards, apart, filled, largest, gradients[0]});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT((*results)[0].ToDoubles(), ElementsAre(2));
  EXPECT_THAT((*results)[1].ToDoubles(), ElementsAre(0, 0));
  EXPECT_THAT((*results)[2].ToDoubles(), ElementsAre(5));
  EXPECT_THAT((*results)[3].ToDoubles(), ElementsAre(0, 1, 0));
  EXPECT_THAT((*results)[4].ToDoubles(), ElementsAre(-2147483648.0, 1, 2, 3, 4, 5));
  EXPECT_EQ((*results)[5].values<int64_t>()[5], -kMax - 1);
  EXPECT_THAT((*results)[6].ToDoubles(), ElementsAre(1, 1, 0, 0, 1));
}

TEST(NumbersAtTheLimits, IntegersWrapAround) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kInt32, {2, 3}), first = scope.Input("first", kInt32, {1});
  const Value flat = Reshape(x, {6});
  const std::vector<Fetch> fetches = {Sum(x, {.axes = {1}}), Sum(x, {.axes = {0}}), Prod(x, {.axes = {0}}),
                                      ScatterAdd(SliceAxis(flat, 0, 0, 1), first, SliceAxis(flat, 0, 1, 2))};
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  constexpr int32_t kLargest = 2147483647;
  const Tensor numbers = Tensor::Of<int32_t>({2, 3}, {kLargest, 1, 65536, kLargest, kLargest, 65536});
  const absl::StatusOr<std::vector<Tensor>> results =
      session->Run({{x, numbers}, {first, Tensor(kInt32, {1})}}, fetches);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT((*results)[0].ToDoubles(), ElementsAre(-2147418112.0, 65534));
  EXPECT_THAT((*results)[1].ToDoubles(), ElementsAre(-2, -2147483648.0, 131072));
  EXPECT_THAT((*results)[2].ToDoubles(), ElementsAre(1, kLargest, 0));
  EXPECT_THAT((*results)[3].ToDoubles(), ElementsAre(-2147483648.0));
}

TEST(GradientsOfSaturatingSizes, AreErrorsAndNeverAbort) {
  Graph graph;
  Scope scope(graph);
  Value y = scope.Input("y", kFloat32, {Dim("n")});
  const Value x = y;
  for (int i = 0; i < 70 && y.valid(); ++i) {
    const Value sum = Sum(y);
    const std::vector<Value> gradients = Gradients({sum}, {x});
    if (!gradients[0].valid()) break;
    y = Concat({y, y}, 0);
  }
  EXPECT_FALSE(graph.status().ok());
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);

  // An op of a program whose gradient has the wrong type.
  OpRegistry registry;
  RegisterCoreOps(registry);
  registry.Add({.name = "Wrong",
                .doc = "x.",
                .operands = {{"x", "Any shape.", kFloating}},
                .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> { return TensorTypes{op.operand(0)}; },
                .gradient = [](GradientContext& g) { g.Set(0, Sum(g.output_gradient())); }});
  Graph wrong;
  Scope of_registry(wrong, registry);
  const Value z = of_registry.Input("z", kFloat32, {3});
  EXPECT_FALSE(Gradients({Sum(AddOp("Wrong", {z}))}, {z})[0].valid());
  EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("Gradients: the gradient of Wrong(x: float32[3])"));
}

// The im2col matrix has more elements than int64 can count.
TEST(ScratchBeyondAnyMemory, IsExhausted) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {1});
  const Value y = Conv2D(BroadcastTo(x, {1, 1, 1 << 24, 1 << 24}), BroadcastTo(x, {1, 1, 1 << 20, 1 << 20}));
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 4});
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(session->Run({{x, Tensor(kFloat32, {1})}}, {y}).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(RowNumbers, AreThoseOfTheTable) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  const Value y = x * 2;
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  absl::StatusOr<std::unique_ptr<PreparedRun>> run =
      session->PrepareRows({{x, Tensor::Of<float>({3}, {1, 2, 3})}}, 2, {y});
  ASSERT_TRUE(run.ok()) << run.status();
  const int64_t good[] = {2, 0}, beyond[] = {1, (int64_t{1} << 32) + 1}, negative[] = {-1, 0};
  EXPECT_TRUE((*run)->SetRows(good).ok());
  EXPECT_TRUE((*run)->Run().ok());
  EXPECT_THAT((*run)->results()[0].ToDoubles(), ElementsAre(6, 2));
  EXPECT_THAT(std::string((*run)->SetRows(beyond).message()),
              HasSubstr("SetRows: row 4294967297 at position 1 is outside [0, 2^31)"));
  EXPECT_FALSE((*run)->SetRows(negative).ok());
}

TEST(BatchSizesNearTheLargestNumber, TrainTheWholeDataSet) {
  for (int64_t batch_size : {kMax, kMax - 1, int64_t{1} << 62, int64_t{3}}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("batch"), 1});
    const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {1})));
    const Value loss = Mean(Square(x - w));
    const Update step = optim::Sgd{.learning_rate = 0.5}.Minimize(loss);
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
    ASSERT_TRUE(session.ok()) << session.status();
    const data::Dataset data({{"x", Tensor::Of<float>({3, 1}, {1, 2, 3})}});
    const absl::StatusOr<TrainingState> trained =
        Fit(*session, {.loss = loss, .step = step}, data, {.epochs = 1, .batch_size = batch_size});
    ASSERT_TRUE(trained.ok()) << trained.status();
    EXPECT_EQ(trained->examples, 3);
    EXPECT_EQ(trained->batches, 1);
    EXPECT_NEAR(session->GetVariable("w")->ToDoubles()[0], 2, 1e-6);
  }
}

TEST(TensorCast, SaturatesAsTheOpDoes) {
  const Tensor numbers =
      Tensor::Of<double>({6}, {1e300, -1e300, std::nan(""), 2.75, -2.75, std::numeric_limits<double>::infinity()});
  EXPECT_THAT(numbers.Cast(kInt32).ToDoubles(), ElementsAre(2147483647, -2147483648.0, 0, 2, -2, 2147483647));
  EXPECT_THAT(numbers.Cast(kUint8).ToDoubles(), ElementsAre(255, 0, 0, 2, 0, 255));
  EXPECT_EQ(numbers.Cast(kInt64).values<int64_t>()[0], kMax);
  EXPECT_EQ(numbers.Cast(kInt64).values<int64_t>()[1], -kMax - 1);
  EXPECT_THAT(numbers.Cast(kBool).ToDoubles(), ElementsAre(1, 1, 1, 1, 1, 1));
}

TEST(Tensors, OfSizesThatOverflowThrow) {
  EXPECT_THROW(Tensor(kFloat64, {int64_t{1} << 61}), std::bad_alloc);
  EXPECT_THROW(Tensor(kFloat32, {int64_t{1} << 32, int64_t{1} << 32}), std::bad_alloc);
  EXPECT_THROW(Tensor(kFloat32, {-1}), std::bad_alloc);
}

}  // namespace
}  // namespace gradweave
