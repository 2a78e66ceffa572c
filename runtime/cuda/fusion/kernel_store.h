// Storage of a session's generated kernels.
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
#include "gradweave/runtime/cuda/api/kernel_cache.h"
#include "gradweave/runtime/cuda/api/kernel_compiler.h"
#include "gradweave/runtime/cuda/api/loaded_kernel.h"
#include "gradweave/runtime/cuda/fusion/fused_source.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/options.h"

namespace gradweave {

// Options of a KernelStore.
struct KernelStoreOptions {
  GeneratedKernels generated = GeneratedKernels::kAuto;
  // Folder of a KernelCache; empty disables the cache on disk.
  std::string cache_folder;
};

// Generates kernels and loads them. Kernels that neither the store nor the cache on disk holds are
// compiled in parallel on threads of its own. The caller serializes all calls.
class KernelStore {
 public:
  // The compiler's functions may be null if the device has no compiler. The api must outlive the
  // store and the kernels.
  KernelStore(CudaApi& api, int device, KernelCompiler compiler, KernelStoreOptions options);

  // Returns true if kernels can be generated: the device has a compiler, and the options do not
  // forbid it.
  bool CanGenerate();

  // One kernel for each of SourcesOf(group).
  using GroupKernels = std::vector<std::shared_ptr<const LoadedKernel>>;
  // Returns the kernels of each group. With kNever, all are null. With kAuto, those that cannot be
  // compiled or loaded are null, and a message on stderr reports it once. With kAlways, returns the
  // first such error in the order of the groups.
  absl::StatusOr<std::vector<GroupKernels>> KernelsOf(absl::Span<const FusedGroup> groups);

 private:
  // The architecture, and everything else besides the source that an image depends on.
  struct Target {
    int architecture;
    std::string description;
  };
  absl::StatusOr<Target> FindTarget() const;
  const absl::StatusOr<Target>& TargetOf();
  absl::StatusOr<std::string> ImageOf(const FusedSource& source, const Target& target) const;
  // Keyed by source text, since several sources may be the same.
  using KernelsBySource = absl::flat_hash_map<std::string, absl::StatusOr<std::shared_ptr<const LoadedKernel>>>;
  KernelsBySource KernelsOf(absl::Span<const FusedSource> sources);

  CudaApi& api_;
  const int device_;
  const KernelCompiler compiler_;
  const GeneratedKernels generated_;
  const KernelCache cache_;
  std::optional<absl::StatusOr<Target>> target_;  // Set by the first group.
  // Keyed by source text. A kernel that no plan holds any more is loaded again on demand; a failure
  // is permanent.
  absl::flat_hash_map<std::string, absl::StatusOr<std::weak_ptr<const LoadedKernel>>> kernels_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_KERNEL_STORE_H_
