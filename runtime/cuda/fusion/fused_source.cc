#include "gradweave/runtime/cuda/fusion/fused_source.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/fusion/fused_headers.h"

namespace gradweave {
namespace {

// "numbers[3], numbers[4]": `count` of them, from `first` on.
std::string NumbersText(int first, int count) {
  std::string text = absl::StrCat("numbers[", first, "]");
  for (int i = 1; i < count; ++i) absl::StrAppend(&text, ", numbers[", first + i, "]");
  return text;
}

absl::string_view NameOf(PassForm form) {
  switch (form) {
    case PassForm::kShortRows:
      return "kShortRows";
    case PassForm::kLongRows:
      return "kLongRows";
    case PassForm::kColumns:
      return "kColumns";
  }
  return "";
}

// Prints a program in three parts: loads before the loop over the elements of a pack, the loop, and
// stores after it. Tensor i, which is loaded or stored once, is x<i> or y<i>. The register that an
// instruction writes is v<instruction>. The state of reduction i is states[k].s<i>.
class Printer {
 public:
  Printer(const FusedProgram& program, DType dtype, const std::vector<FusedReduction>& reductions)
      : program_(program),
        type_(dtype == kFloat32 ? "float" : "double"),
        pack_(16 / static_cast<int>(DTypeSize(dtype))),
        operation_(OperationOf(reductions)),
        strided_(!reductions.empty()),
        element_(strided_ ? "at + k * step" : "at + k") {
    for (int i = 0; i < program_.count; ++i) Print(i, program_.instructions[i]);
  }

  std::string Text() const {
    return absl::StrCat("struct Chain {\n  using Type = ", type_, ";\n", operation_, "\n",
                        FunctionsText(strided_ ? ", uint32_t step, State (&states)[n]" : ""), "};\n");
  }

  // Returns the text of Run for n elements, with `parameters` behind the common ones, and of the
  // functions that it calls.
  std::string FunctionsText(absl::string_view parameters) const {
    return absl::StrCat(offsets_,
                        "  template <int n>\n  __device__ static void Run([[maybe_unused]] const FusedInstance& chain, "
                        "[[maybe_unused]] const ",
                        type_, "* numbers, [[maybe_unused]] uint32_t at", parameters, ") {\n", loads_,
                        "    GRADWEAVE_UNROLL\n    for (int k = 0; k < n; ++k) {\n", elements_, "    }\n", stores_,
                        "  }\n");
  }

 private:
  // Returns the reductions combined as one operation, or empty text if there are none.
  std::string OperationOf(const std::vector<FusedReduction>& reductions) const {
    if (reductions.empty()) return "";
    std::string types, members, starts, joins, stores;
    for (size_t i = 0; i < reductions.size(); ++i) {
      const std::string operation = absl::StrCat("Reduction", i), comma = i == 0 ? "" : ", ";
      absl::StrAppend(&types, "  using ", operation, " = ", NameOf(reductions[i].kind), "Of<", type_, ">;\n");
      absl::StrAppend(&members, "    ", operation, "::State s", i, ";\n");
      absl::StrAppend(&starts, comma, operation, "::Start()");
      absl::StrAppend(&joins, comma, operation, "()(a.s", i, ", b.s", i, ")");
      absl::StrAppend(&stores, "    StoreResult<", operation, ">(results[", i, "], pass, place, state.s", i, ");\n");
    }
    return absl::StrCat("  static constexpr PassForm kForm = PassForm::", NameOf(FormOf(reductions[0].passes[0])),
                        ";\n", types, "  struct State {\n", members,
                        "  };\n  __device__ static State Start() { return {", starts,
                        "}; }\n  __device__ State operator()(const State& a, const State& b) const { return {", joins,
                        "}; }\n  __device__ static void Store(void* const* results, const ReductionPass& pass, ",
                        "ResultPlace place, const State& state) {\n", stores, "  }\n");
  }

  // Returns the name of the value in a register at this point.
  std::string Value(uint8_t index) const { return absl::StrCat("v", written_by_[index]); }

  // Loads the pack of tensor `tensor` one element after the other.
  void LoadOneByOne(int tensor, absl::string_view type, absl::string_view index) {
    absl::StrAppend(&loads_, "    Pack<", type, ", n> x", tensor,
                    ";\n    GRADWEAVE_UNROLL\n    for (int k = 0; k < n; ++k) x", tensor,
                    ".values[k] = static_cast<const ", type, "*>(chain.tensors[", tensor, "])[", index, "];\n");
  }

  void LoadPack(int tensor, absl::string_view type) {
    if (strided_) return LoadOneByOne(tensor, type, element_);
    absl::StrAppend(&loads_, "    const Pack<", type, ", n> x", tensor, " = LoadPack<n>(static_cast<const ", type,
                    "*>(chain.tensors[", tensor, "]) + at);\n");
  }

