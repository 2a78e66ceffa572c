// gradweave train: trains a model of a file on data of files.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/frontend/callbacks.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/model_writer.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/command/training_choices.h"
#include "gradweave/frontend/command/training_data.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/plot.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/frontend/watch/report.h"
#include "gradweave/frontend/watch/tensorboard.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/scope.h"

ABSL_FLAG(
    std::string, data, "",
    "The samples: x.npy,y.npy, a file .npz with arrays of the inputs' names, a table .csv, a folder of PNG images "
    "with a folder for each class, or a folder with the files of Fashion-MNIST.");
ABSL_FLAG(std::vector<std::string>, target, {}, "The columns of a table to predict; the others are the numbers of x.");
ABSL_FLAG(std::string, prediction, "",
          "The output to train. Default: `logits`, `prediction`, or the only output with values.");
ABSL_FLAG(std::string, optimizer, "adam", "The optimizer.");
ABSL_FLAG(std::string, lr, "", "The learning rate.");
ABSL_FLAG(int64_t, epochs, 10, "Passes over the samples, in [1, 1000000].");
ABSL_FLAG(int64_t, batch_size, 256, "Samples of a step, in [1, 1000000].");
ABSL_FLAG(double, validation, 0,
          "The share of the samples that is held back for validation, in [0, 1). Fashion-MNIST has its test images.");
ABSL_FLAG(std::string, checkpoint_dir, "",
          "Folder for checkpoints, made if it is missing. SIGINT (Ctrl-C) and SIGTERM then save one before the program "
          "ends.");
ABSL_FLAG(std::string, checkpoint_every, "1epoch", "How often: 100steps, 1epoch or 5min.");
ABSL_FLAG(bool, resume, false, "Goes on from the newest checkpoint in --checkpoint_dir with the same bits.");
ABSL_FLAG(std::string, curves, "", "Writes a chart of loss and metrics to this file .svg.");
ABSL_FLAG(std::string, tensorboard, "",
          "Folder for TensorBoard's event files, made if it is missing: curves, histograms of weights and gradients, "
          "images and the graph.");
ABSL_FLAG(
    std::string, report, "",
    "Writes a report as one HTML page to this file: curves, confusion matrix, wrong predictions, plan and times.");

namespace gradweave::command {
namespace {

constexpr int64_t kMillion = 1'000'000;

absl::StatusOr<FitOptions> FitFlags() {
  FitOptions fit;
  fit.epochs = absl::GetFlag(FLAGS_epochs);
  fit.batch_size = absl::GetFlag(FLAGS_batch_size);
  fit.seed = absl::GetFlag(FLAGS_seed);
  fit.checkpoints.dir = absl::GetFlag(FLAGS_checkpoint_dir);
  fit.checkpoints.resume = absl::GetFlag(FLAGS_resume);
  const double validation = absl::GetFlag(FLAGS_validation);
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("epochs", fit.epochs, 1, kMillion, "[1, 1000000]"));
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("batch_size", fit.batch_size, 1, kMillion, "[1, 1000000]"));
  if (!(validation >= 0 && validation < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("--validation=", validation, " is outside its range, [0, 1)"));
  }
  if (fit.checkpoints.dir.empty() && fit.checkpoints.resume) {
    return UsageError("--resume needs --checkpoint_dir, the folder of the checkpoints");
  }
  const auto every = ParseCheckpointInterval(absl::GetFlag(FLAGS_checkpoint_every));
  if (!every.ok()) return UsageError(absl::StrCat("--checkpoint_every: ", every.status().message()));
  fit.checkpoints.every = *every;
  return fit;
}

// The output to train: a floating value with rows, which needs one input.
absl::StatusOr<NamedOutput> Prediction(Graph& graph) {
  std::string name = absl::GetFlag(FLAGS_prediction);
  if (name.empty()) {
    std::vector<std::string> names;
    for (const NamedOutput& output : OutputsOf(graph)) {
      if (!output.is_update) names.push_back(output.name);
    }
    for (const char* usual : {"prediction", "logits"}) {
      if (std::find(names.begin(), names.end(), usual) != names.end()) name = usual;
    }
    if (name.empty() && names.size() == 1) name = names[0];
    if (name.empty()) {
      return UsageError(absl::StrCat("--prediction=NAME is expected, the output to train", DidYouMean("", names)));
    }
  }
  GW_ASSIGN_OR_RETURN(const std::vector<NamedOutput> outputs, SelectOutputs(graph, {name}));
  const NamedOutput& output = outputs[0];
  if (output.values.size() != 1 || output.is_update || !IsFloating(output.values[0].dtype()) ||
      output.values[0].rank() < 1 || output.inputs.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("output '", PrintableText(name),
                                                   "' cannot be trained: one floating value with rows that needs one "
                                                   "input is expected"));
  }
  return output;
}

