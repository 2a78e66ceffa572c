// A training that is killed again and again, and goes on each time, ends with the bits of one that
// is not.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kEpochs = 200;

// Trains a small classifier with dropout, Adam and shuffled samples, and returns the program's exit
// code. Each batch takes `nap` longer.
int Train(CheckpointOptions checkpoints, std::chrono::microseconds nap) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 4});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  const nn::Sequential layers{nn::Dense{16}, nn::Tanh{}, nn::Dropout{0.3}, nn::Dense{3}};
  const Value logits = layers(scope, x), test_logits = layers(scope, x, {.training = false});
  const Value loss = nn::SoftmaxCrossEntropy(logits, label);
  const Training training{.loss = loss,
                          .step = optim::Adam{.learning_rate = 0.01}.Minimize(loss),
                          .metrics = {metrics::Accuracy(logits, label)},
                          .validation_loss = nn::SoftmaxCrossEntropy(test_logits, label)};
  Tensor points(kFloat32, {100, 4}), labels(kInt32, {100});
  data::SampleRandom random(1, 0, 0);
  for (float& number : points.mutable_values<float>()) number = static_cast<float>(random.Uniform());
  for (int32_t& number : labels.mutable_values<int32_t>()) number = static_cast<int32_t>(random.Below(3));
  const data::Dataset data = {{x, points}, {label, labels}};
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .seed = 3});
  if (!session.ok()) return 1;
  TrainingCurves curves;
  checkpoints.every = {1, CheckpointInterval::kSteps};
  checkpoints.tell = [](const std::string&) {};
  const absl::Status status = Fit(*session, training, data,
                                  {.validation = data.First(30),
                                   .epochs = kEpochs,
                                   .batch_size = 8,
                                   .seed = 3,
                                   .callbacks = {RecordCurves(curves),
                                                 KeepBest({}, *session),
                                                 {.after_batch =
                                                      [nap](TrainingState&) {
                                                        std::this_thread::sleep_for(nap);
                                                        return absl::OkStatus();
                                                      }}},
                                   .checkpoints = checkpoints})
                                  .status();
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return ExitCode(status);
}

pid_t InChild(const std::function<int()>& run) {
  const pid_t child = fork();
  if (child == 0) _exit(run());
  EXPECT_GT(child, 0);
  return child;
}

// Returns the exit code, or minus the signal that ended the process.
int Wait(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::string NewFolder(const std::string& name) {
  const std::string folder = ::testing::TempDir() + "/killed_training_test." + name;
  fs::remove_all(folder);
  return folder;
}

// The paths of the checkpoints, the oldest first.
std::vector<std::string> CheckpointsIn(const std::string& dir) {
  std::vector<std::string> paths;
  if (!fs::exists(dir)) return paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename();
    if (absl::StartsWith(name, "checkpoint_") && absl::EndsWith(name, ".gw")) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void ExpectSame(const NamedTensors& got, const NamedTensors& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    // Times differ.
    if (absl::StrContains(got[i].first, "seconds")) continue;
    EXPECT_TRUE(SameBits(got[i].second, want[i].second)) << got[i].first;
  }
}

// Values, random numbers, metrics, curves and the best variables so far.
void ExpectSameEnd(const std::string& dir, const std::string& want_dir) {
  for (const std::string& name : {CheckpointsIn(want_dir).back().substr(want_dir.size()), std::string("/best.gw")}) {
    SCOPED_TRACE(name);
    const absl::StatusOr<Model> got = LoadModel(dir + name), want = LoadModel(want_dir + name);
    ASSERT_TRUE(got.ok() && want.ok()) << got.status() << want.status();
    ExpectSame(got->variables, want->variables);
    ExpectSame(got->extra, want->extra);
    EXPECT_EQ(got->run_number, want->run_number);
  }
}

TEST(KilledTraining, EndsWithTheBitsOfOneThatIsNot) {
  constexpr int kKills = 100;
  constexpr std::chrono::microseconds kNap(300);
  const std::string straight = NewFolder("straight"), dir = NewFolder("killed");
  ASSERT_EQ(Wait(InChild([&] { return Train({.dir = straight}, {}); })), 0);
  std::mt19937 random(11);
  int kills = 0;
  for (int attempt = 0; attempt < 4 * kKills && kills < kKills; ++attempt) {
    const std::vector<std::string> before = CheckpointsIn(dir);
    const pid_t child = InChild([&] { return Train({.dir = dir, .resume = true}, kNap); });
    // The child has begun when it has saved; then it lives for a while.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (CheckpointsIn(dir) == before && std::chrono::steady_clock::now() < deadline) usleep(1000);
    usleep(random() % 8'000);
    kill(child, SIGKILL);
    const int end = Wait(child);
    if (end == 0) break;  // The training has ended.
    ASSERT_EQ(end, -SIGKILL);
    ++kills;
    // No moment leaves the folder without a checkpoint that can be read.
    const std::vector<std::string> after = CheckpointsIn(dir);
    ASSERT_FALSE(after.empty());
    EXPECT_TRUE(LoadModel(after.back()).ok());
  }
  EXPECT_EQ(kills, kKills) << "the training is too short for so many kills";
  ASSERT_EQ(Wait(InChild([&] { return Train({.dir = dir, .resume = true}, {}); })), 0);
  ExpectSameEnd(dir, straight);
  // The files that killed processes left are gone.
  EXPECT_EQ(CheckpointsIn(dir).size(), 3u);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), {}), 4);
}

