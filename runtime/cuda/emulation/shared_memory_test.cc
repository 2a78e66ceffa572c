// The emulation checks each access to shared memory: races, bounds, alignment, and bank conflicts.
#include "gradweave/runtime/cuda/emulation/shared_memory.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gradweave/runtime/cuda/emulation/block_memory.h"
#include "gradweave/runtime/cuda/emulation/emulation.h"
#include "gradweave/runtime/cuda/ops/device.h"
#include "gtest/gtest.h"

namespace gradweave::cuda_emulated {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

// Runs a kernel in one block of `threads` threads and returns the error's message.
std::string ErrorOf(unsigned threads, absl::FunctionRef<void()> kernel, size_t shared_bytes = 0) {
  return std::string(emulation::RunGrid("kernel", {}, {threads}, shared_bytes, kernel).message());
}

// Computes y = x in reverse order through shared memory.
template <bool barrier>
__global__ void Reverse(const float* x, float* y) {
  GRADWEAVE_SHARED(float, buffer, [64]);
  buffer[threadIdx.x] = x[threadIdx.x];
  if (barrier) __syncthreads();
  y[threadIdx.x] = buffer[63 - threadIdx.x];
}

TEST(Races, AMissingBarrierIsFoundInEveryOrderOfThreads) {
  std::vector<float> x(64), y(64);
  for (int i = 0; i < 64; ++i) x[i] = static_cast<float>(i);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    emulation::SetSeed(seed);
    EXPECT_EQ(ErrorOf(64, [&] { Reverse<true>(x.data(), y.data()); }), "");
    EXPECT_EQ(y, std::vector<float>(x.rbegin(), x.rend()));
    EXPECT_THAT(ErrorOf(64, [&] { Reverse<false>(x.data(), y.data()); }),
                ContainsRegex("CUDA kernel kernel, block \\(0, 0, 0\\): a race at byte [0-9]+ of an array in shared "
                              "memory of 256 bytes: thread [0-9]+ (reads|writes) it and thread [0-9]+ (reads|writes) "
                              "it, with no barrier between"));
  }
}

// Thread 40 writes an element, and one other thread reads or writes it, before or after it. All
// store the same value, so that no result shows it.
__global__ void Meet(bool other_first, unsigned other, bool reads, bool barrier) {
  GRADWEAVE_SHARED(float, element, [1]);
  auto visit_element = [&] {
    if (threadIdx.x == other && reads) (void)static_cast<float>(element[0]);
    if (threadIdx.x == other && !reads) element[0] = 1;
  };
  if (other_first) visit_element();
  if (barrier) __syncthreads();
  if (threadIdx.x == 40) element[0] = 1;
  if (barrier) __syncthreads();
  if (!other_first) visit_element();
}

TEST(Races, AreOfTwoThreadsOfWhichOneWrites) {
  for (const unsigned other : {3u, 41u, 40u}) {
    for (const bool reads : {false, true}) {
      for (const bool other_first : {false, true}) {
        SCOPED_TRACE(testing::Message() << other << reads << other_first);
        EXPECT_EQ(ErrorOf(64, [&] { Meet(other_first, other, reads, true); }), "");
        const std::string error = ErrorOf(64, [&] { Meet(other_first, other, reads, false); });
        if (other == 40) {
          EXPECT_EQ(error, "");
        } else {
          EXPECT_THAT(error, AllOf(HasSubstr("thread 40 "), HasSubstr("thread " + std::to_string(other) + " ")));
          EXPECT_THAT(error, HasSubstr("a race at byte 0"));
        }
      }
    }
  }
}

// BlockMemory keeps two readers of an element. It finds the same races as a list of all accesses.
TEST(Races, AreThoseOfTheWholeRecord) {
  struct Access {
    int thread;
    bool writes;
    int block_meetings, warp_meetings;
  };
  constexpr int kThreads[] = {0, 1, 2, 32, 33, 64};
  std::mt19937 random(1);
  int races = 0;
  emulation::BlockMemory memory;
  for (int round = 0; round < 20000; ++round) {
    memory.StartBlock(4);
    std::vector<Access> all;
    int block_meetings = 0;
    std::map<int, int> warp_meetings;
    for (int step = 0; step < 40; ++step) {
      const int thread = kThreads[random() % std::size(kThreads)], warp = thread / 32;
      const unsigned what = random() % 16;
      if (what == 0) {
        memory.MeetInBlock();
        ++block_meetings;
      } else if (what < 5) {
        memory.MeetInWarp(warp);
        ++warp_meetings[warp];
      } else {
        const Access access{thread, what == 5, block_meetings, warp_meetings[warp]};
        const bool race = std::any_of(all.begin(), all.end(), [&](const Access& other) {
          return (access.writes || other.writes) && other.thread != thread && other.block_meetings == block_meetings &&
                 (other.thread / 32 != warp || other.warp_meetings == access.warp_meetings);
        });
        const std::string error = memory.Record(nullptr, thread, memory.dynamic_memory(), 4, 4, access.writes);
        ASSERT_EQ(!error.empty(), race) << "round " << round << ", step " << step << ": " << error;
        if (race) {
          ++races;
          break;
        }
        all.push_back(access);
      }
    }
  }
  EXPECT_GT(races, 10000);
}

