// Models of a text, byte by byte: a recurrent net (LSTM) and a transformer (attention) learn a
// licence, and then write on by themselves.
#include <algorithm>
#include <iostream>

#include "absl/flags/flag.h"
#include "examples/example.h"
#include "examples/fit_flags.h"
#include "examples/text_windows.h"

ABSL_FLAG(std::string, text, "/usr/share/common-licenses/GPL-3", "File to learn from.");

const examples::Program kProgram{"text", "Trains models of the characters of a text.", 6, 32, 0.003};
namespace nn = gw::nn;
constexpr int64_t kSteps = 64;  // Bytes that a model sees.
absl::Status Run(const examples::Flags& flags) {
  GW_ASSIGN_OR_RETURN(const auto data, examples::ReadTextWindows(absl::GetFlag(FLAGS_text), kSteps + 1, 8));

  const nn::TransformerBlock block{.heads = 4, .causal = true};
  const nn::Sequential lstm{nn::Embedding{256, 64}, nn::Lstm{128}, nn::Dense{256}};
  const nn::Sequential attention{nn::Embedding{256, 64}, nn::PositionalEmbedding{kSteps}, block, block, nn::Dense{256}};
  gw::LineChart chart{"text", "epoch", {}};
  for (const auto& [name, model] : {std::pair("LSTM", lstm), std::pair("transformer", attention)}) {
    GW_ASSIGN_OR_RETURN(gw::FitOptions options, examples::FitFlags(flags, name));  // Epochs, batch size, checkpoints.
    gw::Graph graph;
    gw::Scope scope(graph);
    const gw::Value window = scope.Input("text", gw::kInt32, {gw::Dim("batch"), kSteps + 1});
    const gw::Value next = gw::SliceAxis(window, 1, 1, kSteps + 1);
    const gw::Value logits = model(scope, gw::SliceAxis(window, 1, 0, kSteps));  // [batch, kSteps, 256].
    const gw::Value loss = nn::SoftmaxCrossEntropy(logits, next);
    const gw::Update step =
        examples::Minimize(flags, gw::optim::Adam{.learning_rate = flags.learning_rate, .clip_norm = 1}, loss);
    const gw::Training training{loss, step, {gw::metrics::Accuracy(logits, next)}};
    const gw::Value drawn = gw::RandomCategorical(logits / 0.7);  // Dividing by 0.7 prefers likely bytes.

    GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, flags.session));
    gw::TrainingCurves curves;
    options.validation = data.validation;
    options.callbacks = {gw::PrintProgress(std::cout, false), gw::RecordCurves(curves)};
    GW_RETURN_IF_ERROR(examples::AddWatchers(session, training, {.samples = data.validation}, options, name));
    GW_RETURN_IF_ERROR(gw::Fit(session, training, data.train, options).status());
    chart.series.push_back({absl::StrCat(name, ", validation loss"), curves.validation["loss"]});

    GW_ASSIGN_OR_RETURN(gw::Tensor text, data.validation.First(1).Find(window));
    text = text.Clone();
    std::cout << name << " writes: ";
    for (int i = 0; i < 300; ++i) {
      GW_ASSIGN_OR_RETURN(const auto results, session.Run({{window, text}}, {drawn}));
      const absl::Span<int32_t> bytes = text.mutable_values<int32_t>();
      bytes[kSteps] = results[0].data<int64_t>()[kSteps - 1];
      std::cout << static_cast<char>(bytes[kSteps]);
      std::copy(bytes.begin() + 1, bytes.end(), bytes.begin());
    }
    std::cout << "\n\n";
  }
  return examples::DrawCurves(flags, chart);
}

int main(int argc, char** argv) { return examples::Main(argc, argv, Run); }
