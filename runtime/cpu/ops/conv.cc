#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cpu/conv/conv_kernels.h"
#include "gradweave/runtime/cpu/conv/depthwise.h"
#include "gradweave/runtime/cpu/conv/winograd.h"
#include "gradweave/runtime/cpu/conv/winograd_filter_grad.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/ops/choices.h"
#include "gradweave/runtime/cpu/product/gemm.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"
#include "gradweave/runtime/cpu/tile/blocks.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

constexpr int64_t kMostChunks = 64;    // Chunks of independent samples.
constexpr int64_t kMostPartials = 16;  // Chunks of samples with partial sums.

// Calls row(tap row of columns, row of x or -1 if outside, begin, end) for each tap and output row.
// Output pixels [begin, end) read inside x.
template <typename Row>
void ForTapRows(const ConvGeometry& g, Row row) {
  int64_t tap = 0;
  for (int64_t c = 0; c < g.group_channels(); ++c) {
    for (int64_t k = 0; k < g.kernel_height; ++k) {
      for (int64_t l = 0; l < g.kernel_width; ++l, ++tap) {
        // Column j reads x at j*stride + shift.
        const int64_t shift = l * g.dilation_x - g.left;
        const int64_t begin = std::min(g.output_width, shift >= 0 ? 0 : (-shift + g.stride_x - 1) / g.stride_x);
        const int64_t room = g.width - 1 - shift;
        const int64_t end = std::max(begin, room < 0 ? 0 : std::min(g.output_width, room / g.stride_x + 1));
        for (int64_t i = 0; i < g.output_height; ++i) {
          const int64_t y = i * g.stride_y + k * g.dilation_y - g.top;
          const bool inside = y >= 0 && y < g.height;
          row(tap * g.pixels() + i * g.output_width, inside ? (c * g.height + y) * g.width + shift : -1, inside, begin,
              end);
        }
      }
    }
  }
}

// Writes the im2col matrix [taps, pixels] of one group of a sample (Chellapilla et al., "High
// performance convolutional neural networks for document processing", 2006, section 3).
template <typename T>
void Im2Col(const ConvGeometry& g, const T* x, T* columns) {
  ForTapRows(g, [&](int64_t to, int64_t from, bool inside, int64_t begin, int64_t end) {
    T* row = columns + to;
    if (!inside) {
      std::fill(row, row + g.output_width, T(0));
      return;
    }
    std::fill(row, row + begin, T(0));
    if (g.stride_x == 1) {
      std::memcpy(row + begin, x + from + begin, (end - begin) * sizeof(T));
    } else {
      for (int64_t j = begin; j < end; ++j) row[j] = x[from + j * g.stride_x];
    }
    std::fill(row + end, row + g.output_width, T(0));
  });
}

// Adds im2col columns back to the elements that Im2Col read.
template <typename T>
void Col2Im(const ConvGeometry& g, const T* columns, T* x) {
  ForTapRows(g, [&](int64_t from, int64_t to, bool inside, int64_t begin, int64_t end) {
    if (!inside) return;
    const T* row = columns + from;
    if (g.stride_x == 1) {
      T* target = x + to;
      for (int64_t j = begin; j < end; ++j) target[j] += row[j];
    } else {
      for (int64_t j = begin; j < end; ++j) x[to + j * g.stride_x] += row[j];
    }
  });
}

// Each thread has an im2col matrix of its own in scratch.
template <typename T>
size_t ColumnBytes(const KernelRequest& request, const ConvGeometry& g) {
  return ScratchBytes(request.threads, g.columns_size(), sizeof(T));
}
template <typename T>
T* ColumnsOf(const KernelArguments& arguments, const ConvGeometry& g, int thread) {
  return reinterpret_cast<T*>(arguments.scratch) + thread * g.columns_size();
}

// Limits of the data that should stay in caches: a padded sample of x, and the taps of some
// channels.
constexpr int64_t kMostDirectFloats = 64 << 10, kMostDirectTaps = 4096;
// Moved floats that take as long as a float of the padded x, whose rows are short, and as a weight
// that is packed. Plans that train pack weights in each run, others only once: this is the mean.
constexpr double kMovesPerPadded = 4, kMovesPerWeight = 6;

