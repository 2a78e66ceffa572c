// Matrix products by cuBLASLt, which is opened when the first is asked for.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_CUBLAS_H_
#define GRADWEAVE_RUNTIME_CUDA_API_CUBLAS_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave {

// What products on a stream should be given to work with: what NVIDIA recommends for Hopper; others need less.
inline constexpr size_t kCublasWorkspaceBytes = size_t{32} << 20;

// May be used from several threads.
class Cublas {
 public:
  // The library of the process, by its usual names.
  static Cublas& Get();
  // With the first of these libraries that opens, for tests.
  explicit Cublas(std::vector<std::string> libraries);
  ~Cublas();

  // Enqueues the product on the stream, which is of the calling thread's device. The algorithm for sizes, strides and
  // alignment is looked up once and kept. Unavailable, with what to install, where the library is not found.
  absl::Status Gemm(const CudaGemm& gemm, int device, CudaStream stream);

  // Products on the stream use these kCublasWorkspaceBytes of its device from now on, one after the other; without
  // them, they have to do with algorithms that need none.
  void GiveWorkspace(CudaStream stream, void* memory);
  // The stream is destroyed, and its workspace no longer used.
  void ForgetStream(CudaStream stream);

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_CUBLAS_H_
