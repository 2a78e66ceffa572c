// Time that has passed.
#ifndef GRADWEAVE_FRONTEND_SECONDS_H_
#define GRADWEAVE_FRONTEND_SECONDS_H_

#include <chrono>

namespace gradweave {

// Returns the seconds from `start` to now.
inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_SECONDS_H_
