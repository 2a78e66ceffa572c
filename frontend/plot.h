// Line charts, as SVG files and as text.
#ifndef GRADWEAVE_FRONTEND_PLOT_H_
#define GRADWEAVE_FRONTEND_PLOT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace gradweave {

struct LineChart {
  struct Series {
    std::string name;
    std::vector<std::pair<double, double>> points;  // In the order of x. Points that are not finite are left out.
  };
  std::string title;
  std::string x_label;
  std::vector<Series> series;
};

// The chart with axes, round numbers along them, and a legend.
std::string ToSvg(const LineChart& chart, int width = 560, int height = 360);

// The same in characters: each series has its own mark.
std::string ToText(const LineChart& chart, int columns = 72, int rows = 18);

// Writes text to a file; an error names the path and the system's reason.
absl::Status WriteTextFile(const std::string& path, const std::string& text);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_PLOT_H_
