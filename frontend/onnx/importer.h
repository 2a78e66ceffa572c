// The interface for the rows of the table of ONNX ops: the values of a model during its import, and
// the call of one node.
#ifndef GRADWEAVE_FRONTEND_ONNX_IMPORTER_H_
#define GRADWEAVE_FRONTEND_ONNX_IMPORTER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/frontend/onnx/open_sizes.h"
#include "gradweave/graph/graph.h"
#include "gradweave/ops/scope.h"
#include "gradweave/proto/onnx.pb.h"

namespace gradweave::onnx {

// The elements of an integer tensor as dimensions, which may be symbols: how the import follows
// Shape, Gather, Concat and others without values.
using Elements = std::vector<Dim>;

// The meaning of a name in the file. A value of the graph is made when a node first needs it.
struct Item {
  std::string name;
  TensorType type;
  std::optional<Tensor> tensor;      // The value, if it is known.
  std::optional<Elements> elements;  // For int32 and int64 of rank 0 or 1, perhaps with symbols.
  Value value;                       // In the graph; may be invalid while tensor or elements are set.
  bool is_initializer = false;       // Floating ones become variables.
  bool trainable = true;
};

class Importer;
class Call;

// Imports a node. On success all outputs that the node names are set. Errors of builder functions
// may be left in the graph.
using ImportFunction = absl::Status (*)(Call& call);

// A row of the table: from opset `since` on, until the next row of the same name.
struct OpRow {
  const char* name;
  int since;
  int inputs;  // How many inputs must be given.
  ImportFunction import;
  const char* domain = "";
};

// The rows by family, and the row for an op of this domain and opset; null if there is none.
absl::Span<const OpRow> ElementwiseRows();
absl::Span<const OpRow> ActivationRows();
absl::Span<const OpRow> ReductionRows();
absl::Span<const OpRow> ShapeRows();
absl::Span<const OpRow> SourceRows();
absl::Span<const OpRow> IndexingRows();
absl::Span<const OpRow> ConvRows();
absl::Span<const OpRow> PoolRows();
absl::Span<const OpRow> MatMulRows();
absl::Span<const OpRow> NormalizationRows();
absl::Span<const OpRow> LossRows();
absl::Span<const OpRow> RecurrentRows();
absl::Span<const OpRow> QuantizationRows();
absl::Span<const OpRow> ControlRows();
absl::Span<const OpRow> TrainingRows();
absl::Span<const OpRow> ImageRows();
absl::Span<const OpRow> AttentionRows();
absl::Span<const OpRow> TextRows();
absl::Span<const OpRow> MicrosoftRows();
const std::vector<absl::Span<const OpRow>>& AllRows();
const OpRow* FindRow(absl::string_view domain, absl::string_view op, int64_t opset);

// The newest opset whose rules the rows know.
inline constexpr int64_t kNewestOpset = 28;
inline constexpr int64_t kNewestIrVersion = 14;

// Returns the dtype with this number in ONNX files, or Unimplemented with the name of an
// unsupported one.
absl::StatusOr<DType> DTypeFromOnnx(int64_t number);
int32_t DTypeToOnnx(DType dtype);

// Reads a tensor of the file. `folder` has external data; it may be empty.
absl::StatusOr<Tensor> ReadTensor(const proto::Tensor& message, const std::string& folder, int64_t& room);
// The same, and takes the elements out of the message if that saves a copy.
absl::StatusOr<Tensor> TakeTensor(proto::Tensor& message, const std::string& folder, int64_t& room);

// The error for a model that would take more bytes.
absl::Status BeyondLimit(int64_t limit);

// Names in a scope: of a graph, of the body of a node, or of a function.
struct NameScope {
  const NameScope* outer = nullptr;  // Bodies see the names of the graph around them.
  absl::flat_hash_map<std::string, Item*> items;
  std::set<std::string> missing;  // Outputs of nodes that cannot be imported.
  // In a function: the attributes of its call, which attributes of its nodes may refer to.
  const google::protobuf::RepeatedPtrField<proto::Attribute>* attributes = nullptr;
  const proto::Function* function = nullptr;
  std::map<std::string, int64_t> opsets;  // Indexed by domain; a function has its own.
  int depth = 0;
};

// The knowledge that an attempt to import a model passes on to the next one.
struct Knowledge {
  int64_t room = 0;  // Bytes left of the memory limit.
  int64_t work = 0;  // Nodes and names that all attempts have walked.
  double flops = 0;  // Operations that values known during the import took.
  // Initializers in the order of the file, once they are read.
  std::vector<absl::StatusOr<Tensor>> initializers = {};
  OpenSizes sizes = {};
  // Nodes that do not fit the way they are imported first: If nodes with both branches, and loops
  // as loops of the engine.
  std::set<const proto::Node*> other_way = {};
  // Ops that do not take integers of few bits or without a sign: they get wider ones (Call::Widen).
  std::set<std::string> widened_ops = {};
};

// The state of one attempt to import a model.
class Importer {
 public:
  Importer(proto::Model& model, const ImportOptions& options, std::string folder, Knowledge& knowledge);

