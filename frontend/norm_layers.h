// Layers that normalize (ops/normalization.h). Each epsilon is added to a variance or a mean
// square, and is at least 0.
#ifndef GRADWEAVE_FRONTEND_NORM_LAYERS_H_
#define GRADWEAVE_FRONTEND_NORM_LAYERS_H_

#include <cstdint>

#include "gradweave/frontend/layer.h"

namespace gradweave::nn {

// Normalizes channels (axis 1). In training it uses the statistics of the batch and updates the
// moving averages with the batch's mean and unbiased variance. Outside of training it uses the
// moving averages. Variables: scale, offset, and moving_mean and moving_variance, which are not
// trainable. Optimizers add the assignments of the moving averages to their update. A batch with
// one value per channel has no variance: it does not change the moving averages, and its result is
// the offset. If all sizes are known, training on one value per channel is an error.
struct BatchNorm {
  static constexpr const char* kKind = "batch_norm";
  double momentum = 0.9;  // new average = momentum*old + (1 - momentum)*batch.
  double epsilon = 1e-5;
  Value Apply(const Context& context, Value x) const;
};

// Normalizes the last `axes` axes (ops/normalization.h). Variables: scale, offset.
struct LayerNorm {
  static constexpr const char* kKind = "layer_norm";
  int64_t axes = 1;
  double epsilon = 1e-5;
  Value Apply(const Context& context, Value x) const;
};

// Normalizes each sample over groups of neighbouring channels (axis 1) and all axes behind them.
// Variables: scale and offset, [channels], unless `affine` is false.
struct GroupNorm {
  static constexpr const char* kKind = "group_norm";
  int64_t groups = 0;  // Divides the channels.
  double epsilon = 1e-5;
  bool affine = true;
  Value Apply(const Context& context, Value x) const;
};

// Normalizes each channel (axis 1) of each sample over the axes behind it, of which there is at
// least one. It is the same in training and outside of it. Variables: scale and offset, [channels],
// unless `affine` is false.
struct InstanceNorm {
  static constexpr const char* kKind = "instance_norm";
  double epsilon = 1e-5;
  bool affine = true;
  Value Apply(const Context& context, Value x) const;
};

// Divides by the root mean square of the last `axes` axes. Variable: scale, with the shape of these
// axes.
struct RmsNorm {
  static constexpr const char* kKind = "rms_norm";
  int64_t axes = 1;
  double epsilon = 1e-5;
  Value Apply(const Context& context, Value x) const;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_NORM_LAYERS_H_
