// Groups of processes that MPI connects. It only uses MPI 3 in C, so it works with Open MPI, MPICH
// and Intel's MPI.
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/runtime/distributed/group.h"

#ifdef GRADWEAVE_MPI
// Leaves out the C++ interface, which is older than MPI 3.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <mutex>

#include "absl/container/inlined_vector.h"
#include "gradweave/runtime/distributed/mailbox.h"
#endif

namespace gradweave::distributed {
namespace {

// The environment variables by which processes of mpirun and srun know that they are one of
// several: of Open MPI, of MPICH and Intel's MPI, and of PMIx.
constexpr const char* kLauncherVariables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"};

bool HasLauncher() {
  for (const char* variable : kLauncherVariables) {
    if (std::getenv(variable) != nullptr) return true;
  }
  return false;
}

absl::Status CheckOptions(const GroupOptions& options) {
  if (options.shards < 0) {
    return absl::InvalidArgumentError(absl::StrCat("distributed: shards is ", options.shards,
                                                   " and has to be at least 1, or 0 for one for each process"));
  }
  if (options.timeout <= std::chrono::milliseconds(0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("distributed: the timeout is ", options.timeout.count(), " ms and has to be above 0"));
  }
  return absl::OkStatus();
}

#ifdef GRADWEAVE_MPI

// MPI counts elements with an int.
constexpr size_t kMostBytesOfMessage = size_t{1} << 30;

absl::Status ErrorOf(const char* call, int error) {
  if (error == MPI_SUCCESS) return absl::OkStatus();
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(error, text, &length);
  return absl::UnavailableError(absl::StrCat(call, ": ", std::string(text, length)));
}
#define GRADWEAVE_RETURN_IF_MPI_ERROR(call, ...) GW_RETURN_IF_ERROR(ErrorOf(#call, call(__VA_ARGS__)))

// MPI itself, which a process initializes once. The shards of a process are threads, which take
// turns.
struct Mpi {
  std::mutex mutex;
  int rank = 0, size = 1;
};

// Messages that exchange e sends from one shard to another one have a tag of their own, so that
// shards that are not at the same exchange wait for each other until the timeout, and do not
// receive messages of another exchange. Tags go up to 32767 at least.
int TagOf(int64_t exchange, int from, int to, int local) {
  const int pairs = local * local;
  const int64_t turns = std::max(1, 32768 / pairs);
  return static_cast<int>(exchange % turns) * pairs + (from % local) * local + to % local;
}

class MpiMessages : public RemoteMessages {
 public:
  MpiMessages(std::shared_ptr<Mpi> mpi, int shard, int local) : mpi_(std::move(mpi)), shard_(shard), local_(local) {}

  absl::Status Start(int64_t exchange, absl::Span<const Send> sends, absl::Span<const Receive> receives) override {
    const std::lock_guard lock(mpi_->mutex);
    requests_.clear();
    messages_.clear();
    for (const Receive& receive : receives) {
      if (IsLocal(receive.from)) continue;
      auto* data = static_cast<char*>(receive.data);
      GW_RETURN_IF_ERROR(ForPieces(receive.from, receive.bytes, [&](size_t begin, int bytes, MPI_Request* request) {
        return ErrorOf("MPI_Irecv", MPI_Irecv(data + begin, bytes, MPI_BYTE, receive.from / local_,
                                              TagOf(exchange, receive.from, shard_, local_), MPI_COMM_WORLD, request));
      }));
    }
    num_receives_ = requests_.size();
    for (const Send& send : sends) {
      if (IsLocal(send.to)) continue;
      const auto* data = static_cast<const char*>(send.data);
      GW_RETURN_IF_ERROR(ForPieces(send.to, send.bytes, [&](size_t begin, int bytes, MPI_Request* request) {
        return ErrorOf("MPI_Isend", MPI_Isend(data + begin, bytes, MPI_BYTE, send.to / local_,
                                              TagOf(exchange, shard_, send.to, local_), MPI_COMM_WORLD, request));
      }));
    }
    statuses_.resize(requests_.size());
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Finished() override {
    const std::lock_guard lock(mpi_->mutex);
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] == MPI_REQUEST_NULL) continue;
      int done = 0;
      GRADWEAVE_RETURN_IF_MPI_ERROR(MPI_Test, &requests_[i], &done, &statuses_[i]);
      if (!done) return false;
      if (i >= num_receives_) continue;
      int bytes = 0;
      GRADWEAVE_RETURN_IF_MPI_ERROR(MPI_Get_count, &statuses_[i], MPI_BYTE, &bytes);
      if (bytes == messages_[i].bytes) continue;
      return absl::InternalError(absl::StrCat("shard ", messages_[i].shard, " sent ", bytes, " bytes and ",
                                              messages_[i].bytes,
                                              " were expected; all processes have to run the same fetches of the same "
                                              "graph in the same order"));
    }
    return true;
  }

