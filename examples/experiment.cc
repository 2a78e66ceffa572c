#include "examples/experiment.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <future>
#include <iostream>
#include <limits>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/frontend/pictures.h"
#include "gradweave/graph/check.h"

ABSL_FLAG(int64_t, epochs, 10, "Passes over the training images, in [1, 1000000].");
ABSL_FLAG(int64_t, batch_size, 256, "Images per training step, in [1, 1000000].");
ABSL_FLAG(double, lr, kLearningRate, "Learning rate, in (0, 1000].");
ABSL_FLAG(uint64_t, seed, 0, "Seed of initial values and of the order of images, in [0, 2^64).");
ABSL_FLAG(int32_t, threads, 0, "Threads of a run, in [1, 1024]; 0 means one per processor.");
ABSL_FLAG(std::string, device, "cpu", "cpu, cuda or cuda:<index>.");
ABSL_FLAG(int64_t, device_memory_limit, 0,
          "Upper limit for the memory of a CUDA device in bytes, in [1, 2^62]; 0 means no limit.");
ABSL_FLAG(std::string, precision, "ieee",
          "ieee, tf32 or bf16: precision to which matrix products on a CUDA device may round their operands.");
ABSL_FLAG(std::string, data_dir, gw::data::kFashionMnistFolder,
          "Folder with the four idx files of Fashion-MNIST, plain or .gz.");
ABSL_FLAG(std::string, save, "", "File for the graph with its trained values; the default is <program>.gw.");
ABSL_FLAG(int64_t, limit_train, 0, "Train on this number of first images only, in [1, 2^62]; 0 means all.");
ABSL_FLAG(std::string, plot_dir, ".", "Folder for <program>_samples.png and <program>_training.svg.");

namespace examples {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Initialized before main, a few milliseconds after the start of the process.
const Clock::time_point kStart = Clock::now();

// The times that a user waits, in seconds: from the start of the program to the first steps, and
// for each epoch.
struct Times {
  double first_steps = 0;
  std::vector<double> epochs = {};

  gw::Callback Record() {
    return {.after_batch =
                [this](gw::TrainingState&) {
                  if (first_steps == 0) first_steps = Seconds(Clock::now() - kStart);
                  return absl::OkStatus();
                },
            .after_epoch =
                [this](gw::TrainingState& state) {
                  epochs.push_back(state.epoch_seconds);
                  return absl::OkStatus();
                }};
  }
  std::string ToString() const {
    std::vector<double> sorted = epochs;
    std::sort(sorted.begin(), sorted.end());
    return absl::StrFormat("first steps done after %.3f s, an epoch with its data takes %.1f ms", first_steps,
                           1e3 * sorted[sorted.size() / 2]);
  }
};

template <typename Number>
absl::Status CheckRange(const char* flag, Number value, Number low, Number high, const char* range) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", value, " is outside its range, ", range));
}

// Checks that the folder is writable, so that an error comes before the training and not after it.
absl::Status CheckFolder(const char* flag, const std::string& folder) {
  struct stat info;
  if (stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
    return absl::NotFoundError(absl::StrCat("--", flag, ": there is no folder ", folder));
  if (access(folder.c_str(), W_OK) != 0)
    return absl::PermissionDeniedError(absl::StrCat("--", flag, ": the folder ", folder, " is not writable"));
  return absl::OkStatus();
}

absl::StatusOr<Flags> CheckedFlags(const std::string& name) {
  constexpr int64_t kMillion = 1'000'000;
  Flags flags;
  flags.epochs = absl::GetFlag(FLAGS_epochs);
  flags.batch_size = absl::GetFlag(FLAGS_batch_size);
  flags.learning_rate = absl::GetFlag(FLAGS_lr);
  flags.limit_train = absl::GetFlag(FLAGS_limit_train);
  flags.session.threads = absl::GetFlag(FLAGS_threads);
  flags.session.seed = absl::GetFlag(FLAGS_seed);
  flags.session.cuda.device_memory_limit = absl::GetFlag(FLAGS_device_memory_limit);
  flags.data_dir = absl::GetFlag(FLAGS_data_dir);
  flags.plot_dir = absl::GetFlag(FLAGS_plot_dir);
  flags.save = absl::GetFlag(FLAGS_save).empty() ? name + ".gw" : absl::GetFlag(FLAGS_save);
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("epochs", flags.epochs, 1, kMillion, "[1, 1000000]"));
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("batch_size", flags.batch_size, 1, kMillion, "[1, 1000000]"));
  GW_RETURN_IF_ERROR(
      CheckRange<double>("lr", flags.learning_rate, std::numeric_limits<double>::min(), 1000, "(0, 1000]"));
  GW_RETURN_IF_ERROR(
      CheckRange<int64_t>("limit_train", flags.limit_train, 0, int64_t{1} << 62, "[1, 2^62], or 0 for all"));
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("device_memory_limit", flags.session.cuda.device_memory_limit, 0,
                                         int64_t{1} << 62, "[1, 2^62], or 0 for no limit"));
  GW_RETURN_IF_ERROR(
      CheckRange<int32_t>("threads", flags.session.threads, 0, 1024, "[1, 1024], or 0 for all processors"));
  GW_ASSIGN_OR_RETURN(flags.session.device, gw::Device::Parse(absl::GetFlag(FLAGS_device)));
  GW_RETURN_IF_ERROR(flags.session.device.CheckAvailable());
  GW_ASSIGN_OR_RETURN(flags.session.cuda.product_precision, gw::ParseProductPrecision(absl::GetFlag(FLAGS_precision)));
  GW_RETURN_IF_ERROR(CheckFolder("plot_dir", flags.plot_dir));
  const size_t slash = flags.save.rfind('/');
  GW_RETURN_IF_ERROR(CheckFolder("save", slash == std::string::npos ? "." : flags.save.substr(0, slash + 1)));
  return flags;
}

