// Convolutions. Those with few channels are computed directly. The others are products with the
// im2col matrix of a block of samples (Chellapilla et al., "High performance convolutional neural
// networks for document processing", 2006, section 3).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/ops/conv_direct.h"
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/conv_geometry.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

// Sizes of a convolution, with dividers for index arithmetic on the device.
struct Sizes {
  int32_t channels, height, width, kernel_height, kernel_width, output_height, output_width;
  int32_t stride_y, stride_x, dilation_y, dilation_x, top, left, group_channels;
  Divider pixels, columns, kernel, kernel_columns, taps, steps_y, steps_x;

  explicit Sizes(const ConvGeometry& g)
      : channels(static_cast<int32_t>(g.channels)),
        height(static_cast<int32_t>(g.height)),
        width(static_cast<int32_t>(g.width)),
        kernel_height(static_cast<int32_t>(g.kernel_height)),
        kernel_width(static_cast<int32_t>(g.kernel_width)),
        output_height(static_cast<int32_t>(g.output_height)),
        output_width(static_cast<int32_t>(g.output_width)),
        stride_y(static_cast<int32_t>(g.stride_y)),
        stride_x(static_cast<int32_t>(g.stride_x)),
        dilation_y(static_cast<int32_t>(g.dilation_y)),
        dilation_x(static_cast<int32_t>(g.dilation_x)),
        top(static_cast<int32_t>(g.top)),
        left(static_cast<int32_t>(g.left)),
        group_channels(static_cast<int32_t>(g.group_channels())),
        pixels(std::max<int64_t>(g.pixels(), 1)),
        columns(std::max<int64_t>(g.output_width, 1)),
        kernel(std::max<int64_t>(g.kernel_height * g.kernel_width, 1)),
        kernel_columns(std::max<int64_t>(g.kernel_width, 1)),
        taps(std::max<int64_t>(g.taps(), 1)),
        steps_y(g.stride_y),
        steps_x(g.stride_x) {}
};

// Writes the im2col matrix. Element (sample, tap, pixel) goes to sample*sample_step + tap*tap_step
// + pixel. x points to the group's first channel.
template <typename T>
__global__ void __launch_bounds__(kBlock)
    Im2Col(Sizes g, const T* x, T* columns, uint32_t total, uint32_t sample_step, uint32_t tap_step) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t pixel = i;
    uint32_t tap = g.pixels.Split(pixel);
    const uint32_t sample = g.taps.Split(tap);
    uint32_t column = pixel;
    const uint32_t row = g.columns.Split(column);
    uint32_t l = tap;
    const uint32_t channel = g.kernel.Split(l);
    const uint32_t k = g.kernel_columns.Split(l);
    const int32_t from_row = static_cast<int32_t>(row) * g.stride_y + static_cast<int32_t>(k) * g.dilation_y - g.top;
    const int32_t from_column =
        static_cast<int32_t>(column) * g.stride_x + static_cast<int32_t>(l) * g.dilation_x - g.left;
    const bool inside = from_row >= 0 && from_row < g.height && from_column >= 0 && from_column < g.width;
    columns[static_cast<size_t>(sample) * sample_step + static_cast<size_t>(tap) * tap_step + pixel] =
        inside ? x[((static_cast<size_t>(sample) * g.channels + channel) * g.height + from_row) * g.width + from_column]
               : T(0);
  }
}

// Adds im2col columns [sample][tap][pixel] back to the elements that Im2Col would read. One thread
// computes each element of a group's x and adds the taps in order.
template <typename T>
__global__ void __launch_bounds__(kBlock) Col2Im(Sizes g, const T* columns, T* x, uint32_t total, Divider image_columns,
                                                 Divider image_rows, Divider group_channels) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t column = i;
    uint32_t row = image_columns.Split(column);
    uint32_t channel = image_rows.Split(row);
    const uint32_t sample = group_channels.Split(channel);
    const T* from =
        columns + static_cast<size_t>(sample * g.group_channels + channel) * g.kernel.divisor * g.pixels.divisor;
    T sum = 0;
    for (int32_t k = 0; k < g.kernel_height; ++k) {
      const int32_t y = static_cast<int32_t>(row) + g.top - k * g.dilation_y;
      uint32_t beside_y = static_cast<uint32_t>(y);
      const uint32_t output_y = g.steps_y.Split(beside_y);
      if (y < 0 || beside_y != 0 || output_y >= static_cast<uint32_t>(g.output_height)) continue;
      for (int32_t l = 0; l < g.kernel_width; ++l) {
        const int32_t x_of_tap = static_cast<int32_t>(column) + g.left - l * g.dilation_x;
        uint32_t beside_x = static_cast<uint32_t>(x_of_tap);
        const uint32_t output_x = g.steps_x.Split(beside_x);
        if (x_of_tap < 0 || beside_x != 0 || output_x >= static_cast<uint32_t>(g.output_width)) continue;
        sum += from[static_cast<size_t>(k * g.kernel_width + l) * g.pixels.divisor +
                    output_y * static_cast<uint32_t>(g.output_width) + output_x];
      }
    }
    x[(static_cast<size_t>(sample) * g.channels + channel) * g.height * g.width + row * g.width + column] = sum;
  }
}