// Returns false for a convolution that exceeds these limits, in which case the direct forms must
// not even count its parts. Sizes may be any that shape inference takes.
bool MayBeDirect(const ConvGeometry& g) {
  constexpr int64_t kMostOutputs = 1 << 20;
  if (g.output_size() == 0 || g.taps() == 0 || g.pointwise) return false;
  const int64_t rows = (g.output_height - 1) * g.stride_y + (g.kernel_height - 1) * g.dilation_y + 1;
  const int64_t columns = (g.output_width - 1) * g.stride_x + (g.kernel_width - 1) * g.dilation_x + 1;
  return std::max({g.channels, rows, columns}) <= kMostDirectFloats && g.channels * rows <= kMostDirectFloats &&
         g.channels * rows * columns <= kMostDirectFloats && g.taps() <= kMostDirectTaps && g.outputs <= kMostOutputs;
}

// Copies a sample into channels of rows x columns with zeros as padding.
void CopyPadded(const ConvGeometry& g, const float* x, int64_t rows, int64_t columns, float* padded) {
  const int64_t width = std::min(g.width, columns - g.left);
  for (int64_t c = 0; c < g.channels && width > 0; ++c) {
    for (int64_t i = 0; i < std::min(g.height, rows - g.top); ++i) {
      std::memcpy(padded + (c * rows + i + g.top) * columns + g.left, x + (c * g.height + i) * g.width,
                  width * sizeof(float));
    }
  }
}

// Returns the offsets of an output's taps in such a padded sample.
std::vector<int32_t> TapOffsets(const ConvGeometry& g, int64_t rows, int64_t columns) {
  std::vector<int32_t> offsets;
  for (int64_t c = 0; c < g.group_channels(); ++c) {
    for (int64_t k = 0; k < g.kernel_height; ++k) {
      for (int64_t l = 0; l < g.kernel_width; ++l) {
        offsets.push_back(static_cast<int32_t>((c * rows + k * g.dilation_y) * columns + l * g.dilation_x));
      }
    }
  }
  return offsets;
}

// Returns the work of reading the whole filter once for each sample.
Work WeightsOf(const ConvGeometry& g) {
  const double floats = static_cast<double>(g.filter_size());
  return Moved(floats * static_cast<double>(g.samples), floats * sizeof(float));
}

// A convolution of one sample with neighbouring columns of the output in the lanes. Output rows are
// as far apart as those of the padded x, so a channel is one run of vectors.
struct DirectConvolution {
  ConvGeometry g;
  int64_t rows, columns;  // Size of the padded x.
  int64_t vectors;        // Per output channel.
  int64_t lanes;
  std::vector<int32_t> offsets;
  Blocks blocks;

  explicit DirectConvolution(const ConvGeometry& geometry) : g(geometry), lanes(GetTileKernels().lanes) {
    rows = g.output_height + (g.kernel_height - 1) * g.dilation_y;
    columns = g.output_width + (g.kernel_width - 1) * g.dilation_x;
    vectors = ((g.output_height - 1) * columns + g.output_width + lanes - 1) / lanes;
    offsets = TapOffsets(g, rows, columns);
    blocks = ChooseBlocks(GetTileKernels(), g.group_outputs(), vectors,
                          [](int a, int b) { return GetTileKernels().direct_sum[a][b] != nullptr; });
  }

  bool fits() const { return g.stride_y == 1 && g.stride_x == 1 && x_floats() <= kMostDirectFloats; }
  Estimate estimate() const {
    const double samples = static_cast<double>(g.samples), groups = samples * static_cast<double>(g.groups);
    const Work sums = {
        .calls = groups * static_cast<double>(blocks.rows.size() * blocks.columns.size()),
        .products = groups * blocks.cost * static_cast<double>(g.taps()),
        .moved = samples * (kMovesPerPadded * static_cast<double>(x_floats()) + static_cast<double>(y_floats()))};
    return Estimate().Add(Loop::kDirectSums, sums).Add(Loop::kDirectSums, WeightsOf(g));
  }

  // Includes the elements that vectors read beyond the end.
  int64_t x_floats() const { return g.channels * rows * columns + 2 * lanes + columns; }
  int64_t y_floats() const { return g.outputs * vectors * lanes; }
  int64_t scratch_floats() const { return (x_floats() + y_floats() + 15) / 16 * 16; }

