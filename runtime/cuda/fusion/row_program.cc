#include "gradweave/runtime/cuda/fusion/row_program.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/cuda/fusion/fused_chain.h"
#include "gradweave/runtime/cuda/fusion/row_kernel.h"
#include "gradweave/runtime/cuda/ops/reduction_pass.h"
#include "gradweave/runtime/kernel/formulas.h"

namespace gradweave {
namespace {

// A thread has at most 255 registers. With more than half of them for a row's values, too few
// threads remain to keep a GPU's memory busy. Loops over a thread's elements are unrolled, since
// registers cannot be indexed.
constexpr uint32_t kMostElements = 32, kMostRegisters = 128;

bool IsSoftmax(const Node& node) { return node.op->kind == OpKind::kSoftmax || node.op->kind == OpKind::kLogSoftmax; }

bool IsBool(const Graph& graph, Port port) { return graph.type(port).dtype == kBool; }

ReductionPass PassOf(int64_t rows, int64_t columns) { return MakeReductionPass(rows, columns, 1); }

// Returns true if an op reads the result of a reduction, or is a softmax, which consists of such
// ops. Rows that several blocks would share pay only if a whole row is computed from their sums.
bool Pays(const Graph& graph, const RowRegion& region, uint32_t parts) {
  absl::flat_hash_set<Port> numbers;  // Numbers of rows that nodes of the region compute.
  for (const RowRegion::Member& member : region.nodes) {
    const Port port{member.node, 0};
    if (IsSoftmax(graph.node(member.node))) return true;
    const bool reads = std::any_of(member.operands.begin(), member.operands.end(),
                                   [&](const RowRegion::Operand& operand) { return numbers.contains(operand.port); });
    if (reads && (parts == 1 || member.result == RowExtent::kFull)) return true;
    if (member.result == RowExtent::kPerRow) numbers.insert(port);
  }
  return false;
}

class RowProgramLowering {
 public:
  RowProgramLowering(const Graph& graph, const RowRegion& region) : graph_(graph), region_(region) {}

  std::optional<RowProgram> Run() {
    const ReductionPass pass = PassOf(region_.rows, region_.columns);
    if (!Pays(graph_, region_, pass.parts)) return std::nullopt;
    program_.dtype = region_.dtype;
    program_.rows = pass.outer;
    program_.columns = pass.reduced;
    program_.threads = FormOf(pass) == PassForm::kShortRows ? 32 : kRowBlock;
    program_.parts = pass.parts;
    const uint32_t size = (pass.reduced + pass.parts - 1) / pass.parts;
    program_.elements = (size + program_.threads - 1) / program_.threads;
    if (program_.elements * program_.parts > kMostElements) return std::nullopt;
    for (const RowRegion::Member& member : region_.nodes) AddMember(member);
    AddStores();
    if (program_.extents.size() > size_t{kMostRowTensors} || program_.numbers.size() > size_t{kMostRowNumbers})
      return std::nullopt;
    FindPhases();
    if (Registers() > kMostRegisters) return std::nullopt;
    FindOverwrites();
    return std::move(program_);
  }

 private:
  using Operand = RowRegion::Operand;

  int Add(RowInstruction instruction) {
    program_.instructions.push_back(instruction);
    return static_cast<int>(program_.instructions.size()) - 1;
  }
  bool varies(int value) const { return value >= 0 && program_.instructions[value].varies; }
  int AddFormula(FusedOp op, int a, int b = -1, int c = -1, int number = -1) {
    return Add({.op = op, .varies = varies(a) || varies(b) || varies(c), .operands = {a, b, c}, .index = number});
  }
  int AddReduction(FusedReductionKind kind, int x) {
    return Add({.op = FusedOp::kReduce, .reduction = kind, .operands = {x, -1, -1}});
  }
  int AddNumbers(absl::Span<const double> numbers) {
    if (numbers.empty()) return -1;
    program_.numbers.insert(program_.numbers.end(), numbers.begin(), numbers.end());
    return static_cast<int>(program_.numbers.size() - numbers.size());
  }

