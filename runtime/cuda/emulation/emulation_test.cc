// The emulated device detects the mistakes that fail on a GPU, and runs correct programs as a GPU
// would.
#include <cmath>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/runtime/cuda/api/kernel_cache.h"
#include "gradweave/runtime/cuda/emulation/emulated_api.h"
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/launch.h"
#include "gtest/gtest.h"

namespace gradweave::cuda_emulated {
namespace {

using ::testing::HasSubstr;

// A device with one stream, and helpers that copy values to it and back.
struct Device {
  explicit Device(const EmulatedCudaOptions& options = {}) : api(options) {
    context.api = &api;
    context.stream = *api.CreateStream();
  }
  template <typename T>
  T* Put(const std::vector<T>& values) {
    void* memory = *api.Allocate(values.size() * sizeof(T));
    EXPECT_TRUE(
        api.CopyAsync(memory, values.data(), values.size() * sizeof(T), CudaCopyKind::kHostToDevice, context.stream)
            .ok());
    return static_cast<T*>(memory);
  }
  template <typename T>
  std::vector<T> Get(const T* memory, size_t count) {
    std::vector<T> values(count);
    EXPECT_TRUE(
        api.CopyAsync(values.data(), memory, count * sizeof(T), CudaCopyKind::kDeviceToHost, context.stream).ok());
    return values;
  }

