// ONNX's pools.
#include "gradweave/ops/pool_nd.h"

#include <algorithm>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/frontend/onnx/windows.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

// Reads the attributes that all pools share.
absl::StatusOr<PoolNDOptions> OptionsOf(const Call& call, const Shape& x) {
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x, {}));
  PoolNDOptions options{.window = windows.kernel,
                        .stride = windows.stride,
                        .dilation = windows.dilation,
                        .padding_low = windows.low,
                        .padding_high = windows.high};
  // With a stride of 1, the last window ends where the padding does.
  const bool steps = std::any_of(windows.stride.begin(), windows.stride.end(), [](int64_t n) { return n > 1; });
  options.ceil_mode = call.Int("ceil_mode", 0) != 0 && steps;
  return options;
}

absl::Status MaxPool(Call& call) {
  GW_ASSIGN_OR_RETURN(PoolNDOptions options, OptionsOf(call, call.Type(0).shape));
  options.column_major = call.Int("storage_order", 0) != 0;
  const Value x = call.In(0);
  const auto is_one = [](int64_t step) { return step == 1; };
  if (options.window.size() == 2 && (x.dtype() == kInt8 || x.dtype() == kUint8) && !call.Wants(1) &&
      !options.ceil_mode && std::all_of(options.dilation.begin(), options.dilation.end(), is_one)) {
    const Integers &low = options.padding_low, &high = options.padding_high;
    call.Set(
        0, MaxPool2D(
               x, {.window = options.window, .stride = options.stride, .padding = {low[0], high[0], low[1], high[1]}}));
    return absl::OkStatus();
  }
  // Integers are computed in float64, which is exact except for very large ones.
  const MaxPoolResult result = MaxPoolND(IsFloating(x.dtype()) ? x : Cast(x, kFloat64), options);
  call.Set(0, Cast(result.values, x.dtype()));
  call.Set(1, result.indices);
  return absl::OkStatus();
}

absl::Status AveragePool(Call& call) {
  GW_ASSIGN_OR_RETURN(PoolNDOptions options, OptionsOf(call, call.Type(0).shape));
  options.count_padding = call.Int("count_include_pad", 0) != 0;
  call.Set(0, AvgPoolND(call.In(0), options));
  return absl::OkStatus();
}

absl::Status LpPool(Call& call) {
  const double p = call.opset() < 2 ? call.Float("p", 2) : static_cast<double>(call.Int("p", 2));
  GW_ASSIGN_OR_RETURN(const PoolNDOptions options, OptionsOf(call, call.Type(0).shape));
  call.Set(0, LpPoolND(call.In(0), p, options));
  return absl::OkStatus();
}

Integers SpatialAxes(const Value& x) {
  Integers axes;
  for (int64_t i = 2; i < x.rank(); ++i) axes.push_back(i);
  return axes;
}

template <Value (*kReduction)(Operand, ReductionOptions)>
absl::Status Global(Call& call) {
  const Value x = call.In(0);
  if (x.rank() < 3) return call.Wrong("its input has to have a batch, channels and at least one axis more");
  call.Set(0, kReduction(x, {.axes = SpatialAxes(x), .keep_dims = true}));
  return absl::OkStatus();
}

// The indices count through the whole tensor that the pool saw, whose size follows from the
// windows.
absl::Status MaxUnpool(Call& call) {
  const Value x = call.In(0);
  call.Ignore({"auto_pad"});
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), {}));
  Shape shape = x.shape();
  for (int i = 2; i < x.rank(); ++i) {
    const auto axis = static_cast<size_t>(i) - 2;
    shape[i] = (shape[i] - 1) * windows.stride[axis] + (windows.Extent(axis) - windows.low[axis] - windows.high[axis]);
  }
  Value y = MaxUnpoolND(x, call.In(1), shape);
  if (call.Has(2)) {
    GW_ASSIGN_OR_RETURN(const Elements wanted, call.KnownElements(2));
    if (static_cast<int>(wanted.size()) != x.rank()) return call.Wrong("its output_shape needs a size for each axis");
    PadOptions pad;
    for (int i = 0; i < x.rank(); ++i) {
      pad.low.Append(0);
      pad.high.Append(wanted[static_cast<size_t>(i)] - shape[i]);
    }
    y = Pad(y, pad);
  }
  call.Set(0, y);
  return absl::OkStatus();
}

// (sum of |x|^p)^(1/p) over all spatial axes.
absl::Status GlobalLpPool(Call& call) {
  const Value x = call.In(0);
  const double p = call.opset() < 2 ? call.Float("p", 2) : static_cast<double>(call.Int("p", 2));
  if (x.rank() < 3 || p < 1) return call.Wrong("it needs spatial axes, and a p of at least 1");
  const ReductionOptions options{.axes = SpatialAxes(x), .keep_dims = true};
  call.Set(0, p == 2 ? Norm(x, options) : Pow(Sum(Pow(Abs(x), p), options), 1 / p));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"AveragePool", 1, 1, AveragePool},
    {"GlobalAveragePool", 1, 1, Global<Mean>},
    {"GlobalLpPool", 1, 1, GlobalLpPool},
    {"GlobalMaxPool", 1, 1, Global<Max>},
    {"LpPool", 1, 1, LpPool},
    {"MaxPool", 1, 1, MaxPool},
    {"MaxUnpool", 9, 2, MaxUnpool},
};

}  // namespace

absl::Span<const OpRow> PoolRows() { return kRows; }

}  // namespace gradweave::onnx
