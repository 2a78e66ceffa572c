// NVRTC as a library that is opened when it is needed, tested with a fake one.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/runtime/cuda/api/nvrtc.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(NvrtcLibrary, IsMissed) {
  const std::vector<std::string> names = {"libgradweave_has_no_such.so.13", "/no/such/folder/libnvrtc.so"};
  const KernelCompiler compiler = NvrtcCompilerOf(names);
  const absl::Status status = compiler.describe(90).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("NVRTC is not found"), HasSubstr("no_such.so.13"), HasSubstr("LD_LIBRARY_PATH")));
  EXPECT_EQ(compiler.compile("", 90).status().code(), absl::StatusCode::kUnavailable);
  // A library that opens but is not NVRTC.
  const std::vector<std::string> others = {"libm.so.6"};
  EXPECT_THAT(std::string(NvrtcCompilerOf(others).describe(90).status().message()), HasSubstr("lacks nvrtc"));
}

// A package of Python's, say, keeps NVRTC and its built-in functions in a folder that the loader
// does not search.
TEST(NvrtcLibrary, FindsItsBuiltinsBesideIt) {
  const std::vector<std::string> names = {"tests/cuda/libfake_nvrtc.so"};
  const absl::StatusOr<std::string> image = NvrtcCompilerOf(names).compile("a source", 75);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_THAT(*image, HasSubstr("an image"));
}

}  // namespace
}  // namespace gradweave
