// The gradients of loops and branches.
#ifndef GRADWEAVE_OPS_CONTROL_FLOW_GRADIENTS_H_
#define GRADWEAVE_OPS_CONTROL_FLOW_GRADIENTS_H_

#include "gradweave/graph/gradient.h"

namespace gradweave {

// Adds two Scans. One is the forward Scan with values of its steps as further outputs: values that
// the gradient of a step reads and can neither take from inputs and captured values nor compute
// from them in few operations. The other Scan runs in the opposite direction. Its states are the
// gradients of the states and the sums of the gradients of captured values; it scans the gradients
// of the outputs, and its outputs are the gradients of the inputs. MergeScans merges the two
// forward Scans.
void ScanGradient(GradientContext& g);

// Adds an If whose branches recompute the forward values and compute their gradients.
void IfGradient(GradientContext& g);

// The gradient of a Scan over most_steps steps, whose step is an If on the condition.
void WhileGradient(GradientContext& g);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_CONTROL_FLOW_GRADIENTS_H_
