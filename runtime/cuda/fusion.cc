#include "gradweave/runtime/cuda/fusion.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {
namespace {

// The instruction of an op; nothing where it is not to be fused.
std::optional<FusedOp> FindOp(absl::string_view op) {
  static const auto* const kOps = new absl::flat_hash_map<absl::string_view, FusedOp>{
#define GRADWEAVE_ENTRY(name) {#name, FusedOp::k##name},
      GRADWEAVE_FUSED_UNARY(GRADWEAVE_ENTRY) GRADWEAVE_FUSED_BINARY(GRADWEAVE_ENTRY)  //
      {"Where", FusedOp::kWhere},
      {"LeakyRelu", FusedOp::kLeakyRelu},
      {"Elu", FusedOp::kElu},
      {"Clip", FusedOp::kClip},
      {"Cast", FusedOp::kCopy},
      {"BroadcastTo", FusedOp::kCopy},
#undef GRADWEAVE_ENTRY
  };
  auto found = kOps->find(op);
  return found == kOps->end() ? std::nullopt : std::optional<FusedOp>(found->second);
}

// The kind of a reduction that a chain can end in.
std::optional<FusedReductionKind> FindReduction(absl::string_view op) {
#define GRADWEAVE_ENTRY(name) \
  if (op == #name) return FusedReductionKind::k##name;
  GRADWEAVE_FUSED_REDUCTIONS(GRADWEAVE_ENTRY)
#undef GRADWEAVE_ENTRY
  return std::nullopt;
}

int64_t NumElements(const TensorType& type) { return type.shape.num_elements().size(); }

constexpr int64_t kMostOfOneOp = 1 << 16;  // Elements.

// Bit for bit: a chain with 0 is another than one with -0.
bool SameProgram(const FusedProgram& a, const FusedProgram& b) {
  static_assert(sizeof(FusedProgram) ==
                    3 * sizeof(int32_t) + sizeof a.instructions + sizeof a.numbers + sizeof a.sizes + sizeof a.strides,
                "there are no bytes between the members");
  return std::memcmp(&a, &b, sizeof(FusedProgram)) == 0;
}

std::vector<FusedBatch> BatchesOf(absl::Span<const FusedChain> chains) {
  std::vector<FusedBatch> batches;
  for (const FusedChain& chain : chains) {
    auto batch = std::find_if(batches.begin(), batches.end(), [&](const FusedBatch& of_same_program) {
      return chain.reductions.empty() && chain.dtype == of_same_program.dtype &&
             SameProgram(chain.program, of_same_program.program) &&
             of_same_program.members.size() < size_t{kMostFusedInstances};
    });
    if (batch == batches.end()) batch = batches.insert(batches.end(), {chain.dtype, chain.program});
    batch->reductions = chain.reductions;
    batch->members.push_back({chain.operands, chain.outputs, static_cast<uint32_t>(chain.total), batch->blocks});
    batch->blocks += static_cast<uint32_t>((chain.total + kFusedPerBlock - 1) / kFusedPerBlock);
  }
  return batches;
}

// A constant that a program holds itself.
bool IsConstantNumber(const Graph& graph, Port port) {
  return graph.node(port.node).op->name == "Constant" && IsFloating(graph.type(port).dtype) &&
         NumElements(graph.type(port)) == 1;
}

// The floating dtype that a node computes in, where it can be fused: its values are of that dtype, or truth values.
std::optional<DType> FusedDType(const Graph& graph, const Node& node) {
  if (node.outputs.size() != 1 || !FindOp(node.op->name).has_value()) return std::nullopt;
  const TensorType& output = node.outputs[0];
  if (NumElements(output) == 0 || NumElements(output) > INT32_MAX) return std::nullopt;
  std::optional<DType> dtype;
  auto accept = [&](DType of) {
    if (of == kBool) return true;
    if (!IsFloating(of) || (dtype.has_value() && *dtype != of)) return false;
    dtype = of;
    return true;
  };
  if (!accept(output.dtype)) return std::nullopt;
  for (Port input : node.inputs) {
    if (!accept(graph.type(input).dtype)) return std::nullopt;
  }
  // A cast to truth values compares with 0.
  if (node.op->name == "Cast" && output.dtype == kBool) return std::nullopt;
  return dtype;
}

// Builds the program of a chain.
class ChainBuilder {
 public:
  // The outputs are stored, the reduced values go to reductions.
  ChainBuilder(const Graph& graph, const std::vector<NodeId>& nodes, const absl::flat_hash_set<Port>& outputs,
               const std::vector<Port>& reduced)
      : graph_(graph), nodes_(nodes), outputs_(outputs), reduced_(reduced) {}

  // The program, and its tensors; nothing where it doesn't fit.
  struct Result {
    FusedProgram program;
    std::vector<Port> operands, outputs;
  };
  std::optional<Result> Build() {
    for (int i = FusedProgram::kMostRegisters; i-- > 0;) free_.push_back(static_cast<uint8_t>(i));
    absl::flat_hash_set<Port> own;
    for (NodeId id : nodes_) own.insert({id, 0});
    for (NodeId id : nodes_) {
      for (Port input : graph_.node(id).inputs) {
        ++uses_[input];
        if (!own.contains(input) && !IsConstantNumber(graph_, input) &&
            std::find(result_.operands.begin(), result_.operands.end(), input) == result_.operands.end())
          result_.operands.push_back(input);
      }
      const Port port{id, 0};
      if (!outputs_.contains(port)) continue;
      ++uses_[port];
      result_.outputs.push_back(port);
    }
    for (Port port : reduced_) ++uses_[port];
    if (result_.operands.size() + result_.outputs.size() > FusedProgram::kMostTensors) return std::nullopt;
    if (!AddAxes(graph_.node(nodes_[0]).outputs[0].shape)) return std::nullopt;
    for (NodeId id : nodes_) {
      if (!AddNode(graph_.node(id))) return std::nullopt;
    }
    for (size_t i = 0; i < result_.outputs.size(); ++i) {
      const Port port = result_.outputs[i];
      const FusedOp op = graph_.type(port).dtype == kBool ? FusedOp::kStoreBool : FusedOp::kStore;
      if (!Add({op, 0, static_cast<uint8_t>(result_.operands.size() + i), registers_[port]})) return std::nullopt;
    }
    for (size_t i = 0; i < reduced_.size(); ++i) {
      if (!Add({FusedOp::kReduce, 0, static_cast<uint8_t>(i), registers_[reduced_[i]]})) return std::nullopt;
    }
    return result_;
  }

 private:
  bool AddNode(const Node& node) {
    FusedInstruction instruction{*FindOp(node.op->name)};
    uint8_t sources[3] = {0, 0, 0};
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (!Load(node.inputs[i], NumElements(node.outputs[0]))) return false;
      sources[i] = registers_[node.inputs[i]];
    }
    instruction.a = sources[0];
    instruction.b = sources[1];
    instruction.c = sources[2];
    FusedProgram& program = result_.program;
    auto add_number = [&](const char* name) {
      if (program.num_numbers == FusedProgram::kMostNumbers) return false;
      program.numbers[program.num_numbers++] = node.attribute<double>(name);
      return true;
    };
    if (instruction.op == FusedOp::kLeakyRelu || instruction.op == FusedOp::kElu || instruction.op == FusedOp::kClip) {
      instruction.c = static_cast<uint8_t>(program.num_numbers);
      const bool fits = instruction.op == FusedOp::kLeakyRelu ? add_number("slope")
                        : instruction.op == FusedOp::kElu     ? add_number("alpha")
                                                              : add_number("low") && add_number("high");
      if (!fits) return false;
    }
    for (Port input : node.inputs) {
      if (--uses_[input] == 0) free_.push_back(registers_[input]);
    }
    if (free_.empty()) return false;
    instruction.to = registers_[{node.id, 0}] = free_.back();
    free_.pop_back();
    // A result that nothing reads would be a dead node, which passes have left out.
    return Add(instruction);
  }

  // How the operand is loaded for a result of so many elements.
  static FusedOp LoadOf(const TensorType& type, int64_t total) {
    const int64_t elements = NumElements(type);
    if (type.dtype == kBool) return elements == total ? FusedOp::kLoadBool : FusedOp::kLoadBroadcastBool;
    return elements == total ? FusedOp::kLoad : elements == 1 ? FusedOp::kLoadNumber : FusedOp::kLoadBroadcast;
  }

  // The axes that operands broadcast along, and their strides. False where there are too many.
  bool AddAxes(const Shape& result) {
    FusedProgram& program = result_.program;
    std::vector<std::pair<size_t, const Shape*>> broadcast;
    for (size_t i = 0; i < result_.operands.size(); ++i) {
      const TensorType& type = graph_.type(result_.operands[i]);
      const FusedOp op = LoadOf(type, result.num_elements().size());
      if (op == FusedOp::kLoadBroadcast || op == FusedOp::kLoadBroadcastBool) broadcast.push_back({i, &type.shape});
    }
    if (broadcast.empty()) return true;
    // From the innermost axis outwards; turned round at the end.
    std::vector<int64_t> next(broadcast.size(), 1);  // Elements of each operand in the axes so far.
    for (int axis = result.rank() - 1; axis >= 0; --axis) {
      const int64_t size = result[axis].size();
      if (size == 1) continue;
      std::vector<int64_t> strides(broadcast.size(), 0);
      for (size_t k = 0; k < broadcast.size(); ++k) {
        const Shape& shape = *broadcast[k].second;
        const int own = axis - (result.rank() - shape.rank());
        if (own < 0 || shape[own].size() == 1) continue;
        strides[k] = next[k];
        next[k] *= size;
      }
      const int inner = program.num_axes - 1;
      bool joins = inner >= 0;
      for (size_t k = 0; k < broadcast.size() && joins; ++k) {
        joins = strides[k] == int64_t{program.strides[broadcast[k].first][inner]} * program.sizes[inner];
      }
      if (joins) {
        program.sizes[inner] *= static_cast<uint32_t>(size);
        continue;
      }
      if (program.num_axes == FusedProgram::kMostAxes) return false;
      program.sizes[program.num_axes] = static_cast<uint32_t>(size);
      for (size_t k = 0; k < broadcast.size(); ++k) {
        program.strides[broadcast[k].first][program.num_axes] = static_cast<uint32_t>(strides[k]);
      }
      ++program.num_axes;
    }
    std::reverse(program.sizes, program.sizes + program.num_axes);
    for (const auto& [operand, shape] : broadcast) {
      std::reverse(program.strides[operand], program.strides[operand] + program.num_axes);
    }
    return true;
  }

  // Brings an operand of the chain into a register, unless it is in one.
  bool Load(Port port, int64_t total) {
    if (registers_.contains(port)) return true;
    if (free_.empty()) return false;
    if (IsConstantNumber(graph_, port)) {
      FusedProgram& program = result_.program;
      if (program.num_numbers == FusedProgram::kMostNumbers) return false;
      program.numbers[program.num_numbers] = graph_.node(port.node).attribute<Tensor>("value").ToDouble();
      registers_[port] = free_.back();
      free_.pop_back();
      return Add({FusedOp::kNumber, registers_[port], 0, 0, static_cast<uint8_t>(program.num_numbers++)});
    }
    const auto tensor = std::find(result_.operands.begin(), result_.operands.end(), port) - result_.operands.begin();
    registers_[port] = free_.back();
    free_.pop_back();
    return Add({LoadOf(graph_.type(port), total), registers_[port], static_cast<uint8_t>(tensor)});
  }

  bool Add(FusedInstruction instruction) {
    FusedProgram& program = result_.program;
    if (program.count == FusedProgram::kMostInstructions) return false;
    program.instructions[program.count++] = instruction;
    return true;
  }

  const Graph& graph_;
  const std::vector<NodeId>& nodes_;
  const absl::flat_hash_set<Port>& outputs_;
  const std::vector<Port>& reduced_;
  Result result_;
  absl::flat_hash_map<Port, int> uses_;
  absl::flat_hash_map<Port, uint8_t> registers_;
  std::vector<uint8_t> free_;
};

// Finds levels such that nodes of one level that can be fused may run side by side: a path from one to another through
// a node that cannot be fused, or from a number to a tensor, leads to a higher level.
class Planner {
 public:
  Planner(const Graph& graph, const FusionOptions& options) : graph_(graph), options_(options), n_(graph.num_nodes()) {}

