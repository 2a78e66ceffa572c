#include "gradweave/runtime/plan/describe_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/body.h"

namespace gradweave {
namespace {

// The ops of a kernel's nodes in their order, with their counts: "Sum 2, Mul".
std::string OpsOf(const Kernel& kernel) {
  std::vector<std::pair<absl::string_view, int>> counts;
  for (const Kernel::Part& part : kernel.parts) {
    auto found =
        std::find_if(counts.begin(), counts.end(), [&](const auto& count) { return count.first == part.name; });
    if (found == counts.end()) found = counts.insert(found, {part.name, 0});
    ++found->second;
  }
  return absl::StrJoin(counts, ", ", [](std::string* text, const auto& count) {
    absl::StrAppend(text, count.first);
    if (count.second > 1) absl::StrAppend(text, " ", count.second);
  });
}

double FlopsOf(const Graph& graph, const PlanStep& step) {
  double flops = 0;
  for (const Kernel::Part& part : step.kernel.parts) flops += part.flops;
  const Node& node = graph.node(step.node);
  if (!step.kernel.parts.empty() || node.op->flops == nullptr) return flops;
  const TensorTypes operands = graph.OperandTypes(node);
  return node.op->flops(OpView(*node.op, node.attributes, operands), node.outputs);
}

// Only a profiled run has times.
std::string Times(double microseconds, double flops) {
  if (microseconds <= 0) return "";
  return absl::StrFormat(" %11.1f %8.1f", microseconds, flops / microseconds / 1e3);
}

void AppendParts(const Graph& graph, const PlanStep& step, std::string& text) {
  for (size_t i = 0; i < step.kernel.parts.size(); ++i) {
    const Kernel::Part& part = step.kernel.parts[i];
    const double microseconds = i < step.part_microseconds.size() ? step.part_microseconds[i] : 0;
    if (HasBody(graph.node(part.node))) {
      // The part is a step of the body, whose nodes are not nodes of the graph.
      absl::StrAppendFormat(&text, "      %-101s %13.0f%s\n", part.name, part.flops, Times(microseconds, part.flops));
      continue;
    }
    absl::StrAppendFormat(&text, "      %-36s %-24s %-26s %12s %13.0f%s\n", graph.node(part.node).display_name(),
                          part.name, graph.node(part.node).outputs[0].ToString(), "", part.flops,
                          Times(microseconds, part.flops));
  }
}

}  // namespace

std::string DescribePlan(const Plan& plan, const PlanNotes& notes) {
  const Graph& graph = plan.graph;
  const bool several_devices = plan.devices.size() > 1;
  auto devices = [&](absl::string_view device, absl::string_view stream) {
    return several_devices ? absl::StrFormat("%-8s %-6s ", device, stream) : std::string();
  };
  std::string text =
      absl::StrFormat("%-5s %-36s %s%-24s %-26s %12s %13s %11s %8s\n", "step", "node", devices("device", "stream"),
                      "kernel", "output", "bytes", "FLOPs", "us", "GFLOP/s");
  double total_flops = 0, total_microseconds = 0;
  for (int i = 0; i < static_cast<int>(plan.steps.size()); ++i) {
    const PlanStep& step = plan.steps[i];
    const Node& node = graph.node(step.node);
    const double flops = FlopsOf(graph, step);
    int64_t bytes = 0;
    for (Port output : step.outputs) bytes += graph.type(output).byte_size();
    const std::string name = step.num_nodes == 1 ? node.display_name() : absl::StrCat(step.num_nodes, " nodes");
    const std::string output = step.outputs.size() == 1 ? graph.type(step.outputs[0]).ToString()
                                                        : absl::StrCat(step.outputs.size(), " values");
    absl::StrAppendFormat(&text, "%-5d %-36s %s%-24s %-26s %12d %13.0f%s\n", i, name,
                          devices(node.device, notes.stream == nullptr ? "" : notes.stream(i)), step.kernel.name,
                          output, bytes, flops, Times(step.microseconds, flops));
    if (!several_devices) AppendParts(graph, step, text);
    if (several_devices && step.num_nodes > 1) absl::StrAppend(&text, "      holds ", OpsOf(step.kernel), "\n");
    total_flops += flops;
    total_microseconds += step.microseconds;
  }
  absl::StrAppendFormat(&text, "%d steps, %.0f FLOPs, planned peak %d bytes, lower bound %d bytes", plan.steps.size(),
                        total_flops, plan.arenas.back().bytes(), plan.arenas.back().lower_bound_bytes());
  if (several_devices && plan.arenas[0].bytes() > 0) {
    absl::StrAppendFormat(&text, "; %d bytes on the CPU", plan.arenas[0].bytes());
  }
  if (total_microseconds > 0) {
    absl::StrAppendFormat(&text, "; %.1f us, %.1f GFLOP/s", total_microseconds, total_flops / total_microseconds / 1e3);
  }
  absl::StrAppend(&text, notes.total, "\n", notes.lines);
  for (const std::string& line : plan.choices) absl::StrAppend(&text, line, "\n");
  for (const std::string& line : plan.moved) absl::StrAppend(&text, line, "\n");
  return text;
}

}  // namespace gradweave
