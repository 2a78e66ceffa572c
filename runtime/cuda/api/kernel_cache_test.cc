#include "gradweave/runtime/cuda/api/kernel_cache.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

namespace fs = std::filesystem;
using ::testing::Optional;
using ::testing::SizeIs;

// Returns a unique folder that does not exist yet.
std::string NewFolder() {
  std::string path = ::testing::TempDir() + "/kernel_cache.XXXXXX";
  EXPECT_NE(mkdtemp(path.data()), nullptr);
  return path + "/of/kernels";
}

std::vector<std::string> FilesIn(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& file : fs::directory_iterator(folder)) files.push_back(file.path().filename());
  return files;
}

std::string Read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}
void Write(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

const std::string kImage("an image\0with any bytes\xff", 24);

TEST(KernelCache, FindsWhatWasInserted) {
  const std::string folder = NewFolder();
  const KernelCache cache(folder);
  EXPECT_EQ(cache.Find("key"), std::nullopt);
  cache.Insert("key", kImage);
  cache.Insert("another key", "another image");
  EXPECT_THAT(cache.Find("key"), Optional(kImage));
  // Another process would see the same entries.
  EXPECT_THAT(KernelCache(folder).Find("another key"), Optional(std::string("another image")));
  EXPECT_EQ(cache.Find("a third key"), std::nullopt);
  // No temporary files remain, and only the owner has access.
  EXPECT_THAT(FilesIn(folder), SizeIs(2));
  struct stat info;
  ASSERT_EQ(stat(folder.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  cache.Insert("key", "a later image");
  EXPECT_THAT(cache.Find("key"), Optional(std::string("a later image")));
}

TEST(KernelCache, HashesAreTheSameInEveryProcess) {
  // These values are test vectors of the FNV specification.
  EXPECT_EQ(HashOfText(""), 0xcbf29ce484222325u);
  EXPECT_EQ(HashOfText("foobar"), 0x85944171f73967e8u);
}

TEST(KernelCache, AnEntryOfAnotherKeyIsNoHit) {
  const KernelCache cache(NewFolder());
  cache.Insert("key", kImage);
  // The copy simulates a hash collision.
  fs::copy_file(cache.PathOf("key"), cache.PathOf("kez"));
  EXPECT_EQ(cache.Find("kez"), std::nullopt);
  EXPECT_THAT(cache.Find("key"), Optional(kImage));
}

TEST(KernelCache, NoticesDamage) {
  const KernelCache cache(NewFolder());
  cache.Insert("key", kImage);
  const std::string path = cache.PathOf("key"), whole = Read(path);
  ASSERT_THAT(cache.Find("key"), Optional(kImage));
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    Write(path, damaged);
    EXPECT_EQ(cache.Find("key"), std::nullopt) << "byte " << i;
  }
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    Write(path, whole.substr(0, bytes));
    EXPECT_EQ(cache.Find("key"), std::nullopt) << bytes << " bytes";
  }
  Write(path, whole + "x");
  EXPECT_EQ(cache.Find("key"), std::nullopt);
  // The entry can be written again.
  cache.Insert("key", kImage);
  EXPECT_THAT(cache.Find("key"), Optional(kImage));
}

TEST(KernelCache, AFolderThatCannotBeUsedIsNoError) {
  for (const std::string folder : {"", "/proc/gradweave/kernels", "/dev/null", "/dev/null/kernels"}) {
    const KernelCache cache(folder);
    cache.Insert("key", kImage);
    EXPECT_EQ(cache.Find("key"), std::nullopt) << folder;
  }
  // A folder blocks the entry's path.
  const KernelCache cache(NewFolder());
  cache.Insert("another key", kImage);
  fs::create_directories(cache.PathOf("key") + "/x");
  cache.Insert("key", kImage);
  EXPECT_EQ(cache.Find("key"), std::nullopt);
  EXPECT_THAT(FilesIn(cache.folder()), SizeIs(2));
}

// Who could write to the folder or to an entry could have kernels run in this process.
TEST(KernelCache, DoesNotUseWhatOthersMayWriteTo) {
  const KernelCache cache(NewFolder());
  cache.Insert("key", kImage);
  const std::string folder = cache.folder(), entry = cache.PathOf("key");
  for (const auto& [path, mode] : {std::pair(folder, 0770), {folder, 0707}, {entry, 0620}, {entry, 0602}}) {
    SCOPED_TRACE(absl::StrCat(path, " ", mode));
    struct stat before;
    ASSERT_EQ(stat(path.c_str(), &before), 0);
    ASSERT_EQ(chmod(path.c_str(), static_cast<mode_t>(mode)), 0);
    EXPECT_EQ(cache.Find("key"), std::nullopt);
    if (path == folder) {
      cache.Insert("another key", kImage);
      EXPECT_THAT(FilesIn(folder), SizeIs(1));
    }
    ASSERT_EQ(chmod(path.c_str(), before.st_mode & 07777), 0);
    EXPECT_THAT(cache.Find("key"), Optional(kImage));
  }
}

TEST(KernelCache, DoesNotUseWhatBelongsToAnotherUser) {
  const KernelCache cache(NewFolder());
  cache.Insert("key", kImage);
  for (const std::string& path : {cache.folder(), cache.PathOf("key")}) {
    SCOPED_TRACE(path);
    // Only root can give files away, and in a sandbox not even root.
    if (chown(path.c_str(), 12345, 12345) != 0) GTEST_SKIP() << "this process cannot give files away";
    EXPECT_EQ(cache.Find("key"), std::nullopt);
    ASSERT_EQ(chown(path.c_str(), 0, 0), 0);
    EXPECT_THAT(cache.Find("key"), Optional(kImage));
  }
}

TEST(KernelCache, TellsOnceWhatItDoesNotUse) {
  const KernelCache cache(NewFolder());
  cache.Insert("key", kImage);
  ASSERT_EQ(chmod(cache.folder().c_str(), 0777), 0);
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    (void)cache.Find("key");
    cache.Insert("key", kImage);
  }
  const std::string told = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(told, absl::StrCat("gradweave: the kernel cache '", cache.folder(),
                               "' is not used: others may write to it; chmod go-w '", cache.folder(),
                               "' changes that; GRADWEAVE_KERNEL_CACHE names another folder\n"));
}

