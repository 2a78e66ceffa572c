#include "gradweave/frontend/layer_checks.h"

#include "absl/strings/str_cat.h"
#include "gradweave/ops/builder.h"
#include "gradweave/ops/composition.h"

namespace gradweave::nn {

int64_t KnownSize(absl::string_view layer, const Value& x, int axis, int least_rank) {
  if (!x.valid()) return 0;
  if (x.rank() < least_rank) {
    BuilderError(layer, {Operand(x)}, absl::StrCat("the input has to have at least ", least_rank, " axes"));
    return 0;
  }
  const Dim& dim = x.shape()[axis < 0 ? axis + x.rank() : axis];
  if (!dim.is_known() || dim.size() < 1) {
    BuilderError(layer, {Operand(x)},
                 absl::StrCat("axis ", axis, " of the input is ", dim.ToString(),
                              " and has to be known, because the variables' shapes depend on it"));
    return 0;
  }
  return dim.size();
}

bool CheckSizes(absl::string_view layer, const Value& x, std::initializer_list<SizeCheck> checks) {
  if (!x.valid()) return false;
  constexpr int64_t kLargest = (int64_t{1} << 31) - 1;
  for (const SizeCheck& check : checks) {
    if (check.size >= check.least && check.size <= kLargest) continue;
    BuilderError(layer, {Operand(x)},
                 absl::StrCat(check.name, " is ", check.size, " and has to be ",
                              check.size > kLargest ? absl::StrCat("at most ", kLargest)
                                                    : absl::StrCat("at least ", check.least)));
    return false;
  }
  return true;
}

bool CheckDivides(absl::string_view layer, const Value& x, absl::string_view name, int64_t divisor,
                  absl::string_view whole_name, int64_t whole) {
  if (whole % divisor == 0) return true;
  BuilderError(layer, {Operand(x)},
               absl::StrCat(name, " is ", divisor, " and has to divide the ", whole, " ", whole_name));
  return false;
}

bool CheckLengths(absl::string_view layer, const Value& x, const Value& lengths) {
  if (lengths.graph() == nullptr) return true;
  if (!AllValid(layer, {Operand(x), Operand(lengths)})) return false;
  if (lengths.shape() == Shape{x.shape()[0]} && (lengths.dtype() == kInt32 || lengths.dtype() == kInt64)) return true;
  BuilderError(layer, {Operand(x), Operand(lengths)},
               absl::StrCat("the lengths have to be int32 or int64 [", x.shape()[0].ToString(), "]"));
  return false;
}

Shape ChannelShape(const Value& x) {
  Shape shape = {x.shape()[1]};
  for (int axis = 2; axis < x.rank(); ++axis) shape.Append(Dim(1));
  return shape;
}

}  // namespace gradweave::nn
