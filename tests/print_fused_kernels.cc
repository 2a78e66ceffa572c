// Prints the generated kernels of FusedGraphs as C++ for the emulated device, for a rule of the build that compiles it.
#include <cinttypes>
#include <cstdio>
#include <set>
#include <string>

#include "gradweave/runtime/cuda/fused_source.h"
#include "gradweave/runtime/cuda/fusion.h"
#include "gradweave/runtime/cuda/kernel_cache.h"
#include "tests/fused_graphs.h"

int main() {
  using namespace gradweave;
  std::puts(
      "#include \"gradweave/runtime/cuda/launch.h\"\n#include \"gradweave/runtime/cuda/fused_kernel.h\"\n"
      "#include \"gradweave/runtime/cuda/fused_reduction.h\"\n#include \"gradweave/runtime/formulas.h\"\n"
      "#include \"tests/fused_kernels.h\"\n\nnamespace gradweave {\nnamespace cuda_emulated {\n");
  std::string table;
  std::set<std::string> seen;
  for (const FusedGraph& fused : FusedGraphs()) {
    for (bool reductions : {true, false}) {
      for (const FusedGroup& group : FindFusedGroups(fused.graph, {.reductions = reductions}).groups) {
        for (const FusedBatch& batch : group.batches) {
          const std::string chain = FusedChainSource(batch);
          const int number = static_cast<int>(seen.size());
          if (!seen.insert(chain).second) continue;
          std::printf("namespace generated_%d {\n// Of %s.\n%s}\n\n", number, fused.name.c_str(), chain.c_str());
          const char* kind = batch.reductions.empty() ? "" : "Reduction";
          char entry[300];
          std::snprintf(entry, sizeof entry,
                        "    {0x%" PRIx64
                        ", sizeof(Fused%sParameters<cuda_emulated::generated_%d::Chain::Type>),\n"
                        "     cuda_emulated::Run%s<cuda_emulated::generated_%d::Chain>},\n",
                        HashOfText(FusedKernelSource(batch)), kind, number, kind, number);
          table += entry;
        }
      }
    }
  }
  std::printf(
      "template <typename Chain>\nvoid Run(const void* parameters) {\n"
      "  RunFused<Chain>(*static_cast<const FusedParameters<typename Chain::Type>*>(parameters));\n}\n\n"
      "template <typename Chain>\nvoid RunReduction(const void* parameters) {\n"
      "  RunFusedReduction<Chain>(*static_cast<const FusedReductionParameters<typename Chain::Type>*>(parameters));\n"
      "}\n\n}  // namespace cuda_emulated\n\n"
      "absl::Span<const EmulatedKernel> FusedKernels() {\n  static const EmulatedKernel kKernels[] = {\n%s  };\n"
      "  return kKernels;\n}\n\n}  // namespace gradweave\n",
      table.c_str());
  return 0;
}
