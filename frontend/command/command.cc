#include "gradweave/frontend/command/command.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/stop_signals.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/version.h"

namespace gradweave::command {
namespace {

constexpr char kUsagePayload[] = "gradweave/usage";
constexpr char kSeparator = '\n';  // Between the values of a flag that is given several times.

// The request of the arguments: a run of the subcommand, or its help.
enum class Request { kRun, kHelp };

struct Call {
  Request request = Request::kRun;
  std::vector<std::string> arguments;
};

// Reads the arguments of a subcommand and sets its flags.
class Parser {
 public:
  Parser(const Subcommand& subcommand, std::vector<std::string> words)
      : subcommand_(subcommand), words_(std::move(words)) {}

  absl::StatusOr<Call> Parse() {
    Call call;
    for (; at_ < words_.size(); ++at_) {
      absl::string_view word = words_[at_];
      if (only_arguments_ || word.size() < 2 || word[0] != '-') {
        call.arguments.emplace_back(word);
      } else if (word == "--") {
        only_arguments_ = true;
      } else if (word == "--help" || word == "-h") {
        call.request = Request::kHelp;
        return call;
      } else {
        GW_RETURN_IF_ERROR(SetFlag(word));
      }
    }
    const int count = static_cast<int>(call.arguments.size());
    if (count < subcommand_.fewest || count > subcommand_.most) {
      return UsageError(
          count < subcommand_.fewest
              ? absl::StrCat("an argument is missing: ", subcommand_.arguments, " is expected")
              : absl::StrCat("'", PrintableText(call.arguments[subcommand_.most]), "' is one argument too many"));
    }
    return call;
  }

 private:
  const FlagUse* Find(absl::string_view name) const {
    for (const FlagUse& use : subcommand_.flags) {
      if (name == use.name) return &use;
    }
    return nullptr;
  }

  absl::Status SetFlag(absl::string_view word) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(word, absl::MaxSplits('=', 1));
    const bool has_value = absl::StrContains(word, '=');
    // A flag may be written with dashes: --output-dir.
    std::string name(parts.first == "-o" ? "output" : absl::StripPrefix(parts.first, "--"));
    std::replace(name.begin(), name.end(), '-', '_');
    std::string value(parts.second);
    const FlagUse* use = absl::StartsWith(word, "--") || parts.first == "-o" ? Find(name) : nullptr;
    if (use == nullptr && !has_value && absl::StartsWith(name, "no")) {
      use = Find(absl::StripPrefix(absl::StripPrefix(name, "no"), "_"));
      if (use != nullptr && use->value[0] != '\0') use = nullptr;
      value = "false";
    } else if (use != nullptr && !has_value) {
      if (use->value[0] == '\0') {
        value = "true";
      } else if (++at_ < words_.size()) {
        value = words_[at_];
      } else {
        return UsageError(absl::StrCat(parts.first, " needs a value: ", parts.first, "=", use->value));
      }
    }
    if (use == nullptr) {
      std::vector<std::string> names;
      for (const FlagUse& known : subcommand_.flags) names.push_back(absl::StrCat("--", known.name));
      const std::string shown = PrintableText(parts.first);
      return UsageError(absl::StrCat("there is no flag ", shown, DidYouMean(absl::StrCat("--", name), names)));
    }
    absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(use->name);
    if (flag->IsOfType<NamedTexts>()) {
      const std::string earlier = flag->CurrentValue();
      if (!earlier.empty()) value = absl::StrCat(earlier, std::string(1, kSeparator), value);
    }
    if (std::string error; !flag->ParseFrom(value, &error)) {
      const std::vector<std::string> lines = absl::StrSplit(error, '\n');
      return UsageError(absl::StrCat("--", use->name, "=", PrintableText(parts.second.empty() ? value : parts.second),
                                     " has no such value; ", use->value, " is expected",
                                     absl::StrContains(error, "Illegal value") || lines[0].empty() ? "" : ": ",
                                     absl::StrContains(error, "Illegal value") ? "" : lines[0]));
    }
    return absl::OkStatus();
  }

  const Subcommand& subcommand_;
  const std::vector<std::string> words_;
  size_t at_ = 0;
  bool only_arguments_ = false;
};

std::string HelpOfAll(absl::Span<const Subcommand> subcommands) {
  TextTable table({"", ""});
  for (const Subcommand& subcommand : subcommands) table.AddRow({subcommand.name, subcommand.summary});
  return absl::StrCat(
      "gradweave: inspects, runs, trains and converts models\n\n", table.ToString(2),
      "\n`gradweave COMMAND --help` describes a command, and `gradweave --version` prints the version.\n",
      "An error is one line on stderr with exit code 1; a wrong call has exit code 2.\n");
}

// Breaks text at spaces into lines of at most `width` columns.
std::vector<std::string> Wrapped(absl::string_view text, size_t width) {
  std::vector<std::string> lines(1);
  for (absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() > width) lines.emplace_back();
    absl::StrAppend(&lines.back(), lines.back().empty() ? "" : " ", word);
  }
  return lines;
}

