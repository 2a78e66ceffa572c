// Schedules: learning rates that change from step to step.
#ifndef GRADWEAVE_FRONTEND_SCHEDULES_H_
#define GRADWEAVE_FRONTEND_SCHEDULES_H_

#include <cstdint>
#include <functional>

#include "gradweave/graph/graph.h"

namespace gradweave::optim {

// The learning rate of each step: a function of the number of steps done so far, a float64 scalar of the
// graph, to a floating scalar. The functions below record an error in the graph when they are applied with
// a rate or a factor that is not finite or below 0, or a number of steps below 1.
using Schedule = std::function<Value(Value step)>;

Schedule ConstantRate(double rate);
// initial * factor^floor(step/every).
Schedule StepDecay(double initial, double factor, int64_t every);
// initial * factor^(step/every).
Schedule ExponentialDecay(double initial, double factor, int64_t every);
// From `initial` to `final` in `steps` steps along half a cosine, then `final` (Loshchilov and Hutter,
// "SGDR", 2017, formula 5).
Schedule CosineDecay(double initial, int64_t steps, double final = 0);
// then(0) * step/steps, and then(step - steps) from step `steps` on.
Schedule LinearWarmup(int64_t steps, Schedule then);

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_SCHEDULES_H_
