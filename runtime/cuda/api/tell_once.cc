#include "gradweave/runtime/cuda/api/tell_once.h"

#include <iostream>
#include <mutex>

#include "absl/container/flat_hash_set.h"

namespace gradweave {

void TellOnce(const std::string& text) {
  static auto* const mutex = new std::mutex();
  static auto* const told = new absl::flat_hash_set<std::string>();
  std::lock_guard<std::mutex> lock(*mutex);
  if (told->insert(text).second) std::cerr << "gradweave: " << text << std::endl;
}

}  // namespace gradweave
