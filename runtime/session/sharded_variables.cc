// The variables of which each shard of a group has a part.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/passes/shard_state.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/runtime/distributed/group.h"
#include "gradweave/runtime/session/session_state.h"

namespace gradweave {

absl::StatusOr<Tensor> Session::State::WholeOf(const std::string& name) const {
  if (const auto whole = wholes.find(name); whole != wholes.end()) return whole->second.Clone();
  return absl::FailedPreconditionError(absl::StrCat(
      "GetVariable: each shard of the group has a part of '", name,
      "', which belongs to an optimizer; Fit gathers it for checkpoints, after epochs and at its end, and a "
      "run that fetches its value does so too"));
}

absl::StatusOr<Tensor> Session::State::PartOf(const Tensor& whole) const {
  const distributed::Communicator& communicator = *options.group->communicator(options.local_shard);
  const int64_t count = whole.num_elements(), size = PartSize(count, communicator.shards());
  const int64_t begin = std::min(count, size * communicator.shard()), end = std::min(count, begin + size);
  GW_ASSIGN_OR_RETURN(Tensor part, Tensor::Create(whole.dtype(), {size}));
  const size_t element = DTypeSize(whole.dtype());
  auto* const to = static_cast<std::byte*>(part.mutable_raw_data());
  std::memset(to, 0, part.byte_size());
  std::memcpy(to, static_cast<const std::byte*>(whole.raw_data()) + begin * element, (end - begin) * element);
  return part;
}

void Session::State::ForgetWholes(const CompiledGraph& executable) {
  if (wholes.empty()) return;
  for (const VariableUse& used : executable.plan().variables) {
    if (used.assigned) wholes.erase(used.variable->name);
  }
}

}  // namespace gradweave
