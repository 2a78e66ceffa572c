// Collective operations between threads: their results by definition, and how they fail.
#include "gradweave/runtime/distributed/collectives.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/distributed/thread_group.h"

namespace gradweave::distributed {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kNeverStopped = [] { return false; };

std::shared_ptr<Group> MakeGroup(int shards, int timeout_ms = 30000) {
  return (*ThreadGroups(1, {shards, std::chrono::milliseconds(timeout_ms)}))[0];
}

template <typename T>
std::vector<T> RandomNumbers(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<T> numbers(count);
  for (T& number : numbers) {
    number = std::is_integral_v<T> ? static_cast<T>(random())
                                   : static_cast<T>(std::uniform_real_distribution<>(-3, 3)(random));
  }
  return numbers;
}

// The sum of the terms [first, first + number) of a tree over all of them, by its definition: the
// two halves of the smallest power of two that is not below the number.
template <typename T>
T TreeSum(const std::vector<std::vector<T>>& terms, int64_t element, size_t first, size_t size) {
  if (first >= terms.size()) return 0;
  if (size == 1) return terms[first][element];
  const T low = TreeSum(terms, element, first, size / 2);
  if (first + size / 2 >= terms.size()) return low;
  const T high = TreeSum(terms, element, first + size / 2, size / 2);
  if constexpr (std::is_integral_v<T>) return static_cast<T>(static_cast<uint64_t>(low) + static_cast<uint64_t>(high));
  return low + high;
}

template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <typename T>
void CheckSums(DType dtype, int shards, int64_t count) {
  SCOPED_TRACE(testing::Message() << DTypeName(dtype) << ", " << shards << " shards, " << count << " elements");
  std::vector<std::vector<T>> terms;
  for (int shard = 0; shard < shards; ++shard) terms.push_back(RandomNumbers<T>(count, shard * 1000 + count));
  std::vector<T> expected(count);
  for (int64_t i = 0; i < count; ++i) expected[i] = TreeSum(terms, i, 0, 16);
  const std::shared_ptr<Group> group = MakeGroup(shards);
  std::vector<std::vector<T>> out_of_place(shards), in_place = terms;
  std::vector<int64_t> sent(shards);
  ForEachShard(*group, [&](int shard, const std::shared_ptr<Communicator>& communicator) {
    const Call call{*communicator, "a sum", kNeverStopped};
    std::vector<std::byte> scratch(AllReduceScratch(shards, dtype, count));
    out_of_place[shard].resize(count);
    EXPECT_TRUE(AllReduceSum(call, dtype, count, terms[shard].data(), out_of_place[shard].data(), scratch.data()).ok());
    sent[shard] = communicator->bytes_sent();
    EXPECT_TRUE(AllReduceSum(call, dtype, count, in_place[shard].data(), in_place[shard].data(), scratch.data()).ok());
  });
  for (int shard = 0; shard < shards; ++shard) {
    EXPECT_TRUE(SameBits(out_of_place[shard], expected)) << "shard " << shard;
    EXPECT_TRUE(SameBits(in_place[shard], expected)) << "shard " << shard << " in place";
  }
  // The bound of a ring, for messages that are not tiny.
  const double bytes = static_cast<double>(count) * sizeof(T), bound = 2.0 * (shards - 1) / shards * bytes;
  if (bytes > 100000) {
    EXPECT_LE(static_cast<double>(sent[0]), bound * 1.001);
  }
}

TEST(Collectives, SumsAreThoseOfTheTreeInAllDTypesAndSizes) {
  for (int shards : {1, 2, 3, 4, 5, 8}) {
    for (int64_t count : {0, 1, 2, 7, 100, 1030, 40001}) {
      CheckSums<float>(kFloat32, shards, count);
      CheckSums<int64_t>(kInt64, shards, count);
    }
    CheckSums<double>(kFloat64, shards, 1111);
    CheckSums<int32_t>(kInt32, shards, 1111);
    CheckSums<uint8_t>(kUint8, shards, 5555);
  }
}

TEST(Collectives, GatherScatterAndBroadcastFollowTheirDefinitions) {
  for (int shards : {1, 2, 3, 4}) {
    for (int64_t count : {0, 1, 5, 3000}) {
      SCOPED_TRACE(testing::Message() << shards << " shards, " << count << " elements");
      std::vector<std::vector<float>> small, large;
      std::vector<float> gathered;
      for (int shard = 0; shard < shards; ++shard) {
        small.push_back(RandomNumbers<float>(count, 100 + shard));
        large.push_back(RandomNumbers<float>(count * shards, 200 + shard));
        gathered.insert(gathered.end(), small.back().begin(), small.back().end());
      }
      const std::shared_ptr<Group> group = MakeGroup(shards);
      ForEachShard(*group, [&](int shard, const std::shared_ptr<Communicator>& communicator) {
        const Call call{*communicator, "a test", kNeverStopped};
        std::vector<float> all(count * shards), part(count), of_root(count);
        std::vector<std::byte> scratch(ReduceScatterScratch(shards, kFloat32, count));
        EXPECT_TRUE(AllGather(call, count * sizeof(float), small[shard].data(), all.data()).ok());
        EXPECT_TRUE(SameBits(all, gathered));
        EXPECT_TRUE(ReduceScatterSum(call, kFloat32, count, large[shard].data(), part.data(), scratch.data()).ok());
        for (int64_t i = 0; i < count; ++i) EXPECT_EQ(part[i], TreeSum(large, shard * count + i, 0, 16));
        for (int root = 0; root < shards; ++root) {
          EXPECT_TRUE(Broadcast(call, root, count * sizeof(float), small[shard].data(), of_root.data()).ok());
          EXPECT_TRUE(SameBits(of_root, small[root]));
        }
      });
    }
  }
}

// A random operation on random data, of which a shard may have no element, in all shards.
template <typename T>
void CheckRandomOperation(DType dtype, std::mt19937& random, const Group& group) {
  const int shards = group.shards();
  // Often fewer elements than shards, or none; sometimes so many that messages go in parts.
  const int64_t bounds[] = {1, shards, 3 * shards, 9000};
  const int64_t count = static_cast<int64_t>(random()) % (bounds[random() % 4] + 1);
  const int operation = static_cast<int>(random() % 4), root = static_cast<int>(random() % shards);
  const uint64_t seed = random();
  SCOPED_TRACE(testing::Message() << DTypeName(dtype) << ", " << shards << " shards, " << count
                                  << " elements, operation " << operation << ", root " << root);
  std::vector<std::vector<T>> x(shards), expected(shards);
  for (int shard = 0; shard < shards; ++shard) {
    x[shard] = RandomNumbers<T>(operation == 2 ? count * shards : count, seed + shard);
  }
  for (int shard = 0; shard < shards; ++shard) {
    std::vector<T>& to = expected[shard];
    if (operation == 0) {
      for (int64_t i = 0; i < count; ++i) to.push_back(TreeSum(x, i, 0, 16));
    } else if (operation == 1) {
      for (const std::vector<T>& part : x) to.insert(to.end(), part.begin(), part.end());
    } else if (operation == 2) {
      for (int64_t i = 0; i < count; ++i) to.push_back(TreeSum(x, shard * count + i, 0, 16));
    } else {
      to = x[root];
    }
  }
  ForEachShard(group, [&](int shard, const std::shared_ptr<Communicator>& communicator) {
    const Call call{*communicator, "a random operation", kNeverStopped};
    std::vector<T> out(expected[shard].size());
    std::vector<std::byte> scratch(
        std::max(AllReduceScratch(shards, dtype, count), ReduceScatterScratch(shards, dtype, count)));
    const void* const from = x[shard].data();
    const absl::Status status = operation == 0   ? AllReduceSum(call, dtype, count, from, out.data(), scratch.data())
                                : operation == 1 ? AllGather(call, count * sizeof(T), from, out.data())
                                : operation == 2
                                    ? ReduceScatterSum(call, dtype, count, from, out.data(), scratch.data())
                                    : Broadcast(call, root, count * sizeof(T), from, out.data());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(SameBits(out, expected[shard])) << "shard " << shard;
  });
}

TEST(Collectives, RandomOperationsOfOneGroupFollowTheirDefinitions) {
  std::mt19937 random(20);
  for (int round = 0; round < 25; ++round) {
    const std::shared_ptr<Group> group = MakeGroup(1 + static_cast<int>(random() % 9));
    for (int i = 0; i < 8; ++i) {
      switch (random() % 5) {
        case 0:
          CheckRandomOperation<float>(kFloat32, random, *group);
          break;
        case 1:
          CheckRandomOperation<double>(kFloat64, random, *group);
          break;
        case 2:
          CheckRandomOperation<int32_t>(kInt32, random, *group);
          break;
        case 3:
          CheckRandomOperation<int64_t>(kInt64, random, *group);
          break;
        default:
          CheckRandomOperation<uint8_t>(kUint8, random, *group);
      }
    }
  }
}

TEST(Collectives, AShardThatDoesNotComeIsNamedAfterTheTimeout) {
  const std::shared_ptr<Group> group = MakeGroup(3, /*timeout_ms=*/100);
  ForEachShard(*group, [&](int shard, const std::shared_ptr<Communicator>& communicator) {
    if (shard == 1) return;
    const Call call{*communicator, "the sum 'loss'", kNeverStopped};
    float x = 1;
    std::vector<std::byte> scratch(AllReduceScratch(3, kFloat32, 1));
    const absl::Status status = AllReduceSum(call, kFloat32, 1, &x, &x, scratch.data());
    if (status.code() == absl::StatusCode::kDeadlineExceeded) {
      EXPECT_THAT(std::string(status.message()), HasSubstr("the sum 'loss'"));
      EXPECT_THAT(std::string(status.message()), HasSubstr("100 ms for shard 1 of 3"));
    } else {
      // The other shard's time was up first.
      EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    }
    // The shards are out of step, so nothing works from here on.
    EXPECT_EQ(AllReduceSum(call, kFloat32, 1, &x, &x, scratch.data()), status);
  });
}

TEST(Collectives, ShardsThatDisagreeAreTold) {
  const std::shared_ptr<Group> group = MakeGroup(2);
  std::vector<absl::Status> statuses(2);
  ForEachShard(*group, [&](int shard, const std::shared_ptr<Communicator>& communicator) {
    std::vector<float> x(2), out(4);
    statuses[shard] =
        AllGather({*communicator, "a gather", kNeverStopped}, sizeof(float) * (shard + 1), x.data(), out.data());
  });
  const absl::Status& first = statuses[0].code() == absl::StatusCode::kInternal ? statuses[0] : statuses[1];
  EXPECT_EQ(first.code(), absl::StatusCode::kInternal) << first;
  EXPECT_THAT(std::string(first.message()), HasSubstr("not at the same operation"));
  EXPECT_THAT(statuses, Not(testing::Contains(absl::OkStatus())));
}

TEST(Collectives, AStoppedRunLeavesTheWait) {
  const std::shared_ptr<Group> group = MakeGroup(2);
  float x = 1, out[2];
  const auto stopped = [] { return true; };
  EXPECT_EQ(AllGather({*group->communicator(0), "a gather", stopped}, sizeof x, &x, out).code(),
            absl::StatusCode::kCancelled);
  // The other shard learns of it at once.
  EXPECT_EQ(AllGather({*group->communicator(1), "a gather", kNeverStopped}, sizeof x, &x, out).code(),
            absl::StatusCode::kAborted);
}

TEST(Collectives, ShardsAreAMultipleOfTheProcesses) {
  const absl::Status status = ThreadGroups(2, {.shards = 3}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("3 shards and 2 processes"));
  const std::vector<std::shared_ptr<Group>> groups = *ThreadGroups(2, {.shards = 4});
  EXPECT_EQ(groups[1]->communicator(0)->shard(), 2);
  EXPECT_EQ(groups[1]->communicator(0)->Name(3), "shard 3 of 4, process 1");
  EXPECT_TRUE(groups[0]->is_main());
  EXPECT_FALSE(groups[1]->is_main());
}

}  // namespace
}  // namespace gradweave::distributed
