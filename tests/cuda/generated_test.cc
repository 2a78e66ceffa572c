// Generated kernels of elementwise chains on the emulated CUDA device, compiled for it by the
// build. They give the same bits as the interpreting kernel and as single ops, and sessions cope
// with their absence.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/runtime/cuda/api/kernel_cache.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/fusion/kernel_store.h"
#include "gradweave/runtime/cuda/plan/platform.h"
#include "gtest/gtest.h"
#include "tests/cuda/fused_graphs.h"
#include "tests/cuda/fused_groups.h"
#include "tests/cuda/fused_kernels.h"
#include "tests/cuda/test_device.h"

namespace gradweave {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

// Runs the group's nodes one by one.
absl::StatusOr<std::vector<Tensor>> RunUnfused(const Graph& graph, const FusedGroup& group,
                                               const std::vector<Tensor>& operands, TestDevice& device) {
  return RunOneByOne(graph, group, operands,
                     [&](const Node& node, const std::vector<Tensor>& inputs) { return device.Run(node, inputs); });
}

// Each graph twice: with random numbers, and with NaN, infinities and zeros of both signs among
// them.
std::vector<std::pair<FusedGraph, bool>> WithAndWithoutSpecialValues() {
  std::vector<std::pair<FusedGraph, bool>> runs;
  for (const FusedGraph& fused : FusedGraphs()) {
    for (bool special : {false, true}) runs.emplace_back(fused, special);
  }
  return runs;
}

TEST(GeneratedKernels, GiveTheBitsOfTheInterpretedAndOfSingleOps) {
  TestDevice device({.kernels = FusedKernels()});
  KernelStore store(device.api(), 0, EmulatedKernelCompiler(FusedKernels()), {.generated = GeneratedKernels::kAlways});
  std::mt19937 random(1);
  int groups = 0;
  for (const auto& [fused, special] : WithAndWithoutSpecialValues()) {
    const auto& [name, graph, low, high] = fused;
    SCOPED_TRACE(absl::StrCat(name, special ? " with special values" : ""));
    for (const FusedGroup& group : FindFusedGroups(graph).groups) {
      ++groups;
      std::vector<Tensor> operands;
      std::vector<TensorType> types;
      for (Port port : group.operands) {
        operands.push_back(RandomTensor(graph.type(port), low, high, random));
        if (special) AddSpecialValues(operands.back(), random);
      }
      for (Port port : group.outputs) types.push_back(graph.type(port));
      const auto kernels = KernelsOf(store, group);
      ASSERT_TRUE(kernels.ok()) << kernels.status();
      const Kernel interpreted = cuda_emulated::MakeFusedKernel(graph, group, {});
      const Kernel generated = cuda_emulated::MakeFusedKernel(graph, group, *kernels);
      EXPECT_EQ(generated.name, "generated_elements");
      const auto want = device.Run(interpreted, types, operands);
      ASSERT_TRUE(want.ok()) << want.status();
      EXPECT_THAT(device.api().TakeKernelNames(), Each(std::string("fused_elements")));
      const auto got = device.Run(generated, types, operands);
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_THAT(device.api().TakeKernelNames(), Each(std::string("generated_elements")));
      EXPECT_EQ(Difference(*got, *want), "");
      const auto unfused = RunUnfused(graph, group, operands, device);
      ASSERT_TRUE(unfused.ok()) << unfused.status();
      EXPECT_EQ(Difference(*got, *unfused), "");
      for (int in_place = 0; in_place < static_cast<int>(generated.overwrites.size()); ++in_place) {
        const auto again = device.Run(generated, types, operands, in_place);
        ASSERT_TRUE(again.ok()) << again.status();
        EXPECT_EQ(Difference(*again, *want), "") << "overwriting, choice " << in_place;
      }
      (void)device.api().TakeKernelNames();
    }
  }
  EXPECT_GT(groups, 40);
}

// A chain that ends in reductions adds in the order of the reductions' own kernels.
TEST(GeneratedKernels, ReduceToTheBitsOfSingleOps) {
  TestDevice device({.kernels = FusedKernels()});
  KernelStore store(device.api(), 0, EmulatedKernelCompiler(FusedKernels()), {.generated = GeneratedKernels::kAlways});
  std::mt19937 random(2);
  std::set<std::string> forms;
  for (const auto& [fused, special] : WithAndWithoutSpecialValues()) {
    const auto& [name, graph, low, high] = fused;
    SCOPED_TRACE(absl::StrCat(name, special ? " with special values" : ""));
    for (const FusedGroup& group : FindFusedGroups(graph, {.reductions = true}).groups) {
      if (!group.has_reductions()) continue;
      const FusedReduction& first = group.chains[0].reductions[0];
      forms.insert(absl::StrCat("form ", FormOf(first.passes[0]), first.passes[0].parts > 1 ? " in parts" : ""));
      forms.insert(absl::StrCat(first.passes.size(), " passes"));
      forms.insert(absl::StrCat(group.chains[0].reductions.size(), " reductions"));
      if (!group.chains[0].outputs.empty()) forms.insert("the chain is read too");
      for (const FusedReduction& reduction : group.chains[0].reductions) {
        forms.insert(absl::StrCat("kind ", reduction.kind));
      }
      std::vector<Tensor> operands;
      std::vector<TensorType> types;
      for (Port port : group.operands) {
        operands.push_back(RandomTensor(graph.type(port), low, high, random));
        if (special) AddSpecialValues(operands.back(), random);
      }
      for (Port port : group.outputs) types.push_back(graph.type(port));
      const auto kernels = KernelsOf(store, group);
      ASSERT_TRUE(kernels.ok()) << kernels.status();
      const Kernel kernel = cuda_emulated::MakeFusedKernel(graph, group, *kernels);
      const auto want = RunUnfused(graph, group, operands, device);
      ASSERT_TRUE(want.ok()) << want.status();
      (void)device.api().TakeKernelNames();
      const auto got = device.Run(kernel, types, operands);
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_EQ(device.api().TakeKernelNames()[0], "generated_reduction");
      EXPECT_EQ(Difference(*got, *want), "");
      for (int in_place = 0; in_place < static_cast<int>(kernel.overwrites.size()); ++in_place) {
        const auto again = device.Run(kernel, types, operands, in_place);
        ASSERT_TRUE(again.ok()) << again.status();
        EXPECT_EQ(Difference(*again, *want), "") << "overwriting, choice " << in_place;
      }
    }
  }
  EXPECT_THAT(forms,
              ::testing::IsSupersetOf({"form 0", "form 1", "form 1 in parts", "form 2", "form 2 in parts", "1 passes",
                                       "2 passes", "1 reductions", "2 reductions", "4 reductions",
                                       "the chain is read too", "kind 0", "kind 1", "kind 2", "kind 3", "kind 4"}));
}

// Tensors whose addresses are not aligned for packs.
TEST(GeneratedKernels, ReadUnalignedTensors) {
  Graph graph;
  for (const auto& fused : FusedGraphs()) {
    if (fused.name == "random_float32_1") graph = fused.graph;
  }
  const FusionPlan plan = FindFusedGroups(graph);
  ASSERT_FALSE(plan.groups.empty());
  const FusedGroup& group = plan.groups[0];
  EmulatedCudaApi api({.kernels = FusedKernels()});
  KernelStore store(api, 0, EmulatedKernelCompiler(FusedKernels()), {.generated = GeneratedKernels::kAlways});
  const auto kernels = KernelsOf(store, group);
  ASSERT_TRUE(kernels.ok()) << kernels.status();
  const Kernel generated = cuda_emulated::MakeFusedKernel(graph, group, *kernels);
  const CudaStream stream = *api.CreateStream();
  const CudaContext context{.api = &api, .stream = stream};
  std::vector<std::vector<Tensor>> results;
  for (size_t offset : {0, 4}) {
    std::mt19937 random(3);
    std::vector<const void*> operands;
    std::vector<void*> outputs;
    for (Port port : group.operands) {
      const Tensor value = RandomTensor(graph.type(port), -1, 1, random);
      auto* memory = static_cast<char*>(*api.Allocate(value.byte_size() + offset)) + offset;
      ASSERT_TRUE(api.CopyAsync(memory, value.raw_data(), value.byte_size(), CudaCopyKind::kHostToDevice, stream).ok());
      operands.push_back(memory);
    }
    for (Port port : group.outputs) {
      outputs.push_back(static_cast<char*>(*api.Allocate(graph.type(port).byte_size() + offset)) + offset);
    }
    KernelArguments arguments;
    arguments.operands = operands;
    arguments.outputs = outputs;
    arguments.context = &context;
    ASSERT_TRUE(generated.run(arguments).ok());
    const absl::Status status = api.Synchronize(stream);
    ASSERT_TRUE(status.ok()) << status;
    results.emplace_back();
    for (size_t k = 0; k < outputs.size(); ++k) {
      const TensorType& type = graph.type(group.outputs[k]);
      Tensor result(type.dtype, type.shape.sizes());
      ASSERT_TRUE(
          api.CopyAsync(result.mutable_raw_data(), outputs[k], result.byte_size(), CudaCopyKind::kDeviceToHost, stream)
              .ok());
      results.back().push_back(result);
    }
  }
  EXPECT_EQ(Difference(results[0], results[1]), "");
}

// Sessions on the emulated device, with and without the kernels above.
class GeneratedInSession : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = ::testing::TempDir() + "/generated.XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    cache_ = folder;
    Emulate(EmulatedKernelCompiler(FusedKernels()));
  }
  void TearDown() override { SetCudaPlatformForTest(std::nullopt); }

  // Sets up a machine and counts the calls of its compiler.
  void Emulate(const KernelCompiler& compiler, EmulatedCudaOptions options = {}) {
    options.kernels = FusedKernels();
    api_ = std::make_unique<EmulatedCudaApi>(options);
    KernelCompiler counted = compiler;
    if (compiler.compile != nullptr) {
      counted.compile = [this, compile = compiler.compile](const std::string& source, int architecture) {
        ++compiled_;
        return compile(source, architecture);
      };
    }
    SetCudaPlatformForTest(CudaPlatform{.api = api_.get(),
                                        .kernels = &cuda_emulated::CudaKernels(),
                                        .commit = cuda_emulated::Commit,
                                        .make_fused = cuda_emulated::MakeFusedKernel,
                                        .compiler = counted});
  }

  struct Outcome {
    absl::Status status;
    std::vector<Tensor> losses;
    std::vector<std::string> kernels;  // Kernels that ran, sorted by name because parallel kernels run in any order.
    int compiled = 0;
    std::string said;  // Output on stderr.
  };
  // Trains a few steps. From the third step on, CUDA graphs are replayed.
  Outcome Train(GeneratedKernels generated) {
    compiled_ = 0;
    (void)api_->TakeKernelNames();
    Outcome outcome;
    ::testing::internal::CaptureStderr();
    outcome.status = [&]() -> absl::Status {
      const SmallNetwork network;
      GW_ASSIGN_OR_RETURN(
          Session session,
          Session::Create(
              network.graph,
              {.device = {"cuda", 0}, .threads = 1, .cuda = {.generated_kernels = generated, .kernel_cache = cache_}}));
      for (int i = 0; i < 4; ++i) {
        GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results,
                            session.Run(network.Feeds(i), {network.loss, network.step}));
        outcome.losses.push_back(results[0]);
      }
      return absl::OkStatus();
    }();
    outcome.said = ::testing::internal::GetCapturedStderr();
    outcome.kernels = api_->TakeKernelNames();
    std::sort(outcome.kernels.begin(), outcome.kernels.end());
    outcome.compiled = compiled_;
    EXPECT_EQ(api_->loaded_kernels(), 0);
    return outcome;
  }

  static constexpr int kLosses = 4;
  std::string cache_;
  std::unique_ptr<EmulatedCudaApi> api_;
  std::atomic<int> compiled_ = 0;  // Several threads increment it.
};