  FusionPlan Plan() {
    FindUsers();
    FindLevels();
    PutOffUpdates();
    WaitForReaders();
    MakeGroups();
    MakeOrder();
    return std::move(plan_);
  }

 private:
  bool fused(NodeId id) const { return dtypes_[id].has_value(); }
  const Shape& shape(NodeId id) const { return graph_.node(id).outputs[0].shape; }
  // Whether the two can be in one chain, one reading the other.
  bool Joins(NodeId a, NodeId b) const {
    return fused(a) && fused(b) && dtypes_[a] == dtypes_[b] && shape(a) == shape(b);
  }
  // How many levels lie between a node and one that it reads.
  int Step(NodeId from, NodeId to) const { return fused(from) && !Joins(from, to) ? 1 : 0; }

  void FindUsers() {
    users_.resize(n_);
    for (const Node& node : graph_.nodes()) {
      dtypes_.push_back(FusedDType(graph_, node));
      for (Port input : node.inputs) users_[input.node].push_back(node.id);
    }
    for (const auto& [name, ports] : graph_.outputs()) {
      for (Port port : ports) asked_for_.insert(port);
    }
  }

  void FindLevels() {
    levels_.assign(n_, 0);
    for (const Node& node : graph_.nodes()) {
      for (Port input : node.inputs) {
        levels_[node.id] = std::max(levels_[node.id], levels_[input.node] + Step(input.node, node.id));
      }
    }
  }

