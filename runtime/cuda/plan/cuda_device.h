// A CUDA device that a session has opened.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_DEVICE_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/cuda/fusion/kernel_store.h"
#include "gradweave/runtime/cuda/options.h"
#include "gradweave/runtime/cuda/plan/platform.h"
#include "gradweave/runtime/plan/backend.h"
#include "gradweave/runtime/plan/shared_memory.h"

namespace gradweave {

// Call MakeCurrent before using the api, because CUDA has a current device for each thread.
class CudaDevice : public BackendDevice, public std::enable_shared_from_this<CudaDevice> {
 public:
  // Returns Unavailable if there is no such device.
  static absl::StatusOr<std::shared_ptr<CudaDevice>> Open(int index, const CudaOptions& options);
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  absl::Status CheckSupports(const Graph& graph, const Node& node) const override;
  absl::StatusOr<std::vector<PartSteps>> MakeSteps(const Graph& graph, absl::Span<const DevicePart* const> parts,
                                                   const StepOptions& options) override;
  Kernel MakeCopyKernel(size_t bytes) override;
  // Allocates memory aligned to 256. Returns ResourceExhausted, with numbers, if the limit or the
  // device has no room.
  absl::StatusOr<std::shared_ptr<std::byte>> Allocate(size_t bytes) override;
  absl::Status Copy(void* to, const void* from, size_t bytes, CopyDirection direction) override;
  absl::StatusOr<std::unique_ptr<CompiledGraph>> Compile(std::unique_ptr<Plan> plan) override;

  const CudaPlatform& platform() const { return platform_; }
  CudaApi& api() const { return *platform_.api; }
  // Streams of kernels, 0 to below num_streams(). Work before and after a plan is on the first one.
  CudaStream stream(int i = 0) const { return streams_[i]; }
  int num_streams() const { return static_cast<int>(streams_.size()); }
  CudaStream copy_stream() const { return copy_stream_; }  // For feeds.
  KernelStore& kernels() const { return *kernels_; }
  ProductPrecision product_precision() const { return options_.product_precision; }
  // Bytes of device memory that allocations of these sizes take at most.
  int64_t BytesTaken(absl::Span<const size_t> sizes) const;
  // The size of the largest allocation that the limit and the device's free memory allow beside
  // allocations of these sizes, after one of `freed` bytes has ended. The platform's reserved bytes
  // stay free. The memory may not be contiguous. 0 if the others do not fit.
  absl::StatusOr<int64_t> RoomBeside(absl::Span<const size_t> sizes, size_t freed) const;

  absl::Status MakeCurrent() const { return api().SetDevice(index_); }
  // Waits until the device has done all of the session's work.
  absl::Status Synchronize() const;
  // Sets the plan whose run may not have ended because the device has failed; null if all have
  // ended.
  void SetBusyWith(const void* plan) { busy_with_ = plan; }
  // Waits for another plan's run that may not have ended, because it uses memory that plans share.
  absl::Status SettleOthers(const void* plan);
  // Makes later work on the first stream wait for all work of the other streams of kernels.
  absl::Status JoinStreams() const;

  // Allocates host memory that copies reach without staging.
  absl::StatusOr<std::shared_ptr<std::byte>> AllocatePinned(size_t bytes);
  // Pinned memory that all plans of the session share.
  const std::shared_ptr<SharedMemory>& pinned() const { return pinned_; }

  // Returns the elements of a constant, whose tensor lives as long as the memory. Plans with the
  // same constant share it.
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateConstant(const Tensor& value);
  bool has_constant(const Tensor& value) const;

  // Gives these streams, all or none, the workspaces that products need
  // (CudaPlatform::workspace_bytes), unless they have them already; they keep them. Returns
  // ResourceExhausted as Allocate does.
  absl::Status GiveWorkspaces(absl::Span<const int> streams);
  bool has_workspace(int stream) const { return workspaces_[stream] != nullptr; }

 private:
  explicit CudaDevice(int index);
  // Allocates memory that is counted, and that Free frees.
  absl::StatusOr<void*> Take(size_t bytes);
  void Free(void* memory, size_t bytes);

  CudaPlatform platform_;
  const int index_;
  CudaOptions options_;
  int64_t allocated_ = 0;
  std::vector<CudaStream> streams_;
  std::vector<void*> workspaces_;  // Indexed by stream; null if it has had no products.
  std::shared_ptr<SharedMemory> pinned_;
  absl::flat_hash_map<const void*, std::weak_ptr<std::byte>> constants_;  // Indexed by the host's elements.
  const void* busy_with_ = nullptr;
  CudaStream copy_stream_ = nullptr;
  CudaEvent joined_ = nullptr;
  std::unique_ptr<KernelStore> kernels_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_DEVICE_H_