constexpr char kGenerated[] = "generated_elements", kInterpreted[] = "fused_elements",
               kReduction[] = "generated_reduction", kConvolution[] = "generated_convolution";

TEST_F(GeneratedInSession, TrainsAsTheInterpretedDo) {
  const Outcome never = Train(GeneratedKernels::kNever), always = Train(GeneratedKernels::kAlways);
  ASSERT_TRUE(never.status.ok()) << never.status;
  ASSERT_TRUE(always.status.ok()) << always.status;
  EXPECT_THAT(never.kernels, Contains(std::string(kInterpreted)));
  EXPECT_THAT(never.kernels, Not(Contains(std::string(kGenerated))));
  EXPECT_THAT(always.kernels, Contains(std::string(kGenerated)));
  EXPECT_THAT(always.kernels, Not(Contains(std::string(kInterpreted))));
  // Generated kernels reduce the number of launches: sums are part of the kernels that compute
  // their operands.
  EXPECT_THAT(always.kernels, Contains(std::string(kReduction)));
  EXPECT_THAT(never.kernels, Not(Contains(std::string(kReduction))));
  // A convolution's kernel includes the pool of its activations.
  EXPECT_THAT(always.kernels, Contains(std::string(kConvolution)));
  EXPECT_THAT(always.kernels, Not(Contains(std::string("average_pool"))));
  EXPECT_THAT(never.kernels, Contains(std::string("average_pool")));
  EXPECT_LT(always.kernels.size(), never.kernels.size());
  EXPECT_EQ(Difference(always.losses, never.losses), "");
  EXPECT_EQ(never.compiled, 0);
  EXPECT_GT(always.compiled, 1);
  // kAuto uses all kernels that are available.
  EXPECT_EQ(Train(GeneratedKernels::kAuto).kernels, always.kernels);
}

