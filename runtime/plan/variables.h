// A session's variables, in the memory of the host and of a device.
#ifndef GRADWEAVE_RUNTIME_PLAN_VARIABLES_H_
#define GRADWEAVE_RUNTIME_PLAN_VARIABLES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

class BackendDevice;

struct Variable {
  std::string name;
  Tensor host;           // It keeps its place while plans point to it.
  uint64_t version = 0;  // How often the host's value may have changed.
  // The place on the session's other device; null: none yet.
  std::shared_ptr<std::byte> device = nullptr;
  // The sides that have the current value. Neither has it after a device failed.
  bool host_current = true, device_current = false;
  int plans = 0;  // How many plans hold the address of `device`.

  // Says which side has a new value, which makes that of the other one old.
  void SetCurrent(bool on_host) {
    host_current = on_host;
    device_current = !on_host;
    if (on_host) ++version;
  }
};

// Each variable is where it was used last, and is copied when it is used on the other side. Calls
// come from one thread at a time.
class Variables {
 public:
  // The device that variables may be on beside the host; null: none.
  explicit Variables(std::shared_ptr<BackendDevice> device = nullptr) : device_(std::move(device)) {}

  // Adds a variable of a new name, which shares the tensor's storage.
  Variable& Add(absl::string_view name, const Tensor& host);
  // Removes a variable that no plan uses.
  void Remove(absl::string_view name) { variables_.erase(name); }
  // The variable of that name, which keeps its place; null where there is none.
  Variable* Find(absl::string_view name);

  // Gives the variable a place on the device. Its value is copied there when it is first used.
  // ResourceExhausted where there is no room.
  absl::Status Reserve(Variable& variable);
  // Frees the places of variables that no plan uses; their values are on the host then.
  absl::Status ReleaseUnused();
  // Makes sure that the side has the value. DataLoss where a failure of the device has taken it.
  absl::Status ToDevice(Variable& variable);
  absl::Status ToHost(Variable& variable);

 private:
  absl::Status CheckHasValue(const Variable& variable) const;

  std::shared_ptr<BackendDevice> device_;
  absl::flat_hash_map<std::string, std::unique_ptr<Variable>> variables_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_VARIABLES_H_