std::string HelpOf(const Subcommand& subcommand) {
  std::string text = absl::StrCat("gradweave ", subcommand.name, " ", subcommand.arguments,
                                  subcommand.flags.empty() ? "" : " [flags]", "\n  ", subcommand.summary, "\n");
  if (subcommand.details[0] != '\0') absl::StrAppend(&text, "\n", subcommand.details, "\n");
  if (subcommand.flags.empty()) return text;
  TextTable table({"", ""});
  for (const FlagUse& use : subcommand.flags) {
    const absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(use.name);
    const bool is_output = absl::string_view(use.name) == "output";
    std::string help = use.help[0] != '\0' ? use.help : flag->Help();
    const std::string preset = flag->DefaultValue();
    if (use.value[0] != '\0' && !preset.empty()) absl::StrAppend(&help, " Default: ", preset, ".");
    std::string name = absl::StrCat(is_output ? "-o " : absl::StrCat("--", use.name),
                                    use.value[0] != '\0' && !is_output ? "=" : "", use.value);
    for (const std::string& line : Wrapped(help, 72)) {
      table.AddRow({name, line});
      name.clear();
    }
  }
  return absl::StrCat(text, "\nflags\n", table.ToString(2));
}

absl::StatusOr<int> Run(absl::Span<const Subcommand> subcommands, const std::vector<std::string>& words,
                        std::string& name) {
  if (words.empty()) return UsageError("a command is expected; gradweave --help lists them");
  const bool asks_for_help = words[0] == "help";
  if (words[0] == "--version") {
    std::cout << "gradweave " << Version() << "\n";
    return 0;
  }
  if (words[0] == "--help" || words[0] == "-h" || (asks_for_help && words.size() == 1)) {
    std::cout << HelpOfAll(subcommands);
    return 0;
  }
  const std::string& wanted = words[asks_for_help ? 1 : 0];
  const auto found = std::find_if(subcommands.begin(), subcommands.end(),
                                  [&](const Subcommand& subcommand) { return wanted == subcommand.name; });
  if (found == subcommands.end()) {
    std::vector<std::string> names;
    for (const Subcommand& subcommand : subcommands) names.push_back(subcommand.name);
    return UsageError(absl::StrCat("there is no command '", PrintableText(wanted), "'", DidYouMean(wanted, names)));
  }
  name = absl::StrCat("gradweave ", found->name);
  Parser parser(*found, {words.begin() + 1, words.end()});
  const absl::StatusOr<Call> call = asks_for_help ? Call{Request::kHelp, {}} : parser.Parse();
  if (!call.ok()) return call.status();
  if (call->request == Request::kHelp) {
    std::cout << HelpOf(*found);
    return 0;
  }
  return found->run(call->arguments, std::cout);
}

}  // namespace

absl::Status UsageError(absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

int Main(absl::Span<const Subcommand> subcommands, int argc, char** argv) {
  std::string name = "gradweave";
  absl::StatusOr<int> code;
  // Bazel starts programs in its own folder. Paths are relative to the user's folder.
  const char* const folder = std::getenv("BUILD_WORKING_DIRECTORY");
  if (folder != nullptr && chdir(folder) != 0) {
    code = absl::NotFoundError(absl::StrCat("there is no folder ", folder));
  } else {
    code = Run(subcommands, {argv + 1, argv + argc}, name);
  }
  if (code.ok() && !std::cout.flush()) code = absl::UnavailableError("the output cannot be written");
  if (code.ok()) return *code;
  const absl::Status& status = code.status();
  std::cout.flush();
  // A line of progress may be unfinished.
  if (isatty(STDOUT_FILENO) != 0 && isatty(STDERR_FILENO) != 0) std::cerr << "\r\x1b[K";
  std::cerr << name << ": " << absl::StrReplaceAll(status.message(), {{"\n", " "}})
            << (absl::IsCancelled(status) ? "; --resume continues from there" : "") << std::endl;
  return status.GetPayload(kUsagePayload).has_value() ? 2 : ExitCode(status);
}

bool AbslParseFlag(absl::string_view text, NamedTexts* flag, std::string* error) {
  flag->items.clear();
  for (absl::string_view item : absl::StrSplit(text, kSeparator, absl::SkipEmpty())) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(item, absl::MaxSplits('=', 1));
    if (parts.first.empty() || parts.second.empty()) {
      *error = "Illegal value";
      return false;
    }
    flag->items.push_back(parts);
  }
  return true;
}

std::string AbslUnparseFlag(const NamedTexts& flag) {
  return absl::StrJoin(flag.items, std::string(1, kSeparator), absl::PairFormatter("="));
}

}  // namespace gradweave::command
