// Sessions on an emulated CUDA device: the same results as on the CPU, whole or divided between
// devices; capture and replay.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"

namespace gradweave {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kSteps = 4;

void ExpectSameTraining(const LeNet& lenet, Session& session) {
  const LeNet on_cpu;
  Session cpu = MakeSession(on_cpu.graph, {.threads = 1, .seed = 3});
  ExpectNear(lenet.Losses(session, kSteps), on_cpu.Losses(cpu, kSteps));
  for (const std::string& name : cpu.VariableNames()) {
    ExpectNear(session.GetVariable(name)->ToDoubles(), cpu.GetVariable(name)->ToDoubles());
  }
}

TEST_F(CudaSession, TrainsLeNetAsTheCpuDoes) {
  const LeNet lenet;
  Session session = MakeSession(lenet.graph, {.device = kCuda0, .threads = 1, .seed = 3});
  ExpectSameTraining(lenet, session);
  // The whole step is one graph. The second run captures it, and later runs launch it.
  if (api_ != nullptr) {
    EXPECT_EQ(api_->CountCalls("BeginCapture"), 1);
    EXPECT_EQ(api_->CountCalls("LaunchGraph"), kSteps - 1);
  }
}

TEST_F(CudaSession, RoundsFactorsOfProductsOnlyAsAskedFor) {
  GRADWEAVE_NEEDS_EMULATION();
  auto products = [&](const SessionOptions& options) {
    const LeNet lenet;
    Session session = MakeSession(lenet.graph, options);
    lenet.Losses(session, 1);
    std::set<std::string> names;
    for (const std::string& name : api_->TakeKernelNames()) {
      if (absl::StartsWith(name, "gemm")) names.insert(name);
    }
    return names;
  };
  EXPECT_THAT(products({.device = kCuda0, .threads = 1}), ElementsAre("gemm"));
  EXPECT_THAT(products({.device = kCuda0, .threads = 1, .cuda = {.product_precision = ProductPrecision::kTf32}}),
              ElementsAre("gemm in tf32"));
  EXPECT_THAT(products({.device = kCuda0, .threads = 1, .cuda = {.product_precision = ProductPrecision::kBfloat16}}),
              ElementsAre("gemm in bf16"));
  // Convolutions computed as matrix products count too.
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {1, 40, 4, 4});
  const Value y = nn::Sequential{nn::Conv2D{.channels = 40, .kernel = 3}}(scope, x);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Session session =
      MakeSession(graph, {.device = kCuda0, .threads = 1, .cuda = {.product_precision = ProductPrecision::kTf32}});
  RunAll(session, {{x, Tensor(kFloat32, {1, 40, 4, 4})}}, {y});
  EXPECT_THAT(api_->TakeKernelNames(), Contains("gemm in tf32"));
}

TEST_F(CudaSession, TrainsLeNetHalfOnEachDevice) {
  const LeNet lenet("cuda:0", "cpu:0");
  Session session = MakeSession(lenet.graph, {.threads = 1, .seed = 3});
  ExpectSameTraining(lenet, session);
  const absl::StatusOr<std::string> plan = session.DescribePlan(lenet.Feeds(0), {lenet.loss, lenet.step});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(*plan, HasSubstr("copy to the device"));
  EXPECT_THAT(*plan, HasSubstr("copy to the CPU"));
  EXPECT_THAT(*plan, HasSubstr("CUDA graphs on cuda:0, captured"));
}

// A device that reads host memory late must still find the values it was given.
TEST_F(CudaSession, WaitsForCopiesOfMemoryThatIsNotPinned) {
  GRADWEAVE_NEEDS_EMULATION();
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {1000});
  // Each step of the CPU reuses the memory of the one before, while the device adds the steps up.
  Value sum = Neg(x), on_cpu = x;
  for (int i = 0; i < 4; ++i) {
    scope.SetDevice("cpu");
    on_cpu = Tanh(on_cpu) * 2;
    scope.SetDevice("");
    sum = sum + Square(on_cpu);
  }
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Tensor feed(kFloat32, {1000});
  for (int i = 0; i < 1000; ++i) feed.mutable_data<float>()[i] = 0.003f * static_cast<float>(i);
  Session cpu = MakeSession(graph, {});
  Emulate({.reads_host_memory = true});
  Session session = MakeSession(graph, {.device = kCuda0});
  for (int i = 0; i < 3; ++i) {
    ExpectNear(RunAll(session, {{x, feed}}, {sum})[0].ToDoubles(), RunAll(cpu, {{x, feed}}, {sum})[0].ToDoubles());
  }
}