// Gathers a group's rows of from [samples, all_rows, pixels] into to [rows, samples, pixels].
template <typename T>
__global__ void __launch_bounds__(kBlock)
    GatherSamples(const T* from, T* to, uint32_t total, uint32_t all_rows, Divider pixels, Divider samples) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t pixel = i;
    uint32_t sample = pixels.Split(pixel);
    const uint32_t row = samples.Split(sample);
    to[i] = from[(static_cast<size_t>(sample) * all_rows + row) * pixels.divisor + pixel];
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock)
    AddBias(const T* bias, T* y, uint32_t total, Divider pixels, Divider outputs) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t output = pixels.Quotient(i);
    outputs.Split(output);
    y[i] += bias[output];
  }
}

// Upper limit in bytes for the im2col matrix of one block of samples.
constexpr int64_t kColumnBytes = int64_t{64} << 20;

// Returns Unimplemented if one sample's columns exceed the 31-bit counters of kernels.
absl::Status CheckColumns(int64_t columns_size) {
  if (columns_size <= INT32_MAX) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      "CUDA kernels support im2col matrices of less than 2^31 elements per sample, but this one has ", columns_size));
}

int64_t SamplesPerBlock(const ConvGeometry& g, size_t element_bytes, int64_t elements_per_sample) {
  const int64_t bytes = std::max<int64_t>(elements_per_sample * static_cast<int64_t>(element_bytes), 1);
  // Kernels count the elements of a block with 31 bits.
  const int64_t most = std::min(kColumnBytes / bytes, INT32_MAX / std::max<int64_t>(elements_per_sample, 1));
  return std::clamp<int64_t>(most, 1, std::max<int64_t>(g.samples, 1));
}

// Returns true for convolutions to compute directly: those of few channels, and those of many
// groups, which would need one product per group.
constexpr int64_t kManyGroups = 4;
bool IsDirect(const ConvGeometry& g) {
  if ((g.pointwise && g.groups == 1) || !ConvShape::Fits(g)) return false;
  return g.groups >= kManyGroups || std::max(g.group_channels(), g.group_outputs()) <= kMostDirectChannels;
}

template <typename T>
CudaGemm GemmOf(const CudaContext& context) {
  CudaGemm gemm;
  gemm.dtype = DTypeOf<T>;
  gemm.precision = context.product_precision;
  return gemm;
}

template <typename T>
absl::Status RunAddBias(const CudaContext& context, const ConvGeometry& g, const T* bias, T* y) {
  const uint32_t total = static_cast<uint32_t>(g.samples * g.output_size());
  return Launch(context, "add_bias", AddBias<T>, {BlocksFor(total)}, {kBlock}, 0, bias, y, total, Divider(g.pixels()),
                Divider(g.outputs));
}

