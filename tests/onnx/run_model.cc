// Runs an ONNX file on inputs of a .npz file, for real_models.py. Writes the outputs as a .npz
// file, and to stdout a line of JSON with the times, the memory and the check of the gradient.
//
//   bazel run //tests/onnx:run_model -- --model=net.onnx --inputs=x.npz --outputs=y.npz --gradients
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/data/npy.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/frontend/onnx/runner.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/session/session.h"

ABSL_FLAG(std::string, model, "", "ONNX file.");
ABSL_FLAG(std::string, inputs, "", ".npz file with an array for each input.");
ABSL_FLAG(std::string, outputs, "", ".npz file that gets the outputs.");
ABSL_FLAG(int, repeats, 5, "Runs whose shortest time is told.");
ABSL_FLAG(bool, gradients, false, "Compares gradients with central differences.");

namespace gradweave::onnx {
namespace {

using Clock = std::chrono::steady_clock;

double Milliseconds(Clock::time_point since) {
  return std::chrono::duration<double, std::milli>(Clock::now() - since).count();
}

// Megabytes of the process: now, and the most so far.
double OfStatus(absl::string_view name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kilobytes = 0;
    if (word == name && status >> kilobytes) return kilobytes * 1024 / 1e6;
  }
  return 0;
}
double Resident() { return OfStatus("VmRSS:"); }
double MostResident() { return OfStatus("VmHWM:"); }

// Imports the model; inputs on whose values or sizes the graph depends get them.
absl::StatusOr<ImportedModel> ImportWith(const std::string& path, const std::map<std::string, Tensor>& arrays) {
  ImportOptions options;
  for (;;) {
    absl::StatusOr<ImportedModel> model = Import(path, options);
    bool again = false;
    for (const char* payload : {kNeededInputs, kNeededShapes}) {
      const absl::optional<absl::Cord> needed = model.status().GetPayload(payload);
      if (model.ok() || !needed.has_value()) continue;
      for (const absl::string_view name : absl::StrSplit(std::string(*needed), '\n')) {
        const auto array = arrays.find(std::string(name));
        if (array == arrays.end()) continue;
        again |= payload == kNeededInputs ? options.fixed.insert(*array).second
                                          : options.shapes.emplace(array->first, array->second.shape()).second;
      }
    }
    if (!again) return model;
  }
}

// A weight of an element of an output: sums of outputs alone, such as probabilities, may be
// constant.
double WeightOf(size_t i) { return std::cos(1.7 * static_cast<double>(i) + 0.3); }

struct GradientCheck {
  double gradient = 0;    // Length of the gradient with respect to floating inputs and weights.
  double difference = 0;  // The difference of the slope along the gradient, relative to the gradient's length.
};

// Moves inputs or weights along their gradient, by several steps, and compares the slope of a
// weighted sum of the outputs with the gradient. Tells the step that fits best, since float32
// rounds small steps away and large ones bend.
absl::StatusOr<GradientCheck> CheckGradients(ImportedModel& model, const std::map<std::string, Tensor>& arrays) {
  std::vector<Value> ys, weights, xs;
  std::vector<Feed> feeds;
  for (const std::string& name : model.outputs) {
    if (IsFloating(model.Output(name).dtype())) ys.push_back(model.Output(name));
  }
  for (const std::string& name : model.inputs) {
    feeds.emplace_back(model.Input(name), arrays.at(name));
    if (IsFloating(model.Input(name).dtype())) xs.push_back(model.Input(name));
  }
  const size_t num_inputs = xs.size();
  std::map<std::string, Tensor> variables(model.model.variables.begin(), model.model.variables.end());
  for (const auto& [name, value] : variables) xs.push_back(model.model.graph.value(model.model.graph.FindNamed(name)));
  Scope scope(model.model.graph);
  std::vector<Fetch> fetches;
  GW_ASSIGN_OR_RETURN(Session plain, CreateSession(model.model));
  for (const Value& y : ys) fetches.push_back(y);
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> outputs, plain.Run(feeds, fetches));
  std::vector<Feed> factor_feeds = feeds;
  for (size_t j = 0; j < outputs.size(); ++j) {
    const Tensor& output = outputs[j];
    Tensor factors(output.dtype(), output.sizes());
    VisitDType(output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      for (size_t i = 0; i < factors.mutable_values<T>().size(); ++i)
        factors.mutable_values<T>()[i] = static_cast<T>(WeightOf(i));
    });
    weights.push_back(scope.Input(absl::StrCat("run_model/weight", j), ys[j].dtype(), ys[j].shape()));
    factor_feeds.emplace_back(weights.back(), factors);
  }
  const std::vector<Value> gradients = Gradients(ys, xs, weights, {.unreachable = GradientOptions::kInvalid});
  if (!model.model.graph.status().ok()) return model.model.graph.status();
  std::vector<Fetch> wanted;
  std::vector<size_t> reached;
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].valid()) continue;
    reached.push_back(i);
    wanted.push_back(gradients[i]);
  }
  GradientCheck check;
  if (reached.empty()) return check;
  GW_ASSIGN_OR_RETURN(Session session, CreateSession(model.model));
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> values, session.Run(factor_feeds, wanted));
  double square = 0;
  for (const Tensor& value : values) {
    for (const double element : value.ToDoubles()) square += element * element;
  }
  check.gradient = std::sqrt(square);
  check.difference = check.gradient == 0 ? 0 : 1e9;
  if (!std::isfinite(check.gradient)) return absl::InternalError("a gradient is not finite");
  auto sum_at = [&](double step) -> absl::StatusOr<double> {
    for (size_t j = 0; j < reached.size(); ++j) {
      const size_t i = reached[j];
      const std::string name = xs[i].node().name;
      const Tensor& from = i < num_inputs ? arrays.at(name) : variables.at(name);
      Tensor moved = from.Clone();
      const std::vector<double> slope = values[j].ToDoubles();
      VisitDType(moved.dtype(), [&](auto zero) {
        using T = decltype(zero);
        for (size_t k = 0; k < slope.size(); ++k)
          moved.mutable_values<T>()[k] =
              static_cast<T>(static_cast<double>(from.values<T>()[k]) + step * slope[k] / check.gradient);
      });
      if (i >= num_inputs) GW_RETURN_IF_ERROR(plain.SetVariable(name, moved));
      for (Feed& feed : feeds) {
        if (feed.first == xs[i]) feed.second = moved;
      }
    }
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, plain.Run(feeds, fetches));
    double sum = 0;
    for (const Tensor& result : results) {
      const std::vector<double> elements = result.ToDoubles();
      for (size_t i = 0; i < elements.size(); ++i) sum += elements[i] * WeightOf(i);
    }
    return sum;
  };
  for (const double step : {1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5}) {
    GW_ASSIGN_OR_RETURN(const double above, sum_at(step));
    GW_ASSIGN_OR_RETURN(const double below, sum_at(-step));
    const double slope = (above - below) / (2 * step);
    check.difference = std::min(check.difference, std::abs(slope / check.gradient - 1));
  }
  return check;
}

