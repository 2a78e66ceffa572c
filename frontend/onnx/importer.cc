// The walk over the nodes of a model.
#include "gradweave/frontend/onnx/importer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/op.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::onnx {
namespace {

constexpr int kMostNested = 16;        // Bodies in bodies, and functions in functions.
constexpr size_t kMostProblems = 100;  // Nodes that an error lists.
constexpr size_t kMostName = 100;      // Bytes of a name in an error.
constexpr int kMostOpsets = 1000;      // Domains that a model or a function names.
// Nodes and the names in them that all attempts may walk, also where functions and loops repeat
// them. It bounds the time of an import to a second or two.
constexpr int64_t kMostWork = 1 << 20;
// The memory that a node of the graph and a value of the import take, with their names and shapes.
constexpr int64_t kNodeBytes = 1024, kItemBytes = 256;

std::string DescribeNode(const proto::Node& node) {
  std::string name = node.name();
  if (name.empty() && node.output_size() > 0) name = node.output(0);
  auto shown = [](const std::string& text) { return PrintableText(text.substr(0, kMostName)); };
  return absl::StrCat("node '", shown(name), "' (", shown(node.domain()), node.domain().empty() ? "" : ".",
                      shown(node.op_type()), ")");
}

std::string DomainOf(absl::string_view domain) { return domain == "ai.onnx" ? "" : std::string(domain); }

// Makes the name of a symbol from a name of the file.
std::string SymbolName(absl::string_view name) {
  std::string symbol(name.substr(0, 64));
  for (char& c : symbol) {
    const bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    if (!allowed) c = '_';
  }
  if (!IsSymbolName(symbol)) symbol = absl::StrCat("_", symbol);
  return symbol;
}

// The symbol of an open size: its name in the file, or one of its own. "?" names nothing.
std::optional<std::string> SymbolOf(const proto::ValueInfo& input, int axis) {
  const proto::Dimension& dim = input.type().tensor_type().shape().dim(axis);
  if (dim.has_dim_value() && dim.dim_value() >= 0) return std::nullopt;
  if (!dim.dim_param().empty() && dim.dim_param() != "?") return SymbolName(dim.dim_param());
  return SymbolName(absl::StrCat(input.name().substr(0, 40), "_", axis));
}

// The names that a node uses, with those that its bodies use from outside.
void CollectUses(const proto::Node& node, int depth, std::vector<std::string>& names) {
  names.insert(names.end(), node.input().begin(), node.input().end());
  if (depth > kMostNested) return;
  for (const proto::Attribute& attribute : node.attribute()) {
    auto body_uses = [&](const proto::Graph& body) {
      for (const proto::Node& inner : body.node()) CollectUses(inner, depth + 1, names);
      for (const proto::ValueInfo& output : body.output()) names.push_back(output.name());
    };
    if (attribute.has_g()) body_uses(attribute.g());
    for (const proto::Graph& body : attribute.graphs()) body_uses(body);
  }
}

}  // namespace

Importer::Importer(proto::Model& model, const ImportOptions& options, std::string folder, Knowledge& knowledge)
    : file_(model), options_(options), folder_(std::move(folder)), knowledge_(knowledge) {
  scope_ = options.registry == nullptr ? std::make_unique<Scope>(model_.graph)
                                       : std::make_unique<Scope>(model_.graph, *options.registry);
  graph().builder().location = {graph().Intern("onnx"), 0};
  for (const proto::Function& function : model.functions())
    functions_.try_emplace({DomainOf(function.domain()), function.name()}, &function);
}

absl::Status Importer::Take(int64_t bytes) {
  room() -= bytes;
  return room() >= 0 ? absl::OkStatus() : BeyondLimit(options_.memory_limit);
}

