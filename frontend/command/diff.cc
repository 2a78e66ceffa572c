// gradweave diff: how two models differ.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/print.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::command {
namespace {

// The graph's lines without the lines of the user's program.
std::vector<std::string> LinesOf(const Graph& graph) {
  std::vector<std::string> lines = absl::StrSplit(GraphToText(graph), '\n', absl::SkipEmpty());
  for (size_t i = 0; i < lines.size() && i < static_cast<size_t>(graph.num_nodes()); ++i) {
    if (graph.node(static_cast<NodeId>(i)).location.file != nullptr) lines[i].resize(lines[i].rfind("  # "));
  }
  return lines;
}

bool DiffGraphs(const Graph& a, const Graph& b, std::ostream& out) {
  const std::vector<std::string> lines[] = {LinesOf(a), LinesOf(b)};
  if (lines[0] == lines[1]) {
    out << "graphs: the same, " << Counted(a.num_nodes(), "node") << "\n";
    return false;
  }
  const size_t common = std::min(lines[0].size(), lines[1].size());
  size_t first = 0;
  while (first < common && lines[0][first] == lines[1][first]) ++first;
  out << "graphs: different; the first " << first << " lines are the same, then\n";
  for (int i = 0; i < 2; ++i) {
    out << (i == 0 ? "  - " : "  + ") << (first < lines[i].size() ? lines[i][first] : "(the end)") << "\n";
  }
  std::map<std::string, std::array<int, 2>> counts;
  for (const Node& node : a.nodes()) ++counts[node.op->name][0];
  for (const Node& node : b.nodes()) ++counts[node.op->name][1];
  TextTable table({"op", ">first", ">second"});
  for (const auto& [op, count] : counts) {
    if (count[0] != count[1]) table.AddRow({op, absl::StrCat(count[0]), absl::StrCat(count[1])});
  }
  if (!table.empty()) out << table.ToString(2);
  return true;
}

// Describes how two values of one variable differ; "" if they are equal.
std::vector<std::string> DiffValues(const Tensor& a, const Tensor& b) {
  if (!(a.type() == b.type())) return {a.type().ToString(), b.type().ToString(), "", ""};
  if (SameBits(a, b)) return {};
  const std::vector<double> of_a = a.ToDoubles(), of_b = b.ToDoubles();
  double largest = 0, squares = 0, base = 0;
  int64_t count = 0;
  for (size_t i = 0; i < of_a.size(); ++i) {
    const double difference = std::abs(of_a[i] - of_b[i]);
    if (!(difference == 0)) ++count;
    largest = difference > largest || std::isnan(difference) ? difference : largest;
    squares += difference * difference;
    base += of_a[i] * of_a[i];
  }
  const double relative = squares == 0 ? 0 : std::sqrt(squares / base);
  return {a.type().ToString(),
          absl::StrCat(Grouped(static_cast<double>(count)), " of ", Grouped(static_cast<double>(of_a.size()))),
          absl::StrFormat("%.3g", largest), absl::StrFormat("%.3g", relative)};
}

bool DiffVariables(const Model& a, const Model& b, std::ostream& out) {
  std::map<std::string, const Tensor*> of_b;
  for (const auto& [name, value] : b.variables) of_b[name] = &value;
  TextTable table({"variable", "type", ">elements that differ", ">largest difference", ">relative"});
  int64_t same = 0;
  std::vector<std::string> only;
  for (const auto& [name, value] : a.variables) {
    const auto other = of_b.find(name);
    if (other == of_b.end()) {
      only.push_back(absl::StrCat("  - ", PrintableText(name), "  ", value.type().ToString()));
      continue;
    }
    std::vector<std::string> row = DiffValues(value, *other->second);
    same += row.empty() ? 1 : 0;
    of_b.erase(other);
    if (row.empty()) continue;
    row.insert(row.begin(), PrintableText(name));
    table.AddRow(std::move(row));
  }
  for (const auto& [name, value] : b.variables) {
    if (of_b.count(name) > 0) only.push_back(absl::StrCat("  + ", PrintableText(name), "  ", value.type().ToString()));
  }
  const bool differ = !table.empty() || !only.empty();
  out << "variables: " << (differ ? absl::StrCat(same, " the same") : absl::StrCat("the same, ", same)) << "\n";
  if (!table.empty()) out << table.ToString(2);
  for (const std::string& line : only) out << line << "\n";
  return differ;
}

absl::StatusOr<int> Run(absl::Span<const std::string> arguments, std::ostream& out) {
  GW_ASSIGN_OR_RETURN(const ModelSource a, OpenModel(arguments[0]));
  GW_ASSIGN_OR_RETURN(const ModelSource b, OpenModel(arguments[1]));
  const bool graphs = DiffGraphs(a.model.graph, b.model.graph, out);
  const bool variables = DiffVariables(a.model, b.model, out);
  return graphs || variables ? 1 : 0;
}

}  // namespace

Subcommand Diff() {
  return {.name = "diff",
          .arguments = "FIRST SECOND",
          .summary = "Compares the graphs and the weights of two models",
          .details =
              "The exit code is 0 if they are the same, bit for bit, and 1 if they differ. Source lines do not\n"
              "count. The relative difference of a variable is |first - second|/|first|, with Euclidean norms.",
          .flags = {},
          .fewest = 2,
          .most = 2,
          .run = Run};
}

}  // namespace gradweave::command
