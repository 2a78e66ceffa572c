// After its first run, a training step allocates no memory. The test counts every allocation of the
// process, on all threads, except those of OpenBLAS: some of its kernels for small products call
// malloc each time (sgemm_small_kernel_nn for AVX-512, in 0.3.21), and no setting changes that.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "examples/lenet_layers.h"
#include "gradweave/gradweave.h"
#include "gradweave/runtime/kernel/thread_pool.h"
#include "gtest/gtest.h"

// Sanitizers replace malloc.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define GW_COUNTS_ALLOCATIONS 0
#else
#define GW_COUNTS_ALLOCATIONS 1
#endif

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};

// Returns the base address of the library or program that contains the address.
const void* ObjectOf(const void* address) {
  Dl_info info;
  return dladdr(address, &info) != 0 ? info.dli_fbase : nullptr;
}

// Returns the object that contains OpenBLAS: its own library or, if it is linked in, the program.
// operator new belongs to libstdc++, so allocations of C++ code count in either case.
const void* OpenBlasObject() {
  static const void* const object = [] {
    const void* gemm = dlsym(RTLD_DEFAULT, "cblas_sgemm");
    return ObjectOf(gemm != nullptr ? gemm : reinterpret_cast<const void*>(&ObjectOf));
  }();
  return object;
}

[[maybe_unused]] void Count(const void* caller) {
  if (counting.load(std::memory_order_relaxed) && ObjectOf(caller) != OpenBlasObject())
    allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

#if GW_COUNTS_ALLOCATIONS
// libstdc++'s operator new and the calls of all libraries end in these functions. They call glibc's
// own implementations.
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* pointer, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) { return Count(__builtin_return_address(0)), __libc_malloc(size); }
void* calloc(size_t count, size_t size) { return Count(__builtin_return_address(0)), __libc_calloc(count, size); }
void* realloc(void* pointer, size_t size) { return Count(__builtin_return_address(0)), __libc_realloc(pointer, size); }
void* memalign(size_t alignment, size_t size) {
  return Count(__builtin_return_address(0)), __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  return Count(__builtin_return_address(0)), __libc_memalign(alignment, size);
}
int posix_memalign(void** pointer, size_t alignment, size_t size) {
  Count(__builtin_return_address(0));
  *pointer = __libc_memalign(alignment, size);
  return *pointer == nullptr ? ENOMEM : 0;
}
}
#endif

namespace gradweave {
namespace {

// Returns the number of allocations on all threads while body runs.
int64_t CountAllocations(const std::function<void()>& body) {
  OpenBlasObject();
  allocations = 0;
  counting = true;
  body();
  counting = false;
  return allocations;
}

TEST(Allocation, IsCountedOnEveryThread) {
  if (!GW_COUNTS_ALLOCATIONS) GTEST_SKIP() << "a sanitizer owns malloc";
  // Memory that outlives the body keeps the compiler from removing the allocations.
  std::unique_ptr<std::vector<int>> kept;
  EXPECT_EQ(CountAllocations([&] { kept = std::make_unique<std::vector<int>>(1000); }), 2);
  ThreadPool pool(3);
  std::vector<std::string> texts(64);
  EXPECT_EQ(CountAllocations([&] { pool.ParallelFor(64, [&](int64_t i, int) { texts[i].assign(1000, 'x'); }); }), 64);
}

struct Row {
  std::string name;
  nn::Sequential layers;
  std::function<Update(const Value& loss)> minimize;
};

TEST(Allocation, NoneInATrainingStepAfterTheFirst) {
  if (!GW_COUNTS_ALLOCATIONS) GTEST_SKIP() << "a sanitizer owns malloc";
  const Row rows[] = {
      {"lenet", examples::LeNet(), [](const Value& loss) { return optim::Sgd{.learning_rate = 0.9}.Minimize(loss); }},
      {"normalization, dropout, AdamW",
       {nn::Conv2D{.channels = 8, .kernel = 3, .stride = 2, .dilation = 2}, nn::BatchNorm{}, nn::Relu{},
        nn::MaxPool2D{.pool = 2}, nn::Conv2D{.channels = 8, .kernel = 3, .groups = 4}, nn::Gelu{}, nn::Flatten{},
        nn::Dropout{.rate = 0.3}, nn::Dense{32}, nn::LayerNorm{}, nn::Dense{10}},
       [](const Value& loss) {
         return optim::AdamW{.learning_rate = optim::CosineDecay(0.01, 100), .clip_norm = 1.0}.Minimize(loss);
       }},
  };
  for (const Row& row : rows) {
    for (int threads : {1, 3}) {
      SCOPED_TRACE(row.name + ", threads: " + std::to_string(threads));
      Graph graph;
      Scope scope(graph);
      const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 28, 28});
      const Value label = scope.Input("label", kInt32, {Dim("batch")});
      const Value logits = row.layers(scope, image);
      const Value loss = nn::SoftmaxCrossEntropy(logits, label);
      const Value accuracy = nn::Accuracy(logits, label);
      const Update step = row.minimize(loss);
      absl::StatusOr<Session> session = Session::Create(graph, {.threads = threads});
      ASSERT_TRUE(session.ok()) << session.status();
      Tensor images(kFloat32, {32, 1, 28, 28}), labels(kInt32, {32});
      for (int i = 0; i < images.num_elements(); ++i) images.mutable_data<float>()[i] = static_cast<float>(i % 97) / 97;
      for (int i = 0; i < 32; ++i) labels.mutable_data<int32_t>()[i] = i % 10;
      absl::StatusOr<std::unique_ptr<PreparedRun>> run =
          session->Prepare({{image, images}, {label, labels}}, {loss, accuracy, step});
      ASSERT_TRUE(run.ok()) << run.status();
      ASSERT_TRUE((*run)->Run().ok());
      const double first_loss = (*run)->results()[0].ToDouble();
      bool ok = true;
      const int64_t allocated = CountAllocations([&] {
        for (int i = 0; i < 3; ++i) ok = ok && (*run)->Run().ok();
      });
      EXPECT_EQ(allocated, 0);
      EXPECT_TRUE(ok);
      EXPECT_NE((*run)->results()[0].ToDouble(), first_loss);
    }
  }
}