TEST_F(CudaSession, FreesAllOfTheDevicesMemory) {
  GRADWEAVE_NEEDS_EMULATION();
  {
    const LeNet lenet;
    Session session = MakeSession(lenet.graph, {.device = kCuda0, .threads = 1});
    lenet.Losses(session, 3);
    EXPECT_GT(api_->allocated_bytes(), 0u);
  }
  EXPECT_EQ(api_->allocated_bytes(), 0u);
  EXPECT_EQ(api_->CountCalls("CreateStream"), api_->CountCalls("DestroyStream"));
  EXPECT_EQ(api_->CountCalls("EndCapture"), api_->CountCalls("DestroyGraph"));
  EXPECT_EQ(api_->CountCalls("AllocatePinned"), api_->CountCalls("FreePinned"));
}

TEST_F(CudaSession, ReplaysGiveNewRandomNumbersWhichAreTheCpus) {
  Graph graph;
  Scope scope(graph);
  const Value noise = RandomUniform(scope, {1000}, -1, 1);
  Session cuda = MakeSession(graph, {.device = kCuda0, .seed = 9});
  Session cpu = MakeSession(graph, {.seed = 9});
  std::vector<double> last;
  for (int i = 0; i < 4; ++i) {
    const std::vector<double> numbers = RunAll(cuda, {}, {noise})[0].ToDoubles();
    EXPECT_EQ(numbers, RunAll(cpu, {}, {noise})[0].ToDoubles());
    EXPECT_NE(numbers, last);
    last = numbers;
  }
  if (api_ != nullptr) {
    EXPECT_EQ(api_->CountCalls("LaunchGraph"), 3);
  }
}

// Whatever version of CUDA compiled the kernels, they compute these functions as the host does.
TEST_F(CudaSession, GivesTheHostsBitsOfExpm1AndErf) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4000});
  const std::vector<Fetch> fetches = {Expm1(x), Erf(x)};
  Session session = MakeSession(graph, {.device = kCuda0});
  Tensor numbers(kFloat32, {4000});
  for (int i = 0; i < 4000; ++i) numbers.mutable_data<float>()[i] = 0.0101f * static_cast<float>(i - 2000);
  const std::vector<Tensor> results = RunAll(session, {{x, numbers}}, fetches);
  ASSERT_EQ(results.size(), 2u);
  for (int i = 0; i < 4000; ++i) {
    const float number = numbers.data<float>()[i];
    EXPECT_EQ(results[0].data<float>()[i], formulas::Expm1Of(number)) << number;
    EXPECT_EQ(results[1].data<float>()[i], formulas::ErfOf(number)) << number;
  }
}

TEST_F(CudaSession, ReadsLargeAndSmallFeedsAfresh) {
  Graph graph;
  Scope scope(graph);
  const Value large = scope.Input("large", kFloat32, {Dim("n"), 1000});
  const Value small = scope.Input("small", kFloat32, {1000});
  const Value sum = Sum(large * small, {.axes = {1}});
  Session session = MakeSession(graph, {.device = kCuda0});
  Tensor x(kFloat32, {700, 1000}), y(kFloat32, {1000});
  const std::vector<Feed> feeds = {{large, x}, {small, y}};
  absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare(feeds, {sum, small});
  ASSERT_TRUE(run.ok()) << run.status();
  for (int i = 1; i <= 4; ++i) {
    for (float& element : x.mutable_values<float>()) element = static_cast<float>(i);
    for (float& element : y.mutable_values<float>()) element = 0.5f * static_cast<float>(i);
    ASSERT_TRUE((*run)->Run().ok());
    const std::vector<double> sums = (*run)->results()[0].ToDoubles();
    EXPECT_EQ(sums.front(), 500.0 * i * i);
    EXPECT_EQ(sums.back(), 500.0 * i * i);
    EXPECT_EQ((*run)->results()[1].ToDoubles()[7], 0.5 * i);
  }
  // Replace the fed tensor.
  ASSERT_TRUE((*run)->SetFeed(1, Tensor::Of<float>({1000}, std::vector<float>(1000, 1.0f))).ok());
  ASSERT_TRUE((*run)->Run().ok());
  EXPECT_EQ((*run)->results()[0].ToDoubles()[3], 4000);
}