  // Imports the whole model.
  absl::StatusOr<ImportedModel> Run();

  // For an attempt that failed: the number of nodes before the one that did not fit, and guesses of
  // sizes for which it may fit.
  int num_fitting() const { return num_fitting_; }
  const std::vector<SizeGuess>& guesses() const { return guesses_; }
  // True if the knowledge has changed so that another attempt gets further.
  bool again() const { return again_; }
  void BeginAgain() { again_ = true; }

  // Imports the nodes of a graph or function body into the scope. `outputs` are the names that are
  // needed.
  absl::Status ImportNodes(const google::protobuf::RepeatedPtrField<proto::Node>& nodes, NameScope& scope,
                           const std::vector<std::string>& outputs);
  // Imports the body of a node. `inputs` are the body's inputs. Returns its outputs, one item for
  // each.
  absl::StatusOr<std::vector<Item*>> ImportBody(const proto::Graph& body, const NameScope& outer,
                                                const std::vector<Item*>& inputs);

  Item* NewItem(std::string name);
  Item* Lookup(const NameScope& scope, absl::string_view name) const;
  // True if a node that cannot be imported gives the name.
  bool IsMissing(const NameScope& scope, const std::string& name) const;

  Value ValueOf(Item& item);
  absl::StatusOr<Tensor> KnownValue(Item& item);
  absl::StatusOr<Elements> ElementsOf(Item& item);

  Graph& graph() { return model_.graph; }
  Scope& scope() { return *scope_; }
  int64_t& room() { return knowledge_.room; }
  // Takes bytes from the room, or returns ResourceExhausted.
  absl::Status Take(int64_t bytes);
  const std::string& folder() const { return folder_; }
  Knowledge& knowledge() { return knowledge_; }
  // Notes that the import needs a number for each symbol of this size.
  void NeedSize(const Dim& size) { size.CollectSymbols(needed_symbols_); }

 private:
  absl::Status ImportNode(const proto::Node& node, int index, NameScope& scope);
  absl::Status ImportFunction(const proto::Function& function, const proto::Node& node, NameScope& scope);
  absl::Status AddInitializer(absl::string_view name, absl::StatusOr<Tensor> tensor, NameScope& scope);
  void KnowGivenShapes(const proto::Graph& main);
  absl::Status AddInput(const proto::ValueInfo& info, NameScope& scope);
  absl::StatusOr<Tensor> Evaluate(Value value);
  absl::Status AddWork(int64_t work);
  absl::Status TakeNew();
  void NoteMisfit(const Call& call);
  absl::Status WithNeeds(absl::Status status) const;
  void ListProblem(const proto::Node& node, absl::string_view what);
  const proto::Function* FindFunction(absl::string_view domain, absl::string_view name) const;
  absl::StatusOr<std::map<std::string, int64_t>> ReadOpsets(
      const google::protobuf::RepeatedPtrField<proto::OperatorSet>& sets) const;

