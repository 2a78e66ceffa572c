// Saving loses nothing: with readers of the path, killed writers and several writers, the path has
// one whole model.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <optional>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/check.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A new empty folder.
std::string MakeFolder(const std::string& name) {
  const std::string folder = ::testing::TempDir() + "/saving_test." + name;
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

std::set<std::string> NamesIn(const std::string& folder) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

// A model of two variables with 100,000 elements each, all of the same number, and a large
// constant.
struct Numbers {
  Graph graph;
  std::optional<Session> session;

  explicit Numbers(float number = 0) {
    Scope scope(graph);
    const Value a = scope.Variable("a", scope.Full(0, {kElements}));
    const Value b = scope.Variable("b", scope.Full(0, {kElements}));
    Tensor large(kFloat32, {kElements});
    std::fill_n(large.mutable_data<float>(), kElements, 0.5f);
    graph.SetOutput("sum", {a + b + scope.Constant(large)});
    absl::StatusOr<Session> made = Session::Create(graph, {.threads = 1});
    EXPECT_TRUE(made.ok()) << made.status();
    session.emplace(*std::move(made));
    Set(number);
  }
  void Set(float number) {
    Tensor value(kFloat32, {kElements});
    std::fill_n(value.mutable_data<float>(), kElements, number);
    for (const char* name : {"a", "b"}) EXPECT_TRUE(session->SetVariable(name, value).ok());
  }
  absl::Status Save(const std::string& path, int64_t inline_limit = 1000) const {
    return SaveModel(*session, path, {.inline_limit = inline_limit});
  }

  static constexpr int64_t kElements = 100'000;
};

// Returns the number that all elements of the model at the path have, or the error.
absl::StatusOr<float> NumberOf(const std::string& path, LoadOptions options = {}) {
  GW_ASSIGN_OR_RETURN(const Model model, LoadModel(path, options));
  std::set<float> numbers;
  for (const auto& [name, value] : model.variables)
    numbers.insert(value.data<float>(), value.data<float>() + value.num_elements());
  if (numbers.size() != 1) return absl::DataLossError("the file mixes versions");
  return *numbers.begin();
}

TEST(Saving, AProcessThatIsKilledLeavesTheOldModelOrTheNewOne) {
  for (int64_t inline_limit : {int64_t{1000}, int64_t{1} << 30}) {
    const std::string folder = MakeFolder("killed"), path = folder + "/model.gw";
    Numbers model(-1);
    ASSERT_TRUE(model.Save(path, inline_limit).ok());
    std::mt19937 random(7);
    float last = -1;
    // On a busy machine, some children have to live longer to save at all.
    for (int round = 0; round < 50 || (last < 0 && round < 60); ++round) {
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        Numbers own;  // A session is of no use in a child that was forked later.
        for (int i = 0;; ++i) {
          own.Set(static_cast<float>(100 * round + i % 100));
          if (!own.Save(path, inline_limit).ok()) _exit(1);
        }
      }
      std::this_thread::sleep_for(std::chrono::microseconds(random() % (round < 50 ? 30'000 : 2'000'000)));
      kill(child, SIGKILL);
      int status = 0;
      waitpid(child, &status, 0);
      ASSERT_TRUE(WIFSIGNALED(status)) << "the child could not save";
      const absl::StatusOr<float> number = NumberOf(path);
      ASSERT_TRUE(number.ok()) << "round " << round << ": " << number.status();
      EXPECT_GE(*number, last);
      last = *number;
    }
    EXPECT_GT(last, -1) << "no child lived long enough to save";
    // The next one that saves sweeps up what the killed ones have left.
    ASSERT_TRUE(model.Save(path, inline_limit).ok());
    EXPECT_EQ(NamesIn(folder).size(), inline_limit == 1000 ? 2u : 1u) << ::testing::PrintToString(NamesIn(folder));
  }
}

TEST(Saving, AReaderBesideAWriterGetsOneWholeModel) {
  const std::string path = MakeFolder("beside") + "/model.gw";
  Numbers model(0);
  ASSERT_TRUE(model.Save(path).ok());
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      model.Set(static_cast<float>(i));
      EXPECT_TRUE(model.Save(path).ok());
    }
  });
  for (int i = 0; i < 300; ++i) {
    const absl::StatusOr<float> number = NumberOf(path, {.map_weights = i % 2 == 1});
    EXPECT_TRUE(number.ok()) << number.status();
  }
  stop = true;
  writer.join();
}

