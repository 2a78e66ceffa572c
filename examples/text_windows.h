// A text file as sequences for models.
#ifndef GRADWEAVE_EXAMPLES_TEXT_WINDOWS_H_
#define GRADWEAVE_EXAMPLES_TEXT_WINDOWS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "gradweave/gradweave.h"

namespace examples {

// Each data set has one array "text", int32 [windows, size]: the bytes of windows of the text.
struct TextWindows {
  gw::data::Dataset train;       // From the first nine tenths of the file, one window each `stride` bytes.
  gw::data::Dataset validation;  // From the last tenth, side by side.
};

// Reads the file. Returns an error if it cannot be read, or if a part has fewer bytes than a
// window.
absl::StatusOr<TextWindows> ReadTextWindows(const std::string& path, int64_t size, int64_t stride);

}  // namespace examples

#endif  // GRADWEAVE_EXAMPLES_TEXT_WINDOWS_H_
