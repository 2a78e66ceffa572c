#include "gradweave/runtime/cpu/conv/depthwise_lanes.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/image_windows.h"
#include "gradweave/runtime/cpu/conv/window_loops.h"
#include "gradweave/runtime/cpu/tile/tile_kernels.h"

namespace gradweave {
namespace {

constexpr int64_t kMostLaneElements = 1 << 16;  // Most elements of the images of one vector of channels.
constexpr int64_t kLaneGrain = 16384;           // Least products of a task.

// Returns the results along one axis as sums over the taps inside the image.
LaneAxis Results(const WindowAxis& axis) {
  LaneAxis sums{.tap_step = 1, .step = axis.dilation};
  for (int64_t i = 0; i < axis.results; ++i) {
    const int64_t first = i * axis.stride - axis.padding;
    const int64_t tap = first >= 0 ? 0 : DivideUp(-first, axis.dilation);
    const int64_t end = std::min(axis.taps, first >= axis.size ? 0 : DivideUp(axis.size - first, axis.dilation));
    sums.sums.push_back({std::max<int64_t>(end - tap, 0), tap, first + tap * axis.dilation});
  }
  return sums;
}

// Returns the elements of an image along one axis as sums over the results that read them.
LaneAxis Elements(const WindowAxis& axis) {
  const Phases phases(axis);
  LaneAxis sums{.tap_step = -phases.step, .step = phases.result_step};
  for (int64_t i = 0; i < axis.size; ++i) {
    const int64_t phase = (i + axis.padding) % axis.stride;
    const int64_t first = (i + axis.padding) / axis.stride - phases.distance(phase);
    const int64_t skipped = first >= 0 ? 0 : DivideUp(-first, phases.result_step);
    const int64_t end =
        std::min(phases.taps(phase), first >= axis.results ? 0 : DivideUp(axis.results - first, phases.result_step));
    sums.sums.push_back({std::max<int64_t>(end - skipped, 0), phases.last_tap(phase) - skipped * phases.step,
                         first + skipped * phases.result_step});
  }
  return sums;
}

// A depthwise convolution or its gradient, with channels in the lanes. It takes one vector of
// channels of one sample at a time.
struct LaneConvolution {
  ConvGeometry g;
  ImageWindows windows;
  int64_t lanes, blocks;  // A block has one channel in each lane.
  // Images of a channel that are read and written, and their sizes.
  int64_t read, written, read_size, read_width, written_size;
  LaneAxis y, x;

  LaneConvolution(const ConvGeometry& g, OpKind op)
      : g(g), windows(WindowsOf(g)), lanes(GetTileKernels().lanes), blocks(DivideUp(g.channels, lanes)) {
    const bool forward = op == OpKind::kConv2D;
    read = op == OpKind::kConv2DInputGrad ? g.group_outputs() : 1;
    written = forward ? g.group_outputs() : 1;
    read_size = op == OpKind::kConv2DInputGrad ? windows.result_size() : windows.image_size();
    read_width = op == OpKind::kConv2DInputGrad ? windows.x.results : windows.x.size;
    written_size = forward ? windows.result_size() : windows.image_size();
    y = forward ? Results(windows.y) : Elements(windows.y);
    x = forward ? Results(windows.x) : Elements(windows.x);
  }

  int64_t packed_elements() const { return blocks * g.group_outputs() * g.taps() * lanes; }
  int64_t scratch_elements() const { return (read * read_size + written_size + 1) * lanes; }
  int64_t count(int64_t block) const { return std::min(lanes, g.channels - block * lanes); }

  // Convert `images` images of each channel of a block, [channel][image][size], to
  // [image][size][lane], and one image back.
  void Gather(int64_t block, int64_t images, int64_t size, const float* from, float* to) const {
    for (int64_t image = 0; image < images; ++image) {
      GetTileKernels().gather_lanes(from + (block * lanes * images + image) * size, images * size, count(block), size,
                                    to + image * size * lanes);
    }
  }
  void Scatter(int64_t block, int64_t images, int64_t image, int64_t size, const float* from, float* to) const {
    GetTileKernels().scatter_lanes(from, size, count(block), to + (block * lanes * images + image) * size,
                                   images * size);
  }
  void Pack(const float* filter, float* packed) const {
    const int64_t images = g.group_outputs();
    for (int64_t block = 0; block < blocks; ++block)
      Gather(block, images, g.taps(), filter, packed + block * images * g.taps() * lanes);
  }

