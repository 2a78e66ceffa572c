#include "gradweave/frontend/basic_layers.h"

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/layer_checks.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::nn {

Value Dense::Apply(const Context& context, Value x) const {
  const int64_t inputs = KnownSize("Dense", x, -1, 2);
  if (inputs == 0 || !CheckSizes("Dense", x, {{"features", features}})) return Invalid(x);
  const Value y = MatMul(x, context.Variable("weight", weight_initializer, x.dtype(), {inputs, features}));
  return bias ? Add(y, context.Variable("bias", bias_initializer, x.dtype(), {features})) : y;
}

Value Flatten::Apply(const Context&, Value x) const { return gradweave::Flatten(x); }

Value Reshape::Apply(const Context&, Value x) const {
  if (!x.valid()) return x;
  if (x.rank() == 0) return BuilderError("Reshape", {Operand(x)}, "the input has to have at least 1 axis");
  Shape whole = {x.shape()[0]};
  for (const Dim& dim : shape) whole.Append(dim);
  return gradweave::Reshape(x, whole);
}

Value Dropout::Apply(const Context& context, Value x) const {
  if (!CheckNumbers(context.scope().graph(), "Dropout", {{"rate", rate, NumberCheck::kBelowOne}})) return Invalid(x);
  return context.training() ? gradweave::Dropout(x, rate) : x;
}

Value Embedding::Apply(const Context& context, Value x) const {
  if (!CheckSizes("Embedding", x, {{"vocabulary", vocabulary}, {"features", features}})) return Invalid(x);
  if (!IsFloating(dtype)) {
    return BuilderError(
        "Embedding", {Operand(x)},
        absl::StrCat("the dtype of the table is ", DTypeName(dtype), " and has to be float32 or float64"));
  }
  return Gather(context.Variable("table", initializer, dtype, {vocabulary, features}), x);
}

}  // namespace gradweave::nn
