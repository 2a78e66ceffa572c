#include "gradweave/runtime/cuda/ops/conv_direct.h"

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/cuda/ops/warp.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

// Outputs whose sums a thread holds in registers: 8, or 1 if a group has only one output (a
// depthwise convolution).
constexpr int kMostOutputs = 8;
constexpr int kPixels = 2;  // Pixels whose sums a thread holds.

int32_t OutputsOfThread(int32_t outputs) { return outputs == 1 ? 1 : kMostOutputs; }

// Calls use(output, number) for each of a thread's outputs. Their numbers are adjacent in shared
// memory and load 16 bytes at a time.
template <int kOutputs, typename T, typename Use>
__device__ void ForOutputs(SharedPointer<T> numbers, Use use) {
  constexpr int n = kOutputs == 1 ? 1 : 16 / static_cast<int>(sizeof(T));
  for (int o = 0; o < kOutputs; o += n) {
    const Pack<T, n> pack = LoadPack<n>(numbers + o);
    for (int k = 0; k < n; ++k) use(o + k, pack.values[k]);
  }
}

// Divisors for index arithmetic in patches and tiles.
struct PatchDividers {
  Divider columns, rows;
  template <typename Plan>
  explicit PatchDividers(const Plan& g) : columns(g.patch_width), rows(g.patch_height) {}
};
struct TileDividers : PatchDividers {
  Divider tiles, tile_columns, outputs, taps;
  TileDividers(const DirectConvolution& g, int32_t of_tiles, int32_t of_tile_columns, int32_t block_outputs)
      : PatchDividers(g), tiles(of_tiles), tile_columns(of_tile_columns), outputs(block_outputs), taps(g.taps()) {}
};

// Loads a patch of one sample into shared memory as [channel][row][column], for some channels. The
// patch may begin outside of x, where it is filled with 0.
template <typename T, typename Plan>
__device__ void LoadPatch(const Plan& g, const PatchDividers& dividers, const T* x, int32_t first_channel,
                          int32_t channels, int32_t first_row, int32_t first_column, SharedPointer<T> patch) {
  const uint32_t image = static_cast<uint32_t>(g.height * g.width);
  x += static_cast<size_t>(first_channel) * image;
  CopyAhead(
      channels * g.patch_height * g.patch_width,
      [&](uint32_t i) {
        uint32_t column = i;
        uint32_t row = dividers.columns.Split(column);
        const uint32_t channel = dividers.rows.Split(row);
        const int32_t from_row = first_row + static_cast<int32_t>(row);
        const int32_t from_column = first_column + static_cast<int32_t>(column);
        const bool inside = from_row >= 0 && from_row < g.height && from_column >= 0 && from_column < g.width;
        return LoadOrZero(x, channel * image + static_cast<uint32_t>(from_row * g.width + from_column), inside);
      },
      [&](uint32_t i, T value) { patch[i] = value; });
}

