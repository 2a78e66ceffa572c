// Trains the models of models.h in the processes that mpirun has started, with 4 shards, and prints
// the bits of the results.
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
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
ABSL_FLAG(int64_t, fault_after_step, 0, "It happens when there is a checkpoint of this step; 0: at the start.");
ABSL_FLAG(int32_t, fault_after_ms, 0, "It happens so many milliseconds later.");

namespace gw = gradweave;

namespace {

// True if the folder has a checkpoint of the step, or of a later one.
bool HasCheckpoint(const std::string& dir, int64_t step) {
  const std::string name = absl::StrFormat("checkpoint_%012d.gw", step);
  std::error_code error;
  for (std::filesystem::directory_iterator entry(dir, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename() >= name && entry->path().extension() == ".gw") return true;
  }
  return false;
}

// Stops or ends the process, as the flags ask for.
void StartFault() {
  const int signal = absl::GetFlag(FLAGS_fault) == "kill" ? SIGKILL : SIGSTOP;
  const int64_t step = absl::GetFlag(FLAGS_fault_after_step);
  if (step == 0) {
    raise(signal);
    return;
  }
  std::thread([signal, step, dir = absl::GetFlag(FLAGS_checkpoints)] {
    while (!HasCheckpoint(dir, step)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(absl::GetFlag(FLAGS_fault_after_ms)));
    raise(signal);
  }).detach();
}

}  // namespace

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
  if (!absl::GetFlag(FLAGS_fault).empty() && group->process() == absl::GetFlag(FLAGS_fault_process)) StartFault();
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
