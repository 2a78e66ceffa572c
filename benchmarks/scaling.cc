// Measures a training step in a single process and in the group that mpirun has started, and
// predicts the rate with 2 to 1,024 processes, each with the same number of examples per step:
//   mpirun -np 2 bazel-bin/benchmarks/scaling --model=lenet --threads=1
//
// The model of the network is LogP with a term for bytes (Alexandrov et al., "LogGP", 1995): an
// AllReduce over P processes has two exchanges, in each of which a process sends P - 1 messages at
// once:
//   exchange = latency + (P - 2)*overhead + (P - 1)/P * bytes / bandwidth
// A step takes the sum of computation and exchanges if nothing overlaps, and the larger of the two
// if everything overlaps. A training is between these.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "benchmarks/models.h"
#include "gradweave/runtime/distributed/group.h"

ABSL_FLAG(std::string, model, "lenet", "A name of benchmarks/models.h.");
ABSL_FLAG(int64_t, batch_size, 128, "Examples per step and process, at least 1.");
ABSL_FLAG(int32_t, threads, 1, "Threads of each process.");
ABSL_FLAG(double, seconds, 2, "Duration of each measurement in seconds, above 0.");
ABSL_FLAG(bool, shard_optimizer, false, "Divides the state of optimizers among the processes.");
ABSL_FLAG(bool, rate_only, false, "Prints the examples per second of all processes together, and nothing else.");
ABSL_FLAG(double, latency_us, 0, "Microseconds of an empty message; 0: as measured in this group.");
ABSL_FLAG(double, gigabits_per_second, 0, "Rate of a process's link; 0: as measured in this group.");
ABSL_FLAG(double, overhead_us, 1, "Microseconds for each further message of an exchange, at least 0.");

