// Finds the node in which a NaN or an infinity begins.
#ifndef GRADWEAVE_FRONTEND_CHECK_NUMERICS_H_
#define GRADWEAVE_FRONTEND_CHECK_NUMERICS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// Computes the values, and every value that they need, in one run with these feeds, and follows NaN
// and infinities back to the first node that makes one of finite operands. An infinity in a
// constant, such as a mask, counts as intended. Returns a line with the node, its op, operand types
// and source line, its first element that is not finite, and the range of each operand; or a line
// that says that all values are finite. Assignments do not take effect, but the run counts: use
// Session::SetRunNumber to repeat random numbers. The run holds all values at once. Returns the
// errors of Session::Run.
absl::StatusOr<std::string> ExplainNonFinite(Session& session, const std::vector<Feed>& feeds,
                                             const std::vector<Value>& values);

// Watches the steps of a training. It copies all variables before each step.
class NumericsCheck {
 public:
  explicit NumericsCheck(Session& session) : session_(session) {}

  // Keeps the variables and the run number.
  absl::Status BeforeStep();
  // Returns the name of a variable that was finite before the step and is not finite now, or "".
  absl::StatusOr<std::string> SpoiledVariable() const;
  // Gives the variables back the values from before the step, and explains the step: `update` is
  // the step, and `loss` its loss.
  absl::StatusOr<std::string> Explain(const std::vector<Feed>& feeds, const Value& loss, const Update& update);

 private:
  Session& session_;
  NamedTensors before_;
  uint64_t run_number_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_CHECK_NUMERICS_H_