  // Loads elements of a tensor that broadcasts, and returns the expression of one.
  std::string LoadBroadcast(uint8_t tensor, const std::string& type) {
    const std::string x = absl::StrCat("x", tensor);
    const std::string elements = absl::StrCat("static_cast<const ", type, "*>(chain.tensors[", tensor, "])");
    const std::string offset = AddOffset(tensor);
    const int last = program_.num_axes - 1;
    const bool is_number = program_.strides[tensor][last] == 0;
    if (strided_ || program_.sizes[last] % static_cast<uint32_t>(pack_) != 0) {
      // A pack may cross the end of a row.
      LoadOneByOne(tensor, type, absl::StrCat(offset, "(", element_, ")"));
    } else if (is_number) {
      absl::StrAppend(&loads_, "    const ", type, " ", x, " = ", elements, "[", offset, "(at)];\n");
      return x;
    } else {
      absl::StrAppend(&loads_, "    const Pack<", type, ", n> ", x, " = LoadPack<n>(", elements, " + ", offset,
                      "(at));\n");
    }
    return x + ".values[k]";
  }

  void StorePack(int tensor, absl::string_view type, const std::string& value) {
    absl::StrAppend(&loads_, "    Pack<", type, ", n> y", tensor, ";\n");
    absl::StrAppend(&elements_, "      y", tensor, ".values[k] = ", value, ";\n");
    if (strided_) {
      absl::StrAppend(&stores_, "    GRADWEAVE_UNROLL\n    for (int k = 0; k < n; ++k) static_cast<", type,
                      "*>(chain.tensors[", tensor, "])[", element_, "] = y", tensor, ".values[k];\n");
      return;
    }
    absl::StrAppend(&stores_, "    StorePack<n>(static_cast<", type, "*>(chain.tensors[", tensor, "]) + at, y", tensor,
                    ");\n");
  }

  void Print(int number, const FusedInstruction& instruction) {
    const std::string a = Value(instruction.a), b = Value(instruction.b), c = Value(instruction.c);
    auto define = [&](const std::string& expression) {
      written_by_[instruction.to] = number;
      absl::StrAppend(&elements_, "      const ", type_, " v", number, " = ", expression, ";\n");
    };
    switch (instruction.op) {
      case FusedOp::kNumber:
        define(absl::StrCat("numbers[", instruction.c, "]"));
        break;
      case FusedOp::kLoad:
        LoadPack(instruction.a, type_);
        define(absl::StrCat("x", instruction.a, ".values[k]"));
        break;
      case FusedOp::kLoadNumber:
        absl::StrAppend(&loads_, "    const ", type_, " x", instruction.a, " = *static_cast<const ", type_,
                        "*>(chain.tensors[", instruction.a, "]);\n");
        define(absl::StrCat("x", instruction.a));
        break;
      case FusedOp::kLoadBool:
        LoadPack(instruction.a, "bool");
        define(absl::StrCat("static_cast<", type_, ">(x", instruction.a, ".values[k])"));
        break;
      case FusedOp::kLoadBroadcast:
        define(LoadBroadcast(instruction.a, type_));
        break;
      case FusedOp::kLoadBroadcastBool:
        define(absl::StrCat("static_cast<", type_, ">(", LoadBroadcast(instruction.a, "bool"), ")"));
        break;
      case FusedOp::kStore:
        StorePack(instruction.a, type_, b);
        break;
      case FusedOp::kStoreBool:
        StorePack(instruction.a, "bool", absl::StrCat(b, " != ", type_, "(0)"));
        break;
      case FusedOp::kReduce:
        absl::StrAppend(&elements_, "      states[k].s", instruction.a, " = Reduction", instruction.a, "::Of(", b,
                        ", 0);\n");
        break;
      case FusedOp::kProduced:
        define("produced[k]");
        break;
      case FusedOp::kPool:
        absl::StrAppend(&elements_, "      pooled[k] = ", b, ";\n");
        break;
      default:
        define(FormulaText(instruction.op, type_, a, b, c, instruction.c));
    }
  }

  // Adds the function that computes the offset of a broadcast tensor's element, and returns its
  // name.
  std::string AddOffset(uint8_t tensor) {
    const std::string name = absl::StrCat("Offset", tensor);
    std::string sum;
    uint32_t inner = 1;  // Elements of the result for one step along the axis.
    for (int axis = program_.num_axes - 1; axis >= 0; --axis) {
      const uint32_t stride = program_.strides[tensor][axis];
      if (stride != 0) {
        std::string index = inner == 1 ? "i" : absl::StrCat("i / ", inner);
        // The outermost axis needs no modulo.
        if (axis != 0) absl::StrAppend(&index, " % ", program_.sizes[axis]);
        absl::StrAppend(&sum, sum.empty() ? "" : " + ", index, stride == 1 ? "" : absl::StrCat(" * ", stride));
      }
      inner *= program_.sizes[axis];
    }
    absl::StrAppend(&offsets_, "  __device__ static uint32_t ", name, "(uint32_t i) { return ", sum.empty() ? "0" : sum,
                    "; }\n");
    return name;
  }

