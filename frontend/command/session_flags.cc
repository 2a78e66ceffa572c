#include "gradweave/frontend/command/session_flags.h"

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(std::string, device, "cpu", "cpu, cuda or cuda:<index>.");
ABSL_FLAG(std::vector<std::string>, threads, {"0"}, "Threads of a run, in [1, 1024]; 0 means one per processor.");
ABSL_FLAG(uint64_t, seed, 0, "Seed of random inputs, and of all random numbers of a training.");
ABSL_FLAG(gradweave::command::NamedTexts, shape, {},
          "Sizes of an input, which give its symbols their sizes; may be given for each input. A symbol without a "
          "size is 1.");
ABSL_FLAG(std::vector<std::string>, outputs, {}, "The outputs to compute, with commas between them.");
ABSL_FLAG(std::string, output, "", "The file to write.");
ABSL_FLAG(std::string, loss, "", "A loss.");  // Each subcommand says what it names.
ABSL_FLAG(gradweave::command::NamedTexts, input, {},
          "The file of an input: an array of numpy (.npy) or a PNG image. May be given for each input.");
ABSL_FLAG(bool, random, false, "Fills the inputs without a file with random numbers in [0, 1); integers are 0.");

namespace gradweave::command {

absl::StatusOr<std::vector<int64_t>> NumbersOf(absl::string_view flag, const std::vector<std::string>& texts,
                                               int64_t low, int64_t high) {
  std::vector<int64_t> numbers;
  for (const std::string& text : texts) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(text, &number) || number < low || number > high) {
      return UsageError(absl::StrCat("--", flag, "=", PrintableText(absl::StrJoin(texts, ",")),
                                     " has no such value; whole numbers in [", low, ", ", high, "] are expected"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

absl::StatusOr<SessionOptions> SessionOptionsFor(const std::string& device) {
  SessionOptions options;
  GW_ASSIGN_OR_RETURN(const std::vector<int64_t> threads, NumbersOf("threads", absl::GetFlag(FLAGS_threads), 0, 1024));
  if (threads.size() != 1) return UsageError("--threads has one number here");
  options.threads = static_cast<int>(threads[0]);
  GW_ASSIGN_OR_RETURN(options.device, Device::Parse(device));
  GW_RETURN_IF_ERROR(options.device.CheckAvailable());
  return options;
}

absl::StatusOr<SessionOptions> SessionFlags() { return SessionOptionsFor(absl::GetFlag(FLAGS_device)); }

}  // namespace gradweave::command