  // Number of blocks of output channels, which several threads can share.
  int64_t most_parts() const { return g.groups * static_cast<int64_t>(blocks.rows.size()); }

  // Computes one of `parts` parts of the output channels.
  void Run(const float* x, const float* filter, const float* bias, float* y, float* scratch, int64_t part,
           int64_t parts) const {
    float* padded = scratch;
    float* wide = scratch + x_floats();
    std::fill(padded, padded + x_floats(), 0.0f);
    CopyPadded(g, x, rows, columns, padded);
    const TileKernels& kernels = GetTileKernels();
    DirectSumArguments sum{.offsets = offsets.data(), .terms = g.taps(), .weight_step = g.taps()};
    sum.y_step_a = vectors * lanes;
    const int64_t per_group = static_cast<int64_t>(blocks.rows.size());
    const int64_t begin = part * most_parts() / parts, end = (part + 1) * most_parts() / parts;
    auto channel_of = [&](int64_t block) {
      return std::accumulate(blocks.rows.begin(), blocks.rows.begin() + block % per_group,
                             block / per_group * g.group_outputs());
    };
    for (int64_t block = begin; block < end; ++block) {
      const int64_t channel = channel_of(block);
      const int a = blocks.rows[block % per_group];
      sum.weights = filter + channel * g.taps();
      sum.bias = bias == nullptr ? nullptr : bias + channel;
      sum.x = padded + block / per_group * g.group_channels() * rows * columns;
      sum.y = wide + channel * vectors * lanes;
      for (int b : blocks.columns) {
        kernels.direct_sum[a][b](sum);
        sum.x += b * lanes;
        sum.y += b * lanes;
      }
    }
    for (int64_t c = channel_of(begin); c < channel_of(end); ++c) {
      for (int64_t i = 0; i < g.output_height; ++i) {
        std::memcpy(y + (c * g.output_height + i) * g.output_width, wide + c * vectors * lanes + i * columns,
                    g.output_width * sizeof(float));
      }
    }
  }
};

// Division of samples, and of parts of each sample, among threads. Samples are divided only if
// there are fewer of them than threads. Results do not depend on the division.
struct SampleParts {
  SampleParts(const ConvGeometry& g, int threads, int64_t most_parts)
      : chunks(g.samples, 1, kMostChunks),
        parts(std::clamp<int64_t>(threads / std::max<int64_t>(g.samples, 1), 1, most_parts)) {}

  // Calls body(sample, part, thread).
  template <typename Body>
  void Run(const KernelArguments& arguments, Body body) const {
    arguments.pool->ParallelFor(chunks.number * parts, [&](int64_t task, int thread) {
      const int64_t chunk = task / parts;
      for (int64_t sample = chunks.begin(chunk); sample < chunks.end(chunk) && !arguments.stopped(); ++sample)
        body(sample, task % parts, thread);
    });
  }

  Chunks chunks;
  int64_t parts;
};

Kernel DirectConv2DKernel(const KernelRequest& request, const ConvGeometry& g) {
  const auto direct = std::make_shared<const DirectConvolution>(g);
  const bool has_bias = request.operands.size() == 3;
  const SampleParts shares(g, request.threads, direct->most_parts());
  return {.name = "direct",
          .run =
              [=](const KernelArguments& arguments) {
                float* const scratch = reinterpret_cast<float*>(arguments.scratch);
                shares.Run(arguments, [&](int64_t sample, int64_t part, int thread) {
                  direct->Run(arguments.operand<float>(0) + sample * direct->g.sample_size(),
                              arguments.operand<float>(1), has_bias ? arguments.operand<float>(2) : nullptr,
                              arguments.output<float>() + sample * direct->g.output_size(),
                              scratch + thread * direct->scratch_floats(), part, shares.parts);
                });
                return absl::OkStatus();
              },
          .scratch_bytes = request.threads * direct->scratch_floats() * sizeof(float)};
}

// A convolution of one sample with output channels in the lanes: it multiplies each element of x,
// broadcast to all lanes, with a vector of weights.
struct ChannelConvolution {
  ConvGeometry g;
  int64_t rows, columns;   // Size of the padded x.
  int64_t lanes, vectors;  // Per group of output channels.
  std::vector<int32_t> offsets;
  std::vector<int> blocks;  // Blocks of an output row.

