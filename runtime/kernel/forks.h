// Detects processes that fork() has made.
#ifndef GRADWEAVE_RUNTIME_KERNEL_FORKS_H_
#define GRADWEAVE_RUNTIME_KERNEL_FORKS_H_

#include <cstdint>

namespace gradweave {

// Returns the number of calls of fork() between the process that called this first and this
// process. An object that remembers the number can find out that it is a copy in a child. A child
// has no threads of its parent, may have mutexes that a missing thread holds, and cannot use the
// parent's devices. Any thread may call it; it costs one load.
uint64_t ForksSoFar();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_FORKS_H_
