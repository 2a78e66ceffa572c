// Trains the models of models.h in the processes that mpirun has started, with 4 shards, and prints
// the bits of the results. With the argument "kill" or "stop", process 1 ends, or hangs, at the
// start.
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>

#include "gradweave/runtime/distributed/group.h"
#include "tests/distributed/models.h"

int main(int argc, char** argv) {
  namespace gw = gradweave;
  const std::string fault = argc > 1 ? argv[1] : "";
  if (fault == "--has-mpi") {
    std::cout << (gw::distributed::HasMpi() ? "MPI" : "no MPI") << std::endl;
    return 0;
  }
  absl::StatusOr<std::shared_ptr<gw::distributed::Group>> joined =
      gw::distributed::Init(&argc, &argv, {.shards = 4, .timeout = std::chrono::seconds(fault.empty() ? 30 : 2)});
  if (!joined.ok()) {
    std::cerr << joined.status() << std::endl;
    return 1;
  }
  const std::shared_ptr<gw::distributed::Group> group = *std::move(joined);
  if (!fault.empty() && group->process() == 1) raise(fault == "kill" ? SIGKILL : SIGSTOP);
  for (const gw::DistributedCase& model : gw::DistributedCases()) {
    const absl::StatusOr<gw::TrainingResult> result = gw::Train(model, {.threads = 1, .group = group});
    if (!result.ok()) {
      std::cerr << "process " << group->process() << ": " << result.status() << std::endl;
      return 1;
    }
    if (group->is_main()) std::cout << model.name << ": " << BitsOf(*result) << std::endl;
  }
  if (group->is_main()) {
    const gw::distributed::Communicator& communicator = *group->communicator();
    std::cerr << "shard 0 sent " << communicator.bytes_sent() << " bytes in " << communicator.exchanges()
              << " exchanges" << std::endl;
  }
  return 0;
}
