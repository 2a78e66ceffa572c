#include "gradweave/runtime/session/running_sums.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

absl::StatusOr<Graph> AddRunningSums(const Graph& graph, absl::Span<const RunningSum> sums) {
  Graph result = graph;
  std::vector<Value> fetches = result.Output(kFetches), updates = result.Output(kUpdates);
  for (const RunningSum& sum : sums) {
    Value& value = fetches[sum.fetch];
    if (!value.shape().is_static() || !kNumeric.Contains(value.dtype())) {
      return absl::InvalidArgumentError(
          absl::StrCat("Prepare: a running sum is one of numbers, in a shape that no feed "
                       "changes, and not of ",
                       value.type().ToString(), "; in ", DescribeNode(result, value.node())));
    }
    const LocationGuard location(result, value.node().location);
    const NamedAttribute attributes[] = {{"dtype", kFloat64}, {"shape", value.shape()}, {"trainable", false}};
    GW_ASSIGN_OR_RETURN(const NodeId variable, result.AddNode({.op = value.node().op->registry->Find(OpKind::kVariable),
                                                               .attributes = attributes,
                                                               .name = sum.name,
                                                               .device = value.node().device}));
    const Value old_sum = result.value(variable);
    value = old_sum + Cast(value, kFloat64) * sum.weight;
    updates.push_back(Assign(old_sum, value));
  }
  GW_RETURN_IF_ERROR(result.status());
  result.SetOutput(kFetches, fetches);
  result.SetOutput(kUpdates, updates);
  return result;
}

}  // namespace gradweave