TEST_F(CudaSession, ReadsVariablesAsTheyWereBeforeTheRun) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Variable("a", scope.Constant(Tensor::Of<float>({2}, {1, 2})));
  const Value b = scope.Variable("b", scope.Constant(Tensor::Of<float>({2}, {3, 4})));
  const Update swap{{Assign(a, b), Assign(b, a)}};
  const Update add{{Assign(a, a + b)}};
  Session session = MakeSession(graph, {.device = kCuda0});
  for (int i = 0; i < 3; ++i) {
    const std::vector<Tensor> old = RunAll(session, {}, {a, b, swap});
    EXPECT_THAT(old[0].ToDoubles(), i % 2 == 0 ? ElementsAre(1, 2) : ElementsAre(3, 4));
    EXPECT_THAT(session.GetVariable("a")->ToDoubles(), i % 2 == 1 ? ElementsAre(1, 2) : ElementsAre(3, 4));
  }
  const std::vector<Tensor> before = RunAll(session, {}, {a, add});
  EXPECT_THAT(before[0].ToDoubles(), ElementsAre(3, 4));
  EXPECT_THAT(session.GetVariable("a")->ToDoubles(), ElementsAre(4, 6));
  ASSERT_TRUE(session.SetVariable("a", Tensor::Of<float>({2}, {10, 20})).ok());
  RunAll(session, {}, {add});
  EXPECT_THAT(session.GetVariable("a")->ToDoubles(), ElementsAre(11, 22));
}

// A plan on the CPU and one on the device alternately use a variable.
TEST_F(CudaSession, BringsVariablesToTheDeviceThatReadsThem) {
  Graph graph;
  Scope scope(graph);
  const Value v = scope.Variable("v", scope.Constant(Tensor::Of<float>({2}, {1, 2})));
  scope.SetDevice("cpu");
  const Value on_cpu = v * 2;
  scope.SetDevice("");
  const Update step{{Assign(v, v + 1)}};
  Session session = MakeSession(graph, {.device = kCuda0});
  for (int i = 1; i <= 3; ++i) {
    RunAll(session, {}, {step});
    EXPECT_THAT(RunAll(session, {}, {on_cpu})[0].ToDoubles(), ElementsAre(2 * (i + 1), 2 * (i + 2)));
  }
}

TEST_F(CudaSession, RunsOnTheCpuWhatTheDeviceHasNoKernelFor) {
  GRADWEAVE_NEEDS_EMULATION();
  KernelRegistry kernels = cuda_emulated::CudaKernels();
  kernels.Add("Tanh", [](const KernelRequest&) -> absl::StatusOr<Kernel> {
    return absl::UnimplementedError("there is none for float32");
  });
  CudaPlatform backend = EmulatedPlatform(*api_, kWorkspaceBytes);
  backend.kernels = &kernels;
  SetCudaPlatformForTest(backend);
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {3});
  const Value y = Exp(Tanh(Relu(x)));
  Session session = MakeSession(graph, {.device = kCuda0});
  const Tensor feed = Tensor::Of<float>({3}, {-1, 0.5, 2});
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    ExpectNear(RunAll(session, {{x, feed}}, {y})[0].ToDoubles(),
               {1, std::exp(std::tanh(0.5)), std::exp(std::tanh(2.0))});
  }
  RunAll(session, {{x, feed}}, {y, Value(y)});
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "gradweave: Tanh runs on the CPU and not on cuda:0: there is none for float32\n");
  EXPECT_THAT(*session.DescribePlan({{x, feed}}, {y}), HasSubstr("Tanh runs on the CPU and not on cuda:0"));
}

TEST_F(CudaSession, ProfilesARun) {
  const LeNet lenet;
  Session session = MakeSession(lenet.graph, {.device = kCuda0, .threads = 1});
  // Profiles an eager run, then a graph with timed events. The graph for replays stays unchanged.
  for (int run = 0; run < 2; ++run) {
    const absl::StatusOr<Profile> profile = session.ProfileRun(lenet.Feeds(0), {lenet.loss, lenet.step});
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_THAT(profile->table, HasSubstr("us from the first step on cuda:0 to the last"));
    EXPECT_THAT(profile->trace, HasSubstr("\"name\":\"cuda:0\""));
    EXPECT_THAT(profile->trace, HasSubstr("conv2d_1/conv2d_"));
    if (api_ == nullptr) continue;
    EXPECT_EQ(api_->CountCalls("BeginCapture"), run);
    EXPECT_EQ(api_->CountCalls("DestroyGraph"), run);
    EXPECT_EQ(api_->CountCalls("CreateTimedEvent"), api_->CountCalls("DestroyEvent"));
  }
  lenet.Losses(session, 2);
  if (api_ == nullptr) return;
  EXPECT_EQ(api_->CountCalls("LaunchGraph"), 3);
  EXPECT_GT(api_->CountCalls("RecordTime"), 40);
}

