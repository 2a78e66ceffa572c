// Regression on a table: the strength of concrete from its mixture, by a net and a linear model.
#include <cmath>
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "examples/fit_flags.h"

ABSL_FLAG(std::string, data, "", "CSV file of numbers with a header; the default is the examples' concrete.csv.");
ABSL_FLAG(std::string, target, "compressive_strength", "The column to predict from all others.");

const examples::Program kProgram{"regression", "Trains a net and a linear model on a table.", 300, 32, 0.01};

namespace nn = gw::nn;

absl::Status Run(const examples::Flags& flags) {
  const std::string path = absl::GetFlag(FLAGS_data), target = absl::GetFlag(FLAGS_target);
  GW_ASSIGN_OR_RETURN(const auto table, gw::data::ReadCsv(path.empty() ? examples::DataFile("concrete.csv") : path));
  GW_ASSIGN_OR_RETURN(const gw::Tensor features, table.NumbersExcept({target}));
  GW_ASSIGN_OR_RETURN(const gw::Tensor targets, table.Numbers({target}));
  const auto [rest, test] = gw::data::Dataset{{"x", features}, {"y", targets}}.Split(0.8, flags.session.seed);
  const auto [train, validation] = rest.Split(0.85, flags.session.seed);
  // The training samples alone determine the means and deviations.
  GW_ASSIGN_OR_RETURN(const auto of_x, gw::data::MeasureStandardization(train, "x"));
  GW_ASSIGN_OR_RETURN(const auto of_y, gw::data::MeasureStandardization(train, "y"));

  const nn::Sequential linear{nn::Dense{1}};
  const nn::Sequential net{nn::Dense{64}, nn::Relu{}, nn::Dense{64}, nn::Relu{}, nn::Dense{1}};
  gw::LineChart chart{"regression", "epoch", {}};
  for (const auto& [name, model] : {std::pair("linear model", linear), std::pair("net", net)}) {
    GW_ASSIGN_OR_RETURN(gw::FitOptions options, examples::FitFlags(flags, name));  // Epochs, batch size, checkpoints.
    gw::Graph graph;
    gw::Scope scope(graph);
    const gw::Value x = scope.Input("x", gw::kFloat32, {gw::Dim("batch"), features.size(1)});
    const gw::Value y = scope.Input("y", gw::kFloat32, {gw::Dim("batch"), 1});
    const gw::Value prediction = model(scope, x) * of_y.deviation[0] + of_y.mean[0];
    const gw::Value loss = nn::MeanSquaredError(prediction, y);
    const gw::Update step = examples::Minimize(flags, gw::optim::Adam{.learning_rate = flags.learning_rate}, loss);
    const std::vector<gw::Metric> metrics = {gw::metrics::MeanSquaredError(prediction, y),
                                             gw::metrics::MeanAbsoluteError(prediction, y),
                                             gw::metrics::R2(prediction, y)};
    GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, flags.session));
    gw::TrainingCurves curves;
    options.validation = validation.Standardized(x, of_x);
    options.checkpoints.best = gw::Goal{"mse"};
    options.callbacks = {gw::RecordCurves(curves, 1), gw::StopEarly({"mse"}, 40), gw::KeepBest({"mse"}, session)};
    const gw::Training training{loss, step, metrics};
    GW_RETURN_IF_ERROR(examples::AddWatchers(session, training, {.samples = options.validation}, options, name));
    GW_RETURN_IF_ERROR(gw::Fit(session, training, train.Standardized(x, of_x), options).status());
    GW_ASSIGN_OR_RETURN(const auto error, gw::Evaluate(session, metrics, test.Standardized(x, of_x)));
    std::cout << absl::StrFormat("%s: test rmse %.2f, mae %.2f, r2 %.3f\n", name, std::sqrt(error["mse"]), error["mae"],
                                 error["r2"]);
    chart.series.push_back({absl::StrCat(name, ", validation mae"), curves.validation["mae"]});
  }
  return examples::DrawCurves(flags, chart);
}

int main(int argc, char** argv) { return examples::Main(argc, argv, Run); }