  proto::Model& file_;
  const ImportOptions& options_;
  const std::string folder_;
  Knowledge& knowledge_;
  Model model_;
  std::unique_ptr<Scope> scope_;
  std::deque<Item> items_;
  absl::flat_hash_map<NodeId, std::string> input_nodes_;
  std::vector<std::string> input_names_;
  std::vector<std::string> problems_;    // Nodes that cannot be imported.
  std::set<std::string> needed_inputs_;  // Inputs on which shapes depend.
  std::set<std::string> needed_symbols_;
  std::vector<std::pair<std::string, Shape>> open_inputs_;  // Inputs with their sizes, in which symbols occur.
  // Functions of the file, by domain and name.
  std::map<std::pair<std::string, std::string>, const proto::Function*> functions_;
  size_t num_counted_items_ = 0, num_counted_nodes_ = 0;  // Those for which room was taken.
  int num_imported_ = 0, num_fitting_ = 0;
  std::vector<SizeGuess> guesses_;
  bool again_ = false;
};

// One node that is being imported: its inputs, attributes and outputs.
class Call {
 public:
  Call(Importer& importer, NameScope& names, const proto::Node& node, int64_t opset);

  int64_t opset() const { return opset_; }
  const proto::Node& node() const { return node_; }
  Importer& importer() const { return importer_; }
  NameScope& names() const { return names_; }
  Scope& scope() const { return importer_.scope(); }

  int num_inputs() const { return static_cast<int>(inputs_.size()); }
  // True if the node names input i: inputs may be left out.
  bool Has(int i) const { return i < num_inputs() && inputs_[i] != nullptr; }
  Item& item(int i) const { return *inputs_[i]; }
  // The value of an input. An invalid Value if the node does not have it, or if it cannot be one;
  // the graph then has the error.
  Value In(int i) const { return Has(i) ? importer_.ValueOf(*inputs_[i]) : Value(); }
  std::vector<Value> Ins() const;
  // The type of an input; float32[] if the node does not have it.
  const TensorType& Type(int i) const {
    static const TensorType* const none = new TensorType();
    return Has(i) ? inputs_[i]->type : *none;
  }
  int64_t Rank(int i) const { return Type(i).shape.rank(); }

  // The value of an input that must be known now, as a tensor, as whole numbers, or as one number.
  absl::StatusOr<Tensor> Known(int i) const {
    return Has(i) ? importer_.KnownValue(*inputs_[i]) : Wrong("input ", i, " is missing");
  }
  absl::StatusOr<Integers> KnownIntegers(int i) const;
  absl::StatusOr<double> KnownNumber(int i) const;
  // The zero point of quantized numbers that input i gives: 0 if the node does not have the input,
  // nullopt if it is not one number that is known now.
  std::optional<int64_t> KnownZero(int i) const;
  // The elements of an input, whose sizes may be symbols.
  absl::StatusOr<Elements> KnownElements(int i) const {
    return Has(i) ? importer_.ElementsOf(*inputs_[i]) : Wrong("input ", i, " is missing");
  }