  explicit ChannelConvolution(const ConvGeometry& geometry) : g(geometry), lanes(GetTileKernels().lanes) {
    rows = (g.output_height - 1) * g.stride_y + (g.kernel_height - 1) * g.dilation_y + 1;
    columns = (g.output_width - 1) * g.stride_x + (g.kernel_width - 1) * g.dilation_x + 1;
    vectors = (g.group_outputs() + lanes - 1) / lanes;
    offsets = TapOffsets(g, rows, columns);
    blocks = Parts(g.output_width, std::min(kMostBlockRows, GetTileKernels().accumulators));
  }

  bool fits() const { return x_floats() <= kMostDirectFloats; }
  Estimate estimate() const {
    const double samples = static_cast<double>(g.samples), parts = samples * static_cast<double>(most_parts());
    // The load of the weights takes the place of one product. Few independent sums do not hide the
    // latency of a multiply-add.
    double products = 0;
    for (int block : blocks) products += std::max(block + 1, ThisMachine().products_in_flight);
    // Lines of channels that are a multiple of kCacheWay apart evict each other, so every float of
    // y moves a whole line.
    const double y_floats = static_cast<double>(g.groups * vectors * g.pixels() * lanes);
    const double y_moved = g.pixels() % kCacheWay == 0 ? y_floats * kLineFloats : y_floats;
    const Work sums = {.calls = parts * static_cast<double>(blocks.size()),
                       .products = parts * products * static_cast<double>(g.taps()),
                       .moved = samples * (kMovesPerPadded * static_cast<double>(x_floats()) + y_moved)};
    const double packed = static_cast<double>(packed_floats());
    return Estimate()
        .Add(Loop::kChannelSums, sums)
        .Add(Loop::kChannelSums, Moved(kMovesPerWeight * packed, packed * sizeof(float)))
        .Add(Loop::kChannelSums, WeightsOf(g));
  }

  int64_t x_floats() const { return (g.channels * rows * columns + 15) / 16 * 16; }
  int64_t scratch_floats() const { return x_floats() + g.pixels() * lanes; }
  // Weights are packed as [group][vector][tap][lane].
  int64_t packed_floats() const { return g.groups * vectors * g.taps() * lanes; }
  std::string packed_layout() const {
    return absl::StrCat("channels ", g.groups, " ", g.group_outputs(), " ", g.taps(), " ", lanes);
  }
  void Pack(const float* filter, float* packed) const {
    for (int64_t i = 0; i < g.groups * vectors; ++i) {
      const int64_t channel = i % vectors * lanes, count = std::min(lanes, g.group_outputs() - channel);
      GetTileKernels().gather_lanes(filter + (i / vectors * g.group_outputs() + channel) * g.taps(), g.taps(), count,
                                    g.taps(), packed + i * g.taps() * lanes);
    }
  }

  // Number of rows of vectors of channels, which several threads can share.
  int64_t most_parts() const { return g.groups * vectors * g.output_height; }

  void Run(const float* x, const float* packed, const float* bias, float* y, float* scratch, int64_t part,
           int64_t parts) const {
    const TileKernels& kernels = GetTileKernels();
    float* const padded = scratch;
    float* const by_pixel = scratch + x_floats();
    std::fill(padded, padded + x_floats(), 0.0f);
    CopyPadded(g, x, rows, columns, padded);
    alignas(64) float bias_vector[16] = {};
    ChannelSumArguments sum{.offsets = offsets.data(), .terms = g.taps(), .x_step = g.stride_x, .bias = bias_vector};
    const int64_t end = (part + 1) * most_parts() / parts;
    for (int64_t unit = part * most_parts() / parts; unit < end;) {
      const int64_t vector = unit / g.output_height, first = unit % g.output_height;
      const int64_t last = std::min(g.output_height, first + end - unit);
      const int64_t group = vector / vectors, in_group = vector % vectors * lanes;
      const int64_t channel = group * g.group_outputs() + in_group,
                    count = std::min(lanes, g.group_outputs() - in_group);
      if (bias != nullptr) std::copy_n(bias + channel, count, bias_vector);
      sum.weights = packed + vector * g.taps() * lanes;
      sum.y = by_pixel;
      for (int64_t row = first; row < last; ++row) {
        sum.x = padded + (group * g.group_channels() * rows + row * g.stride_y) * columns;
        for (int block : blocks) {
          kernels.channel_sum[block](sum);
          sum.x += block * g.stride_x;
          sum.y += block * lanes;
        }
      }
      kernels.scatter_lanes(by_pixel, (last - first) * g.output_width, count,
                            y + channel * g.pixels() + first * g.output_width, g.pixels());
      unit += last - first;
    }
  }
};

