// The floating-point state of a thread that computes.
#ifndef GRADWEAVE_RUNTIME_KERNEL_FLOAT_STATE_H_
#define GRADWEAVE_RUNTIME_KERNEL_FLOAT_STATE_H_

#include <cstdint>

namespace gradweave {

// While one exists, its thread rounds to nearest, raises no signals, and treats denormals as zeros
// in operands and results. Denormals are below 2^-126 in float32 and below 2^-1022 in float64. An
// operation on a denormal takes up to a hundred times as long as on another number. The destructor
// restores the whole state, exception flags too.
//
// All threads that compute have one, so results depend neither on the number of threads nor on the
// caller's state.
class KernelFloatState {
 public:
  KernelFloatState();
  ~KernelFloatState();
  KernelFloatState(const KernelFloatState&) = delete;
  KernelFloatState& operator=(const KernelFloatState&) = delete;

 private:
  const uint64_t before_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_FLOAT_STATE_H_
