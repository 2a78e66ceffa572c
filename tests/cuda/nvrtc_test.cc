// Generated kernels compiled by NVRTC for every current GPU architecture. This needs no GPU.
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/runtime/cuda/api/nvrtc.h"
#include "gradweave/runtime/cuda/fusion/fused_source.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/fusion/row_program.h"
#include "gtest/gtest.h"
#include "tests/cuda/fused_graphs.h"

namespace gradweave {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Nvrtc : public ::testing::Test {
 protected:
  void SetUp() override {
    const absl::StatusOr<std::string> description = compiler_.describe(75);
    if (!description.ok()) GTEST_SKIP() << description.status();
  }
  // Machine code is an ELF file.
  void ExpectMachineCode(const FusedSource& source, int architecture) {
    const absl::StatusOr<std::string> image = compiler_.compile(KernelSource(source), architecture);
    ASSERT_TRUE(image.ok()) << image.status() << "\n" << source.text;
    EXPECT_EQ(image->substr(0, 4),
              "\x7f"
              "ELF");
    EXPECT_THAT(*image, HasSubstr(kGeneratedKernel));
  }

  // Checks the architectures that NVRTC knows; an NVRTC 12 may be older than some of them.
  void ExpectMachineCodeFor(const FusedSource& source, const std::vector<int>& architectures) {
    for (int architecture : architectures) {
      SCOPED_TRACE(absl::StrCat("for ", architecture));
      const absl::StatusOr<std::string> description = compiler_.describe(architecture);
      ASSERT_TRUE(description.ok()) << description.status();
      if (!absl::StrContains(*description, "compute_")) ExpectMachineCode(source, architecture);
    }
  }

  const KernelCompiler compiler_ = NvrtcCompiler();
};

// A generated source and the group that it belongs to.
struct Generated {
  FusedGroup group;
  FusedSource source;
};
std::vector<Generated> GeneratedOf(const FusedGraph& fused, const FusionOptions& options = {.reductions = true}) {
  std::vector<Generated> all;
  for (const FusedGroup& group : FindFusedGroups(fused.graph, options).groups) {
    for (const FusedSource& source : SourcesOf(group)) all.push_back({group, source});
  }
  return all;
}

TEST_F(Nvrtc, CompilesRandomChains) {
  int compiled = 0;
  for (const FusedGraph& fused : FusedGraphs()) {
    if (!absl::StartsWith(fused.name, "random") && fused.name != "training") continue;
    SCOPED_TRACE(fused.name);
    for (const auto& [group, source] : GeneratedOf(fused)) {
      ExpectMachineCode(source, 75);
      ++compiled;
    }
  }
  EXPECT_GT(compiled, 20);
}

TEST_F(Nvrtc, CompilesEveryOpForEveryArchitecture) {
  for (const FusedGraph& fused : FusedGraphs()) {
    SCOPED_TRACE(fused.name);
    if (!absl::StartsWith(fused.name, "all_ops")) continue;
    for (const auto& [group, source] : GeneratedOf(fused)) {
      // The code for float64 is long and compiles slowly.
      ExpectMachineCodeFor(source, group.batches[0].dtype == kFloat32 ? std::vector<int>{75, 80, 86, 87, 89, 90, 100}
                                                                      : std::vector<int>{75, 100});
    }
  }
}

// Reductions over rows by warps and by blocks, over columns, and of every kind.
TEST_F(Nvrtc, CompilesReductionsForEveryArchitecture) {
  std::set<std::string> compiled;
  for (const FusedGraph& fused : FusedGraphs()) {
    SCOPED_TRACE(fused.name);
    if (!absl::StartsWith(fused.name, "reductions")) continue;
    for (const auto& [group, source] : GeneratedOf(fused)) {
      if (!group.has_reductions()) continue;
      const FusedBatch& batch = group.batches[0];
      // Compile the first of each form for all architectures, the others for one.
      const bool first =
          compiled.insert(absl::StrCat(DTypeName(batch.dtype), FormOf(batch.reductions[0].passes[0]))).second;
      ExpectMachineCodeFor(source, first ? std::vector<int>{75, 80, 86, 87, 89, 90, 100} : std::vector<int>{80});
    }
  }
  EXPECT_EQ(compiled.size(), 6);
}

// Rows of warps and blocks, in parts and whole, short and long.
TEST_F(Nvrtc, CompilesRowsForEveryArchitecture) {
  std::set<std::string> compiled, sources;
  for (const FusedGraph& fused : RowGraphs()) {
    SCOPED_TRACE(fused.name);
    for (const auto& [group, source] : GeneratedOf(fused, {.reductions = true, .rows = true})) {
      if (group.rows == nullptr || !sources.insert(source.text).second) continue;
      const RowProgram& rows = *group.rows;
      const std::string form = absl::StrCat(DTypeName(rows.dtype), rows.threads, rows.parts > 1 ? " in parts" : "");
      // Compile the first of each form for three architectures. Of the others, compile the random
      // ones, which contain ops of every kind, for one.
      const bool first = compiled.insert(form).second;
      if (!first && !absl::StartsWith(fused.name, "rows_float32") && !absl::StartsWith(fused.name, "encoder")) continue;
      ExpectMachineCodeFor(source, first ? std::vector<int>{75, 90, 100} : std::vector<int>{75});
    }
  }
  EXPECT_EQ(compiled.size(), 6);
}

// Pools of both kinds, gradients, strides and groups; of float64 only the first.
TEST_F(Nvrtc, CompilesConvolutions) {
  std::set<std::string> sources;
  for (const FusedGraph& fused : ConvGraphs()) {
    SCOPED_TRACE(fused.name);
    if (!absl::StartsWith(fused.name, "convolution_")) continue;
    for (const auto& [group, source] : GeneratedOf(fused, kAllFusions)) {
      if (group.convolution == nullptr || !sources.insert(source.text).second) continue;
      const bool all = absl::StartsWith(fused.name, "convolution_sigmoid_and_mean");
      if (!all && absl::EndsWith(fused.name, "float64")) continue;
      ExpectMachineCodeFor(source, all ? std::vector<int>{75, 80, 86, 87, 89, 90, 100} : std::vector<int>{90});
    }
  }
  EXPECT_GT(sources.size(), 20);
}

TEST_F(Nvrtc, CompilesToPtxForWhatItDoesNotKnow) {
  const absl::StatusOr<std::string> description = compiler_.describe(999);
  ASSERT_TRUE(description.ok()) << description.status();
  EXPECT_THAT(*description, AllOf(HasSubstr("NVRTC 1"), HasSubstr("=compute_"), HasSubstr("--fmad=false")));
  const FusedSource source = GeneratedOf(FusedGraphs().back())[0].source;
  const absl::StatusOr<std::string> image = compiler_.compile(KernelSource(source), 999);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_THAT(*image, HasSubstr(absl::StrCat(".entry ", kGeneratedKernel)));
  // Architectures older than the library knows have no target.
  EXPECT_EQ(compiler_.describe(20).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(Nvrtc, TellsWhatIsWrong) {
  const absl::Status status = compiler_.compile("__global__ void F() { undeclared = 1; }", 75).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("undeclared"));
}

}  // namespace
}  // namespace gradweave