// Lanes of one warp pass on an element; `distance` is how far.
enum class Between { kSyncWarp, kShuffle, kBallot };
__global__ void PassOn(Between between, unsigned distance, int turns) {
  GRADWEAVE_SHARED(float, buffer, [128]);
  for (int turn = 0; turn < turns; ++turn) {
    buffer[threadIdx.x] = 1;
    if (between == Between::kSyncWarp) __syncwarp();
    if (between == Between::kShuffle) (void)__shfl_xor_sync(0xffffffffu, turn, 1);
    if (between == Between::kBallot) (void)__ballot_sync(0xffffffffu, true);
    (void)static_cast<float>(buffer[threadIdx.x ^ distance]);
    if (between == Between::kSyncWarp) __syncwarp();
  }
}

TEST(Races, WithinAWarpAreOrderedByItsBarrierAlone) {
  EXPECT_EQ(ErrorOf(64, [] { PassOn(Between::kSyncWarp, 31, 3); }), "");
  EXPECT_THAT(ErrorOf(64, [] { PassOn(Between::kSyncWarp, 32, 3); }), HasSubstr("a race"));
  EXPECT_THAT(ErrorOf(64, [] { PassOn(Between::kShuffle, 1, 1); }), HasSubstr("a race"));
  EXPECT_THAT(ErrorOf(64, [] { PassOn(Between::kBallot, 1, 1); }), HasSubstr("a race"));
}

template <typename T>
__global__ void FillNeighbours() {
  GRADWEAVE_SHARED(T, buffer, [64]);
  buffer[threadIdx.x] = T(threadIdx.x);
}

TEST(Races, NeighboursOfAnySizeMayBeWritten) {
  EXPECT_EQ(ErrorOf(64, [] { FillNeighbours<uint8_t>(); }), "");
  EXPECT_EQ(ErrorOf(64, [] { FillNeighbours<uint16_t>(); }), "");
  EXPECT_EQ(ErrorOf(64, [] { FillNeighbours<double>(); }), "");
}

TEST(Races, OfAnElementWithAPackThatContainsItAreFound) {
  auto kernel = [](int written) {
    GRADWEAVE_SHARED(float, buffer, [8]);
    if (threadIdx.x == 0) buffer[written] = 1;
    if (threadIdx.x == 1) (void)LoadPack<4>(buffer + 0);
  };
  EXPECT_EQ(ErrorOf(2, [&] { kernel(4); }), "");
  EXPECT_THAT(ErrorOf(2, [&] { kernel(3); }), HasSubstr("a race at byte 12"));
}

// The blocks of a grid use the same memory one after the other.
TEST(Races, AreOfOneBlock) {
  auto kernel = [] {
    const SharedPointer<int32_t> shared = DynamicShared<int32_t>();
    if (threadIdx.x == blockIdx.x) shared[0] = 1;
  };
  EXPECT_TRUE(emulation::RunGrid("kernel", {4}, {4}, 4, kernel).ok());
}

__global__ void Touch(int element, bool writes) {
  GRADWEAVE_SHARED(float, buffer, [16]);
  if (writes) {
    buffer[element] = 0;
  } else {
    (void)static_cast<float>(buffer[element]);
  }
}

TEST(Bounds, OfArraysHold) {
  for (const bool writes : {false, true}) {
    EXPECT_EQ(ErrorOf(1, [&] { Touch(15, writes); }), "");
    for (const int element : {16, -1, 40, 1 << 20}) {
      EXPECT_THAT(ErrorOf(1, [&] { Touch(element, writes); }),
                  AllOf(HasSubstr(writes ? "store of 4 bytes" : "load of 4 bytes"), HasSubstr("outside of the array")));
    }
  }
  EXPECT_THAT(ErrorOf(1, [] { Touch(16, true); }), HasSubstr("byte 64 of an array in shared memory of 64 bytes"));
  EXPECT_THAT(ErrorOf(
                  1, [] { DynamicShared<float>()[2] = 0; }, 8),
              HasSubstr("byte 8 of dynamic shared memory of 8"));
}

