// gradweave compare: finds the node where two ways to compute a model part.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/inputs.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(bool, no_passes, false,
          "Compares with a run on the same device that keeps every value: without tiles, fused rows and fast "
          "convolutions.");
ABSL_FLAG(double, tolerance, 1e-4,
          "The largest difference that counts as equal, relative to the value's largest element; at least 0.");

namespace gradweave::command {
namespace {

// A way to compute the model.
struct Side {
  std::string name;
  SessionOptions options;
};

// The largest difference, and relative to the largest element of `a`; infinite where one is NaN and
// the other is not.
struct Difference {
  double absolute = 0, relative = 0;
};

Difference Compare(const Tensor& a, const Tensor& b) {
  const std::vector<double> of_a = a.ToDoubles(), of_b = b.ToDoubles();
  double absolute = 0, largest = 0;
  for (size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i] == of_b[i] || (std::isnan(of_a[i]) && std::isnan(of_b[i]))) continue;
    const double difference = std::abs(of_a[i] - of_b[i]);
    absolute = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(absolute, difference);
  }
  for (const double value : of_a) largest = std::isfinite(value) ? std::max(largest, std::abs(value)) : largest;
  return {absolute, absolute == 0 ? 0 : largest == 0 ? std::numeric_limits<double>::infinity() : absolute / largest};
}

// The two sides: --device=A,B, or with --no_passes one device in two ways. The first is the
// reference.
absl::StatusOr<std::pair<Side, Side>> Sides() {
  const std::vector<std::string> devices = absl::StrSplit(absl::GetFlag(FLAGS_device), ',');
  const bool no_passes = absl::GetFlag(FLAGS_no_passes);
  if (devices.size() != (no_passes ? 1 : 2)) {
    return UsageError("--device=FIRST,SECOND is expected, or --no_passes with one device");
  }
  GW_ASSIGN_OR_RETURN(SessionOptions first, SessionOptionsFor(devices.front()));
  GW_ASSIGN_OR_RETURN(SessionOptions second, SessionOptionsFor(devices.back()));
  if (!no_passes) return std::pair(Side{devices[0], first}, Side{devices[1], second});
  first.batch_tiles = BatchTiles::kNever;
  first.row_fusion = RowFusion::kNever;
  first.toom_cook = false;
  return std::pair(Side{"every value kept", first}, Side{absl::StrCat("the plan for ", devices[0]), second});
}

// The values that a run computes for the outputs, in the order of the graph.
std::vector<Value> ComputedValues(Graph& graph, absl::Span<const NamedOutput> outputs) {
  std::vector<bool> needed(graph.num_nodes(), false);
  for (const NamedOutput& output : outputs) {
    for (const Value& value : output.values) needed[value.port().node] = true;
  }
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    if (!needed[id] || graph.node(id).op->is_source()) continue;
    for (const Port input : graph.node(id).inputs) needed[input.node] = true;
  }
  std::vector<Value> values;
  for (const Node& node : graph.nodes()) {
    if (!needed[node.id] || node.op->is_source()) continue;
    for (const Port port : node.ports()) values.push_back(graph.value(port));
  }
  return values;
}