// The test on a GPU does the same.
TEST_F(GeneratedInSession, GivesTheBitsOfTheInterpreted) {
  setenv("GRADWEAVE_KERNEL_CACHE", cache_.c_str(), 1);
  const absl::Status status = CompareGeneratedWithInterpreted({"cuda", 0});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_GT(compiled_, 100);
  unsetenv("GRADWEAVE_KERNEL_CACHE");
}

TEST_F(GeneratedInSession, ThePlanTellsWhichRun) {
  const SmallNetwork network;
  auto plan = [&](GeneratedKernels generated) {
    absl::StatusOr<Session> session = Session::Create(
        network.graph, {.device = {"cuda", 0}, .cuda = {.generated_kernels = generated, .kernel_cache = cache_}});
    EXPECT_TRUE(session.ok()) << session.status();
    return *session->DescribePlan(network.Feeds(0), {network.loss, network.step});
  };
  const std::string always = plan(GeneratedKernels::kAlways), never = plan(GeneratedKernels::kNever);
  EXPECT_THAT(always, HasSubstr(kGenerated));
  EXPECT_THAT(never, HasSubstr(kInterpreted));
  // The total work is the same, however it is divided into steps.
  auto flops = [](const std::string& text) {
    const size_t begin = text.find(" steps, ") + 8;
    return text.substr(begin, text.find(" FLOPs,") - begin);
  };
  EXPECT_EQ(flops(always), flops(never));
}

