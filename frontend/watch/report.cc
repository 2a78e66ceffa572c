#include "gradweave/frontend/watch/report.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/frontend/callbacks.h"
#include "gradweave/frontend/data/npy_format.h"
#include "gradweave/frontend/process_memory.h"
#include "gradweave/frontend/watch/report_page.h"
#include "gradweave/frontend/watch/sample_images.h"
#include "gradweave/frontend/watch/session_copy.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/version.h"

namespace gradweave {
namespace {

// Names of curves that are not metrics.
constexpr char kRate[] = "learning rate", kEpochSeconds[] = "seconds of an epoch";

// Returns the number of the largest logit, the first of equal ones, and its probability by the
// softmax, which is 0 if a logit is NaN.
std::pair<int64_t, double> LargestOf(absl::Span<const double> logits) {
  const auto largest = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - *largest);
  return {largest - logits.begin(), std::isnan(sum) ? 0 : 1 / sum};
}

// The parts of the page about predictions.
struct Predictions {
  int64_t classes = 0, samples = 0, wrong = 0;
  std::vector<int64_t> confusion;
  std::vector<Mistake> mistakes;  // The surest ones, in order.
};

// The state of the callback.
struct Reporter {
  const Session& session;
  Training training;
  ReportOptions options;
  TrainingCurves curves = {};

  // Adds the predictions of a batch whose first sample has the number `first`.
  absl::Status AddBatch(const Tensor& logits, const Tensor& labels, int64_t first, Predictions& all) const {
    const std::vector<double> numbers = logits.ToDoubles(), right = labels.ToDoubles();
    for (size_t i = 0; i < right.size(); ++i) {
      const auto label = static_cast<int64_t>(right[i]);
      if (label < 0 || label >= all.classes) {
        return absl::OutOfRangeError(absl::StrCat("Report: sample ", first + static_cast<int64_t>(i), " has the class ",
                                                  label, ", and there are ", all.classes));
      }
      const auto [prediction, probability] =
          LargestOf(absl::MakeConstSpan(numbers).subspan(i * all.classes, all.classes));
      ++all.samples;
      ++all.confusion[label * all.classes + prediction];
      if (prediction == label) continue;
      ++all.wrong;
      all.mistakes.push_back({first + static_cast<int64_t>(i), label, prediction, probability, {}});
    }
    // The most confident predictions come first; equal ones are ordered by number.
    std::stable_sort(all.mistakes.begin(), all.mistakes.end(),
                     [](const Mistake& a, const Mistake& b) { return a.probability > b.probability; });
    if (static_cast<int64_t>(all.mistakes.size()) > options.most_mistakes) all.mistakes.resize(options.most_mistakes);
    return absl::OkStatus();
  }

  // Predicts all samples.
  absl::StatusOr<Predictions> Predict(Session& copy, Graph& graph) const {
    const Value logits = ValueIn(graph, options.logits), label = ValueIn(graph, options.label);
    Predictions all;
    data::BatchLoader loader(options.samples, InOrder(graph, options.samples, options.batch_size));
    loader.StartEpoch(0);
    int64_t first = 0;
    while (const data::Batch* const batch = loader.Next()) {
      GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results,
                          copy.Run(FeedsOf(graph, options.samples, *batch), {logits, label}));
      if (all.classes == 0) {
        all.classes = results[0].size(1);
        all.confusion.resize(all.classes * all.classes);
      }
      GW_RETURN_IF_ERROR(AddBatch(results[0], results[1], first, all));
      first += batch->size;
    }
    GW_RETURN_IF_ERROR(loader.status());
    const int images = ImageArray(options.samples);
    for (Mistake& mistake : all.mistakes) {
      if (images < 0) break;
      GW_ASSIGN_OR_RETURN(mistake.png, EncodePng(SampleImage(options.samples.arrays()[images], mistake.sample)));
    }
    return all;
  }

  // Measures a training step of the first samples, and returns its plan with the times.
  absl::StatusOr<std::string> MeasureStep(Session& copy, Graph& graph, int64_t samples) const {
    Update step;
    for (const Value& assignment : training.step.apply.assignments) {
      step.assignments.push_back(ValueIn(graph, assignment));
    }
    const std::vector<Fetch> fetches = {ValueIn(graph, training.loss.mean()), step};
    const data::Dataset first = options.samples.First(samples);
    data::BatchLoader loader(first, InOrder(graph, first, samples));
    loader.StartEpoch(0);
    const data::Batch* const batch = loader.Next();
    if (batch == nullptr) return loader.status();
    const std::vector<Feed> feeds = FeedsOf(graph, first, *batch);
    GW_RETURN_IF_ERROR(copy.Run(feeds, fetches).status());  // The first run reads memory that no cache has.
    GW_ASSIGN_OR_RETURN(const Profile profile, copy.ProfileRun(feeds, fetches));
    return profile.table;
  }

  void AddFacts(const TrainingState& state, ReportPage& page) const {
    const auto add = [&](std::string name, std::string value) {
      page.facts.emplace_back(std::move(name), std::move(value));
    };
    for (const auto& [of, metrics] : {std::pair("training", &state.train), {"validation", &state.validation}}) {
      for (const auto& [name, value] : metrics->all()) {
        if (value.num_elements() == 1) add(absl::StrCat(of, " ", name), absl::StrFormat("%.4g", value.ToDouble()));
      }
    }
    double seconds = 0;
    int64_t epochs = 0;
    if (const auto of_epochs = curves.validation.find(kEpochSeconds); of_epochs != curves.validation.end()) {
      for (const auto& [epoch, of_epoch] : of_epochs->second) {
        seconds += of_epoch;
        ++epochs;
      }
    }
    int64_t parameters = 0;
    for (const Node& node : session.graph().nodes()) {
      const bool is_parameter = node.op->kind == OpKind::kVariable && node.attribute<bool>("trainable");
      if (is_parameter) parameters += node.outputs[0].shape.num_elements().size();
    }
    add("epochs", absl::StrCat(epochs, " of ", state.epochs));
    add("steps", absl::StrCat(state.batches_done));
    add("time of the epochs", absl::StrFormat("%.1f s", seconds));
    add("samples per second", absl::StrFormat("%.0f", state.examples_per_second()));
    add("parameters", absl::StrCat(parameters));
    add("device", absl::StrFormat("%s, %d thread%s", session.device().ToString(), session.threads(),
                                  session.threads() == 1 ? "" : "s"));
    constexpr double kMega = 1e6;
    add("most memory", absl::StrFormat("%.0f MB", static_cast<double>(PeakMemory()) / kMega));
    add("Gradweave", Version());
  }