TEST_F(CudaSession, ProfilesBothDevicesOnOneAxis) {
  const LeNet lenet("cuda:0", "cpu:0");
  Session session = MakeSession(lenet.graph, {.threads = 1});
  const absl::Time start = absl::Now();
  const absl::StatusOr<Profile> profile = session.ProfileRun(lenet.Feeds(0), {lenet.loss, lenet.step});
  const double microseconds = absl::ToDoubleMicroseconds(absl::Now() - start);
  ASSERT_TRUE(profile.ok()) << profile.status();
  double end = 0;
  int copies = 0;
  for (size_t at = profile->trace.find("\"ts\":"); at != std::string::npos;
       at = profile->trace.find("\"ts\":", at + 1)) {
    double begin = 0, duration = 0;
    ASSERT_EQ(std::sscanf(profile->trace.c_str() + at, "\"ts\":%lf,\"dur\":%lf", &begin, &duration), 2);
    EXPECT_GE(duration, 0);
    EXPECT_GE(begin, 0);
    end = std::max(end, begin + duration);
  }
  for (size_t at = profile->trace.find("copy to the "); at != std::string::npos;
       at = profile->trace.find("copy to the ", at + 1)) {
    ++copies;
  }
  EXPECT_GE(copies, 2);
  EXPECT_LE(end, microseconds);
}

TEST_F(CudaSession, SaysWhyADeviceIsNotThere) {
  GRADWEAVE_NEEDS_EMULATION();
  auto message = [](int index) { return std::string(Device{"cuda", index}.CheckAvailable().message()); };
  EXPECT_EQ(message(0), "");
  EXPECT_EQ(Device::Best(), kCuda0);
  EXPECT_THAT(message(1), HasSubstr("cuda(1) is not available: there is one CUDA device, cuda:0"));
  api_->FailCall("DeviceCount", 1, absl::UnavailableError("no driver"));
  EXPECT_THAT(message(0), HasSubstr("no driver; use cpu"));
  Emulate({.devices = 3});
  EXPECT_THAT(message(3), HasSubstr("there are the CUDA devices cuda:0 to cuda:2"));
  Emulate({.devices = 0});
  EXPECT_THAT(message(0), HasSubstr("no CUDA-capable device"));
  EXPECT_EQ(Device::Best(), Device::Cpu());
  SetCudaPlatformForTest(CudaPlatform{});
  EXPECT_THAT(message(0), HasSubstr("this build has no CUDA support"));

  const LeNet lenet("cuda:0", "cpu");
  const absl::Status status = Session::Create(lenet.graph).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("a node asks for it"));
}

TEST_F(CudaSession, RefusesNodesOnUnknownOrSeveralDevices) {
  GRADWEAVE_NEEDS_EMULATION();
  Emulate({.devices = 2});
  Session two = MakeSession(LeNet("cuda:1").graph, {});
  const LeNet both("cuda:0", "cuda:1");
  EXPECT_THAT(Session::Create(both.graph).status().message(),
              HasSubstr("a session has one device beside the CPU, cuda(0)"));
  const LeNet odd("gpu");
  EXPECT_THAT(Session::Create(odd.graph).status().message(), HasSubstr("'gpu' is not a device"));
}

TEST_F(CudaSession, MayBeUsedByManyThreads) {
  const LeNet lenet;
  Session session = MakeSession(lenet.graph, {.device = kCuda0, .threads = 2, .seed = 3});
  Session other = MakeSession(lenet.graph, {.device = kCuda0, .threads = 1, .seed = 3});
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] { lenet.Losses(t < 2 ? session : other, 3); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(session.run_number(), 7u);
  EXPECT_EQ(other.run_number(), 4u);
}