absl::Status Run() {
  GW_ASSIGN_OR_RETURN(const std::vector<data::NamedArray> read, data::ReadNpz(absl::GetFlag(FLAGS_inputs)));
  std::map<std::string, Tensor> arrays;
  for (const data::NamedArray& array : read) arrays[array.name] = array.values;
  const double before = Resident();
  Clock::time_point since = Clock::now();
  Runner runner(absl::GetFlag(FLAGS_model));
  GW_ASSIGN_OR_RETURN(auto results, runner.Run(arrays));
  const double first = Milliseconds(since);
  double shortest = first;
  for (int i = 0; i < absl::GetFlag(FLAGS_repeats); ++i) {
    since = Clock::now();
    GW_ASSIGN_OR_RETURN(results, runner.Run(arrays));
    shortest = std::min(shortest, Milliseconds(since));
  }
  const double memory = MostResident() - before;
  std::vector<data::NamedArray> outputs;
  for (const auto& [name, result] : results) outputs.push_back({name, result});
  GW_RETURN_IF_ERROR(data::WriteNpz(absl::GetFlag(FLAGS_outputs), outputs));
  std::printf("{\"first_ms\": %.3f, \"run_ms\": %.3f, \"memory_mb\": %.1f", first, shortest, memory);
  if (absl::GetFlag(FLAGS_gradients)) {
    GW_ASSIGN_OR_RETURN(ImportedModel model, ImportWith(absl::GetFlag(FLAGS_model), arrays));
    const absl::StatusOr<GradientCheck> check = CheckGradients(model, arrays);
    if (check.ok()) {
      std::printf(", \"gradient\": %g, \"gradient_difference\": %g", check->gradient, check->difference);
    } else {
      std::fprintf(stderr, "gradients: %s\n", std::string(check.status().message()).c_str());
    }
  }
  std::printf("}\n");
  return absl::OkStatus();
}

}  // namespace
}  // namespace gradweave::onnx

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = gradweave::onnx::Run();
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}