// Draws the picture of the chapter: the first images with their class names.
absl::Status DrawSamples(const gw::data::Dataset& dataset, const std::string& path) {
  constexpr int64_t kColumns = 9, kImages = 18;
  std::vector<gw::GrayImage> images;
  std::vector<std::string> labels;
  GW_ASSIGN_OR_RETURN(const gw::Tensor all_images, dataset.Find("image"));
  GW_ASSIGN_OR_RETURN(const gw::Tensor all_labels, dataset.Find("label"));
  const int64_t height = all_images.size(2), width = all_images.size(3);
  for (int64_t i = 0; i < std::min(kImages, dataset.size()); ++i) {
    gw::GrayImage image(width, height);
    const uint8_t* pixels = all_images.data<uint8_t>() + i * width * height;
    image.pixels.assign(pixels, pixels + width * height);
    images.push_back(std::move(image));
    labels.push_back(gw::data::FashionMnistClasses()[all_labels.data<int32_t>()[i]]);
  }
  return gw::WritePng(path, gw::LabelledGrid(images, labels, kColumns));
}

}  // namespace

int Main(int argc, char** argv, const std::string& name, const std::function<absl::Status(const Flags&)>& run) {
  absl::SetProgramUsageMessage(absl::StrCat("Trains ", name, " on Fashion-MNIST."));
  // Abseil's --help lists the flags of the file that has main; these are shared by three programs.
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
    const absl::StatusOr<Flags> flags = CheckedFlags(name);
    status = flags.ok() ? run(*flags) : flags.status();
  }
  if (status.ok()) return 0;
  std::cerr << name << ": " << status.message() << std::endl;
  return 1;
}

Inputs AddInputs(gw::Scope& scope) {
  return {scope.Input("image", gw::kFloat32, {gw::Dim("batch"), 1, 28, 28}),
          scope.Input("label", gw::kInt32, {gw::Dim("batch")})};
}

absl::Status Train(const Flags& flags, const std::string& name, const gw::nn::Sequential& model, const Inputs& inputs,
                   const gw::Training& training, const gw::Value& logits, const gw::Update& between_epochs) {
  GW_RETURN_IF_ERROR(logits.graph()->status());
  gw::Graph& graph = *logits.graph();
  graph.SetOutput("logits", {logits});
  graph.SetOutput("probabilities", {gw::Softmax(logits)});
  graph.SetOutput("loss", {training.loss.mean()});
  graph.SetOutput("correct", {training.metrics[0].sums[0].value});
  graph.SetOutput("train_step", training.step.apply.assignments);

  // Unpacking the images takes about as long as opening a GPU, so both run in parallel.
  auto load = [&](gw::data::Split split) {
    return std::async(std::launch::async, gw::data::LoadFashionMnist, flags.data_dir, split);
  };
  auto loaded_train = load(gw::data::Split::kTrain), loaded_test = load(gw::data::Split::kTest);
  GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, flags.session));
  GW_ASSIGN_OR_RETURN(gw::data::Dataset train, loaded_train.get());
  GW_ASSIGN_OR_RETURN(gw::data::Dataset test, loaded_test.get());
  if (flags.limit_train > 0) train = train.First(flags.limit_train);

  std::cout << gw::nn::SummaryTable(model, inputs.image, {{"batch", flags.batch_size}}) << std::endl;
  GW_RETURN_IF_ERROR(DrawSamples(train, absl::StrCat(flags.plot_dir, "/", name, "_samples.png")));

  const bool terminal = isatty(STDOUT_FILENO) != 0;
  gw::TrainingCurves curves;
  Times times;
  auto after_epoch = [&](gw::TrainingState& state) {
    const bool is_between = !between_epochs.assignments.empty() && state.epoch + 1 < state.epochs;
    return is_between ? session.Run({}, {between_epochs}).status() : absl::OkStatus();
  };
  GW_ASSIGN_OR_RETURN(gw::TrainingState end, gw::Fit(session, training, train,
                                                     {.validation = test,
                                                      .epochs = flags.epochs,
                                                      .batch_size = flags.batch_size,
                                                      .seed = flags.session.seed,
                                                      .shuffle = !flags.as_in_the_book,
                                                      .metrics_over_all_epochs = flags.as_in_the_book,
                                                      .callbacks = {gw::PrintProgress(std::cout, terminal),
                                                                    gw::RecordCurves(curves),
                                                                    times.Record(),
                                                                    {.after_epoch = after_epoch}}}));

  const gw::LineChart chart{name + " on Fashion-MNIST",
                            "epoch",
                            {{"train loss", curves.train["loss"]},
                             {"train acc", curves.train["accuracy"]},
                             {"test acc", curves.validation["accuracy"]}}};
  GW_RETURN_IF_ERROR(gw::WriteTextFile(absl::StrCat(flags.plot_dir, "/", name, "_training.svg"), gw::ToSvg(chart)));
  if (terminal) std::cout << "\n" << gw::ToText(chart);
  GW_RETURN_IF_ERROR(gw::SaveModel(session, flags.save));
  std::cout << times.ToString() << "\n"
            << absl::StrFormat("loss %.3f, train acc %.3f, test acc %.3f\n", end.train["loss"], end.train["accuracy"],
                               end.validation["accuracy"])
            << absl::StrFormat("%.1f examples/sec on %s\n", end.examples_per_second(), flags.session.device.ToString());
  return absl::OkStatus();
}

}  // namespace examples
