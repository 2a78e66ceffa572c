// Line charts as SVG and as text.
#ifndef GRADWEAVE_FRONTEND_PLOT_H_
#define GRADWEAVE_FRONTEND_PLOT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gradweave {

// A chart with one line for each series.
struct LineChart {
  // A line of the chart.
  struct Series {
    std::string name;                               // Empty: the legend leaves it out.
    std::vector<std::pair<double, double>> points;  // Ordered by x. Points that are not finite are skipped.
  };
  std::string title;
  std::string x_label;
  std::vector<Series> series;
};

// Draws the chart with axes, ticks at round numbers, and a legend. Width and height are in pixels.
// The colours follow the light or dark scheme of the viewer (prefers-color-scheme).
std::string ToSvg(const LineChart& chart, int width = 560, int height = 360);

// Draws the chart with characters. Each series has its own mark.
std::string ToText(const LineChart& chart, int columns = 72, int rows = 18);

// Returns text for XML and HTML, also inside quoted attributes: <, >, &, " and ' are entities, and
// control characters that XML does not have are spaces.
std::string EscapedMarkup(absl::string_view text);

// Writes text to a file, which appears when it is complete. Symbolic links are followed. Returns
// FailedPrecondition for what is no regular file, and the system's error with the path.
absl::Status WriteTextFile(const std::string& path, const std::string& text);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_PLOT_H_
