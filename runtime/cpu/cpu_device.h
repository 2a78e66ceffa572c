// The CPU as a backend.
#ifndef GRADWEAVE_RUNTIME_CPU_CPU_DEVICE_H_
#define GRADWEAVE_RUNTIME_CPU_CPU_DEVICE_H_

#include "gradweave/runtime/plan/backend.h"

namespace gradweave {

// One device, cpu:0, whose memory is the host's. It has no options of its own.
Backend MakeCpuBackend();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CPU_DEVICE_H_
