#include "gradweave/frontend/command/plan_cost.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/inputs.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::command {
namespace {

// Reads the line of sums: "2 steps, 600 FLOPs, planned peak 80 bytes, lower bound 80 bytes".
bool ReadSums(absl::string_view line, PlanCost& cost) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  bool has_flops = false, has_bytes = false;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "FLOPs,") has_flops = absl::SimpleAtod(words[i - 1], &cost.flops);
    if (words[i - 1] == "peak") has_bytes = absl::SimpleAtod(words[i], &cost.peak_bytes);
  }
  return has_flops && has_bytes;
}

}  // namespace

absl::StatusOr<PlanCost> CostOf(Session& session, Graph& graph, absl::Span<const NamedOutput> outputs,
                                const DimBindings& sizes) {
  GW_ASSIGN_OR_RETURN(const std::vector<Feed> feeds, ZeroFeeds(graph, InputsOf(outputs), sizes));
  PlanCost cost;
  GW_ASSIGN_OR_RETURN(cost.description, session.DescribePlan(feeds, FetchesOf(outputs)));
  for (absl::string_view line : absl::StrSplit(cost.description, '\n')) {
    if (ReadSums(line, cost)) return cost;
  }
  return absl::InternalError("the plan's description has no line of sums");
}

}  // namespace gradweave::command
