// The generated kernels of a session's fused groups.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_KERNEL_STORE_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_KERNEL_STORE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/runtime/cuda/api/api.h"
#include "gradweave/runtime/cuda/fusion/fused_source.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/api/kernel_cache.h"
#include "gradweave/runtime/cuda/api/kernel_compiler.h"
#include "gradweave/runtime/cuda/api/loaded_kernel.h"

namespace gradweave {

struct KernelStoreOptions {
  GeneratedKernels generated = GeneratedKernels::kAuto;
  std::string cache_folder;  // Of a KernelCache; empty: nothing is kept on disk.
};

// Generates kernels, compiles those that neither this nor the cache on disk has, several at a time on threads of its
// own, and loads them. Calls come from one thread at a time.
class KernelStore {
 public:
  // The compiler's functions may be null: the device has none. The api outlives this and the kernels.
  KernelStore(CudaApi& api, int device, KernelCompiler compiler, KernelStoreOptions options);

  // Whether kernels may be generated at all: there is a compiler for the device, and the options don't forbid it.
  bool CanGenerate();

  // A kernel for each of SourcesOf(group).
  using GroupKernels = std::vector<std::shared_ptr<const LoadedKernel>>;
  // Those of each group. With kNever all are null; with kAuto those that cannot be compiled or loaded are, which is
  // told once on stderr; with kAlways that is an error, of the first in the groups' order.
  absl::StatusOr<std::vector<GroupKernels>> KernelsOf(absl::Span<const FusedGroup> groups);

 private:
  // What the architecture is, and everything else that images depend on beside their source.
  struct Target {
    int architecture;
    std::string description;
  };
  absl::StatusOr<Target> FindTarget() const;
  const absl::StatusOr<Target>& TargetOf();
  absl::StatusOr<std::string> ImageOf(const FusedSource& source, const Target& target) const;
  // By the text of sources, of which some may be the same.
  using KernelsBySource = absl::flat_hash_map<std::string, absl::StatusOr<std::shared_ptr<const LoadedKernel>>>;
  KernelsBySource KernelsOf(absl::Span<const FusedSource> sources);

  CudaApi& api_;
  const int device_;
  const KernelCompiler compiler_;
  const GeneratedKernels generated_;
  const KernelCache cache_;
  std::optional<absl::StatusOr<Target>> target_;  // From the first group on.
  // By the text of the source. A kernel that no plan has any more is loaded again when one needs it; a failure stays.
  absl::flat_hash_map<std::string, absl::StatusOr<std::weak_ptr<const LoadedKernel>>> kernels_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_KERNEL_STORE_H_