TEST(Saving, SeveralWritersOfOnePathLeaveTheModelOfOne) {
  const std::string folder = MakeFolder("several"), path = folder + "/model.gw";
  std::vector<pid_t> children;
  for (int process = 0; process < 2; ++process) {
    const pid_t child = fork();
    if (child == 0) {
      std::atomic<bool> failed = false;
      auto save = [&](float number) {
        const Numbers model(number);
        for (int i = 0; i < 20; ++i) {
          if (absl::Status status = model.Save(path); !status.ok()) {
            failed = true;
            std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
          }
        }
      };
      std::thread other(save, static_cast<float>(10 * process + 1));
      save(static_cast<float>(10 * process + 2));
      other.join();
      _exit(failed ? 1 : 0);
    }
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  const absl::StatusOr<float> number = NumberOf(path);
  ASSERT_TRUE(number.ok()) << number.status();
  EXPECT_THAT(*number, ::testing::AnyOf(1, 2, 11, 12));
  EXPECT_EQ(NamesIn(folder).size(), 2u) << ::testing::PrintToString(NamesIn(folder));
}

TEST(Saving, AFullDiskLeavesTheOldModel) {
  const std::string folder = MakeFolder("full"), path = folder + "/model.gw";
  Numbers model(3);
  for (int64_t inline_limit : {int64_t{1000}, int64_t{1} << 30}) {
    ASSERT_TRUE(model.Save(path).ok());
    const std::set<std::string> names = NamesIn(folder);
    // A limit of the process makes writes fail as a full disk does.
    signal(SIGXFSZ, SIG_IGN);
    rlimit old_limit, limit;
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
    limit = old_limit;
    limit.rlim_cur = 500'000;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    model.Set(4);
    const absl::Status status = model.Save(path, inline_limit);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.gw: the file cannot be written to its end"));
    EXPECT_EQ(*NumberOf(path), 3);
    EXPECT_EQ(NamesIn(folder), names);
    model.Set(3);
  }
}

// Calls body() in a child process that must not write to the folder, and returns what it returned.
// Root may write everywhere, so it becomes another user. Returns nothing where even that user may
// write.
std::optional<int> InReadOnlyFolder(const std::string& folder, const std::function<int()>& body) {
  constexpr int kMayWrite = 99, kNobody = 65534;
  fs::permissions(folder, fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read |
                              fs::perms::others_exec | fs::perms::group_read | fs::perms::group_exec);
  const pid_t child = fork();
  if (child == 0) {
    if ((geteuid() == 0 && setreuid(kNobody, kNobody) != 0) || access(folder.c_str(), W_OK) == 0) _exit(kMayWrite);
    _exit(body());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  fs::permissions(folder, fs::perms::owner_all, fs::perm_options::add);
  EXPECT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kMayWrite) return std::nullopt;
  return WEXITSTATUS(status);
}

TEST(Saving, AReadOnlyFolderKeepsTheOldModel) {
  const std::string folder = MakeFolder("read_only"), path = folder + "/model.gw";
  ASSERT_TRUE(Numbers(1).Save(path).ok());
  const std::set<std::string> names = NamesIn(folder);
  const std::optional<int> code = InReadOnlyFolder(folder, [&] {
    const absl::Status status = Numbers(2).Save(path);
    const bool is_right =
        absl::StrContains(status.message(), path) && absl::StrContains(status.message(), "Permission denied");
    if (!is_right) std::cerr << status << std::endl;
    return is_right ? 0 : 1;
  });
  if (!code.has_value()) GTEST_SKIP() << "this user may write to read-only folders";
  EXPECT_EQ(*code, 0);
  EXPECT_EQ(NamesIn(folder), names);
  EXPECT_EQ(*NumberOf(path), 1);
}

TEST(Saving, FollowsLinksAndKeepsPermissions) {
  const std::string folder = MakeFolder("links"), path = folder + "/model.gw", link = folder + "/link.gw";
  Numbers model(1);
  ASSERT_TRUE(model.Save(path).ok());
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  fs::create_symlink("model.gw", link);
  model.Set(2);
  ASSERT_TRUE(model.Save(link).ok());
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(*NumberOf(path), 2);
  EXPECT_EQ(*NumberOf(link), 2) << "the weights are beside the link's target";
  for (const std::string& name : NamesIn(folder)) {
    struct stat info;
    ASSERT_EQ(stat((folder + "/" + name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0640) << name;
  }
  fs::create_symlink("nowhere.gw", folder + "/dangling.gw");
  EXPECT_THAT(std::string(model.Save(folder + "/dangling.gw").message()),
              HasSubstr("dangling.gw: the target of the symbolic link cannot be found"));
}

// Only LoadOptions::map_weights maps the file, for callers who vouch for it.
TEST(Saving, AModelThatWasLoadedDoesNotNeedItsFiles) {
  const std::string folder = MakeFolder("changed"), path = folder + "/model.gw";
  ASSERT_TRUE(Numbers(4).Save(path).ok());
  const absl::StatusOr<Model> model = LoadModel(path);
  ASSERT_TRUE(model.ok()) << model.status();
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    // In place, as a program that does not rename writes. Pages beyond the end of a mapped file end
    // the process that reads them.
    const int file = open(entry.path().c_str(), O_WRONLY);
    ASSERT_GE(file, 0);
    ASSERT_EQ(pwrite(file, "\1\2\3\4", 4, 0), 4);
    ASSERT_EQ(ftruncate(file, 4), 0);
    close(file);
  }
  for (const auto& [name, value] : model->variables) {
    EXPECT_THAT(value.values<float>(), ::testing::Each(4.0f)) << name;
  }
}

TEST(Saving, RefusesWhatIsNoRegularFile) {
  const std::string folder = MakeFolder("irregular"), fifo = folder + "/fifo", device = folder + "/device";
  const Numbers model;
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& path : {fifo, folder, std::string("/dev/null")}) {
    const absl::Status status = model.Save(path);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << path;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path + ": this is not a regular file"));
    EXPECT_THAT(std::string(LoadModel(path).status().message()), HasSubstr(path + ": this is not a regular file"));
  }
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(NamesIn(folder), std::set<std::string>{"fifo"});

  // A model names its weights file.
  const std::string path = folder + "/model.gw";
  ASSERT_TRUE(model.Save(path).ok());
  for (const std::string& name : NamesIn(folder)) {
    if (!absl::EndsWith(name, ".weights")) continue;
    fs::remove(folder + "/" + name);
    ASSERT_EQ(mkfifo((folder + "/" + name).c_str(), 0600), 0);
  }
  EXPECT_THAT(std::string(LoadModel(path).status().message()), HasSubstr(".weights: this is not a regular file"));
}