  EmulatedCudaApi api;
  CudaContext context;
};

std::vector<float> Iota(int n) {
  std::vector<float> values(n);
  for (int i = 0; i < n; ++i) values[i] = static_cast<float>(i);
  return values;
}

__global__ void DivergentBarrier(int kind) {
  if (kind == 0 && threadIdx.x == 3) return;
  if (kind == 1 && threadIdx.x == 3) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST(Emulation, ReportsThreadsThatDoNotArrive) {
  Device device;
  ASSERT_TRUE(Launch(device.context, "leaves", DivergentBarrier, {}, {32}, 0, 0).ok());
  absl::Status status = device.api.Synchronize(device.context.stream);
  EXPECT_THAT(status.message(), HasSubstr("CUDA kernel leaves, block (0, 0, 0)"));
  EXPECT_THAT(status.message(), HasSubstr("1 threads (3) have returned"));
  EXPECT_THAT(status.message(), HasSubstr("31 threads (0 1 2 4 5 6 7 8 ...) wait at the barrier at"));
  EXPECT_THAT(status.message(), HasSubstr("emulation_test.cc:"));

  ASSERT_TRUE(Launch(device.context, "diverges", DivergentBarrier, {}, {32}, 0, 1).ok());
  status = device.api.Synchronize(device.context.stream);
  EXPECT_THAT(status.message(), HasSubstr("1 threads (3) wait at the barrier"));
  ASSERT_TRUE(Launch(device.context, "is_right", DivergentBarrier, {}, {32}, 0, 2).ok());
  EXPECT_TRUE(device.api.Synchronize(device.context.stream).ok());
}

__global__ void WarpFunctions(int32_t* y) {
  const int lane = threadIdx.x % 32;
  int32_t sum = lane;
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  const unsigned odd = __ballot_sync(0xffffffffu, lane % 2 == 1);
  const unsigned same = __match_any_sync(0xffffffffu, lane / 8);
  const int32_t down = __shfl_down_sync(0xffffffffu, lane, 1), first = __shfl_sync(0xffffffffu, lane + 7, 0);
  y[threadIdx.x] = sum == 496 && odd == 0xaaaaaaaau && same == 0xffu << lane / 8 * 8 &&
                   down == (lane == 31 ? 31 : lane + 1) && first == 7;
}

TEST(Emulation, WarpsExchangeValues) {
  Device device;
  int32_t* y = device.Put(std::vector<int32_t>(64));
  ASSERT_TRUE(Launch(device.context, "warps", WarpFunctions, {}, {64}, 0, y).ok());
  EXPECT_EQ(device.Get(y, 64), std::vector<int32_t>(64, 1));
}

__global__ void ReadsMissingLane(int32_t* y) { y[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1, 16); }

TEST(Emulation, ReportsLanesThatTakeNoPart) {
  Device device;
  int32_t* y = device.Put(std::vector<int32_t>(20));
  ASSERT_TRUE(Launch(device.context, "short_warp", ReadsMissingLane, {}, {20}, 0, y).ok());
  EXPECT_THAT(device.api.Synchronize(device.context.stream).message(), HasSubstr("which takes no part"));
}

__global__ void RotateAcrossBlocks(float* y) {
  const SharedPointer<float> buffer = DynamicShared<float>();
  buffer[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = buffer[(threadIdx.x + 1) % blockDim.x] + static_cast<float>(blockIdx.x);
}

TEST(Emulation, DynamicSharedMemoryAndBlocks) {
  Device device;
  float* y = device.Put(std::vector<float>(6));
  ASSERT_TRUE(Launch(device.context, "dynamic", RotateAcrossBlocks, {2}, {3}, 3 * sizeof(float), y).ok());
  EXPECT_EQ(device.Get(y, 6), (std::vector<float>{1, 2, 0, 2, 3, 1}));
}

TEST(Emulation, RefusesWhatNoGpuTakes) {
  Device device;
  float* y = device.Put(std::vector<float>(6));
  ASSERT_TRUE(Launch(device.context, "large", RotateAcrossBlocks, {1}, {1025}, 8200, y).ok());
  EXPECT_THAT(device.api.Synchronize(device.context.stream).message(), HasSubstr("outside what GPUs take"));
}

__global__ void AddOne(float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] += 1;
}

// Uses AddOne without an effect, so that a capture may contain it.
void UseAddOne(Device& device) {
  ASSERT_TRUE(Launch(device.context, "add_one", AddOne, {1}, {1}, 0, static_cast<float*>(nullptr), 0).ok());
  ASSERT_TRUE(device.api.Synchronize(device.context.stream).ok());
  (void)device.api.TakeKernelNames();
}

template <int kAdded>
__global__ void AddNumber(float* x) {
  *x += kAdded;
}

// Instantiations of a template share a name, and each is loaded by its own first use.
TEST(EmulatedApi, EachInstantiationHasAFirstUse) {
  Device device;
  float* x = device.Put(Iota(1));
  auto launch = [&](auto kernel) { return Launch(device.context, "add_number", kernel, {1}, {1}, 0, x); };
  ASSERT_TRUE(launch(AddNumber<1>).ok());
  ASSERT_TRUE(device.api.BeginCapture(device.context.stream).ok());
  EXPECT_TRUE(launch(AddNumber<1>).ok());
  EXPECT_THAT(launch(AddNumber<2>).message(), HasSubstr("the first use of add_number cannot be captured"));
  EXPECT_FALSE(device.api.EndCapture(device.context.stream).ok());
}

TEST(EmulatedApi, ACaptureIsRecordedAndRepeated) {
  Device device;
  float* x = device.Put(Iota(10));
  UseAddOne(device);
  ASSERT_TRUE(device.api.BeginCapture(device.context.stream).ok());
  ASSERT_TRUE(Launch(device.context, "add_one", AddOne, {2}, {8}, 0, x, 10).ok());
  const CudaGraph graph = *device.api.EndCapture(device.context.stream);
  EXPECT_EQ(device.Get(x, 10)[3], 3);  // Nothing ran.
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(device.api.LaunchGraph(graph, device.context.stream).ok());
  EXPECT_EQ(device.Get(x, 10)[3], 6);
  EXPECT_EQ(device.api.TakeKernelNames(), std::vector<std::string>(3, "add_one"));
  EXPECT_TRUE(device.api.DestroyGraph(graph).ok());
  EXPECT_FALSE(device.api.LaunchGraph(graph, device.context.stream).ok());
}

TEST(EmulatedApi, WorkWaitsForItsStreamAndEvents) {
  Device device;
  EmulatedCudaApi& api = device.api;
  const CudaStream other = *api.CreateStream();
  const CudaEvent event = *api.CreateEvent();
  void* pinned = *api.AllocatePinned(4);
  float* x = device.Put(Iota(1));
  ASSERT_TRUE(Launch(device.context, "add_one", AddOne, {1}, {1}, 0, x, 1).ok());
  ASSERT_TRUE(api.RecordEvent(event, device.context.stream).ok());
  ASSERT_TRUE(api.WaitEvent(event, other).ok());
  ASSERT_TRUE(api.CopyAsync(pinned, x, 4, CudaCopyKind::kDeviceToHost, other).ok());
  float value = 0;
  std::memcpy(&value, pinned, 4);
  EXPECT_TRUE(std::isnan(value));  // The value was read too early.
  ASSERT_TRUE(api.Synchronize(other).ok());
  std::memcpy(&value, pinned, 4);
  EXPECT_EQ(value, 1);
  EXPECT_TRUE(api.FreePinned(pinned).ok());
}

__global__ void Double(const float* x, float* y) { *y = 2 * *x; }

// Counts the seeds whose order gives another result than the host's order. `forks`: the second
// stream waits for the first. `joins`: the first waits for the second in the end.
int CountWrong(bool captured, bool forks, bool joins) {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Device device({.seed = seed});
    EmulatedCudaApi& api = device.api;
    const CudaStream first = device.context.stream, second = *api.CreateStream();
    const CudaEvent fork = *api.CreateEvent(), join = *api.CreateEvent();
    float* x = device.Put<float>({1});
    float* y = device.Put<float>({0});
    CudaContext beside = device.context;
    beside.stream = second;
    UseAddOne(device);
    EXPECT_TRUE(Launch(device.context, "double", Double, {1}, {1}, 0, x, y).ok());
    EXPECT_TRUE(api.Synchronize(first).ok());
    if (captured) {
      EXPECT_TRUE(api.BeginCapture(first).ok());
    }
    // This wait makes both streams part of the graph but does not order the two kernels.
    EXPECT_TRUE(api.RecordEvent(fork, first).ok());
    EXPECT_TRUE(api.WaitEvent(fork, second).ok());
    EXPECT_TRUE(Launch(device.context, "add_one", AddOne, {1}, {1}, 0, x, 1).ok());
    EXPECT_TRUE(api.RecordEvent(fork, first).ok());
    if (forks) {
      EXPECT_TRUE(api.WaitEvent(fork, second).ok());
    }
    EXPECT_TRUE(Launch(beside, "double", Double, {1}, {1}, 0, x, y).ok());
    EXPECT_TRUE(api.RecordEvent(join, second).ok());
    if (joins) {
      EXPECT_TRUE(api.WaitEvent(join, first).ok());
    }
    if (captured) {
      const absl::StatusOr<CudaGraph> graph = api.EndCapture(first);
      EXPECT_EQ(graph.ok(), joins) << graph.status();
      if (graph.ok()) {
        EXPECT_TRUE(api.LaunchGraph(*graph, first).ok());
      }
    }
    EXPECT_TRUE(api.Synchronize(first).ok());
    if (device.Get(y, 1)[0] != 4) ++wrong;
  }
  return wrong;
}

TEST(EmulatedApi, AMissingWaitBetweenStreamsShows) {
  for (bool captured : {false, true}) {
    EXPECT_EQ(CountWrong(captured, true, true), 0);
    const int wrong = CountWrong(captured, false, true);
    EXPECT_GT(wrong, 5);
    EXPECT_LT(wrong, 35);
    EXPECT_EQ(CountWrong(captured, true, false), 40);
  }
}

TEST(EmulatedApi, LaunchesOfAGraphDoItsBranchesInOtherOrders) {
  Device device;
  EmulatedCudaApi& api = device.api;
  const CudaStream first = device.context.stream, second = *api.CreateStream();
  const CudaEvent event = *api.CreateEvent();
  float* x = device.Put(Iota(2));
  CudaContext beside = device.context;
  beside.stream = second;
  UseAddOne(device);
  ASSERT_TRUE(api.BeginCapture(first).ok());
  ASSERT_TRUE(api.RecordEvent(event, first).ok());
  ASSERT_TRUE(api.WaitEvent(event, second).ok());
  ASSERT_TRUE(Launch(device.context, "left", AddOne, {1}, {1}, 0, x, 1).ok());
  ASSERT_TRUE(Launch(beside, "right", AddOne, {1}, {1}, 0, x + 1, 1).ok());
  ASSERT_TRUE(api.RecordEvent(event, second).ok());
  ASSERT_TRUE(api.WaitEvent(event, first).ok());
  const CudaGraph graph = *api.EndCapture(first);
  std::set<std::vector<std::string>> orders;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(api.LaunchGraph(graph, first).ok());
    ASSERT_TRUE(api.Synchronize(first).ok());
    orders.insert(api.TakeKernelNames());
  }
  EXPECT_EQ(orders, (std::set<std::vector<std::string>>{{"left", "right"}, {"right", "left"}}));
  EXPECT_EQ(device.Get(x, 2), (std::vector<float>{20, 21}));
}

TEST(EmulatedApi, CapturesKeepToThemselves) {
  Device device;
  EmulatedCudaApi& api = device.api;
  const CudaStream first = device.context.stream, second = *api.CreateStream();
  const CudaEvent outside = *api.CreateEvent(), inside = *api.CreateEvent();
  ASSERT_TRUE(api.RecordEvent(outside, second).ok());
  ASSERT_TRUE(api.BeginCapture(first).ok());
  EXPECT_THAT(api.WaitEvent(outside, first).message(), HasSubstr("outside of the capture"));
  ASSERT_TRUE(api.RecordEvent(inside, first).ok());
  EXPECT_FALSE(api.SynchronizeEvent(inside).ok());
  ASSERT_TRUE(api.WaitEvent(inside, second).ok());
  EXPECT_THAT(api.Synchronize(second).message(), HasSubstr("not permitted"));
  EXPECT_THAT(api.EndCapture(second).status().message(), HasSubstr("has not begun a capture"));
  // Calls failed meanwhile.
  EXPECT_THAT(api.EndCapture(first).status().message(), HasSubstr("a previous error"));
  EXPECT_THAT(api.WaitEvent(inside, second).message(), HasSubstr("another capture"));
  EXPECT_TRUE(api.Synchronize(second).ok());
}

TEST(EmulatedApi, ACaptureForbidsWhatMayWait) {
  Device device;
  EmulatedCudaApi& api = device.api;
  const CudaStream stream = device.context.stream, other = *api.CreateStream();
  const CudaEvent event = *api.CreateEvent();
  ASSERT_TRUE(api.RecordEvent(event, other).ok());
  float pageable[16] = {};
  void *memory = *api.Allocate(64), *pinned = *api.AllocatePinned(64);
  float* x = device.Put(Iota(16));
  const CudaGemm gemm{.m = 2, .n = 2, .k = 2, .a = x, .lda = 2, .b = x + 4, .ldb = 2, .c = x + 8, .ldc = 2};
  auto launch = [&] { return Launch(device.context, "add_one", AddOne, {1}, {4}, 0, x, 4); };
  const std::vector<std::pair<const char*, std::function<absl::Status()>>> calls = {
      {"Allocate", [&] { return api.Allocate(64).status(); }},
      {"Free", [&] { return api.Free(memory); }},
      {"AllocatePinned", [&] { return api.AllocatePinned(64).status(); }},
      {"FreePinned", [&] { return api.FreePinned(pinned); }},
      {"Synchronize", [&] { return api.Synchronize(other); }},
      {"SynchronizeEvent", [&] { return api.SynchronizeEvent(event); }},
      {"LoadKernel", [&] { return api.LoadKernel("an image", "name").status(); }},
      {"UnloadKernel", [&] { return api.UnloadKernel({}); }},
      {"Launch", launch},
      {"Gemm", [&] { return api.Gemm(gemm, stream); }},
      // Some of these are errors only in a capture, the others always.
      {"CopyAsync", [&] { return api.CopyAsync(x, pageable, 64, CudaCopyKind::kHostToDevice, stream); }},
      {"WaitEvent", [&] { return api.WaitEvent(event, stream); }},
      {"FillAsync", [&] { return api.FillAsync(x, 0, 1000, stream); }},
      {"LaunchGraph", [&] { return api.LaunchGraph(nullptr, stream); }},
      {"SetDevice", [&] { return api.SetDevice(7); }}};
  for (const auto& [name, call] : calls) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(api.BeginCapture(stream).ok());
    const absl::Status status = call();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr(name));
    EXPECT_THAT(api.EndCapture(stream).status().message(), HasSubstr("a previous error"));
  }
  // Another thread may do all of that, and what has run before can be captured.
  ASSERT_TRUE(launch().ok());
  ASSERT_TRUE(api.Gemm(gemm, stream).ok());
  ASSERT_TRUE(api.BeginCapture(stream).ok());
  std::thread([&] { EXPECT_TRUE(api.Free(memory).ok()); }).join();
  EXPECT_TRUE(launch().ok());
  EXPECT_TRUE(api.Gemm(gemm, stream).ok());
  EXPECT_TRUE(api.EndCapture(stream).ok());
}

