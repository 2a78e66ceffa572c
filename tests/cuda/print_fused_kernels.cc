// Prints the generated kernels of AllFusedGraphs as C++ for the emulated device. A build rule
// compiles the output.
#include <cinttypes>
#include <cstdio>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/runtime/cuda/api/kernel_cache.h"
#include "gradweave/runtime/cuda/fusion/fused_source.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "tests/cuda/fused_graphs.h"

namespace gradweave {
namespace {

int PrintKernels() {
  std::puts(
      "#include \"gradweave/runtime/cuda/ops/launch.h\"\n#include \"gradweave/runtime/cuda/fusion/conv_kernel.h\"\n"
      "#include \"gradweave/runtime/cuda/fusion/fused_kernel.h\"\n"
      "#include \"gradweave/runtime/cuda/fusion/fused_reduction.h\"\n#include "
      "\"gradweave/runtime/cuda/fusion/row_kernel.h\"\n"
      "#include \"gradweave/runtime/kernel/formulas.h\"\n#include \"tests/cuda/fused_kernels.h\"\n\n"
      "namespace gradweave {\nnamespace cuda_emulated {\n");
  std::string table;
  std::set<std::string> seen;
  auto print = [&](const FusedSource& source, const std::string& graph) {
    const int number = static_cast<int>(seen.size());
    if (!seen.insert(source.text).second) return;
    std::printf("namespace generated_%d {\n// From %s.\n%s}\n\n", number, graph.c_str(), source.text.c_str());
    struct {
      const char *parameters, *run, *name;
    } const frames[] = {{"FusedParameters", "RunElements", "Chain"},
                        {"FusedReductionParameters", "RunReduction", "Chain"},
                        {"RowParameters", "RunOfRows", "Rows"},
                        {"ConvParameters", "RunConvolution", "Convolution"}};
    const auto& [parameters, run, name] = frames[source.frame];
    char entry[300];
    std::snprintf(entry, sizeof entry,
                  "    {0x%" PRIx64
                  ", sizeof(%s<cuda_emulated::generated_%d::%s::Type>),\n"
                  "     cuda_emulated::%s<cuda_emulated::generated_%d::%s>},\n",
                  HashOfText(KernelSource(source)), parameters, number, name, run, number, name);
    table += entry;
  };
  for (const FusedGraph& fused : AllFusedGraphs()) {
    std::vector<Graph> parts = DevicePartsOf(fused.graph);
    parts.push_back(fused.graph);
    for (const Graph& part : parts) {
      // All fusions, and all combinations in which one kind is not available.
      for (const FusionOptions& options :
           {kAllFusions, FusionOptions{.reductions = true, .rows = true},
            FusionOptions{.reductions = true, .convolution_channels = kAllFusions.convolution_channels},
            FusionOptions{.rows = true, .convolution_channels = kAllFusions.convolution_channels},
            FusionOptions{.reductions = true}, FusionOptions{}}) {
        for (const FusedGroup& group : FindFusedGroups(part, options).groups) {
          for (const FusedSource& source : SourcesOf(group)) print(source, fused.name);
        }
      }
    }
  }
  std::printf(
      "template <typename Chain>\nvoid RunElements(const void* parameters) {\n"
      "  RunFused<Chain>(*static_cast<const FusedParameters<typename Chain::Type>*>(parameters));\n}\n\n"
      "template <typename Chain>\nvoid RunReduction(const void* parameters) {\n"
      "  RunFusedReduction<Chain>(*static_cast<const FusedReductionParameters<typename Chain::Type>*>(parameters));\n"
      "}\n\n"
      "template <typename Rows>\nvoid RunOfRows(const void* parameters) {\n"
      "  RunRows<Rows>(*static_cast<const RowParameters<typename Rows::Type>*>(parameters));\n"
      "}\n\n"
      "template <typename Convolution>\nvoid RunConvolution(const void* parameters) {\n"
      "  Convolver<Convolution>::Run(*static_cast<const ConvParameters<typename Convolution::Type>*>(parameters));\n"
      "}\n\n}  // namespace cuda_emulated\n\n"
      "absl::Span<const EmulatedKernel> FusedKernels() {\n  static const EmulatedKernel kKernels[] = {\n%s  };\n"
      "  return kKernels;\n}\n\n}  // namespace gradweave\n",
      table.c_str());
  return 0;
}

}  // namespace
}  // namespace gradweave

int main() { return gradweave::PrintKernels(); }
