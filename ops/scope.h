// Scope: the starting point of every graph.
#ifndef GRADWEAVE_OPS_SCOPE_H_
#define GRADWEAVE_OPS_SCOPE_H_

#include <source_location>
#include <string>

#include "gradweave/graph/graph.h"
#include "gradweave/ops/builder.h"
#include "gradweave/ops/registry.h"

namespace gradweave {

// Options of Scope::Variable.
struct VariableOptions {
  bool trainable = true;  // True if optimizers update it.
};

// Adds inputs, constants and variables to a graph. It also holds the state that builder calls
// share: the name prefix, the device and the first error.
//
//   gw::Graph graph;
//   gw::Scope scope(graph);
//   gw::Value x = scope.Input("x", gw::kFloat32, {gw::Dim("batch"), 3});
//   gw::Value w = scope.Variable("w", scope.Constant(gw::Tensor(gw::kFloat32, {3, 1})));
//   gw::Value y = gw::MatMul(x, w);
//   if (!scope.status().ok()) ...
class Scope {
 public:
  // The registry supplies the ops that have no operands. It must outlive the graph.
  explicit Scope(Graph& graph, const OpRegistry& registry = CoreOps());

  // A nested scope. While it lives, the names of new nodes begin with the parent's prefix and
  // "name/".
  Scope(Scope& parent, absl::string_view name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // Adds a value that each run feeds. The name must be unique among inputs and variables; known
  // dimensions must not be negative. Errors are recorded in the graph.
  Value Input(absl::string_view name, DType dtype, Shape shape,
              std::source_location location = std::source_location::current());

  // Adds a constant. The graph shares the tensor's storage, which must not change any more.
  Value Constant(Tensor value, std::source_location location = std::source_location::current());

  // Adds a value with this number in every element. The shape may hold symbols: the first state of
  // a recurrent net is Full(0, {gw::Dim("batch"), 10}).
  Value Full(double number, const Shape& shape, DType dtype = kFloat32,
             std::source_location location = std::source_location::current());

  // Adds state of the session with a static shape and the type of the initial value. The session
  // computes the initial value once, when it is created. The initial value may use random ops and
  // the initial values of other variables, but no inputs. A number is a float32 scalar. Errors are
  // recorded in the graph.
  Value Variable(absl::string_view name, Operand initial_value, VariableOptions options = {});

  // New nodes run on this device, such as "cpu:0". If it is empty, placement chooses.
  void SetDevice(absl::string_view device);

  Graph& graph() { return graph_; }
  const absl::Status& status() const { return graph_.status(); }

 private:
  Graph& graph_;
  Graph::BuilderState previous_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_SCOPE_H_