TEST(EmulatedApi, ParametersOfALoadedKernelTakeFourKilobytes) {
  const EmulatedKernel kernels[] = {{HashOfText("fits"), 4096, nullptr}, {HashOfText("large"), 5 << 10, nullptr}};
  Device device({.kernels = kernels});
  auto load = [&](const char* source) {
    return device.api.LoadKernel(*EmulatedKernelCompiler(kernels).compile(source, 90), "generated").status();
  };
  EXPECT_EQ(load("fits"), absl::OkStatus());
  EXPECT_THAT(load("large").message(), HasSubstr("take 5120 bytes, and a launch takes at most 4096"));
}

TEST(EmulatedApi, EventsGraphsAndMemoryBelongToADevice) {
  Device device({.devices = 2, .memory_bytes = 1000});
  EmulatedCudaApi& api = device.api;
  const CudaStream first = device.context.stream;
  float* x = device.Put(Iota(4));
  void* pinned = *api.AllocatePinned(16);
  UseAddOne(device);
  const CudaEvent event = *api.CreateEvent(), timed = *api.CreateTimedEvent();
  ASSERT_TRUE(api.RecordEvent(event, first).ok());
  ASSERT_TRUE(api.BeginCapture(first).ok());
  ASSERT_TRUE(Launch(device.context, "add_one", AddOne, {1}, {4}, 0, x, 4).ok());
  const CudaGraph graph = *api.EndCapture(first);

  ASSERT_TRUE(api.SetDevice(1).ok());
  const CudaStream second = *api.CreateStream();
  EXPECT_THAT(api.RecordEvent(event, second).message(),
              HasSubstr("the event is of device 0, and the stream is of device 1"));
  EXPECT_THAT(api.RecordTime(timed, second).message(), HasSubstr("the event is of device 0"));
  EXPECT_TRUE(api.WaitEvent(event, second).ok());  // Streams of all devices may wait.
  EXPECT_THAT(api.LaunchGraph(graph, second).message(), HasSubstr("the graph is of device 0"));
  EXPECT_THAT(api.CopyAsync(pinned, x, 16, CudaCopyKind::kDeviceToHost, second).message(),
              HasSubstr("device memory of device 1, but of device 0"));
  EXPECT_THAT(api.FillAsync(x, 0, 16, second).message(), HasSubstr("but of device 0"));
  EXPECT_THAT(
      api.Gemm({.m = 1, .n = 1, .k = 1, .a = x, .lda = 1, .b = x, .ldb = 1, .c = x, .ldc = 1}, second).message(),
      HasSubstr("but of device 0"));
  // Each device has its own memory, and kernels are loaded to each.
  EXPECT_EQ(api.DeviceProperties(0)->free_bytes, 984u);
  EXPECT_EQ(api.DeviceProperties(1)->free_bytes, 1000u);
  void* all = *api.Allocate(1000);
  EXPECT_EQ(api.Allocate(1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(api.Free(all).ok());
  ASSERT_TRUE(api.BeginCapture(second).ok());
  CudaContext there = device.context;
  there.stream = second;
  EXPECT_THAT(Launch(there, "add_one", AddOne, {1}, {4}, 0, x, 4).message(), HasSubstr("the first use of"));
  EXPECT_FALSE(api.EndCapture(second).ok());
}

TEST(EmulatedApi, StreamsBelongToADevice) {
  Device device({.devices = 2});
  EmulatedCudaApi& api = device.api;
  float* x = device.Put(Iota(4));
  auto launch = [&] { return Launch(device.context, "add_one", AddOne, {1}, {4}, 0, x, 4); };
  EXPECT_TRUE(launch().ok());
  ASSERT_TRUE(api.SetDevice(1).ok());
  EXPECT_THAT(launch().message(), HasSubstr("the stream is of device 0, and the thread's current device is 1"));
  EXPECT_FALSE(api.Synchronize(device.context.stream).ok());
  // Each thread has its own current device.
  std::thread([&] { EXPECT_TRUE(launch().ok()); }).join();
  ASSERT_TRUE(api.SetDevice(0).ok());
  EXPECT_TRUE(api.Synchronize(device.context.stream).ok());
  EXPECT_FALSE(api.SetDevice(2).ok());
}

TEST(EmulatedApi, AFaultStays) {
  Device device;
  device.api.Break(absl::InternalError("misaligned address"));
  for (int i = 0; i < 2; ++i) EXPECT_THAT(device.api.Allocate(8).status().message(), HasSubstr("misaligned address"));
  EXPECT_FALSE(device.api.DeviceCount().ok());
}

TEST(EmulatedApi, MemoryIsTakenInUnitsAndByTheFirstLaunch) {
  Device device({.memory_bytes = 1 << 20, .allocation_unit = 1 << 16, .first_launch_bytes = 1000});
  float* x = device.Put(Iota(4));
  EXPECT_EQ(device.api.allocated_bytes(), size_t{1} << 16);
  auto launch = [&] { return Launch(device.context, "add_one", AddOne, {1}, {4}, 0, x, 4); };
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(launch().ok());
    EXPECT_EQ(device.api.allocated_bytes(), (size_t{1} << 16) + 1000);
  }
  EXPECT_TRUE(device.api.Free(x).ok());
  EXPECT_EQ(device.api.allocated_bytes(), 1000u);
}

TEST(EmulatedApi, SmallAllocationsShareAUnit) {
  constexpr size_t kUnit = 1 << 16;
  Device device({.memory_bytes = 1 << 20, .allocation_unit = kUnit});
  std::vector<void*> pieces;
  for (int i = 0; i < 3; ++i) {
    pieces.push_back(*device.api.Allocate(kUnit / 2 - kCudaAlignment));
    EXPECT_EQ(device.api.allocated_bytes(), (i < 2 ? 1 : 2) * kUnit);
  }
  // Half a unit is no small piece.
  void* half = *device.api.Allocate(kUnit / 2);
  EXPECT_EQ(device.api.allocated_bytes(), 3 * kUnit);
  EXPECT_TRUE(device.api.Free(half).ok());
  EXPECT_TRUE(device.api.Free(pieces[0]).ok());
  EXPECT_EQ(device.api.allocated_bytes(), 2 * kUnit);
  for (int i = 1; i < 3; ++i) EXPECT_TRUE(device.api.Free(pieces[i]).ok());
  EXPECT_EQ(device.api.allocated_bytes(), 0u);
}

TEST(EmulatedApi, CopiesStayInsideAllocations) {
  Device device;
  float* x = device.Put(Iota(4));
  float host[8];
  const CudaStream stream = device.context.stream;
  EXPECT_THAT(device.api.CopyAsync(host, x, 20, CudaCopyKind::kDeviceToHost, stream).message(), HasSubstr("20 bytes"));
  EXPECT_THAT(device.api.CopyAsync(x + 1, host, 16, CudaCopyKind::kHostToDevice, stream).message(),
              HasSubstr("16 bytes"));
  EXPECT_FALSE(device.api.CopyAsync(host, host + 4, 4, CudaCopyKind::kDeviceToDevice, stream).ok());
  EXPECT_FALSE(device.api.FillAsync(x, 0, 17, stream).ok());
  EXPECT_TRUE(device.api.FillAsync(x, 0, 16, stream).ok());
}

#ifndef __SANITIZE_ADDRESS__
TEST(EmulatedApi, FindsWritesOutsideAllocations) {
  Device device;
  float* x = device.Put(Iota(4));
  ASSERT_TRUE(Launch(device.context, "add_one", AddOne, {1}, {5}, 0, x, 5).ok());
  EXPECT_THAT(device.api.Synchronize(device.context.stream).message(),
              HasSubstr("wrote outside an allocation of 16 bytes"));
}
#endif

TEST(EmulatedApi, MemoryIsLimitedCountedAndNaN) {
  Device device({.memory_bytes = 1000});
  void* memory = *device.api.Allocate(600);
  EXPECT_TRUE(std::isnan(static_cast<float*>(memory)[149]));
  const absl::Status status = device.api.Allocate(600).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("600 bytes are wanted, and 400 are free"));
  EXPECT_EQ(device.api.allocated_bytes(), 600);
  EXPECT_TRUE(device.api.Free(memory).ok());
  EXPECT_FALSE(device.api.Free(&device).ok());
  EXPECT_EQ(device.api.allocated_bytes(), 0);
  EXPECT_EQ(device.api.peak_bytes(), 600);
}

