#include "gradweave/runtime/cuda/plan/cuda_timeline.h"

#include "gradweave/graph/check.h"

namespace gradweave {

absl::StatusOr<std::unique_ptr<CudaTimeline>> CudaTimeline::Create(const CudaDevice& device, int marks,
                                                                   const Profiler& profiler) {
  std::unique_ptr<CudaTimeline> timeline(new CudaTimeline(device.api()));
  for (int i = 0; i <= marks; ++i) {
    GW_ASSIGN_OR_RETURN(const CudaEvent event, device.api().CreateTimedEvent());
    timeline->marks_.push_back(event);
  }
  GW_RETURN_IF_ERROR(device.Synchronize());
  GW_RETURN_IF_ERROR(timeline->Mark(marks, device.stream()));
  timeline->origin_time_ = profiler.Now();
  return timeline;
}

CudaTimeline::~CudaTimeline() {
  // Nothing can be done about a failure here.
  for (CudaEvent event : marks_) (void)api_.DestroyEvent(event);
}

absl::Status CudaTimeline::Mark(int i, CudaStream stream) { return api_.RecordTime(marks_[i], stream); }

absl::StatusOr<double> CudaTimeline::Time(int i) const {
  GW_ASSIGN_OR_RETURN(const double microseconds, api_.ElapsedMicroseconds(marks_.back(), marks_[i]));
  return origin_time_ + microseconds;
}

}  // namespace gradweave
