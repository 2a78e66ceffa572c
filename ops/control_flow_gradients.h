// The gradients of loops and branches.
#ifndef GRADWEAVE_OPS_CONTROL_FLOW_GRADIENTS_H_
#define GRADWEAVE_OPS_CONTROL_FLOW_GRADIENTS_H_

#include "gradweave/graph/gradient.h"

namespace gradweave {

// Adds two Scans. One is the forward Scan with values of its steps as further outputs: those that
// the gradient of a step reads and that it cannot take from the inputs, from captured values or
// compute from them in few operations. The other one goes the other way. Its states are the
// gradients of the states and the sums of the gradients of captured values; it scans the gradients
// of the outputs, and its outputs are the gradients of the inputs. MergeScans makes one of the two
// forward Scans.
void ScanGradient(GradientContext& g);

// Adds an If whose branches compute the forward values again, and their gradients.
void IfGradient(GradientContext& g);

// The gradient of a Scan over most_steps steps, whose step is an If on the condition.
void WhileGradient(GradientContext& g);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_CONTROL_FLOW_GRADIENTS_H_
