// The backends that sessions know.
#ifndef GRADWEAVE_RUNTIME_SESSION_BACKENDS_H_
#define GRADWEAVE_RUNTIME_SESSION_BACKENDS_H_

#include <any>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradweave/runtime/plan/backend.h"

namespace gradweave {

struct SessionOptions;

struct BackendEntry {
  Backend backend;
  // The backend's own options among a session's; null: it has none.
  std::any (*options)(const SessionOptions& options) = nullptr;
};

// All backends, the fastest first: Device::Best is the first that is available. Entries keep their
// places.
std::vector<const BackendEntry*> Backends();

// The backend of that name; null where there is none.
const BackendEntry* FindBackend(absl::string_view name);

// Adds a backend of a new name for sessions made from now on, behind all others. For programs that
// bring their own.
void RegisterBackend(Backend backend);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_BACKENDS_H_
