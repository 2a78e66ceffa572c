// The interface for the rows of the table of exported ops: the file that is being written, and the
// forms of ops in ONNX.
#ifndef GRADWEAVE_FRONTEND_ONNX_EXPORTER_H_
#define GRADWEAVE_FRONTEND_ONNX_EXPORTER_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/frontend/onnx/export.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/proto/onnx.pb.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave::onnx {

class Exporter;

// Writes a node: adds nodes of ONNX and sets all outputs.
using WriteFunction = absl::Status (*)(Exporter& exporter, const Node& node);

// The form of an op of the engine in ONNX.
struct ExportRow {
  const char* op;
  // The ONNX op ("Add") or a composition ("Mul(Mul(a, b), Sub(1, b))"). If ONNX has neither, the
  // reason.
  const char* form;
  // Writes parts that the form cannot express, such as attributes; null if there are none.
  WriteFunction write = nullptr;
  // True if uint8 is computed as int32, because ONNX or its runtimes lack the op for uint8.
  bool widens = false;
  // The least opset that has the form.
  int64_t since = 17;
};

// The rows by family, and the row of an op; null if there is none.
absl::Span<const ExportRow> ElementwiseForms();
absl::Span<const ExportRow> ShapeForms();
absl::Span<const ExportRow> IndexingForms();
absl::Span<const ExportRow> MathForms();
absl::Span<const ExportRow> WindowForms();
absl::Span<const ExportRow> ControlForms();
absl::Span<const ExportRow> QuantizedForms();
const std::vector<absl::Span<const ExportRow>>& AllForms();
const ExportRow* FindForm(absl::string_view op);

// The write function of an op that has no form in ONNX.
absl::Status Refused(Exporter& exporter, const Node& node);

// An attribute of a node of ONNX.
struct OnnxAttribute {
  const char* name;
  std::variant<int64_t, double, std::string, Integers, Tensor, proto::Graph> value;
};

// The attributes of a convolution like the node, with a filter of this shape.
std::vector<OnnxAttribute> ConvAttributes(const Node& node, const Shape& filter);
// The attributes of a pool like the node.
std::vector<OnnxAttribute> PoolAttributes(const Node& node);

// The state of one export. Values are known by the names of their results in the file.
class Exporter {
 public:
  using Names = std::vector<std::string>;

  Exporter(const Model& model, const ExportOptions& options);

  absl::Status Run(const NamedValues& outputs);
  const proto::Model& file() const { return file_; }

  int64_t opset() const { return options_.opset; }
  const TensorType& In(const Node& node, int i) const { return at_->graph->type(node.inputs[i]); }
  // The node that computes an operand.
  const Node& Producer(const Node& node, int i) const { return at_->graph->node(node.inputs[i].node); }
  // The name of an operand.
  const std::string& Name(const Node& node, int i) const { return at_->names.at(node.inputs[i]); }
  Names Operands(const Node& node) const;
  // The dtype in which the node computes: that of an operand, or int32 for a row that widens uint8.
  DType ComputeType(const Node& node, int operand = 0) const;
  // True if an output of the file or a node that is written reads this output of the node.
  bool Uses(const Node& node, int output) const { return at_->used.contains({node.id, output}); }

  // Adds a node of ONNX and returns the name of its first result.
  std::string Add(absl::string_view op, const Names& inputs, std::vector<OnnxAttribute> attributes = {});
  // The same with several results.
  Names AddMany(absl::string_view op, const Names& inputs, int results, std::vector<OnnxAttribute> attributes = {});
  // Sets the name of the value of this output of the node.
  void Set(const Node& node, std::string name, int output = 0);
  // Adds a node with the operands of this one, and sets its result.
  void Place(absl::string_view op, const Node& node, std::vector<OnnxAttribute> attributes = {});

