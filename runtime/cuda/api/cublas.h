// Matrix products with cuBLASLt. The first product opens the library.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_CUBLAS_H_
#define GRADWEAVE_RUNTIME_CUDA_API_CUBLAS_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave {

// Workspace that each stream should have for its products, in bytes. NVIDIA recommends this size
// for Hopper; other GPUs need less.
inline constexpr size_t kCublasWorkspaceBytes = size_t{32} << 20;

// A cuBLASLt library. Any thread may use it.
class Cublas {
 public:
  // Returns the library of this process, found under its usual names.
  static Cublas& Get();
  // Uses the first of these libraries that opens. For tests.
  explicit Cublas(std::vector<std::string> libraries);
  ~Cublas();

  // Enqueues the product on the stream, which must belong to the calling thread's device. The
  // algorithm for the given sizes, strides and alignment is looked up once and cached. Returns
  // Unavailable, with what to install, if the library is not found.
  absl::Status Gemm(const CudaGemm& gemm, int device, CudaStream stream);

  // Gives the stream kCublasWorkspaceBytes at `memory`. Its products use them from now on, one
  // after the other. Without a workspace, products use only algorithms that need none.
  void GiveWorkspace(CudaStream stream, void* memory);
  // Forgets the workspace of a stream that is being destroyed.
  void ForgetStream(CudaStream stream);

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_CUBLAS_H_
