#include "gradweave/graph/passes/join_all_reduces.h"

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/collective_chain.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

bool CanShare(const Node& node) { return node.op->kind == OpKind::kAllReduce && node.outputs[0].shape.is_static(); }

class Joiner {
 public:
  Joiner(const Graph& graph, int64_t bucket_bytes)
      : graph_(graph), bucket_bytes_(bucket_bytes), readers_(graph.num_nodes()) {}

  absl::StatusOr<Graph> Join() {
    FindReaders();
    return Rewrite(
        graph_,
        [this](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
          chain_.SetGraph(result);
          GW_ASSIGN_OR_RETURN(Ports ports, Translate(node, inputs));
          for (NodeId reader : readers_[node.id]) {
            GW_RETURN_IF_ERROR(AddMember(graph_.node(reader), ports[graph_.node(reader).inputs[0].output]));
          }
          return ports;
        });
  }

 private:
  struct Member {
    const Node* node;
    Port x;  // A value of the result.
  };
  struct Bucket {
    std::vector<Member> members;
    int64_t bytes = 0;
  };
  // Buckets that wait for more members, by dtype, and by whether other collective ops wait for
  // their results.
  using Key = std::pair<DType, bool>;

  // Finds the AllReduces that read each node, and the nodes that collective ops wait for.
  void FindReaders() {
    const std::vector<bool> needed = NeededNodes(graph_);
    awaited_.assign(graph_.num_nodes(), false);
    for (NodeId id = graph_.num_nodes() - 1; id >= 0; --id) {
      const Node& node = graph_.node(id);
      if (!needed[id]) continue;
      if (node.op->collective) {
        awaited_[node.inputs[0].node] = true;
        if (CanShare(node)) readers_[node.inputs[0].node].push_back(id);
      } else if (awaited_[id]) {
        for (Port input : node.inputs) awaited_[input.node] = true;
      }
    }
    // The readers were found from the last to the first.
    for (std::vector<NodeId>& readers : readers_) readers.assign(readers.rbegin(), readers.rend());
  }

  absl::StatusOr<Ports> Translate(const Node& node, absl::Span<const Port> inputs) {
    if (!node.op->collective) return chain_.Copy(node, inputs);
    if (!CanShare(node)) {
      GW_ASSIGN_OR_RETURN(const Port port, chain_.CopyCollective(node, inputs[0]));
      return Ports{port};
    }
    if (!wholes_.contains(node.id)) {
      const auto open = open_.find(KeyOf(node));
      GW_CHECK(open != open_.end(), "an AllReduce is in no bucket");
      GW_RETURN_IF_ERROR(Close(open));
    }
    return Ports{wholes_.at(node.id)};
  }

  Key KeyOf(const Node& node) const { return {node.outputs[0].dtype, awaited_[node.id]}; }

  // Adds an AllReduce whose operand now exists to a bucket.
  absl::Status AddMember(const Node& node, Port x) {
    const auto open = open_.try_emplace(KeyOf(node)).first;
    open->second.members.push_back({&node, x});
    open->second.bytes += node.outputs[0].byte_size();
    return open->second.bytes >= bucket_bytes_ ? Close(open) : absl::OkStatus();
  }

  // Adds the AllReduce of a bucket to the result.
  absl::Status Close(std::map<Key, Bucket>::iterator open) {
    const Bucket bucket = std::move(open->second);
    open_.erase(open);
    const Node& first = *bucket.members[0].node;
    if (bucket.members.size() == 1) {
      GW_ASSIGN_OR_RETURN(wholes_[first.id], chain_.CopyCollective(first, bucket.members[0].x));
      return absl::OkStatus();
    }
    std::vector<Port> flat;
    int64_t count = 0;
    for (const Member& member : bucket.members) {
      const int64_t size = member.node->outputs[0].shape.num_elements().size();
      const NamedAttribute shape[] = {{"shape", Shape{size}}};
      GW_ASSIGN_OR_RETURN(flat.emplace_back(), chain_.Add(*member.node, "Reshape", {member.x}, shape));
      count += size;
    }
    const NamedAttribute axis[] = {{"axis", int64_t{0}}};
    GW_ASSIGN_OR_RETURN(const Port all, chain_.Add(first, "Concat", flat, axis));
    GW_ASSIGN_OR_RETURN(const Port whole, chain_.CopyCollective(first, all));
    int64_t begin = 0;
    for (const Member& member : bucket.members) {
      const Shape& to = member.node->outputs[0].shape;
      const int64_t end = begin + to.num_elements().size();
      const NamedAttribute part[] = {{"start", Shape{begin}}, {"limit", Shape{end}}, {"steps", Integers{1}}};
      const NamedAttribute shape[] = {{"shape", to}};
      GW_ASSIGN_OR_RETURN(const Port slice, chain_.Add(*member.node, "Slice", {whole}, part));
      GW_ASSIGN_OR_RETURN(wholes_[member.node->id], chain_.Add(*member.node, "Reshape", {slice}, shape));
      begin = end;
    }
    GW_CHECK(begin == count, begin);
    return absl::OkStatus();
  }

  const Graph& graph_;
  const int64_t bucket_bytes_;
  // Indexed by node of the graph.
  std::vector<std::vector<NodeId>> readers_;  // The AllReduces that read it and may share a bucket.
  std::vector<bool> awaited_;                 // A collective op waits for it.
  std::map<Key, Bucket> open_;
  // The sums of the graph's AllReduces, in the result.
  absl::flat_hash_map<NodeId, Port> wholes_;
  CollectiveChain chain_;  // The chain of the result.
};

}  // namespace

absl::StatusOr<Graph> JoinAllReduces(const Graph& graph, int64_t bucket_bytes) {
  return Joiner(graph, bucket_bytes).Join();
}

}  // namespace gradweave
