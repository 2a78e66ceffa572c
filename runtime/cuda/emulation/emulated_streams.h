// Streams, events and graphs of an emulated CUDA device.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_STREAMS_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_STREAMS_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave {

// Work stays in its stream until something waits for it. Then only the work needed for that wait
// runs, in a random order that respects streams and events. Streams have random priorities: a
// runnable stream runs as far as it can before others until its priority changes (Burckhardt et
// al., "A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010). The
// nodes of a graph run likewise, in a new order at each launch. A missing wait thus makes some run
// read or overwrite something too early.
//
// Errors are Internal and name the call as in CudaApi. The caller serializes all calls.
class EmulatedStreams {
 public:
  using Work = std::function<absl::Status()>;

  // `seed` determines the order.
  explicit EmulatedStreams(uint64_t seed);
  ~EmulatedStreams();

  // Streams, events and graphs belong to the thread's current device. Enqueue, RecordEvent and the
  // like are errors on a thread whose current device is not the stream's. So are records of an
  // event, and launches of a graph, on a stream of another device.
  CudaStream Create();
  absl::Status Destroy(CudaStream stream);
  // Appends the work to the stream, or to the graph that the stream captures.
  absl::Status Enqueue(const char* call, CudaStream stream, Work work);
  absl::StatusOr<bool> IsCapturing(const char* call, CudaStream stream) const;
  // Runs the enqueued work. Returns the first failure of any work that has not been reported yet.
  absl::Status Synchronize(CudaStream stream);
  // Runs the enqueued work of all streams.
  void DoAll();

  CudaEvent CreateEvent(bool timed);
  absl::Status DestroyEvent(CudaEvent event);
  absl::Status RecordEvent(CudaEvent event, CudaStream stream);
  // As with CUDA, a stream that waits for an event of a capture joins the capture, and a capturing
  // stream cannot wait for work outside the capture.
  absl::Status WaitEvent(CudaEvent event, CudaStream stream);
  absl::Status SynchronizeEvent(CudaEvent event);
  absl::Status RecordTime(CudaEvent event, CudaStream stream);
  absl::StatusOr<double> ElapsedMicroseconds(CudaEvent begin, CudaEvent end) const;

  // Begins a capture on the stream.
  absl::Status BeginCapture(CudaStream stream);
  // Returns an error if the stream that began the capture has not waited for the work of a stream
  // that joined it. The capture has ended even then.
  absl::StatusOr<CudaGraph> EndCapture(CudaStream stream);
  absl::Status LaunchGraph(CudaGraph graph, CudaStream stream);
  absl::Status DestroyGraph(CudaGraph graph);
  // Returns true if the calling thread began a capture, which binds that thread as with
  // cudaStreamCaptureModeThreadLocal.
  bool ThisThreadCaptures() const;
  // Makes the calling thread's captures, if any, end with an error, as a failed call does with
  // CUDA.
  void InvalidateCapture();
  // The device of the calling thread, which is device 0 until the thread sets another.
  void SetCurrentDevice(int device);
  int current_device() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_STREAMS_H_
