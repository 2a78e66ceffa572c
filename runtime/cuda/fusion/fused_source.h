// Generation of CUDA C++ for fused groups: straight-line code for each element instead of an
// interpreted program, and the states of the reductions that end a chain.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_SOURCE_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_SOURCE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"

namespace gradweave {

// Name of the kernel in KernelSource. Its parameter is FusedParameters<T> of fused_kernel.h;
// FusedReductionParameters<T> of fused_reduction.h if the chain ends in reductions;
// RowParameters<T> of row_kernel.h for rows; ConvParameters<T> of conv_kernel.h for a convolution.
inline constexpr char kGeneratedKernel[] = "GeneratedElements";

// Generated source for a batch of chains, for rows, or for a convolution.
struct FusedSource {
  enum Frame { kElements, kReduction, kRows, kConvolution };
  Frame frame;
  // The struct that the frame needs: Chain for RunFused of fused_kernel.h or RunFusedReduction of
  // fused_reduction.h, Rows for RunRows of row_kernel.h, or Convolution for Convolver of
  // conv_kernel.h. A program's numbers, the sizes of reductions and rows and the number of a
  // convolution's samples are parameters of the kernel. Programs that differ only in these give the
  // same text, as long as a thread has the same number of a row's elements.
  std::string text;
};

// Returns the source of each of the group's batches, or the one source of its rows or its
// convolution. They compute in float32 or float64.
std::vector<FusedSource> SourcesOf(const FusedGroup& group);

// Returns the translation unit for NVRTC: the texts of formulas.h and the frame's headers, the
// struct and the kernel.
std::string KernelSource(const FusedSource& source);

// ---- For row_source.cc and conv_source.cc ----

// Returns the expression of an elementwise instruction on a, b and c, which are expressions of the
// type. `number` is the index of its first number.
std::string FormulaText(FusedOp op, absl::string_view type, absl::string_view a, absl::string_view b,
                        absl::string_view c, int number);

// Returns the name of a reduction, such as "Sum"; reduce.h defines <name>Of.
absl::string_view NameOf(FusedReductionKind kind);

// Returns the text of Convolution::Run and the functions that it calls.
std::string ChainOfSumsText(const FusedProgram& program, DType dtype);

struct RowProgram;
// Returns the text of the struct Rows.
std::string RowSource(const RowProgram& program);

struct ConvProgram;
// Returns the text of the struct Convolution.
std::string ConvolutionSource(const ConvProgram& program);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_SOURCE_H_
