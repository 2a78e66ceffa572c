#include "gradweave/runtime/distributed/mailbox.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/runtime/distributed/group.h"

namespace gradweave::distributed {
namespace {

using Clock = std::chrono::steady_clock;

// The time for which a shard polls for messages of other processes without a pause. Most arrive
// sooner; after it, other threads should get the processor.
constexpr std::chrono::microseconds kBusyWait(200);
constexpr std::chrono::microseconds kPause(50);
// The interval at which a shard that waits for other threads checks if it has to stop.
constexpr std::chrono::milliseconds kLocalPause(20);

class GroupCommunicator : public Communicator {
 public:
  GroupCommunicator(int shard, std::shared_ptr<Mailbox> mailbox, std::unique_ptr<RemoteMessages> remote,
                    std::vector<std::string> names)
      : Communicator(shard, mailbox->shards),
        mailbox_(std::move(mailbox)),
        remote_(std::move(remote)),
        names_(std::move(names)) {}

  std::string Name(int shard) const override {
    return absl::StrCat("shard ", shard, " of ", shards(), names_[shard].empty() ? "" : ", ", names_[shard]);
  }

  void Fail(const absl::Status& error) override {
    const std::lock_guard lock(mailbox_->mutex);
    // The messages of this shard point to memory that its run may now release.
    for (int to = mailbox_->first; to < mailbox_->first + mailbox_->local; ++to)
      mailbox_->slot(shard(), to).full = false;
    mailbox_->failure.Update(error);
    mailbox_->changed.notify_all();
  }

 protected:
  absl::Status Transfer(absl::string_view what, absl::Span<const Send> sends, absl::Span<const Receive> receives,
                        absl::FunctionRef<bool()> stopped) override {
    ++exchange_;
    absl::Status status = Deliver(what, sends, receives, stopped);
    if (!status.ok()) Fail(status);
    return status;
  }

 private:
  absl::Status Deliver(absl::string_view what, absl::Span<const Send> sends, absl::Span<const Receive> receives,
                       absl::FunctionRef<bool()> stopped) {
    const Clock::time_point start = Clock::now(), deadline = start + mailbox_->timeout;
    bool remote_finished = remote_ == nullptr;
    if (remote_ != nullptr) GW_RETURN_IF_ERROR(remote_->Start(exchange_, sends, receives));
    std::unique_lock lock(mailbox_->mutex);
    for (const Send& send : sends) {
      if (mailbox_->Has(send.to)) mailbox_->slot(shard(), send.to) = {true, exchange_, send.data, send.bytes};
    }
    mailbox_->changed.notify_all();
    absl::InlinedVector<bool, 16> arrived(receives.size(), false);
    while (true) {
      GW_RETURN_IF_ERROR(TakeLocal(what, receives, absl::MakeSpan(arrived)));
      const bool local_finished = std::find(arrived.begin(), arrived.end(), false) == arrived.end() && AllTaken(sends);
      // An exchange that is complete has worked, even if another shard fails right after it.
      if (local_finished && remote_finished) return absl::OkStatus();
      if (!mailbox_->failure.ok()) {
        return absl::AbortedError(
            absl::StrCat(what, ": another shard of this process failed: ", mailbox_->failure.message()));
      }
      if (stopped()) return absl::CancelledError(absl::StrCat(what, ": the run was stopped"));
      const Clock::time_point now = Clock::now();
      if (now >= deadline) return TimedOut(what, sends, receives, arrived);
      if (remote_finished) {
        mailbox_->changed.wait_for(lock, kLocalPause);
        continue;
      }
      lock.unlock();
      absl::StatusOr<bool> finished = remote_->Finished();
      lock.lock();
      if (!finished.ok())
        return absl::Status(finished.status().code(), absl::StrCat(what, ": ", finished.status().message()));
      remote_finished = *finished;
      if (!remote_finished && now - start > kBusyWait) mailbox_->changed.wait_for(lock, kPause);
    }
  }

