#include "gradweave/runtime/cpu/rows/row_program.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/product/matmul_product.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/formula_numbers.h"

namespace gradweave {
namespace {

// Minimum elements of a chunk, and the maximum number of partial sums over rows. They equal those
// of the reduction kernels, for equal bits.
constexpr int64_t kGrain = 16384;
constexpr int64_t kMostPartials = 16;
// The working set of a block of rows should stay in the first-level cache.
constexpr int64_t kBlockBytes = 24 << 10;
// Maximum number of operands that are offered for an output to overwrite, since the planner
// searches all offers.
constexpr size_t kMostOverwrites = 4;
// A product with fewer rows would be divided by columns, but the region needs whole rows.
constexpr int64_t kLeastWholeRows = 64;

bool RowsSupport(const Graph& graph, const Node& node) {
  if (node.op->elementwise) {
    const std::optional<DType> dtype = FloatingDTypeOf(graph, node);
    return dtype.has_value() && FindElementLoop(node.op->name, *dtype).run != nullptr;
  }
  const OpKind op = node.op->kind;
  return IsFloating(node.outputs[0].dtype) && (op == OpKind::kSum || op == OpKind::kMax || op == OpKind::kSoftmax);
}

// Returns true if nodes need whole rows, or sums over them.
bool NeedsWholeRows(const Graph& graph, const RowRegion& region) {
  for (const RowRegion::Member& member : region.nodes) {
    if (member.result != RowExtent::kFull || graph.node(member.node).op->kind == OpKind::kSoftmax) return true;
  }
  return false;
}

// Divides the product into tasks. If sums over rows exist, the division depends on the sizes alone.
MatMulProduct CutProduct(const MatMulSizes& sizes, bool whole_rows, int threads) {
  return whole_rows ? MatMulProduct::OfWholeRows(sizes, kMostPartials) : MatMulProduct(sizes, threads);
}

// Returns true for products whose rows the region can take while they are in a cache.
bool RowsBegin(const Graph& graph, const Node& producer, const RowRegion& region) {
  if (producer.op->kind != OpKind::kMatMul || producer.outputs[0].dtype != kFloat32 ||
      region.columns < ThisMachine().least_row_columns)
    return false;
  const MatMulSizes sizes(producer, graph.OperandTypes(producer));
  if (!MatMulProduct::PaysInRegion(sizes)) return false;
  const bool whole_rows = NeedsWholeRows(graph, region);
  if (whole_rows && region.rows < kLeastWholeRows) return false;
  const MatMulProduct product = CutProduct(sizes, whole_rows, 1);
  return product.MakesBlocks() && (!whole_rows || product.block_columns() >= region.columns);
}

// Returns true if the division into rows is irrelevant: the region is elementwise on whole tensors
// and scalars.
bool IsFlat(const Graph& graph, const RowRegion& region) {
  if (region.has_producer) return false;
  for (const RowRegion::Member& member : region.nodes) {
    if (member.result != RowExtent::kFull || graph.node(member.node).op->kind == OpKind::kSoftmax) return false;
    for (const RowRegion::Operand& operand : member.operands) {
      if (operand.extent != RowExtent::kFull && operand.extent != RowExtent::kScalar) return false;
    }
  }
  return true;
}

// Single nodes are divided by elements, so a few long rows run on more threads without a region.
bool RowsPay(const Graph& graph, const RowRegion& region) {
  if (region.has_producer || IsFlat(graph, region)) return true;
  return region.columns >= ThisMachine().least_row_columns &&
         (region.rows >= kMostPartials || region.rows * region.columns <= 2 * kGrain);
}

template <typename T>
class RowProgram {
 public:
  RowProgram(const Graph& graph, const RowRegion& region, int threads);

  absl::Status Run(const KernelArguments& arguments) const;
  Kernel Describe() const;

