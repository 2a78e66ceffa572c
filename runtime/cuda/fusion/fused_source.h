// The CUDA C++ of elementwise chains: straight-line code for an element, in the place of a program that is interpreted,
// and the states of the reductions that a chain ends in.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_SOURCE_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_SOURCE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"

namespace gradweave {

// The kernel's name in KernelSource. It takes FusedParameters<T> of fused_kernel.h; where a chain ends in reductions,
// FusedReductionParameters<T> of fused_reduction.h; of rows, RowParameters<T> of row_kernel.h; of a convolution,
// ConvParameters<T> of conv_kernel.h.
inline constexpr char kGeneratedKernel[] = "GeneratedElements";

// What is generated for a batch of chains, for rows, or for a convolution.
struct FusedSource {
  enum Frame { kElements, kReduction, kRows, kConvolution };
  Frame frame;
  // The struct Chain that RunFused of fused_kernel.h, or RunFusedReduction of fused_reduction.h, needs; the struct Rows
  // that RunRows of row_kernel.h needs; or the struct Convolution that Convolver of conv_kernel.h needs. Numbers of a
  // program are the kernel's parameters, and so are the sizes of reductions and rows, but for how many elements of a
  // row a thread has, and the number of samples of a convolution: programs that differ in nothing else give the same
  // text.
  std::string text;
};

// One for each of the group's batches, or the one of its rows or its convolution, in float32 or float64.
std::vector<FusedSource> SourcesOf(const FusedGroup& group);

// All of a translation unit for NVRTC: the text of formulas.h and of the frame, the struct, and the kernel.
std::string KernelSource(const FusedSource& source);

// ---- For row_source.cc and conv_source.cc ----

// What an elementwise instruction gives of a, b and c, expressions of the type; `number` is its first number's index.
std::string FormulaText(FusedOp op, absl::string_view type, absl::string_view a, absl::string_view b,
                        absl::string_view c, int number);

// "Sum" and so on; reduce.h has <name>Of.
absl::string_view NameOf(FusedReductionKind kind);

// Functions of the struct Convolution: Run, and those that it calls.
std::string ChainOfSumsText(const FusedProgram& program, DType dtype);

struct RowProgram;
// The struct Rows.
std::string RowSource(const RowProgram& program);

struct ConvProgram;
// The struct Convolution.
std::string ConvolutionSource(const ConvProgram& program);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_SOURCE_H_