// The input of the loss: one of the model that fits, or a new one.
absl::StatusOr<Value> TargetFor(Graph& graph, const Value& prediction, const LossChoice& loss) {
  TensorType type = prediction.type();
  if (loss.has_classes) {
    type.dtype = kInt32;
    type.shape.Erase(type.shape.rank() - 1);
  }
  const std::string usual = loss.has_classes ? "label" : "target";
  std::string name = usual;
  for (int number = 2; graph.FindNamed(name) >= 0; ++number) {
    const Value known = graph.value(graph.FindNamed(name));
    if (known.node().op->kind == OpKind::kInput && known.type() == type) return known;
    name = absl::StrCat(usual, "_", number);
  }
  Scope scope(graph);
  const Value target = scope.Input(name, type.dtype, type.shape);
  GW_RETURN_IF_ERROR(graph.status());
  return target;
}

LineChart Chart(const std::string& title, const TrainingCurves& curves) {
  LineChart chart{title, "epoch", {}};
  for (const auto& [name, points] : curves.train) chart.series.push_back({absl::StrCat("train ", name), points});
  for (const auto& [name, points] : curves.validation) {
    chart.series.push_back({absl::StrCat("validation ", name), points});
  }
  return chart;
}

std::string MetricsText(const MetricValues& values) {
  return absl::StrJoin(values.all(), ", ", [](std::string* text, const auto& value) {
    absl::StrAppend(text, value.first, absl::StrFormat(" %.4g", value.second.ToDouble()));
  });
}

// Adds the callbacks of --tensorboard and --report.
absl::Status AddWatchers(const Session& session, const Training& training, ReportOptions shown, FitOptions& fit) {
  if (const std::string dir = absl::GetFlag(FLAGS_tensorboard); !dir.empty()) {
    GW_ASSIGN_OR_RETURN(fit.callbacks.emplace_back(),
                        TensorBoard(session, training, {.dir = dir, .samples = shown.samples}));
  }
  if (shown.path = absl::GetFlag(FLAGS_report); !shown.path.empty()) {
    GW_ASSIGN_OR_RETURN(fit.callbacks.emplace_back(), Report(session, training, std::move(shown)));
  }
  return absl::OkStatus();
}

// Errors of flags that are known before anything is read.
absl::Status CheckTrainFlags() {
  if (absl::GetFlag(FLAGS_data).empty()) return UsageError("--data=PATH is expected, the samples");
  if (absl::GetFlag(FLAGS_loss).empty()) return UsageError(absl::StrCat("--loss=NAME is expected: ", LossesText()));
  GW_RETURN_IF_ERROR(CheckWritable(absl::GetFlag(FLAGS_output)));
  for (const std::string& also : {absl::GetFlag(FLAGS_curves), absl::GetFlag(FLAGS_report)}) {
    if (!also.empty()) GW_RETURN_IF_ERROR(CheckWritable(also));
  }
  return absl::OkStatus();
}

// The last axis of the prediction has to have room for all classes of the data.
absl::Status CheckClasses(const TrainingData& data, const std::string& data_path, const NamedOutput& prediction) {
  const Value& logits = prediction.values[0];
  const int64_t classes = static_cast<int64_t>(data.classes.size());
  const Dim& width = logits.shape()[logits.rank() - 1];
  if (classes == 0 || !width.is_known() || width.size() >= classes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(data_path, ": the data has ", classes, " classes, and output '",
                                                 PrintableText(prediction.name), "' is ", logits.type().ToString()));
}

// Writes the trained model and the curves, and prints them with the last metrics.
absl::Status WriteTrained(const Model& model, const LineChart& chart, const TrainingState& end, std::ostream& out) {
  const std::string path = absl::GetFlag(FLAGS_output), curves_path = absl::GetFlag(FLAGS_curves);
  GW_RETURN_IF_ERROR(WriteModel(model, path));
  if (!curves_path.empty()) GW_RETURN_IF_ERROR(WriteTextFile(curves_path, ToSvg(chart)));
  if (isatty(STDOUT_FILENO) != 0) out << "\n" << ToText(chart);
  out << path << ": " << MetricsText(end.train);
  if (!end.validation.all().empty()) out << "; validation " << MetricsText(end.validation);
  out << "\n";
  return absl::OkStatus();
}