namespace {

namespace distributed = gw::distributed;
using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

absl::Status CheckFlags() {
  const std::vector<std::string> models = benchmarks::ModelNames();
  if (std::find(models.begin(), models.end(), absl::GetFlag(FLAGS_model)) == models.end()) {
    return absl::InvalidArgumentError(absl::StrCat("--model: there is no model '", absl::GetFlag(FLAGS_model), "'"));
  }
  if (absl::GetFlag(FLAGS_batch_size) < 1) return absl::InvalidArgumentError("--batch_size has to be at least 1");
  const double seconds = absl::GetFlag(FLAGS_seconds);
  if (!(seconds > 0 && seconds < 1e6)) return absl::InvalidArgumentError("--seconds has to be in (0, 1000000)");
  for (const auto& [name, number] : {std::pair("latency_us", absl::GetFlag(FLAGS_latency_us)),
                                     std::pair("gigabits_per_second", absl::GetFlag(FLAGS_gigabits_per_second)),
                                     std::pair("overhead_us", absl::GetFlag(FLAGS_overhead_us))}) {
    if (number >= 0 && std::isfinite(number)) continue;
    return absl::InvalidArgumentError(absl::StrCat("--", name, " has to be at least 0 and finite"));
  }
  return absl::OkStatus();
}

// The number of steps that take about the time of the flag, the same in all processes.
absl::StatusOr<int64_t> StepsOf(double step_seconds, distributed::Communicator& communicator) {
  auto steps = static_cast<int64_t>(std::clamp(absl::GetFlag(FLAGS_seconds) / step_seconds, 3.0, 1e6));
  std::vector<distributed::Send> sends;
  std::vector<distributed::Receive> receives;
  for (int shard = 1; communicator.shard() == 0 && shard < communicator.shards(); ++shard) {
    sends.push_back({shard, &steps, sizeof(steps)});
  }
  if (communicator.shard() != 0) receives.push_back({0, &steps, sizeof(steps)});
  GW_RETURN_IF_ERROR(communicator.Exchange("the number of steps", sends, receives, [] { return false; }));
  return steps;
}

// The median of the times of this many steps.
double MedianStep(benchmarks::ModelRun& run, int64_t steps) {
  std::vector<double> times;
  for (int64_t i = 0; i < steps; ++i) {
    const Clock::time_point start = Clock::now();
    run.Step();
    times.push_back(Since(start));
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

// Warms up, and returns the time of a step.
double WarmUp(benchmarks::ModelRun& run) {
  for (int i = 0; i < 3; ++i) run.Step();
  const Clock::time_point start = Clock::now();
  run.Step();
  return Since(start);
}

struct Network {
  double latency, seconds_per_byte, overhead;  // Seconds.
};

Network NetworkOf(const distributed::LinkCost& measured) {
  const double latency = absl::GetFlag(FLAGS_latency_us), gigabits = absl::GetFlag(FLAGS_gigabits_per_second);
  return {.latency = latency > 0 ? latency * 1e-6 : measured.seconds_per_message,
          .seconds_per_byte = gigabits > 0 ? 8e-9 / gigabits : measured.seconds_per_byte,
          .overhead = absl::GetFlag(FLAGS_overhead_us) * 1e-6};
}

// A step exchanges `bytes` of summed values in some messages; a process of P sends 2*(P - 1)/P of
// these bytes.
struct Traffic {
  double exchanges, bytes;
};

double SecondsOf(const Network& network, const Traffic& traffic, int processes) {
  if (processes <= 1) return 0;
  const double sent = 2.0 * (processes - 1) / processes * traffic.bytes;
  return traffic.exchanges * (network.latency + (processes - 2) * network.overhead) + sent * network.seconds_per_byte;
}

void PrintPrediction(const Network& network, const Traffic& traffic, double compute, int64_t batch_size) {
  std::cout << absl::StrFormat("%-10s %14s %14s %14s %14s\n", "processes", "step, serial", "step, hidden", "examples/s",
                               "efficiency");
  for (int processes = 1; processes <= 1024; processes *= 2) {
    const double exchanges = SecondsOf(network, traffic, processes);
    const double serial = compute + exchanges, hidden = std::max(compute, exchanges);
    const double rate = processes * static_cast<double>(batch_size);
    std::cout << absl::StrFormat("%-10d %11.3f ms %11.3f ms %6.0f-%7.0f %6.2f-%7.2f\n", processes, serial * 1e3,
                                 hidden * 1e3, rate / serial, rate / hidden, compute / serial, compute / hidden);
  }
}

absl::Status Run(int* argc, char*** argv) {
  GW_RETURN_IF_ERROR(CheckFlags());
  GW_ASSIGN_OR_RETURN(const std::shared_ptr<distributed::Group> group,
                      distributed::Init(argc, argv, {.shard_optimizer = absl::GetFlag(FLAGS_shard_optimizer)}));
  distributed::Communicator& communicator = *group->communicator();
  const int processes = group->processes();
  const std::string model = absl::GetFlag(FLAGS_model);
  const int64_t batch_size = absl::GetFlag(FLAGS_batch_size);

  // All processes compute alone at the same time, as they share a machine's memory in the group,
  // too.
  benchmarks::ModelRun alone = benchmarks::Training(model, batch_size, {.threads = absl::GetFlag(FLAGS_threads)});
  GW_ASSIGN_OR_RETURN(int64_t steps, StepsOf(WarmUp(alone), communicator));
  const double compute = MedianStep(alone, steps);

  benchmarks::ModelRun together =
      benchmarks::Training(model, batch_size, {.threads = absl::GetFlag(FLAGS_threads), .group = group});
  GW_ASSIGN_OR_RETURN(steps, StepsOf(WarmUp(together), communicator));
  const int64_t bytes_before = communicator.bytes_sent(), exchanges_before = communicator.exchanges();
  const double measured = MedianStep(together, steps);
  const double bytes = static_cast<double>(communicator.bytes_sent() - bytes_before) / static_cast<double>(steps);
  const double exchanges =
      static_cast<double>(communicator.exchanges() - exchanges_before) / static_cast<double>(steps);
  if (!group->is_main()) return absl::OkStatus();

  const double examples = static_cast<double>(batch_size) * processes;
  if (absl::GetFlag(FLAGS_rate_only)) {
    std::cout << absl::StrFormat("%.1f\n", examples / measured);
    return absl::OkStatus();
  }
  // With several processes the traffic is measured. One process alone sends nothing: all gradients
  // in one sum, then.
  const double parameters = static_cast<double>(together.model.parameters) * sizeof(float);
  const Traffic traffic =
      processes > 1 ? Traffic{exchanges, bytes * processes / (2.0 * (processes - 1))} : Traffic{2, parameters};
  const Network network = NetworkOf(communicator.link());
  std::cout << absl::StrFormat("%s, %d examples per step and process, %d threads each, %d parameters\n", model,
                               batch_size, absl::GetFlag(FLAGS_threads), together.model.parameters)
            << absl::StrFormat("a step alone: %.3f ms; with %d processes: %.3f ms, %.1f examples/s\n", compute * 1e3,
                               processes, measured * 1e3, examples / measured);
  if (processes > 1) {
    std::cout << absl::StrFormat("a process sends %.0f bytes per step in %.1f exchanges; the bound of a ring is %.0f\n",
                                 bytes, exchanges, 2.0 * (processes - 1) / processes * parameters);
  }
  std::cout << absl::StrFormat("network: %.2f us per message, %.2f Gbit/s, %.2f us for each further message\n\n",
                               network.latency * 1e6, 8e-9 / network.seconds_per_byte, network.overhead * 1e6);
  PrintPrediction(network, traffic, compute, batch_size);
  if (processes > 1) {
    // Compares the measurement of this group with the model for the group's own network.
    const double own = SecondsOf({communicator.link().seconds_per_message, communicator.link().seconds_per_byte, 0},
                                 traffic, processes);
    std::cout << absl::StrFormat(
        "\npredicted for this group: %.3f to %.3f ms; measured: %.3f ms, %+.0f %% of the latter\n",
        std::max(compute, own) * 1e3, (compute + own) * 1e3, measured * 1e3, (measured / (compute + own) - 1) * 100);
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = Run(&argc, &argv);
  if (!status.ok()) std::cerr << status.message() << std::endl;
  return status.ok() ? 0 : 1;
}
