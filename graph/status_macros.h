// GW_RETURN_IF_ERROR and GW_ASSIGN_OR_RETURN pass an error on to the caller.
#ifndef GRADWEAVE_GRAPH_STATUS_MACROS_H_
#define GRADWEAVE_GRAPH_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Evaluates an absl::Status and returns it from the enclosing function if it is an error.
#define GW_RETURN_IF_ERROR(expression)                                      \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

// Evaluates an absl::StatusOr. On success, declares or assigns its value; on error, returns its
// status from the enclosing function, which returns a Status or a StatusOr:
//
//   GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph));
//
// It is more than one statement, so it needs braces behind an `if` or a loop.
#define GW_ASSIGN_OR_RETURN(target, expression) \
  GW_ASSIGN_OR_RETURN_IMPL_(GW_CONCATENATE_(status_or_, __COUNTER__), target, expression)
#define GW_ASSIGN_OR_RETURN_IMPL_(name, target, expression) \
  auto name = (expression);                                 \
  if (!name.ok()) return std::move(name).status();          \
  target = *std::move(name)
#define GW_CONCATENATE_(a, b) GW_CONCATENATE_IMPL_(a, b)
#define GW_CONCATENATE_IMPL_(a, b) a##b

#endif  // GRADWEAVE_GRAPH_STATUS_MACROS_H_
