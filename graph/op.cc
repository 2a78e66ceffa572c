#include "gradweave/graph/op.h"

#include <utility>

#include "gradweave/graph/check.h"

namespace gradweave {

int OpDefinition::AttributeIndex(absl::string_view name) const {
  for (size_t i = 0; i < attributes.size(); ++i) {
    if (attributes[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

void OpRegistry::Add(OpDefinition definition) {
  GW_CHECK(definition.infer != nullptr, definition.name);
  GW_CHECK(by_name_.find(definition.name) == by_name_.end(), definition.name);
  definition.registry = this;
  definitions_.push_back(std::make_unique<OpDefinition>(std::move(definition)));
  const OpDefinition* const added = definitions_.back().get();
  by_name_[added->name] = added;
  if (added->kind == OpKind::kOther) return;
  GW_CHECK(Find(added->kind) == nullptr, added->name);
  by_kind_[static_cast<size_t>(added->kind)] = added;
}

const OpDefinition* OpRegistry::Find(absl::string_view name) const {
  auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

}  // namespace gradweave