// A loop in a loop, with products of captured weights, and the gradient of both.
TEST(Allocation, NoneInALoopAfterTheFirst) {
  if (!GW_COUNTS_ALLOCATIONS) GTEST_SKIP() << "a sanitizer owns malloc";
  for (int threads : {1, 3}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("time"), 3, 16, 32});
    const Value w = scope.Variable("w", RandomUniform(scope, {32, 32}, -0.1, 0.1));
    const Value first = scope.Full(0, {16, 32});
    const ScanResult outer = Scan({first}, {x}, [&](const auto& h, const auto& rows) {
      const ScanResult inner =
          Scan({h[0]}, {rows[0]},
               [&](const auto& g, const auto& row) {
                 const Value next = Tanh(MatMul(g[0], w) + row[0]);
                 return ScanStep{.states = {If(
                                     Greater(Sum(next), 0), {next}, [](const auto& v) { return v; },
                                     [](const auto& v) { return std::vector<Value>{v[0] * 0.5}; })[0]},
                                 .outputs = {next}};
               },
               {.output_axes = {1}, .reverse = true});
      return ScanStep{.states = inner.states, .outputs = {Sum(inner.outputs[0])}};
    });
    const Value loss = Sum(outer.states[0]) + Sum(outer.outputs[0]);
    const Update step = optim::Sgd{.learning_rate = 0.01}.Minimize(loss);
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = threads});
    ASSERT_TRUE(session.ok()) << session.status();
    Tensor data(kFloat32, {5, 3, 16, 32});
    for (int i = 0; i < data.num_elements(); ++i) data.mutable_data<float>()[i] = static_cast<float>(i % 17) / 17;
    absl::StatusOr<std::unique_ptr<PreparedRun>> run = session->Prepare({{x, data}}, {loss, step});
    ASSERT_TRUE(run.ok()) << run.status();
    ASSERT_TRUE((*run)->Run().ok());
    bool ok = true;
    EXPECT_EQ(CountAllocations([&] {
                for (int i = 0; i < 3; ++i) ok = ok && (*run)->Run().ok();
              }),
              0);
    EXPECT_TRUE(ok);
  }
}

TEST(Allocation, NoneInALoader) {
  if (!GW_COUNTS_ALLOCATIONS) GTEST_SKIP() << "a sanitizer owns malloc";
  Tensor images(kUint8, {50, 3, 4, 4}), tokens(kInt32, {50, 20, 1, 2}), lengths(kInt32, {50});
  for (int i = 0; i < 50; ++i) lengths.mutable_data<int32_t>()[i] = i % 20;
  const data::Dataset dataset =
      data::Dataset{{"image", images}, {"tokens", tokens}}
          .WithLengths(lengths, {"tokens"})
          .Standardized("image", {.mean = {0.1, 0.2, 0.3}, .deviation = {1}})
          .Augmented("image", [](absl::Span<const float> from, absl::Span<float> to, absl::Span<const int64_t>,
                                 data::SampleRandom&) { std::copy(from.begin(), from.end(), to.begin()); });
  data::BatchLoader loader(dataset, {.batch_size = 8});
  int64_t samples = 0;
  const int64_t allocated = CountAllocations([&] {
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      loader.StartEpoch(epoch);
      while (const data::Batch* batch = loader.Next()) samples += batch->size;
    }
  });
  EXPECT_EQ(allocated, 0);
  EXPECT_EQ(samples, 150);
}

// Plans of two sizes share their memory, so neither takes or clears any when they take turns.
TEST(Allocation, NoneWhenTwoSizesTakeTurns) {
  if (!GW_COUNTS_ALLOCATIONS) GTEST_SKIP() << "a sanitizer owns malloc";
  Graph graph;
  Scope scope(graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 28, 28});
  const Value logits = examples::LeNet()(scope, image);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  std::vector<std::unique_ptr<PreparedRun>> runs;
  for (int64_t batch : {32, 77}) {
    Tensor images(kFloat32, {batch, 1, 28, 28});
    for (float& pixel : images.mutable_values<float>()) pixel = 0.5f;
    absl::StatusOr<std::unique_ptr<PreparedRun>> run = session->Prepare({{image, images}}, {logits});
    ASSERT_TRUE(run.ok()) << run.status();
    runs.push_back(*std::move(run));
  }
  for (const auto& run : runs) ASSERT_TRUE(run->Run().ok());
  bool ok = true;
  EXPECT_EQ(CountAllocations([&] {
              for (int i = 0; i < 6; ++i) ok = ok && runs[i % 2]->Run().ok();
            }),
            0);
  EXPECT_TRUE(ok);
}

}  // namespace
}  // namespace gradweave