  // Nodes that can be fused, and whose results only such nodes and assignments read, get the highest level they may.
  void PutOffUpdates() {
    std::vector<bool> late(n_, false);
    std::vector<int> below(n_, 0);  // Levels that follow.
    int last = 0;
    for (NodeId id = n_ - 1; id >= 0; --id) {
      const bool assigns = graph_.node(id).op->name == "Assign";
      late[id] = assigns || (fused(id) && !users_[id].empty() && !asked_for_.contains({id, 0}));
      for (NodeId user : users_[id]) {
        late[id] = late[id] && late[user];
        below[id] = std::max(below[id], below[user] + Step(id, user));
      }
      last = std::max(last, levels_[id] + (late[id] ? below[id] : 0));
    }
    for (NodeId id = 0; id < n_; ++id) {
      if (late[id]) levels_[id] = last - below[id];
    }
  }

  // A node joins what reads it, where that has to wait for another operand: its value stays in a register.
  void WaitForReaders() {
    for (NodeId id = n_ - 1; id >= 0; --id) {
      if (!fused(id) || users_[id].empty()) continue;
      int latest = std::numeric_limits<int>::max();
      for (NodeId user : users_[id]) latest = std::min(latest, levels_[user] - Step(id, user));
      const bool joins = std::any_of(users_[id].begin(), users_[id].end(),
                                     [&](NodeId user) { return Joins(id, user) && levels_[user] == latest; });
      if (joins) levels_[id] = latest;
    }
  }

