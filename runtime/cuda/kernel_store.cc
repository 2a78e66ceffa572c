#include "gradweave/runtime/cuda/kernel_store.h"

#include <iostream>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/fused_source.h"

namespace gradweave {
namespace {

// Says it on stderr unless this process has said it before.
void TellOnce(const std::string& text) {
  static auto* const mutex = new std::mutex();
  static auto* const told = new absl::flat_hash_set<std::string>();
  std::lock_guard<std::mutex> lock(*mutex);
  if (told->insert(text).second) std::cerr << "gradweave: " << text << std::endl;
}

}  // namespace

KernelStore::KernelStore(CudaApi& api, int device, KernelCompiler compiler, KernelStoreOptions options)
    : api_(api),
      device_(device),
      compiler_(std::move(compiler)),
      generated_(options.generated),
      cache_(std::move(options.cache_folder)) {}

absl::StatusOr<KernelStore::Target> KernelStore::FindTarget() const {
  if (compiler_.describe == nullptr) return absl::UnavailableError("the device has no compiler of kernels");
  GW_ASSIGN_OR_RETURN(const CudaDeviceProperties properties, api_.DeviceProperties(device_));
  const int architecture = properties.major * 10 + properties.minor;
  GW_ASSIGN_OR_RETURN(std::string description, compiler_.describe(architecture));
  return Target{architecture, std::move(description)};
}

const absl::StatusOr<KernelStore::Target>& KernelStore::TargetOf() {
  if (!target_.has_value()) target_ = FindTarget();
  return *target_;
}

bool KernelStore::CanGenerate() { return generated_ != GeneratedKernels::kNever && TargetOf().ok(); }

absl::StatusOr<std::shared_ptr<const LoadedKernel>> KernelStore::KernelOf(const FusedBatch& batch) {
  GW_RETURN_IF_ERROR(TargetOf().status());
  const Target& target = *TargetOf();
  const std::string chain = FusedChainSource(batch);
  auto found = kernels_.find(chain);
  if (found != kernels_.end()) {
    GW_RETURN_IF_ERROR(found->second.status());
    if (std::shared_ptr<const LoadedKernel> kernel = found->second->lock(); kernel != nullptr) return kernel;
  }
  auto load = [&]() -> absl::StatusOr<std::shared_ptr<const LoadedKernel>> {
    const std::string source = FusedKernelSource(batch);
    const std::string key = absl::StrCat(target.description, " for ", target.architecture, "\n", source);
    std::optional<std::string> image = cache_.Find(key);
    if (!image.has_value()) {
      GW_ASSIGN_OR_RETURN(image, compiler_.compile(source, target.architecture));
      cache_.Insert(key, *image);
    }
    return LoadedKernel::Load(api_, *image, kGeneratedKernel);
  };
  absl::StatusOr<std::shared_ptr<const LoadedKernel>> loaded = load();
  if (loaded.ok()) {
    kernels_.insert_or_assign(chain, std::weak_ptr<const LoadedKernel>(*loaded));
  } else {
    kernels_.insert_or_assign(chain, loaded.status());
  }
  return loaded;
}

absl::StatusOr<std::vector<KernelStore::GroupKernels>> KernelStore::KernelsOf(absl::Span<const FusedGroup> groups) {
  std::vector<GroupKernels> kernels;
  for (const FusedGroup& group : groups) kernels.emplace_back(group.batches.size());
  const bool is_asked_for = generated_ == GeneratedKernels::kAlways;
  if (generated_ == GeneratedKernels::kNever || (compiler_.describe == nullptr && !is_asked_for)) return kernels;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t k = 0; k < kernels[g].size(); ++k) {
      absl::StatusOr<std::shared_ptr<const LoadedKernel>> kernel = KernelOf(groups[g].batches[k]);
      if (kernel.ok()) {
        kernels[g][k] = *std::move(kernel);
      } else if (is_asked_for) {
        return absl::Status(kernel.status().code(),
                            absl::StrCat("a kernel of elementwise ops cannot be generated: ", kernel.status().message(),
                                         "; SessionOptions::generated_kernels can do without"));
      } else {
        TellOnce(absl::StrCat(groups[g].has_reductions()
                                  ? "reductions run apart from the elementwise chains before them: "
                                  : "elementwise chains are interpreted, which may be slower than generated kernels: ",
                              kernel.status().message()));
      }
    }
  }
  return kernels;
}

}  // namespace gradweave