// Takes room for the nodes and values that were made since the last call.
absl::Status Importer::TakeNew() {
  int64_t bytes = 0;
  for (; num_counted_items_ < items_.size(); ++num_counted_items_) {
    const Item& item = items_[num_counted_items_];
    bytes += kItemBytes + static_cast<int64_t>(item.elements.has_value() ? item.elements->size() * sizeof(Dim) : 0);
    // Views of an initializer or of another value count as well: an upper limit.
    if (item.tensor.has_value() && !item.is_initializer) bytes += static_cast<int64_t>(item.tensor->byte_size());
  }
  const size_t nodes = static_cast<size_t>(graph().num_nodes());
  bytes += kNodeBytes * static_cast<int64_t>(nodes - std::min(nodes, num_counted_nodes_));
  num_counted_nodes_ = nodes;
  return Take(bytes);
}

absl::Status Importer::AddWork(int64_t work) {
  knowledge_.work += work;
  if (knowledge_.work <= kMostWork) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("with all repetitions of functions and loops, and all attempts to find sizes that fit, there are "
                   "more than ",
                   kMostWork, " nodes and names of values"));
}

Item* Importer::NewItem(std::string name) {
  items_.emplace_back().name = std::move(name);
  return &items_.back();
}

Item* Importer::Lookup(const NameScope& scope, absl::string_view name) const {
  for (const NameScope* at = &scope; at != nullptr; at = at->outer) {
    if (const auto found = at->items.find(name); found != at->items.end()) return found->second;
  }
  return nullptr;
}

bool Importer::IsMissing(const NameScope& scope, const std::string& name) const {
  for (const NameScope* at = &scope; at != nullptr; at = at->outer) {
    if (at->missing.contains(name)) return true;
  }
  return false;
}

void Importer::ListProblem(const proto::Node& node, absl::string_view what) {
  if (problems_.size() < kMostProblems) problems_.push_back(absl::StrCat(DescribeNode(node), ": ", what));
}

absl::StatusOr<std::map<std::string, int64_t>> Importer::ReadOpsets(
    const google::protobuf::RepeatedPtrField<proto::OperatorSet>& sets) const {
  std::map<std::string, int64_t> opsets;
  if (sets.size() > kMostOpsets)
    return absl::InvalidArgumentError(absl::StrCat("it names more than ", kMostOpsets, " opsets"));
  for (const proto::OperatorSet& set : sets) {
    opsets[DomainOf(set.domain())] = set.version();
    if (DomainOf(set.domain()).empty() && (set.version() < 1 || set.version() > kNewestOpset)) {
      return absl::UnimplementedError(absl::StrCat("it uses opset ", set.version(), ", and this Gradweave reads 1 to ",
                                                   kNewestOpset, "; export it with one of these"));
    }
  }
  return opsets;
}

absl::Status Importer::AddInitializer(absl::string_view name, absl::StatusOr<Tensor> tensor, NameScope& scope) {
  const std::string where = absl::StrCat("initializer '", PrintableText(name), "': ");
  if (name.empty()) return absl::InvalidArgumentError("an initializer has no name");
  if (scope.items.contains(name)) return absl::InvalidArgumentError(absl::StrCat(where, "the name is taken"));
  if (!tensor.ok()) return absl::Status(tensor.status().code(), absl::StrCat(where, tensor.status().message()));
  Item* item = NewItem(std::string(name));
  item->type = tensor->type();
  item->tensor = *std::move(tensor);
  item->is_initializer = scope.outer == nullptr;
  scope.items[item->name] = item;
  return absl::OkStatus();
}

// Sizes of inputs that the options give also apply to other inputs with the same symbols.
void Importer::KnowGivenShapes(const proto::Graph& main) {
  auto know = [&](const proto::ValueInfo& input, const Shape& shape) {
    if (!input.type().has_tensor_type() || input.type().tensor_type().shape().dim_size() != shape.rank()) return;
    for (int axis = 0; axis < shape.rank(); ++axis) {
      const std::optional<std::string> symbol = SymbolOf(input, axis);
      if (symbol.has_value() && shape[axis].is_known()) knowledge_.sizes.Set(*symbol, shape[axis]);
    }
  };
  for (const proto::ValueInfo& input : main.input()) {
    if (const auto given = options_.shapes.find(input.name()); given != options_.shapes.end())
      know(input, given->second);
    if (const auto fixed = options_.fixed.find(input.name()); fixed != options_.fixed.end())
      know(input, fixed->second.shape());
  }
}

