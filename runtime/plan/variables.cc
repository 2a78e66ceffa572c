#include "gradweave/runtime/plan/variables.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/plan/backend.h"

namespace gradweave {

Variable& Variables::Add(absl::string_view name, const Tensor& host) {
  // Allocated first, so that a failure leaves no empty entry.
  auto variable = std::make_unique<Variable>(Variable{.name = std::string(name), .host = host});
  std::unique_ptr<Variable>& place = variables_[name];
  place = std::move(variable);
  return *place;
}

Variable* Variables::Find(absl::string_view name) {
  auto found = variables_.find(name);
  return found == variables_.end() ? nullptr : found->second.get();
}

absl::Status Variables::Reserve(Variable& variable) {
  if (variable.device != nullptr || variable.host.byte_size() == 0) return absl::OkStatus();
  GW_ASSIGN_OR_RETURN(variable.device, device_->Allocate(variable.host.byte_size()));
  return absl::OkStatus();
}

absl::Status Variables::ReleaseUnused() {
  for (auto& [name, variable] : variables_) {
    if (variable->plans > 0 || variable->device == nullptr) continue;
    if (variable->device_current) GW_RETURN_IF_ERROR(ToHost(*variable));
    variable->device_current = false;
    variable->device = nullptr;
  }
  return absl::OkStatus();
}

absl::Status Variables::CheckHasValue(const Variable& variable) const {
  if (variable.host_current || variable.device_current) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("variable '", variable.name, "' was on ", device_->name(),
                   " alone, and its value was lost when the device failed; give it one with SetVariable, or load a "
                   "saved model into a new session"));
}

absl::Status Variables::ToDevice(Variable& variable) {
  if (variable.device_current) return absl::OkStatus();
  GW_RETURN_IF_ERROR(CheckHasValue(variable));
  GW_RETURN_IF_ERROR(Reserve(variable));
  if (const size_t bytes = variable.host.byte_size(); bytes > 0) {
    GW_RETURN_IF_ERROR(device_->Copy(variable.device.get(), variable.host.raw_data(), bytes, CopyDirection::kToDevice));
  }
  variable.device_current = true;
  return absl::OkStatus();
}

absl::Status Variables::ToHost(Variable& variable) {
  if (variable.host_current) return absl::OkStatus();
  GW_RETURN_IF_ERROR(CheckHasValue(variable));
  if (const size_t bytes = variable.host.byte_size(); bytes > 0) {
    GW_RETURN_IF_ERROR(
        device_->Copy(variable.host.mutable_raw_data(), variable.device.get(), bytes, CopyDirection::kToHost));
  }
  ++variable.version;
  variable.host_current = true;
  return absl::OkStatus();
}

}  // namespace gradweave
