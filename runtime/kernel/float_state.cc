#include "gradweave/runtime/kernel/float_state.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace gradweave {
namespace {

#if defined(__SSE__)
// MXCSR: all exceptions are masked, flush to zero (bit 15), denormals are zeros (bit 6).
constexpr uint64_t kOfKernels = 0x1f80 | 0x8000 | 0x0040;
uint64_t Get() { return _mm_getcsr(); }
void Set(uint64_t state) { _mm_setcsr(static_cast<unsigned>(state)); }
#elif defined(__aarch64__)
// FPCR: flush to zero (bit 24), for operands and results.
constexpr uint64_t kOfKernels = uint64_t{1} << 24;
uint64_t Get() {
  uint64_t state;
  asm volatile("mrs %0, fpcr" : "=r"(state));
  return state;
}
void Set(uint64_t state) { asm volatile("msr fpcr, %0" : : "r"(state)); }
#else
// Other processors keep their state.
constexpr uint64_t kOfKernels = 0;
uint64_t Get() { return 0; }
void Set(uint64_t) {}
#endif

}  // namespace

KernelFloatState::KernelFloatState() : before_(Get()) { Set(kOfKernels); }
KernelFloatState::~KernelFloatState() { Set(before_); }

}  // namespace gradweave
