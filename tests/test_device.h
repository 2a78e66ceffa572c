// The device that tests run on.
#ifndef GRADWEAVE_TESTS_TEST_DEVICE_H_
#define GRADWEAVE_TESTS_TEST_DEVICE_H_

#include "gradweave/runtime/session/device.h"

namespace gradweave {

// What GRADWEAVE_TEST_DEVICE says, "cuda:0" for example; the CPU where it says nothing. Where that
// device is not there, all tests of the program are skipped, with the reason.
Device TestDevice();

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_TEST_DEVICE_H_
