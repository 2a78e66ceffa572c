// gradweave inspect: the content of a model, and the cost of a run.
#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/command/inputs.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/plan_cost.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/node_flops.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(bool, layers, false, "Prints a table of the layers: shapes, parameters and FLOPs of each scope of names.");
ABSL_FLAG(bool, variables, false, "Prints a table of the variables with their least and largest elements.");
ABSL_FLAG(bool, plan, false,
          "Prints the plan of a run: kernel, memory and FLOPs of each step, and why nodes run together.");

namespace gradweave::command {
namespace {

std::string Join(absl::Span<const Value> values) {
  return absl::StrJoin(values, ", ", [](std::string* text, const Value& value) { *text += value.type().ToString(); });
}

std::string NamesText(const Graph& graph, absl::Span<const NodeId> inputs) {
  return absl::StrJoin(inputs, ", ",
                       [&](std::string* text, NodeId id) { *text += PrintableText(graph.node(id).name); });
}

void PrintInterface(Graph& graph, absl::Span<const NamedOutput> outputs, std::ostream& out) {
  TextTable inputs({"", ""}), table({"", "", ""});
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kInput) inputs.AddRow({PrintableText(node.name), node.outputs[0].ToString()});
  }
  for (const NamedOutput& output : outputs) {
    const std::string type = output.is_update ? absl::StrCat("an update of ", Counted(output.values.size(), "variable"))
                                              : Join(output.values);
    table.AddRow({PrintableText(output.name), type,
                  output.inputs.empty() ? "" : absl::StrCat("needs ", NamesText(graph, output.inputs))});
  }
  out << "\ninputs\n" << (inputs.empty() ? "  none\n" : inputs.ToString(2));
  out << "\noutputs\n" << (table.empty() ? "  none\n" : table.ToString(2));
}

void PrintVariables(const Model& model, std::ostream& out) {
  int64_t count[2] = {0, 0}, elements[2] = {0, 0}, bytes[2] = {0, 0};
  for (const Node& node : model.graph.nodes()) {
    if (node.op->kind != OpKind::kVariable) continue;
    const int trainable = node.attribute<bool>("trainable") ? 1 : 0;
    ++count[trainable];
    elements[trainable] += node.outputs[0].shape.num_elements().size();
    bytes[trainable] += node.outputs[0].byte_size();
  }
  TextTable table({"", ">", ">", ">"});
  const auto add = [&](const char* name, int i) {
    table.AddRow({name, Counted(count[i], "variable"), Counted(elements[i], "number"),
                  BytesText(static_cast<double>(bytes[i]))});
  };
  add("trainable", 1);
  if (count[0] > 0) add("other", 0);
  out << "\nparameters\n" << table.ToString(2);
}

void PrintVariableTable(const Model& model, std::ostream& out) {
  TextTable table({"variable", "type", "trainable", ">least", ">largest"});
  for (const auto& [name, value] : model.variables) {
    const NodeId id = model.graph.FindNamed(name);
    std::string least, largest;
    if (const std::vector<double> values = value.ToDoubles(); !values.empty()) {
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      least = absl::StrCat(*low);
      largest = absl::StrCat(*high);
    }
    table.AddRow({PrintableText(name), value.type().ToString(),
                  id >= 0 && model.graph.node(id).attribute<bool>("trainable") ? "yes" : "no", least, largest});
  }
  out << "\n" << table.ToString();
}

void PrintOps(const Graph& graph, std::ostream& out) {
  std::map<std::string, int> counts;
  for (const Node& node : graph.nodes()) ++counts[node.op->name];
  std::vector<std::pair<std::string, int>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::string> lines(1);
  for (const auto& [name, count] : sorted) {
    const std::string text = absl::StrCat(name, count > 1 ? absl::StrCat(" ", count) : "");
    if (lines.back().size() + text.size() > 90) {
      lines.back() += ',';
      lines.emplace_back();
    }
    absl::StrAppend(&lines.back(), lines.back().empty() ? "" : ", ", text);
  }
  out << "\nops, " << Counted(graph.num_nodes(), "node") << "\n";
  for (const std::string& line : lines) out << "  " << line << "\n";
}

