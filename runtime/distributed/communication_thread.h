// CommunicationThread: collective operations that run beside the computation.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATION_THREAD_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATION_THREAD_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/status/status.h"

namespace gradweave::distributed {

// Runs jobs one after the other, in the order in which they were started. One thread at a time may
// call it. The thread exists from the first job on; if the system refuses to create it, Start runs
// the job itself.
class CommunicationThread {
 public:
  struct Job {
    std::function<absl::Status()> run;
    // The arguments of the latest Start.
    absl::Status status = absl::OkStatus();
    bool done = true;
    Job* next = nullptr;  // The job that was started next.
  };

  CommunicationThread() = default;
  // Waits for all jobs.
  ~CommunicationThread();
  CommunicationThread(const CommunicationThread&) = delete;
  CommunicationThread& operator=(const CommunicationThread&) = delete;

  // Starts the job, which stays where it is until it is done. It allocates nothing after the first
  // call.
  void Start(Job& job);
  // Waits for the job and returns its status. If the job is not running, returns the status of its
  // previous Start.
  absl::Status Wait(Job& job);
  // Waits for all jobs.
  void WaitForAll();

 private:
  void Run();

  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable started_, finished_;
  Job* first_ = nullptr;  // The running job, or the next one.
  Job* last_ = nullptr;
  bool ends_ = false;
};

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATION_THREAD_H_
