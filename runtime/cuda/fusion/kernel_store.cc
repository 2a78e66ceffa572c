#include "gradweave/runtime/cuda/fusion/kernel_store.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/tell_once.h"
#include "gradweave/runtime/cuda/fusion/fused_source.h"

namespace gradweave {
namespace {

// Calls work(0) to work(count - 1), each once, in parallel on the caller's thread and as many
// others as the machine runs at a time, or as the process can create.
void ForEachInParallel(size_t count, absl::FunctionRef<void(size_t)> work) {
  std::atomic<size_t> next = 0;
  auto run = [&] {
    for (size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::thread> others;
  const size_t threads = std::min<size_t>(count, std::max(1u, std::thread::hardware_concurrency()));
  others.reserve(threads);
  try {
    for (size_t i = 1; i < threads; ++i) others.emplace_back(run);
  } catch (const std::system_error&) {
    // No more threads are available; the existing ones do the work.
  }
  run();
  for (std::thread& other : others) other.join();
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
  // Compiling takes seconds, and what cannot be loaded would be compiled for nothing.
  GW_RETURN_IF_ERROR(api_.CheckLoadsKernels());
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

absl::StatusOr<std::string> KernelStore::ImageOf(const FusedSource& fused, const Target& target) const {
  const std::string source = KernelSource(fused);
  const std::string key = absl::StrCat(target.description, " for ", target.architecture, "\n", source);
  if (std::optional<std::string> image = cache_.Find(key); image.has_value()) return *std::move(image);
  GW_ASSIGN_OR_RETURN(std::string image, compiler_.compile(source, target.architecture));
  cache_.Insert(key, image);
  return image;
}

KernelStore::KernelsBySource KernelStore::KernelsOf(absl::Span<const FusedSource> sources) {
  KernelsBySource kernels;
  std::vector<size_t> missing;
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string& text = sources[i].text;
    if (kernels.contains(text)) continue;
    auto found = kernels_.find(text);
    std::shared_ptr<const LoadedKernel> kernel;
    if (found != kernels_.end() && found->second.ok()) kernel = found->second->lock();
    if (kernel != nullptr) {
      kernels.emplace(text, std::move(kernel));
    } else if (found != kernels_.end() && !found->second.ok()) {
      kernels.emplace(text, found->second.status());
    } else if (!TargetOf().ok()) {
      kernels.emplace(text, TargetOf().status());
    } else {
      kernels.emplace(text, std::shared_ptr<const LoadedKernel>());
      missing.push_back(i);
    }
  }
  // Compile in parallel: each compilation takes a large part of a second.
  std::vector<absl::StatusOr<std::string>> images(missing.size());
  ForEachInParallel(missing.size(), [&](size_t i) { images[i] = ImageOf(sources[missing[i]], *TargetOf()); });
  auto load = [&](const absl::StatusOr<std::string>& image) -> absl::StatusOr<std::shared_ptr<const LoadedKernel>> {
    GW_RETURN_IF_ERROR(image.status());
    GW_RETURN_IF_ERROR(api_.SetDevice(device_));
    return LoadedKernel::Load(api_, *image, kGeneratedKernel);
  };
  for (size_t i = 0; i < missing.size(); ++i) {
    const std::string& text = sources[missing[i]].text;
    absl::StatusOr<std::shared_ptr<const LoadedKernel>> kernel = load(images[i]);
    if (kernel.ok()) {
      kernels_.insert_or_assign(text, std::weak_ptr<const LoadedKernel>(*kernel));
    } else {
      kernels_.insert_or_assign(text, kernel.status());
    }
    kernels.insert_or_assign(text, std::move(kernel));
  }
  return kernels;
}

absl::StatusOr<std::vector<KernelStore::GroupKernels>> KernelStore::KernelsOf(absl::Span<const FusedGroup> groups) {
  std::vector<GroupKernels> result;
  std::vector<FusedSource> sources;
  for (const FusedGroup& group : groups) {
    const std::vector<FusedSource> own = SourcesOf(group);
    result.emplace_back(own.size());
    sources.insert(sources.end(), own.begin(), own.end());
  }
  const bool is_asked_for = generated_ == GeneratedKernels::kAlways;
  if (generated_ == GeneratedKernels::kNever || (compiler_.describe == nullptr && !is_asked_for)) return result;
  const KernelsBySource kernels = KernelsOf(sources);
  size_t next = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (std::shared_ptr<const LoadedKernel>& to : result[g]) {
      const absl::StatusOr<std::shared_ptr<const LoadedKernel>>& kernel = kernels.at(sources[next++].text);
      if (kernel.ok()) {
        to = *kernel;
      } else if (is_asked_for) {
        return absl::Status(kernel.status().code(),
                            absl::StrCat("a kernel cannot be generated: ", kernel.status().message(),
                                         "; CudaOptions::generated_kernels can do without"));
      } else {
        const FusedGroup& group = groups[g];
        TellOnce(absl::StrCat(group.convolution != nullptr ? "convolutions run apart from the ops behind them: "
                              : group.rows != nullptr      ? "ops on rows run one by one: "
                              : group.has_reductions()
                                  ? "reductions run apart from the elementwise chains around them: "
                                  : "elementwise chains are interpreted, which may be slower than generated kernels: ",
                              kernel.status().message()));
      }
    }
  }
  return result;
}

}  // namespace gradweave