Kernel ChannelConv2DKernel(const KernelRequest& request, const ConvGeometry& g) {
  const auto by_channels = std::make_shared<const ChannelConvolution>(g);
  const bool has_bias = request.operands.size() == 3;
  const SampleParts shares(g, request.threads, by_channels->most_parts());
  const size_t kept_bytes = by_channels->packed_floats() * sizeof(float);
  const int64_t thread_floats = (by_channels->scratch_floats() + 15) / 16 * 16;
  const size_t scratch_bytes = request.threads * thread_floats * sizeof(float);
  return {.name = "direct by channels",
          .run =
              [=](const KernelArguments& arguments) {
                float* const scratch = reinterpret_cast<float*>(arguments.scratch);
                float* const packed = arguments.kept != nullptr
                                          ? reinterpret_cast<float*>(arguments.kept)
                                          : scratch + arguments.pool->num_threads() * thread_floats;
                if (!arguments.kept_is_current) by_channels->Pack(arguments.operand<float>(1), packed);
                shares.Run(arguments, [&](int64_t sample, int64_t part, int thread) {
                  by_channels->Run(arguments.operand<float>(0) + sample * by_channels->g.sample_size(), packed,
                                   has_bias ? arguments.operand<float>(2) : nullptr,
                                   arguments.output<float>() + sample * by_channels->g.output_size(),
                                   scratch + thread * thread_floats, part, shares.parts);
                });
                return absl::OkStatus();
              },
          .scratch_bytes = scratch_bytes + kept_bytes,
          .kept_bytes = kept_bytes,
          .scratch_bytes_with_kept = scratch_bytes,
          .kept_operands = {1},
          .kept_layout = by_channels->packed_layout()};
}

// y = filter * columns, sample by sample and group by group.
template <typename T>
Kernel ColumnConv2DKernel(const KernelRequest& request, const ConvGeometry& g) {
  const bool has_bias = request.operands.size() == 3;
  const Chunks chunks(g.samples, 1, kMostChunks);
  return {.name = g.pointwise ? "gemm" : "im2col+gemm",
          .run =
              [=](const KernelArguments& arguments) {
                if (g.output_size() == 0) return absl::OkStatus();
                const T* filter = arguments.operand<T>(1);
                const OneBlasThread one_thread(g.group_outputs(), g.pixels(), g.taps());
                arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
                  if (arguments.stopped()) return;
                  T* scratch = ColumnsOf<T>(arguments, g, thread);
                  for (int64_t sample = chunks.begin(chunk); sample < chunks.end(chunk); ++sample) {
                    T* y = arguments.output<T>() + sample * g.output_size();
                    for (int64_t o = 0; has_bias && o < g.outputs; ++o) {
                      std::fill(y + o * g.pixels(), y + (o + 1) * g.pixels(), arguments.operand<T>(2)[o]);
                    }
                    for (int64_t group = 0; group < g.groups; ++group) {
                      const T* x = arguments.operand<T>(0) + sample * g.sample_size() +
                                   group * g.group_channels() * g.height * g.width;
                      if (!g.pointwise) Im2Col(g, x, scratch);
                      Gemm(one_thread, false, false, g.group_outputs(), g.pixels(), g.taps(), T(1),
                           filter + group * g.group_outputs() * g.taps(), g.taps(), g.pointwise ? x : scratch,
                           g.pixels(), T(has_bias), y + group * g.group_outputs() * g.pixels(), g.pixels());
                    }
                  }
                });
                return absl::OkStatus();
              },
          .scratch_bytes = ColumnBytes<T>(request, g)};
}

