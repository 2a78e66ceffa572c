// Text for terminals: aligned tables, numbers with units, the nearest of several names.
#ifndef GRADWEAVE_FRONTEND_COMMAND_TEXT_H_
#define GRADWEAVE_FRONTEND_COMMAND_TEXT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gradweave::command {

// Rows of text in aligned columns, two spaces apart. A column whose name begins with '>' is aligned
// at its right. Without names of columns, the table has no line of names.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> columns) : columns_(std::move(columns)) {}
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  // Each line begins with `indent` spaces and ends without spaces.
  std::string ToString(int indent = 0) const;

 private:
  std::vector<std::string> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "1,234,567".
std::string Grouped(double number);
// "512 bytes", "177.7 KB", "1.2 GB"; a KB is 1000 bytes.
std::string BytesText(double bytes);
// "216.6 MFLOP".
std::string FlopsText(double flops);
// "13.6 us", "4.2 ms", "1.25 s".
std::string TimeText(double seconds);
// "1 node", "42 nodes".
std::string Counted(int64_t count, absl::string_view noun);

// The end of an error message about an unknown name: "; did you mean 'logits'?" if a name is near,
// and otherwise the names there are: "; there are 'logits' and 'loss'", or "; there are none".
std::string DidYouMean(absl::string_view name, absl::Span<const std::string> names);

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_TEXT_H_
