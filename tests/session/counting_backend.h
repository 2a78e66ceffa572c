// A third backend, which exists for tests alone. Nothing outside tests/ knows of it.
#ifndef GRADWEAVE_TESTS_SESSION_COUNTING_BACKEND_H_
#define GRADWEAVE_TESTS_SESSION_COUNTING_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "gradweave/runtime/plan/backend.h"

namespace gradweave {

// Counts of what the devices of the backend have done since the last Reset.
struct BackendCalls {
  int opened = 0;
  std::map<std::string, int> kernels;  // Runs by op.
  int64_t bytes_in_use = 0;            // Device memory that is in use now.
  int copies_to_device = 0, copies_to_host = 0, copies_on_device = 0;
  int stray_pointers = 0;  // Operands, outputs and scratch of kernels that are no memory of a device.
  // If not OK, the kernel of that op fails with it, after it has written its output.
  std::string failing_op;
  absl::Status failure;
};
BackendCalls& CountedCalls();

// Registers the backend "counting" once: two devices that run MatMul, Add, Sub, Mul and Tanh with
// memory of their own.
void RegisterCountingBackend();

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_SESSION_COUNTING_BACKEND_H_