  // Constants: a tensor, a number as a scalar, and an int64 list.
  std::string Constant(const Tensor& value);
  std::string Number(DType dtype, double number) { return Constant(Tensor::ScalarOf(dtype, number)); }
  std::string List(const Integers& numbers);
  // A composition with the node's operands as a, b and c, its real attributes by name, and numbers
  // of ComputeType. The text is a row's form: {name "=" term ";"} term, where a term is a name, a
  // number or Op(term, ...).
  std::string Compose(absl::string_view text, const Node& node);

  // The name of an int64 list with these sizes, or with one size. Symbols are taken from the inputs
  // that have them; sums, products and quotients are computed.
  absl::StatusOr<std::string> Sizes(const Node& node, const Shape& shape);
  absl::StatusOr<std::string> Size(const Node& node, const Dim& dim);
  // The value in the shape; the value spread over the shape.
  absl::StatusOr<std::string> Reshaped(const Node& node, const std::string& value, const Shape& shape);
  absl::StatusOr<std::string> Spread(const Node& node, const std::string& value, const Shape& shape);
  std::string Transposed(const std::string& value, const Integers& order) {
    return Add("Transpose", {value}, {{"perm", order}});
  }
  std::string CastTo(const std::string& value, DType dtype);
  std::string WithAxes(const std::string& value, const Integers& axes) { return Add("Unsqueeze", {value, List(axes)}); }

  // Writes the nodes that the results of a body need into the graph that is being written. Returns
  // the names of the results.
  absl::StatusOr<Names> Inline(const Graph& body, const Names& operands);
  // Writes a graph for a node of ONNX that has bodies. `build` gets the names of its inputs and
  // returns the names of its results.
  absl::StatusOr<proto::Graph> NewBody(absl::Span<const TensorType> inputs, absl::Span<const TensorType> results,
                                       absl::FunctionRef<absl::StatusOr<Names>(const Names&)> build);

  // Adds a Scan of ONNX and returns the names of the last states and of the outputs. The body takes
  // the states and a slice of each input, and gives the states and a slice of each output.
  Names AddScan(Names states, const Names& inputs, proto::Graph body, const Integers& input_axes,
                const Integers& output_axes, bool reverse);

  absl::Status Refuse(const Node& node, absl::string_view why) const;

 private:
  // A graph of the engine whose nodes are being written.
  struct Level {
    const Graph* graph = nullptr;
    std::map<Port, std::string> names = {};
    std::set<Port> used = {};
  };
  // Returns for each node id whether the ports need it. Adds the ports that are read to `used`.
  static std::vector<bool> Needed(const Graph& graph, absl::Span<const Port> ports, std::set<Port>& used);
  absl::Status WriteNode(const Node& node);
  void WriteInput(const Node& node);
  absl::Status WriteVariable(const Node& node);
  void WriteType(const TensorType& type, const std::string& name, proto::ValueInfo& info) const;
  absl::StatusOr<std::string> Symbol(const Node& node, const std::string& symbol);
  absl::StatusOr<std::string> DimSum(const Node& node, absl::string_view& text);
  absl::StatusOr<std::string> DimProduct(const Node& node, absl::string_view& text);
  std::string Term(absl::string_view& text, const Node& node, std::map<std::string, std::string>& names);
  std::string NewName(absl::string_view base);

  const Model& model_;
  const ExportOptions options_;
  proto::Model file_;
  proto::Graph* out_;  // The graph to which nodes are written.
  Level top_;          // The level of the model's graph.
  Level* at_ = &top_;
  absl::flat_hash_map<std::string, const Tensor*> values_;
  std::set<std::string> taken_;
  std::map<Port, std::string> output_names_;
  std::set<NodeId> assigned_;  // Variables that a written node assigns.
  std::set<NodeId> written_inputs_;
  // The names of lists with one size, by the text of the dimension.
  std::map<std::string, std::string> sizes_;
  // True if the node that is being written computes uint8 as int32.
  bool widened_ = false;
  int next_ = 0;
};

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_EXPORTER_H_
