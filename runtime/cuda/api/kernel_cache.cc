#include "gradweave/runtime/cuda/api/kernel_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/runtime/cuda/api/tell_once.h"

namespace gradweave {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kExtension = ".kernel";

// The first bytes of an entry; key and image follow. Machines that share a home folder may differ
// in byte order, and then the magic differs too.
struct Header {
  uint64_t magic = 0x316c656e72656b67;  // "gkernel1"
  uint64_t key_bytes = 0, image_bytes = 0;
  uint64_t crc32 = 0;  // Checksum of key and image.
};

uint32_t Crc32(absl::string_view key, absl::string_view image) {
  uLong crc = crc32_z(0, nullptr, 0);
  for (absl::string_view text : {key, image}) {
    crc = crc32_z(crc, reinterpret_cast<const Bytef*>(text.data()), text.size());
  }
  return static_cast<uint32_t>(crc);
}

// Returns the image in an entry's bytes, or nullopt if they are not a complete entry of the key.
std::optional<std::string> ImageOf(absl::string_view entry, absl::string_view key) {
  Header header;
  if (entry.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, entry.data(), sizeof header);
  entry.remove_prefix(sizeof header);
  if (header.magic != Header().magic || header.key_bytes != key.size() || entry.size() < key.size() ||
      header.image_bytes != entry.size() - key.size()) {
    return std::nullopt;
  }
  const absl::string_view image = entry.substr(key.size());
  if (entry.substr(0, key.size()) != key || header.crc32 != Crc32(key, image)) return std::nullopt;
  return std::string(image);
}

bool WriteAll(int file, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// An open file or folder.
class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int descriptor() const { return descriptor_; }
  bool is_open() const { return descriptor_ >= 0; }

 private:
  const int descriptor_;
};

// Returns true if nobody else can have written to the open file or folder. Its kernels run in this
// process, with all that this user may do. Says once what is not trusted and why.
bool IsTrusted(const struct stat& info, const std::string& path) {
  std::string reason;
  if (info.st_uid != geteuid()) {
    reason = absl::StrCat("it belongs to user ", info.st_uid, " and this process to user ", geteuid());
  } else if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    reason = absl::StrCat("others may write to it; chmod go-w '", path, "' changes that");
  }
  if (reason.empty()) return true;
  TellOnce(absl::StrCat("the kernel cache '", path, "' is not used: ", reason,
                        "; GRADWEAVE_KERNEL_CACHE names another folder"));
  return false;
}

// Opens a folder that this process may trust. Checks the open folder, which nobody can replace any
// more.
int OpenTrustedFolder(const std::string& path) {
  const int folder = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat info;
  if (folder >= 0 && fstat(folder, &info) == 0 && IsTrusted(info, path)) return folder;
  if (folder >= 0) close(folder);
  return -1;
}

std::optional<std::string> ReadAll(int file, size_t bytes) {
  std::string text(bytes, '\0');
  size_t done = 0;
  while (done < bytes) {
    const ssize_t count = read(file, text.data() + done, bytes - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return std::nullopt;
    done += static_cast<size_t>(count);
  }
  return text;
}

std::string NameOf(absl::string_view key) {
  return absl::StrCat(absl::Hex(HashOfText(key), absl::kZeroPad16), kExtension);
}

}  // namespace

uint64_t HashOfText(absl::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::string KernelCache::PathOf(absl::string_view key) const { return absl::StrCat(folder_, "/", NameOf(key)); }

std::optional<std::string> KernelCache::Find(absl::string_view key) const {
  if (folder_.empty()) return std::nullopt;
  const File folder(OpenTrustedFolder(folder_));
  if (!folder.is_open()) return std::nullopt;
  // A pipe would make an open without O_NONBLOCK wait.
  const File file(openat(folder.descriptor(), NameOf(key).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info;
  if (!file.is_open() || fstat(file.descriptor(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  if (info.st_size > most_bytes_ || !IsTrusted(info, PathOf(key))) return std::nullopt;
  const std::optional<std::string> bytes = ReadAll(file.descriptor(), static_cast<size_t>(info.st_size));
  if (!bytes.has_value()) return std::nullopt;
  std::optional<std::string> image = ImageOf(*bytes, key);
  // Eviction uses the time of last use.
  if (image.has_value()) (void)futimens(file.descriptor(), nullptr);
  return image;
}

void KernelCache::Insert(absl::string_view key, absl::string_view image) const {
  if (folder_.empty()) return;
  std::error_code error;
  fs::create_directories(fs::path(folder_).parent_path(), error);
  (void)mkdir(folder_.c_str(), S_IRWXU);
  if (!File(OpenTrustedFolder(folder_)).is_open()) return;
  std::string temporary = absl::StrCat(folder_, "/new.XXXXXX");
  const int file = mkstemp(temporary.data());
  if (file < 0) return;
  Header header;
  header.key_bytes = key.size();
  header.image_bytes = image.size();
  header.crc32 = Crc32(key, image);
  bool written = WriteAll(file, {reinterpret_cast<const char*>(&header), sizeof header}) && WriteAll(file, key) &&
                 WriteAll(file, image);
  written = close(file) == 0 && written;
  if (!written || rename(temporary.c_str(), PathOf(key).c_str()) != 0) {
    unlink(temporary.c_str());
    return;
  }
  RemoveOldest();
}

void KernelCache::RemoveOldest() const {
  struct Entry {
    fs::path path;
    fs::file_time_type used;
    int64_t bytes = 0;
  };
  std::vector<Entry> entries;
  int64_t total = 0;
  std::error_code error;
  for (fs::directory_iterator file(folder_, error), end; !error && file != end; file.increment(error)) {
    // Temporary files of a process that was stopped while writing count as entries.
    if (file->path().extension() != std::string(kExtension) && file->path().stem() != "new") continue;
    Entry entry{.path = file->path()};
    std::error_code gone;  // Another process may have removed the file.
    entry.used = file->last_write_time(gone);
    if (!gone) entry.bytes = static_cast<int64_t>(file->file_size(gone));
    if (gone) continue;
    total += entry.bytes;
    entries.push_back(std::move(entry));
  }
  if (total <= most_bytes_) return;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= most_bytes_) return;
    fs::remove(entry.path, error);
    total -= entry.bytes;
  }
}

std::string KernelCache::DefaultFolder() {
  if (const char* folder = std::getenv("GRADWEAVE_KERNEL_CACHE"); folder != nullptr) return folder;
  // The XDG base directory specification says to ignore relative paths.
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && cache[0] == '/') {
    return absl::StrCat(cache, "/gradweave/kernels");
  }
  const char* home = std::getenv("HOME");
  return home == nullptr || home[0] == '\0' ? "" : absl::StrCat(home, "/.cache/gradweave/kernels");
}

}  // namespace gradweave