  // Copies messages that have arrived from threads of this process. The mutex is held.
  absl::Status TakeLocal(absl::string_view what, absl::Span<const Receive> receives, absl::Span<bool> arrived) {
    bool took = false;
    for (size_t i = 0; i < receives.size(); ++i) {
      const Receive& receive = receives[i];
      if (!mailbox_->Has(receive.from)) arrived[i] = true;
      if (arrived[i]) continue;
      Mailbox::Slot& slot = mailbox_->slot(receive.from, shard());
      if (!slot.full) continue;
      if (slot.exchange != exchange_ || slot.bytes != receive.bytes) {
        return absl::InternalError(absl::StrCat(
            what, ": the shards are not at the same operation: ", Name(shard()), " waits for ", receive.bytes,
            " bytes in exchange ", exchange_, ", and ", Name(receive.from), " sends ", slot.bytes, " in exchange ",
            slot.exchange, "; all shards have to run the same fetches of the same graph in the same order"));
      }
      if (slot.bytes > 0) std::memcpy(receive.data, slot.data, slot.bytes);
      slot.full = false;
      arrived[i] = took = true;
    }
    if (took) mailbox_->changed.notify_all();
    return absl::OkStatus();
  }

  bool AllTaken(absl::Span<const Send> sends) const {
    return std::none_of(sends.begin(), sends.end(), [this](const Send& send) {
      return mailbox_->Has(send.to) && mailbox_->slot(shard(), send.to).full;
    });
  }

  absl::Status TimedOut(absl::string_view what, absl::Span<const Send> sends, absl::Span<const Receive> receives,
                        absl::Span<const bool> arrived) const {
    std::vector<int> missing;
    for (size_t i = 0; i < receives.size(); ++i) {
      if (!arrived[i]) missing.push_back(receives[i].from);
    }
    for (const Send& send : sends) {
      if (mailbox_->Has(send.to) && mailbox_->slot(shard(), send.to).full) missing.push_back(send.to);
    }
    if (remote_ != nullptr) remote_->AppendMissing(missing);
    std::sort(missing.begin(), missing.end());
    missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
    return absl::DeadlineExceededError(absl::StrCat(
        what, ": ", Name(shard()), " has waited ", mailbox_->timeout.count(), " ms for ",
        absl::StrJoin(missing, "; ", [this](std::string* out, int shard) { absl::StrAppend(out, Name(shard)); }),
        "; it has ended, hangs, or takes longer than the group's timeout"));
  }

  const std::shared_ptr<Mailbox> mailbox_;
  const std::unique_ptr<RemoteMessages> remote_;
  const std::vector<std::string> names_;
  int64_t exchange_ = 0;
};

}  // namespace

std::shared_ptr<Communicator> MakeCommunicator(int shard, std::shared_ptr<Mailbox> mailbox,
                                               std::unique_ptr<RemoteMessages> remote, std::vector<std::string> names) {
  return std::make_shared<GroupCommunicator>(shard, std::move(mailbox), std::move(remote), std::move(names));
}

absl::StatusOr<std::vector<std::shared_ptr<Group>>> ThreadGroups(int processes, const GroupOptions& options) {
  const int shards = options.shards == 0 ? processes : options.shards;
  if (processes < 1 || shards < 1 || shards % processes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("distributed: there are ", shards, " shards and ", processes,
                                                   " processes; the shards have to be a multiple of them"));
  }
  const int local = shards / processes;
  auto mailbox = std::make_shared<Mailbox>(0, shards, shards, options.timeout);
  std::vector<std::string> names;
  for (int shard = 0; shard < shards; ++shard) {
    names.push_back(processes == 1 ? "" : absl::StrCat("process ", shard / local));
  }
  std::vector<std::shared_ptr<Group>> groups;
  for (int process = 0; process < processes; ++process) {
    std::vector<std::shared_ptr<Communicator>> communicators;
    for (int i = 0; i < local; ++i) {
      communicators.push_back(MakeCommunicator(process * local + i, mailbox, nullptr, names));
    }
    groups.push_back(std::make_shared<Group>(process, processes, std::move(communicators), options.shard_optimizer));
  }
  return groups;
}

}  // namespace gradweave::distributed
