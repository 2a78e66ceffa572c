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
  uint64_t version = 0;  // Counts possible changes of the host's value.
  // The memory on the session's other device; null if there is none yet.
  std::shared_ptr<std::byte> device = nullptr;
  // The sides that have the current value. Neither has it after a device failed.
  bool host_current = true, device_current = false;
  int plans = 0;  // The number of plans that hold the address of `device`.

  // Marks the side that has a new value; the other side's value is then out of date.
  void SetCurrent(bool on_host) {
    host_current = on_host;
    device_current = !on_host;
    if (on_host) ++version;
  }
};

// A variable is on the side that used it last, and is copied when the other side uses it. One
// thread at a time may call it.
class Variables {
 public:
  // The device that may hold variables beside the host; null if there is none.
  explicit Variables(std::shared_ptr<BackendDevice> device = nullptr) : device_(std::move(device)) {}

  // Adds a variable of a new name, which shares the tensor's storage.
  Variable& Add(absl::string_view name, const Tensor& host);
  // Removes a variable that no plan uses.
  void Remove(absl::string_view name) { variables_.erase(name); }
  // Returns the variable of this name, whose address does not change; null if there is none.
  Variable* Find(absl::string_view name);

  // Gives the variable memory on the device. Its value is copied there when it is first used.
  // Returns ResourceExhausted if there is no room.
  absl::Status Reserve(Variable& variable);
  // Frees the device memory of variables that no plan uses; their values are on the host then.
  absl::Status ReleaseUnused();
  // Makes sure that the side has the value. Returns DataLoss if a failure of the device has
  // destroyed it.
  absl::Status ToDevice(Variable& variable);
  absl::Status ToHost(Variable& variable);

 private:
  absl::Status CheckHasValue(const Variable& variable) const;

  std::shared_ptr<BackendDevice> device_;
  absl::flat_hash_map<std::string, std::unique_ptr<Variable>> variables_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_VARIABLES_H_