// A data set on the device gives the same results as one fed in batches.
TEST_F(CudaSession, GathersBatchesOnTheDevice) {
  Graph graph;
  Scope scope(graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 4, 4});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  const nn::Sequential model{nn::Flatten{}, nn::Dense{8}, nn::Tanh{}, nn::Dense{3}};
  const Value logits = model(scope, image);
  const Value loss = nn::SoftmaxCrossEntropy(logits, label);
  const Training training{loss, optim::Sgd{.learning_rate = 0.5}.Minimize(loss), {metrics::Accuracy(logits, label)}};
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Tensor images(kUint8, {25, 1, 4, 4}), labels(kInt32, {25});
  for (int i = 0; i < 25 * 16; ++i) images.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(i * 37 % 256);
  for (int i = 0; i < 25; ++i) labels.mutable_data<int32_t>()[i] = i % 3;
  const data::Dataset dataset = *data::FromArrays(images, labels, 3);
  const FitOptions options = {
      .validation = dataset.First(12), .epochs = 3, .batch_size = 10, .validation_batch_size = 7, .seed = 4};

  Session cpu = MakeSession(graph, {.threads = 1, .seed = 3});
  const absl::StatusOr<TrainingState> want = Fit(cpu, training, dataset, options);
  ASSERT_TRUE(want.ok()) << want.status();
  Session cuda = MakeSession(graph, {.device = kCuda0, .threads = 1, .seed = 3});
  const absl::StatusOr<TrainingState> got = Fit(cuda, training, dataset, options);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_NEAR(got->train["loss"], want->train["loss"], kTolerance);
  EXPECT_EQ(got->validation["accuracy"], want->validation["accuracy"]);
  EXPECT_EQ(got->examples, 75);
  // Tables are not variables of the user.
  EXPECT_EQ(cuda.VariableNames(), cpu.VariableNames());
  if (api_ != nullptr) {
    EXPECT_THAT(api_->TakeKernelNames(), Contains(HasSubstr("gather")));
  }

  // If the data set does not fit, its batches are fed, with the same bits.
  Tensor many(kUint8, {2500, 1, 4, 4});
  for (int64_t i = 0; i < many.num_elements(); ++i)
    many.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(i * 37 % 256);
  Tensor many_labels(kInt32, {2500});
  for (int i = 0; i < 2500; ++i) many_labels.mutable_data<int32_t>()[i] = i % 3;
  std::vector<std::vector<double>> weights;
  for (int64_t limit : {int64_t{0}, int64_t{20'000}}) {
    if (api_ != nullptr) Emulate({});
    Session session =
        MakeSession(graph, {.device = kCuda0, .threads = 1, .seed = 3, .cuda = {.device_memory_limit = limit}});
    const absl::StatusOr<TrainingState> end =
        Fit(session, training, *data::FromArrays(many, many_labels, 3),
            {.validation = dataset.First(12), .epochs = 1, .batch_size = 10, .validation_batch_size = 7});
    ASSERT_TRUE(end.ok()) << end.status();
    EXPECT_EQ(end->examples, 2500);
    if (api_ != nullptr) {
      EXPECT_EQ(api_->peak_bytes() >= many.byte_size(), limit == 0);
    }
    weights.push_back(session.GetVariable("dense_1/weight")->ToDoubles());
  }
  EXPECT_EQ(weights[1], weights[0]);
}

TEST_F(CudaSession, TellsWhatIsWrongWithTables) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n"), 3});
  const Value y = x * 2;
  for (const Device& device : {kCuda0, Device::Cpu()}) {
    Session session = MakeSession(graph, {.device = device});
    auto error = [&](const Value& value, const Tensor& table, int64_t rows) {
      return std::string(session.PrepareRows({{value, table}}, rows, {y}).status().message());
    };
    EXPECT_THAT(error(x, Tensor(kInt32, {5, 3}), 2), HasSubstr("the dtypes have to be the same"));
    EXPECT_THAT(error(x, Tensor(kFloat32, {5, 4}), 2), HasSubstr("only the first axes may differ"));
    EXPECT_THAT(error(x, Tensor(kFloat32, {5}), 2), HasSubstr("the same number of axes"));
    EXPECT_THAT(error(y, Tensor(kFloat32, {5, 3}), 2), HasSubstr("only inputs read tables"));
    EXPECT_THAT(error(x, Tensor(kFloat32, {5, 3}), 0), HasSubstr("0 rows are none"));

    const Tensor table = Tensor::Of<float>({3, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9});
    absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.PrepareRows({{x, table}}, 2, {y});
    ASSERT_TRUE(run.ok()) << run.status();
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE((*run)->SetRows({2, i}).ok());
      ASSERT_TRUE((*run)->Run().ok());
      EXPECT_THAT((*run)->results()[0].ToDoubles(), ElementsAre(14, 16, 18, 6 * i + 2, 6 * i + 4, 6 * i + 6));
    }
    EXPECT_THAT((*run)->SetRows({1}).message(), HasSubstr("prepared for 2 rows and is given 1"));
    EXPECT_FALSE((*run)->SetFeed(0, table).ok());
    ASSERT_TRUE((*run)->SetRows({0, 3}).ok());
    EXPECT_EQ((*run)->Run().code(), absl::StatusCode::kOutOfRange);
  }
}

}  // namespace
}  // namespace gradweave
