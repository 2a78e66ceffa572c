#include "gradweave/frontend/activation_layers.h"

#include "gradweave/frontend/layer_checks.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/activations.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"

namespace gradweave::nn {

Value Sigmoid::Apply(const Context&, Value x) const { return gradweave::Sigmoid(x); }
Value Tanh::Apply(const Context&, Value x) const { return gradweave::Tanh(x); }
Value Relu::Apply(const Context&, Value x) const { return gradweave::Relu(x); }
Value LeakyRelu::Apply(const Context& context, Value x) const {
  const bool ok = CheckNumbers(context.scope().graph(), "LeakyRelu", {{"slope", slope, NumberCheck::kFinite}});
  return ok ? gradweave::LeakyRelu(x, slope) : Invalid(x);
}
Value Elu::Apply(const Context& context, Value x) const {
  const bool ok = CheckNumbers(context.scope().graph(), "Elu", {{"alpha", alpha, NumberCheck::kFinite}});
  return ok ? gradweave::Elu(x, alpha) : Invalid(x);
}
Value Selu::Apply(const Context&, Value x) const { return gradweave::Selu(x); }
Value Gelu::Apply(const Context&, Value x) const { return gradweave::Gelu(x); }
Value Softplus::Apply(const Context&, Value x) const { return gradweave::Softplus(x); }
Value Softmax::Apply(const Context&, Value x) const { return gradweave::Softmax(x, axis); }
Value Swish::Apply(const Context&, Value x) const { return gradweave::Swish(x); }
Value HardSigmoid::Apply(const Context&, Value x) const { return gradweave::HardSigmoid(x); }
Value HardSwish::Apply(const Context&, Value x) const { return gradweave::HardSwish(x); }
Value Mish::Apply(const Context&, Value x) const { return gradweave::Mish(x); }

Value PRelu::Apply(const Context& context, Value x) const {
  if (!CheckNumbers(context.scope().graph(), "PRelu", {{"initial_slope", initial_slope, NumberCheck::kFinite}}))
    return Invalid(x);
  const nn::Constant initializer = {initial_slope};
  if (!per_channel) return gradweave::PRelu(x, context.Variable("slope", initializer, x.dtype(), {}));
  const int64_t channels = KnownSize("PRelu", x, 1, 2);
  if (channels == 0) return Invalid(x);
  const Value slope = context.Variable("slope", initializer, x.dtype(), {channels});
  return gradweave::PRelu(x, gradweave::Reshape(slope, ChannelShape(x)));
}

}  // namespace gradweave::nn