TEST(Saving, KeepsTensorsBesideTheModel) {
  const std::string path = MakeFolder("extra") + "/model.gw";
  const Numbers numbers(2);
  absl::StatusOr<Model> model = ModelOf(*numbers.session);
  ASSERT_TRUE(model.ok()) << model.status();
  model->run_number = 42;
  model->extra = {
      {"any \n name", Tensor::Scalar(int64_t{7})}, {"a", Tensor::Of<float>({2, 1}, {1, 2})}, {"none", Tensor()}};
  for (int64_t inline_limit : {int64_t{0}, int64_t{1} << 30}) {
    ASSERT_TRUE(SaveModel(*model, path, {.inline_limit = inline_limit}).ok());
    const absl::StatusOr<Model> loaded = LoadModel(path);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->run_number, 42u);
    ASSERT_EQ(loaded->extra.size(), 3u);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(loaded->extra[i].first, model->extra[i].first);
      EXPECT_TRUE(SameBits(loaded->extra[i].second, model->extra[i].second));
    }
  }
}

TEST(Saving, RefusesAModelThatCouldNotBeLoaded) {
  const std::string path = MakeFolder("refused") + "/model.gw";
  const Numbers numbers(2);
  const Model good = *ModelOf(*numbers.session);
  auto error = [&](auto change) {
    Model model = good;
    change(model.variables);
    return std::string(SaveModel(model, path).message());
  };
  EXPECT_EQ(error([](NamedTensors& values) { values.pop_back(); }), "SaveModel: variable 'b' has no value");
  EXPECT_EQ(error([](NamedTensors& values) { values[1] = values[0]; }), "SaveModel: there is a value for 'a' already");
  EXPECT_EQ(error([](NamedTensors& values) { values[1].first = "c"; }),
            "SaveModel: there is a value for 'c', and no such variable");
  EXPECT_EQ(error([](NamedTensors& values) { values[1].second = Tensor(); }),
            "SaveModel: variable 'b' is float32[100000] and its value float32[0]");
  EXPECT_FALSE(fs::exists(path));
}

