// CudaTimeline: when a device came to places in its streams.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_TIMELINE_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_TIMELINE_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/runtime/cuda/plan/cuda_device.h"
#include "gradweave/runtime/kernel/profiler.h"

namespace gradweave {

// The device's clock, on the axis of a profiler's times. Outlives the work that it marks.
class CudaTimeline {
 public:
  // So many marks, numbered from 0. Waits for the device, which is the calling thread's, to tell
  // what its clock's times are on the host's: they fit but for the microseconds that an idle device
  // takes to see an event.
  static absl::StatusOr<std::unique_ptr<CudaTimeline>> Create(const CudaDevice& device, int marks,
                                                              const Profiler& profiler);
  ~CudaTimeline();
  CudaTimeline(const CudaTimeline&) = delete;
  CudaTimeline& operator=(const CudaTimeline&) = delete;

  // Mark i is where the work enqueued on the stream so far is done; where that is being captured,
  // when the graph comes to this place.
  absl::Status Mark(int i, CudaStream stream);
  // Microseconds of the profiler's clock, of a mark that the device has passed.
  absl::StatusOr<double> Time(int i) const;

 private:
  explicit CudaTimeline(CudaApi& api) : api_(api) {}

  CudaApi& api_;
  std::vector<CudaEvent> marks_;  // One more: the origin, at origin_time_.
  double origin_time_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_TIMELINE_H_
