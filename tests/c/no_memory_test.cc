// An allocator that fails at its n-th request walks the functions of the C interface. Each returns
// a status, and no exception leaves it.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>

#include "gradweave/frontend/c/dlpack_layout.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/c/handles.h"

namespace {

// Requests until one fails; negative: none does. Those of fewer bytes do not count.
std::atomic<int64_t> before_failure{-1};
std::atomic<size_t> least_bytes{0};

void* New(size_t bytes, size_t alignment) {
  const bool counts = bytes >= least_bytes.load() && before_failure.load() >= 0;
  void* memory = nullptr;
  if ((counts && before_failure.fetch_sub(1) == 0) || posix_memalign(&memory, alignment, bytes == 0 ? 1 : bytes) != 0)
    throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) { return New(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new(size_t bytes, std::align_val_t alignment) { return New(bytes, static_cast<size_t>(alignment)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace gradweave {
namespace {

// Calls with a failure at each request, until there is none. Returns how many calls failed.
int Walk(const std::function<gw_status()>& call) {
  EXPECT_EQ(call(), GW_OK) << gw_last_error();  // The first call makes all static data.
  for (int failures = 0;; ++failures) {
    before_failure.store(failures);
    const gw_status status = call();
    const bool was_reached = before_failure.exchange(-1) < 0;
    if (!was_reached) {
      EXPECT_EQ(status, GW_OK) << gw_last_error();
      return failures;
    }
    EXPECT_TRUE(status == GW_OK || status == GW_RESOURCE_EXHAUSTED) << gw_last_error();
  }
}

class NoMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("batch"), 64});
    const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {64, 64})));
    graph.SetOutput("loss", {Sum(MatMul(x, w))});
    graph.SetOutput("step", {Assign(w, w + 1.0)});
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
    ASSERT_TRUE(session.ok() && SaveModel(*session, path_).ok());
    ASSERT_EQ(gw_model_load(path_.c_str(), nullptr, &model_.handle), GW_OK) << gw_last_error();
    ASSERT_EQ(gw_session_create(model_.handle, nullptr, &session_.handle), GW_OK) << gw_last_error();
    ASSERT_EQ(gw_tensor_create(GW_FLOAT32, 2, sizes_, &x_.handle), GW_OK);
  }

  const std::string path_ = ::testing::TempDir() + "/no_memory.gw";
  const int64_t sizes_[2] = {8, 64};
  ModelHandle model_;
  SessionHandle session_;
  TensorHandle x_;
};

// Abseil's hash tables do not survive a failure while they grow, so small requests of the engine
// succeed.
TEST_F(NoMemory, OfModelsAndSessionsIsAStatus) {
  least_bytes.store(4096);
  EXPECT_GT(Walk([&] {
              ModelHandle model;
              const gw_status status = gw_model_load(path_.c_str(), nullptr, &model.handle);
              EXPECT_EQ(model.handle == nullptr, status != GW_OK);
              return status;
            }),
            0);
  Walk([&] {
    SessionHandle session;
    return gw_session_create(model_.handle, nullptr, &session.handle);
  });
  Walk([&] { return gw_session_save(session_.handle, path_.c_str()); });
}

TEST_F(NoMemory, OfTensorsIsAStatus) {
  least_bytes.store(0);
  const int64_t sizes[] = {1, 2, 3, 4, 1, 1};  // More axes than a tensor has room for inside.
  float data[24];
  int released = 0;
  EXPECT_GT(Walk([&] {
              TensorHandle tensor;
              return gw_tensor_create(GW_FLOAT32, 6, sizes, &tensor.handle);
            }),
            0);
  EXPECT_GT(Walk([&] {
              const int before = released;
              TensorHandle tensor;
              const gw_status status = gw_tensor_view(
                  GW_FLOAT32, 6, sizes, data, [](void* count) { ++*static_cast<int*>(count); }, &released,
                  &tensor.handle);
              tensor.Reset();
              EXPECT_EQ(released - before, status == GW_OK ? 1 : 0);
              return status;
            }),
            1);
  EXPECT_GT(Walk([&] {
              DLManagedTensor* managed = nullptr;
              const gw_status status = gw_tensor_to_dlpack(x_.handle, &managed);
              if (managed != nullptr) managed->deleter(managed);
              return status;
            }),
            1);
  EXPECT_GT(Walk([&] {
              gw_description description;
              const gw_status status = gw_model_find(model_.handle, GW_OUTPUT, "none", &description);
              return status == GW_NOT_FOUND ? GW_OK : status;
            }),
            1);
}

// The variables change only if the caller gets the results.
TEST_F(NoMemory, OfARunLeavesTheVariables) {
  least_bytes.store(0);
  const gw_feed feed = {"x", x_.handle};
  const char* const fetches[] = {"loss", "step"};
  double steps = 0;
  EXPECT_GT(Walk([&] {
              gw_tensor* results[2] = {};
              const gw_status status = gw_session_run(session_.handle, &feed, 1, fetches, 2, results);
              EXPECT_EQ(results[0] == nullptr, status != GW_OK);
              gw_tensor_destroy(results[0]);
              steps += status == GW_OK ? 1 : 0;
              return status;
            }),
            1);
  TensorHandle w;
  ASSERT_EQ(gw_session_get_variable(session_.handle, "w", &w.handle), GW_OK) << gw_last_error();
  EXPECT_EQ(static_cast<float*>(gw_tensor_data(w.handle))[0], steps);
}

}  // namespace
}  // namespace gradweave