// dx = col2im(filter^T * dy).
template <typename T>
Kernel InputGradKernel(const KernelRequest& request, const ConvGeometry& g) {
  const Chunks chunks(g.samples, 1, kMostChunks);
  return {.name = g.pointwise ? "gemm" : "gemm+col2im",
          .run =
              [=](const KernelArguments& arguments) {
                const T* filter = arguments.operand<T>(1);
                if (g.sample_size() == 0) return absl::OkStatus();
                const OneBlasThread one_thread(g.group_outputs(), g.pixels(), g.taps());
                arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
                  if (arguments.stopped()) return;
                  T* scratch = ColumnsOf<T>(arguments, g, thread);
                  for (int64_t sample = chunks.begin(chunk); sample < chunks.end(chunk); ++sample) {
                    T* dx = arguments.output<T>() + sample * g.sample_size();
                    std::fill(dx, dx + g.sample_size(), T(0));
                    for (int64_t group = 0; group < g.groups && g.output_size() > 0; ++group) {
                      const T* dy =
                          arguments.operand<T>(0) + sample * g.output_size() + group * g.group_outputs() * g.pixels();
                      T* target = dx + group * g.group_channels() * g.height * g.width;
                      Gemm(one_thread, true, false, g.taps(), g.pixels(), g.group_outputs(), T(1),
                           filter + group * g.group_outputs() * g.taps(), g.taps(), dy, g.pixels(), T(0),
                           g.pointwise ? target : scratch, g.pixels());
                      if (!g.pointwise) Col2Im(g, scratch, target);
                    }
                  }
                });
                return absl::OkStatus();
              },
          .scratch_bytes = ColumnBytes<T>(request, g)};
}

// df = the sum over samples of dy * columns^T. Each chunk of samples has its own sum, and these are
// added in order.
template <typename T>
Kernel FilterGradKernel(const KernelRequest& request, const ConvGeometry& g) {
  const Chunks chunks(g.samples, 1, kMostPartials);
  const size_t column_bytes = (ColumnBytes<T>(request, g) + 63) / 64 * 64;
  return {.name = g.pointwise ? "gemm" : "im2col+gemm",
          .run =
              [=](const KernelArguments& arguments) {
                T* partials = reinterpret_cast<T*>(arguments.scratch + column_bytes);
                T* df = arguments.output<T>();
                const OneBlasThread one_thread(g.group_outputs(), g.pixels(), g.taps());
                arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
                  if (arguments.stopped()) return;
                  T* scratch = ColumnsOf<T>(arguments, g, thread);
                  T* sum = partials + chunk * g.filter_size();
                  std::fill(sum, sum + g.filter_size(), T(0));
                  for (int64_t sample = chunks.begin(chunk); sample < chunks.end(chunk) && g.output_size() > 0;
                       ++sample) {
                    for (int64_t group = 0; group < g.groups; ++group) {
                      const T* x = arguments.operand<T>(0) + sample * g.sample_size() +
                                   group * g.group_channels() * g.height * g.width;
                      const T* dy =
                          arguments.operand<T>(1) + sample * g.output_size() + group * g.group_outputs() * g.pixels();
                      if (!g.pointwise) Im2Col(g, x, scratch);
                      Gemm(one_thread, false, true, g.group_outputs(), g.taps(), g.pixels(), T(1), dy, g.pixels(),
                           g.pointwise ? x : scratch, g.pixels(), T(1), sum + group * g.group_outputs() * g.taps(),
                           g.taps());
                    }
                  }
                });
                std::fill(df, df + g.filter_size(), T(0));
                for (int64_t chunk = 0; chunk < chunks.number; ++chunk) {
                  const T* sum = partials + chunk * g.filter_size();
                  for (int64_t i = 0; i < g.filter_size(); ++i) df[i] += sum[i];
                }
                return absl::OkStatus();
              },
          .scratch_bytes = column_bytes + chunks.number * g.filter_size() * sizeof(T)};
}

// Returns the cost of im2col or col2im, and of the products with these columns, for all groups.
Estimate ColumnEstimate(const ConvGeometry& g, const Estimate& product) {
  const double taps = static_cast<double>(g.taps()), columns = taps * static_cast<double>(g.pixels());
  Estimate estimate = product;
  if (!g.pointwise) {
    estimate.Add(Loop::kColumns, {.calls = taps * static_cast<double>(g.output_height)});
    estimate.Add(Loop::kColumns, Moved(columns, columns * sizeof(float)));
  }
  return Estimate().Add(estimate, static_cast<double>(g.samples) * static_cast<double>(g.groups));
}

