// ONNX's reductions.
#include "gradweave/ops/reduction.h"

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"

namespace gradweave::onnx {
namespace {

using Reduction = Value (*)(Operand x, ReductionOptions options);

// Bool elements, from opset 20 on: the largest one tells whether any is true.
template <Reduction kReduction>
Value OrBool(Operand x, ReductionOptions options) {
  if (x.dtype() != kBool) return kReduction(x, options);
  return Cast(kReduction(Cast(x, kUint8), options), kBool);
}

// Axes are an attribute, and an input from opset 13 (ReduceSum) or 18 on.
template <Reduction kReduction>
absl::Status Reduce(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const std::optional<Integers> given, call.IntsOrInput("axes", 1));
  GW_ASSIGN_OR_RETURN(const Integers axes, call.Axes(given.value_or(Integers()), x.rank()));
  const bool keep = call.Int("keepdims", 1) != 0, noop = call.Int("noop_with_empty_axes", 0) != 0;
  if (axes.empty() && noop) {
    call.Set(0, &call.item(0));
    return absl::OkStatus();
  }
  // A scalar has no axes to reduce, and an empty list means all.
  call.Set(0, kReduction(x, {.axes = axes, .keep_dims = keep}));
  return absl::OkStatus();
}

using ArgReduction = Value (*)(Operand x, ArgOptions options);

template <ArgReduction kReduction>
absl::Status Arg(Call& call) {
  call.Set(0, kReduction(call.In(0), {.axis = call.Int("axis", 0),
                                      .keep_dims = call.Int("keepdims", 1) != 0,
                                      .last = call.Int("select_last_index", 0) != 0}));
  return absl::OkStatus();
}

template <Value (*kFunction)(Operand, CumSumOptions)>
absl::Status Cumulate(Call& call) {
  GW_ASSIGN_OR_RETURN(const double given, call.KnownNumber(1));
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(ToInteger(given), call.Rank(0)));
  call.Set(
      0, kFunction(call.In(0),
                   {.axis = axis, .exclusive = call.Int("exclusive", 0) != 0, .reverse = call.Int("reverse", 0) != 0}));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"ArgMax", 1, 1, Arg<ArgMax>},
    {"ArgMin", 1, 1, Arg<ArgMin>},
    {"CumProd", 26, 2, Cumulate<CumProd>},
    {"CumSum", 11, 2, Cumulate<CumSum>},
    {"ReduceL1", 1, 1, Reduce<SumOfSizes>},
    {"ReduceL2", 1, 1, Reduce<Norm>},
    {"ReduceLogSum", 1, 1, Reduce<LogSum>},
    {"ReduceLogSumExp", 1, 1, Reduce<LogSumExp>},
    {"ReduceMax", 1, 1, Reduce<OrBool<Max>>},
    {"ReduceMean", 1, 1, Reduce<Mean>},
    {"ReduceMin", 1, 1, Reduce<OrBool<Min>>},
    {"ReduceProd", 1, 1, Reduce<Prod>},
    {"ReduceSum", 1, 1, Reduce<Sum>},
    {"ReduceSumSquare", 1, 1, Reduce<SumOfSquares>},
};

}  // namespace

absl::Span<const OpRow> ReductionRows() { return kRows; }

}  // namespace gradweave::onnx
