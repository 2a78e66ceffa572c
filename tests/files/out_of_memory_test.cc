// An allocator that fails at the n-th large request walks building, compiling, running, training,
// saving and loading. Each returns ResourceExhausted, keeps what was there before, and leaks
// nothing. Small requests succeed: Abseil's hash tables do not survive one that fails while they
// grow.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/image.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace {

// Requests of fewer bytes do not count. The tables of the small graphs below are smaller.
constexpr size_t kLeastBytes = 4096;

// Requests until one fails; negative: none does. With `all_after`, those after it fail as well.
std::atomic<int64_t> before_failure{-1};
std::atomic<bool> all_after{false}, has_failed{false};
std::atomic<int64_t> live{0};

bool Fails(size_t bytes) {
  if (bytes < kLeastBytes || before_failure.load() < 0) return false;
  const int64_t left = before_failure.fetch_sub(1);
  if (left > 0) return false;
  has_failed.store(true);
  if (all_after.load()) {
    before_failure.store(0);
  } else {
    before_failure.store(-1);
  }
  return true;
}

void* Allocate(size_t bytes, size_t alignment) {
  if (Fails(bytes)) return nullptr;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment < sizeof(void*) ? sizeof(void*) : alignment, bytes == 0 ? 1 : bytes) != 0)
    return nullptr;
  return memory;
}

void* New(size_t bytes, size_t alignment) {
  void* const memory = Allocate(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  live.fetch_add(1);
  return memory;
}

void* NewOrNull(size_t bytes, size_t alignment) noexcept {
  void* const memory = Allocate(bytes, alignment);
  if (memory != nullptr) live.fetch_add(1);
  return memory;
}

void Delete(void* memory) noexcept {
  if (memory == nullptr) return;
  live.fetch_sub(1);
  std::free(memory);
}

constexpr size_t kDefault = __STDCPP_DEFAULT_NEW_ALIGNMENT__;

}  // namespace