TEST_F(GeneratedInSession, AnotherProcessFindsCompiledKernels) {
  const Outcome first = Train(GeneratedKernels::kAlways);
  ASSERT_TRUE(first.status.ok()) << first.status;
  EXPECT_GT(first.compiled, 1);
  const Outcome second = Train(GeneratedKernels::kAlways);
  ASSERT_TRUE(second.status.ok()) << second.status;
  ASSERT_EQ(second.compiled, 0);
  EXPECT_EQ(second.kernels, first.kernels);
  // A damaged entry is compiled again.
  const std::filesystem::path entry = std::filesystem::directory_iterator(cache_)->path();
  std::filesystem::resize_file(entry, std::filesystem::file_size(entry) - 1);
  EXPECT_EQ(Train(GeneratedKernels::kAlways).compiled, 1);
  EXPECT_EQ(Train(GeneratedKernels::kAlways).compiled, 0);
  // Entries of another compiler are not used.
  KernelCompiler newer = EmulatedKernelCompiler(FusedKernels());
  newer.describe = [](int) -> absl::StatusOr<std::string> { return "a newer one"; };
  Emulate(newer);
  EXPECT_EQ(Train(GeneratedKernels::kAlways).compiled, first.compiled);
  // Without a folder, each session compiles.
  cache_ = "/dev/null";
  EXPECT_EQ(Train(GeneratedKernels::kAlways).compiled, first.compiled);
}

