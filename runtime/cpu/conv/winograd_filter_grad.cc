#include "gradweave/runtime/cpu/conv/winograd_filter_grad.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/even_chunks.h"
#include "gradweave/runtime/cpu/conv/winograd_kernels.h"
#include "gradweave/runtime/cpu/product/product.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// The most values of x and dy at the points in a chunk. A large layer has as many.
constexpr int64_t kMostChunkFloats = 4 << 20;
// The most outputs of a task. Its sums then stay in a second-level cache.
constexpr int64_t kGroupOutputs = 48;

}  // namespace

WinogradFilterGrad::WinogradFilterGrad(const Convolution3x3& convolution, int pairs)
    : c_(convolution),
      pairs_(pairs),
      strips_(c_.samples, c_.output_height, c_.output_width, 2 * pairs),
      panels_(DivideUp(c_.channels, PanelColumns())),
      groups_(EvenChunks(c_.outputs, kGroupOutputs)),
      chunks_(EvenChunks(strips_.number(), 1)) {
  const int64_t strip_floats =
      points() * (RoundUp(c_.channels, ProductLanes()) + RoundUp(c_.outputs, ProductLanes())) * strips_.columns.size;
  double least = std::numeric_limits<double>::infinity();
  Chunks best = chunks_;
  // More chunks read and write the sums more often. The first ones fill half of a second-level
  // cache.
  const auto near = static_cast<int64_t>(ThisMachine().second_level_bytes / (2 * sizeof(float)));
  for (int64_t floats = near; floats <= kMostChunkFloats; floats *= 2) {
    chunks_ = EvenChunks(strips_.number(), floats / strip_floats);
    const double cost = estimate().nanoseconds();
    if (cost < least) least = cost, best = chunks_;
  }
  chunks_ = best;
}

int64_t WinogradFilterGrad::strip_floats() const {
  return (strips_.size + 2) * (strips_.columns.size * strips_.size + 2) * ProductLanes();
}

int64_t WinogradFilterGrad::WidthOf(int64_t panel) const {
  return std::min(PanelColumns(), RoundUp(c_.channels - panel * PanelColumns(), ProductLanes()));
}

int64_t WinogradFilterGrad::sums_floats() const { return points() * groups_.size * PanelColumns(); }

int64_t WinogradFilterGrad::thread_floats() const {
  return RoundUp(strip_floats() + (chunks_.number == 1 ? sums_floats() : 0), kLineFloats);
}

// The odd lines keep tiles and points from mapping to the same sets of a cache.
WinogradFilterGrad::Shared WinogradFilterGrad::Layout(float* floats) const {
  const int64_t tiles = chunks_.size * strips_.columns.size;
  Shared shared;
  shared.v_panel = tiles * PanelColumns() + kLineFloats;
  shared.v_point = panels_ * shared.v_panel;
  shared.dy_tile = RoundUp(c_.outputs, kLineFloats) + kLineFloats;
  shared.dy_point = tiles * shared.dy_tile + kLineFloats;
  shared.v = floats;
  shared.dy = shared.v + points() * shared.v_point;
  shared.sums = shared.dy + points() * shared.dy_point;
  return shared;
}

int64_t WinogradFilterGrad::PointFloats() const {
  const Shared shared = Layout(nullptr);
  return shared.v_point + shared.dy_point;
}

int64_t WinogradFilterGrad::shared_floats() const { return points() * PointFloats() + finish_tasks() * sums_floats(); }

int64_t WinogradFilterGrad::TilesBefore(int64_t chunk, int64_t strip) const {
  const TileStrip first = strips_.At(chunks_.begin(chunk)), last = strips_.At(strip);
  const int64_t columns = strips_.columns.count;
  return ((last.sample - first.sample) * strips_.rows + last.row - first.row) * columns + last.column - first.column;
}