absl::Status Importer::AddInput(const proto::ValueInfo& info, NameScope& scope) {
  if (scope.items.contains(info.name())) return absl::OkStatus();  // An initializer has its value.
  const std::string where = absl::StrCat("input '", PrintableText(info.name()), "': ");
  Item* item = NewItem(info.name());
  scope.items[info.name()] = item;
  if (const auto fixed = options_.fixed.find(info.name()); fixed != options_.fixed.end()) {
    item->type = fixed->second.type();
    item->tensor = fixed->second;
    return absl::OkStatus();
  }
  if (!info.type().has_tensor_type()) {
    return absl::UnimplementedError(
        absl::StrCat(where, "it is not a tensor; sequences, maps and optional values are not supported"));
  }
  const proto::Type::Tensor& type = info.type().tensor_type();
  const absl::StatusOr<DType> dtype = DTypeFromOnnx(type.elem_type());
  if (!dtype.ok()) return absl::Status(dtype.status().code(), absl::StrCat(where, dtype.status().message()));
  Shape shape;
  if (const auto given = options_.shapes.find(info.name()); given != options_.shapes.end()) {
    shape = given->second;
  } else if (!type.has_shape()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, "the file has no shape for it; ImportOptions::shapes can give one"));
  } else {
    for (int axis = 0; axis < type.shape().dim_size(); ++axis) {
      const proto::Dimension& dim = type.shape().dim(axis);
      const std::optional<std::string> symbol = SymbolOf(info, axis);
      shape.Append(symbol.has_value() ? knowledge_.sizes.Of(*symbol) : Dim(dim.dim_value()));
    }
  }
  item->value = scope_->Input(info.name(), *dtype, shape);
  if (!graph().status().ok()) {
    return absl::Status(graph().status().code(), absl::StrCat(where, graph().status().message()));
  }
  item->type = item->value.type();
  open_inputs_.emplace_back(info.name(), shape);
  input_nodes_[item->value.port().node] = info.name();
  input_names_.push_back(info.name());
  return absl::OkStatus();
}

const proto::Function* Importer::FindFunction(absl::string_view domain, absl::string_view name) const {
  const auto found = functions_.find({std::string(domain), std::string(name)});
  return found != functions_.end() ? found->second : nullptr;
}

