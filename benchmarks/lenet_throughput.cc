// LeNet's training step, for comparison with other systems: prints the examples a second, the median over rounds. The
// same work as peers/lenet_pytorch.py.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "benchmarks/models.h"

ABSL_FLAG(int64_t, batch_size, 256, "Images in a step.");
ABSL_FLAG(int32_t, threads, 2, "Threads of a run.");
ABSL_FLAG(int32_t, rounds, 5, "Rounds, of which the median counts.");
ABSL_FLAG(int32_t, steps, 40, "Steps in a round.");

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const int64_t batch_size = absl::GetFlag(FLAGS_batch_size);
  const int steps = absl::GetFlag(FLAGS_steps);
  benchmarks::TrainingRun run = benchmarks::LeNetTraining(batch_size, absl::GetFlag(FLAGS_threads));
  for (int i = 0; i < 5; ++i) run.Step();
  std::vector<double> rates;
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i) run.Step();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    rates.push_back(static_cast<double>(steps * batch_size) / seconds.count());
  }
  std::sort(rates.begin(), rates.end());
  std::cout << absl::StrFormat("%.0f\n", rates[rates.size() / 2]);
  return 0;
}
