// gradweave bench: measures runs of a model.
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/command/inputs.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/command/plan_cost.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(std::vector<std::string>, batch_sizes, (std::vector<std::string>{"1", "32", "256"}),
          "Sizes of the first symbol of the inputs' shapes.");
ABSL_FLAG(double, seconds, 0.5, "How long each row is measured, in (0, 3600].");
ABSL_FLAG(bool, steps, false, "Prints the time of each step of the plan, for the last row.");
ABSL_FLAG(std::string, trace, "", "Writes the last row's run for https://ui.perfetto.dev to this file.");

namespace gradweave::command {
namespace {

using Clock = std::chrono::steady_clock;

// The median and the shortest time of a run in seconds.
struct Times {
  double median = 0, fastest = 0;
  size_t runs = 0;
};

absl::StatusOr<Times> Measure(PreparedRun& run, double seconds) {
  constexpr int kWarmUps = 3, kFewest = 5;
  for (int i = 0; i < kWarmUps; ++i) GW_RETURN_IF_ERROR(run.Run());
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  for (Clock::time_point before = start;
       times.size() < kFewest || std::chrono::duration<double>(before - start).count() < seconds;) {
    GW_RETURN_IF_ERROR(run.Run());
    const Clock::time_point after = Clock::now();
    times.push_back(std::chrono::duration<double>(after - before).count());
    before = after;
  }
  std::sort(times.begin(), times.end());
  return Times{times[times.size() / 2], times[0], times.size()};
}

// The first symbol of the inputs' shapes, which batch sizes replace.
std::optional<std::string> BatchSymbol(const Graph& graph, absl::Span<const NodeId> inputs) {
  for (const NodeId id : inputs) {
    for (const Dim& dim : graph.node(id).outputs[0].shape) {
      if (const std::optional<std::string> symbol = dim.AsSymbol(); symbol.has_value()) return symbol;
    }
  }
  return std::nullopt;
}

absl::StatusOr<int> RunBench(absl::Span<const std::string> arguments, std::ostream& out) {
  const double seconds = absl::GetFlag(FLAGS_seconds);
  const std::string trace = absl::GetFlag(FLAGS_trace);
  if (!(seconds > 0 && seconds <= 3600)) {
    return absl::InvalidArgumentError(absl::StrCat("--seconds=", seconds, " is outside its range, (0, 3600]"));
  }
  GW_ASSIGN_OR_RETURN(const auto batch_sizes,
                      NumbersOf("batch_sizes", absl::GetFlag(FLAGS_batch_sizes), 1, int64_t{1} << 31));
  GW_ASSIGN_OR_RETURN(const auto threads, NumbersOf("threads", absl::GetFlag(FLAGS_threads), 0, 1024));
  if (batch_sizes.empty() || threads.empty()) return UsageError("--batch_sizes and --threads need a number each");
  absl::SetFlag(&FLAGS_threads, {"0"});  // Each row has its own.
  if (!trace.empty()) GW_RETURN_IF_ERROR(CheckWritable(trace));
  GW_ASSIGN_OR_RETURN(SessionOptions options, SessionFlags());
  GW_ASSIGN_OR_RETURN(ModelSource source, OpenModel(arguments[0]));
  Graph& graph = source.model.graph;
  GW_ASSIGN_OR_RETURN(const DimBindings given, SizesOf(graph, absl::GetFlag(FLAGS_shape)));
  std::vector<NamedOutput> outputs;
  if (const std::vector<std::string> names = absl::GetFlag(FLAGS_outputs); !names.empty()) {
    GW_ASSIGN_OR_RETURN(outputs, SelectOutputs(graph, names));
  } else {
    for (const NamedOutput& output : OutputsOf(graph)) {
      if (!output.is_update) outputs.push_back(output);
    }
  }
  if (outputs.empty()) return absl::InvalidArgumentError("the model has no output; --outputs names an update");
  const std::vector<NodeId> inputs = InputsOf(outputs);
  const std::optional<std::string> symbol = BatchSymbol(graph, inputs);
  const bool has_batch = symbol.has_value() && given.count(*symbol) == 0;

  out << arguments[0] << ": "
      << absl::StrJoin(outputs, ", ",
                       [](std::string* text, const NamedOutput& output) { *text += PrintableText(output.name); })
      << " on " << options.device.ToString() << "\n";
  TextTable table({has_batch ? absl::StrCat(">", *symbol) : ">runs", ">threads", ">median", ">fastest",
                   has_batch ? ">per second" : ">runs/s", ">GFLOP/s"});
  std::string steps;
  for (const int64_t size : has_batch ? batch_sizes : std::vector<int64_t>{1}) {
    for (const int64_t thread_count : threads) {
      options.threads = static_cast<int>(thread_count);
      DimBindings sizes = given;
      if (has_batch) sizes[*symbol] = size;
      GW_ASSIGN_OR_RETURN(Session session, CreateSession(source.model, options));
      GW_ASSIGN_OR_RETURN(const PlanCost cost, CostOf(session, graph, outputs, sizes));
      GW_ASSIGN_OR_RETURN(const auto feeds, RandomFeeds(graph, inputs, sizes, absl::GetFlag(FLAGS_seed)));
      GW_ASSIGN_OR_RETURN(const std::unique_ptr<PreparedRun> run, session.Prepare(feeds, FetchesOf(outputs)));
      GW_ASSIGN_OR_RETURN(const Times times, Measure(*run, seconds));
      table.AddRow({has_batch ? absl::StrCat(size) : absl::StrCat(times.runs), absl::StrCat(session.threads()),
                    TimeText(times.median), TimeText(times.fastest), Grouped(static_cast<double>(size) / times.median),
                    absl::StrFormat("%.1f", cost.flops / times.median / 1e9)});
      const bool is_last = (!has_batch || size == batch_sizes.back()) && thread_count == threads.back();
      if (is_last && (absl::GetFlag(FLAGS_steps) || !trace.empty())) {
        GW_ASSIGN_OR_RETURN(const Profile profile, session.ProfileRun(feeds, FetchesOf(outputs)));
        if (absl::GetFlag(FLAGS_steps)) steps = absl::StrCat("\n", profile.table);
        if (!trace.empty()) GW_RETURN_IF_ERROR(profile.WriteTrace(trace));
      }
    }
  }
  out << table.ToString() << steps;
  return 0;
}

}  // namespace

Subcommand Bench() {
  return {.name = "bench",
          .arguments = "MODEL",
          .summary = "Measures the time of runs, by batch size and number of threads",
          .details =
              "Inputs are random numbers. Without --outputs, it computes all outputs but updates; with\n"
              "--outputs=train_step it measures training steps.",
          .flags = {{"batch_sizes", "NUMBERS"},
                    {"threads", "NUMBERS"},
                    {"device", "DEVICE"},
                    {"outputs", "NAMES"},
                    {"shape", "NAME=SIZES"},
                    {"seconds", "NUMBER"},
                    {"steps"},
                    {"trace", "FILE"},
                    {"seed", "NUMBER"}},
          .fewest = 1,
          .most = 1,
          .run = RunBench};
}

}  // namespace gradweave::command