TEST_F(GeneratedInSession, WithoutACompilerChainsAreInterpreted) {
  const std::vector<Tensor> losses = Train(GeneratedKernels::kNever).losses;
  KernelCompiler missing;
  missing.describe = [](int) -> absl::StatusOr<std::string> { return absl::UnavailableError("NVRTC is not found"); };
  missing.compile = [](const std::string&, int) -> absl::StatusOr<std::string> { return absl::UnavailableError("no"); };
  Emulate(missing);
  const Outcome automatic = Train(GeneratedKernels::kAuto);
  ASSERT_TRUE(automatic.status.ok()) << automatic.status;
  EXPECT_EQ(Difference(automatic.losses, losses), "");
  EXPECT_THAT(automatic.kernels, Not(Contains(std::string(kGenerated))));
  EXPECT_EQ(automatic.said,
            "gradweave: elementwise chains are interpreted, which may be slower than generated kernels: NVRTC is not "
            "found\n");
  // The message appears only once.
  EXPECT_EQ(Train(GeneratedKernels::kAuto).said, "");
  EXPECT_EQ(Train(GeneratedKernels::kNever).said, "");
  const Outcome always = Train(GeneratedKernels::kAlways);
  EXPECT_EQ(always.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(always.status.message()), HasSubstr("NVRTC is not found"));
  EXPECT_THAT(std::string(always.status.message()), HasSubstr("generated_kernels"));
  // A device that has no compiler by design does not cause a message.
  Emulate({});
  const Outcome without = Train(GeneratedKernels::kAuto);
  ASSERT_TRUE(without.status.ok()) << without.status;
  EXPECT_EQ(without.said, "");
  EXPECT_EQ(Train(GeneratedKernels::kAlways).status.code(), absl::StatusCode::kUnavailable);
}

// Reductions and convolutions need generated kernels. If one is not available, those nodes run
// separately.
TEST_F(GeneratedInSession, WhatCannotBeCompiledRunsApart) {
  cache_ = "/dev/null";
  const std::vector<Tensor> losses = Train(GeneratedKernels::kNever).losses;
  struct Row {
    const char *in_source, *kernel, *other_kernel, *said;
  };
  for (const Row& row :
       {Row{"RunFusedReduction<gradweave::cuda::Chain>", kReduction, kConvolution,
            "gradweave: reductions run apart from the elementwise chains around them: error: none of these\n"},
        Row{"Convolver<gradweave::cuda::Convolution>", kConvolution, kReduction,
            "gradweave: convolutions run apart from the ops behind them: error: none of these\n"}}) {
    SCOPED_TRACE(row.kernel);
    KernelCompiler compiler = EmulatedKernelCompiler(FusedKernels());
    compiler.compile = [row, compile = compiler.compile](const std::string& source,
                                                         int architecture) -> absl::StatusOr<std::string> {
      if (absl::StrContains(source, row.in_source)) return absl::InternalError("error: none of these");
      return compile(source, architecture);
    };
    Emulate(compiler);
    const Outcome outcome = Train(GeneratedKernels::kAuto);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Difference(outcome.losses, losses), "");
    EXPECT_THAT(outcome.kernels, Contains(std::string(kGenerated)));
    EXPECT_THAT(outcome.kernels, Contains(std::string(row.other_kernel)));
    EXPECT_THAT(outcome.kernels, Not(Contains(std::string(row.kernel))));
    EXPECT_THAT(outcome.kernels, Not(Contains(std::string(kInterpreted))));
    EXPECT_EQ(outcome.said, row.said);
    EXPECT_EQ(Train(GeneratedKernels::kAlways).status.code(), absl::StatusCode::kInternal);
  }
}

