// Writes the generated convolution kernels of the benchmarks' training steps to a folder, one
// source for each kernel, and to the file "expected" a line for each: its name, its threads, and
// the blocks that the search for its tiling expected beside each other on a multiprocessor.
#include <fstream>
#include <iostream>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "benchmarks/models.h"
#include "gradweave/runtime/cuda/fusion/conv_program.h"
#include "gradweave/runtime/cuda/fusion/fused_source.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "tests/cuda/fused_graphs.h"

namespace gradweave {
namespace {

// The source is for NVRTC, which has no headers. nvcc has defined the types of 64 bits by others.
std::string ForNvcc(const std::string& source) {
  return absl::StrCat("#define GRADWEAVE_PRINTED\n#define int64_t generated_int64\n#define uint64_t generated_uint64\n",
                      absl::StrReplaceAll(source, {{"__CUDACC_RTC__", "GRADWEAVE_PRINTED"}}));
}

int Print(const std::string& folder) {
  std::ofstream expected(absl::StrCat(folder, "/expected"));
  std::set<std::string> seen;
  for (const char* name : {"lenet", "vgg", "resnet"}) {
    const benchmarks::Model model = benchmarks::BuildModel(name);
    const Graph plan = PlanOf(*model.graph, {model.loss}, model.step.assignments, {{"batch", 256}});
    for (const Graph& part : DevicePartsOf(plan)) {
      for (const FusedGroup& group : FindFusedGroups(part, kAllFusions).groups) {
        if (group.convolution == nullptr) continue;
        const std::string source = KernelSource(SourcesOf(group)[0]);
        if (!seen.insert(source).second) continue;
        const ConvProgram& program = *group.convolution;
        const std::string kernel = absl::StrCat(name, "_", seen.size());
        std::ofstream(absl::StrCat(folder, "/", kernel, ".cu")) << ForNvcc(source);
        expected << kernel << " " << program.tiling.threads() << " "
                 << program.tiling.BlocksBeside(program.shape, static_cast<int64_t>(DTypeSize(program.dtype))) << "\n";
      }
    }
  }
  expected.flush();
  return expected.good() ? 0 : 1;
}

}  // namespace
}  // namespace gradweave

int main(int argc, char** argv) {
  if (argc == 2) return gradweave::Print(argv[1]);
  std::cerr << "usage: print_conv_kernels FOLDER\n";
  return 1;
}
