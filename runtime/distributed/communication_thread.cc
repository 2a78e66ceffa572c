#include "gradweave/runtime/distributed/communication_thread.h"

#include <system_error>
#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/kernel/float_state.h"

namespace gradweave::distributed {

CommunicationThread::~CommunicationThread() {
  if (!thread_.joinable()) return;
  WaitForAll();
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  started_.notify_all();
  thread_.join();
}

void CommunicationThread::Start(Job& job) {
  GW_CHECK(job.done, "a job is started twice");
  if (!thread_.joinable()) {
    try {
      thread_ = std::thread([this] { Run(); });
    } catch (const std::system_error&) {
      job.status = job.run();
      return;
    }
  }
  {
    const std::lock_guard lock(mutex_);
    job.done = false;
    job.next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = &job;
    last_ = &job;
  }
  started_.notify_one();
}

absl::Status CommunicationThread::Wait(Job& job) {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return job.done; });
  return job.status;
}

void CommunicationThread::WaitForAll() {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return first_ == nullptr; });
}

void CommunicationThread::Run() {
  const KernelFloatState float_state;  // Sums have the bits of those of other threads.
  std::unique_lock lock(mutex_);
  while (true) {
    started_.wait(lock, [this] { return first_ != nullptr || ends_; });
    if (first_ == nullptr) return;
    Job& job = *first_;
    lock.unlock();
    absl::Status status = job.run();
    lock.lock();
    job.status = std::move(status);
    first_ = job.next;
    job.done = true;
    finished_.notify_all();
  }
}

}  // namespace gradweave::distributed