void WinogradFilterGrad::Transform(const float* x, const float* dy, int64_t chunk, int64_t task, float* floats,
                                   float* thread) const {
  const WinogradKernels& transforms = GetWinogradKernels();
  const Shared shared = Layout(floats);
  const int64_t lanes = ProductLanes(), size = strips_.size, at = chunks_.begin(chunk) + task;
  const TileStrip strip = strips_.At(at);
  const int64_t tile = TilesBefore(chunk, at);
  ImagePart part{.top = strip.row * size - c_.top,
                 .rows = size + 2,
                 .left = strip.column * size - c_.left,
                 .columns = strip.tiles * size + 2};
  for (int64_t channel = 0; channel < c_.channels; channel += lanes) {
    part.channels = std::min(lanes, c_.channels - channel);
    FillStrip(x + (strip.sample * c_.channels + channel) * c_.height * c_.width, c_.height, c_.width, part, thread);
    const int64_t panel = channel / PanelColumns(), width = WidthOf(panel);
    transforms.input[pairs_]({.strip = thread,
                              .tiles = strip.tiles,
                              .v = shared.v + panel * shared.v_panel + tile * width + channel % PanelColumns(),
                              .v_point = shared.v_point,
                              .v_tile = width});
  }
  part = {.top = strip.row * size, .rows = size, .left = strip.column * size, .columns = strip.tiles * size};
  for (int64_t output = 0; output < c_.outputs; output += lanes) {
    part.channels = std::min(lanes, c_.outputs - output);
    FillStrip(dy + (strip.sample * c_.outputs + output) * c_.output_height * c_.output_width, c_.output_height,
              c_.output_width, part, thread);
    transforms.evaluation[pairs_]({.strip = thread,
                                   .tiles = strip.tiles,
                                   .v = shared.dy + tile * shared.dy_tile + output,
                                   .v_point = shared.dy_point,
                                   .v_tile = shared.dy_tile});
  }
}

void WinogradFilterGrad::MultiplyBlock(const Shared& shared, int64_t point, int64_t panel, int64_t group, int64_t tiles,
                                       bool add, float* sums) const {
  const ProductKernels& kernels = GetProductKernels();
  const int64_t first = groups_.begin(group), outputs = groups_.end(group) - first, width = WidthOf(panel);
  const Chunks rows = EvenChunks(outputs, kernels.rows);
  for (int64_t block = 0; block < rows.number; ++block) {
    const int64_t row = rows.begin(block);
    kernels.block[rows.end(block) - row][width / kernels.lanes](
        {.a = shared.dy + point * shared.dy_point + first + row,
         .a_row = 1,
         .a_term = shared.dy_tile,
         .b = shared.v + point * shared.v_point + panel * shared.v_panel,
         .terms = tiles,
         .c = sums + point * groups_.size * PanelColumns() + row * width,
         .c_row = width,
         .add = add});
  }
}

void WinogradFilterGrad::Multiply(int64_t chunk, int64_t task, float* floats, float* thread, float* dw) const {
  const Shared shared = Layout(floats);
  const int64_t last = chunks_.end(chunk) - 1, tiles = TilesBefore(chunk, last) + strips_.At(last).tiles;
  if (chunks_.number > 1) {
    for (int64_t sum = 0; sum < panels_ * groups_.number; ++sum)
      MultiplyBlock(shared, task, sum % panels_, sum / panels_, tiles, chunk > 0, shared.sums + sum * sums_floats());
    return;
  }
  float* const sums = thread + strip_floats();
  for (int64_t point = 0; point < points(); ++point)
    MultiplyBlock(shared, point, task % panels_, task / panels_, tiles, false, sums);
  TransformSums(task, sums, dw);
}

void WinogradFilterGrad::Finish(int64_t task, const float* floats, float* dw) const {
  TransformSums(task, floats + points() * PointFloats() + task * sums_floats(), dw);
}

void WinogradFilterGrad::TransformSums(int64_t task, const float* sums, float* dw) const {
  const int64_t lanes = ProductLanes(), panel = task % panels_, group = task / panels_, width = WidthOf(panel);
  alignas(64) float taps[9 * 16];
  for (int64_t output = groups_.begin(group); output < groups_.end(group); ++output, sums += width) {
    for (int64_t vector = 0; vector < width; vector += lanes) {
      GetWinogradKernels().filter_sums[pairs_](
          {.sums = sums + vector, .point_step = groups_.size * PanelColumns(), .dw = taps});
      const int64_t channel = panel * PanelColumns() + vector;
      GetProductKernels().transpose(taps, 9, std::min(lanes, c_.channels - channel), lanes,
                                    dw + (output * c_.channels + channel) * 9, 9);
    }
  }
}