TEST(Alignment, OfPacksIsChecked) {
  alignas(16) float memory[8] = {};
  auto load_shared = [&](int at) {
    GRADWEAVE_SHARED(float, buffer, [8]);
    (void)LoadPack<4>(buffer + at);
  };
  for (const int at : {0, 4}) {
    EXPECT_EQ(ErrorOf(1, [&] { (void)LoadPack<4>(memory + at); }), "");
    EXPECT_EQ(ErrorOf(1, [&] { StorePack(memory + at, Pack<float, 4>()); }), "");
    EXPECT_EQ(ErrorOf(1, [&] { load_shared(at); }), "");
  }
  for (const int at : {1, 2}) {
    EXPECT_THAT(ErrorOf(1, [&] { (void)LoadPack<4>(memory + at); }), HasSubstr("a load from a misaligned address"));
    EXPECT_THAT(ErrorOf(1, [&] { StorePack(memory + at, Pack<float, 4>()); }),
                HasSubstr("a store to a misaligned address"));
    EXPECT_THAT(ErrorOf(1, [&] { load_shared(at); }), HasSubstr("a misaligned load of 16 bytes"));
  }
  // Copies through pointers to packs, too.
  auto copy = [&](int from, int to) {
    reinterpret_cast<Wide*>(memory + to)[0] = reinterpret_cast<const Wide*>(memory + from)[0];
  };
  EXPECT_EQ(ErrorOf(1, [&] { copy(4, 0); }), "");
  EXPECT_THAT(ErrorOf(1, [&] { copy(2, 0); }), HasSubstr("a load from a misaligned address"));
  EXPECT_THAT(ErrorOf(1, [&] { copy(4, 2); }), HasSubstr("a store to a misaligned address"));
}

// Each thread loads an element of T at `stride` times its number, twice.
template <typename T>
emulation::BankCounts CountsOf(int stride) {
  auto kernel = [&] {
    GRADWEAVE_SHARED(T, buffer, [1024]);
    for (int i = 0; i < 2; ++i) (void)static_cast<T>(buffer[static_cast<int>(threadIdx.x) * stride]);
  };
  return emulation::CountBankConflicts([&] { EXPECT_EQ(ErrorOf(64, kernel, 0), ""); }).at("kernel");
}

// The pair of accesses and conflicts.
MATCHER_P2(Counts, accesses, conflicts, "") {
  *result_listener << arg.accesses << " accesses, " << arg.conflicts << " conflicts";
  return arg.accesses == static_cast<uint64_t>(accesses) && arg.conflicts == static_cast<uint64_t>(conflicts);
}

TEST(BankConflicts, AreCountedByWarpsAndTheirParts) {
  EXPECT_THAT(CountsOf<float>(0), Counts(4, 0));  // Two warps, twice, and one word for all.
  EXPECT_THAT(CountsOf<float>(1), Counts(4, 0));
  EXPECT_THAT(CountsOf<float>(2), Counts(4, 4));  // Each bank has two words.
  EXPECT_THAT(CountsOf<float>(3), Counts(4, 0));
  EXPECT_THAT(CountsOf<float>(8), Counts(4, 4 * 7));
  EXPECT_THAT(CountsOf<double>(1), Counts(8, 0));  // Indexed by halves of warps.
  EXPECT_THAT(CountsOf<double>(2), Counts(8, 8));
  EXPECT_THAT(CountsOf<uint8_t>(1), Counts(4, 0));            // Four threads share a word.
  EXPECT_THAT((CountsOf<Pack<float, 4>>(1)), Counts(16, 0));  // Indexed by quarters.
  EXPECT_THAT((CountsOf<Pack<float, 4>>(2)), Counts(16, 16));
}

TEST(BankConflicts, ThreadsThatSkipAnInstructionDoNotShiftTheOthers) {
  auto kernel = [] {
    GRADWEAVE_SHARED(float, buffer, [64]);
    if (threadIdx.x % 2 == 0) buffer[threadIdx.x] = 1;
    for (int i = 0; i < static_cast<int>(threadIdx.x); ++i) buffer[32 + threadIdx.x] = 1;
  };
  const auto counts = emulation::CountBankConflicts([&] { EXPECT_EQ(ErrorOf(32, kernel), ""); });
  EXPECT_THAT(counts.at("kernel"), Counts(1 + 31, 0));
}

}  // namespace
}  // namespace gradweave::cuda_emulated
