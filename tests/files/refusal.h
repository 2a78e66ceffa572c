// How tests of malformed input look at a call that must fail.
#ifndef GRADWEAVE_TESTS_FILES_REFUSAL_H_
#define GRADWEAVE_TESTS_FILES_REFUSAL_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gradweave {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitizer = true;
#else
inline constexpr bool kSanitizer = false;
#endif

// Expects that the call returns an error with exactly this message, one printable line, within a
// second and with less than 64 MiB of new memory. In `message`, DIR stands for the folder of the
// test's files, and a '*' at the end for any text of a library. Builds with sanitizers, which need
// more of both, have ten seconds and no limit of memory.
void ExpectRefused(absl::string_view row, absl::string_view message, absl::FunctionRef<absl::Status()> call);

// The folder of the test's files, without a slash at its end.
std::string TestFolder();

// Writes a file into the folder of the test's files. Returns its path.
std::string WriteTestFile(absl::string_view name, absl::string_view bytes);

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_FILES_REFUSAL_H_