absl::Status Importer::ImportFunction(const proto::Function& function, const proto::Node& node, NameScope& scope) {
  NameScope inner{.attributes = &node.attribute(), .function = &function, .depth = scope.depth + 1};
  GW_ASSIGN_OR_RETURN(inner.opsets, ReadOpsets(function.opset_import()));
  if (node.input_size() > function.input_size())
    return absl::InvalidArgumentError("it has more inputs than its function");
  for (int i = 0; i < node.input_size(); ++i) {
    if (!node.input(i).empty()) inner.items[function.input(i)] = Lookup(scope, node.input(i));
  }
  GW_RETURN_IF_ERROR(ImportNodes(function.node(), inner, {function.output().begin(), function.output().end()}));
  for (int i = 0; i < std::min(node.output_size(), function.output_size()); ++i) {
    if (Item* item = Lookup(inner, function.output(i)); item != nullptr) scope.items[node.output(i)] = item;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Item*>> Importer::ImportBody(const proto::Graph& body, const NameScope& outer,
                                                        const std::vector<Item*>& inputs) {
  NameScope inner{.outer = &outer,
                  .attributes = outer.attributes,
                  .function = outer.function,
                  .opsets = outer.opsets,
                  .depth = outer.depth + 1};
  for (const proto::Tensor& initializer : body.initializer())
    GW_RETURN_IF_ERROR(AddInitializer(initializer.name(), ReadTensor(initializer, folder_, room()), inner));
  if (static_cast<int>(inputs.size()) != body.input_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("its body has ", body.input_size(), " inputs and gets ", inputs.size()));
  }
  for (int i = 0; i < body.input_size(); ++i) inner.items[body.input(i).name()] = inputs[i];
  std::vector<std::string> names;
  for (const proto::ValueInfo& output : body.output()) names.push_back(output.name());
  GW_RETURN_IF_ERROR(ImportNodes(body.node(), inner, names));
  std::vector<Item*> outputs;
  for (const std::string& name : names) {
    Item* item = Lookup(inner, name);
    if (item == nullptr && !problems_.empty())
      return absl::UnimplementedError("its body has nodes that cannot be imported");
    if (item == nullptr)
      return absl::InvalidArgumentError(absl::StrCat("its body has no value '", PrintableText(name), "'"));
    outputs.push_back(item);
  }
  return outputs;
}

absl::Status Importer::ImportNodes(const google::protobuf::RepeatedPtrField<proto::Node>& nodes, NameScope& scope,
                                   const std::vector<std::string>& outputs) {
  if (scope.depth > kMostNested) {
    return absl::InvalidArgumentError(absl::StrCat("graphs and functions are nested more than ", kMostNested, " deep"));
  }
  GW_RETURN_IF_ERROR(AddWork(nodes.size()));
  // Nodes that no output needs are left out: they may be of any kind.
  std::set<std::string> wanted(outputs.begin(), outputs.end());
  std::vector<bool> needed(static_cast<size_t>(nodes.size()));
  absl::flat_hash_map<std::string, int> makers;  // The node that gives a name.
  for (int i = nodes.size() - 1; i >= 0; --i) {
    const proto::Node& node = nodes.Get(i);
    for (const std::string& output : node.output()) {
      if (output.empty()) continue;
      makers[output] = i;
      if (wanted.contains(output)) needed[static_cast<size_t>(i)] = true;
    }
    if (!needed[static_cast<size_t>(i)]) continue;
    std::vector<std::string> uses;
    CollectUses(node, scope.depth, uses);
    GW_RETURN_IF_ERROR(AddWork(static_cast<int64_t>(uses.size())));
    wanted.insert(uses.begin(), uses.end());
  }
  for (int i = 0; i < nodes.size(); ++i) {
    if (!needed[static_cast<size_t>(i)]) continue;
    const proto::Node& node = nodes.Get(i);
    bool complete = true;
    for (const std::string& input : node.input()) {
      if (input.empty() || Lookup(scope, input) != nullptr) continue;
      complete = false;
      if (IsMissing(scope, input)) continue;
      const auto maker = makers.find(input);
      return absl::InvalidArgumentError(
          absl::StrCat(DescribeNode(node), ": it uses '", PrintableText(input), "', which ",
                       maker == makers.end() ? "no input, initializer or node gives"
                                             : "a node behind it gives; nodes have to be in order, without cycles"));
    }
    for (const std::string& output : node.output()) {
      if (!output.empty() && scope.items.contains(output)) {
        return absl::InvalidArgumentError(absl::StrCat(DescribeNode(node), ": its output '", PrintableText(output),
                                                       "' is the name of another value"));
      }
    }
    if (complete) GW_RETURN_IF_ERROR(ImportNode(node, i, scope));
    for (const std::string& output : node.output()) {
      if (!output.empty() && !scope.items.contains(output)) scope.missing.insert(output);
    }
  }
  return absl::OkStatus();
}

absl::Status Importer::ImportNode(const proto::Node& node, int index, NameScope& scope) {
  const std::string domain = DomainOf(node.domain());
  auto fail = [&](const absl::Status& status) {
    absl::Status named(status.code(), absl::StrCat(DescribeNode(node), ": ", status.message()));
    status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) { named.SetPayload(type, payload); });
    return named;
  };
  if (const proto::Function* function = FindFunction(domain, node.op_type()); function != nullptr) {
    const absl::Status status = ImportFunction(*function, node, scope);
    // The outermost call and the node inside are named, and no functions between them.
    return status.ok() || scope.depth > 0 ? status : fail(status);
  }
  const auto opset = scope.opsets.find(domain);
  if (opset == scope.opsets.end()) {
    ListProblem(node, domain.empty() ? "the file names no opset"
                                     : absl::StrCat("the file names no opset of domain '", PrintableText(domain), "'"));
    return absl::OkStatus();
  }
  const OpRow* row = FindRow(domain, node.op_type(), opset->second);
  if (row == nullptr) {
    ListProblem(node, absl::StrCat("there is no import of this op at opset ", opset->second));
    return absl::OkStatus();
  }
  Call call(*this, scope, node, opset->second);
  for (int i = 0; i < row->inputs; ++i) {
    if (!call.Has(i)) return fail(absl::InvalidArgumentError(absl::StrCat("input ", i, " is missing")));
  }
  const LocationGuard guard(graph(), {graph().Intern("onnx"), static_cast<uint32_t>(index) + 1});
  absl::Status status = absl::OkStatus();
  const bool narrow = call.HasNarrowInputs(), widened = narrow && knowledge_.widened_ops.contains(node.op_type());
  if (widened) call.Widen();
  if (!FollowElements(call)) {
    status = row->import(call);
    if (status.ok()) status = call.CheckAttributes();
  }
  if (widened && status.ok()) call.Narrow();
  if (narrow && !widened && !again_ && (!status.ok() || !graph().status().ok())) {
    knowledge_.widened_ops.insert(node.op_type());
    BeginAgain();
  }
  if (!graph().status().ok() || again_) {
    NoteMisfit(call);
    return fail(WithNeeds(graph().status().ok() ? status : graph().status()));
  }
  if (absl::IsUnimplemented(status) || absl::IsFailedPrecondition(status)) {
    for (int i = 0; i < call.num_inputs(); ++i) {
      for (int k = 0; call.Has(i) && k < call.Rank(i); ++k) NeedSize(call.Type(i).shape[k]);
    }
    ListProblem(node, absl::StrCat(status.message(), " (opset ", opset->second, ")"));
    return absl::OkStatus();
  }
  if (!status.ok()) {
    NoteMisfit(call);
    return fail(WithNeeds(status));
  }
  GW_RETURN_IF_ERROR(TakeNew());
  ++num_imported_;
  for (int i = 0; i < node.output_size(); ++i) {
    if (node.output(i).empty()) continue;
    if (!call.IsSet(i)) {
      ListProblem(node, absl::StrCat("its output ", i, " cannot be imported (opset ", opset->second, ")"));
      continue;
    }
    scope.items[node.output(i)] = call.output(i);
  }
  return absl::OkStatus();
}