  void Run(int64_t block, const float* from, const float* packed, const float* bias, float* to, float* scratch) const {
    float* const images = scratch;
    float* const result = images + read * read_size * lanes;
    float* const bias_lanes = result + written_size * lanes;
    Gather(block, read, read_size, from, images);
    for (int64_t image = 0; image < written; ++image) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        bias_lanes[lane] =
            bias != nullptr && lane < count(block) ? bias[(block * lanes + lane) * written + image] : 0.0f;
      }
      GetWindowLoops<float>().lane_sum({.y = &y,
                                        .x = &x,
                                        .images = read,
                                        .image_size = read_size,
                                        .width = read_width,
                                        .filter_size = g.taps(),
                                        .filter_width = windows.x.taps,
                                        .image = images,
                                        .weights = packed + (block * g.group_outputs() + image) * g.taps() * lanes,
                                        .bias = bias_lanes,
                                        .result = result});
      Scatter(block, written, image, written_size, result, to);
    }
  }
};

Kernel SumKernel(const KernelRequest& request, const LaneConvolution& sizes) {
  const auto conv = std::make_shared<const LaneConvolution>(sizes);
  const bool forward = request.node.op->kind == OpKind::kConv2D, has_bias = request.operands.size() == 3;
  const int64_t thread_elements = RoundUp(conv->scratch_elements(), conv->lanes);
  const size_t scratch_bytes = ScratchBytes(request.threads, thread_elements, sizeof(float));
  const size_t kept_bytes = conv->packed_elements() * sizeof(float);
  const int64_t products = conv->g.output_size() * conv->g.taps() / conv->blocks;
  const Chunks chunks(conv->g.samples * conv->blocks, std::max<int64_t>(1, kLaneGrain / products), kMostChunks);
  return {.name = "depthwise by channels",
          .run =
              [=](const KernelArguments& arguments) {
                float* const scratch = reinterpret_cast<float*>(arguments.scratch);
                float* const packed = arguments.kept != nullptr
                                          ? reinterpret_cast<float*>(arguments.kept)
                                          : reinterpret_cast<float*>(arguments.scratch + scratch_bytes);
                if (!arguments.kept_is_current) conv->Pack(arguments.operand<float>(1), packed);
                const ConvGeometry& g = conv->g;
                arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
                  if (arguments.stopped()) return;
                  for (int64_t unit = chunks.begin(chunk); unit < chunks.end(chunk); ++unit) {
                    const int64_t sample = unit / conv->blocks;
                    conv->Run(unit % conv->blocks,
                              arguments.operand<float>(0) + sample * (forward ? g.sample_size() : g.output_size()),
                              packed, has_bias ? arguments.operand<float>(2) : nullptr,
                              arguments.output<float>() + sample * (forward ? g.output_size() : g.sample_size()),
                              scratch + thread * thread_elements);
                  }
                });
                return absl::OkStatus();
              },
          .scratch_bytes = scratch_bytes + kept_bytes,
          .kept_bytes = kept_bytes,
          .scratch_bytes_with_kept = scratch_bytes,
          .kept_operands = {1},
          .kept_layout = absl::StrCat("depthwise ", conv->g.channels, " ", conv->g.group_outputs(), " ", conv->g.taps(),
                                      " ", conv->lanes)};
}

// The results [first, last) of an axis for which a tap is inside the image.
struct Range {
  int64_t first, last;
  Range(const WindowAxis& axis, int64_t tap) {
    const int64_t shift = axis.padding - tap * axis.dilation;  // Result i reads element i*stride - shift.
    first = shift <= 0 ? 0 : DivideUp(shift, axis.stride);
    last = std::min(axis.results, axis.size + shift <= 0 ? 0 : DivideUp(axis.size + shift, axis.stride));
  }
};

// Adds the products of one sample and block to `sums`, [image][tap][lane].
void AddProducts(const LaneConvolution& conv, int64_t block, const float* x, const float* dy, float* scratch,
                 float* sums) {
  const WindowAxis &down = conv.windows.y, &across = conv.windows.x;
  const int64_t images = conv.g.group_outputs(), lanes = conv.lanes;
  float* const gradients = scratch + conv.windows.image_size() * lanes;
  conv.Gather(block, 1, conv.windows.image_size(), x, scratch);
  conv.Gather(block, images, conv.windows.result_size(), dy, gradients);
  for (int64_t k = 0; k < down.taps; ++k) {
    const Range rows(down, k);
    for (int64_t l = 0; l < across.taps; ++l) {
      const Range columns(across, l);
      const int64_t origin = (k * down.dilation - down.padding) * across.size + l * across.dilation - across.padding;
      for (int64_t image = 0; image < images; ++image) {
        GetWindowLoops<float>().lane_products({.x = scratch + origin * lanes,
                                               .dy = gradients + image * conv.windows.result_size() * lanes,
                                               .first_y = rows.first,
                                               .last_y = rows.last,
                                               .first_x = columns.first,
                                               .last_x = columns.last,
                                               .x_row = down.stride * across.size,
                                               .x_column = across.stride,
                                               .dy_row = across.results,
                                               .df = sums + ((image * down.taps + k) * across.taps + l) * lanes});
      }
    }
  }
}

