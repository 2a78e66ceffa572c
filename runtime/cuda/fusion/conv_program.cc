#include "gradweave/runtime/cuda/fusion/conv_program.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cuda/fusion/fused_chain.h"

namespace gradweave {
namespace {

// Limits on the taps, and on the columns between them, all of which a thread reads. More would give
// a kernel of many thousands of instructions.
constexpr int32_t kMostTaps = 49, kMostApart = 64;
constexpr int32_t kMostOutputs = 8, kMostCell = 4, kMostThreads = 256;
constexpr int64_t kMultiprocessors = 132;  // Multiprocessors of a large GPU.
constexpr int64_t kMostBlocksAlongY = 65535;
constexpr double kWait = 1500;  // Cycles from a block's request to the arrival of the data in shared memory.

bool IsInputGrad(const Node& node) { return node.op->kind == OpKind::kConv2DInputGrad; }

ConvGeometry GeometryOf(const Graph& graph, const Node& node) {
  const Shape& first = graph.type(node.inputs[0]).shape;
  const Shape& filter = graph.type(node.inputs[1]).shape;
  const Shape& result = node.outputs[0].shape;
  return IsInputGrad(node) ? ConvGeometry(node, result, filter, first) : ConvGeometry(node, first, filter, result);
}

ConvShape ShapeOf(const Graph& graph, const Node& node) {
  const ConvGeometry geometry = GeometryOf(graph, node);
  return IsInputGrad(node) ? ConvShape::InputGrad(geometry) : ConvShape::Forward(geometry);
}

// Finds the tiling with the fewest expected cycles by counting instructions. A multiprocessor
// issues four instructions per cycle if it has at least four warps.
class TilingSearch {
 public:
  TilingSearch(const ConvShape& shape, size_t element_bytes, int32_t cell_rows, int32_t cell_columns)
      : shape_(shape),
        bytes_(static_cast<int64_t>(element_bytes)),
        cell_rows_(cell_rows),
        cell_columns_(cell_columns),
        rows_(DivideUp(shape.output_height, cell_rows)),
        columns_(DivideUp(shape.output_width, cell_columns)) {}

  std::optional<ConvTiling> Run() {
    for (int32_t outputs = std::min(shape_.outputs, kMostOutputs); outputs > 0; --outputs) {
      const int32_t most_slots = std::min(DivideUp(shape_.outputs, outputs), kMostThreads / 32);
      for (int32_t output_slots = 1; output_slots <= most_slots; ++output_slots) {
        for (int64_t across = 1; across <= columns_; across *= 2) {
          const int32_t tile_columns = DivideUp(columns_, across);
          if (tile_columns > kMostThreads) continue;
          for (int64_t down = 1; down < int64_t{2} * rows_; down *= 2) {
            const int32_t tile_rows = DivideUp(rows_, down);
            const bool whole = across == 1 && down == 1;
            for (int32_t samples = 1; samples <= (whole ? 8 : 1); ++samples) {
              Consider(outputs, output_slots, tile_rows, tile_columns, samples);
            }
          }
        }
      }
    }
    return best_;
  }

 private:
  void Consider(int32_t outputs, int32_t output_slots, int32_t tile_rows, int32_t tile_columns, int32_t samples) {
    ConvTiling t;
    t.cell_rows = cell_rows_;
    t.cell_columns = cell_columns_;
    t.tile_rows = tile_rows;
    t.tile_columns = tile_columns;
    t.samples = samples;
    t.outputs = outputs;
    t.output_slots = output_slots;
    const int64_t cells = int64_t{tile_rows} * tile_columns * samples;
    if (cells > kMostThreads) return;
    t.slots = RoundUp(cells, 32);
    if (t.threads() > kMostThreads) return;
    t.patch_rows = (tile_rows * cell_rows_ - 1) * shape_.stride_y + (shape_.kernel_height - 1) * shape_.dilation_y + 1;
    const int32_t patch_columns =
        (tile_columns * cell_columns_ - 1) * shape_.stride_x + (shape_.kernel_width - 1) * shape_.dilation_x + 1;
    t.patch_columns = RoundUp(patch_columns, 2);
    const int32_t pack = static_cast<int32_t>(16 / bytes_);
    t.slot_step = RoundUp(outputs, outputs >= pack ? pack : outputs >= 2 ? 2 : 1);
    t.weight_step = output_slots * t.slot_step;
    // Make it an odd number of packs, so that threads that load neighbouring taps write to
    // different banks.
    if (t.weight_step % (2 * pack) == 0) t.weight_step += pack;
    const int64_t patch = int64_t{t.patch_rows} * t.patch_columns * samples;
    const int64_t weights = int64_t{shape_.taps()} * t.weight_step;
    // Both arrays are rounded up to 16 bytes.
    const int64_t fit = (kConvSharedBytes - 32) / ((patch + weights) * bytes_);
    if (fit == 0) return;
    t.channel_block = static_cast<int32_t>(std::min<int64_t>(shape_.channels, fit));
    t.channel_block = DivideUp(shape_.channels, DivideUp(shape_.channels, t.channel_block));
    const double cycles = Cycles(t, patch, weights);
    if (cycles < cycles_) {
      cycles_ = cycles;
      best_ = t;
    }
  }