// Keeps guesses that may make the node fit. Of nested nodes, the innermost one counts.
void Importer::NoteMisfit(const Call& call) {
  if (num_fitting_ > 0 || !guesses_.empty()) return;
  num_fitting_ = num_imported_ + 1;
  std::vector<Shape> operands;
  std::vector<std::pair<Dim, Dim>> equal = call.required();
  for (int i = 0; i < call.num_inputs(); ++i) {
    if (!call.Has(i)) continue;
    operands.push_back(call.Type(i).shape);
    for (const Dim& size : operands.back()) NeedSize(size);
  }
  const std::string& op = call.node().op_type();
  if (operands.size() < 2) return;
  const Shape &a = operands[0], &b = operands[1];
  if (op == "MatMul" && a.rank() > 0 && b.rank() > 1) equal.emplace_back(a[a.rank() - 1], b[b.rank() - 2]);
  if (const auto& target = call.item(1).elements; op == "Reshape" && target.has_value()) {
    Dim count(1);
    for (const Dim& size : *target) count = count * size;
    equal.emplace_back(a.num_elements(), count);
  }
  guesses_ = GuessSizes(operands, equal);
}

// An error with the inputs on whose sizes a node depends that does not fit.
absl::Status Importer::WithNeeds(absl::Status status) const {
  std::vector<std::string> inputs;
  for (const auto& [name, shape] : open_inputs_) {
    std::set<std::string> symbols;
    shape.CollectSymbols(symbols);
    const bool needed = std::any_of(symbols.begin(), symbols.end(),
                                    [&](const std::string& symbol) { return needed_symbols_.contains(symbol); });
    if (needed) inputs.push_back(name);
  }
  if (inputs.empty()) return status;
  absl::Status result(status.code(), absl::StrCat(status.message(), "; ImportOptions::shapes can give sizes of '",
                                                  absl::StrJoin(inputs, "', '"), "'"));
  result.SetPayload(kNeededShapes, absl::Cord(absl::StrJoin(inputs, "\n")));
  return result;
}

