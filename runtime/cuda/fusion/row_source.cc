// Generates the CUDA C++ of row programs.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cuda/fusion/fused_source.h"
#include "gradweave/runtime/cuda/fusion/row_program.h"

namespace gradweave {
namespace {

bool IsStore(const RowInstruction& instruction) {
  return instruction.op == FusedOp::kStore || instruction.op == FusedOp::kStoreBool;
}

// Prints a program phase by phase: values that do not vary, the loop, and the stores of its values.
// The value of instruction i is v<i> where it is computed; if a later loop reads it, it is element
// i of the thread in r<i>. The state of the reductions of phase p is state<p>, whose member s<i>
// belongs to instruction i.
class RowPrinter {
 public:
  explicit RowPrinter(const RowProgram& program)
      : program_(program), type_(program.dtype == kFloat32 ? "float" : "double"), kept_(program.instructions.size()) {
    for (const RowInstruction& reader : program_.instructions) {
      for (int operand : reader.operands) {
        if (operand < 0 || !program_.instructions[operand].varies) continue;
        kept_[operand] = kept_[operand] || IsStore(reader) || reader.phase > program_.instructions[operand].phase;
      }
    }
  }

  std::string Text() {
    for (int phase = 0; phase < program_.num_phases; ++phase) PrintPhase(phase);
    return absl::StrCat("struct Rows {\n  using Type = ", type_, ";\n  using Thread = RowThread<", program_.threads,
                        ", ", program_.parts, ", ", program_.elements, ">;\n", operations_,
                        "  __device__ static void Run(const RowParameters<", type_,
                        ">& parameters, const Thread& thread) {\n    [[maybe_unused]] const ", type_,
                        "* const numbers = parameters.numbers;\n", body_, numbers_, "  }\n};\n");
  }

 private:
  const RowInstruction& At(int i) const { return program_.instructions[i]; }

  // Returns the name of an instruction's value in the loop of a phase, or outside of loops.
  std::string Value(int i, int phase) const {
    if (i < 0) return "";
    return At(i).varies && At(i).phase < phase ? absl::StrCat("r", i, "[i]") : absl::StrCat("v", i);
  }

  std::string Expression(const RowInstruction& instruction, int phase) const {
    auto element = [&](absl::string_view type) {
      const RowExtent extent = program_.extents[instruction.index];
      const absl::string_view place = extent == RowExtent::kFull        ? "thread.begin + column"
                                      : extent == RowExtent::kPerColumn ? "column"
                                      : extent == RowExtent::kPerRow    ? "thread.row"
                                                                        : "0";
      return absl::StrCat("static_cast<const ", type, "*>(parameters.tensors[", instruction.index, "])[", place, "]");
    };
    switch (instruction.op) {
      case FusedOp::kNumber:
        return absl::StrCat("numbers[", instruction.index, "]");
      case FusedOp::kLoad:
        return element(type_);
      case FusedOp::kLoadBool:
        return absl::StrCat("static_cast<", type_, ">(", element("bool"), ")");
      default:
        return FormulaText(instruction.op, type_, Value(instruction.operands[0], phase),
                           Value(instruction.operands[1], phase), Value(instruction.operands[2], phase),
                           instruction.index);
    }
  }

  std::string StoreText(const RowInstruction& store, absl::string_view place, const std::string& value) const {
    const bool truth = store.op == FusedOp::kStoreBool;
    return absl::StrCat("static_cast<", truth ? "bool" : type_, "*>(parameters.tensors[", store.index, "])[", place,
                        "] = ", value, truth ? absl::StrCat(" != ", type_, "(0)") : "", ";\n");
  }

  void PrintPhase(int phase) {
    std::string elements, stores;
    std::vector<int> reductions;
    for (int i = 0; i < static_cast<int>(program_.instructions.size()); ++i) {
      const RowInstruction& instruction = At(i);
      if (instruction.phase != phase) continue;
      if (instruction.op == FusedOp::kReduce) {
        reductions.push_back(i);
      } else if (IsStore(instruction) && instruction.varies) {
        const int value = instruction.operands[0];
        absl::StrAppend(&stores, "      ",
                        StoreText(instruction, "thread.begin + column",
                                  At(value).varies ? absl::StrCat("r", value, "[i]") : absl::StrCat("v", value)));
      } else if (IsStore(instruction)) {
        absl::StrAppend(&numbers_, "    if (thread.lane == 0) ",
                        StoreText(instruction, "thread.row", Value(instruction.operands[0], phase)));
      } else if (instruction.varies) {
        absl::StrAppend(&elements, "      const ", type_, " v", i, " = ", Expression(instruction, phase), ";\n");
        if (!kept_[i]) continue;
        absl::StrAppend(&body_, "    ", type_, " r", i, "[Thread::kElements];\n");
        absl::StrAppend(&elements, "      r", i, "[i] = v", i, ";\n");
      } else {
        absl::StrAppend(&body_, "    const ", type_, " v", i, " = ", Expression(instruction, phase), ";\n");
      }
    }
    const char* const loop = "[&]([[maybe_unused]] int i, [[maybe_unused]] uint32_t column) {\n";
    if (!reductions.empty()) {
      PrintReductions(phase, reductions, absl::StrCat(loop, elements));
    } else if (!elements.empty()) {
      absl::StrAppend(&body_, "    thread.ForElements(", loop, elements, "    });\n");
    }
    if (!stores.empty()) absl::StrAppend(&body_, "    thread.ForElements(", loop, stores, "    });\n");
  }

  // Prints the phase's loop, its reductions combined as one operation, and their values.
  void PrintReductions(int phase, const std::vector<int>& reductions, const std::string& loop) {
    std::string types, members, starts, joins, made, values;
    for (int i : reductions) {
      const std::string operation = absl::StrCat("Reduction", i), comma = starts.empty() ? "" : ", ";
      absl::StrAppend(&types, "    using ", operation, " = ", NameOf(At(i).reduction), "Of<", type_, ">;\n");
      absl::StrAppend(&members, "      ", operation, "::State s", i, ";\n");
      absl::StrAppend(&starts, comma, operation, "::Start()");
      absl::StrAppend(&joins, comma, operation, "()(a.s", i, ", b.s", i, ")");
      absl::StrAppend(&made, comma, "Phase", phase, "::", operation, "::Of(", Value(At(i).operands[0], phase), ", 0)");
      absl::StrAppend(&values, "    const ", type_, " v", i, " = Phase", phase, "::", operation, "::End(state", phase,
                      ".s", i, ");\n");
    }
    absl::StrAppend(&operations_, "  struct Phase", phase, " {\n", types, "    struct State {\n", members,
                    "    };\n    __device__ static State Start() { return {", starts,
                    "}; }\n    __device__ State operator()(const State& a, const State& b) const { return {", joins,
                    "}; }\n  };\n");
    absl::StrAppend(&body_, "    const Phase", phase, "::State state", phase, " = thread.Reduce<Phase", phase, ">(",
                    loop, "      return Phase", phase, "::State{", made, "};\n    });\n", values);
  }

  const RowProgram& program_;
  const std::string type_;
  std::vector<bool> kept_;  // Indexed by instruction: true if its value stays in registers after its loop.
  std::string operations_, body_, numbers_;  // The last one holds the stores of values of whole rows.
};

}  // namespace

std::string RowSource(const RowProgram& program) { return RowPrinter(program).Text(); }

}  // namespace gradweave
