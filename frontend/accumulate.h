// Steps over several batches, as one step over a large batch takes more memory than there is.
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
  Update apply;  // After the last batch of a step: the optimizer's update.
  Update add;    // After each batch before it: adds to sums.
};

struct AccumulateOptions {
  // A scalar: how much a batch counts beside the others of its step. Default: its number of
  // samples, the first axis of the inputs that the loss depends on.
  Value weight = {};
  Values variables = {};  // Default: the trainable variables that the loss depends on.
};

// Makes a step that sums up gradients over batches and then takes the optimizer's step with their
// mean, weighted by the sizes of the batches. Sums are kept in variables "accumulated/...", so a
// saved model goes on in the middle of a step.
//
//   const gw::Training training{loss, gw::optim::Accumulate(gw::optim::Adam{}, loss)};
//   ...
//   gw::Fit(*session, training, train, {.batch_size = 64, .accumulate = 4});
//
// Two things equal those of one step with all samples in one batch, except for rounding: the
// gradient, and with it the step, if the loss is a mean of losses that depend on one sample each;
// and the moving averages of BatchNorm, which get the mean and variance of the layer's input in all
// batches of the step, once for each step. Two things differ: BatchNorm normalizes each batch by
// its own statistics, and random ops draw other numbers. A batch with one value per channel is left
// out of the moving averages. Other assignments of layers to floating variables take the mean of
// what they assign in each batch; those to integers are carried out after the last batch.
//
// Errors, recorded in the graph: those of Minimize, and a loss whose inputs do not have one first
// axis in common if no weight is given.
AccumulatedUpdate Accumulate(const Optimizer& optimizer, Operand loss, AccumulateOptions options = {});
// The same for a mean with weights; a batch counts as much as the sum of its weights.
AccumulatedUpdate Accumulate(const Optimizer& optimizer, const WeightedMean& loss, AccumulateOptions options = {},
                             std::source_location location = std::source_location::current());

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_ACCUMULATE_H_
