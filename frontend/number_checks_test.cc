// The ranges of numbers that users give, to their ends, and the errors of numbers outside.
#include "gradweave/frontend/number_checks.h"

#include <iterator>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTiny = std::numeric_limits<double>::denorm_min(), kEpsilon = std::numeric_limits<double>::epsilon();

struct Row {
  NumberCheck::Range range;
  const char* accepts;  // A letter for each of kNumbers: y or n.
  const char* expected;
};

constexpr double kNumbers[] = {kNaN, -kInfinity, -1, -kTiny, -0.0, 0, kTiny, 1 - kEpsilon, 1, 1 + kEpsilon, kInfinity};
constexpr Row kRows[] = {
    {NumberCheck::kNotNaN, "nyyyyyyyyyy", "must be a number"},
    {NumberCheck::kFinite, "nnyyyyyyyyn", "must be finite"},
    {NumberCheck::kNotNegative, "nnnnyyyyyyn", "must be finite and at least 0"},
    {NumberCheck::kPositive, "nnnnnnyyyyy", "must be above 0"},
    {NumberCheck::kFraction, "nnnnyyyyynn", "must be in [0, 1]"},
    {NumberCheck::kBelowOne, "nnnnyyyynnn", "must be in [0, 1)"},
    {NumberCheck::kAtLeastOne, "nnnnnnnnyyy", "must be at least 1"},
};

TEST(CheckNumbers, KnowsTheEndsOfEachRange) {
  for (const Row& row : kRows) {
    for (size_t i = 0; i < std::size(kNumbers); ++i) {
      const absl::Status status = CheckNumbers("Adam", {{"rate", kNumbers[i], row.range}});
      EXPECT_EQ(status.ok(), row.accepts[i] == 'y') << kNumbers[i] << " " << row.expected;
      if (status.ok()) continue;
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      const std::string end = std::string(" and ") + row.expected;
      EXPECT_EQ(std::string(status.message()).substr(0, 14), "Adam: rate is ");
      EXPECT_EQ(status.message().substr(status.message().size() - end.size()), end);
    }
  }
}

TEST(CheckNumbers, TellsTheFirstWrongOne) {
  EXPECT_TRUE(CheckNumbers("Sgd", {}).ok());
  EXPECT_EQ(CheckNumbers(
                "Sgd",
                {{"a", 1, NumberCheck::kFraction}, {"b", 1, NumberCheck::kBelowOne}, {"c", -1, NumberCheck::kPositive}})
                .message(),
            "Sgd: b is 1 and must be in [0, 1)");
}

TEST(CheckNumbers, RecordsTheErrorAtTheBuildersLine) {
  Graph graph;
  EXPECT_TRUE(CheckNumbers(graph, "Sgd", {{"rate", 1, NumberCheck::kPositive}}));
  EXPECT_TRUE(graph.status().ok());
  graph.builder().location = {"model.cc", 42};
  EXPECT_FALSE(CheckNumbers(graph, "Sgd", {{"rate", 0, NumberCheck::kPositive}}));
  EXPECT_EQ(graph.status().message(), "Sgd: rate is 0 and must be above 0 at model.cc:42");

  Graph without_line;
  EXPECT_FALSE(CheckNumbers(without_line, "Sgd", {{"rate", 0, NumberCheck::kPositive}}));
  EXPECT_EQ(without_line.status().message(), "Sgd: rate is 0 and must be above 0");
}

}  // namespace
}  // namespace gradweave
