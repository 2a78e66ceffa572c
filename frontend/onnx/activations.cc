// ONNX's activations.
#include "gradweave/ops/activations.h"

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/index_functions.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"

namespace gradweave::onnx {
namespace {

absl::Status EluRow(Call& call) {
  call.Set(0, Elu(call.In(0), call.Float("alpha", 1)));
  return absl::OkStatus();
}

absl::Status SeluRow(Call& call) {
  const double alpha = call.Float("alpha", 1.67326319217681884765625),
               gamma = call.Float("gamma", 1.05070102214813232421875);
  call.Set(0, Selu(call.In(0), alpha, gamma));
  return absl::OkStatus();
}

absl::Status CeluRow(Call& call) {
  call.Set(0, Celu(call.In(0), call.Float("alpha", 1)));
  return absl::OkStatus();
}

absl::Status LeakyReluRow(Call& call) {
  call.Set(0, LeakyRelu(call.In(0), call.Float("alpha", 0.01)));
  return absl::OkStatus();
}

absl::Status PReluRow(Call& call) {
  const Value x = call.In(0);
  Value slope = call.In(1);
  if (call.opset() < 7 && slope.rank() == 1 && x.rank() > 2 && SizeAt(slope.shape(), 0) == SizeAt(x.shape(), 1)) {
    Shape shape = slope.shape();  // One slope for each channel.
    for (int i = 2; i < x.rank(); ++i) shape.Append(1);
    slope = Reshape(slope, shape);
  }
  if (IsFloating(x.dtype())) {
    call.Set(0, PRelu(x, slope));
  } else {
    call.Set(0, Where(Less(x, 0), Mul(x, slope), x));
  }
  return absl::OkStatus();
}

absl::Status HardSigmoidRow(Call& call) {
  call.Set(0, HardSigmoid(call.In(0), call.Float("alpha", 0.2), call.Float("beta", 0.5)));
  return absl::OkStatus();
}

absl::Status ThresholdedReluRow(Call& call) {
  call.Set(0, ThresholdedRelu(call.In(0), call.Float("alpha", 1)));
  return absl::OkStatus();
}

absl::Status ShrinkRow(Call& call) {
  const Value x = call.In(0);
  const double bias = call.Float("bias", 0), lambda = call.Float("lambd", 0.5);
  if (IsFloating(x.dtype())) {
    call.Set(0, Shrink(x, lambda, bias));
    return absl::OkStatus();
  }
  // Integers are computed in float64.
  call.Set(0, Cast(Shrink(Cast(x, kFloat64), lambda, bias), x.dtype()));
  return absl::OkStatus();
}

absl::Status GeluRow(Call& call) {
  const Value x = call.In(0);
  call.Set(0, call.Text("approximate", "none") == "tanh" ? TanhGelu(x) : Gelu(x));
  return absl::OkStatus();
}

absl::Status SwishRow(Call& call) {
  const Value x = call.In(0);
  call.Set(0, Mul(x, Sigmoid(Mul(x, call.Float("alpha", 1)))));
  return absl::OkStatus();
}

absl::Status SwiGlu(Call& call) {
  const Value gate = call.In(0);
  call.Set(0, Mul(Mul(gate, Sigmoid(Mul(gate, call.Float("alpha", 1)))), call.In(1)));
  return absl::OkStatus();
}

// Before opset 13, these ops see a matrix: the axes before `axis` as rows, and the others as
// columns.
template <Value (*kFunction)(Value, int64_t)>
absl::Status AlongAxis(Call& call) {
  const Value x = call.In(0);
  const bool flattens = call.opset() < 13;
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", flattens ? 1 : -1), x.rank()));
  if (!flattens) {
    call.Set(0, kFunction(x, axis));
    return absl::OkStatus();
  }
  Dim rows(1), columns(1);
  for (int i = 0; i < x.rank(); ++i) (i < axis ? rows : columns) = (i < axis ? rows : columns) * SizeAt(x.shape(), i);
  call.Set(0, Reshape(kFunction(Reshape(x, {rows, columns}), 1), x.shape()));
  return absl::OkStatus();
}
Value HardmaxOf(Value x, int64_t axis) { return Hardmax(x, axis); }
Value SoftmaxOf(Value x, int64_t axis) { return Softmax(x, axis); }
Value LogSoftmaxOf(Value x, int64_t axis) { return LogSoftmax(x, axis); }

constexpr OpRow kRows[] = {
    {"Celu", 12, 1, CeluRow},
    {"Elu", 1, 1, EluRow},
    {"Gelu", 20, 1, GeluRow},
    {"HardSigmoid", 1, 1, HardSigmoidRow},
    {"HardSwish", 14, 1, Unary<HardSwish>},
    {"Hardmax", 1, 1, AlongAxis<HardmaxOf>},
    {"LeakyRelu", 1, 1, LeakyReluRow},
    {"LogSoftmax", 1, 1, AlongAxis<LogSoftmaxOf>},
    {"Mish", 18, 1, Unary<Mish>},
    {"PRelu", 1, 2, PReluRow},
    {"Relu", 1, 1, Unary<Relu>},
    {"Selu", 1, 1, SeluRow},
    {"Shrink", 9, 1, ShrinkRow},
    {"Sigmoid", 1, 1, Unary<Sigmoid>},
    {"Softmax", 1, 1, AlongAxis<SoftmaxOf>},
    {"Softplus", 1, 1, Unary<Softplus>},
    {"Softsign", 1, 1, Unary<Softsign>},
    {"SwiGLU", 28, 2, SwiGlu},
    {"Swish", 24, 1, SwishRow},
    {"Tanh", 1, 1, Unary<Tanh>},
    {"ThresholdedRelu", 10, 1, ThresholdedReluRow},
};

}  // namespace

absl::Span<const OpRow> ActivationRows() { return kRows; }

}  // namespace gradweave::onnx
