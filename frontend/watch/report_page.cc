#include "gradweave/frontend/watch/report_page.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/input_file.h"

namespace gradweave {
namespace {

// A matrix with more classes would not fit a screen.
constexpr size_t kMostClasses = 50;

constexpr absl::string_view kHead = R"(<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<style>
:root { --page: #f4f5f7; --panel: #ffffff; --text: #1b1b1b; --soft: #5c6370; --line: #dddddd;
        --right: 31, 119, 180; --wrong: 196, 78, 82 }
@media (prefers-color-scheme: dark) {
:root { --page: #111317; --panel: #1b1d21; --text: #e4e6ea; --soft: #9aa1ad; --line: #3a3e46;
        --right: 108, 182, 255; --wrong: 255, 139, 133 }
}
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: var(--page); color: var(--text);
       font: 15px/1.45 system-ui, sans-serif }
h1 { margin: 0 0 16px; font-size: 26px; overflow-wrap: anywhere } h2 { margin: 0 0 12px; font-size: 18px }
p { margin: 0 0 12px; color: var(--soft) }
section { margin: 0 0 20px; padding: 18px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 14px; margin: 0 }
dt { color: var(--soft); font-size: 13px; overflow-wrap: anywhere }
dd { margin: 0; font-size: 18px; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 16px }
.charts svg { width: 100%; height: auto }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th { padding: 4px 8px; font-weight: 500; text-align: right; white-space: nowrap }
thead th { vertical-align: bottom; text-align: center }
thead th span { writing-mode: vertical-rl; transform: rotate(180deg) }
td { min-width: 30px; padding: 4px 6px; text-align: center; border: 1px solid var(--line) }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 14px }
figure { margin: 0; text-align: center; font-size: 13px; overflow-wrap: anywhere }
figure img { width: 112px; height: 112px; object-fit: contain; image-rendering: pixelated; border: 1px solid var(--line) }
.label { color: rgb(var(--right)) } .prediction { color: rgb(var(--wrong)) } .soft { color: var(--soft) }
pre { margin: 0; font: 12px/1.5 ui-monospace, monospace; tab-size: 2 }
</style>
)";

// Returns text of a file or a user for the page.
std::string Text(absl::string_view text) { return EscapedMarkup(text); }

std::string ClassName(const ReportPage& page, int64_t number) { return Text(page.classes[number]); }

void AddFacts(const ReportPage& page, std::string& html) {
  if (page.facts.empty()) return;
  absl::StrAppend(&html, "<section><dl>\n");
  for (const auto& [name, value] : page.facts) {
    absl::StrAppend(&html, "<div><dt>", Text(name), "</dt><dd>", Text(value), "</dd></div>\n");
  }
  absl::StrAppend(&html, "</dl></section>\n");
}

void AddCharts(const ReportPage& page, std::string& html) {
  if (page.charts.empty()) return;
  absl::StrAppend(&html, "<section><h2>Curves</h2><div class=\"charts\">\n");
  for (const LineChart& chart : page.charts) absl::StrAppend(&html, ToSvg(chart));
  absl::StrAppend(&html, "</div></section>\n");
}

void AddConfusion(const ReportPage& page, std::string& html) {
  const size_t count = page.classes.size();
  if (page.confusion.empty() || count > kMostClasses) return;
  absl::StrAppend(&html,
                  "<section><h2>Confusion matrix</h2><p>A row for each class, a column for each prediction; the shade "
                  "is the share of the row.</p><div class=\"wide\"><table><thead><tr><th></th>");
  for (size_t column = 0; column < count; ++column) {
    absl::StrAppend(&html, "<th scope=\"col\"><span>", ClassName(page, static_cast<int64_t>(column)), "</span></th>");
  }
  absl::StrAppend(&html, "</tr></thead><tbody>\n");
  for (size_t row = 0; row < count; ++row) {
    const int64_t* const counts = page.confusion.data() + row * count;
    int64_t sum = 0;
    for (size_t column = 0; column < count; ++column) sum += counts[column];
    absl::StrAppend(&html, "<tr><th scope=\"row\">", ClassName(page, static_cast<int64_t>(row)), "</th>");
    for (size_t column = 0; column < count; ++column) {
      if (counts[column] == 0) {
        absl::StrAppend(&html, "<td></td>");
        continue;
      }
      // Text stays readable on at most this much colour.
      constexpr double kMostColour = 0.55;
      const double share = static_cast<double>(counts[column]) / static_cast<double>(sum);
      absl::StrAppendFormat(&html, "<td style=\"background: rgba(var(--%s), %.3f)\" title=\"%.1f %%\">%d</td>",
                            row == column ? "right" : "wrong", kMostColour * share, 100 * share, counts[column]);
    }
    absl::StrAppend(&html, "</tr>\n");
  }
  absl::StrAppend(&html, "</tbody></table></div></section>\n");
}

void AddMistakes(const ReportPage& page, std::string& html) {
  if (page.samples == 0) return;
  absl::StrAppendFormat(&html, "<section><h2>Wrong predictions</h2><p>%d of %d samples are wrong%s.</p>\n", page.wrong,
                        page.samples,
                        page.mistakes.empty() ? "" : "; these are the surest of them: class, prediction, probability");
  absl::StrAppend(&html, "<div class=\"samples\">\n");
  for (const Mistake& mistake : page.mistakes) {
    absl::StrAppend(&html, "<figure>");
    if (!mistake.png.empty()) {
      absl::StrAppend(&html, "<img alt=\"sample ", mistake.sample, "\" src=\"data:image/png;base64,",
                      absl::Base64Escape(mistake.png), "\">");
    }
    absl::StrAppend(&html, "<figcaption><span class=\"label\">", ClassName(page, mistake.label),
                    "</span> → <span class=\"prediction\">", ClassName(page, mistake.prediction), "</span> ",
                    absl::StrFormat("%.0f&nbsp;%%", 100 * mistake.probability), "<br><span class=\"soft\">sample ",
                    mistake.sample, "</span></figcaption></figure>\n");
  }
  absl::StrAppend(&html, "</div></section>\n");
}

void AddPlan(const ReportPage& page, std::string& html) {
  if (page.plan.empty()) return;
  absl::StrAppend(&html, "<section><h2>", Text(page.plan_title), "</h2><div class=\"wide\"><pre>", Text(page.plan),
                  "</pre></div></section>\n");
}

}  // namespace

std::string ToHtml(const ReportPage& page) {
  std::string html = absl::StrCat("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n", kHead, "<title>", Text(page.title),
                                  "</title>\n</head>\n<body>\n<h1>", Text(page.title), "</h1>\n");
  AddFacts(page, html);
  AddCharts(page, html);
  AddConfusion(page, html);
  AddMistakes(page, html);
  AddPlan(page, html);
  return absl::StrCat(html, "</body>\n</html>\n");
}

}  // namespace gradweave
