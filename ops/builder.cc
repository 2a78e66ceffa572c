#include "gradweave/ops/builder.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/body_builder.h"
#include "gradweave/ops/composition.h"

namespace gradweave {
namespace {

SourceLocation CurrentLocation(const Graph& graph, SourceLocation call) {
  return graph.builder().location.file != nullptr ? graph.builder().location : call;
}

Value Record(Graph& graph, const absl::StatusOr<NodeId>& node) {
  if (node.ok()) return graph.value(*node);
  graph.RecordError(node.status());
  return Value(&graph, Port{});
}

// Outside of a named scope, the op and the id identify a node as well as a generated name would.
std::string GeneratedName(const Graph& graph, const OpDefinition& op) {
  const std::string& prefix = graph.builder().name_prefix;
  return prefix.empty() ? std::string() : absl::StrCat(prefix, absl::AsciiStrToLower(op.name), "_", graph.num_nodes());
}

// Empty graphs that hold the errors of calls without a graph, for the values that these calls
// return. There is one graph for each error, so at most one for each line of a program.
struct ErrorGraphs {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Graph>, std::less<>> by_message;
};
ErrorGraphs& GetErrorGraphs() {
  static auto* const graphs = new ErrorGraphs;
  return *graphs;
}

Graph* GraphOfError(const absl::Status& error) {
  ErrorGraphs& graphs = GetErrorGraphs();
  std::lock_guard lock(graphs.mutex);
  std::unique_ptr<Graph>& graph = graphs.by_message[std::string(error.message())];
  if (graph == nullptr) {
    graph = std::make_unique<Graph>();
    graph->RecordError(error);
  }
  return graph.get();
}

// The graph of the first operand that is a valid value, else of the first that has one.
Graph* GraphOf(absl::Span<const Operand> operands) {
  Graph* first = nullptr;
  for (const Operand& operand : operands) {
    if (operand.is_value()) return operand.graph();
    if (first == nullptr) first = operand.graph();
  }
  return first;
}

const Value* FirstValue(absl::Span<const Operand> operands) {
  for (const Operand& operand : operands) {
    if (!operand.is_number() && operand.value().valid()) return &operand.value();
  }
  return nullptr;
}

bool BelongToOneGraph(absl::Span<const Operand> operands) {
  const Graph* graph = nullptr;
  for (const Operand& operand : operands) {
    if (!operand.is_value() || operand.graph() == graph) continue;
    if (graph != nullptr) return false;
    graph = operand.graph();
  }
  return true;
}

}  // namespace

Value ToValue(const Operand& operand, const Value& like) {
  if (!operand.is_number()) return operand.value();
  if (!like.valid()) return Value(like.graph(), Port{});
  if (!Represents(like.dtype(), operand.number())) {
    return BuilderError("Constant", {operand, Operand(like)},
                        absl::StrCat("the number ", operand.number(), " is not a valid ", DTypeName(like.dtype())));
  }
  return ConstantLike(like, Tensor::ScalarOf(like.dtype(), operand.number()), operand.location());
}

std::string ErrorOfCall(const Value& value) {
  if (value.valid()) return "";
  ErrorGraphs& graphs = GetErrorGraphs();
  std::lock_guard lock(graphs.mutex);
  for (const auto& [message, graph] : graphs.by_message) {
    if (graph.get() == value.graph()) return message;
  }
  return "";
}

Value NeedsValue(absl::string_view op, const Operand& x) {
  if (!x.is_number()) return x.value();
  return BuilderError(op, {x}, "the operand is a number, and has to be a value; Scope::Full makes one");
}

Value ConstantLike(const Value& like, Tensor value, SourceLocation location) {
  if (!like.valid()) return Value(like.graph(), Port{});
  Graph& graph = *like.graph();
  const NamedAttribute attributes[] = {{"value", std::move(value)}};
  return Record(graph, graph.AddNode({.op = like.node().op->registry->Find(OpKind::kConstant),
                                      .attributes = attributes,
                                      .device = graph.builder().device,
                                      .location = CurrentLocation(graph, location)}));
}

Value AddOp(absl::string_view name, absl::Span<const Operand> operands,
            std::initializer_list<NamedAttribute> attributes) try {
  Graph* graph = GraphOf(operands);
  const Value* first = FirstValue(operands);
  // Values of the graphs around a body become operands of the body.
  absl::InlinedVector<Value, 4> inside;
  if (!BelongToOneGraph(operands)) {
    for (const Operand& operand : operands) inside.push_back(operand.value());
    if (Graph* const body = CaptureIntoBody(absl::MakeSpan(inside)); body != nullptr) {
      graph = body;
      first = &*std::find_if(inside.begin(), inside.end(), [](const Value& value) { return value.valid(); });
    } else {
      inside.clear();
    }
  }
  if (first == nullptr) {
    // The error of invalid operands is recorded already.
    if (graph != nullptr) return Value(graph, Port{});
    return BuilderError(name, operands,
                        "all operands are numbers, and a node needs a graph to be in; Scope::Full and Scope::Constant "
                        "make values of numbers");
  }
  if (!AllValid(name, operands)) return Value(graph, Port{});
  absl::InlinedVector<Port, 4> inputs;
  for (size_t i = 0; i < operands.size(); ++i) {
    const Operand& operand = operands[i];
    if (inside.empty() && operand.graph() != nullptr && operand.graph() != graph) {
      return BuilderError(name, operands, "the operands belong to different graphs");
    }
    const Value value = inside.empty() || operand.is_number() ? ToValue(operand, *first) : inside[i];
    if (!value.valid()) return value;
    inputs.push_back(value.port());
  }
  const OpDefinition* op = first->node().op->registry->Find(name);
  if (op == nullptr) return BuilderError(name, operands, "there is no such op in the registry of the first operand");
  return Record(*graph, graph->AddNode({.op = op,
                                        .inputs = inputs,
                                        .attributes = absl::MakeConstSpan(attributes.begin(), attributes.size()),
                                        .name = GeneratedName(*graph, *op),
                                        .device = graph->builder().device,
                                        .location = CurrentLocation(*graph, operands[0].location())}));
} catch (const std::bad_alloc&) {
  Graph* graph = GraphOf(operands);
  if (graph == nullptr) throw;
  graph->RecordError(OutOfMemory(name));
  return Value(graph, Port{});
}

Value AddSource(Graph& graph, absl::string_view name, std::initializer_list<NamedAttribute> attributes,
                SourceLocation location, absl::string_view node_name) try {
  const OpRegistry* registry = graph.builder().registry;
  const OpDefinition* op = registry == nullptr ? nullptr : registry->Find(name);
  if (op == nullptr) {
    graph.RecordError(absl::InvalidArgumentError(
        absl::StrCat(name, ": the graph's scope has no such op at ", ToString(CurrentLocation(graph, location)))));
    return Value(&graph, Port{});
  }
  return Record(graph, graph.AddNode({.op = op,
                                      .attributes = absl::MakeConstSpan(attributes.begin(), attributes.size()),
                                      .name = node_name.empty() ? GeneratedName(graph, *op)
                                                                : absl::StrCat(graph.builder().name_prefix, node_name),
                                      .device = graph.builder().device,
                                      .location = CurrentLocation(graph, location)}));
} catch (const std::bad_alloc&) {
  graph.RecordError(OutOfMemory(name));
  return Value(&graph, Port{});
}

Value BuilderError(absl::string_view op, absl::Span<const Operand> operands, absl::string_view message) {
  Graph* graph = GraphOf(operands);
  std::string text = absl::StrCat(op, ": ", message, "; operands are (");
  SourceLocation location = operands.empty() ? SourceLocation() : operands[0].location();
  for (size_t i = 0; i < operands.size(); ++i) {
    absl::StrAppend(
        &text, i == 0 ? "" : ", ",
        operands[i].is_number() ? absl::StrCat(operands[i].number()) : operands[i].value().type().ToString());
  }
  if (graph != nullptr) location = CurrentLocation(*graph, location);
  const absl::Status error = absl::InvalidArgumentError(absl::StrCat(text, ") at ", ToString(location)));
  if (graph == nullptr) return Value(GraphOfError(error), Port{});
  graph->RecordError(error);
  return Value(graph, Port{});
}

}  // namespace gradweave
