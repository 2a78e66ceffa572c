#include "examples/experiment.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "examples/fashion_mnist.h"
#include "examples/fit_flags.h"
#include "gradweave/frontend/pictures.h"
#include "gradweave/runtime/distributed/group.h"

ABSL_FLAG(std::string, save, "", "File for the graph with its trained values; the default is <program>.gw.");
ABSL_FLAG(
    bool, distributed, false,
    "Trains together with the other processes that mpirun or srun has started; without them, in this one. Process "
    "0 prints and saves.");
ABSL_FLAG(int32_t, shards, 0,
          "Parts in which each batch is computed, a multiple of the processes, in [1, 10000]; the results are the same "
          "bits for any number of processes. 0 means one for each process. With --distributed.");
ABSL_FLAG(int32_t, collective_timeout, 30,
          "Seconds for which a process waits for the others before it ends, in [1, 1000000]. With --distributed.");
ABSL_FLAG(bool, shard_optimizer, false,
          "Divides the state of optimizers among the shards: less memory, the same bits. With --distributed.");

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
    if (epochs.empty()) return "all epochs were trained before";
    std::vector<double> sorted = epochs;
    std::sort(sorted.begin(), sorted.end());
    return absl::StrFormat("first steps done after %.3f s, an epoch with its data takes %.1f ms", first_steps,
                           1e3 * sorted[sorted.size() / 2]);
  }
};

// Draws the picture of the chapter: the first images with their class names.
absl::Status DrawSamples(const gw::data::Dataset& dataset, const std::string& path) {
  const gw::data::Dataset first = dataset.First(18);
  GW_ASSIGN_OR_RETURN(const gw::Tensor images, first.Find("image"));
  GW_ASSIGN_OR_RETURN(const gw::Tensor classes, first.Find("label"));
  std::vector<std::string> labels;
  for (const int32_t label : classes.values<int32_t>()) labels.push_back(gw::data::FashionMnistClasses()[label]);
  GW_ASSIGN_OR_RETURN(const std::vector<gw::GrayImage> pictures, gw::GrayImages(images));
  return gw::WritePng(path, gw::LabelledGrid(pictures, labels, 9));
}