  void MakeGroups() {
    // Chains: nodes that read each other on one level.
    std::vector<NodeId> chain(n_);
    std::iota(chain.begin(), chain.end(), 0);
    auto root = [&](NodeId id) {
      while (chain[id] != id) id = chain[id] = chain[chain[id]];
      return id;
    };
    for (NodeId id = 0; id < n_; ++id) {
      for (Port input : graph_.node(id).inputs) {
        if (levels_[id] == levels_[input.node] && Joins(input.node, id)) chain[root(id)] = root(input.node);
      }
    }
    std::map<int, std::map<NodeId, std::vector<NodeId>>> by_level;
    for (NodeId id = 0; id < n_; ++id) {
      if (fused(id)) by_level[levels_[id]][root(id)].push_back(id);
    }
    group_of_.assign(n_, -1);
    for (const auto& [level, chains] : by_level) AddGroups(chains);
  }

  // Reductions that read a chain, with one first pass.
  std::vector<NodeId> ReductionsOf(const std::vector<NodeId>& nodes) const {
    if (!options_.reductions) return {};
    struct Candidates {
      ReductionPass pass;
      std::vector<NodeId> reductions;
    };
    std::vector<Candidates> candidates;
    for (NodeId id : nodes) {
      for (NodeId user : users_[id]) {
        const Node& node = graph_.node(user);
        if (!FindReduction(node.op->name).has_value() || node.outputs[0].dtype != dtypes_[id]) continue;
        const std::vector<ReductionPass> passes = PassesOf(node);
        if (passes.empty()) continue;
        const ReductionPass& pass = passes[0];
        // Threads of few columns read the chain's operands in pieces, which a large tensor's own kernel does not.
        const bool few_columns = pass.inner > 1 && pass.inner < kReducedColumns / 2;
        if (few_columns && shape(id).num_elements().size() > kMostOfOneOp) continue;
        auto found = std::find_if(candidates.begin(), candidates.end(), [&](const Candidates& other) {
          return other.pass.outer == pass.outer && other.pass.reduced == pass.reduced;
        });
        if (found == candidates.end()) found = candidates.insert(candidates.end(), {pass, {}});
        if (found->reductions.size() < size_t{kMostFusedReductions}) found->reductions.push_back(user);
      }
    }
    if (candidates.empty()) return {};
    return std::max_element(
               candidates.begin(), candidates.end(),
               [](const Candidates& a, const Candidates& b) { return a.reductions.size() < b.reductions.size(); })
        ->reductions;
  }

