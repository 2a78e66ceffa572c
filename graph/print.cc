#include "gradweave/graph/print.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/body.h"

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

// Calls `use` with the name and the graph of each body of the node.
template <typename Use>
void ForBodies(const Node& node, const Use& use) {
  for (size_t i = 0; i < node.attributes.size(); ++i) {
    const Body* body = std::get_if<Body>(&node.attributes[i]);
    if (body != nullptr) use(node.op->attributes[i].name, **body);
  }
}

// Writes the graph with this margin before each line. Bodies follow their node with a larger
// margin.
void AppendText(const Graph& graph, const std::string& margin, std::string& text) {
  for (const Node& node : graph.nodes()) {
    absl::StrAppend(&text, margin, "%", node.id);
    if (!node.name.empty()) absl::StrAppend(&text, " \"", Escaped(node.name), "\"");
    absl::StrAppend(&text, " = ", node.op->name, "(", PortsText(node.inputs), ")");
    if (!node.attributes.empty()) absl::StrAppend(&text, " {", AttributesText(node), "}");
    absl::StrAppend(&text, " : ", ToString(node.outputs));
    if (!node.device.empty()) absl::StrAppend(&text, " @", node.device);
    if (node.location.file != nullptr) absl::StrAppend(&text, "  # ", ToString(node.location));
    absl::StrAppend(&text, "\n");
    ForBodies(node, [&](const std::string& name, const Graph& body) {
      absl::StrAppend(&text, margin, "  ", name, ":\n");
      AppendText(body, margin + "    ", text);
    });
  }
  for (const auto& [name, ports] : graph.outputs()) {
    absl::StrAppend(&text, margin, "output \"", Escaped(name), "\" = ", PortsText(ports), "\n");
  }
}

// Writes the graph with this prefix of the names of nodes. A body is a cluster beside its node.
void AppendDot(const Graph& graph, const std::string& prefix, std::string& text) {
  for (const Node& node : graph.nodes()) {
    absl::StrAppend(&text, "  ", prefix, "n", node.id, " [label=\"", Escaped(node.op->name));
    if (!node.name.empty()) absl::StrAppend(&text, "\\n", Escaped(node.name));
    absl::StrAppend(&text, "\\n", Escaped(ToString(node.outputs)), "\"];\n");
    for (Port input : node.inputs) {
      absl::StrAppend(&text, "  ", prefix, "n", input.node, " -> ", prefix, "n", node.id);
      if (input.output != 0) absl::StrAppend(&text, " [label=\"", input.output, "\"]");
      absl::StrAppend(&text, ";\n");
    }
    ForBodies(node, [&](const std::string& name, const Graph& body) {
      const std::string of_body = absl::StrCat(prefix, "n", node.id, "_", name, "_");
      absl::StrAppend(&text, "  subgraph cluster_", of_body, " {\n  label=\"", Escaped(name), " of ",
                      Escaped(node.display_name()), "\";\n");
      AppendDot(body, of_body, text);
      absl::StrAppend(&text, "  }\n");
    });
  }
  int number = 0;
  for (const auto& [name, ports] : graph.outputs()) {
    absl::StrAppend(&text, "  ", prefix, "o", number, " [shape=ellipse, label=\"", Escaped(name), "\"];\n");
    for (Port port : ports) {
      absl::StrAppend(&text, "  ", prefix, "n", port.node, " -> ", prefix, "o", number, ";\n");
    }
    ++number;
  }
}

}  // namespace

std::string GraphToText(const Graph& graph) {
  std::string text;
  AppendText(graph, "", text);
  return text;
}

std::string GraphToDot(const Graph& graph) {
  std::string text = "digraph gradweave {\n  node [shape=box, fontname=\"Helvetica\"];\n";
  AppendDot(graph, "", text);
  return absl::StrCat(text, "}\n");
}

}  // namespace gradweave
