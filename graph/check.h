// GW_CHECK catches bugs of Gradweave itself. Errors that a user or a file can cause are passed on
// with the macros of status_macros.h.
#ifndef GRADWEAVE_GRAPH_CHECK_H_
#define GRADWEAVE_GRAPH_CHECK_H_

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/status_macros.h"  // IWYU pragma: export

// Aborts the program if the condition is false. Prints the file, the line, the condition and the
// remaining arguments.
#define GW_CHECK(condition, ...)                                                                                     \
  do {                                                                                                               \
    if (!(condition)) ::gradweave::internal::CheckFailed(#condition, __FILE__, __LINE__, absl::StrCat(__VA_ARGS__)); \
  } while (false)

namespace gradweave::internal {

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line, const std::string& rest) {
  std::fprintf(stderr, "%s:%d: check failed: %s %s\n", file, line, condition, rest.c_str());
  std::abort();
}

}  // namespace gradweave::internal

#endif  // GRADWEAVE_GRAPH_CHECK_H_
