// Checks of class labels, made before any result depends on them.
#ifndef GRADWEAVE_RUNTIME_KERNEL_LABEL_CHECK_H_
#define GRADWEAVE_RUNTIME_KERNEL_LABEL_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/dtype.h"

namespace gradweave {

// Returns OutOfRange for the first of `count` labels outside [0, classes).
template <typename Label>
absl::Status CheckLabels(const Label* labels, int64_t count, int64_t classes) {
  for (int64_t i = 0; i < count; ++i) {
    if (labels[i] >= 0 && static_cast<int64_t>(labels[i]) < classes) continue;
    return absl::OutOfRangeError(absl::StrCat("SparseSoftmaxCrossEntropy: label ", +labels[i], " at position ", i,
                                              " is outside [0, ", classes, ")"));
  }
  return absl::OkStatus();
}

// Calls call(Label()) with the C++ type for a label dtype: int32, int64 or uint8.
template <typename Call>
auto WithLabelType(DType dtype, Call call) {
  if (dtype == kInt32) return call(int32_t{});
  return dtype == kInt64 ? call(int64_t{}) : call(uint8_t{});
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_LABEL_CHECK_H_