bool IsFloat32(const KernelRequest& request) { return request.output().dtype == kFloat32; }

bool MayUseWinograd(const KernelRequest& request, const ConvGeometry& g) {
  return request.toom_cook && IsFloat32(request) && Is3x3(g);
}

}  // namespace

std::vector<KernelChoice> Conv2DChoices(const KernelRequest& request) {
  const ConvGeometry g = GeometryOf(request.node, request.operands, OpKind::kConv2D);
  std::vector<KernelChoice> choices;
  if (IsFloat32(request) && MayBeDirect(g)) {
    const DirectConvolution direct(g);
    const ChannelConvolution by_channels(g);
    // The first one is the default where estimates are close.
    if (by_channels.fits()) {
      choices.push_back(
          {"direct by channels", by_channels.estimate(), [=] { return ChannelConv2DKernel(request, g); }});
    }
    if (direct.fits()) {
      choices.push_back({"direct", direct.estimate(), [=] { return DirectConv2DKernel(request, g); }});
    }
  }
  if (IsFloat32(request)) AddImplicitConv2D(request, g, choices);
  choices.push_back({"product", ColumnEstimate(g, GemmEstimate(g.group_outputs(), g.pixels(), g.taps())), [=] {
                       return IsFloat32(request) ? ColumnConv2DKernel<float>(request, g)
                                                 : ColumnConv2DKernel<double>(request, g);
                     }});
  if (MayUseWinograd(request, g)) AddWinogradChoices(request, Convolution3x3Of(g), choices);
  AddDepthwiseChoices(request, g, choices);
  return choices;
}

std::vector<KernelChoice> Conv2DInputGradChoices(const KernelRequest& request) {
  const ConvGeometry g = GeometryOf(request.node, request.operands, OpKind::kConv2DInputGrad);
  // Products of groups are small, and their columns are added to dx in short rows.
  constexpr double kSlowdownOfGroups = 2.5;
  const Estimate columns = ColumnEstimate(g, GemmEstimate(g.taps(), g.pixels(), g.group_outputs()));
  std::vector<KernelChoice> choices;
  if (IsFloat32(request)) AddImplicitConv2DInputGrad(request, g, choices);
  choices.push_back({"product", Estimate().Add(columns, g.groups == 1 ? 1 : kSlowdownOfGroups), [=] {
                       return IsFloat32(request) ? InputGradKernel<float>(request, g)
                                                 : InputGradKernel<double>(request, g);
                     }});
  if (MayUseWinograd(request, g)) AddWinogradChoices(request, InputGrad3x3Of(g), choices);
  AddDepthwiseChoices(request, g, choices);
  return choices;
}

std::vector<KernelChoice> Conv2DFilterGradChoices(const KernelRequest& request) {
  const ConvGeometry g = GeometryOf(request.node, request.operands, OpKind::kConv2DFilterGrad);
  std::vector<KernelChoice> choices;
  if (IsFloat32(request)) AddImplicitConv2DFilterGrad(request, g, choices);
  choices.push_back({"product", ColumnEstimate(g, GemmEstimate(g.group_outputs(), g.taps(), g.pixels())), [=] {
                       return IsFloat32(request) ? FilterGradKernel<float>(request, g)
                                                 : FilterGradKernel<double>(request, g);
                     }});
  if (MayUseWinograd(request, g)) AddWinogradFilterGradChoices(request, Convolution3x3Of(g), choices);
  AddDepthwiseChoices(request, g, choices);
  return choices;
}

void RegisterConvKernels(KernelRegistry& registry) {
  registry.Add("Conv2D", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return Cheapest(Conv2DChoices(request)).make();
  });
  registry.Add("Conv2DInputGrad", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return Cheapest(Conv2DInputGradChoices(request)).make();
  });
  registry.Add("Conv2DFilterGrad", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return Cheapest(Conv2DFilterGradChoices(request)).make();
  });
  RegisterBFloat16Convolutions(registry);
}

}  // namespace gradweave
