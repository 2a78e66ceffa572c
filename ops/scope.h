// Scope: where a program's graph begins.
#ifndef GRADWEAVE_OPS_SCOPE_H_
#define GRADWEAVE_OPS_SCOPE_H_

#include <source_location>
#include <string>

#include "gradweave/graph/graph.h"
#include "gradweave/ops/builder.h"
#include "gradweave/ops/registry.h"

namespace gradweave {

struct VariableOptions {
  bool trainable = true;  // Whether optimizers update it.
};

// Adds a graph's inputs, constants and variables, and holds what builder calls share: the name prefix, the device and
// the first error.
//
//   gw::Graph graph;
//   gw::Scope scope(graph);
//   gw::Value x = scope.Input("x", gw::kFloat32, {gw::Dim("batch"), 3});
//   gw::Value w = scope.Variable("w", scope.Constant(gw::Tensor(gw::kFloat32, {3, 1})));
//   gw::Value y = gw::MatMul(x, w);
//   if (!scope.status().ok()) ...
class Scope {
 public:
  // The registry is where ops without operands come from; it outlives the graph.
  explicit Scope(Graph& graph, const OpRegistry& registry = CoreOps());

  // While it lives, names of new nodes begin with the parent's prefix and "name/".
  Scope(Scope& parent, absl::string_view name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // A value that each run is fed. Names are unique among inputs and variables; known dimensions are not negative.
  Value Input(absl::string_view name, DType dtype, Shape shape,
              std::source_location location = std::source_location::current());

  // A value known now. The graph shares the tensor's storage, which must not change any more.
  Value Constant(Tensor value, std::source_location location = std::source_location::current());

  // State of the session, of static shape and the initial value's type. The initial value is computed once, when the
  // session is created, and may use random ops and other variables (their initial values), but no inputs.
  Value Variable(absl::string_view name, Operand initial_value, VariableOptions options = {});

  // New nodes run on this device, "cpu:0"; "" leaves it to placement.
  void SetDevice(absl::string_view device);

  Graph& graph() { return graph_; }
  const absl::Status& status() const { return graph_.status(); }

 private:
  Graph& graph_;
  Graph::BuilderState previous_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_SCOPE_H_