  std::vector<ReductionPass> PassesOf(const Node& reduction) const {
    return ReductionPasses(graph_.type(reduction.inputs[0]).shape, reduction.attribute<Integers>("axes"));
  }

  // The chain of the nodes, which ends in the reductions, as a part of the group; false where it doesn't fit a program.
  // Whatever is fused and reads a reduction, be it through nodes that are not, is of a higher level than the reduction,
  // which has its chain's: so a chain may take it along.
  bool AddChain(FusedGroup& group, const std::vector<NodeId>& nodes, const std::vector<NodeId>& reductions) {
    auto index_of = [](std::vector<Port>& ports, Port port) {
      auto found = std::find(ports.begin(), ports.end(), port);
      if (found == ports.end()) found = ports.insert(ports.end(), port);
      return static_cast<int>(found - ports.begin());
    };
    absl::flat_hash_set<NodeId> own(nodes.begin(), nodes.end());
    own.insert(reductions.begin(), reductions.end());
    absl::flat_hash_set<Port> outputs;
    for (NodeId id : nodes) {
      const bool outside =
          std::any_of(users_[id].begin(), users_[id].end(), [&](NodeId user) { return !own.contains(user); });
      if (outside || asked_for_.contains({id, 0})) outputs.insert({id, 0});
    }
    std::vector<Port> reduced;
    for (NodeId id : reductions) reduced.push_back(graph_.node(id).inputs[0]);
    const std::optional<ChainBuilder::Result> built = ChainBuilder(graph_, nodes, outputs, reduced).Build();
    if (!built.has_value()) return false;
    FusedChain chain{*dtypes_[nodes[0]], built->program};
    for (Port port : built->operands) chain.operands.push_back(index_of(group.operands, port));
    for (Port port : built->outputs) chain.outputs.push_back(index_of(group.outputs, port));
    for (NodeId id : reductions) {
      const Node& node = graph_.node(id);
      chain.reductions.push_back({*FindReduction(node.op->name), PassesOf(node), index_of(group.outputs, {id, 0})});
    }
    chain.total = shape(nodes[0]).num_elements().size();
    group.chains.push_back(std::move(chain));
    group.nodes.insert(group.nodes.end(), own.begin(), own.end());
    return true;
  }

