// Steps over several batches, for models whose large batches do not fit in memory.
#ifndef GRADWEAVE_FRONTEND_ACCUMULATE_H_
#define GRADWEAVE_FRONTEND_ACCUMULATE_H_

#include <source_location>

#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/weighted_mean.h"
#include "gradweave/graph/graph.h"
#include "gradweave/ops/builder.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::optim {

// The two updates of a step over several batches.
struct AccumulatedUpdate {
  Update apply;  // Runs after the last batch of a step: the optimizer's update.
  Update add;    // Runs after each earlier batch of the step: adds to sums.
};

struct AccumulateOptions {
  // A scalar: the weight of a batch among the batches of its step. Default: its number of samples,
  // the first axis of the inputs that the loss depends on.
  Value weight = {};
  Values variables = {};  // Default: the trainable variables that the loss depends on.
};

// Makes a step that sums up gradients over batches and then takes the optimizer's step with their
// mean, weighted by the sizes of the batches. Sums are kept in variables "accumulated/...", so a
// saved model can continue in the middle of a step.
//
//   const gw::Training training{loss, gw::optim::Accumulate(gw::optim::Adam{}, loss)};
//   ...
//   gw::Fit(*session, training, train, {.batch_size = 64, .accumulate = 4});
//
// Compared with one step that has all samples in one batch, two things are equal except for
// rounding. One is the gradient, and so the step, if the loss is a mean of losses that depend on
// one sample each. The other is the moving averages of BatchNorm: once per step, they get the mean
// and variance of the layer's input in all batches of the step. Two things differ: BatchNorm
// normalizes each batch by its own statistics, and random ops draw different numbers. The moving
// averages ignore a batch with one value per channel. Other floating variables that layers assign
// get the mean of the values of all batches. Integer variables are assigned after the last batch.
//
// Errors are recorded in the graph: the errors of Minimize and, if no weight is given, a loss whose
// inputs have different first axes.
AccumulatedUpdate Accumulate(const Optimizer& optimizer, Operand loss, AccumulateOptions options = {});
// The same for a mean with weights; a batch counts as much as the sum of its weights.
AccumulatedUpdate Accumulate(const Optimizer& optimizer, const WeightedMean& loss, AccumulateOptions options = {},
                             std::source_location location = std::source_location::current());

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_ACCUMULATE_H_
