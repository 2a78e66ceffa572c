// Updates: clipping of gradients, assignments of layers, averages of weights, and combinations of
// updates.
#ifndef GRADWEAVE_FRONTEND_UPDATES_H_
#define GRADWEAVE_FRONTEND_UPDATES_H_

#include <map>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

#include "gradweave/graph/graph.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::optim {

// Returns the trainable variables of the graph; with a value, only those on which it depends. With
// the output of a model these are the model's own, so a training step can move one model of
// several:
//
//   gw::Update step = adam.Minimize(loss, gw::optim::TrainableVariables(graph, generated_image));
std::vector<Value> TrainableVariables(Graph& graph, std::optional<Value> value = {});

// Scales the gradients by min(1, max_norm/norm), where norm is the square root of the sum of all
// their squares (Pascanu et al., "On the difficulty of training recurrent neural networks", 2013,
// algorithm 1). max_norm must be finite and above 0.
std::vector<Value> ClipByGlobalNorm(const std::vector<Value>& gradients, double max_norm,
                                    std::source_location location = std::source_location::current());
// The same for each gradient by itself, with its own norm.
std::vector<Value> ClipByNorm(const std::vector<Value>& gradients, double max_norm,
                              std::source_location location = std::source_location::current());
// Limits each element to [-limit, limit]. The limit must be finite and above 0.
std::vector<Value> ClipByValue(const std::vector<Value>& gradients, double limit,
                               std::source_location location = std::source_location::current());

// The assignments that layers made to go with the training of this loss, such as BatchNorm's moving
// averages: those of exactly the calls of layers that the loss depends on. Where several of these
// calls assign one variable, as a layer does that is applied to two inputs, one assignment does the
// work of all, one after the other in the order of the calls. Minimize adds them; with Apply, run
// them beside its update:
//
//   session->Run(feeds, {loss, sgd.Apply(gradients, variables), gw::optim::LayerUpdates(loss)});
// The update may be empty.
Update LayerUpdates(Value loss);

// One update that does `first` and then `second`: in `second`, reads of variables that `first`
// assigns give their new values, and a variable that both assign is assigned once.
//
//   gw::Update step = gw::optim::Then(sgd.Minimize(loss), {{gw::Assign(w, gw::Clip(w, -1, 1))}});
//
// An assignment that is not valid is left out; its error is in the graph.
Update Then(const Update& first, const Update& second);

struct AverageOptions {
  double decay = 0.999;  // In [0, 1).
  // False: the average starts with the weights after the first step. True: it is the mean of the
  // weights after all steps so far, with weights that fall by `decay` per step into the past, so
  // the first steps count less (Kingma and Ba, "Adam", 2015, section 3, for averages of gradients).
  bool bias_correction = false;
  std::vector<Value> variables = {};  // Default: the trainable variables that the step assigns.
};

// Moving averages of weights, average = decay*average + (1 - decay)*w after each step (Polyak and
// Juditsky, "Acceleration of stochastic approximation by averaging", 1992, with exponential
// weights).
struct WeightAverages {
  Update step;                          // The training step with the averages' assignments.
  std::map<std::string, Value> values;  // The averages, by the full names of the variables.
  Update swap;                          // Exchanges the variables' values and the averages.
};

// Adds averages of the variables that a training step assigns. They are variables
// "average/<variable>". Before the first step they are zero.
//
//   const auto averages = gw::optim::AverageWeights(adam.Minimize(loss), {.decay = 0.99});
//   gw::Value answers = model(scope, x, {.training = false, .values = averages.values});
//   session.Run(feeds, {loss, averages.step});
//   session.Run({}, {averages.swap});   // Before the model is saved; and again, to train on.
//
// Errors are recorded in the graph: a decay outside of [0, 1), and a variable that is not floating.
WeightAverages AverageWeights(const Update& step, AverageOptions options = {},
                              std::source_location location = std::source_location::current());

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_UPDATES_H_
