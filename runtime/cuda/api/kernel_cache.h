// A folder of kernels that were compiled at run time, so that the next process need not compile them again.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_KERNEL_CACHE_H_
#define GRADWEAVE_RUNTIME_CUDA_API_KERNEL_CACHE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace gradweave {

// The bits of a text, the same in every process: FNV-1a.
uint64_t HashOfText(absl::string_view text);

// Entries are found by a hash of their key, which is all that the image depends on, and hold the key too: one with the
// same hash and another key is no hit. Whatever is wrong with the folder or an entry (unreadable, not writable, cut
// short, damaged) is as if the entry were not there. An entry is written under another name first, so that processes
// and threads that share a folder see all of it or nothing. Any number of them may use a folder, and one object, at a
// time.
class KernelCache {
 public:
  // Of files together; where an entry makes it more, those that were used least recently are removed.
  static constexpr int64_t kMostBytes = int64_t{256} << 20;

  // An empty folder keeps nothing. The folder is made when the first entry is written, for its owner alone.
  explicit KernelCache(std::string folder, int64_t most_bytes = kMostBytes)
      : folder_(std::move(folder)), most_bytes_(most_bytes) {}

  std::optional<std::string> Find(absl::string_view key) const;
  void Insert(absl::string_view key, absl::string_view image) const;

  // Where an entry is, or would be.
  std::string PathOf(absl::string_view key) const;
  const std::string& folder() const { return folder_; }

  // $GRADWEAVE_KERNEL_CACHE where that is set, be it to nothing; else gradweave/kernels in $XDG_CACHE_HOME or ~/.cache;
  // empty where none of these is set.
  static std::string DefaultFolder();

 private:
  void RemoveOldest() const;

  const std::string folder_;
  const int64_t most_bytes_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_KERNEL_CACHE_H_