  void AppendMissing(std::vector<int>& shards) const override {
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] != MPI_REQUEST_NULL) shards.push_back(messages_[i].shard);
    }
  }

 private:
  struct Message {
    int shard, bytes;
  };

  bool IsLocal(int shard) const { return shard / local_ == mpi_->rank; }

  // Calls start(begin, bytes, request) for each piece of a message. There is one for an empty
  // message too.
  template <typename StartPiece>
  absl::Status ForPieces(int shard, size_t bytes, StartPiece start) {
    size_t begin = 0;
    do {
      const int piece = static_cast<int>(std::min(bytes - begin, kMostBytesOfMessage));
      requests_.push_back(MPI_REQUEST_NULL);
      messages_.push_back({shard, piece});
      GW_RETURN_IF_ERROR(start(begin, piece, &requests_.back()));
      begin += piece;
    } while (begin < bytes);
    return absl::OkStatus();
  }

  const std::shared_ptr<Mpi> mpi_;
  const int shard_, local_;
  // Receives come first.
  absl::InlinedVector<MPI_Request, 16> requests_;
  absl::InlinedVector<Message, 16> messages_;
  absl::InlinedVector<MPI_Status, 16> statuses_;
  size_t num_receives_ = 0;
};

// Ends MPI with its last owner.
class MpiGroup : public Group {
 public:
  using Group::Group;
  ~MpiGroup() override {
    bool failed = this->failed();
    for (int i = 0; i < local_shards(); ++i) failed |= !communicator(i)->failure().ok();
    // A process that failed cannot wait for the others, nor they for it.
    if (failed || !Meet().ok()) MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Finalize();
  }

 private:
  // Waits for the other processes, whose data may still be on their way.
  absl::Status Meet() {
    Communicator& own = *communicator();
    std::vector<Send> sends;
    std::vector<Receive> receives;
    for (int shard = 0; shard < shards(); shard += local_shards()) {
      if (shard == own.shard()) continue;
      sends.push_back({shard, nullptr, 0});
      receives.push_back({shard, nullptr, 0});
    }
    return own.Exchange("the end of the training", sends, receives, [] { return false; });
  }
};

