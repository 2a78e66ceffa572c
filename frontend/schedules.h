// Schedules: learning rates that change from step to step.
#ifndef GRADWEAVE_FRONTEND_SCHEDULES_H_
#define GRADWEAVE_FRONTEND_SCHEDULES_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"

namespace gradweave::optim {

// The learning rate of each step: a function of the number of steps done so far, a float64 scalar
// of the graph, to a floating scalar. The functions below record an error in the graph when they
// are applied with a rate or a factor that is not finite or below 0, or a number of steps below 1.
using Schedule = std::function<Value(Value step)>;

Schedule ConstantRate(double rate);
// initial * factor^floor(step/every).
Schedule StepDecay(double initial, double factor, int64_t every);
// initial * factor^(step/every).
Schedule ExponentialDecay(double initial, double factor, int64_t every);
// From `initial` to `final` in `steps` steps along half a cosine, then `final` (Loshchilov and
// Hutter, "SGDR", 2017, formula 5).
Schedule CosineDecay(double initial, int64_t steps, double final = 0);
// CosineDecay that starts again after `first` steps, and each next time after `growth` times as
// many, where growth is at least 1 (ibid., section 3).
Schedule CosineRestarts(double initial, int64_t first, double growth = 1, double final = 0);
// From `initial` to `final` in `steps` steps as (1 - step/steps)^power, then `final`. power is
// above 0.
Schedule PolynomialDecay(double initial, int64_t steps, double power = 1, double final = 0);
// rates[i] until step boundaries[i], and the last rate from the last boundary on: there is one more
// rate than boundaries, and the boundaries rise from at least 1.
Schedule PiecewiseConstant(std::vector<int64_t> boundaries, std::vector<double> rates);
// then(0) * step/steps, and then(step - steps) from step `steps` on.
Schedule LinearWarmup(int64_t steps, Schedule then);

struct OneCycleOptions {
  double warmup = 0.3;         // The share of the steps in which the rate rises, in [0, 1).
  double start_divisor = 25;   // The first rate is highest/start_divisor. At least 1.
  double final_divisor = 1e4;  // The last rate is the first one divided by this. At least 1.
};
// Along half a cosine from a low rate to `highest` at step warmup*steps - 1, and along another one
// to a much lower rate at step steps - 1, which then stays (Smith and Topin, "Super-convergence",
// 2018, with PyTorch's half cosines).
Schedule OneCycle(double highest, int64_t steps, OneCycleOptions options = {});

struct ReduceOnPlateauOptions {
  double rate = 0.01;     // The first rate.
  double factor = 0.1;    // The rate is multiplied by it; in [0, 1).
  int64_t patience = 10;  // The rate falls at the next metric after this many without an improvement.
  int64_t cooldown = 0;   // After the rate fell, this many metrics do not count as without an improvement.
  // An improvement is more than this share of the best metric's absolute value. In [0, 1).
  double threshold = 1e-4;
  double lowest = 0;  // The rate falls no further.
  bool higher_is_better = false;
};

// A learning rate that falls when a metric, such as the loss of an epoch on validation data, has
// not improved for some time. The program computes it outside of the graph and sets the optimizer's
// rate, which is a variable if the rate is a number:
//
//   gw::optim::ReduceOnPlateau plateau({.rate = 0.1, .patience = 5});
//   const gw::Update step = gw::optim::Sgd{.learning_rate = plateau.rate()}.Minimize(loss);
//   ...
//   const absl::StatusOr<double> rate = plateau.Next(validation_loss);   // After each epoch.
//   if (!rate.ok()) return rate.status();
//   return session.SetVariable("sgd/learning_rate", gw::Tensor::Scalar<float>(*rate));
class ReduceOnPlateau {
 public:
  explicit ReduceOnPlateau(ReduceOnPlateauOptions options) : options_(options), rate_(options.rate) {}

  double rate() const { return rate_; }
  // Returns the rate after this metric. A NaN is not an improvement. Returns InvalidArgument if a
  // number of the options is outside of its range, or a rate or a count is below 0.
  absl::StatusOr<double> Next(double metric);

 private:
  ReduceOnPlateauOptions options_;
  double rate_;
  double best_ = std::numeric_limits<double>::quiet_NaN();  // None yet.
  int64_t waited_ = 0, cooling_ = 0;
};

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_SCHEDULES_H_
