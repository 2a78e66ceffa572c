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
  by_name_[definitions_.back()->name] = definitions_.back().get();
}

const OpDefinition* OpRegistry::Find(absl::string_view name) const {
  auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

}  // namespace gradweave
