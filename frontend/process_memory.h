// The memory of this process.
#ifndef GRADWEAVE_FRONTEND_PROCESS_MEMORY_H_
#define GRADWEAVE_FRONTEND_PROCESS_MEMORY_H_

#include <cstdint>

namespace gradweave {

// Returns the most bytes of main memory that the process has had so far, or 0 if the system does
// not tell. Memory of a CUDA device does not count.
int64_t PeakMemory();

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_PROCESS_MEMORY_H_