  // Returns the instruction that computes the operand in the region, or else the one that loads it.
  int Value(const Operand& operand) {
    if (auto made = made_.find(operand.port); made != made_.end()) return made->second;
    const std::pair<Port, int> key = {operand.port, static_cast<int>(operand.extent)};
    if (auto loaded = loaded_.find(key); loaded != loaded_.end()) return loaded->second;
    RowInstruction load{.op = IsBool(graph_, operand.port) ? FusedOp::kLoadBool : FusedOp::kLoad,
                        .varies = operand.extent == RowExtent::kFull || operand.extent == RowExtent::kPerColumn};
    if (IsConstantNumber(graph_, operand.port)) {
      load.op = FusedOp::kNumber;
      load.index = AddNumbers({graph_.node(operand.port.node).attribute<Tensor>("value").ToDouble()});
    } else {
      load.index = static_cast<int>(program_.operands.size());
      program_.operands.push_back(operand.port);
      program_.extents.push_back(operand.extent);
    }
    return loaded_[key] = Add(load);
  }

  // Computes softmax as softmax.cu does.
  int AddSoftmax(int x, bool logarithm) {
    const int centered = AddFormula(FusedOp::kSub, x, AddReduction(FusedReductionKind::kMax, x));
    const int weight = AddFormula(FusedOp::kExp, centered);
    const int sum = AddReduction(FusedReductionKind::kSum, weight);
    if (logarithm) {
      // ReluGrad leaves out the largest element.
      const int rest = AddReduction(FusedReductionKind::kSum,
                                    AddFormula(FusedOp::kReluGrad, weight, AddFormula(FusedOp::kNeg, centered)));
      const int limit = Add({.op = FusedOp::kNumber, .index = AddNumbers({formulas::kDominatedSum})});
      const int log_sum = AddFormula(FusedOp::kWhere, AddFormula(FusedOp::kLess, sum, limit),
                                     AddFormula(FusedOp::kLog1p, rest), AddFormula(FusedOp::kLog, sum));
      return AddFormula(FusedOp::kSub, centered, log_sum);
    }
    return AddFormula(FusedOp::kMul, weight, AddFormula(FusedOp::kReciprocal, sum));
  }

  void AddMember(const RowRegion::Member& member) {
    const Node& node = graph_.node(member.node);
    int values[3] = {-1, -1, -1};
    for (size_t i = 0; i < member.operands.size(); ++i) values[i] = Value(member.operands[i]);
    int& result = made_[Port{member.node, 0}];
    if (IsSoftmax(node)) {
      result = AddSoftmax(values[0], node.op->kind == OpKind::kLogSoftmax);
    } else if (const auto reduction = FindFusedReduction(node.op->name); reduction.has_value()) {
      result = AddReduction(*reduction, values[0]);
    } else {
      const FusedOp op = *FindFusedOp(node.op->name);
      result = op == FusedOp::kCopy ? values[0]
                                    : AddFormula(op, values[0], values[1], values[2], AddNumbers(FusedNumbers(node)));
    }
  }

  void AddStores() {
    for (const Operand& output : region_.outputs) {
      Add({.op = IsBool(graph_, output.port) ? FusedOp::kStoreBool : FusedOp::kStore,
           .varies = output.extent == RowExtent::kFull,
           .operands = {made_.at(output.port), -1, -1},
           .index = static_cast<int>(program_.extents.size())});
      program_.outputs.push_back(output.port);
      program_.extents.push_back(output.extent);
    }
  }

  // Assigns phases. Reductions and values that do not vary get the earliest phase possible. Varying
  // values get the latest that their readers allow, so memory is read when needed. A stored value
  // is stored in the first phase that knows it.
  void FindPhases() {
    std::vector<RowInstruction>& all = program_.instructions;
    std::vector<int> known(all.size(), 0);  // The first phase that may read it.
    for (size_t i = 0; i < all.size(); ++i) {
      for (int operand : all[i].operands) {
        if (operand >= 0) known[i] = std::max(known[i], known[operand]);
      }
      all[i].phase = known[i];
      if (all[i].op == FusedOp::kReduce) ++known[i];
      program_.num_phases = std::max(program_.num_phases, all[i].phase + 1);
    }
    std::vector<int> latest(all.size(), std::numeric_limits<int>::max());
    for (size_t i = all.size(); i-- > 0;) {
      const bool computed = all[i].varies && all[i].op != FusedOp::kStore && all[i].op != FusedOp::kStoreBool;
      if (computed && latest[i] < program_.num_phases) all[i].phase = latest[i];
      for (int operand : all[i].operands) {
        if (operand >= 0) latest[operand] = std::min(latest[operand], all[i].phase);
      }
    }
  }

