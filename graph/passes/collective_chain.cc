#include "gradweave/graph/passes/collective_chain.h"

#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave {

absl::StatusOr<Port> CollectiveChain::Add(const Node& like, absl::string_view op, absl::Span<const Port> inputs,
                                          absl::Span<const NamedAttribute> attributes) {
  const OpDefinition* const definition = like.op->registry->Find(op);
  if (definition == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("data parallelism: the registry of the graph's ops has no ", op));
  }
  GW_ASSIGN_OR_RETURN(const NodeId node, graph_->AddNode({.op = definition,
                                                          .inputs = inputs,
                                                          .attributes = attributes,
                                                          .device = like.device,
                                                          .location = like.location}));
  return Port{node, 0};
}

absl::StatusOr<Ports> CollectiveChain::Copy(const Node& node, absl::Span<const Port> inputs) {
  GW_ASSIGN_OR_RETURN(const NodeId copy, graph_->AddNodeLike(node, inputs));
  return graph_->node(copy).ports();
}

absl::StatusOr<Port> CollectiveChain::AddWith(const Node& node, absl::InlinedVector<AttributeValue, 1> attributes,
                                              absl::Span<const Port> inputs) {
  GW_ASSIGN_OR_RETURN(const NodeId copy,
                      graph_->AddNode(node.op, std::move(attributes), inputs, node.name, node.device, node.location));
  return Port{copy, 0};
}

absl::StatusOr<Port> CollectiveChain::CopyCollective(const Node& node, Port x) {
  absl::InlinedVector<Port, 2> inputs = {x};
  if (last_.node >= 0) inputs.push_back(last_);
  GW_ASSIGN_OR_RETURN(const NodeId copy, graph_->AddNodeLike(node, inputs));
  last_ = {copy, 0};
  return last_;
}

absl::StatusOr<Port> CollectiveChain::AddCollective(const Node& like, absl::string_view op, int64_t shards, Port x) {
  absl::InlinedVector<Port, 2> inputs = {x};
  if (last_.node >= 0) inputs.push_back(last_);
  const NamedAttribute attributes[] = {{"shards", shards}};
  GW_ASSIGN_OR_RETURN(last_, Add(like, op, inputs, attributes));
  return last_;
}

}  // namespace gradweave
