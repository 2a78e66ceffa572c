#include "gradweave/frontend/command/drawing.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"

namespace gradweave::command {
namespace {

// Levels of folding. Each folds the same as the level before it, and more.
enum Level { kNothing, kUpdate, kScopes, kGradients, kTopScopes, kNumberedScopes, kLevels };

struct RoleStyle {
  const char* name;
  const char* colour;
};
constexpr RoleStyle kRoles[] = {{"forward", "#cfe2ff"}, {"backward", "#ffe0b3"}, {"update", "#d5f0d0"}};

// One or more nodes that are drawn as one.
struct Box {
  std::vector<NodeId> nodes;
  std::string folded;  // The common name of several nodes, "conv2d_1"; empty for a single node.
  std::string scope;   // The scope in which the box is drawn.
  Role role = Role::kForward;
};

std::string ScopeOf(absl::string_view name) {
  const size_t slash = name.rfind('/');
  return slash == absl::string_view::npos ? "" : std::string(name.substr(0, slash));
}

std::string TopScopeOf(absl::string_view name) { return std::string(name.substr(0, name.find('/'))); }

std::string WithoutNumber(std::string name) {
  while (!name.empty() && (absl::ascii_isdigit(name.back()) || name.back() == '_')) name.pop_back();
  return name;
}

// Returns for each node id whether the ports need it. Initial values of variables do not count.
std::vector<bool> Needed(const Graph& graph, const std::vector<Port>& ports) {
  std::vector<bool> needed(graph.num_nodes(), false);
  for (const Port port : ports) needed[port.node] = true;
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    if (!needed[id] || graph.node(id).op->kind == OpKind::kVariable) continue;
    for (const Port input : graph.node(id).inputs) needed[input.node] = true;
  }
  return needed;
}

// The name of the box that takes the node at this level; empty for a node without a box.
std::string FoldOf(const Node& node, Role role, Level level) {
  const bool has_scope = absl::StrContains(node.name, '/');
  if (node.op->kind == OpKind::kInput) return "";
  if (role == Role::kUpdate) return level >= kUpdate ? "update" : "";
  if (role == Role::kBackward) return level >= kGradients ? "gradients" : "";
  if (level < kScopes || !has_scope) return "";
  const std::string top = TopScopeOf(node.name);
  if (level >= kNumberedScopes) return WithoutNumber(top);
  return level >= kTopScopes ? top : ScopeOf(node.name);
}

std::vector<Box> MakeBoxes(const Graph& graph, const std::vector<Role>& roles, const std::vector<bool>& drawn,
                           Level level) {
  std::vector<Box> boxes;
  std::map<std::pair<Role, std::string>, size_t> folds;
  for (const Node& node : graph.nodes()) {
    if (!drawn[node.id]) continue;
    const Role role = roles[node.id];
    const std::string fold = FoldOf(node, role, level);
    size_t at = boxes.size();
    if (!fold.empty()) at = folds.emplace(std::pair(role, fold), at).first->second;
    if (at == boxes.size()) {
      const std::string scope = role == Role::kForward ? ScopeOf(fold.empty() ? node.name : fold) : "";
      boxes.push_back({.folded = fold, .scope = scope, .role = role});
    }
    boxes[at].nodes.push_back(node.id);
  }
  for (Box& box : boxes) {
    if (box.nodes.size() > 1 || box.folded.empty()) continue;
    box.folded.clear();  // There was nothing to fold it with.
    if (box.role == Role::kForward) box.scope = ScopeOf(graph.node(box.nodes[0]).name);
  }
  return boxes;
}

std::string LabelOf(const Graph& graph, const Box& box) {
  if (!box.folded.empty()) {
    std::set<std::string> scopes;
    for (const NodeId id : box.nodes) scopes.insert(TopScopeOf(graph.node(id).name));
    // Scopes whose names differ in a number.
    const bool repeats = box.role == Role::kForward && scopes.size() > 1;
    return absl::StrCat(PrintableText(box.folded), repeats ? absl::StrCat(" (", scopes.size(), " times)") : "", "\\n",
                        Counted(static_cast<int64_t>(box.nodes.size()), "node"));
  }
  const Node& node = graph.node(box.nodes[0]);
  const size_t slash = node.name.rfind('/');
  const std::string name = slash == std::string::npos ? node.name : node.name.substr(slash + 1);
  // The builder's own names repeat the op: "conv2d_17".
  const bool is_own = absl::StartsWith(absl::AsciiStrToLower(name), absl::AsciiStrToLower(node.op->name));
  const bool is_source = node.op->is_source() && node.op->kind != OpKind::kConstant;
  if (is_source) return absl::StrCat(PrintableText(name), "\\n", node.outputs[0].ToString());
  return absl::StrCat(node.op->name, is_own || name.empty() ? "" : absl::StrCat("\\n", PrintableText(name)));
}

const char* ShapeOf(const Graph& graph, const Box& box) {
  if (!box.folded.empty()) return "box3d";
  const OpKind kind = graph.node(box.nodes[0]).op->kind;
  return kind == OpKind::kInput ? "ellipse" : kind == OpKind::kVariable ? "cylinder" : "box";
}

// Opens and closes clusters so that the box at hand is in its scope. Scopes nest by their slashes.
void ChangeScope(std::vector<std::string>& open, const std::string& scope, int& clusters, std::string& text) {
  std::vector<std::string> wanted;
  if (!scope.empty()) wanted = absl::StrSplit(scope, '/');
  size_t common = 0;
  while (common < open.size() && common < wanted.size() && open[common] == wanted[common]) ++common;
  for (; open.size() > common; open.pop_back()) absl::StrAppend(&text, "  }\n");
  for (; open.size() < wanted.size(); open.push_back(wanted[open.size()])) {
    absl::StrAppend(&text, "  subgraph cluster_", clusters++, " {\n    label=\"", PrintableText(wanted[open.size()]),
                    "\"; style=rounded; color=\"#999999\";\n");
  }
}

}  // namespace

