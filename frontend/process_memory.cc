#include "gradweave/frontend/process_memory.h"

#include <sys/resource.h>

namespace gradweave {

int64_t PeakMemory() {
  struct rusage usage;
  constexpr int64_t kUnit = 1024;  // Linux counts in KiB.
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss * kUnit : 0;
}

}  // namespace gradweave
