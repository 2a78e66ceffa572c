#include "gradweave/frontend/watch/tensorboard.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/watch/event_file.h"
#include "gradweave/frontend/watch/sample_images.h"
#include "gradweave/frontend/watch/session_copy.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave {
namespace {

// Computes gradients of the loss over samples, in a session of its own.
struct GradientRun {
  Graph graph;  // The training's, with the gradients. Its values point to it, so it keeps its place.
  std::optional<Session> session = {};
  std::vector<std::string> names = {};
  std::vector<Fetch> gradients = {};
};

// The state of the callback.
struct Board {
  const Session& session;
  Value loss;
  TensorBoardOptions options;
  EventWriter events;
  bool has_started = false;
  int64_t last_part = 0;
  std::unique_ptr<GradientRun> gradient_run = {};

  absl::Status AddMetrics(const MetricValues& metrics, absl::string_view of, int64_t step) {
    for (const auto& [name, value] : metrics.all()) {
      if (value.num_elements() != 1) continue;
      GW_RETURN_IF_ERROR(events.AddScalar(absl::StrCat(name, "/", of), step, value.ToDouble()));
    }
    return absl::OkStatus();
  }

  // Adds data that is written only once, before the first numbers.
  absl::Status Start(int64_t step) {
    if (std::exchange(has_started, true)) return absl::OkStatus();
    GW_RETURN_IF_ERROR(events.AddStart(step));
    if (options.graph) GW_RETURN_IF_ERROR(events.AddGraph(session.graph()));
    const int array = ImageArray(options.samples);
    if (array < 0) return absl::OkStatus();
    for (int64_t i = 0; i < std::min(options.samples.size(), options.most_images); ++i) {
      GW_RETURN_IF_ERROR(
          events.AddImage(absl::StrCat("samples/", i), step, SampleImage(options.samples.arrays()[array], i)));
    }
    return absl::OkStatus();
  }

  absl::Status AfterBatch(const TrainingState& state) {
    GW_RETURN_IF_ERROR(Start(state.batches_done));
    const int64_t every = std::max<int64_t>(1, state.batches / options.scalars_per_epoch);
    const bool is_last = state.batch == state.batches;
    // Callbacks do not come after every batch.
    const int64_t part = state.batch / every;
    if (part == last_part && !is_last) return absl::OkStatus();
    last_part = is_last ? 0 : part;
    GW_RETURN_IF_ERROR(AddMetrics(state.train, "train", state.batches_done));
    if (!std::isnan(state.learning_rate)) {
      GW_RETURN_IF_ERROR(events.AddScalar("learning_rate", state.batches_done, state.learning_rate));
    }
    GW_RETURN_IF_ERROR(events.AddScalar("examples_per_second", state.batches_done, state.examples_per_second()));
    return events.Flush();
  }

  // Adds nodes for the gradients to a copy of the graph, and makes the session that runs them.
  absl::StatusOr<std::unique_ptr<GradientRun>> MakeGradientRun() const {
    auto run = std::make_unique<GradientRun>(GradientRun{.graph = session.graph()});
    const Value y = ValueIn(run->graph, loss);
    if (!y.valid()) return absl::InvalidArgumentError("TensorBoard: the training's loss is not a value of the session");
    std::vector<Value> variables;
    for (const Node& node : session.graph().nodes()) {
      if (node.op->kind == OpKind::kVariable && node.attribute<bool>("trainable") && IsFloating(node.outputs[0].dtype))
        variables.push_back(run->graph.value(node.id));
    }
    const std::vector<Value> gradients = Gradients({y}, variables, {}, {GradientOptions::kInvalid});
    GW_RETURN_IF_ERROR(run->graph.status());
    for (size_t i = 0; i < variables.size(); ++i) {
      if (!gradients[i].valid()) continue;
      run->names.push_back(variables[i].node().name);
      run->gradients.emplace_back(gradients[i]);
    }
    GW_ASSIGN_OR_RETURN(run->session, CopySession(session, run->graph));
    return run;
  }

  absl::Status AddGradients(int64_t step) {
    if (gradient_run == nullptr) {
      GW_ASSIGN_OR_RETURN(gradient_run, MakeGradientRun());
    } else {
      GW_RETURN_IF_ERROR(CopyVariables(session, *gradient_run->session));
    }
    Graph& graph = gradient_run->graph;
    const data::Dataset samples = options.samples.First(options.most_samples);
    data::BatchLoader loader(samples, InOrder(graph, samples, samples.size()));
    loader.StartEpoch(0);
    const data::Batch* const batch = loader.Next();
    if (batch == nullptr) return loader.status();
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> gradients,
                        gradient_run->session->Run(FeedsOf(graph, samples, *batch), gradient_run->gradients));
    for (size_t i = 0; i < gradients.size(); ++i) {
      GW_RETURN_IF_ERROR(events.AddHistogram(absl::StrCat("gradients/", gradient_run->names[i]), step, gradients[i]));
    }
    return absl::OkStatus();
  }

  absl::Status AfterEpoch(const TrainingState& state) {
    const int64_t step = state.batches_done;
    GW_RETURN_IF_ERROR(AddMetrics(state.validation, "validation", step));
    for (const Node& node : session.graph().nodes()) {
      if (!options.weights || node.op->kind != OpKind::kVariable || !node.attribute<bool>("trainable")) continue;
      GW_ASSIGN_OR_RETURN(const Tensor value, session.GetVariable(node.name));
      GW_RETURN_IF_ERROR(events.AddHistogram(absl::StrCat("weights/", node.name), step, value));
    }
    if (options.samples.size() > 0) GW_RETURN_IF_ERROR(AddGradients(step));
    return events.Flush();
  }
};

absl::Status CheckAtLeast(const char* name, int64_t number, int64_t low) {
  if (number >= low) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("TensorBoard: ", name, " is ", number, " and has to be at least ", low));
}

}  // namespace

absl::StatusOr<Callback> TensorBoard(const Session& session, const Training& training, TensorBoardOptions options) try {
  GW_RETURN_IF_ERROR(CheckAtLeast("scalars_per_epoch", options.scalars_per_epoch, 1));
  GW_RETURN_IF_ERROR(CheckAtLeast("most_samples", options.most_samples, 1));
  GW_RETURN_IF_ERROR(CheckAtLeast("most_images", options.most_images, 0));
  if (options.dir.empty()) return absl::InvalidArgumentError("TensorBoard: dir is empty; it is the folder to write to");
  if (!options.samples.status().ok()) return options.samples.status();
  GW_ASSIGN_OR_RETURN(EventWriter events, EventWriter::Open(options.dir));
  auto board = std::make_shared<Board>(Board{
      .session = session, .loss = training.loss.mean(), .options = std::move(options), .events = std::move(events)});
  return Callback{.after_batch = [board](TrainingState& state) { return board->AfterBatch(state); },
                  .after_epoch = [board](TrainingState& state) { return board->AfterEpoch(state); }};
}
GW_CATCH_OUT_OF_MEMORY("TensorBoard")

}  // namespace gradweave
