#include "tests/files/refusal.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <new>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

// While it lives, the process cannot take more than this many bytes in addition.
class MemoryLimit {
 public:
  explicit MemoryLimit(size_t bytes) {
    getrlimit(RLIMIT_AS, &before_);
    size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    rlimit limit = before_;
    limit.rlim_cur = pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)) + bytes;
    if (!kSanitizer) setrlimit(RLIMIT_AS, &limit);
  }
  ~MemoryLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_;
};

}  // namespace

std::string TestFolder() { return std::string(absl::StripSuffix(::testing::TempDir(), "/")); }

void ExpectRefused(absl::string_view row, absl::string_view message, absl::FunctionRef<absl::Status()> call) {
  SCOPED_TRACE(row);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  absl::Status status;
  try {
    const MemoryLimit limit(size_t{64} << 20);
    status = call();
  } catch (const std::bad_alloc&) {
    ADD_FAILURE() << "the call throws bad_alloc";
    return;
  }
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(kSanitizer ? 10 : 1));
  ASSERT_FALSE(status.ok()) << "the input is taken";
  const std::string text(status.message());
  for (char c : text) ASSERT_TRUE(c >= ' ' && c <= '~') << "byte " << static_cast<int>(c) << " in: " << text;
  EXPECT_LT(text.size(), 1300u);
  std::string expected = absl::StrReplaceAll(message, {{"DIR", TestFolder()}});
  if (absl::ConsumeSuffix(&message, "*")) {
    expected.pop_back();
    EXPECT_EQ(text.substr(0, expected.size()), expected);
  } else {
    EXPECT_EQ(text, expected);
  }
}

std::string WriteTestFile(absl::string_view name, absl::string_view bytes) {
  std::string path = absl::StrCat(TestFolder(), "/", name);
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  EXPECT_TRUE(stream.good()) << path;
  return path;
}

}  // namespace gradweave
