#include "gradweave/runtime/cuda/fusion/fusion.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <queue>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cuda/fusion/conv_program.h"
#include "gradweave/runtime/cuda/fusion/fused_chain.h"
#include "gradweave/runtime/cuda/fusion/row_program.h"

namespace gradweave {
namespace {

constexpr int64_t kMostOfOneOp = 1 << 16;  // In elements.
constexpr size_t kMostVisited = 1000;      // Limit of the nodes and groups to visit in a search for dependences.

// Compares bit for bit: a chain with 0 differs from one with -0.
bool SameProgram(const FusedProgram& a, const FusedProgram& b) {
  static_assert(sizeof(FusedProgram) ==
                    3 * sizeof(int32_t) + sizeof a.instructions + sizeof a.numbers + sizeof a.sizes + sizeof a.strides,
                "there are no bytes between the members");
  return std::memcmp(&a, &b, sizeof(FusedProgram)) == 0;  // NOLINT(bugprone-suspicious-memory-comparison)
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

// Assigns levels such that fusible nodes of one level may run together. A path from one node to
// another through a node that is not fusible, or from a reduction's result to a tensor, leads to a
// higher level.
class FusionPlanner {
 public:
  FusionPlanner(const Graph& graph, const FusionOptions& options)
      : graph_(graph), options_(options), n_(graph.num_nodes()) {}

  FusionPlan Plan() {
    FindUsers();
    left_ = FindSummedAlone();
    if (options_.convolution_channels > 0) AddConvGroups();
    if (options_.rows) AddRowGroups();
    FindLevels();
    PutOffUpdates();
    WaitForReaders();
    MakeGroups();
    plan_.order = Order();
    return std::move(plan_);
  }

 private:
  bool fused(NodeId id) const { return dtypes_[id].has_value(); }
  const Shape& shape(NodeId id) const { return graph_.node(id).outputs[0].shape; }
  // Returns true if the two nodes can be in one chain when one reads the other.
  bool Joins(NodeId a, NodeId b) const {
    return fused(a) && fused(b) && dtypes_[a] == dtypes_[b] && shape(a) == shape(b);
  }
  // Returns the number of levels between a node and one that it reads.
  int Step(NodeId from, NodeId to) const { return fused(from) && !Joins(from, to) ? 1 : 0; }

  void FindUsers() {
    users_.resize(n_);
    for (const Node& node : graph_.nodes()) {
      dtypes_.push_back(FusedDType(graph_, node));
      roots_.push_back(node.id);
      if (node.op->alias) roots_.back() = roots_[node.inputs[0].node];
      if (node.op->kind == OpKind::kAssign) roots_.back() = roots_[node.inputs[1].node];
      for (Port input : node.inputs) users_[input.node].push_back(node.id);
    }
    for (const auto& [name, ports] : graph_.outputs()) {
      for (Port port : ports) {
        while (graph_.node(port.node).op->alias) port = graph_.node(port.node).inputs[0];
        asked_for_.insert(port);
      }
    }
    group_of_.assign(n_, -1);
  }

  // Calls body(user) for each node that reads the node's result or a view of it.
  template <typename Body>
  void ForReaders(NodeId id, Body body) const {
    std::vector<NodeId> shapes = {id};
    while (!shapes.empty()) {
      const NodeId shape = shapes.back();
      shapes.pop_back();
      for (NodeId user : users_[shape]) {
        if (graph_.node(user).op->alias) {
          shapes.push_back(user);
        } else {
          body(user);
        }
      }
    }
  }

  // Convolutions come first: ops on their sums cost nothing while these are in registers.
  void AddConvGroups() {
    for (const Node& node : graph_.nodes()) {
      if (HasGeneratedConvolution(graph_, node, options_.convolution_channels)) AddConvGroup(node);
    }
  }

  // Adds the group of a convolution, the elementwise nodes behind it that depend on nothing outside
  // the group, and a pool of one of them.
  void AddConvGroup(const Node& convolution) {
    const DType dtype = convolution.outputs[0].dtype;
    absl::flat_hash_set<NodeId> own = {convolution.id};
    std::vector<NodeId> nodes;
    std::set<NodeId> readers(users_[convolution.id].begin(), users_[convolution.id].end());
    // A program has room for no more instructions.
    while (!readers.empty() && nodes.size() < size_t{FusedProgram::kMostInstructions}) {
      const NodeId id = *readers.begin();
      readers.erase(readers.begin());
      if (!fused(id) || dtypes_[id] != dtype || shape(id) != shape(convolution.id) || left_[id]) continue;
      if (ReadsOtherShapeOf(id, own) || WaitsForOthersOf({id}, own, convolution.id)) continue;
      own.insert(id);
      nodes.push_back(id);
      readers.insert(users_[id].begin(), users_[id].end());
    }
    // If not all of them fit, take a prefix: no node depends on a later one.
    while (!MakeConvGroup(convolution, nodes, PoolOf(convolution.id, nodes))) {
      if (nodes.empty()) {
        MakeConvGroup(convolution, {}, nullptr);
        return;
      }
      nodes.resize(nodes.size() / 2);
    }
  }

  // Returns the first pool of the convolution's or a node's result that a group can take, or null
  // if there is none.
  const Node* PoolOf(NodeId convolution, const std::vector<NodeId>& nodes) const {
    const Node* pool = nullptr;
    auto look_at_users = [&](NodeId id) {
      for (NodeId user : users_[id]) {
        const Node& reader = graph_.node(user);
        if (group_of_[user] < 0 && CanPoolCells(reader) && (pool == nullptr || user < pool->id)) pool = &reader;
      }
    };
    look_at_users(convolution);
    for (NodeId id : nodes) look_at_users(id);
    return pool;
  }

  // Returns false if the group does not fit.
  bool MakeConvGroup(const Node& convolution, const std::vector<NodeId>& nodes, const Node* pool) {
    FusedGroup group;
    group.nodes = nodes;
    group.nodes.push_back(convolution.id);
    absl::flat_hash_set<NodeId> own(group.nodes.begin(), group.nodes.end());
    if (pool != nullptr) own.insert(pool->id);
    absl::flat_hash_set<Port> outputs;
    for (NodeId id : group.nodes) {
      if (LeavesGroup(id, own)) outputs.insert({id, 0});
    }
    std::optional<ConvGroupProgram> program = MakeConvProgram(graph_, convolution, nodes, pool, outputs);
    if (!program.has_value()) return false;
    if (pool != nullptr) group.nodes.push_back(pool->id);
    group.operands = std::move(program->operands);
    group.outputs = std::move(program->outputs);
    group.convolution = std::make_shared<const ConvProgram>(std::move(program->program));
    for (NodeId id : group.nodes) dtypes_[id].reset();
    FinishGroup(std::move(group));
    return true;
  }

  // Returns true if the graph's outputs or nodes outside `own` read the node's result.
  bool LeavesGroup(NodeId id, const absl::flat_hash_set<NodeId>& own) const {
    bool leaves = asked_for_.contains({id, 0});
    ForReaders(id, [&](NodeId user) { leaves |= !own.contains(user); });
    return leaves;
  }

  // Returns true if the node reads a view of a result of `own`. A view is in memory, so another
  // step must have stored it.
  bool ReadsOtherShapeOf(NodeId id, const absl::flat_hash_set<NodeId>& own) const {
    const auto& inputs = graph_.node(id).inputs;
    return std::any_of(inputs.begin(), inputs.end(),
                       [&](Port input) { return !own.contains(input.node) && own.contains(roots_[input.node]); });
  }

  // Returns true if one of the nodes depends on one of `own`, whose first node is `first`, through
  // other nodes or through groups with such a member. Also returns true if the search takes too
  // long.
  bool WaitsForOthersOf(absl::Span<const NodeId> nodes, const absl::flat_hash_set<NodeId>& own, NodeId first) const {
    // Nodes before all of `own` cannot depend on it, except through a group with a later member.
    // Groups of convolutions are in the order of the convolutions, so one round finds all.
    for (bool found = true; found;) {
      found = false;
      for (size_t i = plan_.groups.size(); i-- > 0 && last_of_groups_[i] >= first;) {
        const std::vector<NodeId>& group = plan_.groups[i].nodes;
        if (group.front() >= first || group.back() < first) continue;
        first = group.front();
        found = true;
      }
    }
    std::vector<NodeId> next;
    auto add_operands = [&](NodeId id) {
      for (Port input : graph_.node(id).inputs) {
        if (input.node >= first) next.push_back(input.node);
      }
    };
    for (NodeId id : nodes) {
      for (Port input : graph_.node(id).inputs) {
        if (input.node >= first && !own.contains(roots_[input.node])) next.push_back(input.node);
      }
    }
    absl::flat_hash_set<OrderItem> seen;
    while (!next.empty()) {
      const NodeId id = next.back();
      next.pop_back();
      if (own.contains(id)) return true;
      if (!seen.insert(ItemOf(id)).second) continue;
      if (seen.size() > kMostVisited) return true;
      if (group_of_[id] < 0) {
        add_operands(id);
      } else {
        for (NodeId member : plan_.groups[group_of_[id]].nodes) {
          if (own.contains(member)) return true;
          add_operands(member);
        }
      }
    }
    return false;
  }

  // Adds groups of rows, which the pass that serves the CPU finds, too. They run as they are,
  // because no fused chain holds a value across a reduction. They are found before chains, which
  // then treat them like any other node.
  void AddRowGroups() {
    const BatchPartition one_by_one = {.order = NodeOrder(graph_)};
    const bool alone = plan_.groups.empty();
    const RowPartition partition = FindRowRegions(
        graph_, one_by_one,
        [&](const Graph& graph, const Node& node) {
          return group_of_[node.id] < 0 && !left_[node.id] && RowKernelSupports(graph, node);
        },
        [](const Node&, const RowRegion&) { return false; }, [](const RowRegion&) { return true; });
    for (const RowRegion& region : partition.regions) {
      std::optional<RowProgram> program = MakeRowProgram(graph_, region);
      if (!program.has_value()) continue;
      FusedGroup group;
      for (const RowRegion::Member& member : region.nodes) group.nodes.push_back(member.node);
      // The pass does not know the groups that exist already.
      const absl::flat_hash_set<NodeId> own(group.nodes.begin(), group.nodes.end());
      const NodeId first = *std::min_element(group.nodes.begin(), group.nodes.end());
      if (!alone && WaitsForOthersOf(group.nodes, own, first)) continue;
      for (NodeId id : group.nodes) dtypes_[id].reset();
      group.operands = program->operands;
      group.outputs = program->outputs;
      group.rows = std::make_shared<const RowProgram>(*std::move(program));
      FinishGroup(std::move(group));
    }
  }

  // Finds elementwise nodes whose only readers are reductions over other axes than a row's. The
  // kernels of these reductions, and not row kernels, should compute such nodes, which saves memory
  // traffic.
  std::vector<bool> FindSummedAlone() const {
    std::vector<bool> left(n_, false);
    if (!options_.reductions) return left;
    for (NodeId id = n_ - 1; id >= 0; --id) {
      if (!fused(id) || asked_for_.contains({id, 0}) || users_[id].empty()) continue;
      left[id] = true;
      ForReaders(id, [&](NodeId user) {
        const Node& node = graph_.node(user);
        left[id] = left[id] &&
                   (left[user] || (FindFusedReduction(node.op->name).has_value() && !RowKernelSupports(graph_, node)));
      });
    }
    return left;
  }

  // A group of rows counts as one node.
  void FindLevels() {
    levels_.assign(n_, 0);
    for (OrderItem item : Order()) {
      const absl::Span<const NodeId> nodes = NodesOf(item);
      int level = 0;
      for (NodeId id : nodes) {
        for (Port input : graph_.node(id).inputs) {
          if (Waits(input.node, id)) level = std::max(level, levels_[input.node] + Step(input.node, id));
        }
      }
      for (NodeId id : nodes) levels_[id] = level;
      sequence_.insert(sequence_.end(), nodes.begin(), nodes.end());
    }
  }

  // Raises fusible nodes whose results only such nodes and assignments read to the highest level
  // possible.
  void PutOffUpdates() {
    std::vector<bool> late(n_, false);
    std::vector<int> below(n_, 0);  // Levels that follow.
    int last = 0;
    for (auto next = sequence_.rbegin(); next != sequence_.rend(); ++next) {
      const NodeId id = *next;
      const bool assigns = graph_.node(id).op->kind == OpKind::kAssign;
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

  // Delays a node to the level of its readers if these have to wait for another operand. Its value
  // then stays in a register.
  void WaitForReaders() {
    for (auto next = sequence_.rbegin(); next != sequence_.rend(); ++next) {
      const NodeId id = *next;
      if (!fused(id) || users_[id].empty()) continue;
      int latest = std::numeric_limits<int>::max();
      for (NodeId user : users_[id]) latest = std::min(latest, levels_[user] - Step(id, user));
      const bool joins = std::any_of(users_[id].begin(), users_[id].end(),
                                     [&](NodeId user) { return Joins(id, user) && levels_[user] == latest; });
      if (joins) levels_[id] = latest;
    }
  }

  void MakeGroups() {
    // A chain consists of nodes on one level that read each other.
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
    for (const auto& [level, chains] : by_level) AddGroups(chains);
  }

  // Returns the reductions that read a chain and share their first pass. They address its elements
  // by index, so the shape may differ.
  std::vector<NodeId> ReductionsOf(const std::vector<NodeId>& nodes) const {
    if (!options_.reductions) return {};
    struct Candidates {
      ReductionPass pass;
      std::vector<NodeId> reductions;
    };
    std::vector<Candidates> candidates;
    for (NodeId id : nodes) {
      ForReaders(id, [&](NodeId user) {
        const Node& node = graph_.node(user);
        if (!FindFusedReduction(node.op->name).has_value() || node.outputs[0].dtype != dtypes_[id]) return;
        if (group_of_[user] >= 0) return;
        const std::vector<ReductionPass> passes = PassesOf(node);
        if (passes.empty()) return;
        const ReductionPass& pass = passes[0];
        // With few columns, threads read the chain's operands in small pieces, which is slow for a
        // large tensor. The reduction's own kernel avoids that.
        const bool few_columns = pass.inner > 1 && pass.inner < kReducedColumns / 2;
        if (few_columns && shape(id).num_elements().size() > kMostOfOneOp) return;
        auto found = std::find_if(candidates.begin(), candidates.end(), [&](const Candidates& other) {
          return other.pass.outer == pass.outer && other.pass.reduced == pass.reduced;
        });
        if (found == candidates.end()) found = candidates.insert(candidates.end(), {pass, {}});
        if (found->reductions.size() < size_t{kMostFusedReductions}) found->reductions.push_back(user);
      });
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

  // Adds the chain of the nodes, ending in the reductions, to the group. Returns false if it does
  // not fit a program. A fused node that reads a reduction, even through nodes that are not fused,
  // has a higher level than the reduction, which has the level of its chain. So the chain may
  // include the reduction.
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
      if (LeavesGroup(id, own)) outputs.insert({id, 0});
    }
    std::vector<Port> reduced;
    for (NodeId id : reductions) reduced.push_back({roots_[graph_.node(id).inputs[0].node], 0});
    const std::optional<FusedChainProgram> built =
        BuildFusedChain(graph_, nodes, {.outputs = std::move(outputs), .reduced = std::move(reduced)});
    if (!built.has_value()) return false;
    FusedChain chain{*dtypes_[nodes[0]], built->program};
    for (Port port : built->operands) chain.operands.push_back(index_of(group.operands, port));
    for (Port port : built->outputs) chain.outputs.push_back(index_of(group.outputs, port));
    for (NodeId id : reductions) {
      const Node& node = graph_.node(id);
      chain.reductions.push_back(
          {*FindFusedReduction(node.op->name), PassesOf(node), index_of(group.outputs, {id, 0})});
    }
    chain.total = shape(nodes[0]).num_elements().size();
    group.chains.push_back(std::move(chain));
    group.nodes.insert(group.nodes.end(), own.begin(), own.end());
    return true;
  }

  // Returns the nodes without those gradients of pools whose window differs from the first one's,
  // since a program has one window. The operands of the removed nodes have lower levels, so the
  // rest of the chain does not wait for them.
  std::vector<NodeId> WithOneWindow(const std::vector<NodeId>& nodes) const {
    std::vector<NodeId> result;
    const Integers* window = nullptr;
    for (NodeId id : nodes) {
      const Node& node = graph_.node(id);
      if (node.op->kind == OpKind::kAvgPool2DGrad) {
        const Integers& own = node.attribute<Integers>("window");
        if (window == nullptr) window = &own;
        if (own != *window) continue;
      }
      result.push_back(id);
    }
    return result;
  }

  void AddGroups(const std::map<NodeId, std::vector<NodeId>>& chains) {
    FusedGroup group;
    for (const auto& [unused, all_nodes] : chains) {
      const std::vector<NodeId> nodes = WithOneWindow(all_nodes);
      if (nodes.empty()) continue;
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
    const NodeId last = group.nodes.back();
    last_of_groups_.push_back(last_of_groups_.empty() ? last : std::max(last, last_of_groups_.back()));
    plan_.groups.push_back(std::move(group));
  }

  OrderItem ItemOf(NodeId id) const {
    return group_of_[id] < 0 ? OrderItem::Node(id) : OrderItem{OrderItem::Kind::kFusedGroup, group_of_[id]};
  }
  // May refer to the item.
  absl::Span<const NodeId> NodesOf(const OrderItem& item) const {
    return item.is_node() ? absl::MakeConstSpan(&item.index, 1) : absl::MakeConstSpan(plan_.groups[item.index].nodes);
  }
  // Returns true if the user's item depends on the item of the node that it reads. It does not if
  // both are one item, or if the node is a view of a value that the user's item computes.
  bool Waits(NodeId from, NodeId user) const {
    const OrderItem item = ItemOf(user);
    return !(ItemOf(from) == item) && !(ItemOf(roots_[from]) == item);
  }

  // Kahn's algorithm. Ready items run in graph order; a group takes the position of its last node.
  std::vector<OrderItem> Order() const {
    absl::flat_hash_map<OrderItem, int> waiting;
    using Entry = std::pair<NodeId, OrderItem>;
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ready;
    auto push = [&](const OrderItem& item) { ready.push({NodesOf(item).back(), item}); };
    for (NodeId id = 0; id < n_; ++id) {
      int& count = waiting[ItemOf(id)];
      for (Port input : graph_.node(id).inputs) count += Waits(input.node, id);
    }
    for (const auto& [item, count] : waiting) {
      if (count == 0) push(item);
    }
    std::vector<OrderItem> order;
    while (!ready.empty()) {
      const OrderItem item = ready.top().second;
      ready.pop();
      order.push_back(item);
      for (NodeId id : NodesOf(item)) {
        for (NodeId user : users_[id]) {
          if (Waits(id, user) && --waiting[ItemOf(user)] == 0) push(ItemOf(user));
        }
      }
    }
    GW_CHECK(order.size() == waiting.size(), "groups wait for each other");
    return order;
  }

  const Graph& graph_;
  const FusionOptions options_;
  const NodeId n_;
  std::vector<std::optional<DType>> dtypes_;
  std::vector<bool> left_;                  // The result of FindSummedAlone.
  std::vector<std::vector<NodeId>> users_;  // A node appears once for each operand.
  std::vector<NodeId> roots_;               // The node whose memory a node's result aliases, or the node itself.
  absl::flat_hash_set<Port> asked_for_;     // Includes values whose views are outputs.
  std::vector<NodeId> sequence_;            // An order of all nodes that does not interrupt groups of rows.
  std::vector<int> levels_, group_of_;
  std::vector<NodeId> last_of_groups_;  // Indexed by group, the last node of it and the groups before it.
  FusionPlan plan_;
};

}  // namespace

FusionPlan FindFusedGroups(const Graph& graph, const FusionOptions& options) {
  return FusionPlanner(graph, options).Plan();
}

}  // namespace gradweave
