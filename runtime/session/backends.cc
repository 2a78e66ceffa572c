#include "gradweave/runtime/session/backends.h"

#include <deque>
#include <mutex>
#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/cpu_device.h"
#include "gradweave/runtime/cuda/backend.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {
namespace {

struct Registry {
  std::mutex mutex;
  // One row for each backend of this repository.
  std::deque<BackendEntry> entries = {
      {MakeCudaBackend(), [](const SessionOptions& options) -> std::any { return options.cuda; }},
      {MakeCpuBackend()},
  };
};

Registry& GetRegistry() {
  static auto* const registry = new Registry();
  return *registry;
}

}  // namespace

std::vector<const BackendEntry*> Backends() {
  Registry& registry = GetRegistry();
  std::lock_guard lock(registry.mutex);
  std::vector<const BackendEntry*> entries;
  for (const BackendEntry& entry : registry.entries) entries.push_back(&entry);
  return entries;
}

const BackendEntry* FindBackend(absl::string_view name) {
  for (const BackendEntry* entry : Backends()) {
    if (entry->backend.name == name) return entry;
  }
  return nullptr;
}

void RegisterBackend(Backend backend) {
  GW_CHECK(FindBackend(backend.name) == nullptr, "there is a backend of the name ", backend.name);
  Registry& registry = GetRegistry();
  std::lock_guard lock(registry.mutex);
  registry.entries.push_back({std::move(backend)});
}

}  // namespace gradweave
