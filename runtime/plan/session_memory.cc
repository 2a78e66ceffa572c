#include "gradweave/runtime/plan/session_memory.h"

#include <algorithm>

#include "gradweave/runtime/plan/backend.h"

namespace gradweave {

std::shared_ptr<KeptBlock> KeptBlocks::FindOrAdd(const Key& key, size_t bytes) {
  if (auto found = blocks_.find(key); found != blocks_.end()) {
    std::shared_ptr<KeptBlock> block = found->second.lock();
    if (block != nullptr && block->bytes == bytes) return block;
  }
  // Frees blocks of destroyed plans first.
  absl::erase_if(blocks_, [](const auto& entry) { return entry.second.expired(); });
  std::erase_if(without_layout_, [](const auto& block) { return block.expired(); });
  size_t sum = bytes;
  for (const auto& [unused, block] : blocks_) sum += block.lock()->bytes;
  for (const auto& block : without_layout_) sum += block.lock()->bytes;
  if (sum > kMostBytes) return nullptr;
  auto block = std::make_shared<KeptBlock>(KeptBlock{.bytes = bytes});
  if (key.first.empty()) {
    without_layout_.push_back(block);
  } else {
    blocks_[key] = block;
  }
  return block;
}

SessionMemory::SessionMemory(absl::Span<const std::shared_ptr<BackendDevice>> devices) {
  for (const std::shared_ptr<BackendDevice>& device : devices) {
    arenas.push_back(std::make_shared<SharedMemory>([device](size_t bytes) { return device->Allocate(bytes); }));
  }
}

void SessionMemory::Trim() {
  for (const std::shared_ptr<SharedMemory>& arena : arenas) arena->Trim();
}

}  // namespace gradweave
