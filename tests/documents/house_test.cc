// Checks that the includes follow the table of docs/architecture.md, and that docs/house.svg shows
// them.
#include "gradweave/tools/house.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::string_view kTable = R"(
| folder | what is in it | may use |
| --- | --- | --- |
| `graph/` | the graph | nothing |
| `ops/` | ops | `graph` |
| `runtime/` | sessions | `graph`, `ops` |
| `tests/**` | tests | all above |
)";

std::vector<std::string> Check(absl::string_view table, const std::vector<Include>& more) {
  std::vector<Include> includes = {{"ops/a.cc", "graph/graph.h"},
                                   {"runtime/b.cc", "graph/graph.h"},
                                   {"runtime/b.cc", "ops/a.h"},
                                   {"runtime/b.cc", "runtime/b.h"}};
  includes.insert(includes.end(), more.begin(), more.end());
  return CheckHouse(*ReadTable(table), includes);
}

TEST(House, KeepsToTheTable) {
  EXPECT_THAT(Check(kTable, {}), IsEmpty());
  EXPECT_THAT(Check(kTable, {{"tests/deep/below/a.cc", "runtime/b.h"}}), IsEmpty());
  EXPECT_THAT(Check(kTable, {{"graph/graph_test.cc", "runtime/b.h"}}), IsEmpty());
}

TEST(House, ForbidsOtherIncludes) {
  EXPECT_THAT(Check(kTable, {{"graph/graph.cc", "ops/a.h"}, {"ops/a.cc", "runtime/b.h"}}),
              ElementsAre(HasSubstr("graph/graph.cc includes gradweave/ops/a.h: graph/ may not use ops/"),
                          HasSubstr("ops/a.cc includes gradweave/runtime/b.h: ops/ may not use runtime/")));
}

TEST(House, NamesFoldersWithoutARow) {
  EXPECT_THAT(Check(kTable, {{"runtime/new/c.cc", "graph/graph.h"}, {"runtime/new/d.cc", "graph/graph.h"}}),
              ElementsAre(HasSubstr("no row for runtime/new/")));
}

TEST(House, RefusesCircles) {
  const std::string circle(absl::string_view(R"(
| folder | what is in it | may use |
| --- | --- | --- |
| `graph/` | the graph | `ops` |
| `ops/` | ops | `graph` |
| `runtime/` | sessions | `graph`, `ops` |
)"));
  EXPECT_THAT(Check(circle, {{"graph/graph.cc", "ops/a.h"}}), ElementsAre(HasSubstr("graph/ may not use ops/")));
}

TEST(House, NamesPermissionsThatNothingNeeds) {
  const std::vector<Include> includes = {{"ops/a.cc", "graph/graph.h"}, {"runtime/b.cc", "graph/graph.h"}};
  EXPECT_THAT(CheckHouse(*ReadTable(kTable), includes), ElementsAre(HasSubstr("runtime/ uses nothing of ops/")));
}

TEST(House, ReadsIncludesOfTheProjectAlone) {
  const std::vector<Include> includes =
      IncludesOf("a.cc", "#include <map>\n#include \"absl/a.h\"\n#include \"gradweave/graph/dim.h\"  // IWYU\n");
  ASSERT_EQ(includes.size(), 1u);
  EXPECT_EQ(includes[0].header, "graph/dim.h");
}

TEST(House, NamesRowsThatCannotBeRead) {
  EXPECT_THAT(ReadTable("no table").status().message(), HasSubstr("| folder |"));
  EXPECT_THAT(ReadTable("| folder | a | b |\n| --- | --- | --- |\n| `x/` | y | everything |\n").status().message(),
              HasSubstr("`x/` | y | everything"));
}

class Sources : public ::testing::Test {
 protected:
  // The folder of the sources. Bazel links WORKSPACE into the folder of a test.
  const std::string root_ = std::filesystem::canonical("WORKSPACE").parent_path();

  std::string Read(const std::string& path) const {
    std::stringstream text;
    text << std::ifstream(root_ + "/" + path).rdbuf();
    return text.str();
  }
};

TEST_F(Sources, KeepToTheTable) {
  const auto rooms = ReadTable(Read("docs/architecture.md"));
  ASSERT_TRUE(rooms.ok()) << rooms.status();
  const auto includes = ReadIncludes(root_);
  ASSERT_TRUE(includes.ok()) << includes.status();
  EXPECT_GT(includes->size(), 500u);
  for (const std::string& error : CheckHouse(*rooms, *includes)) ADD_FAILURE() << error;
  EXPECT_TRUE(DrawHouse(*rooms, *includes) == Read("docs/house.svg"))
      << "docs/house.svg is out of date; draw it again: bazel run //tools:draw_house";
}

}  // namespace
}  // namespace gradweave
