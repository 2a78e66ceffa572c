#include "gradweave/ops/body_builder.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gradweave {
namespace {

// The active bodies of this thread, the innermost one last.
thread_local std::vector<BodyBuilder*> builders;

// A body that failed may have given its values to the program, which may use them still.
void KeepFailed(std::shared_ptr<Graph> graph) {
  static std::mutex* const mutex = new std::mutex;
  static auto* const kept = new std::vector<std::shared_ptr<Graph>>;
  std::lock_guard lock(*mutex);
  kept->push_back(std::move(graph));
}

}  // namespace

BodyBuilder::BodyBuilder(Graph& outer) : outer_(outer), graph_(std::make_shared<Graph>()) {
  graph_->builder().registry = outer.builder().registry;
  graph_->builder().location = outer.builder().location;
}

BodyBuilder::~BodyBuilder() {
  if (graph_ != nullptr) KeepFailed(std::move(graph_));
}

BodyBuilder::Activation::Activation(BodyBuilder& builder) { builders.push_back(&builder); }
BodyBuilder::Activation::~Activation() { builders.pop_back(); }

BodyBuilder* BodyBuilder::BuilderOf(const Graph* graph) {
  const auto found = std::find_if(builders.begin(), builders.end(),
                                  [&](BodyBuilder* builder) { return builder->graph_.get() == graph; });
  return found == builders.end() ? nullptr : *found;
}

Value BodyBuilder::AddOperand(absl::string_view name, const TensorType& type) {
  const Value operand =
      AddSource(*graph_, "Input", {{"dtype", type.dtype}, {"shape", type.shape}}, outer_.builder().location, name);
  operands_.push_back(operand);
  return operand;
}

Value BodyBuilder::Capture(const Value& value) {
  if (!value.valid() || value.graph() == graph_.get()) return value;
  Value outer = value;
  if (value.graph() != &outer_) {
    // The value of a graph further out is an operand of each body on the way.
    BodyBuilder* const around = BuilderOf(&outer_);
    if (around == nullptr) return {};
    outer = around->Capture(value);
    if (!outer.valid()) return {};
  }
  const auto known = std::find(captured_.begin(), captured_.end(), outer);
  if (known != captured_.end()) return captured_operands_[known - captured_.begin()];
  captured_.push_back(outer);
  captured_operands_.push_back(AddOperand(absl::StrCat("captured_", captured_operands_.size()), outer.type()));
  return captured_operands_.back();
}

Body BodyBuilder::Finish(absl::string_view name, absl::Span<const Value> results, SourceLocation location) {
  std::vector<Value> inside;
  for (size_t i = 0; i < results.size(); ++i) {
    inside.push_back(Capture(results[i]));
    if (inside.back().valid()) continue;
    // A failed call with an invalid result has already recorded its error.
    if (graph_->status().ok() && outer_.status().ok()) {
      outer_.RecordError(absl::InvalidArgumentError(absl::StrCat(
          name, " gives as result ", i,
          results[i].valid() ? " a value that belongs to no graph around it" : " a value that nothing made", " at ",
          ToString(location))));
    }
    if (graph_->status().ok()) return nullptr;
  }
  graph_->SetOutput(kBodyOperands, operands_);
  graph_->SetOutput(kBodyResults, inside);
  if (!graph_->status().ok()) {
    outer_.RecordError(absl::Status(graph_->status().code(), absl::StrCat(graph_->status().message(), "; ", name,
                                                                          " is built at ", ToString(location))));
    return nullptr;
  }
  // The program may still have values of the graph that was built; using them does not change the
  // body.
  struct Holder {
    Graph body;
    std::shared_ptr<Graph> built;
  };
  const auto holder = std::make_shared<Holder>(Holder{*graph_, std::move(graph_)});
  return Body(holder, &holder->body);
}

bool BodyBuilder::Reads(const Graph* graph) const {
  if (graph == graph_.get() || graph == &outer_) return true;
  const BodyBuilder* const around = BuilderOf(&outer_);
  return around != nullptr && around->Reads(graph);
}

BodyBuilder* BodyBuilder::Innermost(absl::Span<const Graph* const> graphs, bool among) {
  for (auto builder = builders.rbegin(); builder != builders.rend(); ++builder) {
    const bool is_one = std::find(graphs.begin(), graphs.end(), (*builder)->graph_.get()) != graphs.end();
    const bool reads_all =
        std::all_of(graphs.begin(), graphs.end(), [&](const Graph* graph) { return (*builder)->Reads(graph); });
    if (reads_all && (is_one || !among)) return *builder;
  }
  return nullptr;
}

namespace {

using Graphs = absl::InlinedVector<const Graph*, 4>;

void AddGraph(const Value& value, Graphs& graphs) {
  if (value.valid() && (graphs.empty() || graphs.back() != value.graph())) graphs.push_back(value.graph());
}

Graph* Capture(BodyBuilder* builder, absl::Span<Value> values) {
  if (builder == nullptr) return nullptr;
  for (Value& value : values) value = builder->Capture(value);
  return &builder->graph();
}

}  // namespace

Graph* CaptureIntoBody(absl::Span<Value> values) {
  Graphs graphs;
  for (const Value& value : values) AddGraph(value, graphs);
  return Capture(graphs.size() < 2 ? nullptr : BodyBuilder::Innermost(graphs, true), values);
}

Graph* CaptureIntoInnermost(absl::Span<Value> values) {
  Graphs graphs;
  for (const Value& value : values) AddGraph(value, graphs);
  return Capture(BodyBuilder::Innermost(graphs, false), values);
}

bool BelongTogether(absl::Span<const Operand> operands) {
  Graphs graphs;
  for (const Operand& operand : operands) AddGraph(operand.value(), graphs);
  return graphs.size() < 2 || BodyBuilder::Innermost(graphs, true) != nullptr;
}

}  // namespace gradweave
