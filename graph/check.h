// GW_CHECK, for what only a bug of Gradweave's own can break, and GW_RETURN_IF_ERROR for everything else.
#ifndef GRADWEAVE_GRAPH_CHECK_H_
#define GRADWEAVE_GRAPH_CHECK_H_

#include <cstdio>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

// Ends the program with the condition and the rest of the arguments where the condition does not hold.
#define GW_CHECK(condition, ...)                                                                                     \
  do {                                                                                                               \
    if (!(condition)) ::gradweave::internal::CheckFailed(#condition, __FILE__, __LINE__, absl::StrCat(__VA_ARGS__)); \
  } while (false)

// Returns the status from the function around it where it is an error.
#define GW_RETURN_IF_ERROR(expression)                                      \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

// Declares or assigns the value of a StatusOr, or returns its status: GW_ASSIGN_OR_RETURN(Tensor t,
// Tensor::Create(...)).
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