// The kernels of a plan are compiled in parallel. If several fail, the error of the plan's first
// one is reported.
TEST_F(GeneratedInSession, CompilesSeveralAtATime) {
  KernelCompiler compiler = EmulatedKernelCompiler(FusedKernels());
  std::mutex mutex;
  std::condition_variable changed;
  int running = 0, most = 0;
  compiler.compile = [&, compile = compiler.compile](const std::string& source,
                                                     int architecture) -> absl::StatusOr<std::string> {
    std::unique_lock<std::mutex> lock(mutex);
    most = std::max(most, ++running);
    changed.notify_all();
    changed.wait_for(lock, std::chrono::milliseconds(200), [&] { return most > 1; });
    --running;
    return compile(source, architecture);
  };
  Emulate(compiler);
  const Outcome outcome = Train(GeneratedKernels::kAlways);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  if (std::thread::hardware_concurrency() > 1) {
    EXPECT_GT(most, 1);
  }
  // Errors that identify their source, in the order of compilations or in the opposite order. The
  // cache is off.
  cache_ = "/dev/null";
  std::atomic<int> milliseconds = 0, step = 3;
  compiler.compile = [&](const std::string& source, int) -> absl::StatusOr<std::string> {
    std::this_thread::sleep_for(std::chrono::milliseconds(std::max(0, milliseconds += step)));
    return absl::InternalError(absl::StrCat("error in ", HashOfText(source)));
  };
  Emulate(compiler);
  const absl::Status first = Train(GeneratedKernels::kAlways).status;
  EXPECT_EQ(first.code(), absl::StatusCode::kInternal);
  milliseconds = 30;
  step = -10;
  EXPECT_EQ(Train(GeneratedKernels::kAlways).status, first);
}

// A runtime older than CUDA 12.8 cannot load kernels, so compiling them would be for nothing.
TEST_F(GeneratedInSession, WhatCannotBeLoadedIsNotCompiled) {
  Emulate(EmulatedKernelCompiler(FusedKernels()), {.loads_kernels = false});
  const Outcome outcome = Train(GeneratedKernels::kAuto);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.compiled, 0);
  EXPECT_THAT(outcome.kernels, Contains(std::string(kInterpreted)));
  const absl::Status status = Train(GeneratedKernels::kAlways).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("loads no kernels"));
}

// A session loads kernels on its own device, whatever device the thread used last.
TEST_F(GeneratedInSession, EachDeviceLoadsItsKernels) {
  Emulate(EmulatedKernelCompiler(FusedKernels()), {.devices = 2});
  const SmallNetwork network;
  std::vector<Session> sessions;
  for (int device : {0, 1}) {
    absl::StatusOr<Session> session = Session::Create(
        network.graph, {.device = {"cuda", device},
                        .threads = 1,
                        .cuda = {.generated_kernels = GeneratedKernels::kAlways, .kernel_cache = cache_}});
    ASSERT_TRUE(session.ok()) << session.status();
    sessions.push_back(*std::move(session));
  }
  for (int i = 0; i < 4; ++i) {
    std::vector<Tensor> losses;
    for (Session& session : sessions) {
      const absl::StatusOr<std::vector<Tensor>> results = session.Run(network.Feeds(i), {network.loss, network.step});
      ASSERT_TRUE(results.ok()) << results.status();
      losses.push_back((*results)[0]);
    }
    EXPECT_EQ(Difference({losses[0]}, {losses[1]}), "");
  }
}

TEST_F(GeneratedInSession, WhatCannotBeCompiledOrLoadedIsInterpreted) {
  const std::vector<Tensor> losses = Train(GeneratedKernels::kNever).losses;
  // One chain fails to compile, and the first kernel fails to load.
  KernelCompiler compiler = EmulatedKernelCompiler(FusedKernels());
  compiler.compile = [compile = compiler.compile, calls = std::make_shared<std::atomic<int>>(0)](
                         const std::string& source, int architecture) -> absl::StatusOr<std::string> {
    const bool reduces = absl::StrContains(source, "RunFusedReduction<gradweave::cuda::Chain>");
    if (!reduces && (*calls)++ == 0) return absl::InternalError("error: expected an expression");
    return compile(source, architecture);
  };
  Emulate(compiler);
  api_->FailCall("LoadKernel", 1, absl::InternalError("no kernel image is available"));
  const Outcome outcome = Train(GeneratedKernels::kAuto);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Difference(outcome.losses, losses), "");
  EXPECT_THAT(outcome.kernels, Contains(std::string(kInterpreted)));
  EXPECT_THAT(outcome.kernels, Contains(std::string(kGenerated)));
  EXPECT_THAT(outcome.said, HasSubstr("expected an expression"));
  EXPECT_THAT(outcome.said, HasSubstr("no kernel image is available"));
  api_->FailCall("LoadKernel", 2, absl::InternalError("no kernel image is available"));
  EXPECT_EQ(Train(GeneratedKernels::kAlways).status.code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace gradweave
