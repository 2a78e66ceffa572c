// Bodies that a function of the program builds. They may read values of the graph around them.
#ifndef GRADWEAVE_OPS_BODY_BUILDER_H_
#define GRADWEAVE_OPS_BODY_BUILDER_H_

#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/graph.h"
#include "gradweave/ops/builder.h"

namespace gradweave {

// A body under construction. While it is active, builder calls of this thread that mix its values
// with values of a graph around it read the latter as operands of the body.
class BodyBuilder {
 public:
  // The body of a node of `outer`.
  explicit BodyBuilder(Graph& outer);
  ~BodyBuilder();
  BodyBuilder(const BodyBuilder&) = delete;
  BodyBuilder& operator=(const BodyBuilder&) = delete;

  // Makes the body active while it lives.
  class Activation {
   public:
    explicit Activation(BodyBuilder& builder);
    ~Activation();
    Activation(const Activation&) = delete;
    Activation& operator=(const Activation&) = delete;
  };

  // Adds an operand.
  Value AddOperand(absl::string_view name, const TensorType& type);

  // Returns the value itself if it belongs to the body, else the operand that reads it. Returns an
  // invalid value if it belongs to no graph around the body.
  Value Capture(const Value& value);
  // The values of the outer graph that the body reads, in the order of its last operands.
  const std::vector<Value>& captured() const { return captured_; }

  // Ends the body with these results. Null if a builder call in it failed, or if a result is not a
  // value of the body or of a graph around it; the outer graph then has the error, which begins
  // with `name`.
  Body Finish(absl::string_view name, absl::Span<const Value> results, SourceLocation location);

  Graph& graph() { return *graph_; }

  // The innermost body of this thread that may read values of all these graphs, or null. With
  // `among`, the body is one of the graphs itself.
  static BodyBuilder* Innermost(absl::Span<const Graph* const> graphs, bool among);

 private:
  // The builder of this thread whose body is the graph, or null.
  static BodyBuilder* BuilderOf(const Graph* graph);
  // True if the graph is the body or a graph around it.
  bool Reads(const Graph* graph) const;

  Graph& outer_;
  std::shared_ptr<Graph> graph_;
  std::vector<Value> operands_, captured_, captured_operands_;
};

// Moves values of different graphs into the innermost body among these graphs, and returns that
// body. Returns null if there is nothing to move: all belong to one graph, no body is
// active, or a value belongs to no graph around the body. Invalid values stay invalid.
Graph* CaptureIntoBody(absl::Span<Value> values);

// Moves values into the innermost active body that may read them all, and returns it. Null
// if there is none. Nodes with bodies use it, because their bodies may read values of the body
// around them.
Graph* CaptureIntoInnermost(absl::Span<Value> values);

// True if one node may have all these operands: their values belong to one graph, or to an active
// body and the graphs around it.
bool BelongTogether(absl::Span<const Operand> operands);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_BODY_BUILDER_H_
