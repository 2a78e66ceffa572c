#include "gradweave/frontend/number_checks.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace gradweave {
namespace {

bool InRange(const NumberCheck& check) {
  const double x = check.number;
  switch (check.range) {
    case NumberCheck::kNotNaN:
      return !std::isnan(x);
    case NumberCheck::kFinite:
      return std::isfinite(x);
    case NumberCheck::kNotNegative:
      return std::isfinite(x) && x >= 0;
    case NumberCheck::kPositive:
      return x > 0;
    case NumberCheck::kFraction:
      return x >= 0 && x <= 1;
    case NumberCheck::kBelowOne:
      return x >= 0 && x < 1;
    case NumberCheck::kAtLeastOne:
      return x >= 1;
  }
  return false;
}

const char* Expected(NumberCheck::Range range) {
  switch (range) {
    case NumberCheck::kNotNaN:
      return "must be a number";
    case NumberCheck::kFinite:
      return "must be finite";
    case NumberCheck::kNotNegative:
      return "must be finite and at least 0";
    case NumberCheck::kPositive:
      return "must be above 0";
    case NumberCheck::kFraction:
      return "must be in [0, 1]";
    case NumberCheck::kBelowOne:
      return "must be in [0, 1)";
    case NumberCheck::kAtLeastOne:
      return "must be at least 1";
  }
  return "";
}

}  // namespace

absl::Status CheckNumbers(absl::string_view what, std::initializer_list<NumberCheck> checks) {
  for (const NumberCheck& check : checks) {
    if (InRange(check)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", check.name, " is ", check.number, " and ", Expected(check.range)));
  }
  return absl::OkStatus();
}

bool CheckNumbers(Graph& graph, absl::string_view what, std::initializer_list<NumberCheck> checks) {
  const absl::Status status = CheckNumbers(what, checks);
  if (status.ok()) return true;
  const SourceLocation location = graph.builder().location;
  graph.RecordError(location.file == nullptr
                        ? status
                        : absl::InvalidArgumentError(absl::StrCat(status.message(), " at ", ToString(location))));
  return false;
}

}  // namespace gradweave
