// ONNX's convolutions.
#include <algorithm>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/frontend/onnx/windows.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/conv_nd.h"

namespace gradweave::onnx {

absl::StatusOr<Windows> WindowsOf(const Call& call, const Shape& x, Integers kernel) {
  if (x.rank() < 3) return call.Wrong("its input has to have a batch, channels and at least one axis more");
  const auto axes = static_cast<size_t>(x.rank() - 2);
  Windows windows{.kernel = call.Ints("kernel_shape").value_or(std::move(kernel)),
                  .stride = call.Ints("strides").value_or(Integers(axes, 1)),
                  .dilation = call.Ints("dilations").value_or(Integers(axes, 1)),
                  .low = Integers(axes, 0),
                  .high = Integers(axes, 0)};
  for (const Integers* list : {&windows.kernel, &windows.stride, &windows.dilation}) {
    if (list->size() != axes)
      return call.Wrong("its kernel, strides and dilations need one number for each of ", axes, " axes");
    // Products of such numbers are far from any overflow.
    if (std::any_of(list->begin(), list->end(), [](int64_t n) { return n < 1 || n > (1 << 24); }))
      return call.Wrong("its kernel, strides and dilations have to be in [1, 2^24]");
  }
  const std::string mode = call.Text("auto_pad", "NOTSET");
  call.Ignore({"pads"});  // auto_pad replaces it.
  if (mode == "NOTSET" || mode.empty()) {
    const Integers pads = call.Ints("pads").value_or(Integers(2 * axes, 0));
    if (pads.size() != 2 * axes) return call.Wrong("it needs two paddings for each of ", axes, " axes");
    if (std::any_of(pads.begin(), pads.end(), [](int64_t n) { return n < 0 || n > (1 << 24); }))
      return call.Wrong("its paddings have to be in [0, 2^24]");
    windows.low.assign(pads.begin(), pads.begin() + static_cast<int64_t>(axes));
    windows.high.assign(pads.begin() + static_cast<int64_t>(axes), pads.end());
  } else if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
    for (size_t i = 0; i < axes; ++i) {
      const Dim& size = x[static_cast<int>(i) + 2];
      const int64_t stride = windows.stride[i];
      if (!size.is_known() && stride != 1) return call.Refuse("its padding depends on a size that only a run knows");
      const int64_t n = size.is_known() ? size.size() : 1;
      const int64_t total = std::max<int64_t>(((n + stride - 1) / stride - 1) * stride + windows.Extent(i) - n, 0);
      windows.low[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      windows.high[i] = total - windows.low[i];
    }
  } else if (mode != "VALID") {
    return call.Wrong("its auto_pad is unknown");
  }
  return windows;
}

ConvNDOptions OptionsOf(const Windows& windows, int64_t groups) {
  return {.stride = windows.stride,
          .dilation = windows.dilation,
          .padding_low = windows.low,
          .padding_high = windows.high,
          .groups = groups};
}

namespace {

Integers KernelOf(const Shape& filter) {
  Integers kernel;
  for (int i = 2; i < filter.rank(); ++i) kernel.push_back(filter[i].is_known() ? filter[i].size() : 0);
  return kernel;
}

absl::Status Conv(Call& call) {
  const Value x = call.In(0), filter = call.In(1);
  if (filter.rank() != x.rank()) return call.Wrong("its filter has ", filter.rank(), " axes and its input ", x.rank());
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), KernelOf(filter.shape())));
  const ConvNDOptions options = OptionsOf(windows, call.Int("group", 1));
  call.Set(0, call.Has(2) ? ConvND(x, filter, call.In(2), options) : ConvND(x, filter, options));
  return absl::OkStatus();
}

absl::Status ConvTranspose(Call& call) {
  const Value x = call.In(0), filter = call.In(1);
  if (filter.rank() != x.rank()) return call.Wrong("its filter has ", filter.rank(), " axes and its input ", x.rank());
  const std::string mode = call.Text("auto_pad", "NOTSET");
  GW_ASSIGN_OR_RETURN(const Windows windows, WindowsOf(call, x.shape(), KernelOf(filter.shape())));
  ConvTransposeNDOptions options{.stride = windows.stride,
                                 .dilation = windows.dilation,
                                 .output_padding = call.Ints("output_padding").value_or(Integers()),
                                 .groups = call.Int("group", 1)};
  const Integers sizes = call.Ints("output_shape").value_or(Integers());
  const auto axes = static_cast<int64_t>(windows.kernel.size());
  if (mode == "SAME_UPPER") options.auto_padding = AutoPadding::kSameUpper;
  if (mode == "SAME_LOWER") options.auto_padding = AutoPadding::kSameLower;
  if (!sizes.empty()) {
    // The padding follows from the sizes.
    if (static_cast<int64_t>(sizes.size()) < axes)
      return call.Wrong("its output_shape needs a number for each of its axes");
    options.output_sizes.assign(sizes.end() - axes, sizes.end());
  } else if (options.auto_padding == AutoPadding::kNone) {
    options.padding_low = windows.low;
    options.padding_high = windows.high;
  }
  call.Set(0, call.Has(2) ? ConvTransposeND(x, filter, call.In(2), options) : ConvTransposeND(x, filter, options));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"Conv", 1, 2, Conv},
    {"ConvTranspose", 1, 2, ConvTranspose},
};

}  // namespace

absl::Span<const OpRow> ConvRows() { return kRows; }

}  // namespace gradweave::onnx
