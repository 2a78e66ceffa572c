// Measures one model's training step or inference for the comparison with other frameworks. Prints
// the examples per second: the median over windows of time. The scripts in peers/ do the same work
// and print the same. With --details it prints a JSON object on one line:
//   examples_per_second   the same
//   step_seconds          batch size / examples_per_second
//   first_step_seconds    from the built model and its initial weights to the end of the first step
//   planned_peak_bytes    values and scratch of a step; not weights and feeds
//   resident_peak_bytes   of the whole process, at the end of the measurement
//   parameters            trained numbers
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "benchmarks/models.h"
#include "benchmarks/rates.h"

ABSL_FLAG(std::string, model, "lenet",
          "A name of benchmarks/models.h; or sgemm or fma for the machine's peak rate in GFLOP/s.");
ABSL_FLAG(std::string, mode, "train", "train or infer.");
ABSL_FLAG(int64_t, batch_size, 256, "Examples per step.");
ABSL_FLAG(std::string, device, "cpu", "cpu, cuda or cuda:<index>.");
ABSL_FLAG(std::string, precision, "ieee",
          "ieee, tf32 or bf16: precision to which matrix products on a CUDA device may round their operands.");
ABSL_FLAG(std::string, generated_kernels, "auto",
          "auto, always or never: use of generated kernels for elementwise chains and convolutions on a CUDA device.");
ABSL_FLAG(int32_t, threads, 2, "Number of threads.");
ABSL_FLAG(std::string, tiles, "auto", "auto, always or never: execution of op chains on tiles of samples.");
ABSL_FLAG(bool, row_fusion, true, "Fuse elementwise ops and reductions over the same rows.");
ABSL_FLAG(std::string, mixed_precision, "float32",
          "float32, bfloat16 or float16: type of the operands of products and convolutions.");
ABSL_FLAG(bool, toom_cook, true, "Let convolutions use the Toom-Cook algorithm.");
ABSL_FLAG(double, seconds, 2, "Duration of the measurement in seconds.");
ABSL_FLAG(bool, details, false, "Print a JSON object with latency and memory too.");
ABSL_FLAG(bool, serve, false, "Measure once for each line of stdin, a number of seconds, and print as with --details.");
ABSL_FLAG(bool, plan, false, "Print the plan with measured times instead of the rate.");
ABSL_FLAG(std::string, trace, "", "File for the trace of one step, for Perfetto or chrome://tracing.");

namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Half a second lets the processor reach its full clock rate.
void WarmUp(const std::function<void()>& step) {
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < 3 || Since(start) < 0.5; ++i) step();
}

