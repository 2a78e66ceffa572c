// Whether a process is a copy that fork() has made.
#ifndef GRADWEAVE_RUNTIME_KERNEL_FORKS_H_
#define GRADWEAVE_RUNTIME_KERNEL_FORKS_H_

#include <cstdint>

namespace gradweave {

// The number of calls of fork() that lie between this process and the one that called this first.
// An object that remembers it finds out whether it is a copy in a child, which has no threads of
// its parent, whose mutexes a missing thread may hold, and which cannot use the parent's devices.
// Any thread may call it; it costs one load.
uint64_t ForksSoFar();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_FORKS_H_