// Measures the cost of messages between neighboring processes, and gives all shards the cost of
// process 0, so that they join the same sums.
absl::Status MeasureLink(absl::Span<const std::shared_ptr<Communicator>> communicators, int process, int processes) {
  constexpr int kTries = 8;
  constexpr size_t kBytes = 256 << 10;
  const int local = static_cast<int>(communicators.size());
  // One exchange of all shards, of which the first ones of the processes have messages.
  auto exchange = [&](absl::Span<const Send> sends, absl::Span<const Receive> receives) {
    for (int i = 0; i < local; ++i) {
      const bool is_first = i == 0;
      GW_RETURN_IF_ERROR(
          communicators[i]->Exchange("measuring the time of messages", is_first ? sends : absl::Span<const Send>(),
                                     is_first ? receives : absl::Span<const Receive>(), [] { return false; }));
    }
    return absl::OkStatus();
  };
  std::vector<char> out(kBytes), in(kBytes);
  double seconds[2] = {1e9, 1e9};  // The least of a message without bytes, and of one with kBytes.
  for (int i = 0; i < 2 * kTries; ++i) {
    const size_t bytes = i % 2 == 0 ? 0 : kBytes;
    const Send send{(process + 1) % processes * local, out.data(), bytes};
    const Receive receive{(process + processes - 1) % processes * local, in.data(), bytes};
    const auto start = std::chrono::steady_clock::now();
    GW_RETURN_IF_ERROR(exchange({&send, 1}, {&receive, 1}));
    const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    seconds[i % 2] = std::min(seconds[i % 2], taken);
  }
  LinkCost link{.seconds_per_message = std::max(seconds[0], 1e-7),
                .seconds_per_byte = std::max((seconds[1] - seconds[0]) / kBytes, 1e-12)};
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int other = 1; process == 0 && other < processes; ++other) {
    sends.push_back({other * local, &link, sizeof(link)});
  }
  if (process != 0) receives.push_back({0, &link, sizeof(link)});
  GW_RETURN_IF_ERROR(exchange(sends, receives));
  for (const std::shared_ptr<Communicator>& communicator : communicators) communicator->set_link(link);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Group>> JoinMpi(int* argc, char*** argv, const GroupOptions& options) {
  int initialized = 0, given = 0;
  MPI_Initialized(&initialized);
  if (initialized) return absl::FailedPreconditionError("distributed: Init has been called before");
  GRADWEAVE_RETURN_IF_MPI_ERROR(MPI_Init_thread, argc, argv, MPI_THREAD_SERIALIZED, &given);
  auto mpi = std::make_shared<Mpi>();
  GRADWEAVE_RETURN_IF_MPI_ERROR(MPI_Comm_set_errhandler, MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  GRADWEAVE_RETURN_IF_MPI_ERROR(MPI_Comm_rank, MPI_COMM_WORLD, &mpi->rank);
  GRADWEAVE_RETURN_IF_MPI_ERROR(MPI_Comm_size, MPI_COMM_WORLD, &mpi->size);
  const int shards = options.shards == 0 ? mpi->size : options.shards;
  absl::Status status;
  if (given < MPI_THREAD_SERIALIZED) {
    status = absl::UnavailableError("distributed: this MPI cannot be called from several threads");
  } else if (shards % mpi->size != 0) {
    status = absl::InvalidArgumentError(absl::StrCat("distributed: there are ", shards, " shards and ", mpi->size,
                                                     " processes; the shards have to be a multiple of them"));
  }
  if (!status.ok()) {  // In all processes alike.
    MPI_Finalize();
    return status;
  }
  char host[MPI_MAX_PROCESSOR_NAME] = "";
  int length = 0;
  GRADWEAVE_RETURN_IF_MPI_ERROR(MPI_Get_processor_name, host, &length);
  std::string hosts(static_cast<size_t>(mpi->size) * sizeof(host), '\0');
  GRADWEAVE_RETURN_IF_MPI_ERROR(MPI_Allgather, host, sizeof(host), MPI_CHAR, hosts.data(), sizeof(host), MPI_CHAR,
                                MPI_COMM_WORLD);
  const int local = shards / mpi->size, first = mpi->rank * local;
  std::vector<std::string> names;
  for (int shard = 0; shard < shards; ++shard) {
    const int process = shard / local;
    names.push_back(absl::StrCat("process ", process, " on host ", hosts.data() + process * sizeof(host)));
  }
  auto mailbox = std::make_shared<Mailbox>(first, local, shards, options.timeout);
  std::vector<std::shared_ptr<Communicator>> communicators;
  for (int i = 0; i < local; ++i) {
    communicators.push_back(
        MakeCommunicator(first + i, mailbox, std::make_unique<MpiMessages>(mpi, first + i, local), names));
  }
  // From here on its destructor ends MPI.
  auto group = std::make_shared<MpiGroup>(mpi->rank, mpi->size, communicators, options.shard_optimizer);
  if (mpi->size > 1) GW_RETURN_IF_ERROR(MeasureLink(communicators, mpi->rank, mpi->size));
  return group;
}

#else

absl::StatusOr<std::shared_ptr<Group>> JoinMpi(int*, char***, const GroupOptions&) {
  return absl::UnavailableError(
      "distributed: the program was started as one of several processes, and this build has no MPI; install it "
      "(libopenmpi-dev and openmpi-bin on Debian) and build again");
}

#endif

}  // namespace

bool HasMpi() {
#ifdef GRADWEAVE_MPI
  return true;
#else
  return false;
#endif
}

absl::StatusOr<std::shared_ptr<Group>> Init(int* argc, char*** argv, const GroupOptions& options) {
  GW_RETURN_IF_ERROR(CheckOptions(options));
  if (HasLauncher()) return JoinMpi(argc, argv, options);
  GW_ASSIGN_OR_RETURN(const std::vector<std::shared_ptr<Group>> groups, ThreadGroups(1, options));
  return groups[0];
}

}  // namespace gradweave::distributed
