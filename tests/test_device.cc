#include "tests/test_device.h"

#include <cstdlib>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

class DeviceEnvironment : public ::testing::Environment {
 public:
  void SetUp() override {
    const char* name = std::getenv("GRADWEAVE_TEST_DEVICE");
    if (name == nullptr) return;
    const absl::StatusOr<Device> device = Device::Parse(name);
    ASSERT_TRUE(device.ok()) << "GRADWEAVE_TEST_DEVICE: " << device.status();
    const absl::Status status = device->CheckAvailable();
    if (!status.ok()) GTEST_SKIP() << status.message();
  }
};

[[maybe_unused]] ::testing::Environment* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(new DeviceEnvironment());

}  // namespace

Device TestDevice() {
  const char* name = std::getenv("GRADWEAVE_TEST_DEVICE");
  const absl::StatusOr<Device> device = name == nullptr ? Device::Cpu() : Device::Parse(name);
  return device.ok() ? *device : Device::Cpu();
}

}  // namespace gradweave
