#include "tests/fuzz/target.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

namespace gradweave::fuzz {

int64_t ByteReader::Number() {
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min(), kMost = std::numeric_limits<int64_t>::max();
  const int64_t kind = Below(8), small = Byte();
  switch (kind) {
    case 0:
      return small - 128;
    case 1:
      return (int64_t{1} << (small % 63)) - (small >> 7);
    case 2:
      return small < 128 ? kMost - small : kLeast + (small - 128);
    default:
      return small % 8;
  }
}

absl::string_view ByteReader::Rest() {
  const absl::string_view rest(reinterpret_cast<const char*>(data_), end_ - data_);
  data_ = end_;
  return rest;
}

std::string MutatedBytes(absl::string_view bytes, size_t max_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string result(bytes.substr(0, max_size));
  auto below = [&](size_t limit) { return static_cast<size_t>(random() % std::max<size_t>(limit, 1)); };
  for (size_t count = 1 + below(4); count > 0; --count) {
    const size_t at = below(result.size()), length = std::min(1 + below(8), result.size() - at);
    switch (below(result.empty() ? 1 : 7)) {
      case 0:
        for (size_t i = 0; i <= below(4); ++i) result.insert(result.begin() + at, static_cast<char>(random()));
        break;
      case 1:
        result.erase(at, length);
        break;
      case 2:
        result[at] = static_cast<char>(result[at] ^ (1 << below(8)));
        break;
      case 3:
        result[at] = static_cast<char>(random());
        break;
      case 4:
        result.insert(below(result.size()), std::string(result, at, length));
        break;
      case 5:
        for (size_t i = 0; i < length; ++i) result[at + i] = "\x00\xff\x7f\x80\x01\x40\n,"[below(8)];
        break;
      default:
        if (below(4) == 0) result.resize(at);
        break;
    }
  }
  result.resize(std::min(result.size(), max_size));
  return result;
}

namespace {

std::string MakeFolder() {
  const char* given = std::getenv("TEST_TMPDIR");
  std::string folder = absl::StrCat(access("/dev/shm", W_OK) == 0 ? "/dev/shm"
                                    : given != nullptr            ? given
                                                                  : "/tmp",
                                    "/gradweave_fuzz_XXXXXX");
  GW_CHECK(mkdtemp(folder.data()) != nullptr, folder);
  return folder;
}

// Removes the folder when the process ends in order.
struct ScratchFolder {
  std::string path = MakeFolder();
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

}  // namespace

std::string ScratchFile(absl::string_view name, absl::string_view bytes) {
  static ScratchFolder folder;
  std::string path = absl::StrCat(folder.path, "/", name);
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

void CheckMessage(const absl::Status& status, size_t most_bytes) {
  if (status.ok()) return;
  GW_CHECK(!status.message().empty() && status.message().size() < most_bytes, "an error of ", status.message().size(),
           " bytes: ", status.message());
  unsigned char before = 0;
  for (char c : status.message()) {
    const auto byte = static_cast<unsigned char>(c);
    // U+0080 to U+009F are control characters too.
    GW_CHECK(byte >= ' ' && byte != 0x7F && !(before == 0xC2 && byte < 0xA0), "an error with the byte ",
             static_cast<int>(byte), ": ", status.message());
    before = byte;
  }
}

}  // namespace gradweave::fuzz