TEST(Saving, RemovesAModelWithItsWeightsAndLeftovers) {
  const std::string folder = MakeFolder("removed"), path = folder + "/model.gw", other = folder + "/other.gw";
  const Numbers numbers(1);
  ASSERT_TRUE(numbers.Save(other).ok());
  const std::set<std::string> names = NamesIn(folder);
  ASSERT_TRUE(numbers.Save(path).ok());
  std::ofstream(path + ".0123456789abcdef.tmp") << "half";
  EXPECT_EQ(NamesIn(folder).size(), 5u);
  ASSERT_TRUE(RemoveLeftovers(path).ok());
  EXPECT_EQ(NamesIn(folder).size(), 4u);
  std::ofstream(path + ".0123456789abcdef.tmp") << "half";
  ASSERT_TRUE(RemoveModel(path).ok());
  EXPECT_EQ(NamesIn(folder), names);
  EXPECT_TRUE(RemoveModel(path).ok()) << "nothing is there";
  EXPECT_EQ(*NumberOf(other), 1);
  EXPECT_EQ(RemoveModel("/dev/null").code(), absl::StatusCode::kFailedPrecondition);
}

// A model names its weights, so saving over a hostile one must not remove what it likes.
TEST(Saving, RemovesNoFilesOfOthers) {
  const std::string folder = MakeFolder("others"), path = folder + "/model.gw";
  for (const char* name : {"model.gw.tmp", "model.gw.0123456789abcdef.weights", "other.gw.0123456789abcdef.tmp",
                           "model.gw.0123456789ABCDEF.tmp", "model.gwx0123456789abcdef.tmp"}) {
    std::ofstream(folder + "/" + name) << "mine";
  }
  const Numbers model(1);
  ASSERT_TRUE(model.Save(path).ok());
  ASSERT_TRUE(model.Save(path).ok());
  EXPECT_EQ(NamesIn(folder).size(), 7u) << ::testing::PrintToString(NamesIn(folder));
}

TEST(Saving, LargeConstantsAreInTheWeightsFile) {
  const std::string folder = MakeFolder("constants"), path = folder + "/model.gw";
  const Numbers model(1);
  ASSERT_TRUE(model.Save(path).ok());
  EXPECT_LT(fs::file_size(path), 2000u);
  absl::StatusOr<Model> loaded = LoadModel(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  absl::StatusOr<Session> session = CreateSession(*loaded, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::vector<Tensor>> sum = session->Run({}, {loaded->graph.Output("sum")[0]});
  ASSERT_TRUE(sum.ok()) << sum.status();
  EXPECT_EQ((*sum)[0].data<float>()[Numbers::kElements - 1], 2.5f);
}

TEST(Saving, NamesMayHoldAnyBytes) {
  const std::string path = MakeFolder("names") + "/model.gw", name = "\xff \xc3(";
  Graph graph;
  Scope scope(graph);
  scope.Variable(name, scope.Full(3, {2}));
  graph.SetOutput("\x80", {scope.Input("\xfe", kFloat32, {Dim("n")})});
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE(SaveModel(*session, path).ok());
  const absl::StatusOr<Model> model = LoadModel(path);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->variables[0].first, name);
  EXPECT_TRUE(model->graph.outputs().count("\x80"));
}

TEST(Saving, EveryBitOfBothFilesIsChecked) {
  const std::string folder = MakeFolder("bits"), path = folder + "/model.gw";
  Graph graph;
  Scope scope(graph);
  const nn::Sequential model{nn::Dense{3}, nn::Tanh{}, nn::Dense{2}};
  graph.SetOutput("y", {model(scope, scope.Input("x", kFloat32, {Dim("n"), 4}))});
  absl::StatusOr<Session> session = Session::Create(graph);
  for (int64_t inline_limit : {int64_t{1000}, int64_t{0}}) {
    ASSERT_TRUE(SaveModel(*session, path, {.inline_limit = inline_limit}).ok());
    ASSERT_TRUE(LoadModel(path).ok());
    for (const std::string& name : NamesIn(folder)) {
      const std::string file = folder + "/" + name;
      std::stringstream contents;
      contents << std::ifstream(file, std::ios::binary).rdbuf();
      std::string bytes = contents.str();
      for (size_t i = 0; i < bytes.size(); ++i) {
        const char bit = static_cast<char>(1 << i % 8);
        bytes[i] ^= bit;
        std::ofstream(file, std::ios::binary) << bytes;
        EXPECT_FALSE(LoadModel(path).ok()) << name << ": byte " << i << ", bit " << i % 8;
        bytes[i] ^= bit;
      }
      // Nor may a byte be missing, or be one too many.
      std::ofstream(file, std::ios::binary) << bytes << '\0';
      EXPECT_FALSE(LoadModel(path).ok());
      std::ofstream(file, std::ios::binary) << bytes.substr(0, bytes.size() - 1);
      EXPECT_FALSE(LoadModel(path).ok());
      std::ofstream(file, std::ios::binary) << bytes;
      ASSERT_TRUE(LoadModel(path).ok());
    }
  }
}

}  // namespace
}  // namespace gradweave