// The group of --distributed; null without it.
absl::StatusOr<std::shared_ptr<gw::distributed::Group>> JoinGroup() {
  const int shards = absl::GetFlag(FLAGS_shards), timeout = absl::GetFlag(FLAGS_collective_timeout);
  GW_RETURN_IF_ERROR(CheckRange("shards", shards, 0, 10'000, "[1, 10000], or 0 for one for each process"));
  GW_RETURN_IF_ERROR(CheckRange("collective_timeout", timeout, 1, 1'000'000, "[1, 1000000]"));
  const bool shard_optimizer = absl::GetFlag(FLAGS_shard_optimizer);
  if (absl::GetFlag(FLAGS_distributed)) {
    return gw::distributed::Init(
        nullptr, nullptr,
        {.shards = shards, .timeout = std::chrono::seconds(timeout), .shard_optimizer = shard_optimizer});
  }
  if (shards == 0 && timeout == 30 && !shard_optimizer) return nullptr;
  return absl::InvalidArgumentError(absl::StrCat("--",
                                                 shards != 0       ? "shards"
                                                 : shard_optimizer ? "shard_optimizer"
                                                                   : "collective_timeout",
                                                 " needs --distributed"));
}

}  // namespace

Inputs AddInputs(gw::Scope& scope) {
  return {scope.Input("image", gw::kFloat32, {gw::Dim("batch"), 1, 28, 28}),
          scope.Input("label", gw::kInt32, {gw::Dim("batch")})};
}

namespace {

absl::Status TrainInGroup(const Flags& flags, const std::shared_ptr<gw::distributed::Group>& group,
                          const gw::nn::Sequential& model, const Inputs& inputs, const gw::Training& training,
                          const gw::Value& logits, const gw::Update& between_epochs) {
  GW_ASSIGN_OR_RETURN(gw::FitOptions options, FitFlags(flags));
  const bool is_main = group == nullptr || group->is_main();
  const std::string flag = absl::GetFlag(FLAGS_save), save = flag.empty() ? absl::StrCat(kProgram.name, ".gw") : flag;
  const size_t slash = save.rfind('/');
  GW_RETURN_IF_ERROR(CheckFolder("save", slash == std::string::npos ? "." : save.substr(0, slash + 1)));
  GW_RETURN_IF_ERROR(logits.graph()->status());
  gw::Graph& graph = *logits.graph();
  graph.SetOutput("logits", {logits});
  graph.SetOutput("probabilities", {gw::Softmax(logits)});
  graph.SetOutput("loss", {training.loss.mean()});
  graph.SetOutput("correct", {training.metrics[0].sums[0].value});
  graph.SetOutput("train_step", training.step.apply.assignments);

  // Unpacking the images takes about as long as opening a GPU, so both run in parallel.
  auto loaded_train = std::async(std::launch::async, FashionMnist, gw::data::Split::kTrain);
  auto loaded_test = std::async(std::launch::async, FashionMnist, gw::data::Split::kTest);
  gw::SessionOptions session_options = flags.session;
  session_options.group = group;
  GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, session_options));
  GW_ASSIGN_OR_RETURN(const gw::data::Dataset train, loaded_train.get());
  GW_ASSIGN_OR_RETURN(const gw::data::Dataset test, loaded_test.get());

  if (is_main) {
    std::cout << gw::nn::SummaryTable(model, inputs.image, {{"batch", flags.fit.batch_size}}) << std::endl;
    GW_RETURN_IF_ERROR(DrawSamples(train, absl::StrCat(flags.plot_dir, "/", kProgram.name, "_samples.png")));
  }

  gw::TrainingCurves curves;
  Times times;
  auto after_epoch = [&](gw::TrainingState& state) {
    const bool is_between = !between_epochs.assignments.empty() && state.epoch + 1 < state.epochs;
    return is_between ? session.Run({}, {between_epochs}).status() : absl::OkStatus();
  };
  options.validation = test;
  options.checkpoints.best = gw::Largest("accuracy");
  options.callbacks = {gw::PrintProgress(std::cout, isatty(STDOUT_FILENO) != 0),
                       gw::RecordCurves(curves),
                       times.Record(),
                       {.after_epoch = after_epoch}};
  GW_RETURN_IF_ERROR(AddWatchers(
      session, training,
      {.samples = test, .logits = logits, .label = inputs.label, .classes = gw::data::FashionMnistClasses()}, options));
  GW_ASSIGN_OR_RETURN(const gw::TrainingState end, gw::Fit(session, training, train, options));
  if (!is_main) return absl::OkStatus();
  GW_RETURN_IF_ERROR(DrawCurves(flags, {absl::StrCat(kProgram.name, " on Fashion-MNIST"),
                                        "epoch",
                                        {{"train loss", curves.train["loss"]},
                                         {"train acc", curves.train["accuracy"]},
                                         {"test acc", curves.validation["accuracy"]}}}));
  GW_RETURN_IF_ERROR(gw::SaveModel(session, save));
  std::cout << times.ToString() << "\n"
            << absl::StrFormat("loss %.3f, train acc %.3f, test acc %.3f\n", end.train["loss"], end.train["accuracy"],
                               end.validation["accuracy"])
            << absl::StrFormat("%.1f examples/sec on %s\n", end.examples_per_second(), flags.session.device.ToString());
  return absl::OkStatus();
}

}  // namespace

absl::Status Train(const Flags& flags, const gw::nn::Sequential& model, const Inputs& inputs,
                   const gw::Training& training, const gw::Value& logits, const gw::Update& between_epochs) {
  GW_ASSIGN_OR_RETURN(const std::shared_ptr<gw::distributed::Group> group, JoinGroup());
  if (group != nullptr && !between_epochs.assignments.empty()) {
    return absl::InvalidArgumentError(
        "--book repeats a step between epochs, which it can do without --distributed only");
  }
  const absl::Status status = TrainInGroup(flags, group, model, inputs, training, logits, between_epochs);
  if (!status.ok() && group != nullptr && group->processes() > 1) {
    // The group ends this process with the others.
    std::cerr << group->communicator()->Name(group->communicator()->shard()) << ": " << status.message() << std::endl;
    group->Fail();
  }
  return status;
}

}  // namespace examples
