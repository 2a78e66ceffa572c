// A CUDA device that a session has opened, its memory, and the variables in it.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_DEVICE_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/plan/compiled_graph.h"
#include "gradweave/runtime/cuda/plan/backend.h"
#include "gradweave/runtime/cuda/fusion/kernel_store.h"

namespace gradweave {

class CudaMemory;

struct CudaDeviceOptions {
  // Bytes that everything of the session may take together in the device's memory; 0: as many as there are.
  int64_t memory_limit = 0;
  int streams = 1;  // For kernels; at least one.
  KernelStoreOptions kernels = {};
};

// Calls come from one thread at a time, but not always the same one: whoever uses the api calls MakeCurrent first.
class CudaDevice : public std::enable_shared_from_this<CudaDevice> {
 public:
  // Unavailable where there is no such device.
  static absl::StatusOr<std::shared_ptr<CudaDevice>> Open(int index, const CudaDeviceOptions& options);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  const CudaBackend& backend() const { return backend_; }
  CudaApi& api() const { return *backend_.api; }
  // Of kernels, 0 to below num_streams(). What comes before and after a plan is on the first.
  CudaStream stream(int i = 0) const { return streams_[i]; }
  int num_streams() const { return static_cast<int>(streams_.size()); }
  CudaStream copy_stream() const { return copy_stream_; }  // Of feeds.
  KernelStore& kernels() const { return *kernels_; }
  std::string name() const;  // "cuda:0".
  int64_t memory_limit() const { return memory_limit_; }
  int64_t allocated_bytes() const { return allocated_; }
  // The most bytes that Allocate could give now, by the limit and by what the device has free. In pieces, perhaps.
  absl::StatusOr<int64_t> AvailableBytes() const;

  absl::Status MakeCurrent() const { return api().SetDevice(index_); }
  // Waits until the device has done all of the session's work.
  absl::Status Synchronize() const;
  // Lets later work on the first stream come behind all that the other streams of kernels have.
  absl::Status JoinStreams() const;

  // Device memory, aligned to 256. ResourceExhausted, with numbers, where the limit or the device has no room.
  absl::StatusOr<CudaMemory> Allocate(size_t bytes);
  absl::StatusOr<CudaMemory> AllocatePinned(size_t bytes);

  // Gives these streams what products need (CudaBackend::workspace_bytes), all of them or none, unless they have it;
  // they keep it. ResourceExhausted as Allocate.
  absl::Status GiveWorkspaces(absl::Span<const int> streams);
  bool has_workspace(int stream) const { return workspaces_[stream] != nullptr; }

 private:
  friend class CudaMemory;
  CudaDevice() = default;
  // Counted, and freed by Free.
  absl::StatusOr<void*> Take(size_t bytes);
  void Free(void* memory, size_t bytes);

  CudaBackend backend_;
  int index_ = 0;
  int64_t memory_limit_ = 0;
  int64_t allocated_ = 0;
  std::vector<CudaStream> streams_;
  std::vector<void*> workspaces_;  // By stream; null: it has had no products.
  CudaStream copy_stream_ = nullptr;
  CudaEvent joined_ = nullptr;
  std::unique_ptr<KernelStore> kernels_;
};

// Memory of a device, or pinned memory of the host, which is freed with this.
class CudaMemory {
 public:
  CudaMemory() = default;
  CudaMemory(CudaMemory&& other) noexcept { *this = std::move(other); }
  CudaMemory& operator=(CudaMemory&& other) noexcept;
  ~CudaMemory();

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  friend class CudaDevice;
  std::shared_ptr<CudaDevice> device_;  // Null: no memory.
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  bool pinned_ = false;
};

// A session's variables in the memory of host and device: each is where it was used last, and is copied when it is used
// on the other side.
class CudaVariables {
 public:
  struct Variable {
    std::string name;
    Tensor host;
    CudaMemory device;
    // Neither: a failure of the device has taken the value.
    bool host_current = true, device_current = false;
    int plans = 0;  // Those whose kernels hold the address of `device`.
  };

  // Shares the storage.
  CudaVariables(std::shared_ptr<CudaDevice> device, const VariableStorage& host);

  // Another one, of a new name.
  void Add(absl::string_view name, const Tensor& host);
  // Of a name that no plan uses.
  void Remove(absl::string_view name) { variables_.erase(name); }
  // The variable of that name, which keeps its place.
  Variable& Find(absl::string_view name);

  // Gives the variable a place on the device; its value is copied there when it is first used.
  absl::Status Reserve(Variable& variable);
  // Takes the places of variables that no plan uses; their values are on the host then.
  absl::Status ReleaseUnused();
  // Makes sure that the side has the value. The calling thread's device is the session's. DataLoss where a failure of
  // the device has taken it.
  absl::Status ToDevice(Variable& variable);
  absl::Status ToHost(Variable& variable);

 private:
  absl::Status CheckHasValue(const Variable& variable) const;

  std::shared_ptr<CudaDevice> device_;
  absl::flat_hash_map<std::string, std::unique_ptr<Variable>> variables_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_DEVICE_H_
