#include "gradweave/runtime/cuda/conv_direct.h"

#include "gradweave/runtime/cuda/device.h"
#include "gradweave/runtime/cuda/factories.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

// Outputs whose sums a thread has in registers: 8, or 1 where a group has no more (a depthwise convolution).
constexpr int kMostOutputs = 8;
constexpr int kPixels = 2;                 // Pixels, as well.
constexpr size_t kSharedBytes = 48 << 10;  // Of a block: more needs an opt-in, and leaves fewer blocks side by side.

int32_t OutputsOfThread(int32_t outputs) { return outputs == 1 ? 1 : kMostOutputs; }

int32_t CeilDivide(int32_t a, int32_t b) { return (a + b - 1) / b; }

// A thread's outputs' numbers, which lie side by side in shared memory, 16 bytes at a time; calls use(output, number).
template <int kOutputs, typename T, typename Use>
__device__ void ForOutputs(const T* numbers, Use use) {
  constexpr int n = kOutputs == 1 ? 1 : 16 / static_cast<int>(sizeof(T));
  for (int o = 0; o < kOutputs; o += n) {
    const Pack<T, n> pack = LoadPack<n>(numbers + o);
    for (int k = 0; k < n; ++k) use(o + k, pack.values[k]);
  }
}

// Brings a patch of one sample, from a row and a column that may be outside of it, where it is 0, to shared memory:
// [channel][row][column] of some channels.
template <typename T, typename Plan>
__device__ void LoadPatch(const Plan& g, Divider patch_columns, Divider patch_rows, const T* x, int32_t first_channel,
                          int32_t channels, int32_t first_row, int32_t first_column, T* patch) {
  for (int32_t i = threadIdx.x; i < channels * g.patch_height * g.patch_width; i += blockDim.x) {
    uint32_t column = i;
    uint32_t row = patch_columns.Split(column);
    const uint32_t channel = patch_rows.Split(row);
    const int32_t from_row = first_row + static_cast<int32_t>(row);
    const int32_t from_column = first_column + static_cast<int32_t>(column);
    const bool inside = from_row >= 0 && from_row < g.height && from_column >= 0 && from_column < g.width;
    patch[i] =
        inside ? x[(static_cast<size_t>(first_channel + channel) * g.height + from_row) * g.width + from_column] : T(0);
  }
}

