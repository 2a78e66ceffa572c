// Charts as SVG and as text.
#include "gradweave/frontend/plot.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(EscapedMarkup, LeavesNoMarkup) {
  EXPECT_EQ(EscapedMarkup("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c&#39;");
  EXPECT_EQ(EscapedMarkup(std::string("a\0b\x1b[1m\n\x7f", 9)), "a b [1m\n ");
  EXPECT_EQ(EscapedMarkup("Größe"), "Größe");
}

TEST(ToSvg, HasColoursForBothSchemes) {
  const std::string svg = ToSvg({"loss", "epoch", {{"train", {{0, 2}, {1, 1}}}, {"test", {{0, 3}, {1, 2}}}}});
  EXPECT_THAT(svg, HasSubstr("@media (prefers-color-scheme: dark)"));
  EXPECT_THAT(svg, HasSubstr("<polyline class=\"series0\""));
  EXPECT_THAT(svg, HasSubstr("<polyline class=\"series1\""));
  // No colour is in an attribute, which the scheme could not change.
  EXPECT_THAT(svg, Not(HasSubstr("stroke=\"")));
  EXPECT_THAT(svg, Not(HasSubstr("fill=\"#")));
  EXPECT_THAT(svg, HasSubstr(">train</text>"));
}

TEST(ToSvg, EscapesItsTexts) {
  const std::string svg = ToSvg({"<b>", "&", {{"</svg>", {{0, 1}}}}});
  EXPECT_THAT(svg, HasSubstr(">&lt;b&gt;</text>"));
  EXPECT_THAT(svg, HasSubstr(">&amp;</text>"));
  EXPECT_THAT(svg, HasSubstr(">&lt;/svg&gt;</text>"));
}

TEST(ToSvg, LeavesNamelessSeriesOutOfTheLegend) {
  const LineChart chart{"seconds", "epoch", {{"", {{0, 1}, {1, 2}}}}};
  LineChart named = chart;
  named.series[0].name = "seconds";
  const auto lines_of_series = [](const std::string& svg) {
    int count = 0;
    for (size_t at = svg.find("class=\"series0\""); at != std::string::npos; at = svg.find("class=\"series0\"", at + 1))
      ++count;
    return count;
  };
  EXPECT_EQ(lines_of_series(ToSvg(chart)), 1);
  EXPECT_EQ(lines_of_series(ToSvg(named)), 2);
}

TEST(ToSvg, ShowsASinglePoint) {
  EXPECT_THAT(ToSvg({"", "", {{"", {{3, 5}}}}}), HasSubstr("<circle class=\"series0\""));
  EXPECT_THAT(ToSvg({"", "", {{"", {{3, 5}, {4, 5}}}}}), Not(HasSubstr("<circle")));
}

// The legend does not cover the ends of the curves: it is below where they end above.
TEST(ToSvg, PutsTheLegendWhereCurvesDoNotEnd) {
  const auto legend_y = [](const std::string& svg) {
    const size_t end = svg.rfind("\">x</text>");
    return std::stod(svg.substr(svg.rfind("y=\"", end) + 3));
  };
  EXPECT_LT(legend_y(ToSvg({"", "", {{"x", {{0, 9}, {1, 1}}}}}, 560, 360)), 100);
  EXPECT_GT(legend_y(ToSvg({"", "", {{"x", {{0, 1}, {1, 9}}}}}, 560, 360)), 250);
}

}  // namespace
}  // namespace gradweave
