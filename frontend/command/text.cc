#include "gradweave/frontend/command/text.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/frontend/input_file.h"

namespace gradweave::command {
namespace {

struct Unit {
  double size;
  const char* name;
};

// The number in the largest unit that it reaches, with one digit after the point.
std::string InUnits(double number, absl::Span<const Unit> units) {
  for (const Unit& unit : units) {
    if (number >= unit.size) return absl::StrFormat("%.1f %s", number / unit.size, unit.name);
  }
  return absl::StrFormat("%.1f %s", number / units.back().size, units.back().name);
}

// The least number of letters to change, add or leave out that turns one text into the other
// (Wagner and Fischer, "The string-to-string correction problem", 1974).
size_t Distance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
    }
  }
  return row[b.size()];
}

std::string Quoted(absl::string_view name) { return absl::StrCat("'", PrintableText(name), "'"); }

}  // namespace

std::string TextTable::ToString(int indent) const {
  std::vector<std::string> names;
  std::vector<bool> right;
  for (const std::string& column : columns_) {
    right.push_back(!column.empty() && column[0] == '>');
    names.push_back(right.back() ? column.substr(1) : column);
  }
  std::vector<const std::vector<std::string>*> lines;
  if (std::any_of(names.begin(), names.end(), [](const std::string& name) { return !name.empty(); }))
    lines.push_back(&names);
  for (const auto& row : rows_) lines.push_back(&row);
  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto* line : lines) {
    for (size_t i = 0; i < line->size(); ++i) widths[i] = std::max(widths[i], (*line)[i].size());
  }
  std::string text;
  for (const auto* line : lines) {
    std::string of_line(indent, ' ');
    for (size_t i = 0; i < line->size(); ++i) {
      const std::string space(widths[i] - (*line)[i].size(), ' ');
      absl::StrAppend(&of_line, i == 0 ? "" : "  ", right[i] ? space : "", (*line)[i], right[i] ? "" : space);
    }
    absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(of_line), "\n");
  }
  return text;
}

std::string Grouped(double number) {
  std::string text = absl::StrFormat("%.0f", number);
  for (int i = static_cast<int>(text.size()) - 3; i > 0; i -= 3) text.insert(static_cast<size_t>(i), 1, ',');
  return text;
}

std::string BytesText(double bytes) {
  if (bytes < 1000) return bytes == 1 ? "1 byte" : absl::StrFormat("%.0f bytes", bytes);
  return InUnits(bytes, {{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "KB"}});
}

std::string FlopsText(double flops) {
  if (flops < 1000) return absl::StrFormat("%.0f FLOP", flops);
  return InUnits(flops, {{1e12, "TFLOP"}, {1e9, "GFLOP"}, {1e6, "MFLOP"}, {1e3, "KFLOP"}});
}

std::string TimeText(double seconds) { return InUnits(seconds, {{1, "s"}, {1e-3, "ms"}, {1e-6, "us"}}); }

std::string Counted(int64_t count, absl::string_view noun) {
  return absl::StrCat(Grouped(static_cast<double>(count)), " ", noun, count == 1 ? "" : "s");
}

std::string DidYouMean(absl::string_view name, absl::Span<const std::string> names) {
  constexpr size_t kMostNames = 8;
  if (names.empty()) return "; there are none";
  const std::string lower = absl::AsciiStrToLower(name);
  const std::string* nearest = nullptr;
  size_t least = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : names) {
    const size_t distance = Distance(lower, absl::AsciiStrToLower(candidate));
    if (distance < least) {
      least = distance;
      nearest = &candidate;
    }
  }
  if (nearest != nullptr) return absl::StrCat("; did you mean ", Quoted(*nearest), "?");
  std::string text = names.size() == 1 ? "; there is " : "; there are ";
  const size_t shown = std::min(names.size(), kMostNames);
  for (size_t i = 0; i < shown; ++i) {
    const bool is_last = i + 1 == names.size();
    absl::StrAppend(&text, i == 0 ? "" : is_last ? " and " : ", ", Quoted(names[i]));
  }
  if (shown < names.size()) absl::StrAppend(&text, " and ", names.size() - shown, " more");
  return text;
}

}  // namespace gradweave::command