  double Cycles(const ConvTiling& t, int64_t patch, int64_t weights) const {
    const int64_t blocks = t.TileBlocks(shape_) * t.OutputBlocks(shape_);
    // Costs of one channel: multiply-adds, packs of weights, and elements of x. If rows slide, a
    // row of taps loads only one new row of x.
    const bool slides = shape_.stride_y == 1 && shape_.dilation_y == 1;
    const double segment = (t.cell_columns - 1) * shape_.stride_x + (shape_.kernel_width - 1) * shape_.dilation_x + 1;
    const double segments = slides ? shape_.kernel_height + t.cell_rows - 1 : shape_.kernel_height * t.cell_rows;
    const double loads = shape_.taps() * std::ceil(static_cast<double>(t.outputs) * static_cast<double>(bytes_) / 16) +
                         segments * segment / (t.cell_columns % 2 == 0 ? 2 : 1);
    const double adds = shape_.taps() * t.outputs * t.cell_rows * t.cell_columns;
    const double thread = shape_.channels * (adds * CyclesOfProduct() + 1.5 * loads);
    // Counting shows that an element of x takes 24 instructions on its way to shared memory, and a
    // weight 48.
    const double bringing =
        shape_.channels * (24.0 * static_cast<double>(patch) + 48.0 * static_cast<double>(weights)) / 32;
    const double warps = t.threads() / 32.0;
    const double on_one = std::ceil(static_cast<double>(blocks) / kMultiprocessors);
    const double issued = std::ceil(on_one * warps / 4) * thread + on_one * bringing / 4;
    // Blocks that do not fit beside each other wait, and each block waits for memory in each round
    // of channels.
    const double beside = t.BlocksBeside(shape_, bytes_);
    const double rounds = DivideUp(shape_.channels, t.channel_block);
    const double alone = std::ceil(on_one / beside) * (rounds * kWait + 1.5 * thread);
    return std::max(issued, alone) + rounds * kWait / std::min(beside, on_one);
  }

  // A float64 product takes twice the time of a float32 one on GPUs with many float64 units, and 32
  // times as long on others.
  double CyclesOfProduct() const { return bytes_ == 8 ? 2 : 1; }

