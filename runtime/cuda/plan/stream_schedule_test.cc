#include "gradweave/runtime/cuda/plan/stream_schedule.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Accesses = std::vector<StepAccess>;

// The k-th of many values of 64 bytes.
MemoryRange At(int k) { return {64u * k, 64u * (k + 1)}; }

StepAccess Step(const std::vector<int>& reads, const std::vector<int>& writes) {
  StepAccess access;
  for (int k : reads) access.reads.push_back(At(k));
  for (int k : writes) access.writes.push_back(At(k));
  return access;
}

std::vector<int> Streams(const StreamSchedule& schedule) {
  std::vector<int> streams;
  for (const auto& step : schedule.steps) streams.push_back(step.stream);
  return streams;
}

// Returns for each step the steps that it follows by streams and events alone, itself included.
std::vector<std::vector<bool>> Closure(const StreamSchedule& schedule) {
  const size_t count = schedule.steps.size();
  std::vector<std::vector<bool>> follows(count, std::vector<bool>(count, false));
  std::vector<int> recorded_by(schedule.num_events, -1), last(schedule.num_streams, -1);
  auto add = [&](size_t step, int before) {
    for (size_t i = 0; i < count && before >= 0; ++i) follows[step][i] = follows[step][i] || follows[before][i];
  };
  for (size_t step = 0; step < count; ++step) {
    const auto& scheduled = schedule.steps[step];
    follows[step][step] = true;
    add(step, last[scheduled.stream]);
    for (int event : scheduled.waits) add(step, recorded_by[event]);
    last[scheduled.stream] = static_cast<int>(step);
    if (scheduled.event >= 0) recorded_by[scheduled.event] = static_cast<int>(step);
  }
  return follows;
}

bool Overlap(const MemoryRange& a, const MemoryRange& b) { return std::max(a.begin, b.begin) < std::min(a.end, b.end); }

// Indexed by its definition.
bool Conflict(const StepAccess& a, const StepAccess& b) {
  auto any = [](const auto& left, const auto& right) {
    return std::any_of(left.begin(), left.end(), [&](const MemoryRange& l) {
      return std::any_of(right.begin(), right.end(), [&](const MemoryRange& r) { return Overlap(l, r); });
    });
  };
  return any(a.writes, b.writes) || any(a.writes, b.reads) || any(a.reads, b.writes);
}

TEST(StreamSchedule, AChainIsOneStreamWithoutEvents) {
  const StreamSchedule schedule = ScheduleOnStreams(Accesses{Step({}, {0}), Step({0}, {1}), Step({1}, {2})}, 4);
  EXPECT_THAT(Streams(schedule), Each(0));
  EXPECT_EQ(schedule.num_streams, 1);
  EXPECT_EQ(schedule.num_events, 0);
  EXPECT_EQ(schedule.num_waits(), 0);
}

