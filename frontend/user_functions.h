// Calls of functions that a program gives to the library, such as callbacks and generators.
#ifndef GRADWEAVE_FRONTEND_USER_FUNCTIONS_H_
#define GRADWEAVE_FRONTEND_USER_FUNCTIONS_H_

#include <exception>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace gradweave {

// Returns function(), a Status or StatusOr. Returns Unknown with `name`, such as "Fit: a callback's
// after_epoch", and the exception's text if the function throws. Passes bad_alloc on to
// GW_CATCH_OUT_OF_MEMORY of the caller.
template <typename F>
auto CallUserFunction(absl::string_view name, F&& function) -> decltype(std::forward<F>(function)()) try {
  return std::forward<F>(function)();
} catch (const std::bad_alloc&) {
  throw;
} catch (const std::exception& error) {
  return absl::UnknownError(absl::StrCat(name, " threw an exception: ", error.what()));
} catch (...) {
  return absl::UnknownError(absl::StrCat(name, " threw something that is not a std::exception"));
}

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_USER_FUNCTIONS_H_
