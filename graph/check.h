// GW_CHECK catches bugs of Gradweave itself. GW_RETURN_IF_ERROR and GW_ASSIGN_OR_RETURN pass on
// errors that a user or a file can cause.
#ifndef GRADWEAVE_GRAPH_CHECK_H_
#define GRADWEAVE_GRAPH_CHECK_H_

#include <cstdio>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

// Aborts the program if the condition is false. Prints the file, the line, the condition and the
// remaining arguments.
#define GW_CHECK(condition, ...)                                                                                     \
  do {                                                                                                               \
    if (!(condition)) ::gradweave::internal::CheckFailed(#condition, __FILE__, __LINE__, absl::StrCat(__VA_ARGS__)); \
  } while (false)

// Evaluates an absl::Status and returns it from the enclosing function if it is an error.
#define GW_RETURN_IF_ERROR(expression)                                      \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

// Evaluates a StatusOr. On success, declares or assigns its value; on error, returns its status
// from the enclosing function: GW_ASSIGN_OR_RETURN(Tensor t, Tensor::Create(...)).
#define GW_ASSIGN_OR_RETURN(target, expression) \
  GW_ASSIGN_OR_RETURN_IMPL_(GW_CONCATENATE_(status_or_, __LINE__), target, expression)
#define GW_ASSIGN_OR_RETURN_IMPL_(name, target, expression) \
  auto name = (expression);                                 \
  if (!name.ok()) return std::move(name).status();          \
  target = *std::move(name)
#define GW_CONCATENATE_(a, b) GW_CONCATENATE_IMPL_(a, b)
#define GW_CONCATENATE_IMPL_(a, b) a##b

namespace gradweave::internal {

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line, const std::string& rest) {
  std::fprintf(stderr, "%s:%d: check failed: %s %s\n", file, line, condition, rest.c_str());
  std::abort();
}

}  // namespace gradweave::internal

#endif  // GRADWEAVE_GRAPH_CHECK_H_