TEST(StreamSchedule, BranchesTakeTwoStreamsWithOneWaitEachWay) {
  // 0 forks into 1, 2 and 3, 4, which 5 joins.
  const Accesses steps = {Step({}, {0}),  Step({0}, {1}), Step({1}, {2}),
                          Step({0}, {3}), Step({3}, {4}), Step({2, 4}, {5})};
  const StreamSchedule schedule = ScheduleOnStreams(steps, 4);
  EXPECT_THAT(Streams(schedule), ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_THAT(schedule.steps[3].waits, ElementsAre(schedule.steps[0].event));
  EXPECT_THAT(schedule.steps[5].waits, ElementsAre(schedule.steps[2].event));
  EXPECT_EQ(schedule.begin_event, -1);
  EXPECT_THAT(schedule.end_waits, ElementsAre(schedule.steps[5].event));
  EXPECT_EQ(schedule.num_waits(), 3);
  // On one stream there is nothing to wait for.
  EXPECT_EQ(ScheduleOnStreams(steps, 1).num_events, 0);
}

TEST(StreamSchedule, WhatNothingComesBeforeStartsBehindTheBeginning) {
  const StreamSchedule schedule = ScheduleOnStreams(Accesses{Step({8}, {0}), Step({8}, {1}), Step({1}, {2})}, 4);
  EXPECT_THAT(Streams(schedule), ElementsAre(0, 1, 1));
  EXPECT_THAT(schedule.steps[1].waits, ElementsAre(schedule.begin_event));
  EXPECT_THAT(schedule.end_waits, ElementsAre(schedule.steps[2].event));
}

TEST(StreamSchedule, MemoryThatIsUsedAgainIsWaitedFor) {
  // Reads after writes, writes after reads, writes after writes, and a part of the bytes.
  const MemoryRange part = {96, 97};
  for (const StepAccess& second : {Step({1}, {5}), Step({}, {0}), Step({}, {1}), StepAccess{{}, {part}}}) {
    const StreamSchedule schedule = ScheduleOnStreams(Accesses{Step({0}, {1}), second}, 4);
    EXPECT_TRUE(Closure(schedule)[1][0]);
  }
  // Two readers do not wait for each other, nor do neighbours.
  for (const StepAccess& second : {Step({0}, {5}), Step({}, {2}), StepAccess{{{64, 64}}, {{128, 129}}}}) {
    const StreamSchedule schedule = ScheduleOnStreams(Accesses{Step({0}, {1}), second}, 4);
    EXPECT_FALSE(Closure(schedule)[1][0]);
  }
  // A value that is overwritten in place: the other branch has read it by then.
  const StreamSchedule in_place =
      ScheduleOnStreams(Accesses{Step({}, {0}), Step({0}, {1}), Step({1}, {2}), Step({0}, {3}), Step({0}, {0})}, 4);
  EXPECT_TRUE(Closure(in_place)[4][1]);
  EXPECT_TRUE(Closure(in_place)[4][3]);
  EXPECT_FALSE(Closure(in_place)[3][2]);
}

TEST(StreamSchedule, WithoutAFreeStreamTheOldestIsTaken) {
  Accesses steps = {Step({}, {0})};
  for (int i = 1; i <= 5; ++i) steps.push_back(Step({0}, {i}));
  EXPECT_THAT(Streams(ScheduleOnStreams(steps, 3)), ElementsAre(0, 0, 1, 2, 0, 1));
}

TEST(StreamSchedule, WaitsThatOthersImplyAreLeftOut) {
  // 3 reads what 0, 1 and 2 made, but has waited for 2, which has waited for 1.
  const Accesses steps = {Step({}, {0}), Step({}, {1}), Step({1, 9}, {2}), Step({}, {3}), Step({0, 1, 2}, {4})};
  const StreamSchedule schedule = ScheduleOnStreams(steps, 3);
  EXPECT_THAT(Streams(schedule), ElementsAre(0, 1, 1, 2, 1));
  EXPECT_THAT(schedule.steps[4].waits, ElementsAre(schedule.steps[0].event));
  EXPECT_EQ(schedule.steps[1].event, -1);
}

// Returns the memory that the steps of a random plan access: values of many sizes at places that
// overlap in every way.
Accesses RandomSteps(std::mt19937& random, int count) {
  auto range = [&] {
    const uint64_t begin = random() % 900;
    return MemoryRange{begin, begin + random() % 60};
  };
  Accesses steps(count);
  for (StepAccess& step : steps) {
    for (int i = random() % 3; i > 0; --i) step.reads.push_back(range());
    for (int i = random() % 3; i > 0; --i) step.writes.push_back(range());
    // In place.
    if (random() % 4 == 0 && !step.reads.empty()) step.writes.push_back(step.reads[0]);
  }
  return steps;
}

TEST(StreamSchedule, RandomPlansKeepToEveryHazardAndCanDoWithNoWaitLess) {
  std::mt19937 random(7);
  int waits = 0;
  for (int round = 0; round < 60; ++round) {
    const Accesses steps = RandomSteps(random, 60);
    StreamSchedule schedule = ScheduleOnStreams(steps, 1 + round % 5);
    EXPECT_LE(schedule.num_streams, 1 + round % 5);
    std::vector<std::vector<bool>> follows = Closure(schedule);
    for (size_t b = 0; b < steps.size(); ++b) {
      for (size_t a = 0; a < b; ++a) {
        ASSERT_TRUE(follows[b][a] || !Conflict(steps[a], steps[b])) << a << " and " << b;
      }
    }
    // All streams meet at the end, and begin behind the beginning.
    std::vector<int> recorded_by(schedule.num_events, -1), last(schedule.num_streams, -1);
    for (size_t i = 0; i < steps.size(); ++i) {
      if (schedule.steps[i].event >= 0) recorded_by[schedule.steps[i].event] = static_cast<int>(i);
      const int stream = schedule.steps[i].stream;
      EXPECT_TRUE(stream == 0 || last[stream] >= 0 || !schedule.steps[i].waits.empty());
      last[stream] = static_cast<int>(i);
    }
    for (int end : last) {
      bool met = end < 0 || end == last[0] || (last[0] >= 0 && follows[last[0]][end]);
      for (int event : schedule.end_waits) met = met || follows[recorded_by[event]][end];
      EXPECT_TRUE(met) << end;
    }
    for (auto& step : schedule.steps) {
      for (int i = static_cast<int>(step.waits.size()) - 1; i >= 0; --i) {
        const int event = step.waits[i];
        if (event == schedule.begin_event) continue;
        ++waits;
        step.waits.erase(step.waits.begin() + i);
        const std::vector<std::vector<bool>> without = Closure(schedule);
        bool breaks = false;
        for (size_t b = 0; b < steps.size(); ++b) {
          for (size_t a = 0; a < b; ++a) breaks = breaks || (!without[b][a] && Conflict(steps[a], steps[b]));
        }
        EXPECT_TRUE(breaks) << "a wait is not needed";
        step.waits.insert(step.waits.begin() + i, event);
      }
    }
  }
  EXPECT_GT(waits, 500);
}

TEST(StreamSchedule, KnowsWhatRunsBeside) {
  std::mt19937 random(3);
  for (int round = 0; round < 30; ++round) {
    const Accesses steps = RandomSteps(random, 50);
    const StreamSchedule schedule = ScheduleOnStreams(steps, 1 + round % 5);
    const std::vector<std::vector<bool>> follows = Closure(schedule);
    const std::vector<int> beside = LastBeside(schedule);
    for (size_t a = 0; a < steps.size(); ++a) {
      int want = static_cast<int>(a);
      for (size_t b = a + 1; b < steps.size(); ++b) want = follows[b][a] ? want : static_cast<int>(b);
      ASSERT_EQ(beside[a], want) << a;
    }
  }
}

TEST(StreamSchedule, NoStepsAreNoWork) {
  const StreamSchedule schedule = ScheduleOnStreams({}, 4);
  EXPECT_THAT(schedule.steps, IsEmpty());
  EXPECT_EQ(schedule.num_events, 0);
  EXPECT_THAT(LastBeside(schedule), IsEmpty());
}

// A parameter that all steps read, memory that they use again, and at the end a write of all of it.
// In quadratic time this takes minutes.
TEST(StreamSchedule, LargePlansTakeTimeInProportion) {
  constexpr int kSteps = 100'000;
  Accesses steps;
  for (int i = 0; i < kSteps; ++i) {
    StepAccess step = Step({2000 + i % 7, 100 + (i * 31) % 97}, {100 + (i * 17) % 97});
    step.reads.push_back({0, 64 * 64});
    steps.push_back(step);
  }
  steps.push_back({{}, {{0, 64 * 4000}}});
  for (int i = 0; i < 4000; ++i) steps.push_back(Step({}, {i}));
  const auto start = std::chrono::steady_clock::now();
  const StreamSchedule schedule = ScheduleOnStreams(steps, 4);
  EXPECT_EQ(LastBeside(schedule).size(), steps.size());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

}  // namespace
}  // namespace gradweave