  // Attributes. The result is the default if the node does not have the attribute. An attribute
  // that its row never asks for is an error, so that nothing in a file is ignored unseen.
  const proto::Attribute* Find(absl::string_view name) const;
  int64_t Int(absl::string_view name, int64_t otherwise) const;
  double Float(absl::string_view name, double otherwise) const;
  std::string Text(absl::string_view name, absl::string_view otherwise) const;
  std::optional<Integers> Ints(absl::string_view name) const;
  absl::StatusOr<Tensor> TensorAttribute(absl::string_view name) const;
  // Notes attributes that do not matter for this node.
  void Ignore(std::initializer_list<absl::string_view> names) const { asked_.insert(names.begin(), names.end()); }
  absl::Status CheckAttributes() const;
  // Whole numbers that are an attribute in old opsets and input i in new ones; nullopt if they are
  // not given.
  absl::StatusOr<std::optional<Integers>> IntsOrInput(absl::string_view name, int i) const;
  // The axis as one in [0, rank), or InvalidArgument.
  absl::StatusOr<int64_t> Axis(int64_t axis, int64_t rank) const;
  absl::StatusOr<Integers> Axes(Integers axes, int64_t rank) const;

  // Integers that few ops of the engine take: int8, int16, uint16, uint32 and uint64.
  bool HasNarrowInputs() const;
  // Casts such inputs to int32, or to int64 if they have 32 bits or more, until Narrow casts
  // outputs of that dtype back. Integers wrap around, as in ONNX.
  void Widen();
  void Narrow();

  int num_outputs() const { return node_.output_size(); }
  bool Wants(int i) const { return i < num_outputs() && !node_.output(i).empty(); }
  void Set(int i, Value value);
  void Set(int i, Tensor value);
  // An int64 output of rank 0 or 1 with these elements.
  void Set(int i, Elements elements, bool scalar, DType dtype = kInt64);
  void Set(int i, Item* item);
  bool IsSet(int i) const { return outputs_[i] != nullptr; }
  Item* output(int i) const { return outputs_[i]; }

  // Two sizes that have to be equal in any run. If one is open, a later attempt replaces it by the
  // other one.
  absl::Status RequireEqual(const Dim& a, const Dim& b, absl::string_view what);
  const std::vector<std::pair<Dim, Dim>>& required() const { return required_; }

  // Errors: a node that does not follow the rules of ONNX, and one that cannot be imported.
  template <typename... Parts>
  absl::Status Wrong(const Parts&... parts) const {
    return absl::InvalidArgumentError(absl::StrCat(parts...));
  }
  template <typename... Parts>
  absl::Status Refuse(const Parts&... parts) const {
    return absl::UnimplementedError(absl::StrCat(parts...));
  }

 private:
  Importer& importer_;
  NameScope& names_;
  const proto::Node& node_;
  const int64_t opset_;
  std::vector<std::pair<Dim, Dim>> required_;
  std::optional<DType> narrow_, wide_;  // Set by Widen.
  mutable std::set<absl::string_view> asked_;
  std::vector<Item*> inputs_;
  std::vector<Item*> outputs_;
};

// The size of an axis, or 0 if there is no such axis: the value of a builder call that failed has
// no axes, and its row goes on.
inline Dim SizeAt(const Shape& shape, int64_t axis) {
  return axis >= 0 && axis < shape.rank() ? shape[static_cast<int>(axis)] : Dim(0);
}

// x with each element of the axis `times` times.
Value Repeat(Value x, int64_t axis, int64_t times);

// A number of the file as an integer: those beyond the range of int64 become its ends, NaN 0.
int64_t ToInteger(double number);

// Follows integers through the node. Returns true if it has set the output from the elements of the
// inputs.
bool FollowElements(Call& call);

// Rows of ops that are one function of the engine.
template <Value (*kFunction)(Operand)>
absl::Status Unary(Call& call) {
  call.Set(0, kFunction(call.In(0)));
  return absl::OkStatus();
}
// From opset 7 on operands broadcast as in NumPy. Before, the second one's axes were placed by
// attributes.
absl::StatusOr<std::pair<Value, Value>> BroadcastOperands(Call& call);
template <Value (*kFunction)(Operand, Operand)>
absl::Status Binary(Call& call) {
  auto operands = BroadcastOperands(call);
  if (!operands.ok()) return operands.status();
  call.Set(0, kFunction(operands->first, operands->second));
  return absl::OkStatus();
}

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_IMPORTER_H_
