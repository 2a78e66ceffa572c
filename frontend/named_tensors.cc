#include "gradweave/frontend/named_tensors.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace gradweave {

const Tensor* Find(const NamedTensors& tensors, absl::string_view name) {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [&](const auto& entry) { return entry.first == name; });
  return found == tensors.end() ? nullptr : &found->second;
}

void Append(absl::string_view prefix, NamedTensors tensors, NamedTensors& to) {
  for (auto& [name, tensor] : tensors) to.emplace_back(absl::StrCat(prefix, name), std::move(tensor));
}

NamedTensors WithPrefix(const NamedTensors& tensors, absl::string_view prefix) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) {
    absl::string_view rest = name;
    if (absl::ConsumePrefix(&rest, prefix)) result.emplace_back(rest, tensor);
  }
  return result;
}

absl::StatusOr<int64_t> Integer(const NamedTensors& tensors, absl::string_view name, int64_t low, int64_t high) {
  const Tensor* tensor = Find(tensors, name);
  if (tensor == nullptr || tensor->dtype() != kInt64 || tensor->rank() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("there is no integer '", name, "'"));
  }
  const int64_t number = tensor->data<int64_t>()[0];
  if (number >= low && number <= high) return number;
  return absl::InvalidArgumentError(
      absl::StrCat("'", name, "' is ", number, " and has to be in [", low, ", ", high, "]"));
}

absl::StatusOr<double> Number(const NamedTensors& tensors, absl::string_view name) {
  const Tensor* tensor = Find(tensors, name);
  if (tensor == nullptr || tensor->dtype() != kFloat64 || tensor->rank() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("there is no number '", name, "'"));
  }
  return tensor->data<double>()[0];
}

}  // namespace gradweave