std::vector<Role> RolesOf(const Graph& graph) {
  std::vector<Port> forward_ports;
  for (const auto& [name, ports] : graph.outputs()) {
    if (absl::StartsWith(name, "grad/")) continue;
    for (const Port port : ports) {
      if (graph.node(port.node).op->kind != OpKind::kAssign) forward_ports.push_back(port);
    }
  }
  const std::vector<bool> is_forward = Needed(graph, forward_ports);
  std::set<std::string> update_scopes;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kVariable && !is_forward[node.id] && !node.attribute<bool>("trainable"))
      update_scopes.insert(TopScopeOf(node.name));
  }
  std::vector<Role> roles(graph.num_nodes(), Role::kForward);
  for (const Node& node : graph.nodes()) {
    // A model without such outputs, as a step alone, has its inputs and trainable variables in the
    // forward pass.
    if (is_forward[node.id] || node.op->kind == OpKind::kInput ||
        (node.op->kind == OpKind::kVariable && node.attribute<bool>("trainable")))
      continue;
    const bool in_scope = absl::StrContains(node.name, '/') && update_scopes.count(TopScopeOf(node.name)) > 0;
    roles[node.id] = in_scope || node.op->kind == OpKind::kAssign ? Role::kUpdate : Role::kBackward;
  }
  return roles;
}

std::string DrawGraph(const Graph& graph, const std::string& title, int max_nodes) {
  const std::vector<Role> roles = RolesOf(graph);
  std::vector<Port> ports;
  for (const auto& [name, of_output] : graph.outputs()) ports.insert(ports.end(), of_output.begin(), of_output.end());
  const std::vector<bool> drawn = Needed(graph, ports);
  std::vector<Box> boxes;
  for (int level = kNothing; level < kLevels; ++level) {
    boxes = MakeBoxes(graph, roles, drawn, static_cast<Level>(level));
    if (static_cast<int>(boxes.size()) <= max_nodes) break;
  }
  std::vector<int> box_of(graph.num_nodes(), -1);
  for (size_t i = 0; i < boxes.size(); ++i) {
    for (const NodeId id : boxes[i].nodes) box_of[id] = static_cast<int>(i);
  }

  std::set<Role> used;
  for (const Box& box : boxes) used.insert(box.role);
  std::string legend;
  if (used.size() > 1) {
    for (const Role role : used) {
      const RoleStyle& style = kRoles[static_cast<int>(role)];
      absl::StrAppend(&legend, "  legend_", style.name, " [label=\"", style.name,
                      "\", shape=plaintext, style=filled, fillcolor=\"", style.colour, "\"];\n");
    }
  }
  std::string text = absl::StrCat("digraph gradweave {\n  label=\"", PrintableText(title),
                                  "\";\n  fontname=\"Helvetica\";\n"
                                  "  node [fontname=\"Helvetica\", fontsize=11, style=filled, color=\"#666666\"];\n"
                                  "  edge [fontname=\"Helvetica\", fontsize=9, color=\"#666666\"];\n",
                                  legend);
  // Boxes of one scope are adjacent in the text.
  std::vector<int> order(boxes.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return boxes[a].scope < boxes[b].scope; });
  std::vector<std::string> open;
  int clusters = 0;
  for (const int i : order) {
    const Box& box = boxes[i];
    ChangeScope(open, box.scope, clusters, text);
    absl::StrAppend(&text, open.empty() ? "  b" : "    b", i, " [label=\"", LabelOf(graph, box),
                    "\", shape=", ShapeOf(graph, box), ", fillcolor=\"", kRoles[static_cast<int>(box.role)].colour,
                    "\"];\n");
  }
  ChangeScope(open, "", clusters, text);

  // The values that go from box to box.
  std::map<std::pair<int, int>, std::vector<Port>> edges;
  for (const Node& node : graph.nodes()) {
    if (!drawn[node.id] || node.op->kind == OpKind::kVariable) continue;
    for (const Port input : node.inputs) {
      if (box_of[input.node] == box_of[node.id]) continue;
      std::vector<Port>& values = edges[{box_of[input.node], box_of[node.id]}];
      if (std::find(values.begin(), values.end(), input) == values.end()) values.push_back(input);
    }
  }
  for (const auto& [ends, values] : edges) {
    const std::string label = values.size() == 1 ? graph.type(values[0]).shape.ToString()
                                                 : Counted(static_cast<int64_t>(values.size()), "value");
    absl::StrAppend(&text, "  b", ends.first, " -> b", ends.second, " [label=\"", label, "\"];\n");
  }
  int number = 0;
  for (const auto& [name, of_output] : graph.outputs()) {
    std::set<int> from;
    for (const Port port : of_output) from.insert(box_of[port.node]);
    absl::StrAppend(&text, "  o", number, " [label=\"", PrintableText(name), "\", shape=ellipse, fillcolor=white];\n");
    for (const int box : from) absl::StrAppend(&text, "  b", box, " -> o", number, ";\n");
    ++number;
  }
  return absl::StrCat(text, "}\n");
}

}  // namespace gradweave::command
