#include <algorithm>
#include <cstring>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

// Hashes an attribute consistently with SameAttributeOrBody.
size_t HashAttribute(const AttributeValue& value) {
  return std::visit(
      [](const auto& v) -> size_t {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, Tensor>) {
          // Large constants that differ almost always differ in their first bytes.
          const size_t bytes = std::min<size_t>(v.byte_size(), 256);
          return absl::HashOf(v.dtype(), v.sizes(), absl::string_view(static_cast<const char*>(v.raw_data()), bytes));
        } else if constexpr (std::is_same_v<T, Shape>) {
          return absl::HashOf(v.is_static() ? v.num_elements().size() : -1, v.rank());
        } else if constexpr (std::is_same_v<T, double>) {
          uint64_t bits;
          std::memcpy(&bits, &v, sizeof bits);
          return absl::HashOf(bits);
        } else if constexpr (std::is_same_v<T, Body>) {
          return absl::HashOf(v->num_nodes(), v->outputs().size());
        } else {
          return absl::HashOf(v);
        }
      },
      value);
}

}  // namespace

absl::StatusOr<Graph> EliminateCommonSubexpressions(const Graph& graph) {
  absl::flat_hash_map<size_t, absl::InlinedVector<NodeId, 1>> seen;  // Nodes of the result, by hash.
  return Rewrite(
      graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        // Variables are stateful too. Each has one node, so merging would gain nothing.
        if (node.op->stateful) return std::nullopt;
        Ports key(inputs.begin(), inputs.end());
        if (node.op->commutative) std::sort(key.begin(), key.end());
        size_t hash = absl::HashOf(node.op, key, node.device);
        for (const AttributeValue& attribute : node.attributes) hash = absl::HashOf(hash, HashAttribute(attribute));
        auto& candidates = seen[hash];
        for (NodeId id : candidates) {
          const Node& candidate = result.node(id);
          Ports candidate_key(candidate.inputs.begin(), candidate.inputs.end());
          if (node.op->commutative) std::sort(candidate_key.begin(), candidate_key.end());
          if (candidate.op == node.op && candidate_key == key && candidate.device == node.device &&
              std::equal(node.attributes.begin(), node.attributes.end(), candidate.attributes.begin(),
                         candidate.attributes.end(), SameAttributeOrBody)) {
            return candidate.ports();
          }
        }
        candidates.push_back(result.num_nodes());  // The copy gets this id.
        return std::nullopt;
      });
}

}  // namespace gradweave