  // Returns the maximum number of registers for a thread's elements over all phases: the values
  // that a phase's loop finds and those that it leaves.
  uint32_t Registers() const {
    const std::vector<RowInstruction>& all = program_.instructions;
    std::vector<int> last(all.size(), -1);
    std::vector<bool> stored(all.size(), false);
    for (const RowInstruction& instruction : all) {
      const bool store = instruction.op == FusedOp::kStore || instruction.op == FusedOp::kStoreBool;
      for (int operand : instruction.operands) {
        if (operand < 0) continue;
        last[operand] = std::max(last[operand], instruction.phase);
        if (store) stored[operand] = true;
      }
    }
    uint32_t most = 0;
    for (int phase = 0; phase < program_.num_phases; ++phase) {
      uint32_t through = 0, found = 0, left = 0;
      for (size_t i = 0; i < all.size(); ++i) {
        if (!all[i].varies || last[i] < 0) continue;
        if (all[i].phase < phase && last[i] >= phase) (last[i] > phase ? through : found) += 1;
        if (all[i].phase == phase && (last[i] > phase || stored[i])) ++left;
      }
      most = std::max(most, through + std::max(found, left));
    }
    return most * program_.elements * program_.parts * static_cast<uint32_t>(DTypeSize(program_.dtype) / 4);
  }

  // Finds operands that outputs may overwrite. The same thread reads and writes an element, and the
  // reads of a phase precede its writes, so an element must only not be written before its last
  // read.
  void FindOverwrites() {
    const std::vector<RowInstruction>& all = program_.instructions;
    for (const RowInstruction& load : all) {
      if (load.op != FusedOp::kLoad && load.op != FusedOp::kLoadBool) continue;
      const Port operand = program_.operands[load.index];
      // If the operand is also loaded another way, threads read elements of others.
      if (program_.extents[load.index] != RowExtent::kFull ||
          std::count(program_.operands.begin(), program_.operands.end(), operand) > 1)
        continue;
      for (const RowInstruction& store : all) {
        if ((store.op != FusedOp::kStore && store.op != FusedOp::kStoreBool) || !store.varies) continue;
        const int output = store.index - static_cast<int>(program_.operands.size());
        if (load.phase <= store.phase && IsBool(graph_, operand) == IsBool(graph_, program_.outputs[output]))
          program_.overwrites.push_back({load.index, output});
      }
    }
  }

  const Graph& graph_;
  const RowRegion& region_;
  RowProgram program_;
  absl::flat_hash_map<Port, int> made_;
  absl::flat_hash_map<std::pair<Port, int>, int> loaded_;  // Indexed by port and extent.
};

}  // namespace

bool RowKernelSupports(const Graph& graph, const Node& node) {
  if (node.outputs.size() != 1 || node.inputs.empty()) return false;
  const int64_t most = std::numeric_limits<int32_t>::max();
  if (graph.type(node.inputs[0]).shape.num_elements().size() > most) return false;
  if (node.op->kind == OpKind::kAvgPool2DGrad) return false;  // Its operand has other rows.
  if (FusedDType(graph, node).has_value()) return true;
  const bool softmax = IsSoftmax(node);
  if (!softmax && !FindFusedReduction(node.op->name).has_value()) return false;
  const Shape& x = graph.type(node.inputs[0]).shape;
  const int64_t elements = x.num_elements().size();
  if (x.rank() == 0 || elements == 0) return false;
  if (!softmax) {
    const Integers& axes = node.attribute<Integers>("axes");
    return axes.size() == 1 && axes[0] == x.rank() - 1;
  }
  const int64_t columns = x[x.rank() - 1].size();
  return PassOf(elements / columns, columns).parts == 1;
}

std::optional<RowProgram> MakeRowProgram(const Graph& graph, const RowRegion& region) {
  return RowProgramLowering(graph, region).Run();
}

}  // namespace gradweave