 private:
  // Location of a value.
  struct Place {
    enum Kind { kOperand, kOutput, kScratch, kProduct, kPartial } kind = kOperand;
    int index = 0;       // Index of the operand or output, or of the scratch slot for rows or numbers.
    int64_t offset = 0;  // In scratch, the position of a block's first row; for partial sums, of the first column.
    RowExtent extent = RowExtent::kFull;
    int64_t bytes = sizeof(T);  // Size of an element; 1 for bool.
  };
  enum class Action { kProduct, kElements, kRowSum, kRowMax, kSoftmax, kSumRows };
  struct Instruction {
    Action action;
    LoopFunction loop = nullptr;  // Set for kElements.
    FormulaNumbers numbers;
    absl::InlinedVector<Place, 3> operands;
    Place result;
    NodeId node = -1;
    std::string name;
    double flops = 0;
  };
  // A block of rows, or of some of their columns, that one thread runs.
  struct Block {
    const KernelArguments& arguments;
    int64_t begin, rows, column, columns;
    T* scratch;
    T* partials;
    T* product = nullptr;  // Rows of the product's block are product_step apart.
    int64_t product_step = 0;
  };
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

  // The instruction that computes a value and the last one that reads it, and the output and the
  // operand that it is, by the operand's extent too.
  struct RegionValues {
    absl::flat_hash_map<Port, int> maker, last_read, output_of;
    absl::flat_hash_map<std::pair<Port, int>, int> operand_of;
  };
  // Places without further readers: operands, which an output may overwrite, and scratch slots.
  // The first of each are rows, the second have a number for each row.
  struct FreePlaces {
    std::vector<int> operands[2], slots[2];

    static void Append(const std::vector<int> (&from)[2], std::vector<int> (&to)[2]) {
      for (int i : {0, 1}) to[i].insert(to[i].end(), from[i].begin(), from[i].end());
    }
    void AppendOperands(const FreePlaces& other) { Append(other.operands, operands); }
    void AppendSlots(const FreePlaces& other) { Append(other.slots, slots); }
  };
  static int64_t BytesOf(const Graph& graph, Port port) {
    return static_cast<int64_t>(DTypeSize(graph.type(port).dtype));
  }
  static RegionValues FindValues(const RowRegion& region);
  static Instruction MakeInstruction(const Graph& graph, const RowRegion& region, const RowRegion::Member& member);
  // Adds the places of the instruction's operands, and returns those that it is the last to read.
  FreePlaces PlaceOperands(const Graph& graph, const RowRegion::Member& member, const RegionValues& values,
                           Instruction& instruction);
  // Chooses the place of the result, whose size of an element is set.
  void PlaceResult(const RowRegion::Member& member, const RegionValues& values, FreePlaces& free, Place& result);
  void Lower(const Graph& graph, const RowRegion& region);
  void PlaceInScratch();
  // Returns the distance between rows of a block.
  int64_t RowStep(const Place& place, const Block& block) const {
    if (place.extent != RowExtent::kFull) return place.extent == RowExtent::kPerRow ? 1 : 0;
    return place.kind == Place::kScratch   ? block.columns
           : place.kind == Place::kProduct ? block.product_step
                                           : columns_;
  }
  void* Address(const Place& place, const Block& block) const;
  void RunElements(const Instruction& instruction, const Block& block) const;
  void RunInstruction(const Instruction& instruction, const Block& block) const;
  // Runs all instructions behind the product, on a few rows at a time.
  void RunRows(Block rows, Stopwatch& stopwatch) const;