  void AddCharts(ReportPage& page) const {
    std::set<std::string> names;
    for (const auto* const part : {&curves.train, &curves.validation}) {
      for (const auto& [name, points] : *part) names.insert(name);
    }
    for (const std::string& name : names) {
      LineChart chart{name, "epoch", {}};
      for (const auto& [of, part] : {std::pair("training", &curves.train), {"validation", &curves.validation}}) {
        const auto points = part->find(name);
        if (points == part->end() || points->second.empty()) continue;
        chart.series.push_back({name == kRate || name == kEpochSeconds ? "" : of, points->second});
      }
      page.charts.push_back(std::move(chart));
    }
  }

  absl::Status Write(const TrainingState& state) const {
    ReportPage page{.title = options.title};
    AddFacts(state, page);
    AddCharts(page);
    if (options.samples.size() > 0) {
      Graph graph = session.graph();
      GW_ASSIGN_OR_RETURN(Session copy, CopySession(session, graph));
      if (options.logits.valid()) {
        GW_ASSIGN_OR_RETURN(Predictions predictions, Predict(copy, graph));
        page.samples = predictions.samples;
        page.wrong = predictions.wrong;
        page.confusion = std::move(predictions.confusion);
        page.mistakes = std::move(predictions.mistakes);
        page.classes = options.classes;
        for (auto i = static_cast<int64_t>(page.classes.size()); i < predictions.classes; ++i) {
          page.classes.push_back(absl::StrCat(i));
        }
        page.classes.resize(predictions.classes);
      }
      const int64_t samples = std::min(options.batch_size, options.samples.size());
      page.plan_title = absl::StrCat("A training step of ", samples, " samples");
      absl::StatusOr<std::string> plan = MeasureStep(copy, graph, samples);
      page.plan = plan.ok() ? *std::move(plan)
                            : absl::StrCat("The step was not measured: ", std::string(plan.status().message()));
    }
    const std::string html = ToHtml(page);
    return data::WriteOutputFile(options.path, [&](FILE* stream) {
      return std::fwrite(html.data(), 1, html.size(), stream) == html.size()
                 ? absl::OkStatus()
                 : absl::ErrnoToStatus(errno, absl::StrCat(options.path, ": the file cannot be written"));
    });
  }
};

absl::Status CheckOptions(const Session& session, const ReportOptions& options) {
  const auto error = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("Report: ", parts...));
  };
  if (options.path.empty()) return error("path is empty; it is the file to write");
  if (options.batch_size < 1) return error("batch_size is ", options.batch_size, " and has to be at least 1");
  if (options.most_mistakes < 0) return error("most_mistakes is ", options.most_mistakes, " and has to be at least 0");
  if (!options.samples.status().ok()) return options.samples.status();
  if (options.logits.valid() != options.label.valid()) return error("logits and label come together");
  if (options.logits.valid()) {
    Graph graph = session.graph();
    const TensorType &logits = options.logits.type(), &label = options.label.type();
    if (!ValueIn(graph, options.logits).valid() || !ValueIn(graph, options.label).valid()) {
      return error("logits and label have to be values of the session");
    }
    const bool fits = IsFloating(logits.dtype) && logits.shape.rank() == 2 && label.shape.rank() == 1 &&
                      (label.dtype == kInt32 || label.dtype == kInt64);
    if (!fits) {
      return error("logits are ", logits.ToString(), " and the label is ", label.ToString(),
                   "; a floating [batch, classes] and an int32 or int64 [batch] are expected");
    }
  }
  const size_t slash = options.path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : options.path.substr(0, slash + 1);
  if (access(folder.c_str(), W_OK) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat(options.path, ": the file cannot be written"));
}

}  // namespace

absl::StatusOr<Callback> Report(const Session& session, const Training& training, ReportOptions options) try {
  GW_RETURN_IF_ERROR(CheckOptions(session, options));
  auto reporter =
      std::make_shared<Reporter>(Reporter{.session = session, .training = training, .options = std::move(options)});
  constexpr int64_t kPointsPerEpoch = 20;
  Callback callback = RecordCurves(reporter->curves, kPointsPerEpoch);
  // The curves include values that are not metrics.
  callback.after_batch = [reporter, record = callback.after_batch](TrainingState& state) {
    TrainingState seen = state;
    if (!std::isnan(state.learning_rate)) seen.train.Set(kRate, Tensor::Scalar(state.learning_rate));
    return record(seen);
  };
  callback.after_epoch = [reporter, record = callback.after_epoch](TrainingState& state) {
    TrainingState seen = state;
    seen.validation.Set(kEpochSeconds, Tensor::Scalar(state.epoch_seconds));
    return record(seen);
  };
  callback.after_training = [reporter](TrainingState& state) { return reporter->Write(state); };
  callback.name = "Report";
  return callback;
}
GW_CATCH_OUT_OF_MEMORY("Report")

}  // namespace gradweave
