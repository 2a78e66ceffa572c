#include "gradweave/runtime/cpu/rows/row_program.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cpu/conv/conv_kernels.h"
#include "gradweave/runtime/cpu/conv/implicit_conv.h"
#include "gradweave/runtime/cpu/conv/packed_filter.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/product/gemm.h"
#include "gradweave/runtime/cpu/product/matmul_product.h"
#include "gradweave/runtime/cpu/rows/row_choices.h"
#include "gradweave/runtime/cpu/rows/row_lowering.h"
#include "gradweave/runtime/cpu/rows/sample_convolution.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"

namespace gradweave {
namespace {

// The working set of a block of rows should stay in the first-level cache.
constexpr int64_t kBlockBytes = 24 << 10;
// No chunk of many instructions has fewer elements.
constexpr int64_t kLeastRowGrain = 2048;

template <typename T>
class RowProgram {
 public:
  explicit RowProgram(const RowRegionRequest& request);

  absl::Status Run(const KernelArguments& arguments) const;
  Kernel Describe() const;

 private:
  // A block of rows, or of some of their columns, that one thread runs.
  struct Block {
    const KernelArguments& arguments;
    int64_t begin = 0, rows = 0, column = 0, columns = 0;
    T* scratch;
    T* partials;
    T* row_sums;
    T* product = nullptr;  // Rows of the product's block are product_step apart.
    int64_t product_step = 0;
  };
  // The parts of a run's scratch: for the producer, for samples of a convolution, for values
  // between instructions, for partial sums of tasks and sums of all rows, and for a packed filter.
  struct Areas {
    const KernelArguments& arguments;
    std::byte *product, *samples = nullptr;
    T *scratch = nullptr, *partials = nullptr, *row_sums = nullptr;
    std::byte* kept = nullptr;
  };
  static constexpr T kNumbers[] = {0, 1};
  static bool HasColumns(RowExtent extent) {
    return extent == RowExtent::kFull || extent == RowExtent::kPerColumn || extent == RowExtent::kFullPeriodic;
  }
  // Measures the instructions of one thread in a profiled run.
  class Stopwatch {
   public:
    Stopwatch(Profiler* profiler, int thread)
        : profiler_(profiler), thread_(thread), time_(profiler == nullptr ? 0 : profiler->Now()) {}
    void Lap(size_t instruction) {
      if (profiler_ == nullptr) return;
      const double now = profiler_->Now();
      profiler_->AddPart(thread_, static_cast<int>(instruction), now - std::exchange(time_, now));
    }

   private:
    Profiler* const profiler_;
    const int thread_;
    double time_;
  };

  int64_t ChunkElements() const;
  void ChooseBlocks(bool whole_rows);
  void PlaceInScratch();
  // Returns the distance between rows of a block.
  int64_t RowStep(const RowPlace& place, const Block& block) const {
    if (place.extent != RowExtent::kFull) return place.extent == RowExtent::kPerRow ? 1 : 0;
    return place.window.step > 0              ? place.window.step
           : place.kind == RowPlace::kScratch ? block.columns
           : place.kind == RowPlace::kProduct ? block.product_step
                                              : columns_;
  }
  // Returns the address of a row's first element in the block, or of the row's number. In scratch
  // and in a product, `row` must be the first one of the block.
  void* Address(const RowPlace& place, const Block& block, int64_t row) const;
  void* Address(const RowPlace& place, const Block& block) const { return Address(place, block, block.begin); }
  void RunElements(const RowInstruction& instruction, const Block& block) const;
  void RunInstruction(const RowInstruction& instruction, const Block& block) const;
  // Runs all instructions behind the producer, on a few rows at a time.
  void RunRows(const Block& rows, Stopwatch& stopwatch) const;
  // Returns a block without rows, and clears the task's partial sums.
  Block StartTask(const Areas& areas, int64_t task, int thread) const;
  Areas AreasOf(const KernelArguments& arguments) const;
  size_t AreaBytes() const;
  // The elements of a task's partial sums, and the tasks that have some.
  int64_t partial_elements() const { return static_cast<int64_t>(code_.sums.size()) * columns_; }
  int64_t tasks() const { return product_.has_value() ? product_->tasks() : chunks_.number; }
  void RunChunks(const Areas& areas) const;
  void RunProduct(const Areas& areas) const;
  void RunConvolution(const Areas& areas) const;
  void RunImplicit(const Areas& areas) const;
  bool has_producer() const { return product_.has_value() || convolution_.has_value() || implicit_.has_value(); }

