// Kernels of the CPU that a test hears of, for tests of where runs stop.
#ifndef GRADWEAVE_TESTS_SESSION_WATCHED_KERNELS_H_
#define GRADWEAVE_TESTS_SESSION_WATCHED_KERNELS_H_

#include <functional>
#include <initializer_list>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "gradweave/runtime/cpu/add_kernel.h"
#include "gradweave/runtime/cpu/kernels.h"

namespace gradweave {

// Counts the calls of watched kernels, and calls `after` with the count behind each of them.
struct KernelCalls {
  int count = 0;
  std::function<void(int call)> after = [](int) {};
};
inline KernelCalls& Calls() {
  static auto* const calls = new KernelCalls();
  return *calls;
}

// Makes the CPU's kernels of these ops tell Calls() when they have run, in all plans made later. An
// op that is watched already, or has no kernel, is left as it is.
inline void WatchKernels(std::initializer_list<const char*> ops) {
  static auto* const watched = new std::set<std::string>();
  for (const char* op : ops) {
    const KernelFactory* const found = CpuKernels().Find(op);
    if (found == nullptr || !watched->insert(op).second) continue;
    AddCpuKernel(op, [factory = *found](const KernelRequest& request) -> absl::StatusOr<Kernel> {
      absl::StatusOr<Kernel> kernel = factory(request);
      if (!kernel.ok()) return kernel;
      kernel->run = [run = kernel->run](const KernelArguments& arguments) {
        const absl::Status status = run(arguments);
        Calls().after(++Calls().count);
        return status;
      };
      return kernel;
    });
  }
}

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_SESSION_WATCHED_KERNELS_H_
