// Helpers for tests of sessions on the CUDA device of the tests. That is the emulated device, or in
// gpu_test the GPU that GRADWEAVE_TEST_DEVICE names.
#ifndef GRADWEAVE_TESTS_CUDA_SESSION_H_
#define GRADWEAVE_TESTS_CUDA_SESSION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "gradweave/gradweave.h"
#include "gradweave/runtime/cuda/emulation/emulated_api.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/ops/kernels.h"
#include "gradweave/runtime/cuda/plan/platform.h"
#include "gtest/gtest.h"

namespace gradweave {

// Sums have another order than on the CPU.
inline constexpr double kTolerance = 1e-4;

// The name of the tests' GPU, or null if the tests use the emulated device.
inline const char* GpuName() { return std::getenv("GRADWEAVE_TEST_DEVICE"); }

// The device of the tests.
inline const Device kCuda0 =
    GpuName() == nullptr ? Device{"cuda", 0} : Device::Parse(GpuName()).value_or(Device::Cpu());

// Returns the emulated device. Its streams need `workspace_bytes` for products.
inline CudaPlatform EmulatedPlatform(EmulatedCudaApi& api, size_t workspace_bytes) {
  return {.api = &api,
          .kernels = &cuda_emulated::CudaKernels(),
          .commit = cuda_emulated::Commit,
          .make_fused = cuda_emulated::MakeFusedKernel,
          .workspace_bytes = workspace_bytes,
          .give_workspace = [](CudaApi& of, CudaStream stream, void* memory) {
            static_cast<EmulatedCudaApi&>(of).GiveWorkspace(stream, memory);
          }};
}

// Skips the rest of the test on a GPU: it counts calls, makes them fail, or changes the device.
#define GRADWEAVE_NEEDS_EMULATION() \
  if (api_ == nullptr) GTEST_SKIP() << "this test needs the emulated device"

// A fixture that makes an emulated device the backend of CUDA sessions, or leaves it the GPU.
class CudaSession : public ::testing::Test {
 protected:
  // Workspace of each stream that has products.
  static constexpr size_t kWorkspaceBytes = 4096;

  void SetUp() override {
    if (GpuName() == nullptr) Emulate({});
  }
  void TearDown() override { SetCudaPlatformForTest(std::nullopt); }

  // Replaces the device by a new one with these options.
  void Emulate(EmulatedCudaOptions options) {
    options.workspace_bytes = kWorkspaceBytes;
    // Keep the previous devices, on which sessions of the test may still be open.
    apis_.push_back(std::make_unique<EmulatedCudaApi>(options));
    api_ = apis_.back().get();
    SetCudaPlatformForTest(EmulatedPlatform(*api_, kWorkspaceBytes));
  }

  // Seeds for Emulate, each of which gives streams another order; one on a GPU, whose order is its
  // own.
  std::vector<uint64_t> Seeds(int count) const {
    std::vector<uint64_t> seeds;
    for (int i = 1; i <= (api_ == nullptr ? 1 : count); ++i) seeds.push_back(static_cast<uint64_t>(i));
    return seeds;
  }

  // The number of calls of that name on the emulated device; 0 on a GPU.
  int CountCalls(const std::string& name) const { return api_ == nullptr ? 0 : api_->CountCalls(name); }

  std::vector<std::unique_ptr<EmulatedCudaApi>> apis_;
  EmulatedCudaApi* api_ = nullptr;  // The latest device; null on a GPU.
};

// Creates a session and fails the test on an error.
inline Session MakeSession(const Graph& graph, SessionOptions options) {
  absl::StatusOr<Session> session = Session::Create(graph, std::move(options));
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

// Runs the session. An error fails the test, and the results are empty tensors.
inline std::vector<Tensor> RunAll(Session& session, const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  absl::StatusOr<std::vector<Tensor>> results = session.Run(feeds, fetches);
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? *std::move(results) : std::vector<Tensor>(fetches.size(), Tensor(kFloat32, {0}));
}

// Expects equal values within the tolerance, relative to values above 1.
inline void ExpectNear(const std::vector<double>& got, const std::vector<double>& want, double tolerance = kTolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], tolerance * std::max(1.0, std::abs(want[i]))) << "element " << i;
  }
}

// LeNet, whose dense layers may be on another device than its convolutions.
struct LeNet {
  static constexpr int64_t kSamples = 5;
  Graph graph;
  Value image, label, loss;
  Update step;

  // Places the convolutions and the dense layers on these devices; "" means the session's device.
  explicit LeNet(const std::string& convolutions = "", const std::string& dense = "") {
    Scope scope(graph);
    image = scope.Input("image", kFloat32, {Dim("batch"), 1, 28, 28});
    label = scope.Input("label", kInt32, {Dim("batch")});
    scope.SetDevice(convolutions);
    const nn::Sequential features{nn::Conv2D{.channels = 6, .kernel = 5, .padding = 2},
                                  nn::Sigmoid{},
                                  nn::AvgPool2D{.pool = 2},
                                  nn::Conv2D{.channels = 16, .kernel = 5},
                                  nn::Sigmoid{},
                                  nn::AvgPool2D{.pool = 2},
                                  nn::Flatten{}};
    const Value hidden = features(scope, image);
    scope.SetDevice(dense);
    const nn::Sequential classifier{nn::Dense{120}, nn::Sigmoid{}, nn::Dense{84}, nn::Sigmoid{}, nn::Dense{10}};
    loss = nn::SoftmaxCrossEntropy(classifier(scope, hidden), label);
    scope.SetDevice("");
    step = optim::Sgd{.learning_rate = 0.5, .momentum = 0.9}.Minimize(loss);
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }

  // Returns different data for each step.
  std::vector<Feed> Feeds(int step_number) const {
    Tensor images(kFloat32, {kSamples, 1, 28, 28}), labels(kInt32, {kSamples});
    for (int64_t i = 0; i < images.num_elements(); ++i)
      images.mutable_data<float>()[i] = static_cast<float>(std::sin(0.37 * i + step_number) * 0.5 + 0.5);
    for (int i = 0; i < kSamples; ++i) labels.mutable_data<int32_t>()[i] = (i + step_number) % 10;
    return {{image, images}, {label, labels}};
  }

  // Returns the losses of the first steps of training.
  std::vector<double> Losses(Session& session, int steps) const {
    std::vector<double> losses;
    for (int i = 0; i < steps; ++i) {
      const std::vector<Tensor> results = RunAll(session, Feeds(i), {loss, step});
      losses.push_back(results.empty() ? NAN : results[0].ToDouble());
    }
    return losses;
  }
};

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CUDA_SESSION_H_