Estimate WinogradFilterGrad::estimate() const {
  const double at_points = static_cast<double>(points()), groups = static_cast<double>(groups_.number);
  const double tiles = static_cast<double>(strips_.number() * strips_.columns.size);
  const double chunks = static_cast<double>(chunks_.number), panels = static_cast<double>(panels_);
  const double outputs = static_cast<double>(RoundUp(c_.outputs, ProductLanes())),
               channels = static_cast<double>(RoundUp(c_.channels, ProductLanes()));
  const Chunks rows = EvenChunks(groups_.size, GetProductKernels().rows);
  const double block = RegisterBlockProducts(static_cast<double>(rows.size), GetProductKernels().panel_vectors);
  const double blocks = panels * groups * static_cast<double>(rows.number);
  const double v = at_points * tiles * channels, dy = at_points * tiles * outputs;
  const double sums = at_points * outputs * channels;
  // Values that lie far away are written line by line to as many pages as there are points.
  constexpr double kMovesPerValue = 6;
  const double bytes = 2 * (v + dy) / chunks * sizeof(float);
  Estimate estimate;
  estimate.Add(Loop::kWinograd, {.calls = at_points * chunks * blocks, .products = at_points * blocks * block * tiles});
  estimate.Add(Loop::kWinograd, Moved(kMovesPerValue * (v + dy), bytes));
  if (chunks > 1) return estimate.Add(Loop::kWinograd, Moved(2 * sums * chunks, sums * sizeof(float)));
  // Each group of outputs reads all values of x, and each panel of channels those of dy.
  return estimate.Add(Loop::kWinograd, Moved(v * groups + dy * panels, bytes)).Add(Loop::kWinograd, {.moved = sums});
}

namespace {

Kernel FilterGradKernel(const KernelRequest& request, const Convolution3x3& convolution, int pairs) {
  const auto gradient = std::make_shared<const WinogradFilterGrad>(convolution, pairs);
  const int64_t thread_floats = gradient->thread_floats();
  const size_t thread_bytes = ScratchBytes(request.threads, thread_floats, sizeof(float));
  return {.name = absl::StrCat("Winograd ", 2 * pairs, "x", 2 * pairs),
          .run =
              [=](const KernelArguments& arguments) {
                float* const threads = reinterpret_cast<float*>(arguments.scratch);
                float* const shared = threads + thread_bytes / sizeof(float);
                for (int64_t chunk = 0; chunk < gradient->num_chunks() && !arguments.stopped(); ++chunk) {
                  arguments.pool->ParallelFor(gradient->transform_tasks(chunk), [&](int64_t task, int thread) {
                    gradient->Transform(arguments.operand<float>(0), arguments.operand<float>(1), chunk, task, shared,
                                        threads + thread * thread_floats);
                  });
                  arguments.pool->ParallelFor(gradient->multiply_tasks(), [&](int64_t task, int thread) {
                    gradient->Multiply(chunk, task, shared, threads + thread * thread_floats,
                                       arguments.output<float>());
                  });
                }
                arguments.pool->ParallelFor(gradient->finish_tasks(), [&](int64_t task, int) {
                  gradient->Finish(task, shared, arguments.output<float>());
                });
                return absl::OkStatus();
              },
          .scratch_bytes = thread_bytes + gradient->shared_floats() * sizeof(float)};
}

}  // namespace

void AddWinogradFilterGradChoices(const KernelRequest& request, const Convolution3x3& convolution,
                                  std::vector<KernelChoice>& choices) {
  if (!Winograd::Fits(convolution)) return;
  for (int pairs = 1; pairs <= kMostWinogradPairs; ++pairs) {
    choices.push_back({absl::StrCat("Winograd ", 2 * pairs, "x", 2 * pairs),
                       WinogradFilterGrad(convolution, pairs).estimate(),
                       [=] { return FilterGradKernel(request, convolution, pairs); }});
  }
}

}  // namespace gradweave
