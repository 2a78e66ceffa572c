// The device that tests run on.
#ifndef GRADWEAVE_TESTS_TEST_DEVICE_H_
#define GRADWEAVE_TESTS_TEST_DEVICE_H_

#include "gradweave/runtime/session/device.h"

namespace gradweave {

// The device in GRADWEAVE_TEST_DEVICE, for example "cuda:0"; the CPU if it is not set. Where that
// device is not there, all tests of the program are skipped, with the reason.
Device TestDevice();

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_TEST_DEVICE_H_
