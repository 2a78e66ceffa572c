// CudaTimeline: the times at which a device reached places in its streams.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_TIMELINE_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_TIMELINE_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/runtime/cuda/plan/cuda_device.h"
#include "gradweave/runtime/kernel/profiler.h"

namespace gradweave {

// Converts the device's clock to a profiler's times. It must outlive the work that it marks.
class CudaTimeline {
 public:
  // Creates this many marks, numbered from 0. Waits for the calling thread's device, to relate its
  // clock to the host's. They agree up to the microseconds that an idle device takes to see an
  // event.
  static absl::StatusOr<std::unique_ptr<CudaTimeline>> Create(const CudaDevice& device, int marks,
                                                              const Profiler& profiler);
  ~CudaTimeline();
  CudaTimeline(const CudaTimeline&) = delete;
  CudaTimeline& operator=(const CudaTimeline&) = delete;

  // Sets mark i to the time at which the work enqueued on the stream so far is done. In a capture,
  // it is the time at which the graph reaches this place.
  absl::Status Mark(int i, CudaStream stream);
  // Returns the time of a mark that the device has passed, in microseconds of the profiler's clock.
  absl::StatusOr<double> Time(int i) const;

 private:
  explicit CudaTimeline(CudaApi& api) : api_(api) {}

  CudaApi& api_;
  std::vector<CudaEvent> marks_;  // The last one is the origin, at origin_time_.
  double origin_time_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_TIMELINE_H_