absl::StatusOr<ImportedModel> Importer::Run() {
  if (!file_.has_graph())
    return absl::InvalidArgumentError("it has no graph, so it is not an ONNX model, or it is truncated");
  if (file_.ir_version() > kNewestIrVersion) {
    return absl::UnimplementedError(
        absl::StrCat("it has IR version ", file_.ir_version(), ", and this Gradweave reads up to ", kNewestIrVersion));
  }
  NameScope scope;
  GW_ASSIGN_OR_RETURN(scope.opsets, ReadOpsets(file_.opset_import()));
  if (file_.opset_import_size() == 0) scope.opsets[""] = 1;  // As files of IR version 2 and below.
  proto::Graph& main = *file_.mutable_graph();
  if (main.sparse_initializer_size() > 0)
    return absl::UnimplementedError("it has sparse initializers, which are not supported");
  std::vector<absl::StatusOr<Tensor>>& tensors = knowledge_.initializers;
  for (int i = 0; i < main.initializer_size(); ++i) {
    proto::Tensor& initializer = *main.mutable_initializer(i);
    if (static_cast<int>(tensors.size()) == i) tensors.push_back(TakeTensor(initializer, folder_, room()));
    GW_RETURN_IF_ERROR(AddInitializer(initializer.name(), tensors[static_cast<size_t>(i)], scope));
  }
  KnowGivenShapes(main);
  for (const proto::ValueInfo& input : main.input()) GW_RETURN_IF_ERROR(AddInput(input, scope));
  for (const auto& [name, tensor] : options_.fixed) {
    if (Lookup(scope, name) == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("ImportOptions::fixed has '", name, "', which is not an input"));
    }
  }
  std::vector<std::string> outputs;
  for (const proto::ValueInfo& output : main.output()) outputs.push_back(output.name());
  if (outputs.empty()) return absl::InvalidArgumentError("it has no outputs");
  GW_RETURN_IF_ERROR(ImportNodes(main.node(), scope, outputs));
  if (!problems_.empty()) {
    const bool needs_inputs = !needed_inputs_.empty();
    const std::string text = absl::StrCat(problems_.size(), problems_.size() == 1 ? " node" : " nodes",
                                          " cannot be imported: ", absl::StrJoin(problems_, "; "));
    absl::Status status =
        WithNeeds(needs_inputs ? absl::FailedPreconditionError(text) : absl::UnimplementedError(text));
    if (needs_inputs) status.SetPayload(kNeededInputs, absl::Cord(absl::StrJoin(needed_inputs_, "\n")));
    return status;
  }
  ImportedModel result;
  for (const std::string& name : outputs) {
    Item* item = Lookup(scope, name);
    if (item == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("output '", PrintableText(name), "': no input, initializer or node gives it"));
    }
    graph().SetOutput(name, {ValueOf(*item)});
    if (!graph().status().ok()) return graph().status();
  }
  scope_ = nullptr;
  graph().builder() = {.next_seed = graph().builder().next_seed, .registry = graph().builder().registry};
  result.model = std::move(model_);
  result.inputs = std::move(input_names_);
  result.outputs = std::move(outputs);
  return result;
}

}  // namespace gradweave::onnx