// Each block computes a tile of pixels of some outputs of one sample. Shared memory holds the
// weights [channel][tap][output], then the patch of x [channel][row][column], both for one block of
// channels. The threads of a warp share their outputs, so they all read the same weight and
// neighbouring pixels.
template <typename T, int kOutputs>
__global__ void __launch_bounds__(256)
    ConvolveTiles(DirectConvolution g, TileDividers dividers, const T* x, const T* filter, const T* bias, T* y) {
  SharedPointer<T> weights = DynamicShared<T>();
  const int32_t block_outputs = g.output_slots * kOutputs;
  const int32_t taps = g.kernel_height * g.kernel_width;
  SharedPointer<T> patch = weights + g.channel_block * taps * block_outputs;
  const int32_t patch_size = g.patch_height * g.patch_width;

  uint32_t tile = blockIdx.x;
  const uint32_t sample = dividers.tiles.Split(tile);
  uint32_t tile_column = tile;
  const uint32_t tile_row = dividers.tile_columns.Split(tile_column);
  const int32_t first_row = static_cast<int32_t>(tile_row) * g.tile_height;
  const int32_t first_column = static_cast<int32_t>(tile_column) * g.tile_width;
  const int32_t output_blocks = (g.outputs + block_outputs - 1) / block_outputs;
  const int32_t group = static_cast<int32_t>(blockIdx.y) / output_blocks;
  const int32_t first_output = static_cast<int32_t>(blockIdx.y) % output_blocks * block_outputs;
  const int32_t slot = static_cast<int32_t>(threadIdx.x) % g.slots;
  const int32_t output_slot = static_cast<int32_t>(threadIdx.x) / g.slots;

  x += (static_cast<size_t>(sample) * g.groups + group) * g.channels * g.height * g.width;
  filter += static_cast<size_t>(group) * g.filter_group;

  // Starts of the thread's pixels in the patch. Pixels beyond the tile compute results that are not
  // stored.
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
    LoadPatch(g, dividers, x, first, channels, first_row * g.stride_y - g.top, first_column * g.stride_x - g.left,
              patch);
    CopyAhead(
        channels * taps * block_outputs,
        [&](uint32_t i) {
          uint32_t output = i;
          uint32_t tap = dividers.outputs.Split(output);
          const uint32_t channel = dividers.taps.Split(tap);
          const uint32_t from_tap = g.flipped ? taps - 1 - tap : tap;
          return LoadOrZero(filter,
                            (first_output + output) * g.filter_output + (first + channel) * g.filter_channel + from_tap,
                            first_output + output < static_cast<uint32_t>(g.outputs));
        },
        [&](uint32_t i, T value) { weights[i] = value; });
    __syncthreads();
    SharedPointer<T> weight = weights + output_slot * kOutputs;
    for (int32_t channel = 0; channel < channels; ++channel) {
      for (int32_t k = 0; k < g.kernel_height; ++k) {
        const SharedPointer<T> from = patch + channel * patch_size + k * g.dilation_y * g.patch_width;
        for (int32_t l = 0; l < g.kernel_width; ++l) {
          T values[kPixels];
          for (int p = 0; p < kPixels; ++p) values[p] = from[start[p] + l * g.dilation_x];
          ForOutputs<kOutputs, T>(weight, [&](int o, T number) {
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

// Sums of kTaps neighbouring taps for all outputs, which a thread accumulates along a row of dy. An
// element of x that one tap reads serves the previous tap at the next column, so kColumns columns
// need only kColumns loads of x.
template <typename T, int kTaps, int kOutputs>
struct TapSums {
  T sums[kTaps][kOutputs] = {};

  template <int kColumns>
  __device__ void AddColumns(SharedPointer<T> x, int32_t stride, SharedPointer<T> gradients,
                             T (&window)[kTaps + kColumns - 1]) {
    for (int c = 0; c < kColumns; ++c) window[kTaps - 1 + c] = x[(kTaps - 1 + c) * stride];
    for (int c = 0; c < kColumns; ++c) {
      ForOutputs<kOutputs, T>(gradients + c * kOutputs, [&](int o, T number) {
        for (int l = 0; l < kTaps; ++l) sums[l][o] = MultiplyAdd(number, window[l + c], sums[l][o]);
      });
    }
    for (int l = 0; l + 1 < kTaps; ++l) window[l] = window[l + kColumns];
  }

  // x points to the first element that the first tap reads. `stride` may differ from 1 only if
  // kTaps is 1.
  __device__ void AddRow(SharedPointer<T> x, int32_t stride, SharedPointer<T> gradients, int32_t columns) {
    constexpr int kStep = 4;
    T window[kTaps + kStep - 1];
    for (int l = 0; l + 1 < kTaps; ++l) window[l] = x[l];
    int32_t column = 0;
    for (; column + kStep <= columns; column += kStep) {
      AddColumns<kStep>(x + column * stride, stride, gradients + column * kOutputs, window);
    }
    for (; column < columns; ++column) {
      T next[kTaps];
      for (int l = 0; l + 1 < kTaps; ++l) next[l] = window[l];
      AddColumns<1>(x + column * stride, stride, gradients + column * kOutputs, next);
      for (int l = 0; l + 1 < kTaps; ++l) window[l] = next[l];
    }
  }
};

// Each block accumulates, over a chunk of samples, the gradients of all taps of some channels for
// some outputs. Each thread has kTaps taps of one row of the kernel and every slices-th row of a
// tile. Shared memory holds dy [pixel][output], then the patch of x, and at the end the sums of the
// threads.
template <typename T, int kTaps, int kOutputs>
__global__ void __launch_bounds__(256)
    FilterGradParts(DirectFilterGrad g, PatchDividers dividers, const T* x, const T* dy, T* parts) {
  const SharedPointer<T> shared = DynamicShared<T>();
  const int32_t tile_pixels = g.tile_height * g.output_width;
  const SharedPointer<T> gradients = shared, patch = gradients + tile_pixels * kOutputs;
  const int32_t patch_size = g.patch_height * g.patch_width;
  const int32_t channel_blocks = (g.channels + g.channel_block - 1) / g.channel_block;
  const int32_t group = static_cast<int32_t>(blockIdx.y) / channel_blocks;
  const int32_t first_channel = static_cast<int32_t>(blockIdx.y) % channel_blocks * g.channel_block;
  const int32_t channels = g.channels - first_channel < g.channel_block ? g.channels - first_channel : g.channel_block;
  const int32_t first_output = static_cast<int32_t>(blockIdx.z) * kOutputs;
  const int32_t kernel = g.kernel_height * g.kernel_width;
  // Places are the runs of taps of all channels.
  const int32_t runs = g.kernel_width / kTaps, places = channels * g.kernel_height * runs;
  const int32_t place = static_cast<int32_t>(threadIdx.x) % places, slice = static_cast<int32_t>(threadIdx.x) / places;
  const int32_t slices = static_cast<int32_t>(blockDim.x) / places;
  const int32_t row_of_taps = place / runs;
  const int32_t from = row_of_taps / g.kernel_height * patch_size +
                       row_of_taps % g.kernel_height * g.dilation_y * g.patch_width +
                       place % runs * kTaps * g.dilation_x;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * g.samples_per_chunk;
  const int64_t end = begin + g.samples_per_chunk < g.samples ? begin + g.samples_per_chunk : g.samples;

  TapSums<T, kTaps, kOutputs> taps;
  for (int64_t sample = begin; sample < end; ++sample) {
    const T* sample_x = x + (static_cast<size_t>(sample) * g.groups + group) * g.channels * g.height * g.width;
    const T* sample_dy =
        dy + (static_cast<size_t>(sample) * g.groups + group) * g.outputs * g.output_height * g.output_width;
    for (int32_t first_row = 0; first_row < g.output_height; first_row += g.tile_height) {
      const int32_t rows = g.output_height - first_row < g.tile_height ? g.output_height - first_row : g.tile_height;
      const int32_t pixels = rows * g.output_width;
      __syncthreads();
      LoadPatch(g, dividers, sample_x, first_channel, channels, first_row * g.stride_y - g.top, -g.left, patch);
      // Neighbouring threads read neighbouring pixels.
      for (int32_t output = 0; output < kOutputs; ++output) {
        const bool present = first_output + output < g.outputs;
        const T* from_output =
            sample_dy + static_cast<size_t>(present ? first_output + output : 0) * g.output_height * g.output_width +
            first_row * g.output_width;
        CopyAhead(
            pixels, [&](uint32_t pixel) { return LoadOrZero(from_output, pixel, present); },
            [&](uint32_t pixel, T value) { gradients[pixel * kOutputs + output] = value; });
      }
      __syncthreads();
      if (slice >= slices) continue;
      for (int32_t row = slice; row < rows; row += slices) {
        taps.AddRow(patch + from + row * g.stride_y * g.patch_width, g.stride_x,
                    gradients + row * g.output_width * kOutputs, g.output_width);
      }
    }
  }
  // Add the slices of each tap in order, for some taps of a run at a time. The sums are laid out as
  // [tap of the round][output][thread].
  const size_t filter_size = static_cast<size_t>(g.groups) * g.outputs * g.channels * kernel;
  const int32_t threads = static_cast<int32_t>(blockDim.x);
  // Unrolled, so that the sums stay in registers: an index that varies puts an array in local memory.
  GRADWEAVE_UNROLL
  for (int l = 0; l < kTaps; ++l) {
    const int32_t of_round = l % g.taps_per_round;
    if (of_round == 0) __syncthreads();
    if (slice < slices) {
      GRADWEAVE_UNROLL
      for (int o = 0; o < kOutputs; ++o) shared[(of_round * kOutputs + o) * threads + threadIdx.x] = taps.sums[l][o];
    }
    if (of_round + 1 != g.taps_per_round && l + 1 != kTaps) continue;
    __syncthreads();
    for (int32_t i = threadIdx.x; i < (of_round + 1) * kOutputs * places; i += threads) {
      const int32_t of_place = i % places, o = i / places % kOutputs, tap = i / places / kOutputs;
      if (first_output + o >= g.outputs) continue;
      const SharedPointer<T> from_slices = shared + (tap * kOutputs + o) * threads + of_place;
      T sum = 0;
      for (int32_t k = 0; k < slices; ++k) sum += from_slices[k * places];
      const size_t output = static_cast<size_t>(group) * g.outputs + first_output + o;
      parts[blockIdx.x * filter_size + (output * g.channels + first_channel) * kernel + of_place * kTaps + l -
            of_round + tap] = sum;
    }
  }
}

// Adds the parts of each element in order. kShares threads share an element to hide the latency of
// loads.
constexpr int kShares = 8;
template <typename T>
__global__ void __launch_bounds__(kBlock) SumParts(const T* parts, T* y, uint32_t size, int32_t count) {
  constexpr uint32_t kElements = kBlock / kShares;
  GRADWEAVE_SHARED(T, sums, [kShares][kElements]);
  const uint32_t element = threadIdx.x % kElements, share = threadIdx.x / kElements;
  const uint32_t i = blockIdx.x * kElements + element;
  const int32_t per_share = (count + kShares - 1) / kShares;
  const int32_t begin = static_cast<int32_t>(share) * per_share;
  const int32_t end = begin + per_share < count ? begin + per_share : count;
  T sum = 0;
  if (i < size) {
    constexpr int32_t kLoads = 8;
    const T* from = parts + i;
    int32_t k = begin;
    for (; k + kLoads <= end; k += kLoads) {
      T next[kLoads];
      for (int32_t j = 0; j < kLoads; ++j) next[j] = from[static_cast<size_t>(k + j) * size];
      for (int32_t j = 0; j < kLoads; ++j) sum += next[j];
    }
    for (; k < end; ++k) sum += from[static_cast<size_t>(k) * size];
  }
  sums[share][element] = sum;
  __syncthreads();
  if (share != 0 || i >= size) return;
  for (int k = 1; k < kShares; ++k) sum += sums[k][element];
  y[i] = sum;
}

}  // namespace

bool DirectConvolution::Plan(size_t element_bytes) {
  if (samples == 0 || outputs == 0 || output_height == 0 || output_width == 0 || height == 0 || width == 0)
    return false;
  const int32_t taps = kernel_height * kernel_width;
  // Use as many threads along pixels as a tile needs, in whole warps, and tiles of equal height.
  tile_width = std::min(output_width, 32);
  const int32_t most_rows = std::max(1, 256 * kPixels / tile_width);
  tile_height = DivideUp(output_height, DivideUp(output_height, most_rows));
  for (;; tile_height = DivideUp(tile_height, 2)) {
    slots = DivideUp(DivideUp(tile_height * tile_width, kPixels), 32) * 32;
    output_slots = std::min(std::max(1, 256 / slots), DivideUp(outputs, OutputsOfThread(outputs)));
    patch_height = (tile_height - 1) * stride_y + (kernel_height - 1) * dilation_y + 1;
    patch_width = (tile_width - 1) * stride_x + (kernel_width - 1) * dilation_x + 1;
    const size_t per_channel = (static_cast<size_t>(patch_height) * patch_width +
                                static_cast<size_t>(taps) * output_slots * OutputsOfThread(outputs)) *
                               element_bytes;
    channel_block =
        static_cast<int32_t>(std::min<size_t>(std::max(channels, 1), size_t{kConvSharedBytes} / per_channel));
    if (channel_block > 0) break;
    if (tile_height == 1) return false;
  }
  channel_block = DivideUp(std::max(channels, 1), DivideUp(std::max(channels, 1), channel_block));
  const int64_t tiles = int64_t{DivideUp(output_height, tile_height)} * DivideUp(output_width, tile_width);
  const int64_t output_blocks = int64_t{groups} * DivideUp(outputs, output_slots * OutputsOfThread(outputs));
  return samples * tiles <= INT32_MAX && output_blocks <= 65535;
}

template <typename T>
absl::Status RunDirectConvolution(const CudaContext& context, const DirectConvolution& g, const T* x, const T* filter,
                                  const T* bias, T* y) {
  const int32_t tile_columns = DivideUp(g.output_width, g.tile_width);
  const int32_t tiles = DivideUp(g.output_height, g.tile_height) * tile_columns;
  const int32_t block_outputs = g.output_slots * OutputsOfThread(g.outputs);
  const size_t shared =
      sizeof(T) * g.channel_block * (g.kernel_height * g.kernel_width * block_outputs + g.patch_height * g.patch_width);
  auto kernel = g.outputs == 1 ? ConvolveTiles<T, 1> : ConvolveTiles<T, kMostOutputs>;
  return Launch(
      context, "convolve_tiles", kernel,
      {static_cast<unsigned>(g.samples * tiles), static_cast<unsigned>(g.groups * DivideUp(g.outputs, block_outputs))},
      {static_cast<unsigned>(g.slots * g.output_slots)}, shared, g, TileDividers(g, tiles, tile_columns, block_outputs),
      x, filter, bias, y);
}
template absl::Status RunDirectConvolution(const CudaContext&, const DirectConvolution&, const float*, const float*,
                                           const float*, float*);
template absl::Status RunDirectConvolution(const CudaContext&, const DirectConvolution&, const double*, const double*,
                                           const double*, double*);

bool DirectFilterGrad::Plan(size_t element_bytes) {
  if (samples == 0 || filter_size() == 0 || output_height == 0 || output_width == 0 || height == 0 || width == 0)
    return false;
  constexpr int32_t kThreads = 256;
  const int32_t step = OutputsOfThread(outputs);
  const bool slides = stride_x == 1 && dilation_x == 1;
  taps_of_thread = slides && (kernel_width == 3 || kernel_width == 5 || kernel_width == 7) ? kernel_width : 1;
  const int32_t places = kernel_height * kernel_width / taps_of_thread;  // Per channel.
  if (places > kThreads) return false;
  patch_width = (output_width - 1) * stride_x + (kernel_width - 1) * dilation_x + 1;
  for (tile_height = output_height;; tile_height = DivideUp(tile_height, 2)) {
    patch_height = (tile_height - 1) * stride_y + (kernel_height - 1) * dilation_y + 1;
    const size_t gradients = static_cast<size_t>(tile_height) * output_width * step * element_bytes;
    if (gradients < size_t{kConvSharedBytes}) {
      const size_t fit =
          (size_t{kConvSharedBytes} - gradients) / (static_cast<size_t>(patch_height) * patch_width * element_bytes);
      channel_block = static_cast<int32_t>(
          std::min<size_t>({static_cast<size_t>(channels), fit, static_cast<size_t>(kThreads / places)}));
      if (channel_block > 0) break;
    }
    if (tile_height == 1) return false;
  }
  // Give all blocks equal work.
  channel_block = DivideUp(channels, DivideUp(channels, channel_block));
  // Use all remaining threads along rows.
  const int32_t slices = std::min(kThreads / (channel_block * places), tile_height);
  threads = DivideUp(channel_block * places * slices, 32) * 32;
  taps_per_round = std::min<int32_t>(
      taps_of_thread,
      static_cast<int32_t>(size_t{kConvSharedBytes} / (static_cast<size_t>(threads) * step * element_bytes)));
  // Use enough chunks to fill a large GPU several times.
  const int64_t blocks = int64_t{groups} * DivideUp(channels, channel_block) * DivideUp(outputs, step);
  if (int64_t{groups} * DivideUp(channels, channel_block) > 65535 || DivideUp(outputs, step) > 65535) return false;
  const int64_t wanted = std::clamp<int64_t>(132 * 4 / blocks, 1, samples);
  samples_per_chunk = static_cast<int32_t>((samples + wanted - 1) / wanted);
  chunks = static_cast<int32_t>((samples + samples_per_chunk - 1) / samples_per_chunk);
  return true;
}

namespace {

template <typename T, int kTaps>
auto FilterGradKernel(int32_t outputs) {
  return outputs == 1 ? FilterGradParts<T, kTaps, 1> : FilterGradParts<T, kTaps, kMostOutputs>;
}

}  // namespace

template <typename T>
absl::Status RunDirectFilterGrad(const CudaContext& context, const DirectFilterGrad& g, const T* x, const T* dy,
                                 T* scratch, T* df) {
  const int32_t step = OutputsOfThread(g.outputs);
  const size_t operands =
      static_cast<size_t>(g.tile_height) * g.output_width * step + g.channel_block * g.patch_height * g.patch_width;
  const size_t sums = static_cast<size_t>(g.threads) * g.taps_per_round * step;
  auto kernel = g.taps_of_thread == 3   ? FilterGradKernel<T, 3>(g.outputs)
                : g.taps_of_thread == 5 ? FilterGradKernel<T, 5>(g.outputs)
                : g.taps_of_thread == 7 ? FilterGradKernel<T, 7>(g.outputs)
                                        : FilterGradKernel<T, 1>(g.outputs);
  GW_RETURN_IF_ERROR(Launch(
      context, "filter_grad_parts", kernel,
      {static_cast<unsigned>(g.chunks), static_cast<unsigned>(g.groups * DivideUp(g.channels, g.channel_block)),
       static_cast<unsigned>(DivideUp(g.outputs, step))},
      {static_cast<unsigned>(g.threads)}, std::max(operands, sums) * sizeof(T), g, PatchDividers(g), x, dy, scratch));
  const int64_t size = g.filter_size();
  return Launch(context, "sum_parts", SumParts<T>,
                {static_cast<unsigned>((size + kBlock / kShares - 1) / (kBlock / kShares))}, {kBlock}, 0,
                static_cast<const T*>(scratch), df, static_cast<uint32_t>(size), g.chunks);
}
template absl::Status RunDirectFilterGrad(const CudaContext&, const DirectFilterGrad&, const float*, const float*,
                                          float*, float*);
template absl::Status RunDirectFilterGrad(const CudaContext&, const DirectFilterGrad&, const double*, const double*,
                                          double*, double*);

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