TEST(EmulatedApi, CallsFailWhenTold) {
  Device device;
  device.api.FailCall("Allocate", 2, absl::InternalError("out of order"));
  EXPECT_TRUE(device.api.Allocate(8).ok());
  EXPECT_THAT(device.api.Allocate(8).status().message(), HasSubstr("out of order"));
  EXPECT_TRUE(device.api.Allocate(8).ok());
  EXPECT_EQ(device.api.CountCalls("Allocate"), 3);
  EXPECT_EQ(EmulatedCudaApi({.devices = 0}).DeviceCount().status().code(), absl::StatusCode::kUnavailable);
}

TEST(EmulatedApi, MultipliesBatchesOfMatrices) {
  Device device;
  // Two products of [2, 3] with one [3, 2], the second operand transposed.
  float* a = device.Put<float>({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  float* b = device.Put<float>({1, 0, 1, 0, 1, 0});
  float* c = device.Put(std::vector<float>(8));
  CudaGemm gemm{.transpose_b = true, .m = 2, .n = 2, .k = 3, .a = a, .lda = 3, .b = b, .ldb = 3, .c = c, .ldc = 2};
  gemm.batch = 2;
  gemm.stride_a = 6;
  gemm.stride_c = 4;
  ASSERT_TRUE(device.api.Gemm(gemm, device.context.stream).ok());
  EXPECT_EQ(device.Get(c, 8), (std::vector<float>{4, 2, 10, 5, 16, 8, 22, 11}));
  gemm.batch = 3;
  EXPECT_THAT(device.api.Gemm(gemm, device.context.stream).message(), HasSubstr("of a are not all inside"));
}

}  // namespace
}  // namespace gradweave::cuda_emulated