// y = filter * columns, for each group of a block of samples.
template <typename T>
absl::StatusOr<Kernel> Conv2DKernel(const KernelRequest& request, T) {
  const ConvGeometry g(request.node, request.operand(0).shape, request.operand(1).shape, request.output().shape);
  const bool has_bias = request.operands.size() == 3;
  DirectConvolution direct(ConvShape::Forward(g));
  if (IsDirect(g) && direct.Plan(sizeof(T))) {
    return Kernel{.name = "direct", .run = [=](const KernelArguments& arguments) {
                    return RunDirectConvolution<T>(arguments.device<CudaContext>(), direct, arguments.operand<T>(0),
                                                   arguments.operand<T>(1),
                                                   has_bias ? arguments.operand<T>(2) : nullptr, arguments.output<T>());
                  }};
  }
  GW_RETURN_IF_ERROR(CheckColumns(g.columns_size()));
  const int64_t block = g.pointwise ? g.samples : SamplesPerBlock(g, sizeof(T), g.columns_size());
  const size_t bytes = request.output().byte_size();
  return Kernel{.name = g.pointwise ? "gemm" : "im2col+gemm",
                .run =
                    [=](const KernelArguments& arguments) {
                      const CudaContext& context = arguments.device<CudaContext>();
                      T* y = arguments.output<T>();
                      if (bytes == 0) return absl::OkStatus();
                      if (g.taps() == 0) {
                        GW_RETURN_IF_ERROR(context.api->FillAsync(y, 0, bytes, context.stream));
                        return has_bias ? RunAddBias(context, g, arguments.operand<T>(2), y) : absl::OkStatus();
                      }
                      T* columns = reinterpret_cast<T*>(arguments.scratch);
                      for (int64_t first = 0; first < g.samples; first += block) {
                        const int64_t samples = std::min(block, g.samples - first);
                        for (int64_t group = 0; group < g.groups; ++group) {
                          const T* x = arguments.operand<T>(0) + first * g.sample_size() +
                                       group * g.group_channels() * g.height * g.width;
                          CudaGemm gemm = GemmOf<T>(context);
                          gemm.m = g.group_outputs();
                          gemm.n = gemm.ldb = gemm.ldc = g.pixels();
                          gemm.k = gemm.lda = g.taps();
                          gemm.a = arguments.operand<T>(1) + group * g.group_outputs() * g.taps();
                          gemm.batch = samples;
                          gemm.stride_b = g.pointwise ? g.sample_size() : g.columns_size();
                          gemm.b = g.pointwise ? x : columns;
                          gemm.stride_c = g.output_size();
                          gemm.c = y + first * g.output_size() + group * g.group_outputs() * g.pixels();
                          if (!g.pointwise) {
                            const uint32_t total = static_cast<uint32_t>(samples * g.columns_size());
                            GW_RETURN_IF_ERROR(Launch(
                                context, "im2col", Im2Col<T>, {BlocksFor(total)}, {kBlock}, 0, Sizes(g), x, columns,
                                total, static_cast<uint32_t>(g.columns_size()), static_cast<uint32_t>(g.pixels())));
                          }
                          GW_RETURN_IF_ERROR(context.api->Gemm(gemm, context.stream));
                        }
                      }
                      return has_bias ? RunAddBias(context, g, arguments.operand<T>(2), y) : absl::OkStatus();
                    },
                .scratch_bytes = g.pointwise ? 0 : block * g.columns_size() * sizeof(T),
                .needs_workspace = true};
}

// dx = col2im(filter^T * dy).
template <typename T>
absl::StatusOr<Kernel> InputGradKernel(const KernelRequest& request, T) {
  const ConvGeometry g(request.node, request.output().shape, request.operand(1).shape, request.operand(0).shape);
  DirectConvolution direct(ConvShape::InputGrad(g));
  if (IsDirect(g) && g.stride_y == 1 && g.stride_x == 1 && direct.Plan(sizeof(T))) {
    return Kernel{.name = "direct", .run = [=](const KernelArguments& arguments) {
                    return RunDirectConvolution<T>(arguments.device<CudaContext>(), direct, arguments.operand<T>(0),
                                                   arguments.operand<T>(1), nullptr, arguments.output<T>());
                  }};
  }
  GW_RETURN_IF_ERROR(CheckColumns(g.columns_size()));
  const int64_t block = g.pointwise ? g.samples : SamplesPerBlock(g, sizeof(T), g.columns_size());
  const size_t bytes = request.output().byte_size();
  return Kernel{
      .name = g.pointwise ? "gemm" : "gemm+col2im",
      .run =
          [=](const KernelArguments& arguments) {
            const CudaContext& context = arguments.device<CudaContext>();
            T* dx = arguments.output<T>();
            if (bytes == 0) return absl::OkStatus();
            if (g.output_size() == 0 || g.taps() == 0) return context.api->FillAsync(dx, 0, bytes, context.stream);
            T* columns = reinterpret_cast<T*>(arguments.scratch);
            for (int64_t first = 0; first < g.samples; first += block) {
              const int64_t samples = std::min(block, g.samples - first);
              for (int64_t group = 0; group < g.groups; ++group) {
                T* x = dx + first * g.sample_size() + group * g.group_channels() * g.height * g.width;
                CudaGemm gemm = GemmOf<T>(context);
                gemm.transpose_a = true;
                gemm.m = gemm.lda = g.taps();
                gemm.n = gemm.ldb = gemm.ldc = g.pixels();
                gemm.k = g.group_outputs();
                gemm.a = arguments.operand<T>(1) + group * g.group_outputs() * g.taps();
                gemm.b = arguments.operand<T>(0) + first * g.output_size() + group * g.group_outputs() * g.pixels();
                gemm.batch = samples;
                gemm.stride_b = g.output_size();
                gemm.c = g.pointwise ? x : columns;
                gemm.stride_c = g.pointwise ? g.sample_size() : g.columns_size();
                GW_RETURN_IF_ERROR(context.api->Gemm(gemm, context.stream));
                if (g.pointwise) continue;
                const uint32_t total = static_cast<uint32_t>(samples * g.group_channels() * g.height * g.width);
                GW_RETURN_IF_ERROR(Launch(context, "col2im", Col2Im<T>, {BlocksFor(total)}, {kBlock}, 0, Sizes(g),
                                          columns, x, total, Divider(g.width), Divider(g.height),
                                          Divider(g.group_channels())));
              }
            }
            return absl::OkStatus();
          },
      .scratch_bytes = g.pointwise ? 0 : block * g.columns_size() * sizeof(T),
      .needs_workspace = true};
}

