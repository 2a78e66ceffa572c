// The subcommand that writes a starter project, and the program of that project.
#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "tests/command/command_runner.h"

namespace gradweave {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class NewTest : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    std::filesystem::create_directory(Path("clone"));
    WriteFile("clone/gradweave.h", "");
  }
};

TEST_F(NewTest, WritesAProject) {
  EXPECT_EQ(
      RunOk("new first --gradweave=clone"),
      "first/BUILD.bazel\nfirst/CMakeLists.txt\nfirst/README.md\nfirst/WORKSPACE\nfirst/.bazelrc\nfirst/main.cc\n\n"
      "cd first && cmake -B build && cmake --build build && build/first\n"
      "cd first && bazel run //:first\n");
  EXPECT_THAT(ReadFile("first/WORKSPACE"),
              HasSubstr(absl::StrCat("path = \"", std::filesystem::canonical(Path("clone")).string(), "\"")));
  EXPECT_THAT(ReadFile("first/BUILD.bazel"), HasSubstr("name = \"first\""));
  EXPECT_THAT(ReadFile("first/.bazelrc"), HasSubstr("-std=c++20"));
  EXPECT_THAT(ReadFile("first/CMakeLists.txt"),
              HasSubstr(absl::StrCat("find_package(Gradweave ", Version(), " REQUIRED")));
  EXPECT_THAT(ReadFile("first/README.md"), HasSubstr("bazel run //:first"));
  for (const char* file : {"BUILD.bazel", "CMakeLists.txt", "README.md", "WORKSPACE", ".bazelrc", "main.cc"}) {
    EXPECT_THAT(ReadFile(absl::StrCat("first/", file)), Not(ContainsRegex("@[A-Z]+@"))) << file;
  }
}

// Where the library is installed there may be no clone. tests/install builds this project.
TEST_F(NewTest, WithoutACloneTheProjectIsForCMakeAlone) {
  EXPECT_EQ(RunOk("new second/"),
            "second/CMakeLists.txt\nsecond/README.md\nsecond/main.cc\n\n"
            "cd second && cmake -B build && cmake --build build && build/second\n");
  EXPECT_FALSE(Exists("second/WORKSPACE"));
  EXPECT_THAT(ReadFile("second/README.md"), Not(HasSubstr("bazel run //:second")));
}

// The program is built from the same text.
TEST_F(NewTest, TheProgramTrainsAndSavesItsModel) {
  const std::string program = std::filesystem::absolute("tests/command/starter");
  ASSERT_EQ(std::system(absl::StrCat("'", program, "' '", Path("first.gw"), "' >'", Path("out"), "'").c_str()), 0);
  EXPECT_THAT(ReadFile("out"), ContainsRegex("epoch 20/20 .* validation:  loss 0[.]00"));
  EXPECT_THAT(RunOk("inspect first.gw"), HasSubstr("  prediction  float32[batch,1]  needs x\n"));
}

TEST_F(NewTest, ErrorsLeaveNothing) {
  WriteFile("taken", "");
  ExpectError("new taken --gradweave=clone", 1, "new: taken: it exists already");
  ExpectError("new 2nd --gradweave=clone", 2,
              "new: '2nd' cannot be the name of a project; letters, digits and _ are expected, a letter first");
  ExpectError("new first --gradweave=none", 1, "new: none: this is not a clone of Gradweave: it has no gradweave.h");
  ExpectError("new none/first --gradweave=clone", 1,
              "new: none/first: the folder cannot be made: No such file or directory");
  EXPECT_FALSE(Exists("first"));
}

}  // namespace
}  // namespace gradweave
