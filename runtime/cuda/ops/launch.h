// Kernel launches from code that nvcc compiles for GPUs and the C++ compiler for the emulated
// device.
//
// A .cu file includes this header first. Both compilations of a .cu file are linked into one
// program. Everything that it defines, and every template and inline function of the headers for
// .cu files, must therefore be in GRADWEAVE_CUDA_NAMESPACE or have internal linkage.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_LAUNCH_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_LAUNCH_H_

#include <cstdint>
#include <type_traits>

#include "absl/status/status.h"
#include "gradweave/runtime/cuda/api/api.h"
#include "gradweave/runtime/kernel/kernel.h"

#ifdef GRADWEAVE_EMULATE_CUDA
#include "gradweave/runtime/cuda/emulation/emulation.h"
#define GRADWEAVE_CUDA_NAMESPACE cuda_emulated
#else
#include <cuda_runtime.h>
#define GRADWEAVE_CUDA_NAMESPACE cuda
#endif

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Enqueues kernel(arguments...) for every thread of the grid. Does nothing for an empty grid.
template <typename... Parameters>
absl::Status Launch(const CudaContext& context, const char* name, void (*kernel)(Parameters...), CudaDim3 grid,
                    CudaDim3 block, size_t shared_bytes, std::type_identity_t<Parameters>... arguments) {
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "a launch takes at most 4 KiB of parameters");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return absl::OkStatus();
  CudaLaunch launch{.name = name,
                    .kernel = reinterpret_cast<const void*>(kernel),
                    .grid = grid,
                    .block = block,
                    .shared_bytes = shared_bytes};
#ifdef GRADWEAVE_EMULATE_CUDA
  launch.emulated = [=] { return emulation::RunGrid(name, grid, block, shared_bytes, [&] { kernel(arguments...); }); };
  return context.api->Launch(launch, context.stream);
#else
  // The final null keeps the array legal for kernels without parameters.
  void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))..., nullptr};
  launch.arguments = addresses;
  return context.api->Launch(launch, context.stream);
#endif
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_LAUNCH_H_