// df = dy * columns^T. Each group is one product over all pixels of a block of samples, for which
// both factors are brought into the order [row, sample, pixel]. The products of later blocks are
// added to the first.
template <typename T>
absl::StatusOr<Kernel> FilterGradKernel(const KernelRequest& request, T) {
  const ConvGeometry g(request.node, request.operand(0).shape, request.output().shape, request.operand(1).shape);
  DirectFilterGrad direct(ConvShape::Forward(g));
  if (IsDirect(g) && direct.Plan(sizeof(T))) {
    return Kernel{.name = "direct",
                  .run =
                      [=](const KernelArguments& arguments) {
                        return RunDirectFilterGrad<T>(arguments.device<CudaContext>(), direct, arguments.operand<T>(0),
                                                      arguments.operand<T>(1), reinterpret_cast<T*>(arguments.scratch),
                                                      arguments.output<T>());
                      },
                  .scratch_bytes = direct.scratch_size() * sizeof(T)};
  }
  const int64_t column_size = g.taps() * g.pixels(), gradient_size = g.group_outputs() * g.pixels();
  GW_RETURN_IF_ERROR(CheckColumns(column_size));
  const int64_t block = SamplesPerBlock(g, sizeof(T), std::max(column_size, gradient_size));
  const size_t column_bytes = (block * column_size * sizeof(T) + 255) / 256 * 256;
  const size_t bytes = request.output().byte_size();
  return Kernel{
      .name = "im2col+gemm",
      .run =
          [=](const KernelArguments& arguments) {
            const CudaContext& context = arguments.device<CudaContext>();
            if (bytes == 0) return absl::OkStatus();
            if (g.samples * g.output_size() == 0)
              return context.api->FillAsync(arguments.outputs[0], 0, bytes, context.stream);
            T* columns = reinterpret_cast<T*>(arguments.scratch);
            T* gradients = reinterpret_cast<T*>(arguments.scratch + column_bytes);
            for (int64_t first = 0; first < g.samples; first += block) {
              const int64_t samples = std::min(block, g.samples - first);
              for (int64_t group = 0; group < g.groups; ++group) {
                const T* x =
                    arguments.operand<T>(0) + first * g.sample_size() + group * g.group_channels() * g.height * g.width;
                const T* dy = arguments.operand<T>(1) + first * g.output_size() + group * gradient_size;
                const uint32_t total = static_cast<uint32_t>(samples * column_size);
                GW_RETURN_IF_ERROR(Launch(context, "im2col", Im2Col<T>, {BlocksFor(total)}, {kBlock}, 0, Sizes(g), x,
                                          columns, total, static_cast<uint32_t>(g.pixels()),
                                          static_cast<uint32_t>(samples * g.pixels())));
                const uint32_t gradient_total = static_cast<uint32_t>(samples * gradient_size);
                GW_RETURN_IF_ERROR(Launch(context, "gather_samples", GatherSamples<T>, {BlocksFor(gradient_total)},
                                          {kBlock}, 0, dy, gradients, gradient_total, static_cast<uint32_t>(g.outputs),
                                          Divider(g.pixels()), Divider(samples)));
                CudaGemm gemm = GemmOf<T>(context);
                gemm.transpose_b = true;
                gemm.m = g.group_outputs();
                gemm.n = gemm.ldc = g.taps();
                gemm.k = gemm.lda = gemm.ldb = samples * g.pixels();
                gemm.a = gradients;
                gemm.b = columns;
                gemm.c = arguments.output<T>() + group * g.group_outputs() * g.taps();
                gemm.beta = first == 0 ? 0 : 1;
                GW_RETURN_IF_ERROR(context.api->Gemm(gemm, context.stream));
              }
            }
            return absl::OkStatus();
          },
      .scratch_bytes = column_bytes + block * gradient_size * sizeof(T),
      .needs_workspace = true};
}

}  // namespace

void RegisterConvKernels(KernelRegistry& registry) {
  AddFloating(registry, "Conv2D", [](const KernelRequest& request, auto zero) { return Conv2DKernel(request, zero); });
  AddFloating(registry, "Conv2DInputGrad",
              [](const KernelRequest& request, auto zero) { return InputGradKernel(request, zero); });
  AddFloating(registry, "Conv2DFilterGrad",
              [](const KernelRequest& request, auto zero) { return FilterGradKernel(request, zero); });
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
