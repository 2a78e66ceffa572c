// The streams, events and graphs of an emulated CUDA device.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_STREAMS_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_STREAMS_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave {

// Work waits in its stream until something waits for it. Then what has to be done for that is done, and no more, in an
// order that keeps to streams and events and is else as bad as chance makes it: streams have priorities, and one that
// may go on does so as far as it can before others, until its priority changes (Burckhardt et al., "A randomized
// scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010). The nodes of a graph are done likewise, in
// another order at each launch. Where a wait is missing, something is read too early or overwritten too early in one
// run or another.
//
// Errors are Internal and name the call, as in CudaApi. Of the calls to CudaApi, one at a time comes here.
class EmulatedStreams {
 public:
  using Work = std::function<absl::Status()>;

  explicit EmulatedStreams(uint64_t seed);  // Of the order.
  ~EmulatedStreams();

  CudaStream Create();
  absl::Status Destroy(CudaStream stream);
  // Waits in the stream, or becomes a node of the graph that it captures.
  absl::Status Enqueue(const char* call, CudaStream stream, Work work);
  absl::StatusOr<bool> IsCapturing(const char* call, CudaStream stream) const;
  // Does what is enqueued; the first failure of any work that was not told yet.
  absl::Status Synchronize(CudaStream stream);
  // Does all that is enqueued anywhere.
  void DoAll();

  CudaEvent CreateEvent(bool timed);
  absl::Status DestroyEvent(CudaEvent event);
  absl::Status RecordEvent(CudaEvent event, CudaStream stream);
  // As with CUDA, a stream that waits for an event of a capture joins the capture; one that captures can't wait for
  // what isn't part of it.
  absl::Status WaitEvent(CudaEvent event, CudaStream stream);
  absl::Status SynchronizeEvent(CudaEvent event);
  absl::Status RecordTime(CudaEvent event, CudaStream stream);
  absl::StatusOr<double> ElapsedMicroseconds(CudaEvent begin, CudaEvent end) const;

  absl::Status BeginCapture(CudaStream stream);
  // A stream that has joined the capture, and whose work the one that began it has not waited for, is an error. The
  // capture has ended then too.
  absl::StatusOr<CudaGraph> EndCapture(CudaStream stream);
  absl::Status LaunchGraph(CudaGraph graph, CudaStream stream);
  absl::Status DestroyGraph(CudaGraph graph);
  // A capture binds the thread that began it, as with cudaStreamCaptureModeThreadLocal.
  bool ThisThreadCaptures() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_STREAMS_H_