// Returns the median rate over windows of time. Each call of `step` counts as `amount`.
double MedianRate(const std::function<void()>& step, double amount, double seconds) {
  std::vector<double> rates;
  for (const Clock::time_point begin = Clock::now(); rates.size() < 3 || Since(begin) < seconds;) {
    const Clock::time_point window = Clock::now();
    int steps = 0;
    while (steps == 0 || Since(window) < 0.2) step(), ++steps;
    rates.push_back(steps * amount / Since(window));
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

// Returns the number behind `key`, which the text must contain.
int64_t NumberBehind(absl::string_view text, absl::string_view key) {
  const size_t start = text.rfind(key);
  int64_t number = 0;
  if (start == absl::string_view::npos) std::cerr << "no '" << key << "' in: " << text << std::endl, std::exit(1);
  const absl::string_view behind = text.substr(start + key.size());
  const std::vector<absl::string_view> words = absl::StrSplit(behind, absl::ByAnyChar(" \t\n,"), absl::SkipEmpty());
  if (words.empty() || !absl::SimpleAtoi(words[0], &number))
    std::cerr << "no number behind '" << key << "'" << std::endl, std::exit(1);
  return number;
}

// Returns the largest number of bytes that the process has had in memory so far (proc(5)).
int64_t ResidentPeak() {
  std::ifstream file("/proc/self/status");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return NumberBehind(text, "VmHWM:") * 1024;
}

absl::Status CheckOneOf(absl::string_view flag, absl::string_view value, std::initializer_list<absl::string_view> all) {
  if (std::find(all.begin(), all.end(), value) != all.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is '", value, "' and has to be one of: ", absl::StrJoin(all, ", ")));
}

// Returns the status with the flag's name in front of its message.
absl::Status OfFlag(absl::string_view flag, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("--", flag, ": ", status.message()));
}

absl::StatusOr<gw::SessionOptions> OptionsOfFlags() {
  const std::string tiles = absl::GetFlag(FLAGS_tiles), generated = absl::GetFlag(FLAGS_generated_kernels);
  GW_RETURN_IF_ERROR(CheckOneOf("tiles", tiles, {"auto", "always", "never"}));
  GW_RETURN_IF_ERROR(CheckOneOf("generated_kernels", generated, {"auto", "always", "never"}));
  const std::string mixed = absl::GetFlag(FLAGS_mixed_precision);
  GW_RETURN_IF_ERROR(CheckOneOf("mixed_precision", mixed, {"float32", "bfloat16", "float16"}));
  const absl::StatusOr<gw::Device> device = gw::Device::Parse(absl::GetFlag(FLAGS_device));
  const absl::Status available = device.ok() ? device->CheckAvailable() : device.status();
  if (!available.ok()) return OfFlag("device", available);
  const absl::StatusOr<gw::ProductPrecision> precision = gw::ParseProductPrecision(absl::GetFlag(FLAGS_precision));
  if (!precision.ok()) return OfFlag("precision", precision.status());
  return gw::SessionOptions{
      .device = *device,
      .threads = absl::GetFlag(FLAGS_threads),
      .batch_tiles = tiles == "always"  ? gw::BatchTiles::kAlways
                     : tiles == "never" ? gw::BatchTiles::kNever
                                        : gw::BatchTiles::kAuto,
      .row_fusion = absl::GetFlag(FLAGS_row_fusion) ? gw::RowFusion::kAuto : gw::RowFusion::kNever,
      .toom_cook = absl::GetFlag(FLAGS_toom_cook),
      .mixed_precision = mixed == "float32" ? std::nullopt : gw::DTypeFromName(mixed),
      .cuda = {.product_precision = *precision,
               .generated_kernels = generated == "always"  ? gw::GeneratedKernels::kAlways
                                    : generated == "never" ? gw::GeneratedKernels::kNever
                                                           : gw::GeneratedKernels::kAuto}};
}

// Prints the peak rate of the machine, of `sgemm` or of multiply-adds.
void PrintPeakRate(bool sgemm) {
  benchmarks::RateProbe probe(sgemm, absl::GetFlag(FLAGS_threads));
  const auto step = [&] { probe.Step(); };
  WarmUp(step);
  std::cout << absl::StrFormat("%.1f\n", MedianRate(step, probe.flops() / 1e9, absl::GetFlag(FLAGS_seconds)));
}

// Prints the plan with measured times, and writes the trace, as the flags ask for.
absl::Status PrintProfile(benchmarks::ModelRun& run) {
  for (int i = 0; i < 20; ++i) run.Step();
  GW_ASSIGN_OR_RETURN(const gw::Profile profile, run.session->ProfileRun(run.feeds, run.fetches));
  if (absl::GetFlag(FLAGS_plan)) std::cout << profile.table;
  const std::string trace = absl::GetFlag(FLAGS_trace);
  return trace.empty() ? absl::OkStatus() : profile.WriteTrace(trace);
}

// Prints the rate, or JSON objects with details, as the flags ask for.
absl::Status PrintRates(benchmarks::ModelRun& run, int64_t batch_size) {
  const auto step = [&] { run.Step(); };
  const Clock::time_point first = Clock::now();
  step();
  const double first_step = run.prepare_seconds + Since(first);
  WarmUp(step);
  const auto amount = static_cast<double>(batch_size);
  const bool serve = absl::GetFlag(FLAGS_serve);
  double duration = absl::GetFlag(FLAGS_seconds);
  if (!serve && !absl::GetFlag(FLAGS_details)) {
    std::cout << absl::StrFormat("%.1f\n", MedianRate(step, amount, duration));
    return absl::OkStatus();
  }
  GW_ASSIGN_OR_RETURN(const std::string plan, run.session->DescribePlan(run.feeds, run.fetches));
  while (!serve || std::cin >> duration) {
    const double rate = MedianRate(step, amount, duration);
    std::cout << absl::StrFormat(
                     "{\"examples_per_second\": %.1f, \"step_seconds\": %.6g, \"first_step_seconds\": %.6g, "
                     "\"planned_peak_bytes\": %d, \"resident_peak_bytes\": %d, \"parameters\": %d}",
                     rate, amount / rate, first_step, NumberBehind(plan, "planned peak "), ResidentPeak(),
                     run.model.parameters)
              << std::endl;
    if (!serve) break;
  }
  return absl::OkStatus();
}

absl::Status Run() {
  const std::string model = absl::GetFlag(FLAGS_model), mode = absl::GetFlag(FLAGS_mode);
  if (model == "sgemm" || model == "fma") {
    PrintPeakRate(model == "sgemm");
    return absl::OkStatus();
  }
  GW_RETURN_IF_ERROR(CheckOneOf("mode", mode, {"train", "infer"}));
  const int64_t batch_size = absl::GetFlag(FLAGS_batch_size);
  if (batch_size < 1) return absl::InvalidArgumentError("--batch_size has to be at least 1");
  GW_ASSIGN_OR_RETURN(const gw::SessionOptions options, OptionsOfFlags());
  benchmarks::ModelRun run = mode == "train" ? benchmarks::Training(model, batch_size, options)
                                             : benchmarks::Inference(model, batch_size, options);
  if (absl::GetFlag(FLAGS_plan) || !absl::GetFlag(FLAGS_trace).empty()) return PrintProfile(run);
  return PrintRates(run, batch_size);
}

}  // namespace

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = Run();
  if (!status.ok()) std::cerr << status.message() << std::endl;
  return status.ok() ? 0 : 1;
}
