#include "gradweave/frontend/conv_layers.h"

#include <optional>

#include "gradweave/frontend/layer_checks.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::nn {
namespace {

Integers Pair(const Size2& size) { return {size.height, size.width}; }

bool CheckConv(absl::string_view layer, const Value& x, int64_t inputs, int64_t channels, int64_t groups,
               const Size2& kernel, const Conv2DOptions& options) {
  return CheckSizes(layer, x,
                    {{"channels", channels},
                     {"kernel", kernel.height},
                     {"kernel", kernel.width},
                     {"stride", options.stride[0]},
                     {"stride", options.stride[1]},
                     {"padding", options.padding[0], 0},
                     {"padding", options.padding[1], 0},
                     {"dilation", options.dilation[0]},
                     {"dilation", options.dilation[1]},
                     {"groups", groups}}) &&
         CheckDivides(layer, x, "groups", groups, "input channels", inputs) &&
         CheckDivides(layer, x, "groups", groups, "output channels", channels);
}

// Returns the options of a pool whose stride defaults to its window; nullopt with an error if a
// number is out of range.
std::optional<Pool2DOptions> PoolOptions(absl::string_view layer, const Value& x, const Size2& pool,
                                         const Size2& stride, const Size2& padding) {
  const Size2 steps = stride.height == 0 && stride.width == 0 ? pool : stride;
  if (!CheckSizes(layer, x,
                  {{"pool", pool.height},
                   {"pool", pool.width},
                   {"stride", steps.height},
                   {"stride", steps.width},
                   {"padding", padding.height, 0},
                   {"padding", padding.width, 0}})) {
    return std::nullopt;
  }
  return Pool2DOptions{.window = Pair(pool), .stride = Pair(steps), .padding = Pair(padding)};
}

// [batch, channels, length] as images of height 1. The layers along one axis are those of two axes
// on them.
constexpr int64_t kHeightAxis = 2;
Value AsImages(absl::string_view layer, const Value& x) {
  if (!x.valid()) return x;
  if (x.rank() == 3) return ExpandDims(x, {kHeightAxis});
  return BuilderError(layer, {Operand(x)}, "the input has to be [batch, channels, length]");
}
Value AsSequences(const Value& images) { return Squeeze(images, {kHeightAxis}); }

}  // namespace

Value Conv2D::Apply(const Context& context, Value x) const {
  const int64_t inputs = KnownSize("Conv2D", x, 1, 4);
  const Conv2DOptions options{
      .stride = Pair(stride), .padding = Pair(padding), .dilation = Pair(dilation), .groups = groups};
  if (inputs == 0 || !CheckConv("Conv2D", x, inputs, channels, groups, kernel, options)) return Invalid(x);
  const Value filter = context.Variable("filter", filter_initializer, x.dtype(),
                                        {channels, inputs / groups, kernel.height, kernel.width});
  if (!bias) return gradweave::Conv2D(x, filter, options);
  return gradweave::Conv2D(x, filter, context.Variable("bias", bias_initializer, x.dtype(), {channels}), options);
}

Value Conv1D::Apply(const Context& context, Value x) const {
  const Value images = AsImages("Conv1D", x);
  const int64_t inputs = images.valid() ? KnownSize("Conv1D", x, 1, 3) : 0;
  const Conv2DOptions options{
      .stride = {1, stride}, .padding = {0, padding}, .dilation = {1, dilation}, .groups = groups};
  if (inputs == 0 || !CheckConv("Conv1D", x, inputs, channels, groups, {1, kernel}, options)) return Invalid(x);
  const Value weights = context.Variable("filter", filter_initializer, x.dtype(), {channels, inputs / groups, kernel});
  const Value filter = ExpandDims(weights, {kHeightAxis});
  if (!bias) return AsSequences(gradweave::Conv2D(images, filter, options));
  const Value offset = context.Variable("bias", bias_initializer, x.dtype(), {channels});
  return AsSequences(gradweave::Conv2D(images, filter, offset, options));
}

Value ConvTranspose2D::Apply(const Context& context, Value x) const {
  const int64_t inputs = KnownSize("ConvTranspose2D", x, 1, 4);
  if (inputs == 0 || !CheckSizes("ConvTranspose2D", x,
                                 {{"channels", channels},
                                  {"kernel", kernel.height},
                                  {"kernel", kernel.width},
                                  {"stride", stride.height},
                                  {"stride", stride.width},
                                  {"padding", padding.height, 0},
                                  {"padding", padding.width, 0},
                                  {"output_padding", output_padding.height, 0},
                                  {"output_padding", output_padding.width, 0}})) {
    return Invalid(x);
  }
  const Value filter =
      context.Variable("filter", filter_initializer, x.dtype(), {inputs, channels, kernel.height, kernel.width});
  const ConvTranspose2DOptions options{
      .stride = Pair(stride), .padding = Pair(padding), .output_padding = Pair(output_padding)};
  if (!bias) return gradweave::ConvTranspose2D(x, filter, options);
  return gradweave::ConvTranspose2D(x, filter, context.Variable("bias", bias_initializer, x.dtype(), {channels}),
                                    options);
}

Value AvgPool2D::Apply(const Context&, Value x) const {
  std::optional<Pool2DOptions> options = PoolOptions("AvgPool2D", x, pool, stride, padding);
  if (!options.has_value()) return Invalid(x);
  options->count_padding = count_padding;
  return gradweave::AvgPool2D(x, *options);
}

Value MaxPool2D::Apply(const Context&, Value x) const {
  const std::optional<Pool2DOptions> options = PoolOptions("MaxPool2D", x, pool, stride, padding);
  return options.has_value() ? gradweave::MaxPool2D(x, *options) : Invalid(x);
}

Value AvgPool1D::Apply(const Context&, Value x) const {
  std::optional<Pool2DOptions> options =
      PoolOptions("AvgPool1D", x, {1, pool}, {stride == 0 ? 0 : 1, stride}, {0, padding});
  if (!options.has_value()) return Invalid(x);
  options->count_padding = count_padding;
  return AsSequences(gradweave::AvgPool2D(AsImages("AvgPool1D", x), *options));
}

Value MaxPool1D::Apply(const Context&, Value x) const {
  const std::optional<Pool2DOptions> options =
      PoolOptions("MaxPool1D", x, {1, pool}, {stride == 0 ? 0 : 1, stride}, {0, padding});
  if (!options.has_value()) return Invalid(x);
  return AsSequences(gradweave::MaxPool2D(AsImages("MaxPool1D", x), *options));
}

Value GlobalAvgPool::Apply(const Context&, Value x) const { return gradweave::GlobalAvgPool(x); }

}  // namespace gradweave::nn
