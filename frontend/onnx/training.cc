// Ops of ai.onnx.preview.training: gradients, and the steps of optimizers.
#include <cmath>
#include <vector>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

// The gradient of the value y with respect to the values xs, by their names.
absl::Status Gradient(Call& call) {
  const proto::Attribute* xs = call.Find("xs");
  Item* y = call.importer().Lookup(call.names(), call.Text("y", ""));
  if (xs == nullptr || y == nullptr) return call.Wrong("its attributes name no values");
  std::vector<Value> values;
  for (const std::string& name : xs->strings()) {
    Item* x = call.importer().Lookup(call.names(), name);
    if (x == nullptr) return call.Wrong("its attribute xs names no value");
    values.push_back(call.importer().ValueOf(*x));
  }
  const std::vector<Value> gradients = Gradients({call.importer().ValueOf(*y)}, values);
  for (size_t i = 0; i < gradients.size(); ++i) call.Set(static_cast<int>(i), gradients[i]);
  return absl::OkStatus();
}

// The inputs of an optimizer: the rate, the step, and n tensors of each kind one after another.
struct Step {
  Value rate, number;
  int count = 0;
  int At(int kind, int i) const { return 2 + kind * count + i; }
};
absl::StatusOr<Step> StepOf(const Call& call, int kinds) {
  if ((call.num_inputs() - 2) % kinds != 0 || call.num_inputs() < 2 + kinds)
    return call.Wrong("it has not ", kinds, " inputs for each variable");
  for (int i = 0; i < call.num_inputs(); ++i) {
    if (!call.Has(i)) return call.Wrong("input ", i, " is missing");
  }
  Step step{.rate = call.In(0), .number = call.In(1), .count = (call.num_inputs() - 2) / kinds};
  const DType dtype = call.Type(2).dtype;
  step.rate = Cast(Reshape(step.rate, {}), dtype);
  step.number = Cast(Reshape(step.number, {}), dtype);
  return step;
}

absl::Status Adagrad(Call& call) {
  GW_ASSIGN_OR_RETURN(const Step step, StepOf(call, 3));
  const Value rate = Div(step.rate, Add(Mul(step.number, call.Float("decay_factor", 0)), 1));
  for (int i = 0; i < step.count; ++i) {
    const Value x = call.In(step.At(0, i));
    const Value gradient = Add(call.In(step.At(1, i)), Mul(x, call.Float("norm_coefficient", 0)));
    const Value sum = Add(call.In(step.At(2, i)), Square(gradient));
    call.Set(i, Sub(x, Div(Mul(gradient, rate), Add(Sqrt(sum), call.Float("epsilon", 1e-6)))));
    call.Set(step.count + i, sum);
  }
  return absl::OkStatus();
}

absl::Status Adam(Call& call) {
  GW_ASSIGN_OR_RETURN(const Step step, StepOf(call, 4));
  const double alpha = call.Float("alpha", 0.9), beta = call.Float("beta", 0.999);
  // The correction of the bias counts from the first step on.
  const Value first = step.number;
  const Value corrected =
      Div(Mul(step.rate, Sqrt(Sub(1, Exp(Mul(first, std::log(beta)))))), Sub(1, Exp(Mul(first, std::log(alpha)))));
  const Value rate = Where(Greater(first, 0), corrected, step.rate);
  for (int i = 0; i < step.count; ++i) {
    const Value x = call.In(step.At(0, i));
    const Value gradient = Add(call.In(step.At(1, i)), Mul(x, call.Float("norm_coefficient", 0)));
    const Value v = Add(Mul(call.In(step.At(2, i)), alpha), Mul(gradient, 1 - alpha));
    const Value h = Add(Mul(call.In(step.At(3, i)), beta), Mul(Square(gradient), 1 - beta));
    const Value moved = Sub(x, Div(Mul(v, rate), Add(Sqrt(h), call.Float("epsilon", 1e-6))));
    call.Set(i, Mul(moved, 1 - call.Float("norm_coefficient_post", 0)));
    call.Set(step.count + i, v);
    call.Set(2 * step.count + i, h);
  }
  return absl::OkStatus();
}

absl::Status Momentum(Call& call) {
  GW_ASSIGN_OR_RETURN(const Step step, StepOf(call, 3));
  const double alpha = call.Float("alpha", 0), beta = call.Float("beta", 0);
  const bool nesterov = call.Text("mode", "standard") == "nesterov";
  // The first step takes the whole gradient.
  const Value share = Where(Greater(step.number, 0), Mul(step.rate, 0) + beta, 1);
  for (int i = 0; i < step.count; ++i) {
    const Value x = call.In(step.At(0, i));
    const Value gradient = Add(call.In(step.At(1, i)), Mul(x, call.Float("norm_coefficient", 0)));
    const Value v = Add(Mul(call.In(step.At(2, i)), alpha), Mul(gradient, share));
    call.Set(i, Sub(x, Mul(nesterov ? Add(gradient, Mul(v, alpha)) : v, step.rate)));
    call.Set(step.count + i, v);
  }
  return absl::OkStatus();
}

constexpr char kDomain[] = "ai.onnx.preview.training";
constexpr OpRow kRows[] = {
    {"Adagrad", 1, 2, Adagrad, kDomain},
    {"Adam", 1, 2, Adam, kDomain},
    {"Gradient", 1, 1, Gradient, kDomain},
    {"Momentum", 1, 2, Momentum, kDomain},
};

}  // namespace

absl::Span<const OpRow> TrainingRows() { return kRows; }

}  // namespace gradweave::onnx
