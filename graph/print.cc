#include "gradweave/graph/print.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradweave {
namespace {

void AppendPort(std::string* out, Port port) {
  absl::StrAppend(out, "%", port.node);
  if (port.output != 0) absl::StrAppend(out, ":", port.output);
}

std::string PortsText(absl::Span<const Port> ports) { return absl::StrJoin(ports, ", ", AppendPort); }

std::string AttributesText(const Node& node) {
  std::string text;
  for (size_t i = 0; i < node.attributes.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", node.op->attributes[i].name, "=", ToString(node.attributes[i]));
  }
  return text;
}

// Escapes text for a quoted label of the dot language.
std::string Escaped(absl::string_view text) { return absl::CEscape(text); }

}  // namespace

std::string GraphToText(const Graph& graph) {
  std::string text;
  for (const Node& node : graph.nodes()) {
    absl::StrAppend(&text, "%", node.id);
    if (!node.name.empty()) absl::StrAppend(&text, " \"", Escaped(node.name), "\"");
    absl::StrAppend(&text, " = ", node.op->name, "(", PortsText(node.inputs), ")");
    if (!node.attributes.empty()) absl::StrAppend(&text, " {", AttributesText(node), "}");
    absl::StrAppend(&text, " : ", ToString(node.outputs));
    if (!node.device.empty()) absl::StrAppend(&text, " @", node.device);
    if (node.location.file != nullptr) absl::StrAppend(&text, "  # ", ToString(node.location));
    absl::StrAppend(&text, "\n");
  }
  for (const auto& [name, ports] : graph.outputs()) {
    absl::StrAppend(&text, "output \"", Escaped(name), "\" = ", PortsText(ports), "\n");
  }
  return text;
}

std::string GraphToDot(const Graph& graph) {
  std::string text = "digraph gradweave {\n  node [shape=box, fontname=\"Helvetica\"];\n";
  for (const Node& node : graph.nodes()) {
    absl::StrAppend(&text, "  n", node.id, " [label=\"", Escaped(node.op->name));
    if (!node.name.empty()) absl::StrAppend(&text, "\\n", Escaped(node.name));
    absl::StrAppend(&text, "\\n", Escaped(ToString(node.outputs)), "\"];\n");
    for (Port input : node.inputs) {
      absl::StrAppend(&text, "  n", input.node, " -> n", node.id);
      if (input.output != 0) absl::StrAppend(&text, " [label=\"", input.output, "\"]");
      absl::StrAppend(&text, ";\n");
    }
  }
  int number = 0;
  for (const auto& [name, ports] : graph.outputs()) {
    absl::StrAppend(&text, "  o", number, " [shape=ellipse, label=\"", Escaped(name), "\"];\n");
    for (Port port : ports) absl::StrAppend(&text, "  n", port.node, " -> o", number, ";\n");
    ++number;
  }
  return absl::StrCat(text, "}\n");
}

}  // namespace gradweave
