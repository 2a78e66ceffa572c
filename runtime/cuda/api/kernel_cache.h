// A cache folder of kernels compiled at run time, so that later processes need not compile them.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_KERNEL_CACHE_H_
#define GRADWEAVE_RUNTIME_CUDA_API_KERNEL_CACHE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace gradweave {

// Returns the FNV-1a hash of a text. It is the same in every process.
uint64_t HashOfText(absl::string_view text);

// The key is everything that an image depends on. A hash of the key names the entry's file, and the
// entry holds the key itself, so a hash collision is a miss. Problems are misses too: a folder that
// is unreadable or read-only, an entry that is truncated or damaged. A folder or an entry that
// belongs to another user, or that others may write to, is not used, because its kernels would run
// with all rights of this user; a line on stderr reports it once. Insert writes an entry under a
// temporary name and renames it, so other processes and threads see all of it or nothing. Any
// number of processes and threads may use a folder, or one object, at the same time.
class KernelCache {
 public:
  // Upper limit in bytes for all entries. When an insertion exceeds it, the least recently used
  // entries are removed.
  static constexpr int64_t kMostBytes = int64_t{256} << 20;

  // An empty `folder` disables the cache. The first insertion creates the folder, with access for
  // its owner only.
  explicit KernelCache(std::string folder, int64_t most_bytes = kMostBytes)
      : folder_(std::move(folder)), most_bytes_(most_bytes) {}

  // Returns the image stored for the key, or nullopt on a miss. A hit renews the entry's time of
  // use.
  std::optional<std::string> Find(absl::string_view key) const;
  // Stores the image under the key. Failures are ignored.
  void Insert(absl::string_view key, absl::string_view image) const;

  // Returns the path of the key's entry, which need not exist.
  std::string PathOf(absl::string_view key) const;
  const std::string& folder() const { return folder_; }

  // Returns $GRADWEAVE_KERNEL_CACHE if it is set, even to an empty value; otherwise
  // gradweave/kernels under $XDG_CACHE_HOME or ~/.cache; an empty path if none of these is set.
  static std::string DefaultFolder();

 private:
  void RemoveOldest() const;

  const std::string folder_;
  const int64_t most_bytes_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_KERNEL_CACHE_H_