  const int threads_;
  int64_t rows_, columns_;
  RowCode code_;
  int64_t block_rows_ = 1, block_columns_ = 1;
  int64_t column_blocks_ = 1;     // Blocks of a row, if chunks contain parts of rows.
  int64_t scratch_elements_ = 0;  // Per thread.
  Chunks chunks_{0, 1};
  // At most one of them has a value, and replaces the chunks.
  std::optional<MatMulProduct> product_;
  std::optional<SampleConvolution> convolution_;
  std::optional<ImplicitConvolution> implicit_;
  int64_t outputs_ = 0, width_ = 0;  // Channels and columns of the implicit convolution's result.
  size_t product_bytes_ = 0;         // Bytes of the workspaces of all threads.
  size_t sample_bytes_ = 0;          // Bytes of a convolution's sample in scratch, per thread.
};

template <typename T>
RowProgram<T>::RowProgram(const RowRegionRequest& request)
    : threads_(request.threads), rows_(request.region.rows), columns_(request.region.columns) {
  const Graph& graph = request.graph;
  const RowRegion& region = request.region;
  const Node* const producer = region.has_producer ? &graph.node(region.nodes[0].node) : nullptr;
  const bool is_convolution = producer != nullptr && producer->op->kind == OpKind::kConv2D;
  const bool by_samples = is_convolution && !MakesBlocks(graph, *producer, region, request.toom_cook);
  code_ = LowerRows(graph, region, by_samples, request.windows);
  if (!request.windows.empty()) {
    rows_ = rows_ * columns_ / request.window_columns;
    columns_ = request.window_columns;
  } else if (IsFlat(graph, region)) {
    rows_ *= columns_;
    columns_ = 1;
  }
  const bool whole_rows = NeedsWholeRows(graph, region);
  if (by_samples) {
    convolution_.emplace(graph, *producer, threads_, request.toom_cook);
    product_bytes_ = convolution_->scratch_bytes();
    if (code_.product_output < 0) sample_bytes_ = RoundUp(static_cast<size_t>(convolution_->sample_bytes()), 64);
  } else if (is_convolution) {
    const TensorTypes operands = graph.OperandTypes(*producer);
    const Shape& y = producer->outputs[0].shape;
    implicit_ = ImplicitConvolution::Forward({*producer, operands[0].shape, operands[1].shape, y}, threads_);
    outputs_ = y[1].size();
    width_ = y[3].size();
    product_bytes_ = threads_ * implicit_->workspace_bytes();
  } else if (std::is_same_v<T, float> && producer != nullptr) {
    product_ = CutProduct(MatMulSizes(*producer, graph.OperandTypes(*producer)), whole_rows, threads_);
    product_bytes_ = threads_ * product_->workspace_bytes(true);
  }
  ChooseBlocks(whole_rows);
  PlaceInScratch();
}

// Returns the least elements of a chunk. Many instructions make a small chunk worth a thread's
// while. Sums have the chunks of other sums, for equal bits.
template <typename T>
int64_t RowProgram<T>::ChunkElements() const {
  if (!code_.sums.empty()) return kRowGrain;
  int64_t elements = kRowGrain;
  for (size_t most = 3; most < code_.instructions.size() && elements > kLeastRowGrain; most = 2 * most + 1) {
    elements /= 2;
  }
  return elements;
}

// Long rows are divided, too, if no node needs whole rows.
template <typename T>
void RowProgram<T>::ChooseBlocks(bool whole_rows) {
  constexpr int64_t kLeastColumns = 256;
  const int64_t floats_per_column = code_.full_slots + code_.streams + has_producer();
  const int64_t most = kBlockBytes / (std::max<int64_t>(floats_per_column, 1) * static_cast<int64_t>(sizeof(T)));
  block_columns_ = product_.has_value() ? std::min(columns_, product_->block_columns()) : columns_;
  if (!whole_rows && !product_.has_value() && columns_ > most) {
    block_columns_ = std::min(columns_, std::max(kLeastColumns, most / kLeastColumns * kLeastColumns));
    if (!has_producer()) column_blocks_ = DivideUp(columns_, block_columns_);
  }
  const int64_t grain = std::max<int64_t>(1, ChunkElements() / block_columns_);
  chunks_ = code_.sums.empty() ? Chunks(rows_ * column_blocks_, grain) : Chunks(rows_, grain, kMostRowPartials);
  const int64_t most_rows = has_producer() ? rows_ : chunks_.size;
  block_rows_ = std::max<int64_t>(1, std::min(most_rows, most / block_columns_));
}

template <typename T>
void RowProgram<T>::PlaceInScratch() {
  const int64_t slot = RoundUp(block_rows_ * block_columns_, 16), numbers = RoundUp(block_rows_, 16);
  scratch_elements_ = code_.full_slots * slot + code_.number_slots * numbers;
  auto place = [&](RowPlace& value) {
    if (value.kind != RowPlace::kScratch) return;
    value.offset =
        value.extent == RowExtent::kFull ? value.index * slot : code_.full_slots * slot + value.index * numbers;
  };
  for (RowInstruction& instruction : code_.instructions) {
    for (RowPlace& operand : instruction.operands) place(operand);
    place(instruction.result);
  }
}

template <typename T>
void* RowProgram<T>::Address(const RowPlace& place, const Block& block, int64_t row) const {
  int64_t offset = place.window.column + (HasColumns(place.extent) ? block.column : 0);
  if (place.period > 1) {
    offset += row / place.repeat % place.period * (place.extent == RowExtent::kFullPeriodic ? columns_ : 1);
  } else {
    offset += row * RowStep(place, block);
  }
  offset *= place.bytes;
  switch (place.kind) {
    case RowPlace::kOperand:
      return const_cast<std::byte*>(block.arguments.template operand<std::byte>(place.index)) + offset;
    case RowPlace::kOutput:
      return block.arguments.template output<std::byte>(place.index) + offset;
    case RowPlace::kScratch:
      return block.scratch + place.offset;
    case RowPlace::kProduct:
      return block.product;
    case RowPlace::kPartial:
      return block.partials + place.offset + block.column;
    case RowPlace::kRowSums:
      return block.row_sums + place.offset + row;
    case RowPlace::kNumber:
      return const_cast<T*>(&kNumbers[place.index]);
  }
  return nullptr;
}

template <typename T>
void RowProgram<T>::RunElements(const RowInstruction& instruction, const Block& block) const {
  const RowPlace& result = instruction.result;
  std::byte* y = static_cast<std::byte*>(Address(result, block));
  // True if the rows of the result are contiguous, as those of the operands are.
  const int64_t row = result.extent == RowExtent::kFull ? block.columns : 1;
  bool whole = RowStep(result, block) == row;
  LoopOperand operands[3];
  for (size_t k = 0; k < instruction.operands.size(); ++k) {
    const RowPlace& place = instruction.operands[k];
    operands[k].data = Address(place, block);
    whole = whole &&
            (place.extent == RowExtent::kScalar || (place.extent == result.extent && RowStep(place, block) == row));
  }
  const double* numbers = instruction.numbers.data();
  if (whole) {
    for (size_t k = 0; k < instruction.operands.size(); ++k)
      operands[k].is_vector = instruction.operands[k].extent == result.extent;
    instruction.loop(operands, y, block.rows * row, numbers);
    return;
  }
  for (size_t k = 0; k < instruction.operands.size(); ++k) {
    operands[k].is_vector = HasColumns(instruction.operands[k].extent);
  }
  for (int64_t r = 0; r < block.rows; ++r) {
    instruction.loop(operands, y + r * RowStep(result, block) * result.bytes, row, numbers);
    for (size_t k = 0; k < instruction.operands.size(); ++k) {
      const RowPlace& place = instruction.operands[k];
      operands[k].data = place.period > 1
                             ? Address(place, block, block.begin + r + 1)
                             : static_cast<const std::byte*>(operands[k].data) + RowStep(place, block) * place.bytes;
    }
  }
}

template <typename T>
void RowProgram<T>::RunInstruction(const RowInstruction& instruction, const Block& block) const {
  const RowLoops<T>& loops = GetRowLoops<T>();
  const RowPlace& first = instruction.operands[0];
  const RowPlace& result = instruction.result;
  const T* x = static_cast<const T*>(Address(first, block));
  T* y = static_cast<T*>(Address(result, block));
  const int64_t n = block.columns, step_x = RowStep(first, block), step_y = RowStep(result, block);
  switch (instruction.action) {
    case RowAction::kProduct:
      return;
    case RowAction::kElements:
      RunElements(instruction, block);
      return;
    case RowAction::kRowSum:
      for (int64_t r = 0; r < block.rows; ++r) y[r] = RowSum(loops, x + r * step_x, n);
      return;
    case RowAction::kRowMax:
      for (int64_t r = 0; r < block.rows; ++r) y[r] = loops.max(x + r * step_x, n);
      return;
    case RowAction::kSoftmax:
      for (int64_t r = 0; r < block.rows; ++r) SoftmaxRow(loops, x + r * step_x, y + r * step_y, n);
      return;
    case RowAction::kSumRows:
      for (int64_t r = 0; r < block.rows; ++r) loops.accumulate(x + r * step_x, y, n);
      return;
  }
}

template <typename T>
void RowProgram<T>::RunRows(const Block& rows, Stopwatch& stopwatch) const {
  Block block = rows;
  for (int64_t r = 0; r < rows.rows; r += block.rows) {
    block.begin = rows.begin + r;
    block.rows = std::min(block_rows_, rows.rows - r);
    for (int64_t c = 0; c < rows.columns; c += block.columns) {
      block.column = rows.column + c;
      block.columns = std::min(block_columns_, rows.columns - c);
      if (rows.product != nullptr) block.product = rows.product + r * rows.product_step + c;
      for (size_t i = rows.product != nullptr; i < code_.instructions.size(); ++i) {
        RunInstruction(code_.instructions[i], block);
        stopwatch.Lap(i);
      }
    }
  }
}

template <typename T>
typename RowProgram<T>::Block RowProgram<T>::StartTask(const Areas& areas, int64_t task, int thread) const {
  Block block{.arguments = areas.arguments,
              .columns = columns_,
              .scratch = areas.scratch + thread * scratch_elements_,
              .partials = areas.partials + task * partial_elements(),
              .row_sums = areas.row_sums};
  std::fill(block.partials, block.partials + partial_elements(), T(0));
  return block;
}

template <typename T>
void RowProgram<T>::RunChunks(const Areas& areas) const {
  areas.arguments.pool->ParallelFor(chunks_.number, [&](int64_t task, int thread) {
    if (areas.arguments.stopped()) return;
    Stopwatch stopwatch(areas.arguments.profiler, thread);
    Block block = StartTask(areas, task, thread);
    if (column_blocks_ == 1) {
      block.begin = chunks_.begin(task);
      block.rows = chunks_.end(task) - block.begin;
      RunRows(block, stopwatch);
      return;
    }
    for (int64_t part = chunks_.begin(task); part < chunks_.end(task); ++part) {
      block.begin = part / column_blocks_;
      block.rows = 1;
      block.column = part % column_blocks_ * block_columns_;
      block.columns = std::min(block_columns_, columns_ - block.column);
      RunRows(block, stopwatch);
    }
  });
}

template <typename T>
void RowProgram<T>::RunProduct(const Areas& areas) const {
  if constexpr (std::is_same_v<T, float>) {
    const KernelArguments& arguments = areas.arguments;
    const int a = code_.product_operands[0], b = code_.product_operands[1];
    product_->StartRun(arguments, b, areas.product, threads_, true);
    arguments.pool->ParallelFor(product_->tasks(), [&](int64_t task, int thread) {
      if (arguments.stopped()) return;
      Stopwatch stopwatch(arguments.profiler, thread);
      Block block = StartTask(areas, task, thread);
      product_->RunInBlocks(arguments.operand<float>(a), arguments.operand<float>(b), task,
                            areas.product + thread * (product_bytes_ / threads_),
                            [&](const Product::Block& made, float* product, int64_t step) {
                              stopwatch.Lap(0);
                              block.begin = made.row;
                              block.rows = made.rows;
                              block.column = made.column;
                              block.columns = made.columns;
                              block.product = product;
                              block.product_step = step;
                              RunRows(block, stopwatch);
                            });
    });
  }
}

template <typename T>
void RowProgram<T>::RunConvolution(const Areas& areas) const {
  const KernelArguments& arguments = areas.arguments;
  const int64_t outputs = convolution_->outputs();
  const bool has_bias = code_.product_operands.size() == 3;
  const SampleConvolution::Run run{.arguments = arguments,
                                   .x = arguments.operand<std::byte>(code_.product_operands[0]),
                                   .filter = arguments.operand<void>(code_.product_operands[1]),
                                   .bias = has_bias ? arguments.operand<void>(code_.product_operands[2]) : nullptr,
                                   .scratch = areas.product,
                                   .kept = arguments.kept != nullptr ? arguments.kept : areas.kept};
  const OneBlasThread one_thread = convolution_->HoldBlas();
  auto result_of = [&](int64_t sample, int thread) {
    return code_.product_output < 0
               ? areas.samples + thread * sample_bytes_
               : arguments.output<std::byte>(code_.product_output) + sample * convolution_->sample_bytes();
  };
  auto run_rows = [&](int64_t sample, std::byte* y, int64_t first, int64_t last, int thread, Stopwatch& stopwatch) {
    Block block = StartTask(areas, 0, thread);
    block.begin = sample * outputs + first;
    block.rows = last - first;
    block.product = reinterpret_cast<T*>(y) + first * columns_;
    block.product_step = columns_;
    RunRows(block, stopwatch);
  };
  const bool packs_first = convolution_->PacksFirst(arguments);
  if (packs_first) {
    std::byte* const y = result_of(0, 0);
    Stopwatch stopwatch(arguments.profiler, 0);
    convolution_->ComputeFirst(run, y);
    stopwatch.Lap(0);
    const Chunks rows(outputs, std::max<int64_t>(1, kRowGrain / columns_));
    arguments.pool->ParallelFor(rows.number, [&](int64_t chunk, int thread) {
      Stopwatch own(arguments.profiler, thread);
      run_rows(0, y, rows.begin(chunk), rows.end(chunk), thread, own);
    });
  }
  arguments.pool->ParallelFor(convolution_->samples() - packs_first, [&](int64_t i, int thread) {
    if (arguments.stopped()) return;
    Stopwatch stopwatch(arguments.profiler, thread);
    std::byte* const y = result_of(i + packs_first, thread);
    convolution_->Compute(run, i + packs_first, thread, y);
    stopwatch.Lap(0);
    run_rows(i + packs_first, y, 0, outputs, thread, stopwatch);
  });
}

template <typename T>
void RowProgram<T>::RunImplicit(const Areas& areas) const {
  if constexpr (std::is_same_v<T, float>) {
    const KernelArguments& arguments = areas.arguments;
    const absl::InlinedVector<int, 3>& operands = code_.product_operands;
    const ImplicitConvolution::Filter filter = PackFilter(*implicit_, arguments, operands[1], areas.kept);
    const float* const bias = operands.size() == 3 ? arguments.operand<float>(operands[2]) : nullptr;
    arguments.pool->ParallelFor(implicit_->tasks(), [&](int64_t task, int thread) {
      if (arguments.stopped()) return;
      Stopwatch stopwatch(arguments.profiler, thread);
      Block block = StartTask(areas, 0, thread);
      implicit_->RunInBlocks(arguments.operand<float>(operands[0]), filter, bias, task,
                             areas.product + thread * implicit_->workspace_bytes(),
                             [&](const ImplicitConvolution::Block& made, float* y, int64_t step) {
                               stopwatch.Lap(0);
                               block.begin = made.sample * outputs_ + made.channel;
                               block.rows = made.channels;
                               block.product_step = step;
                               // Whole rows of pixels are neighbours in the result.
                               const int64_t at_a_time = made.columns == width_ ? made.rows : 1;
                               for (int64_t row = 0; row < made.rows; row += at_a_time) {
                                 block.column = (made.row + row) * width_ + made.column;
                                 block.columns = at_a_time * made.columns;
                                 block.product = y + row * made.columns;
                                 RunRows(block, stopwatch);
                               }
                             });
    });
  }
}

template <typename T>
absl::Status RowProgram<T>::Run(const KernelArguments& arguments) const {
  const Areas areas = AreasOf(arguments);
  if (product_.has_value()) {
    RunProduct(areas);
  } else if (convolution_.has_value()) {
    RunConvolution(areas);
  } else if (implicit_.has_value()) {
    RunImplicit(areas);
  } else {
    RunChunks(areas);
  }
  const RowLoops<T>& loops = GetRowLoops<T>();
  auto add_up = [&](const RowSums& sums, const T* x, int64_t number, int64_t step, int64_t size) {
    T* y = arguments.output<T>(sums.output);
    std::fill(y, y + size, T(0));
    for (int64_t i = 0; i < number; ++i) loops.accumulate(x + sums.offset + i * step, y, size);
  };
  for (const RowSums& sums : code_.sums) add_up(sums, areas.partials, tasks(), partial_elements(), columns_);
  for (const RowSums& sums : code_.row_sums)
    add_up(sums, areas.row_sums, rows_ / sums.period, sums.period, sums.period);
  return absl::OkStatus();
}

template <typename T>
typename RowProgram<T>::Areas RowProgram<T>::AreasOf(const KernelArguments& arguments) const {
  Areas areas{.arguments = arguments, .product = arguments.scratch};
  areas.samples = areas.product + product_bytes_;
  areas.scratch = reinterpret_cast<T*>(areas.samples + threads_ * sample_bytes_);
  areas.partials = areas.scratch + threads_ * scratch_elements_;
  areas.row_sums = areas.partials + tasks() * partial_elements();
  areas.kept = arguments.scratch + AreaBytes();
  return areas;
}

template <typename T>
size_t RowProgram<T>::AreaBytes() const {
  const int64_t elements =
      threads_ * scratch_elements_ + tasks() * partial_elements() + static_cast<int64_t>(code_.row_sums.size()) * rows_;
  return RoundUp(product_bytes_ + threads_ * sample_bytes_ + sizeof(T) * elements, 64);
}

template <typename T>
Kernel RowProgram<T>::Describe() const {
  const std::string producer = product_.has_value()       ? "product, "
                               : convolution_.has_value() ? absl::StrCat("convolution (", convolution_->name(), "), ")
                               : implicit_.has_value()    ? absl::StrCat("convolution (", kImplicitProduct, "), ")
                                                          : "";
  Kernel kernel{.name = absl::StrCat(producer, "rows in blocks of ", block_rows_, ", ",
                                     (scratch_elements_ * sizeof(T) + 1023) / 1024, " KiB")};
  kernel.scratch_bytes = kernel.scratch_bytes_with_kept = AreaBytes();
  if (product_.has_value()) {
    kernel.kept_bytes = product_->packed_bytes();
    kernel.kept_layout = product_->packed_layout();
  } else if (convolution_.has_value()) {
    kernel.kept_bytes = convolution_->kept_bytes();
    kernel.kept_layout = convolution_->kept_layout();
    kernel.scratch_bytes += kernel.kept_bytes;
  }
  if (implicit_.has_value()) {
    kernel.kept_bytes = implicit_->packed_floats() * sizeof(float);
    kernel.kept_layout = implicit_->packed_layout();
    if (!implicit_->reads_in_place()) kernel.scratch_bytes += kernel.kept_bytes;
  }
  if (kernel.kept_bytes > 0) kernel.kept_operands = {code_.product_operands[1]};
  kernel.overwrites = code_.overwrites;
  for (const RowInstruction& instruction : code_.instructions)
    kernel.parts.push_back({instruction.name, instruction.node, instruction.flops});
  return kernel;
}

template <typename T>
Kernel MakeTyped(const RowRegionRequest& request) {
  auto program = std::make_shared<const RowProgram<T>>(request);
  Kernel kernel = program->Describe();
  kernel.run = [program](const KernelArguments& arguments) { return program->Run(arguments); };
  return kernel;
}

Kernel MakeRowKernel(const RowRegionRequest& request) {
  return request.region.dtype == kFloat32 ? MakeTyped<float>(request) : MakeTyped<double>(request);
}

}  // namespace

RowRegionCompiler RowCompiler() {
  return {.supports = RowsSupport, .begins = RowsBegin, .pays = RowsPay, .make = MakeRowKernel};
}

}  // namespace gradweave
