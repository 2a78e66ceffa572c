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
  // Returns the backend's part of the session's options; null if it has none.
  std::any (*options)(const SessionOptions& options) = nullptr;
};

// All backends, the fastest first: Device::Best is the first available one. Entries keep their
// addresses.
std::vector<const BackendEntry*> Backends();

// Returns the backend of this name; null if there is none.
const BackendEntry* FindBackend(absl::string_view name);

// Adds a backend with a new name, after all others, for sessions that are made from now on.
// Programs use it for backends of their own.
void RegisterBackend(Backend backend);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_BACKENDS_H_