  void AddGroups(const std::map<NodeId, std::vector<NodeId>>& chains) {
    FusedGroup group;
    for (const auto& [unused, nodes] : chains) {
      const std::vector<NodeId> reductions = ReductionsOf(nodes);
      if (!reductions.empty()) {
        FusedGroup alone;
        if (AddChain(alone, nodes, reductions)) {
          FinishGroup(std::move(alone));
          continue;
        }
      }
      // One op on a large tensor gains nothing: its own kernel moves more elements at a time.
      const int64_t total = shape(nodes[0]).num_elements().size();
      if (nodes.size() == 1 && total > kMostOfOneOp) continue;
      AddChain(group, nodes, {});
    }
    if (group.nodes.size() >= 2) FinishGroup(std::move(group));
  }

  void FinishGroup(FusedGroup group) {
    std::sort(group.nodes.begin(), group.nodes.end());
    group.batches = BatchesOf(group.chains);
    for (NodeId id : group.nodes) group_of_[id] = static_cast<int>(plan_.groups.size());
    plan_.groups.push_back(std::move(group));
  }

  // Kahn's algorithm; of what can run, what comes first in the graph does, and a group where its last node is.
  void MakeOrder() {
    auto item_of = [&](NodeId id) { return group_of_[id] < 0 ? id : ~group_of_[id]; };
    absl::flat_hash_map<int, int> waiting;
    std::priority_queue<std::pair<NodeId, int>, std::vector<std::pair<NodeId, int>>, std::greater<>> ready;
    auto key_of = [&](int item) { return item >= 0 ? item : plan_.groups[~item].nodes.back(); };
    for (NodeId id = 0; id < n_; ++id) {
      int& count = waiting[item_of(id)];
      for (Port input : graph_.node(id).inputs) count += item_of(input.node) != item_of(id);
    }
    for (const auto& [item, count] : waiting) {
      if (count == 0) ready.push({key_of(item), item});
    }
    while (!ready.empty()) {
      const int item = ready.top().second;
      ready.pop();
      plan_.order.push_back(item);
      auto done = [&](NodeId id) {
        for (NodeId user : users_[id]) {
          if (item_of(user) != item && --waiting[item_of(user)] == 0)
            ready.push({key_of(item_of(user)), item_of(user)});
        }
      };
      if (item >= 0) {
        done(item);
      } else {
        for (NodeId id : plan_.groups[~item].nodes) done(id);
      }
    }
  }

  const Graph& graph_;
  const FusionOptions options_;
  const NodeId n_;
  std::vector<std::optional<DType>> dtypes_;
  std::vector<std::vector<NodeId>> users_;  // Once for each operand.
  absl::flat_hash_set<Port> asked_for_;
  std::vector<int> levels_, group_of_;
  FusionPlan plan_;
};

}  // namespace

FusionPlan FindFusedGroups(const Graph& graph, const FusionOptions& options) { return Planner(graph, options).Plan(); }

}  // namespace gradweave
