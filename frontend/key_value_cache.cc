#include "gradweave/frontend/key_value_cache.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/builder.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::nn {

constexpr absl::string_view kCache = "KeyValueCache";

KeyValueCache::KeyValueCache(Scope& scope, int64_t length, std::source_location location) : length_(length) {
  const Value zero = scope.Constant(Tensor::Scalar(int64_t{0}), location);
  position_ = scope.Variable("position", Operand(zero, location), {.trainable = false});
  if (length < 1 && position_.valid()) {
    position_ = BuilderError(kCache, {Operand(position_, location)},
                             absl::StrCat("the length is ", length, " and has to be at least 1"));
  }
}

Value KeyValueCache::PositionsOf(const Value& x, const Dim& time) {
  if (!position_.valid() || !x.valid()) return position_;
  if (!counts_) {
    const Value steps = time.is_known() ? ToValue(Operand(time.size()), position_) : Sum(OnesLike(RangeLike(x, time)));
    updates_.push_back(Assign(position_, Add(position_, steps)));
    counts_ = true;
  }
  // A position beyond the length fails the run before it changes a variable.
  return Gather(RangeLike(x, length_), Add(RangeLike(x, time), position_));
}

Value KeyValueCache::Keep(const Context& context, absl::string_view name, const Value& x, const Value& positions) {
  if (!x.valid() || !positions.valid()) return Value(x.graph(), Port{});
  const Shape& shape = x.shape();
  for (int axis : {0, 1, 3}) {
    if (shape[axis].is_known()) continue;
    return BuilderError(kCache, {Operand(x)},
                        absl::StrCat("axis ", axis, " is ", shape[axis].ToString(),
                                     " and has to be known; only the time may be a symbol"));
  }
  const int64_t heads = shape[0].size() * shape[1].size(), width = shape[3].size();
  const Value variable =
      context.Variable(std::string(name), Constant{0}, x.dtype(), {heads * length_, width}, {.trainable = false});
  // Row (sample, head, position).
  const Value first = Mul(ExpandDims(RangeLike(x, heads), {1}), length_);
  const Value rows = gradweave::Reshape(Add(first, positions), {heads * shape[2]});
  const Value all = AddOp("PutRows", {variable, rows, gradweave::Reshape(x, {heads * shape[2], width})});
  updates_.push_back(Assign(variable, all));
  return gradweave::Reshape(all, {shape[0], shape[1], length_, width});
}

}  // namespace gradweave::nn
