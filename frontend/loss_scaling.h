// Loss scaling, for training with gradients in float16.
#ifndef GRADWEAVE_FRONTEND_LOSS_SCALING_H_
#define GRADWEAVE_FRONTEND_LOSS_SCALING_H_

#include <cstdint>

#include "gradweave/frontend/optimizers.h"

namespace gradweave::optim {

// In float16, gradients below 6e-8 become 0. With loss scaling, a step computes the gradients of
// scale * loss, and divides them by the scale in float32. The scale is as large as it can
// be without infinite gradients: a step that has infinite gradients or NaN changes no variable but
// these three, float32 and int64 scalars that are not trainable:
//
// - "loss_scaling/scale", which starts at `initial`. Such a step multiplies it by backoff_factor,
//   and growth_interval steps in a row without one multiply it by growth_factor, up to 2^127;
// - "loss_scaling/good_steps", the number of steps in a row since the scale changed;
// - "loss_scaling/skipped_steps", the number of steps that changed nothing else.
//
// This is what PyTorch's GradScaler does (Micikevicius et al., "Mixed precision training", 2018,
// section 3.2). The default numbers are PyTorch's.
struct LossScaling {
  double initial = 65536;          // Finite and above 0.
  double growth_factor = 2;        // Finite and at least 1.
  double backoff_factor = 0.5;     // Above 0 and below 1.
  int64_t growth_interval = 2000;  // At least 1.
};

// Like optimizer.Minimize(loss, variables), with loss scaling: the optimizer gets the gradients of
// the loss itself. LayerUpdates(loss) are skipped in skipped steps too. The result has the same
// bits as without scaling where gradients neither lose bits nor become infinite and the scale is a
// power of two. A table of embeddings is updated as a whole. A second call for one graph names its
// variables "loss_scaling_2/...". Records an error in the graph and returns an empty update for
// numbers outside their range, and in the cases of Minimize.
Update MinimizeScaled(const Optimizer& optimizer, Operand loss, const LossScaling& scaling = {}, Values variables = {});

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_LOSS_SCALING_H_