// Mounts a small file system in memory that only this process and its children see. Returns false
// if the system does not allow it.
bool MountSmallDisk(const std::string& folder, const char* size) {
  const uid_t user = getuid();
  const gid_t group = getgid();
  if (unshare(CLONE_NEWNS) != 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << user << " 1";
    std::ofstream("/proc/self/gid_map") << "0 " << group << " 1";
  }
  fs::create_directories(folder);
  return mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", folder.c_str(), "tmpfs", 0, size) == 0;
}

// Writes until the disk is full.
void Fill(const std::string& path) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(file, 0);
  const std::string page(4096, 'x');
  while (write(file, page.data(), page.size()) > 0) {
  }
  close(file);
}

TEST(KilledTraining, LosesNothingWhereTheDiskIsFull) {
  const std::string straight = NewFolder("roomy"), disk = NewFolder("disk"), dir = disk + "/checkpoints";
  ASSERT_EQ(Wait(InChild([&] { return Train({.dir = straight}, {}); })), 0);
  constexpr int kSkipped = 77;
  const int end = Wait(InChild([&] {
    if (!MountSmallDisk(disk, "size=1m")) return kSkipped;
    std::mt19937 random(12);
    int errors = 0;
    for (int round = 0; round < 40; ++round) {
      const std::vector<std::string> before = CheckpointsIn(dir);
      const pid_t child = InChild([&] {
        if (freopen("/dev/null", "w", stderr) == nullptr) return 2;  // Drops the errors of full disks.
        return Train({.dir = dir, .resume = true}, std::chrono::microseconds(300));
      });
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (CheckpointsIn(dir) == before && std::chrono::steady_clock::now() < deadline) usleep(1000);
      usleep(random() % 5'000);
      Fill(disk + "/other");
      // Half of the trainings are killed, most of them while they have no room.
      if (round % 2 == 0) {
        usleep(random() % 3'000);
        kill(child, SIGKILL);
      }
      const int code = Wait(child);
      EXPECT_TRUE(code == 1 || code == -SIGKILL) << code;
      errors += code == 1;
      const std::vector<std::string> after = CheckpointsIn(dir);
      EXPECT_FALSE(after.empty());
      if (after.empty()) return 1;
      EXPECT_TRUE(LoadModel(after.back()).ok());
      fs::remove(disk + "/other");
    }
    EXPECT_GE(errors, 10);
    EXPECT_EQ(Wait(InChild([&] { return Train({.dir = dir, .resume = true}, {}); })), 0);
    ExpectSameEnd(dir, straight);
    EXPECT_EQ(std::distance(fs::directory_iterator(dir), {}), 4);
    return ::testing::Test::HasFailure() ? 1 : 0;
  }));
  if (end == kSkipped) GTEST_SKIP() << "this process may not mount a file system";
  EXPECT_EQ(end, 0);
}

TEST(KilledTraining, EndsWithTheCodeOfASignalAndACheckpoint) {
  const std::string straight = NewFolder("whole"), dir = NewFolder("asked");
  ASSERT_EQ(Wait(InChild([&] { return Train({.dir = straight}, {}); })), 0);
  for (const auto& [number, code] : {std::pair(SIGTERM, 143), std::pair(SIGINT, 130)}) {
    const std::vector<std::string> before = CheckpointsIn(dir);
    const pid_t child = InChild([&] { return Train({.dir = dir, .resume = true}, std::chrono::milliseconds(2)); });
    while (CheckpointsIn(dir) == before) usleep(1000);
    kill(child, number);
    EXPECT_EQ(Wait(child), code);
    EXPECT_FALSE(CheckpointsIn(dir).empty());
  }
  ASSERT_EQ(Wait(InChild([&] { return Train({.dir = dir, .resume = true}, {}); })), 0);
  ExpectSameEnd(dir, straight);
}

}  // namespace
}  // namespace gradweave