// A row for each scope of names, in the order of the nodes, which the outputs need.
void PrintLayers(const Graph& graph, absl::Span<const NamedOutput> outputs, const DimBindings& given,
                 std::ostream& out) {
  struct Layer {
    std::string name;
    TensorType output;
    int64_t parameters = 0;
    double flops = 0;
    int nodes = 0;
  };
  std::vector<bool> needed(graph.num_nodes(), false);
  for (const NamedOutput& output : outputs) {
    for (const Value& value : output.values) needed[value.port().node] = true;
  }
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    if (!needed[id] || graph.node(id).op->kind == OpKind::kVariable) continue;  // A run computes no initial values.
    for (const Port input : graph.node(id).inputs) needed[input.node] = true;
  }
  std::set<std::string> symbols;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kInput) node.outputs[0].shape.CollectSymbols(symbols);
  }
  DimBindings sizes = given;
  for (const std::string& symbol : symbols) sizes.emplace(symbol, 1);
  std::vector<Layer> layers;
  std::map<std::string, size_t> by_name;
  double parameters = 0, flops = 0;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kInput || !needed[node.id]) continue;
    const size_t slash = node.name.rfind('/');
    // Nodes without a scope are one row from one scope to the next.
    const bool has_scope = slash != std::string::npos;
    const std::string name = has_scope ? node.name.substr(0, slash) : "";
    size_t at = layers.size();
    if (has_scope) {
      at = by_name.emplace(name, layers.size()).first->second;
    } else if (!layers.empty() && layers.back().name.empty()) {
      at = layers.size() - 1;
    }
    if (at == layers.size()) layers.push_back({.name = name});
    Layer& layer = layers[at];
    ++layer.nodes;
    layer.flops += NodeFlops(graph, node, sizes);
    if (node.op->kind == OpKind::kVariable) {
      if (node.attribute<bool>("trainable")) layer.parameters += node.outputs[0].shape.num_elements().size();
      if (layer.nodes > 1) continue;
    }
    layer.output = {node.outputs[0].dtype, node.outputs[0].shape.Substitute(sizes)};
  }
  TextTable table({"layer", "output", ">parameters", ">FLOPs"});
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kInput && needed[node.id])
      table.AddRow({PrintableText(node.name), BoundType(node, sizes).ToString(), "", ""});
  }
  for (const Layer& layer : layers) {
    const std::string name = layer.name.empty() ? absl::StrCat("(", Counted(layer.nodes, "node"), " without a scope)")
                                                : PrintableText(layer.name);
    table.AddRow({name, layer.output.ToString(), Grouped(static_cast<double>(layer.parameters)), Grouped(layer.flops)});
    parameters += static_cast<double>(layer.parameters);
    flops += layer.flops;
  }
  table.AddRow({"total", "", Grouped(parameters), Grouped(flops)});
  out << "\n" << table.ToString();
}

absl::Status Describe(const std::string& path, std::ostream& out) {
  GW_ASSIGN_OR_RETURN(const SessionOptions options, SessionFlags());
  GW_ASSIGN_OR_RETURN(ModelSource source, OpenModel(path));
  Graph& graph = source.model.graph;
  GW_ASSIGN_OR_RETURN(const DimBindings sizes, SizesOf(graph, absl::GetFlag(FLAGS_shape)));
  const std::vector<std::string> names = absl::GetFlag(FLAGS_outputs);
  std::vector<NamedOutput> outputs = OutputsOf(graph);
  if (!names.empty()) {
    GW_ASSIGN_OR_RETURN(outputs, SelectOutputs(graph, names));
  }
  out << path << ": " << KindName(source.kind) << "\n";
  PrintInterface(graph, outputs, out);
  if (const std::vector<std::string> classes = ClassNamesOf(source.model); !classes.empty()) {
    std::vector<std::string> shown;
    for (const std::string& name : classes) shown.push_back(PrintableText(name));
    out << "\nclasses\n  " << absl::StrJoin(shown, ", ") << "\n";
  }
  PrintVariables(source.model, out);
  PrintOps(graph, out);
  std::vector<NamedOutput> shown;  // Without updates, unless these are asked for.
  for (const NamedOutput& output : outputs) {
    if (!output.is_update || !names.empty()) shown.push_back(output);
  }
  if (!outputs.empty()) {
    GW_ASSIGN_OR_RETURN(Session session, CreateSession(source.model, options));
    TextTable table({"output", ">FLOPs", ">peak memory"});
    for (const NamedOutput& output : outputs) {
      GW_ASSIGN_OR_RETURN(const PlanCost cost, CostOf(session, graph, {output}, sizes));
      table.AddRow({PrintableText(output.name), FlopsText(cost.flops), BytesText(cost.peak_bytes)});
    }
    const std::string with = SizesText(graph, InputsOf(outputs), sizes);
    out << "\ncost of a run" << (with.empty() ? "" : absl::StrCat(", ", with)) << "\n" << table.ToString(2);
    if (absl::GetFlag(FLAGS_plan)) {
      GW_ASSIGN_OR_RETURN(const PlanCost cost, CostOf(session, graph, shown, sizes));
      out << "\nplan of "
          << absl::StrJoin(shown, ", ",
                           [](std::string* text, const NamedOutput& output) { *text += PrintableText(output.name); })
          << "\n"
          << cost.description;
    }
  }
  if (absl::GetFlag(FLAGS_layers)) PrintLayers(graph, shown, sizes, out);
  if (absl::GetFlag(FLAGS_variables)) PrintVariableTable(source.model, out);
  return absl::OkStatus();
}

// An error leaves nothing printed.
absl::StatusOr<int> Run(absl::Span<const std::string> arguments, std::ostream& out) {
  std::ostringstream text;
  GW_RETURN_IF_ERROR(Describe(arguments[0], text));
  out << text.str();
  return 0;
}

}  // namespace

Subcommand Inspect() {
  return {.name = "inspect",
          .arguments = "MODEL",
          .summary = "Prints inputs, outputs, parameters and ops of a model, and the cost of a run",
          .details =
              "Peak memory is that of intermediate values, as planned. Of a file with a training step, it\n"
              "prints the cost of the step too.",
          .flags = {{"shape", "NAME=SIZES"},
                    {"layers"},
                    {"variables"},
                    {"plan"},
                    {"outputs", "NAMES"},
                    {"device", "DEVICE"},
                    {"threads", "NUMBER"}},
          .fewest = 1,
          .most = 1,
          .run = Run};
}

}  // namespace gradweave::command
