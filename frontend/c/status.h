// The border of the C interface: no exception leaves its functions, and errors become statuses.
#ifndef GRADWEAVE_FRONTEND_C_STATUS_H_
#define GRADWEAVE_FRONTEND_C_STATUS_H_

#include <exception>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/c/gradweave.h"

namespace gradweave {

// Keeps the thread's message, "<function>: <message>", and returns the status. Needs no memory.
gw_status KeepError(absl::string_view function, absl::StatusCode code, absl::string_view message) noexcept;
gw_status KeepSuccess() noexcept;

// Returns InvalidArgument for the first pointer that is null, by its name.
absl::Status CheckGiven(std::initializer_list<std::pair<const char*, const void*>> arguments);

// Calls a function that returns an absl::Status, on behalf of a function of the C interface.
template <typename Function>
gw_status Guard(const char* name, Function&& function) noexcept {
  constexpr char kNoMemory[] = "there is not enough memory";
  try {
    const absl::Status status = function();
    return status.ok() ? KeepSuccess() : KeepError(name, status.code(), status.message());
  } catch (const std::bad_alloc&) {
    return KeepError(name, absl::StatusCode::kResourceExhausted, kNoMemory);
  } catch (const std::length_error&) {
    return KeepError(name, absl::StatusCode::kResourceExhausted, kNoMemory);
  } catch (const std::exception& error) {
    return KeepError(name, absl::StatusCode::kInternal, error.what());
  } catch (...) {
    return KeepError(name, absl::StatusCode::kInternal, "there is an unknown error");
  }
}

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_C_STATUS_H_