  const int threads_;
  int64_t rows_, columns_;
  std::vector<Instruction> instructions_;
  absl::InlinedVector<std::pair<int, int>, 2> overwrites_;
  struct RowSums {
    int output;
    int64_t offset;
  };
  std::vector<RowSums> sums_;
  int full_slots_ = 0, number_slots_ = 0, streams_ = 0;
  int64_t block_rows_ = 1, scratch_elements_ = 0;  // Per thread.
  Chunks chunks_{0, 1};
  std::optional<MatMulProduct> product_;  // Used instead of chunks. The indices of its operands follow.
  int product_a_ = 0, product_b_ = 0;
  size_t workspace_bytes_ = 0;  // Per thread.
};

template <typename T>
RowProgram<T>::RowProgram(const Graph& graph, const RowRegion& region, int threads)
    : threads_(threads), rows_(region.rows), columns_(region.columns) {
  Lower(graph, region);
  if (IsFlat(graph, region)) {
    rows_ *= columns_;
    columns_ = 1;
  }
  if constexpr (std::is_same_v<T, float>) {
    if (region.has_producer) {
      const Node& node = graph.node(region.nodes[0].node);
      product_ = CutProduct(MatMulSizes(node, graph.OperandTypes(node)), NeedsWholeRows(graph, region), threads);
      workspace_bytes_ = product_->workspace_bytes(true);
    }
  }
  const int64_t grain = std::max<int64_t>(1, kGrain / columns_);
  chunks_ = sums_.empty() ? Chunks(rows_, grain) : Chunks(rows_, grain, kMostPartials);
  PlaceInScratch();
}

template <typename T>
typename RowProgram<T>::RegionValues RowProgram<T>::FindValues(const RowRegion& region) {
  RegionValues values;
  for (size_t i = 0; i < region.nodes.size(); ++i) {
    values.maker[{region.nodes[i].node, 0}] = static_cast<int>(i);
    for (const RowRegion::Operand& operand : region.nodes[i].operands)
      values.last_read[operand.port] = static_cast<int>(i);
  }
  for (size_t i = 0; i < region.outputs.size(); ++i) values.output_of[region.outputs[i].port] = static_cast<int>(i);
  for (size_t i = 0; i < region.operands.size(); ++i) {
    const RowRegion::Operand& operand = region.operands[i];
    values.operand_of[{operand.port, static_cast<int>(operand.extent)}] = static_cast<int>(i);
  }
  return values;
}

template <typename T>
typename RowProgram<T>::Instruction RowProgram<T>::MakeInstruction(const Graph& graph, const RowRegion& region,
                                                                   const RowRegion::Member& member) {
  const Node& node = graph.node(member.node);
  Instruction instruction{.action = Action::kElements, .node = member.node, .name = node.op->name};
  if (node.op->flops != nullptr) {
    const TensorTypes types = graph.OperandTypes(node);
    instruction.flops = node.op->flops(OpView(*node.op, node.attributes, types), node.outputs);
  }
  if (node.op->elementwise) {
    instruction.loop = FindElementLoop(node.op->name, region.dtype).run;
    instruction.numbers = NumbersOf(node);
  } else if (node.op->kind == OpKind::kSoftmax) {
    instruction.action = Action::kSoftmax;
  } else if (node.op->kind == OpKind::kMax) {
    instruction.action = Action::kRowMax;
  } else {
    instruction.action = member.result == RowExtent::kPerRow ? Action::kRowSum : Action::kSumRows;
  }
  return instruction;
}

template <typename T>
typename RowProgram<T>::FreePlaces RowProgram<T>::PlaceOperands(const Graph& graph, const RowRegion::Member& member,
                                                                const RegionValues& values, Instruction& instruction) {
  const int position = static_cast<int>(instructions_.size());
  FreePlaces last_read;
  for (size_t k = 0; k < member.operands.size(); ++k) {
    const RowRegion::Operand& operand = member.operands[k];
    const bool is_last_read = values.last_read.at(operand.port) == position;
    if (const auto made = values.maker.find(operand.port); made != values.maker.end()) {
      const Place& place = instructions_[made->second].result;
      instruction.operands.push_back(place);
      const bool again = std::any_of(member.operands.begin(), member.operands.begin() + k,
                                     [&](const RowRegion::Operand& other) { return other.port == operand.port; });
      if (place.kind == Place::kScratch && is_last_read && !again)
        last_read.slots[place.extent != RowExtent::kFull].push_back(place.index);
    } else {
      const int index = values.operand_of.at({operand.port, static_cast<int>(operand.extent)});
      const int64_t bytes = BytesOf(graph, operand.port);
      instruction.operands.push_back(
          {.kind = Place::kOperand, .index = index, .extent = operand.extent, .bytes = bytes});
      const bool has_rows = operand.extent == RowExtent::kFull || operand.extent == RowExtent::kPerRow;
      if (has_rows && bytes == sizeof(T) && is_last_read)
        last_read.operands[operand.extent != RowExtent::kFull].push_back(index);
    }
  }
  return last_read;
}

template <typename T>
void RowProgram<T>::PlaceResult(const RowRegion::Member& member, const RegionValues& values, FreePlaces& free,
                                Place& result) {
  result.extent = member.result;
  const bool is_full = member.result == RowExtent::kFull;
  const auto output = values.output_of.find({member.node, 0});
  if (member.result == RowExtent::kPerColumn) {
    result.kind = Place::kPartial;
    result.offset = static_cast<int64_t>(sums_.size()) * columns_;
    sums_.push_back({output->second, result.offset});
  } else if (output != values.output_of.end()) {
    result.kind = Place::kOutput;
    result.index = output->second;
    const std::vector<int>& choices = free.operands[!is_full];
    const size_t number = result.bytes == sizeof(T) ? std::min(choices.size(), kMostOverwrites) : 0;
    for (size_t c = choices.size() - number; c < choices.size(); ++c) overwrites_.push_back({choices[c], result.index});
    streams_ += is_full;
  } else {
    result.kind = Place::kScratch;
    std::vector<int>& slots = free.slots[!is_full];
    if (slots.empty()) slots.push_back(is_full ? full_slots_++ : number_slots_++);
    result.index = slots.back();
    slots.pop_back();
  }
}

// Values that leave the region go to outputs, others to scratch slots, which are reused after the
// last read. A node may overwrite its operands.
template <typename T>
void RowProgram<T>::Lower(const Graph& graph, const RowRegion& region) {
  const RegionValues values = FindValues(region);
  for (const RowRegion::Operand& operand : region.operands) streams_ += operand.extent == RowExtent::kFull;
  FreePlaces free;
  for (const RowRegion::Member& member : region.nodes) {
    Instruction instruction = MakeInstruction(graph, region, member);
    if (instructions_.empty() && region.has_producer) {
      instruction.action = Action::kProduct;
      instruction.result = {.kind = Place::kProduct};
      product_a_ = values.operand_of.at({member.operands[0].port, static_cast<int>(RowExtent::kWhole)});
      product_b_ = values.operand_of.at({member.operands[1].port, static_cast<int>(RowExtent::kWhole)});
    } else {
      const FreePlaces last_read = PlaceOperands(graph, member, values, instruction);
      Place& result = instruction.result;
      result.bytes = BytesOf(graph, {member.node, 0});
      free.AppendOperands(last_read);
      // The result may lie where an operand does, if their elements have one size.
      const bool one_size = std::all_of(instruction.operands.begin(), instruction.operands.end(),
                                        [&](const Place& place) { return place.bytes == result.bytes; });
      if (one_size) free.AppendSlots(last_read);
      PlaceResult(member, values, free, result);
      if (!one_size) free.AppendSlots(last_read);
    }
    instructions_.push_back(std::move(instruction));
  }
}

template <typename T>
void RowProgram<T>::PlaceInScratch() {
  const int64_t columns = product_.has_value() ? std::min(columns_, product_->block_columns()) : columns_;
  const int64_t most_rows = product_.has_value() ? rows_ : chunks_.size;
  const int64_t row_bytes = (full_slots_ + streams_ + product_.has_value()) * columns * static_cast<int64_t>(sizeof(T));
  block_rows_ = std::max<int64_t>(1, std::min(most_rows, kBlockBytes / std::max<int64_t>(row_bytes, 1)));
  const int64_t slot = RoundUp(block_rows_ * columns, 16), numbers = RoundUp(block_rows_, 16);
  scratch_elements_ = full_slots_ * slot + number_slots_ * numbers;
  auto place = [&](Place& value) {
    if (value.kind != Place::kScratch) return;
    value.offset = value.extent == RowExtent::kFull ? value.index * slot : full_slots_ * slot + value.index * numbers;
  };
  for (Instruction& instruction : instructions_) {
    for (Place& operand : instruction.operands) place(operand);
    place(instruction.result);
  }
}

template <typename T>
void* RowProgram<T>::Address(const Place& place, const Block& block) const {
  const bool has_columns = place.extent == RowExtent::kFull || place.extent == RowExtent::kPerColumn;
  const int64_t offset = place.bytes * (block.begin * RowStep(place, block) + (has_columns ? block.column : 0));
  switch (place.kind) {
    case Place::kOperand:
      return const_cast<std::byte*>(block.arguments.template operand<std::byte>(place.index)) + offset;
    case Place::kOutput:
      return block.arguments.template output<std::byte>(place.index) + offset;
    case Place::kScratch:
      return block.scratch + place.offset;
    case Place::kProduct:
      return block.product;
    case Place::kPartial:
      return block.partials + place.offset + block.column;
  }
  return nullptr;
}

template <typename T>
void RowProgram<T>::RunElements(const Instruction& instruction, const Block& block) const {
  const Place& result = instruction.result;
  std::byte* y = static_cast<std::byte*>(Address(result, block));
  // True if the rows of the result are contiguous, as those of the operands are.
  const int64_t row = result.extent == RowExtent::kFull ? block.columns : 1;
  bool whole = RowStep(result, block) == row;
  LoopOperand operands[3];
  for (size_t k = 0; k < instruction.operands.size(); ++k) {
    const Place& place = instruction.operands[k];
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
    const RowExtent extent = instruction.operands[k].extent;
    operands[k].is_vector = extent == RowExtent::kFull || extent == RowExtent::kPerColumn;
  }
  for (int64_t r = 0; r < block.rows; ++r) {
    instruction.loop(operands, y + r * RowStep(result, block) * result.bytes, row, numbers);
    for (size_t k = 0; k < instruction.operands.size(); ++k) {
      const Place& place = instruction.operands[k];
      operands[k].data = static_cast<const std::byte*>(operands[k].data) + RowStep(place, block) * place.bytes;
    }
  }
}

template <typename T>
void RowProgram<T>::RunInstruction(const Instruction& instruction, const Block& block) const {
  const RowLoops<T>& loops = GetRowLoops<T>();
  const Place& first = instruction.operands[0];
  const Place& result = instruction.result;
  const T* x = static_cast<const T*>(Address(first, block));
  T* y = static_cast<T*>(Address(result, block));
  const int64_t n = block.columns, step_x = RowStep(first, block), step_y = RowStep(result, block);
  switch (instruction.action) {
    case Action::kProduct:
      return;
    case Action::kElements:
      RunElements(instruction, block);
      return;
    case Action::kRowSum:
      for (int64_t r = 0; r < block.rows; ++r) y[r] = RowSum(loops, x + r * step_x, n);
      return;
    case Action::kRowMax:
      for (int64_t r = 0; r < block.rows; ++r) y[r] = loops.max(x + r * step_x, n);
      return;
    case Action::kSoftmax:
      for (int64_t r = 0; r < block.rows; ++r) SoftmaxRow(loops, x + r * step_x, y + r * step_y, n);
      return;
    case Action::kSumRows:
      for (int64_t r = 0; r < block.rows; ++r) loops.accumulate(x + r * step_x, y, n);
      return;
  }
}

template <typename T>
void RowProgram<T>::RunRows(Block rows, Stopwatch& stopwatch) const {
  const int64_t end = rows.begin + rows.rows;
  while (rows.begin < end) {
    rows.rows = std::min(block_rows_, end - rows.begin);
    for (size_t i = product_.has_value(); i < instructions_.size(); ++i) {
      RunInstruction(instructions_[i], rows);
      stopwatch.Lap(i);
    }
    rows.begin += rows.rows;
    rows.product += rows.rows * rows.product_step;
  }
}

template <typename T>
absl::Status RowProgram<T>::Run(const KernelArguments& arguments) const {
  std::byte* const workspaces = arguments.scratch;
  T* scratch = reinterpret_cast<T*>(workspaces + threads_ * workspace_bytes_);
  const int64_t partial_elements = static_cast<int64_t>(sums_.size()) * columns_;
  T* partials = scratch + threads_ * scratch_elements_;
  const int64_t tasks = product_.has_value() ? product_->tasks() : chunks_.number;
  if (product_.has_value()) product_->StartRun(arguments, product_b_, workspaces, threads_, true);
  arguments.pool->ParallelFor(tasks, [&](int64_t task, int thread) {
    if (arguments.stopped()) return;
    T* own_partials = partials + task * partial_elements;
    std::fill(own_partials, own_partials + partial_elements, T(0));
    T* const own_scratch = scratch + thread * scratch_elements_;
    Stopwatch stopwatch(arguments.profiler, thread);
    if (!product_.has_value()) {
      const int64_t begin = chunks_.begin(task), rows = chunks_.end(task) - begin;
      RunRows({arguments, begin, rows, 0, columns_, own_scratch, own_partials}, stopwatch);
      return;
    }
    if constexpr (std::is_same_v<T, float>) {
      product_->RunInBlocks(arguments.operand<float>(product_a_), arguments.operand<float>(product_b_), task,
                            workspaces + thread * workspace_bytes_,
                            [&](const Product::Block& block, float* product, int64_t step) {
                              stopwatch.Lap(0);
                              RunRows({arguments, block.row, block.rows, block.column, block.columns, own_scratch,
                                       own_partials, product, step},
                                      stopwatch);
                            });
    }
  });
  for (const RowSums& sums : sums_) {
    T* y = arguments.output<T>(sums.output);
    std::fill(y, y + columns_, T(0));
    for (int64_t task = 0; task < tasks; ++task)
      GetRowLoops<T>().accumulate(partials + task * partial_elements + sums.offset, y, columns_);
  }
  return absl::OkStatus();
}

template <typename T>
Kernel RowProgram<T>::Describe() const {
  Kernel kernel{.name = absl::StrCat(product_.has_value() ? "product, " : "", "rows in blocks of ", block_rows_, ", ",
                                     (scratch_elements_ * sizeof(T) + 1023) / 1024, " KiB")};
  const int64_t partials =
      (product_.has_value() ? product_->tasks() : chunks_.number) * static_cast<int64_t>(sums_.size()) * columns_;
  kernel.scratch_bytes = threads_ * workspace_bytes_ + sizeof(T) * (threads_ * scratch_elements_ + partials);
  if (product_.has_value()) {
    kernel.kept_bytes = product_->packed_bytes();
    kernel.scratch_bytes_with_kept = kernel.scratch_bytes;
    kernel.kept_operands = {product_b_};
    kernel.kept_layout = product_->packed_layout();
  }
  kernel.overwrites = overwrites_;
  for (const Instruction& instruction : instructions_)
    kernel.parts.push_back({instruction.name, instruction.node, instruction.flops});
  return kernel;
}

template <typename T>
Kernel MakeTyped(const RowRegionRequest& request) {
  auto program = std::make_shared<const RowProgram<T>>(request.graph, request.region, request.threads);
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