// A block computes a tile of pixels of some outputs of one sample. Shared memory: weights [channel][tap][output], then
// the patch of x [channel][row][column], both of a block of channels. A warp's threads have the same outputs, so that
// all of them read one weight, and neighbouring pixels.
template <typename T, int kOutputs>
__global__ void __launch_bounds__(256)
    ConvolveTiles(DirectConvolution g, Divider tiles, Divider tile_columns, Divider patch_columns, Divider patch_rows,
                  const T* x, const T* filter, const T* bias, T* y) {
  T* weights = DynamicShared<T>();
  const int32_t block_outputs = g.output_slots * kOutputs;
  const int32_t taps = g.kernel_height * g.kernel_width;
  T* patch = weights + g.channel_block * taps * block_outputs;
  const int32_t patch_size = g.patch_height * g.patch_width;

  uint32_t tile = blockIdx.x;
  const uint32_t sample = tiles.Split(tile);
  uint32_t tile_column = tile;
  const uint32_t tile_row = tile_columns.Split(tile_column);
  const int32_t first_row = static_cast<int32_t>(tile_row) * g.tile_height;
  const int32_t first_column = static_cast<int32_t>(tile_column) * g.tile_width;
  const int32_t output_blocks = (g.outputs + block_outputs - 1) / block_outputs;
  const int32_t group = static_cast<int32_t>(blockIdx.y) / output_blocks;
  const int32_t first_output = static_cast<int32_t>(blockIdx.y) % output_blocks * block_outputs;
  const int32_t slot = static_cast<int32_t>(threadIdx.x) % g.slots;
  const int32_t output_slot = static_cast<int32_t>(threadIdx.x) / g.slots;

  x += (static_cast<size_t>(sample) * g.groups + group) * g.channels * g.height * g.width;
  filter += static_cast<size_t>(group) * g.filter_group;

  // Where in the patch the thread's pixels begin; pixels beyond the tile compute what nobody stores.
  int32_t pixel_row[kPixels], pixel_column[kPixels], start[kPixels];
  for (int p = 0; p < kPixels; ++p) {
    const int32_t pixel = slot + p * g.slots;
    pixel_row[p] = pixel / g.tile_width;
    pixel_column[p] = pixel % g.tile_width;
    start[p] =
        pixel_row[p] < g.tile_height ? pixel_row[p] * g.stride_y * g.patch_width + pixel_column[p] * g.stride_x : 0;
  }
  T sums[kPixels][kOutputs] = {};
  for (int32_t first = 0; first < g.channels; first += g.channel_block) {
    const int32_t channels = g.channels - first < g.channel_block ? g.channels - first : g.channel_block;
    __syncthreads();
    LoadPatch(g, patch_columns, patch_rows, x, first, channels, first_row * g.stride_y - g.top,
              first_column * g.stride_x - g.left, patch);
    for (int32_t i = threadIdx.x; i < channels * taps * block_outputs; i += blockDim.x) {
      const int32_t output = i % block_outputs, tap = i / block_outputs % taps, channel = i / block_outputs / taps;
      const int32_t from_tap = g.flipped ? taps - 1 - tap : tap;
      weights[i] = first_output + output < g.outputs
                       ? filter[static_cast<size_t>(first_output + output) * g.filter_output +
                                static_cast<size_t>(first + channel) * g.filter_channel + from_tap]
                       : T(0);
    }
    __syncthreads();
    const T* weight = weights + output_slot * kOutputs;
    for (int32_t channel = 0; channel < channels; ++channel) {
      for (int32_t k = 0; k < g.kernel_height; ++k) {
        const T* from = patch + channel * patch_size + k * g.dilation_y * g.patch_width;
        for (int32_t l = 0; l < g.kernel_width; ++l) {
          T values[kPixels];
          for (int p = 0; p < kPixels; ++p) values[p] = from[start[p] + l * g.dilation_x];
          ForOutputs<kOutputs>(weight, [&](int o, T number) {
            for (int p = 0; p < kPixels; ++p) sums[p][o] = MultiplyAdd(number, values[p], sums[p][o]);
          });
          weight += block_outputs;
        }
      }
    }
  }
  for (int p = 0; p < kPixels; ++p) {
    const int32_t row = first_row + pixel_row[p], column = first_column + pixel_column[p];
    if (pixel_row[p] >= g.tile_height || row >= g.output_height || column >= g.output_width) continue;
    for (int o = 0; o < kOutputs; ++o) {
      const int32_t output = first_output + output_slot * kOutputs + o;
      if (output >= g.outputs) break;
      const size_t channel = static_cast<size_t>(group) * g.outputs + output;
      const T value = bias == nullptr ? sums[p][o] : sums[p][o] + bias[channel];
      y[((static_cast<size_t>(sample) * g.groups * g.outputs + channel) * g.output_height + row) * g.output_width +
        column] = value;
    }
  }
}