void* operator new(size_t bytes) { return New(bytes, kDefault); }
void* operator new[](size_t bytes) { return New(bytes, kDefault); }
void* operator new(size_t bytes, std::align_val_t alignment) { return New(bytes, static_cast<size_t>(alignment)); }
void* operator new[](size_t bytes, std::align_val_t alignment) { return New(bytes, static_cast<size_t>(alignment)); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return NewOrNull(bytes, kDefault); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return NewOrNull(bytes, kDefault); }
void operator delete(void* memory) noexcept { Delete(memory); }
void operator delete[](void* memory) noexcept { Delete(memory); }
void operator delete(void* memory, size_t) noexcept { Delete(memory); }
void operator delete[](void* memory, size_t) noexcept { Delete(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Delete(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { Delete(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { Delete(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { Delete(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { Delete(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { Delete(memory); }

// Tensors and arenas are allocated with this function.
extern "C" void* aligned_alloc(size_t alignment, size_t bytes) noexcept { return Allocate(bytes, alignment); }

namespace gradweave {
namespace {

// Runs the body with a failure at each of its large requests. `check` then sees that what was there
// before still is.
void Walk(
    const std::function<absl::Status()>& body, const std::function<void()>& check = [] {}) {
  // Objects that exist once in the whole program are made here.
  ASSERT_TRUE(body().ok()) << body();
  for (bool all : {false, true}) {
    for (int64_t n = 0;; ++n) {
      const int64_t live_before = live.load();
      has_failed.store(false);
      all_after.store(all);
      before_failure.store(n);
      absl::Status status = body();
      before_failure.store(-1);
      const absl::StatusCode code = status.code();
      status = absl::OkStatus();
      EXPECT_EQ(live.load(), live_before) << "a leak after a failure at request " << n;
      if (!has_failed.load()) {
        EXPECT_EQ(code, absl::StatusCode::kOk);
        EXPECT_GT(n, 0) << "the body makes no large request";
        break;
      }
      // Some requests have another way, such as a pool of fewer threads.
      EXPECT_TRUE(code == absl::StatusCode::kResourceExhausted || code == absl::StatusCode::kOk)
          << "request " << n << ": " << code;
      check();
      if (::testing::Test::HasFailure()) return;
    }
  }
}

struct Net {
  Graph graph;
  Value image, label, loss;
  Update step;
};

// A convolution, a pool and a dense layer with a training step.
absl::Status Build(Net& net) {
  Scope scope(net.graph);
  net.image = scope.Input("image", kFloat32, {Dim("batch"), 1, 34, 34});
  net.label = scope.Input("label", kInt32, {Dim("batch")});
  const Value filter = scope.Variable("filter", RandomNormal(scope, {2, 1, 3, 3}));
  const Value weights = scope.Variable("weights", RandomNormal(scope, {512, 64}));
  const Value pooled = MaxPool2D(Tanh(Conv2D(net.image, filter)), {.window = {2, 2}});
  const Value logits = MatMul(Flatten(pooled, 1), weights) + Sum(Range(scope, 2048, {.dtype = kFloat32}));
  net.loss = Mean(SparseSoftmaxCrossEntropy(logits, net.label));
  net.step = optim::Sgd{.learning_rate = 0.1}.Minimize(net.loss);
  const Value values[] = {logits};
  net.graph.SetOutput("logits", values);
  return net.graph.status();
}

std::vector<Feed> FeedsOf(const Net& net) {
  return {{net.image, Tensor(kFloat32, {16, 1, 34, 34})}, {net.label, Tensor(kInt32, {16})}};
}

TEST(OutOfMemory, Building) {
  Walk([] {
    // The functions that add nodes may throw where not even the error can be kept.
    try {
      Net net;
      return Build(net);
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError("");
    }
  });
}

TEST(OutOfMemory, CompilingAndRunning) {
  Net net;
  ASSERT_TRUE(Build(net).ok());
  const std::vector<Feed> feeds = FeedsOf(net);
  Walk([&]() -> absl::Status {
    absl::StatusOr<Session> session = Session::Create(net.graph, {.threads = 2});
    if (!session.ok()) return session.status();
    const absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {net.loss, net.step});
    if (!results.ok()) return results.status();
    const absl::StatusOr<std::string> plan = session->DescribePlan(feeds, {net.loss});
    if (!plan.ok()) return plan.status();
    const absl::StatusOr<std::unique_ptr<PreparedRun>> prepared = session->Prepare(feeds, {net.loss});
    if (!prepared.ok()) return prepared.status();
    if (absl::Status status = (*prepared)->Run(); !status.ok()) return status;
    return session->GetVariable("weights").status();
  });
}

// A run that is short of memory leaves the session as it was.
TEST(OutOfMemory, ASessionStaysWhole) {
  Net net;
  ASSERT_TRUE(Build(net).ok());
  const std::vector<Feed> feeds = FeedsOf(net);
  absl::StatusOr<Session> session = Session::Create(net.graph, {.threads = 2});
  ASSERT_TRUE(session.ok()) << session.status();
  const double expected = (*session->Run(feeds, {net.loss}))[0].ToDouble();
  const std::vector<std::string> names = session->VariableNames();
  for (int64_t n = 0; n < 40; ++n) {
    before_failure.store(n);
    const absl::StatusCode code = session->Prepare(feeds, {Fetch::RunningSum(net.loss, 16), net.step}).status().code();
    before_failure.store(-1);
    EXPECT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kResourceExhausted) << code;
    const absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {net.loss});
    ASSERT_TRUE(results.ok()) << results.status();
    EXPECT_EQ((*results)[0].ToDouble(), expected);
    EXPECT_EQ(session->VariableNames(), names);
  }
}

std::vector<std::string> FilesIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

TEST(OutOfMemory, SavingAndLoading) {
  Net net;
  ASSERT_TRUE(Build(net).ok());
  absl::StatusOr<Session> session = Session::Create(net.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  for (int64_t inline_limit : {int64_t{0}, int64_t{1} << 20}) {
    const std::string folder = ::testing::TempDir() + "/saving" + std::to_string(inline_limit);
    std::filesystem::create_directory(folder);
    const std::string path = folder + "/model";
    const size_t files = inline_limit == 0 ? 2 : 1;
    Walk([&] { return SaveModel(*session, path, {.inline_limit = inline_limit}); },
         [&] {
           const absl::StatusOr<Model> model = LoadModel(path);
           EXPECT_TRUE(model.ok()) << model.status();
           // Weights of the model before may stay if there was no memory for their name. The next
           // save removes temporary files.
           EXPECT_GE(FilesIn(folder).size(), files);
         });
    ASSERT_TRUE(SaveModel(*session, path, {.inline_limit = inline_limit}).ok());
    for (const std::string& name : FilesIn(folder)) EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
    Walk([&]() -> absl::Status {
      const absl::StatusOr<Model> model = LoadModel(path);
      if (!model.ok()) return model.status();
      return CreateSession(*model, {.threads = 1}).status();
    });
  }
}

TEST(OutOfMemory, Pictures) {
  const Tensor images(kUint8, {4, 64, 64});
  Walk([&] { return GrayImages(images).status(); });
}

TEST(OutOfMemory, Training) {
  Net net;
  ASSERT_TRUE(Build(net).ok());
  absl::StatusOr<Session> session = Session::Create(net.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const data::Dataset data({{"image", Tensor(kFloat32, {10, 1, 34, 34})}, {"label", Tensor(kInt32, {10})}});
  const Training training{.loss = net.loss, .step = net.step};
  Walk([&]() -> absl::Status { return Fit(*session, training, data, {.epochs = 1, .batch_size = 4}).status(); });
}

}  // namespace
}  // namespace gradweave