  const FusedProgram& program_;
  const std::string type_;
  const int pack_;  // In elements.
  const std::string operation_;
  const bool strided_;  // The elements are apart, as a thread of a reduction reads them.
  const std::string element_;
  int written_by_[FusedProgram::kMostRegisters] = {};
  std::string offsets_, loads_, elements_, stores_;
};

FusedSource SourceOf(const FusedBatch& batch) {
  return {batch.reductions.empty() ? FusedSource::kElements : FusedSource::kReduction,
          Printer(batch.program, batch.dtype, batch.reductions).Text()};
}

}  // namespace

absl::string_view NameOf(FusedReductionKind kind) {
  switch (kind) {
#define GRADWEAVE_CASE(name)        \
  case FusedReductionKind::k##name: \
    return #name;
    GRADWEAVE_FUSED_REDUCTIONS(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
  }
  return "";
}

std::string FormulaText(FusedOp op, absl::string_view type, absl::string_view a, absl::string_view b,
                        absl::string_view c, int number) {
  switch (op) {
    case FusedOp::kWhere:
      return absl::StrCat(a, " != ", type, "(0) ? ", b, " : ", c);
    case FusedOp::kMeanGrad:
      return absl::StrCat(a, " * numbers[", number, "] + ", type, "(0)");
    case FusedOp::kCopy:
      return std::string(a);
#define GRADWEAVE_CASE(takes, name, ...) \
  case FusedOp::k##name:                 \
    return absl::StrCat("formulas::" #name "()(", a, ")");
      GRADWEAVE_UNARY_FORMULAS(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
// Truth values are numbers here too.
#define GRADWEAVE_CASE(takes, name, ...) \
  case FusedOp::k##name:                 \
    return absl::StrCat("static_cast<", type, ">(formulas::" #name "()(", a, ", ", b, "))");
      GRADWEAVE_BINARY_FORMULAS(GRADWEAVE_CASE)
      GRADWEAVE_COMPARISON_FORMULAS(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
#define GRADWEAVE_CASE(takes, name, count, ...) \
  case FusedOp::k##name:                        \
    return absl::StrCat("formulas::" #name "<", type, ">{", NumbersText(number, count), "}(", a, ")");
      GRADWEAVE_NUMBERED_FORMULAS(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
    default:
      GW_CHECK(false, "a fused op without a formula");
      return "";
  }
}

std::string ChainOfSumsText(const FusedProgram& program, DType dtype) {
  const std::string type = dtype == kFloat32 ? "float" : "double";
  return Printer(program, dtype, {})
      .FunctionsText(absl::StrCat(", const ", type, "* produced, [[maybe_unused]] ", type, "* pooled"));
}

std::vector<FusedSource> SourcesOf(const FusedGroup& group) {
  if (group.rows != nullptr) return {{FusedSource::kRows, RowSource(*group.rows)}};
  if (group.convolution != nullptr) return {{FusedSource::kConvolution, ConvolutionSource(*group.convolution)}};
  std::vector<FusedSource> sources;
  for (const FusedBatch& batch : group.batches) sources.push_back(SourceOf(batch));
  return sources;
}

std::string KernelSource(const FusedSource& source) {
  struct FrameText {
    std::string headers;
    absl::string_view parameters, run;
  };
  const auto frame_of = [&]() -> FrameText {
    const std::string reduce = absl::StrCat(kReductionPassText, kReduceText);
    switch (source.frame) {
      case FusedSource::kElements:
        return {"", "FusedParameters<gradweave::cuda::Chain", "RunFused<gradweave::cuda::Chain>"};
      case FusedSource::kReduction:
        return {absl::StrCat(reduce, kFusedReductionText), "FusedReductionParameters<gradweave::cuda::Chain",
                "RunFusedReduction<gradweave::cuda::Chain>"};
      case FusedSource::kRows:
        return {absl::StrCat(reduce, kRowKernelText), "RowParameters<gradweave::cuda::Rows",
                "RunRows<gradweave::cuda::Rows>"};
      case FusedSource::kConvolution:
        return {absl::StrCat(kMultiplyAddText, kConvKernelText), "ConvParameters<gradweave::cuda::Convolution",
                "Convolver<gradweave::cuda::Convolution>::Run"};
    }
    return {};
  };
  const FrameText frame = frame_of();
  return absl::StrCat("#define GRADWEAVE_CUDA_NAMESPACE cuda\n", kFormulasText, kPackText, kWarpText, kFusedKernelText,
                      frame.headers, "namespace gradweave::cuda {\n\n", source.text,
                      "\n}  // namespace gradweave::cuda\n\nextern \"C\" __global__ void __launch_bounds__(",
                      "gradweave::kFusedThreads)\n    ", kGeneratedKernel,
                      "(const __grid_constant__ gradweave::", frame.parameters, "::Type> parameters) {\n  ",
                      "gradweave::cuda::", frame.run, "(parameters);\n}\n");
}

}  // namespace gradweave