  const ConvShape& shape_;
  const int64_t bytes_;
  const int32_t cell_rows_, cell_columns_;
  const int32_t rows_, columns_;  // Size of the result in cells.
  double cycles_ = std::numeric_limits<double>::infinity();
  std::optional<ConvTiling> best_;
};

}  // namespace

int64_t ConvTiling::TileBlocks(const ConvShape& shape) const {
  return int64_t{DivideUp(shape.samples, samples)} * DivideUp(shape.output_height, int64_t{tile_rows} * cell_rows) *
         DivideUp(shape.output_width, int64_t{tile_columns} * cell_columns);
}

int64_t ConvTiling::OutputBlocks(const ConvShape& shape) const {
  return int64_t{shape.groups} * DivideUp(shape.outputs, int64_t{outputs} * output_slots);
}

int32_t ConvTiling::BlocksBeside(const ConvShape& shape, int64_t element_bytes) const {
  const int64_t of_channel = int64_t{patch_rows} * patch_columns * samples + int64_t{shape.taps()} * weight_step;
  const int64_t shared = 200'000 / (of_channel * channel_block * element_bytes);
  const int64_t registers = outputs * cell_rows * cell_columns * (element_bytes / 4) + 48;
  const int64_t in_registers = 65'536 / (registers * threads());
  return static_cast<int32_t>(std::clamp<int64_t>(std::min({1536 / int64_t{threads()}, shared, in_registers}), 1, 24));
}

bool HasGeneratedConvolution(const Graph& graph, const Node& node, int most_channels) {
  if (node.op->kind != OpKind::kConv2D && !IsInputGrad(node)) return false;
  const TensorType& result = node.outputs[0];
  for (Port port : {node.inputs[0], node.inputs[1], Port{node.id, 0}}) {
    const int64_t elements = graph.type(port).shape.num_elements().size();
    if (elements == 0 || elements > INT32_MAX) return false;
  }
  if (!IsFloating(result.dtype) || !ConvShape::Fits(GeometryOf(graph, node))) return false;
  const ConvShape shape = ShapeOf(graph, node);
  // With strides, the gradient has elements between those that contributed to a result.
  if (IsInputGrad(node) && (shape.stride_y != 1 || shape.stride_x != 1)) return false;
  return shape.taps() > 1 && shape.taps() <= kMostTaps && shape.stride_x <= kMostApart &&
         shape.dilation_x * (shape.kernel_width - 1) <= kMostApart &&
         std::max(shape.channels, shape.outputs) <= most_channels;
}

bool CanPoolCells(const Node& pool) {
  if (pool.op->kind != OpKind::kAvgPool2D && pool.op->kind != OpKind::kMaxPool2D) return false;
  const Integers& window = pool.attribute<Integers>("window");
  const Integers& padding = pool.attribute<Integers>("padding");
  return window == pool.attribute<Integers>("stride") && window[0] <= kMostCell && window[1] <= kMostCell &&
         window[0] * window[1] <= kMostCell && pool.outputs[0].shape.num_elements().size() > 0 &&
         std::all_of(padding.begin(), padding.end(), [](int64_t amount) { return amount == 0; });
}

std::optional<ConvGroupProgram> MakeConvProgram(const Graph& graph, const Node& convolution,
                                                const std::vector<NodeId>& nodes, const Node* pool,
                                                const absl::flat_hash_set<Port>& outputs) {
  ConvGroupProgram result;
  ConvProgram& program = result.program;
  program.dtype = convolution.outputs[0].dtype;
  program.shape = ShapeOf(graph, convolution);
  program.has_bias = convolution.inputs.size() == 3;
  int32_t cell_rows = std::min(program.shape.output_height, 2), cell_columns = std::min(program.shape.output_width, 2);
  if (pool != nullptr) {
    const Integers& window = pool->attribute<Integers>("window");
    cell_rows = static_cast<int32_t>(window[0]);
    cell_columns = static_cast<int32_t>(window[1]);
  }
  const std::optional<ConvTiling> tiling =
      TilingSearch(program.shape, DTypeSize(program.dtype), cell_rows, cell_columns).Run();
  if (!tiling.has_value() || tiling->TileBlocks(program.shape) > INT32_MAX ||
      tiling->OutputBlocks(program.shape) > kMostBlocksAlongY)
    return std::nullopt;
  program.tiling = *tiling;

  const std::optional<FusedChainProgram> chain =
      BuildFusedChain(graph, nodes,
                      {.outputs = outputs,
                       .produced = Port{convolution.id, 0},
                       .pooled = pool == nullptr ? std::nullopt : std::optional<Port>(pool->inputs[0])});
  if (!chain.has_value()) return std::nullopt;
  program.program = chain->program;
  result.operands.assign(convolution.inputs.begin(), convolution.inputs.end());
  for (Port port : chain->operands) {
    auto found = std::find(result.operands.begin(), result.operands.end(), port);
    program.operands.push_back(static_cast<int>(found - result.operands.begin()));
    if (found == result.operands.end()) result.operands.push_back(port);
  }
  result.outputs = chain->outputs;
  for (size_t i = 0; i < result.outputs.size(); ++i) program.outputs.push_back(static_cast<int>(i));
  if (pool != nullptr) {
    const Shape& pooled = pool->outputs[0].shape;
    program.pool = ConvPool{pool->op->kind == OpKind::kMaxPool2D, static_cast<int32_t>(pooled[2].size()),
                            static_cast<int32_t>(pooled[3].size())};
    for (int i = 0; i < static_cast<int>(pool->outputs.size()); ++i) result.outputs.push_back({pool->id, i});
  }
  return result;
}

}  // namespace gradweave