// A block adds up, over a chunk of samples, the gradients of all taps of some channels for some outputs. Each thread
// has one tap, and every slices-th pixel of a tile of rows. Shared memory: dy [pixel][output], then the patch of x.
template <typename T, int kOutputs>
__global__ void __launch_bounds__(256)
    FilterGradParts(DirectFilterGrad g, Divider patch_columns, Divider patch_rows, const T* x, const T* dy, T* parts) {
  T* gradients = DynamicShared<T>();
  const int32_t tile_pixels = g.tile_height * g.output_width;
  T* patch = gradients + tile_pixels * kOutputs;
  const int32_t patch_size = g.patch_height * g.patch_width;
  const int32_t channel_blocks = (g.channels + g.channel_block - 1) / g.channel_block;
  const int32_t group = static_cast<int32_t>(blockIdx.y) / channel_blocks;
  const int32_t first_channel = static_cast<int32_t>(blockIdx.y) % channel_blocks * g.channel_block;
  const int32_t channels = g.channels - first_channel < g.channel_block ? g.channels - first_channel : g.channel_block;
  const int32_t first_output = static_cast<int32_t>(blockIdx.z) * kOutputs;
  const int32_t kernel = g.kernel_height * g.kernel_width;
  const int32_t taps = channels * kernel, slices = static_cast<int32_t>(blockDim.x) / taps;
  const int32_t tap = static_cast<int32_t>(threadIdx.x) % taps, slice = static_cast<int32_t>(threadIdx.x) / taps;
  const int32_t from_tap = tap / kernel * patch_size + tap % kernel / g.kernel_width * g.dilation_y * g.patch_width +
                           tap % g.kernel_width * g.dilation_x;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * g.samples_per_chunk;
  const int64_t end = begin + g.samples_per_chunk < g.samples ? begin + g.samples_per_chunk : g.samples;

  T sums[kOutputs] = {};
  for (int64_t sample = begin; sample < end; ++sample) {
    const T* sample_x = x + (static_cast<size_t>(sample) * g.groups + group) * g.channels * g.height * g.width;
    const T* sample_dy =
        dy + (static_cast<size_t>(sample) * g.groups + group) * g.outputs * g.output_height * g.output_width;
    for (int32_t first_row = 0; first_row < g.output_height; first_row += g.tile_height) {
      __syncthreads();
      LoadPatch(g, patch_columns, patch_rows, sample_x, first_channel, channels, first_row * g.stride_y - g.top,
                -g.left, patch);
      // Neighbouring threads read neighbouring pixels.
      for (int32_t i = threadIdx.x; i < tile_pixels * kOutputs; i += blockDim.x) {
        const int32_t output = i / tile_pixels, pixel = i % tile_pixels;
        const int32_t at = first_row * g.output_width + pixel;
        const bool inside = first_output + output < g.outputs && at < g.output_height * g.output_width;
        gradients[pixel * kOutputs + output] =
            inside ? sample_dy[static_cast<size_t>(first_output + output) * g.output_height * g.output_width + at]
                   : T(0);
      }
      __syncthreads();
      if (slice >= slices) continue;
      for (int32_t pixel = slice; pixel < tile_pixels; pixel += slices) {
        const int32_t row = pixel / g.output_width, column = pixel % g.output_width;
        const T value = patch[from_tap + row * g.stride_y * g.patch_width + column * g.stride_x];
        ForOutputs<kOutputs>(gradients + pixel * kOutputs,
                             [&](int o, T number) { sums[o] = MultiplyAdd(number, value, sums[o]); });
      }
    }
  }
  // The slices of each tap, in order; one output at a time, in the place of dy.
  const size_t filter_size = static_cast<size_t>(g.groups) * g.outputs * g.channels * kernel;
  for (int o = 0; o < kOutputs; ++o) {
    __syncthreads();
    if (slice < slices) gradients[slice * taps + tap] = sums[o];
    __syncthreads();
    if (slice != 0 || first_output + o >= g.outputs) continue;
    T sum = 0;
    for (int32_t i = 0; i < slices; ++i) sum += gradients[i * taps + tap];
    const size_t output = static_cast<size_t>(group) * g.outputs + first_output + o;
    parts[blockIdx.x * filter_size + (output * g.channels + first_channel) * kernel + tap] = sum;
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock) SumParts(const T* parts, T* y, uint32_t size, int32_t count) {
  for (uint32_t i = GlobalThread(); i < size; i += GlobalThreads()) {
    T sum = 0;
    for (int32_t k = 0; k < count; ++k) sum += parts[static_cast<size_t>(k) * size + i];
    y[i] = sum;
  }
}

template <typename Plan>
Plan SizesOf(const ConvGeometry& g, Plan plan) {
  plan.channels = static_cast<int32_t>(g.group_channels());
  plan.outputs = static_cast<int32_t>(g.group_outputs());
  plan.groups = static_cast<int32_t>(g.groups);
  plan.height = static_cast<int32_t>(g.height);
  plan.width = static_cast<int32_t>(g.width);
  plan.kernel_height = static_cast<int32_t>(g.kernel_height);
  plan.kernel_width = static_cast<int32_t>(g.kernel_width);
  plan.output_height = static_cast<int32_t>(g.output_height);
  plan.output_width = static_cast<int32_t>(g.output_width);
  plan.stride_y = static_cast<int32_t>(g.stride_y);
  plan.stride_x = static_cast<int32_t>(g.stride_x);
  plan.dilation_y = static_cast<int32_t>(g.dilation_y);
  plan.dilation_x = static_cast<int32_t>(g.dilation_x);
  plan.top = static_cast<int32_t>(g.top);
  plan.left = static_cast<int32_t>(g.left);
  plan.samples = g.samples;
  return plan;
}

}  // namespace