// A pipe has no end, and a link may lead to files that others own.
TEST(KernelCache, AnEntryIsARegularFile) {
  const KernelCache cache(NewFolder());
  cache.Insert("key", kImage);
  ASSERT_EQ(rename(cache.PathOf("key").c_str(), (cache.folder() + "/moved").c_str()), 0);
  ASSERT_EQ(symlink("moved", cache.PathOf("key").c_str()), 0);
  EXPECT_EQ(cache.Find("key"), std::nullopt);
  ASSERT_EQ(mkfifo(cache.PathOf("pipe").c_str(), 0600), 0);
  EXPECT_EQ(cache.Find("pipe"), std::nullopt);
  // Insert replaces them.
  cache.Insert("pipe", kImage);
  EXPECT_THAT(cache.Find("pipe"), Optional(kImage));
}

TEST(KernelCache, ManyMayUseAFolderAtOnce) {
  const std::string folder = NewFolder();
  // The images are large enough that a file written in place would be seen half written.
  auto image_of = [](int key) { return std::string(200000 + 1000 * key, static_cast<char>('a' + key)); };
  auto use = [&] {
    const KernelCache cache(folder);
    int wrong = 0;
    for (int i = 0; i < 200; ++i) {
      const int key = i % 5;
      const std::optional<std::string> image = cache.Find(absl::StrCat(key));
      wrong += image.has_value() && *image != image_of(key);
      // The entry exists from the first insertion on.
      wrong += i >= 5 && !image.has_value();
      cache.Insert(absl::StrCat(key), image_of(key));
    }
    return wrong;
  };
  std::vector<pid_t> children;
  for (int i = 0; i < 2; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(use() == 0 ? 0 : 1);
    children.push_back(child);
  }
  std::vector<int> wrong(2);
  std::vector<std::thread> threads;
  for (int& count : wrong) threads.emplace_back([&] { count = use(); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
  for (pid_t child : children) {
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_THAT(FilesIn(folder), SizeIs(5));
}

TEST(KernelCache, ForgetsWhatWasUsedLeastRecently) {
  const KernelCache cache(NewFolder(), 3000);
  const std::string image(900, 'x');
  auto used = [&](const char* key, int seconds_ago) {
    fs::last_write_time(cache.PathOf(key), fs::file_time_type::clock::now() - std::chrono::seconds(seconds_ago));
  };
  cache.Insert("a", image);
  cache.Insert("b", image);
  cache.Insert("c", image);
  used("a", 30);
  used("b", 20);
  used("c", 10);
  EXPECT_THAT(cache.Find("a"), Optional(image));
  cache.Insert("d", image);
  EXPECT_EQ(cache.Find("b"), std::nullopt);
  EXPECT_THAT(cache.Find("a"), Optional(image));
  EXPECT_THAT(cache.Find("c"), Optional(image));
  EXPECT_THAT(cache.Find("d"), Optional(image));
  // Eviction removes a writer's temporary file in its turn, and never other files.
  Write(cache.folder() + "/new.abcdef", image);
  Write(cache.folder() + "/README", image);
  fs::last_write_time(cache.folder() + "/new.abcdef", fs::file_time_type::clock::now() - std::chrono::hours(1));
  cache.Insert("e", image);
  EXPECT_FALSE(fs::exists(cache.folder() + "/new.abcdef"));
  EXPECT_TRUE(fs::exists(cache.folder() + "/README"));
}

TEST(KernelCache, TheFolderComesFromTheEnvironment) {
  setenv("HOME", "/home/of", 1);
  unsetenv("XDG_CACHE_HOME");
  unsetenv("GRADWEAVE_KERNEL_CACHE");
  EXPECT_EQ(KernelCache::DefaultFolder(), "/home/of/.cache/gradweave/kernels");
  setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_EQ(KernelCache::DefaultFolder(), "/home/of/.cache/gradweave/kernels");
  setenv("XDG_CACHE_HOME", "/cache", 1);
  EXPECT_EQ(KernelCache::DefaultFolder(), "/cache/gradweave/kernels");
  setenv("GRADWEAVE_KERNEL_CACHE", "/kernels", 1);
  EXPECT_EQ(KernelCache::DefaultFolder(), "/kernels");
  setenv("GRADWEAVE_KERNEL_CACHE", "", 1);
  EXPECT_EQ(KernelCache::DefaultFolder(), "");
  unsetenv("GRADWEAVE_KERNEL_CACHE");
  unsetenv("XDG_CACHE_HOME");
  unsetenv("HOME");
  EXPECT_EQ(KernelCache::DefaultFolder(), "");
}

}  // namespace
}  // namespace gradweave