// Each chunk of samples has its own sums, which are added in order.
Kernel ProductKernel(const KernelRequest& request, const LaneConvolution& sizes) {
  const auto conv = std::make_shared<const LaneConvolution>(sizes);
  const ConvGeometry& g = conv->g;
  const int64_t thread_elements =
      (conv->windows.image_size() + g.group_outputs() * conv->windows.result_size()) * conv->lanes;
  const size_t scratch_bytes = ScratchBytes(request.threads, thread_elements, sizeof(float));
  const Chunks samples(g.samples, 1, std::clamp<int64_t>(kMostChunks / conv->blocks, 1, kMostPartials));
  const int64_t packed = conv->packed_elements();
  return {.name = "depthwise by channels",
          .run =
              [=](const KernelArguments& arguments) {
                const ConvGeometry& g = conv->g;
                float* const scratch = reinterpret_cast<float*>(arguments.scratch);
                float* const sums = reinterpret_cast<float*>(arguments.scratch + scratch_bytes);
                const int64_t block_elements = packed / conv->blocks;
                arguments.pool->ParallelFor(conv->blocks * samples.number, [&](int64_t task, int thread) {
                  if (arguments.stopped()) return;
                  const int64_t chunk = task / conv->blocks, block = task % conv->blocks;
                  float* const sum = sums + chunk * packed + block * block_elements;
                  std::fill_n(sum, block_elements, 0.0f);
                  for (int64_t sample = samples.begin(chunk); sample < samples.end(chunk); ++sample) {
                    AddProducts(*conv, block, arguments.operand<float>(0) + sample * g.sample_size(),
                                arguments.operand<float>(1) + sample * g.output_size(),
                                scratch + thread * thread_elements, sum);
                  }
                });
                for (int64_t i = packed; i < samples.number * packed; ++i) sums[i % packed] += sums[i];
                for (int64_t block = 0; block < conv->blocks; ++block) {
                  for (int64_t image = 0; image < g.group_outputs(); ++image) {
                    conv->Scatter(block, g.group_outputs(), image, g.taps(),
                                  sums + block * block_elements + image * g.taps() * conv->lanes,
                                  arguments.output<float>());
                  }
                }
                return absl::OkStatus();
              },
          .scratch_bytes = scratch_bytes + samples.number * packed * sizeof(float)};
}

Estimate EstimateOf(const LaneConvolution& conv, OpKind op) {
  // Times as multiples of those of Loop::kWindowSums and Loop::kTileBoundary: calls for a vector of
  // channels, and transposed floats of results.
  constexpr double kCalls = 2.5, kCallsPerTap = 0.3, kResults = 0.8;
  // Transposed floats of images, and products, which have two loads. An input gradient has a short
  // loop for each element; a filter gradient has long loops.
  const double image_share = op == OpKind::kConv2DInputGrad ? 1.2 : 0.6;
  const double product_share = op == OpKind::kConv2DFilterGrad ? 1 : 1.25;
  const ConvGeometry& g = conv.g;
  const double units = static_cast<double>(g.samples) * static_cast<double>(conv.blocks);
  const double results = static_cast<double>(conv.windows.result_size() * g.group_outputs());
  const double images = static_cast<double>(conv.windows.image_size()), lanes = static_cast<double>(conv.lanes);
  const double taps = static_cast<double>(g.taps());
  const double calls =
      kCalls + (op == OpKind::kConv2DFilterGrad ? kCallsPerTap * taps * static_cast<double>(g.group_outputs()) : 0);
  return Estimate()
      .Add(Loop::kWindowSums, {.calls = units * calls, .products = units * results * taps * product_share})
      .Add(Loop::kTileBoundary, {.moved = units * (image_share * images + kResults * results) * lanes});
}

}  // namespace

void AddLaneChoice(const KernelRequest& request, const ConvGeometry& g, std::vector<KernelChoice>& choices) {
  if (g.group_channels() != 1 || request.output().dtype != kFloat32) return;
  const OpKind op = request.node.op->kind;
  const LaneConvolution conv(g, op);
  if ((conv.windows.image_size() + g.group_outputs() * conv.windows.result_size()) * conv.lanes > kMostLaneElements)
    return;
  choices.push_back({"depthwise by channels", EstimateOf(conv, op), [=] {
                       return op == OpKind::kConv2DFilterGrad ? ProductKernel(request, conv) : SumKernel(request, conv);
                     }});
}

}  // namespace gradweave
