// The page of a report.
#ifndef GRADWEAVE_FRONTEND_WATCH_REPORT_PAGE_H_
#define GRADWEAVE_FRONTEND_WATCH_REPORT_PAGE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/frontend/plot.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

// A sample with a wrong prediction. Classes are numbers of ReportPage::classes.
struct Mistake {
  int64_t sample = 0, label = 0, prediction = 0;
  double probability = 0;  // The probability of the prediction.
  std::string png;         // The bytes of a PNG file, or empty.
};

// The content of a report.
struct ReportPage {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts;  // Names and values, in order.
  std::vector<LineChart> charts;
  int64_t samples = 0, wrong = 0;    // Predicted samples, and those of them that are wrong.
  std::vector<std::string> classes;  // A name for each class.
  std::vector<int64_t> confusion;    // [classes, classes]: the label is the row, the prediction the column.
  std::vector<Mistake> mistakes;     // Some of the wrong ones.
  std::string plan_title, plan;      // A table as text with columns of one width.
};

// Returns the page as HTML. Parts without content are left out. All texts are escaped.
std::string ToHtml(const ReportPage& page);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_WATCH_REPORT_PAGE_H_
