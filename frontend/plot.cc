#include "gradweave/frontend/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/runtime/model_file/file_pair.h"

namespace gradweave {
namespace {

// The range of an axis and the distance of its ticks.
struct Axis {
  double low, high, step;

  Axis(double low, double high) : low(low), high(high) {
    if (!(low <= high)) this->low = 0, this->high = 1;
    if (this->low == this->high) this->high = this->low + 1;
    // Steps of 1, 2 or 5 times a power of ten divide the range into four to ten parts.
    const double rough = (this->high - this->low) / 5;
    const double power = std::pow(10, std::floor(std::log10(rough)));
    const double ratio = rough / power;
    step = power * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
    this->low = std::floor(this->low / step + 1e-9) * step;
    this->high = std::ceil(this->high / step - 1e-9) * step;
  }
  double Fraction(double value) const { return (value - low) / (high - low); }
  int ticks() const { return static_cast<int>(std::lround((high - low) / step)) + 1; }
  double tick(int i) const { return low + i * step; }
};

bool Finite(const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

std::pair<Axis, Axis> Axes(const LineChart& chart) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double low_x = kInfinity, high_x = -kInfinity, low_y = kInfinity, high_y = -kInfinity;
  for (const LineChart::Series& series : chart.series) {
    for (const auto& point : series.points) {
      if (!Finite(point)) continue;
      low_x = std::min(low_x, point.first);
      high_x = std::max(high_x, point.first);
      low_y = std::min(low_y, point.second);
      high_y = std::max(high_y, point.second);
    }
  }
  return {Axis(low_x, high_x), Axis(low_y, high_y)};
}

// The colours are classes, so that a viewer with a dark scheme shows the second half.
constexpr absl::string_view kStyle = R"(<style>
.ground { fill: #ffffff } .text { fill: #1b1b1b } .grid { stroke: #dddddd } .frame { stroke: #444444 }
.series0 { stroke: #1f77b4 } .series1 { stroke: #c44e52 } .series2 { stroke: #2e8b57 }
.series3 { stroke: #8c6bb1 } .series4 { stroke: #d98200 }
@media (prefers-color-scheme: dark) {
.ground { fill: #1b1d21 } .text { fill: #e4e6ea } .grid { stroke: #3a3e46 } .frame { stroke: #8a909c }
.series0 { stroke: #6cb6ff } .series1 { stroke: #ff8b85 } .series2 { stroke: #6bd69a }
.series3 { stroke: #c9a6f5 } .series4 { stroke: #ffb84d }
}
</style>
)";

}  // namespace

std::string EscapedMarkup(absl::string_view text) {
  std::string result =
      absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
  for (char& c : result) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < ' ' && c != '\n' && c != '\t') || c == '\x7f') c = ' ';
  }
  return result;
}

std::string ToSvg(const LineChart& chart, int width, int height) {
  constexpr int kColours = 5;  // Classes series0 to series4.
  constexpr const char* kDashes[] = {"none", "6 3", "8 3 2 3", "2 3", "none"};
  const auto [x_axis, y_axis] = Axes(chart);
  const double left = 52, right = width - 16, top = 34, bottom = height - 44;
  auto x_of = [&, &axis = x_axis](double x) { return left + axis.Fraction(x) * (right - left); };
  auto y_of = [&, &axis = y_axis](double y) { return bottom - axis.Fraction(y) * (bottom - top); };

  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n%s"
      "<rect class=\"ground\" width=\"%d\" height=\"%d\"/>\n<text class=\"text\" x=\"%d\" y=\"20\" "
      "text-anchor=\"middle\" font-size=\"14\">%s</text>\n",
      width, height, width, height, kStyle, width, height, width / 2, EscapedMarkup(chart.title));
  for (int i = 0; i < x_axis.ticks(); ++i) {
    const double x = x_of(x_axis.tick(i));
    absl::StrAppendFormat(
        &svg,
        "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n<text class=\"text\" x=\"%.1f\" "
        "y=\"%.1f\" text-anchor=\"middle\">%g</text>\n",
        x, top, x, bottom, x, bottom + 16, x_axis.tick(i));
  }
  for (int i = 0; i < y_axis.ticks(); ++i) {
    const double y = y_of(y_axis.tick(i));
    absl::StrAppendFormat(
        &svg,
        "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n<text class=\"text\" x=\"%.1f\" "
        "y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
        left, y, right, y, left - 6, y + 4, std::abs(y_axis.tick(i)) < y_axis.step / 2 ? 0 : y_axis.tick(i));
  }
  absl::StrAppendFormat(&svg,
                        "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\"/>\n",
                        left, top, right - left, bottom - top);
  absl::StrAppendFormat(&svg, "<text class=\"text\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
                        (left + right) / 2, height - 8.0, EscapedMarkup(chart.x_label));
  // The legend is on the right: below if curves end in the upper half, else above.
  double ends = 0;
  for (const LineChart::Series& series : chart.series) {
    if (!series.points.empty() && Finite(series.points.back()))
      ends += y_axis.Fraction(series.points.back().second) - 0.5;
  }
  const double legend_top = ends > 0 ? bottom - 18.0 * static_cast<double>(chart.series.size()) : top + 16;
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const LineChart::Series& series = chart.series[i];
    const int colour = static_cast<int>(i % kColours);
    const char* dash = kDashes[i % std::size(kDashes)];
    std::string points;
    for (const auto& point : series.points) {
      if (Finite(point)) absl::StrAppendFormat(&points, "%.1f,%.1f ", x_of(point.first), y_of(point.second));
    }
    absl::StrAppendFormat(
        &svg,
        "<polyline class=\"series%d\" points=\"%s\" fill=\"none\" stroke-width=\"1.8\" stroke-dasharray=\"%s\"/>\n",
        colour, points, dash);
    // A line through one point has no length.
    if (series.points.size() == 1 && Finite(series.points[0])) {
      absl::StrAppendFormat(&svg, "<circle class=\"series%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"none\"/>\n",
                            colour, x_of(series.points[0].first), y_of(series.points[0].second));
    }
    if (series.name.empty()) continue;
    const double legend_y = legend_top + 18.0 * static_cast<double>(i);
    absl::StrAppendFormat(
        &svg,
        "<line class=\"series%d\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke-width=\"1.8\" "
        "stroke-dasharray=\"%s\"/>\n<text class=\"text\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
        colour, right - 130, legend_y, right - 104, legend_y, dash, right - 98, legend_y + 4,
        EscapedMarkup(series.name));
  }
  return absl::StrCat(svg, "</svg>\n");
}

std::string ToText(const LineChart& chart, int columns, int rows) {
  constexpr char kMarks[] = "*+o#x";
  const auto [x_axis, y_axis] = Axes(chart);
  std::vector<std::string> canvas(rows, std::string(columns, ' '));
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const std::pair<double, double>* previous = nullptr;
    for (const auto& point : chart.series[i].points) {
      if (!Finite(point)) continue;
      // Interpolates between neighbouring points, one step for each column.
      const std::pair<double, double>& from = previous == nullptr ? point : *previous;
      const double distance = std::abs(x_axis.Fraction(point.first) - x_axis.Fraction(from.first)) * columns;
      const int steps = std::max(1, static_cast<int>(distance));
      for (int k = 1; k <= steps; ++k) {
        const double t = static_cast<double>(k) / steps;
        const int column =
            static_cast<int>(std::lround(x_axis.Fraction(from.first + t * (point.first - from.first)) * (columns - 1)));
        const int row =
            static_cast<int>(std::lround(y_axis.Fraction(from.second + t * (point.second - from.second)) * (rows - 1)));
        canvas[rows - 1 - row][column] = kMarks[i % (std::size(kMarks) - 1)];
      }
      previous = &point;
    }
  }
  std::string text = absl::StrCat(chart.title, "\n");
  for (int row = 0; row < rows; ++row) {
    const double value = y_axis.high - (y_axis.high - y_axis.low) * row / (rows - 1);
    absl::StrAppendFormat(&text, "%7.2f |%s\n", value, canvas[row]);
  }
  absl::StrAppend(&text, std::string(8, ' '), "+", std::string(columns, '-'), "\n");
  const std::string last = absl::StrFormat("%g %s", x_axis.high, chart.x_label);
  const std::string first = absl::StrFormat("%g", x_axis.low);
  absl::StrAppend(&text, std::string(9, ' '), first,
                  std::string(std::max<int>(1, columns - static_cast<int>(first.size() + last.size())), ' '), last,
                  "\n");
  for (size_t i = 0; i < chart.series.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "         " : "   ", std::string(1, kMarks[i % (std::size(kMarks) - 1)]), " ",
                    chart.series[i].name);
  }
  return absl::StrCat(text, "\n");
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) try {
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<FilePair> file, FilePair::Begin(path));
  return file->CommitStream([&](FILE* stream) {
    std::fwrite(text.data(), 1, text.size(), stream);
    return absl::OkStatus();
  });
}
GW_CATCH_OUT_OF_MEMORY("WriteTextFile")

}  // namespace gradweave
