// CommunicationThread: collective operations that run beside the computation.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATION_THREAD_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATION_THREAD_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/status/status.h"

namespace gradweave::distributed {

// Runs jobs one after the other, in the order in which they were started. One thread at a time
// calls it. The thread exists from the first job on; where the system refuses one, Start runs the
// job itself.
class CommunicationThread {
 public:
  struct Job {
    std::function<absl::Status()> run;
    // Those of the latest Start.
    absl::Status status = absl::OkStatus();
    bool done = true;
    Job* next = nullptr;  // The one that was started after it.
  };

  CommunicationThread() = default;
  // Waits for all jobs.
  ~CommunicationThread();
  CommunicationThread(const CommunicationThread&) = delete;
  CommunicationThread& operator=(const CommunicationThread&) = delete;

  // Starts the job, which stays where it is until it is done. It allocates nothing after the first
  // call.
  void Start(Job& job);
  // Waits for the job, and returns its status; that of an earlier Start if it does not run.
  absl::Status Wait(Job& job);
  // Waits for all jobs.
  void WaitForAll();

 private:
  void Run();

  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable started_, finished_;
  Job* first_ = nullptr;  // The one that runs, or the next one.
  Job* last_ = nullptr;
  bool ends_ = false;
};

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATION_THREAD_H_
