#include "examples/example.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <limits>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"

ABSL_FLAG(int64_t, epochs, kProgram.epochs, "Passes over the training samples, in [1, 1000000].");
ABSL_FLAG(int64_t, batch_size, kProgram.batch_size, "Samples per training step, in [1, 1000000].");
ABSL_FLAG(double, lr, kProgram.learning_rate, "Learning rate, in (0, 1000].");
ABSL_FLAG(uint64_t, seed, 0, "Seed of initial values and of the order of samples, in [0, 2^64).");
ABSL_FLAG(int32_t, threads, 0, "Threads of a run, in [1, 1024]; 0 means one per processor.");
ABSL_FLAG(std::string, device, "cpu", "cpu, cuda or cuda:<index>.");
ABSL_FLAG(int64_t, device_memory_limit, 0,
          "Upper limit for the memory of a CUDA device in bytes, in [1, 2^62]; 0 means no limit.");
ABSL_FLAG(std::string, precision, "ieee",
          "ieee, tf32 or bf16: precision to which matrix products on a CUDA device may round their operands.");
ABSL_FLAG(std::string, mixed_precision, "float32",
          "float32, bfloat16 or float16: type of the operands of products and convolutions; all else is float32. With "
          "float16 the loss is scaled.");
ABSL_FLAG(std::string, plot_dir, ".", "Folder for pictures and curves, <program>_*.png and <program>_training.svg.");

namespace examples {
namespace {

absl::StatusOr<Flags> CheckedFlags() {
  constexpr int64_t kMillion = 1'000'000;
  Flags flags;
  flags.fit.epochs = absl::GetFlag(FLAGS_epochs);
  flags.fit.batch_size = absl::GetFlag(FLAGS_batch_size);
  flags.learning_rate = absl::GetFlag(FLAGS_lr);
  flags.session.threads = absl::GetFlag(FLAGS_threads);
  flags.session.seed = flags.fit.seed = absl::GetFlag(FLAGS_seed);
  flags.session.cuda.device_memory_limit = absl::GetFlag(FLAGS_device_memory_limit);
  flags.plot_dir = absl::GetFlag(FLAGS_plot_dir);
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("epochs", flags.fit.epochs, 1, kMillion, "[1, 1000000]"));
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("batch_size", flags.fit.batch_size, 1, kMillion, "[1, 1000000]"));
  GW_RETURN_IF_ERROR(
      CheckRange<double>("lr", flags.learning_rate, std::numeric_limits<double>::min(), 1000, "(0, 1000]"));
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("device_memory_limit", flags.session.cuda.device_memory_limit, 0,
                                         int64_t{1} << 62, "[1, 2^62], or 0 for no limit"));
  GW_RETURN_IF_ERROR(
      CheckRange<int32_t>("threads", flags.session.threads, 0, 1024, "[1, 1024], or 0 for all processors"));
  GW_ASSIGN_OR_RETURN(flags.session.device, gw::Device::Parse(absl::GetFlag(FLAGS_device)));
  GW_RETURN_IF_ERROR(flags.session.device.CheckAvailable());
  GW_ASSIGN_OR_RETURN(flags.session.cuda.product_precision, gw::ParseProductPrecision(absl::GetFlag(FLAGS_precision)));
  const std::string precision = absl::GetFlag(FLAGS_mixed_precision);
  const std::optional<gw::DType> dtype = gw::DTypeFromName(precision);
  if (!dtype.has_value() || (*dtype != gw::kFloat32 && !gw::IsHalf(*dtype))) {
    return absl::InvalidArgumentError(
        absl::StrCat("--mixed_precision=", precision, " has to be float32, bfloat16 or float16"));
  }
  if (*dtype != gw::kFloat32) flags.session.mixed_precision = dtype;
  GW_RETURN_IF_ERROR(CheckFolder("plot_dir", flags.plot_dir));
  return flags;
}

}  // namespace

int Main(int argc, char** argv, const std::function<absl::Status(const Flags&)>& run) {
  absl::SetProgramUsageMessage(kProgram.usage);
  // Abseil's --help lists the flags of the file that has main. Many flags are in files that
  // programs share.
  absl::FlagsUsageConfig help;
  help.contains_help_flags = [](absl::string_view file) { return absl::StrContains(file, "examples/"); };
  help.contains_helpshort_flags = help.contains_help_flags;
  absl::SetFlagsUsageConfig(help);
  const std::vector<char*> arguments = absl::ParseCommandLine(argc, argv);
  // Bazel starts programs in its own folder. Files belong in the user's folder.
  const char* folder = std::getenv("BUILD_WORKING_DIRECTORY");
  absl::Status status;
  if (arguments.size() > 1) {
    status = absl::InvalidArgumentError(absl::StrCat("'", arguments[1], "' is not a flag; flags begin with --"));
  } else if (folder != nullptr && chdir(folder) != 0) {
    status = absl::NotFoundError(absl::StrCat("there is no folder ", folder));
  } else {
    const absl::StatusOr<Flags> flags = CheckedFlags();
    status = flags.ok() ? run(*flags) : flags.status();
  }
  if (status.ok()) return 0;
  // A line of progress may be unfinished.
  if (isatty(STDOUT_FILENO) != 0 && isatty(STDERR_FILENO) != 0) std::cerr << "\r\x1b[K";
  std::cerr << kProgram.name << ": " << status.message()
            << (absl::IsCancelled(status) ? "; --resume continues from there" : "") << std::endl;
  return gw::ExitCode(status);
}

absl::Status CheckFolder(const char* flag, const std::string& folder) {
  struct stat info;
  if (stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
    return absl::NotFoundError(absl::StrCat("--", flag, ": there is no folder ", folder));
  if (access(folder.c_str(), W_OK) != 0)
    return absl::PermissionDeniedError(absl::StrCat("--", flag, ": the folder ", folder, " is not writable"));
  return absl::OkStatus();
}

gw::Update Minimize(const Flags& flags, const gw::optim::Optimizer& optimizer, const gw::Value& loss,
                    const gw::optim::Values& variables) {
  if (flags.session.mixed_precision == gw::kFloat16) return gw::optim::MinimizeScaled(optimizer, loss, {}, variables);
  return optimizer.Minimize(loss, variables);
}

std::string DataFile(const std::string& name) {
  std::error_code error;
  return (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / name).string();
}

absl::Status DrawCurves(const Flags& flags, const gw::LineChart& chart) {
  if (isatty(STDOUT_FILENO) != 0) std::cout << "\n" << gw::ToText(chart);
  return gw::WriteTextFile(absl::StrCat(flags.plot_dir, "/", kProgram.name, "_training.svg"), gw::ToSvg(chart));
}

absl::Status DrawImages(const Flags& flags, const std::string& what, const std::vector<ImageRow>& rows) {
  std::vector<gw::GrayImage> images;
  std::vector<std::string> labels;
  for (const ImageRow& row : rows) {
    GW_ASSIGN_OR_RETURN(std::vector<gw::GrayImage> of_row, gw::GrayImages(row.images));
    std::move(of_row.begin(), of_row.end(), std::back_inserter(images));
    labels.resize(images.size(), row.label);
  }
  return gw::WritePng(absl::StrCat(flags.plot_dir, "/", kProgram.name, "_", what, ".png"),
                      gw::LabelledGrid(images, labels, rows.empty() ? 1 : static_cast<int>(rows[0].images.size(0))));
}

}  // namespace examples