DirectConvolution DirectConvolution::Forward(const ConvGeometry& g) {
  DirectConvolution plan = SizesOf(g, DirectConvolution{});
  plan.filter_group = static_cast<int32_t>(g.group_outputs() * g.taps());
  plan.filter_output = static_cast<int32_t>(g.taps());
  plan.filter_channel = static_cast<int32_t>(g.kernel_height * g.kernel_width);
  plan.flipped = false;
  return plan;
}

// dx[y] = sum over taps k of filter[k] * dy[y + top - k*dilation]: a convolution of dy with the taps in opposite order
// and so much padding that its first window ends where x begins.
DirectConvolution DirectConvolution::InputGrad(const ConvGeometry& g) {
  DirectConvolution plan = Forward(g);
  std::swap(plan.channels, plan.outputs);
  std::swap(plan.height, plan.output_height);
  std::swap(plan.width, plan.output_width);
  std::swap(plan.filter_output, plan.filter_channel);
  plan.top = plan.dilation_y * (plan.kernel_height - 1) - plan.top;
  plan.left = plan.dilation_x * (plan.kernel_width - 1) - plan.left;
  plan.flipped = true;
  return plan;
}

bool DirectConvolution::Plan(size_t element_bytes) {
  if (samples == 0 || outputs == 0 || output_height == 0 || output_width == 0) return false;
  const int32_t taps = kernel_height * kernel_width;
  // As many threads along pixels as a tile takes, in whole warps; tiles of equal height.
  tile_width = std::min(output_width, 32);
  const int32_t most_rows = std::max(1, 256 * kPixels / tile_width);
  tile_height = CeilDivide(output_height, CeilDivide(output_height, most_rows));
  for (;; tile_height = CeilDivide(tile_height, 2)) {
    slots = CeilDivide(CeilDivide(tile_height * tile_width, kPixels), 32) * 32;
    output_slots = std::min(std::max(1, 256 / slots), CeilDivide(outputs, OutputsOfThread(outputs)));
    patch_height = (tile_height - 1) * stride_y + (kernel_height - 1) * dilation_y + 1;
    patch_width = (tile_width - 1) * stride_x + (kernel_width - 1) * dilation_x + 1;
    const size_t per_channel = (static_cast<size_t>(patch_height) * patch_width +
                                static_cast<size_t>(taps) * output_slots * OutputsOfThread(outputs)) *
                               element_bytes;
    channel_block = static_cast<int32_t>(std::min<size_t>(std::max(channels, 1), kSharedBytes / per_channel));
    if (channel_block > 0) break;
    if (tile_height == 1) return false;
  }
  const int64_t tiles = int64_t{CeilDivide(output_height, tile_height)} * CeilDivide(output_width, tile_width);
  const int64_t output_blocks = int64_t{groups} * CeilDivide(outputs, output_slots * OutputsOfThread(outputs));
  return samples * tiles <= INT32_MAX && output_blocks <= 65535;
}

template <typename T>
absl::Status RunDirectConvolution(const CudaContext& context, const DirectConvolution& g, const T* x, const T* filter,
                                  const T* bias, T* y) {
  const int32_t tile_columns = CeilDivide(g.output_width, g.tile_width);
  const int32_t tiles = CeilDivide(g.output_height, g.tile_height) * tile_columns;
  const int32_t block_outputs = g.output_slots * OutputsOfThread(g.outputs);
  const size_t shared =
      sizeof(T) * g.channel_block * (g.kernel_height * g.kernel_width * block_outputs + g.patch_height * g.patch_width);
  auto kernel = g.outputs == 1 ? ConvolveTiles<T, 1> : ConvolveTiles<T, kMostOutputs>;
  return Launch(context, "convolve_tiles", kernel,
                {static_cast<unsigned>(g.samples * tiles),
                 static_cast<unsigned>(g.groups * CeilDivide(g.outputs, block_outputs))},
                {static_cast<unsigned>(g.slots * g.output_slots)}, shared, g, Divider(tiles), Divider(tile_columns),
                Divider(g.patch_width), Divider(g.patch_height), x, filter, bias, y);
}
template absl::Status RunDirectConvolution(const CudaContext&, const DirectConvolution&, const float*, const float*,
                                           const float*, float*);
