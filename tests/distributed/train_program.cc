// Trains the models of models.h in the processes that mpirun has started, with 4 shards, and prints
// the bits of the results.
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "gradweave/runtime/distributed/group.h"
#include "tests/distributed/models.h"

ABSL_FLAG(bool, has_mpi, false, "Prints whether the build has MPI, and ends.");
ABSL_FLAG(std::string, model, "", "Trains the one of this name; empty: all.");
ABSL_FLAG(int64_t, epochs, gradweave::kEpochs, "Epochs of 3 steps.");
ABSL_FLAG(bool, shard_optimizer, false, "GroupOptions::shard_optimizer.");
ABSL_FLAG(std::string, checkpoints, "", "Folder for a checkpoint after each step; empty: none.");
ABSL_FLAG(bool, resume, false, "Goes on from the newest checkpoint.");
ABSL_FLAG(int32_t, timeout, 30, "Seconds for which a process waits for the others.");
ABSL_FLAG(std::string, fault, "", "kill or stop: what happens to a process.");
ABSL_FLAG(int32_t, fault_process, 1, "The process.");
ABSL_FLAG(int32_t, fault_after_ms, 0, "Milliseconds from its start to then.");

namespace gw = gradweave;

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (absl::GetFlag(FLAGS_has_mpi)) {
    std::cout << (gw::distributed::HasMpi() ? "MPI" : "no MPI") << std::endl;
    return 0;
  }
  const gw::distributed::GroupOptions options{.shards = 4,
                                              .timeout = std::chrono::seconds(absl::GetFlag(FLAGS_timeout)),
                                              .shard_optimizer = absl::GetFlag(FLAGS_shard_optimizer)};
  absl::StatusOr<std::shared_ptr<gw::distributed::Group>> joined = gw::distributed::Init(nullptr, nullptr, options);
  if (!joined.ok()) {
    std::cerr << joined.status() << std::endl;
    return 1;
  }
  const std::shared_ptr<gw::distributed::Group> group = *std::move(joined);
  const std::string fault = absl::GetFlag(FLAGS_fault);
  if (!fault.empty() && group->process() == absl::GetFlag(FLAGS_fault_process)) {
    const int signal = fault == "kill" ? SIGKILL : SIGSTOP;
    const std::chrono::milliseconds delay(absl::GetFlag(FLAGS_fault_after_ms));
    if (delay.count() == 0) {
      raise(signal);
    } else {
      std::thread([signal, delay] {
        std::this_thread::sleep_for(delay);
        raise(signal);
      }).detach();
    }
  }
  for (const gw::DistributedCase& model : gw::DistributedCases()) {
    if (const std::string name = absl::GetFlag(FLAGS_model); !name.empty() && name != model.name) continue;
    gw::FitOptions fit{.epochs = absl::GetFlag(FLAGS_epochs)};
    if (const std::string dir = absl::GetFlag(FLAGS_checkpoints); group->is_main() && !dir.empty()) {
      fit.checkpoints = {
          .dir = dir, .every = {1, gw::CheckpointInterval::kSteps}, .resume = absl::GetFlag(FLAGS_resume)};
    }
    const absl::StatusOr<gw::TrainingResult> result = gw::Train(model, {.threads = 1, .group = group}, fit);
    if (!result.ok()) {
      std::cerr << "process " << group->process() << ": " << result.status() << std::endl;
      return 1;
    }
    if (group->is_main()) std::cout << model.name << ": " << gw::BitsOf(*result) << std::endl;
  }
  if (group->is_main()) {
    const gw::distributed::Communicator& communicator = *group->communicator();
    std::cerr << "shard 0 sent " << communicator.bytes_sent() << " bytes in " << communicator.exchanges()
              << " exchanges" << std::endl;
  }
  return 0;
}