absl::StatusOr<int> RunTrain(absl::Span<const std::string> arguments, std::ostream& out) {
  GW_RETURN_IF_ERROR(CheckTrainFlags());
  const std::string data_path = absl::GetFlag(FLAGS_data), lr = absl::GetFlag(FLAGS_lr);
  GW_ASSIGN_OR_RETURN(FitOptions fit, FitFlags());
  GW_ASSIGN_OR_RETURN(SessionOptions options, SessionFlags());
  GW_ASSIGN_OR_RETURN(const LossChoice* const choice, FindLoss(absl::GetFlag(FLAGS_loss)));
  // Errors of these texts come before the data is read.
  GW_RETURN_IF_ERROR(ParseOptimizer(absl::GetFlag(FLAGS_optimizer), {}).status());
  if (!lr.empty()) GW_RETURN_IF_ERROR(ParseSchedule(lr, 1, 1).status());

  GW_ASSIGN_OR_RETURN(ModelSource source, OpenModel(arguments[0]));
  Model& model = source.model;
  Graph graph = model.graph;  // The training step is added to this copy. The trained model has the graph of the file.
  GW_ASSIGN_OR_RETURN(const NamedOutput prediction, Prediction(graph));
  const Value logits = prediction.values[0];
  GW_ASSIGN_OR_RETURN(const Value target, TargetFor(graph, logits, *choice));
  GW_ASSIGN_OR_RETURN(TrainingData data, ReadTrainingData(data_path, {.input = &graph.node(prediction.inputs[0]),
                                                                      .target = &target.node(),
                                                                      .has_classes = choice->has_classes,
                                                                      .columns = absl::GetFlag(FLAGS_target)}));
  GW_RETURN_IF_ERROR(CheckClasses(data, data_path, prediction));
  if (const double share = absl::GetFlag(FLAGS_validation); share > 0) {
    std::tie(data.validation, data.train) = data.train.Split(share, fit.seed);
  }
  fit.validation = data.validation;

  const int64_t per_epoch = data::NumBatches(data.train.size(), fit.batch_size);
  Value rate;
  std::optional<optim::LearningRate> learning_rate;
  if (!lr.empty()) {
    GW_ASSIGN_OR_RETURN(const optim::Schedule schedule, ParseSchedule(lr, fit.epochs * per_epoch, per_epoch));
    learning_rate = optim::Schedule([schedule, &rate](Value step) { return rate = schedule(std::move(step)); });
  }
  GW_ASSIGN_OR_RETURN(const optim::Optimizer optimizer, ParseOptimizer(absl::GetFlag(FLAGS_optimizer), learning_rate));
  const Value loss = choice->loss(logits, target);
  Training training{loss, optimizer.Minimize(loss), choice->metrics(logits, target)};
  training.learning_rate = rate;
  options.seed = fit.seed;
  options.run_number = model.run_number;
  options.variables = model.variables;
  GW_ASSIGN_OR_RETURN(Session session, Session::Create(graph, options));

  TrainingCurves curves;
  fit.callbacks = {PrintProgress(out, isatty(STDOUT_FILENO) != 0), RecordCurves(curves)};
  ReportOptions shown{.title = arguments[0],
                      .samples = data.validation.size() > 0 ? data.validation : data.train,
                      .batch_size = fit.batch_size,
                      .classes = data.classes};
  if (choice->has_classes && logits.rank() == 2) {
    shown.logits = logits;
    shown.label = target;
  }
  GW_RETURN_IF_ERROR(AddWatchers(session, training, std::move(shown), fit));

  out << arguments[0] << ": trains '" << PrintableText(prediction.name) << "' on "
      << Counted(data.train.size(), "sample");
  if (data.validation.size() > 0) out << ", validates on " << Grouped(static_cast<double>(data.validation.size()));
  out << std::endl;
  GW_ASSIGN_OR_RETURN(const TrainingState end, Fit(session, training, data.train, fit));

  for (auto& [name, value] : model.variables) {
    GW_ASSIGN_OR_RETURN(value, session.GetVariable(name));
  }
  model.run_number = session.run_number();
  if (!data.classes.empty()) SetClassNames(model, data.classes);
  GW_RETURN_IF_ERROR(WriteTrained(model, Chart(arguments[0], curves), end, out));
  return 0;
}

}  // namespace

Subcommand Train() {
  static const auto* const help = new std::array<std::string, 3>{
      absl::StrCat("The loss to minimize: ", LossesText(), "."),
      absl::StrCat("The optimizer, and its options, as in adamw:weight_decay=0.1,clip_norm=1: ", OptimizersText(), "."),
      absl::StrCat("The learning rate, or a schedule over all steps: ", SchedulesText(),
                   ". Without it, the optimizer's own.")};
  return {.name = "train",
          .arguments = "MODEL",
          .summary = "Trains a model on arrays, a table or images",
          .details =
              "The trained model has the graph of MODEL and new weights. The loss and the update are made for\n"
              "the training alone; layers behave as they do in MODEL. A FILE that ends in .onnx becomes an ONNX\n"
              "model, which keeps no names of classes.",
          .flags = {{"data", "PATH"},
                    {"loss", "NAME", (*help)[0].c_str()},
                    {"output", "FILE"},
                    {"optimizer", "NAME", (*help)[1].c_str()},
                    {"lr", "RATE", (*help)[2].c_str()},
                    {"epochs", "NUMBER"},
                    {"batch_size", "NUMBER"},
                    {"validation", "SHARE"},
                    {"target", "COLUMNS"},
                    {"prediction", "NAME"},
                    {"checkpoint_dir", "FOLDER"},
                    {"checkpoint_every", "INTERVAL"},
                    {"resume"},
                    {"curves", "FILE"},
                    {"tensorboard", "FOLDER"},
                    {"report", "FILE"},
                    {"device", "DEVICE"},
                    {"threads", "NUMBER"},
                    {"seed", "NUMBER"}},
          .fewest = 1,
          .most = 1,
          .run = RunTrain};
}

}  // namespace gradweave::command