absl::StatusOr<int> RunCompare(absl::Span<const std::string> arguments, std::ostream& out) {
  const double tolerance = absl::GetFlag(FLAGS_tolerance);
  if (!(tolerance >= 0)) return absl::InvalidArgumentError("--tolerance has to be at least 0");
  GW_ASSIGN_OR_RETURN(const auto sides, Sides());
  GW_ASSIGN_OR_RETURN(ModelSource source, OpenModel(arguments[0]));
  Graph& graph = source.model.graph;
  absl::SetFlag(&FLAGS_random, true);  // Inputs without a file.
  std::vector<std::string> notes;
  GW_ASSIGN_OR_RETURN(const std::vector<Feed> all_feeds, FeedsByFlags(graph, notes));
  std::vector<NamedOutput> outputs;
  if (const std::vector<std::string> names = absl::GetFlag(FLAGS_outputs); !names.empty()) {
    GW_ASSIGN_OR_RETURN(outputs, SelectOutputs(graph, names));
  } else {
    outputs = OutputsOf(graph);
  }
  outputs.erase(std::remove_if(outputs.begin(), outputs.end(), [](const NamedOutput& o) { return o.is_update; }),
                outputs.end());
  if (outputs.empty()) return absl::InvalidArgumentError("there is no output with values to compare");
  const std::vector<NodeId> inputs = InputsOf(outputs);
  std::vector<Feed> feeds;
  for (const Feed& feed : all_feeds) {
    if (std::find(inputs.begin(), inputs.end(), feed.first.port().node) != inputs.end()) feeds.push_back(feed);
  }

  GW_ASSIGN_OR_RETURN(Session reference, CreateSession(source.model, sides.first.options));
  GW_ASSIGN_OR_RETURN(Session other, CreateSession(source.model, sides.second.options));
  const std::vector<Value> values = ComputedValues(graph, outputs);
  const uint64_t run = reference.run_number();  // Each run draws the same random numbers.
  GW_ASSIGN_OR_RETURN(const auto expected, reference.Run(feeds, {values.begin(), values.end()}));
  other.SetRunNumber(run);
  GW_ASSIGN_OR_RETURN(const auto results, other.Run(feeds, FetchesOf(outputs)));

  const auto expected_of = [&](const Value& value) -> absl::StatusOr<Tensor> {
    const auto found = std::find(values.begin(), values.end(), value);
    if (found != values.end()) return expected[found - values.begin()];
    reference.SetRunNumber(run);  // An output that is an input, a constant or a variable.
    GW_ASSIGN_OR_RETURN(const auto tensors, reference.Run(feeds, {value}));
    return tensors[0];
  };
  TextTable table({"output", "type", ">largest difference", ">relative", ""});
  bool differs = false;
  size_t at = 0;
  for (const NamedOutput& output : outputs) {
    for (const Value& value : output.values) {
      GW_ASSIGN_OR_RETURN(const Tensor wanted, expected_of(value));
      const Tensor& result = results[at++];
      const Difference difference = Compare(wanted, result);
      const bool is_different = difference.relative > tolerance;
      differs |= is_different;
      table.AddRow({PrintableText(output.name), result.type().ToString(), absl::StrFormat("%.3g", difference.absolute),
                    absl::StrFormat("%.3g", difference.relative), is_different ? "different" : "equal"});
    }
  }
  out << sides.first.name << " beside " << sides.second.name << "\n" << table.ToString(2);
  if (!differs) return 0;
  for (size_t i = 0; i < values.size(); ++i) {
    other.SetRunNumber(run);
    GW_ASSIGN_OR_RETURN(const auto single, other.Run(feeds, {values[i]}));
    const Difference difference = Compare(expected[i], single[0]);
    if (difference.relative <= tolerance) continue;
    out << absl::StrFormat("first node that differs: %s, relative difference %.3g\n",
                           DescribeNode(graph, values[i].node()), difference.relative);
    return 1;
  }
  out << "no value differs where it is computed alone; the difference comes from nodes that run together\n";
  return 1;
}

}  // namespace

Subcommand Compare() {
  return {.name = "compare",
          .arguments = "MODEL",
          .summary = "Compares the results of two devices, or of a plan and its nodes one by one",
          .details =
              "It prints the difference of each output, and the first node that differs. The exit code is 1 if\n"
              "an output differs. Inputs without a file are random numbers.",
          .flags = {{"device", "FIRST,SECOND"},
                    {"no_passes"},
                    {"tolerance", "NUMBER"},
                    {"input", "NAME=FILE"},
                    {"shape", "NAME=SIZES"},
                    {"outputs", "NAMES"},
                    {"threads", "NUMBER"},
                    {"seed", "NUMBER"}},
          .fewest = 1,
          .most = 1,
          .run = RunCompare};
}

}  // namespace gradweave::command
