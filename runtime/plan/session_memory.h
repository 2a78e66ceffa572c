// Memory that the plans of a session share.
#ifndef GRADWEAVE_RUNTIME_PLAN_SESSION_MEMORY_H_
#define GRADWEAVE_RUNTIME_PLAN_SESSION_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/runtime/plan/shared_memory.h"

namespace gradweave {

class BackendDevice;

// Memory of a kernel from run to run (Kernel::kept_bytes), on the CPU.
struct KeptBlock {
  size_t bytes;
  std::shared_ptr<std::byte> memory = nullptr;     // Null until a plan that uses it has its memory.
  std::optional<uint64_t> made_of = std::nullopt;  // Sum of the variables' versions; each change increases it.
};

// The blocks of all plans of a session. Plans whose kernels keep the same data of the same weights
// share a block.
class KeptBlocks {
 public:
  // The layout that the kernel writes (Kernel::kept_layout), and the data that it reads: variables,
  // and the elements of constants.
  using Key = std::pair<std::string, std::vector<const void*>>;

  // Returns the block of this key, or a new one if no plan has it. A kernel without a layout gets a
  // block of its own. Returns null if all blocks together would exceed kMostBytes.
  std::shared_ptr<KeptBlock> FindOrAdd(const Key& key, size_t bytes);

  // Upper limit of all blocks. Beyond it, plans pack weights in every run.
  static constexpr size_t kMostBytes = 64 << 20;

 private:
  absl::flat_hash_map<Key, std::weak_ptr<KeptBlock>> blocks_;
  std::vector<std::weak_ptr<KeptBlock>> without_layout_;
};

// Runs of a session do not overlap, so its plans share arenas. Destroying a plan releases its part.
struct SessionMemory {
  explicit SessionMemory(absl::Span<const std::shared_ptr<BackendDevice>> devices);
  // Frees memory that no plan needs. No run may be in progress.
  void Trim();

  std::vector<std::shared_ptr<SharedMemory>> arenas;  // Indexed by device.
  KeptBlocks kept;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_SESSION_MEMORY_H_