template absl::Status RunDirectConvolution(const CudaContext&, const DirectConvolution&, const double*, const double*,
                                           const double*, double*);

DirectFilterGrad::DirectFilterGrad(const ConvGeometry& g) { *this = SizesOf(g, *this); }

bool DirectFilterGrad::Plan(size_t element_bytes) {
  if (samples == 0 || filter_size() == 0 || output_height == 0 || output_width == 0) return false;
  const int32_t kernel = kernel_height * kernel_width;
  constexpr int32_t kThreads = 256;
  if (kernel > kThreads) return false;
  patch_width = (output_width - 1) * stride_x + (kernel_width - 1) * dilation_x + 1;
  for (tile_height = output_height;; tile_height = CeilDivide(tile_height, 2)) {
    patch_height = (tile_height - 1) * stride_y + (kernel_height - 1) * dilation_y + 1;
    // At the end, the place of dy holds a sum of each thread.
    const size_t gradients = static_cast<size_t>(tile_height) * output_width * OutputsOfThread(outputs);
    const size_t bytes = std::max<size_t>(gradients, kThreads) * element_bytes;
    if (bytes < kSharedBytes) {
      const size_t fit = (kSharedBytes - bytes) / (static_cast<size_t>(patch_height) * patch_width * element_bytes);
      channel_block = static_cast<int32_t>(
          std::min<size_t>({static_cast<size_t>(channels), fit, static_cast<size_t>(kThreads / kernel)}));
      if (channel_block > 0) break;
    }
    if (tile_height == 1) return false;
  }
  // Chunks enough to fill a large GPU several times.
  const int64_t blocks =
      int64_t{groups} * CeilDivide(channels, channel_block) * CeilDivide(outputs, OutputsOfThread(outputs));
  if (int64_t{groups} * CeilDivide(channels, channel_block) > 65535 ||
      CeilDivide(outputs, OutputsOfThread(outputs)) > 65535)
    return false;
  const int64_t wanted = std::clamp<int64_t>(132 * 4 / blocks, 1, samples);
  samples_per_chunk = static_cast<int32_t>((samples + wanted - 1) / wanted);
  chunks = static_cast<int32_t>((samples + samples_per_chunk - 1) / samples_per_chunk);
  return true;
}

template <typename T>
absl::Status RunDirectFilterGrad(const CudaContext& context, const DirectFilterGrad& g, const T* x, const T* dy,
                                 T* scratch, T* df) {
  constexpr unsigned kThreads = 256;
  const int32_t dy_size = std::max<int32_t>(g.tile_height * g.output_width * OutputsOfThread(g.outputs), kThreads);
  const size_t shared = sizeof(T) * (dy_size + g.channel_block * g.patch_height * g.patch_width);
  auto kernel = g.outputs == 1 ? FilterGradParts<T, 1> : FilterGradParts<T, kMostOutputs>;
  GW_RETURN_IF_ERROR(Launch(
      context, "filter_grad_parts", kernel,
      {static_cast<unsigned>(g.chunks), static_cast<unsigned>(g.groups * CeilDivide(g.channels, g.channel_block)),
       static_cast<unsigned>(CeilDivide(g.outputs, OutputsOfThread(g.outputs)))},
      {kThreads}, shared, g, Divider(g.patch_width), Divider(g.patch_height), x, dy, scratch));
  return Launch(context, "sum_parts", SumParts<T>, {BlocksFor(g.filter_size())}, {kBlock}, 0,
                static_cast<const T*>(scratch), df, static_cast<uint32_t>(g.filter_size()), g.chunks);
}
template absl::Status RunDirectFilterGrad(const CudaContext&, const DirectFilterGrad&, const float*, const float*,
                                          float*, float*);
template absl::Status RunDirectFilterGrad(const CudaContext&, const DirectFilterGrad&, const double*, const double*,
                                          double*, double*);

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
