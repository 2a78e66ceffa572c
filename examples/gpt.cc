// A decoder of transformer blocks learns a text byte by byte, and writes on after each epoch. The
// defaults are the recipe of nanoGPT for a CPU (Karpathy, 2022): 4 blocks of 4 heads, 128 features,
// 64 bytes of context, batches of 12 and, on the default text, about 2,000 steps.
#include <algorithm>
#include <iostream>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/types/span.h"
#include "examples/example.h"
#include "examples/fit_flags.h"
#include "examples/text_windows.h"

ABSL_FLAG(std::string, text, "/usr/share/common-licenses/GPL-3", "File to learn from.");
ABSL_FLAG(int64_t, layers, 4, "Transformer blocks, in [1, 100].");
ABSL_FLAG(int64_t, heads, 4, "Heads of attention, in [1, 100]; they divide --width.");
ABSL_FLAG(int64_t, width, 128, "Features of a byte, in [1, 10000].");
ABSL_FLAG(int64_t, context, 64, "Bytes that the model sees, in [1, 10000].");
ABSL_FLAG(int64_t, sample, 200, "Bytes to write after each epoch, in [0, 1000000].");

const examples::Program kProgram{"gpt", "Trains a decoder on the characters of a text and lets it write.", 6, 12,
                                 0.001};

namespace nn = gw::nn;

absl::Status Run(const examples::Flags& flags) {
  const int64_t layers = absl::GetFlag(FLAGS_layers), heads = absl::GetFlag(FLAGS_heads);
  const int64_t width = absl::GetFlag(FLAGS_width), context = absl::GetFlag(FLAGS_context);
  const int64_t sample = absl::GetFlag(FLAGS_sample);
  GW_RETURN_IF_ERROR(examples::CheckRange<int64_t>("layers", layers, 1, 100, "[1, 100]"));
  GW_RETURN_IF_ERROR(examples::CheckRange<int64_t>("heads", heads, 1, 100, "[1, 100]"));
  GW_RETURN_IF_ERROR(examples::CheckRange<int64_t>("width", width, 1, 10'000, "[1, 10000]"));
  GW_RETURN_IF_ERROR(examples::CheckRange<int64_t>("context", context, 1, 10'000, "[1, 10000]"));
  GW_RETURN_IF_ERROR(examples::CheckRange<int64_t>("sample", sample, 0, 1'000'000, "[0, 1000000]"));
  GW_ASSIGN_OR_RETURN(gw::FitOptions options, examples::FitFlags(flags));  // Epochs, batch size, checkpoints.
  GW_ASSIGN_OR_RETURN(const auto data, examples::ReadTextWindows(absl::GetFlag(FLAGS_text), context + 1, 8));

  const nn::Normal small{0, 0.02};
  const nn::Sequential blocks(std::vector<nn::Layer>(layers, nn::TransformerBlock{.heads = heads, .causal = true}));
  const nn::Sequential model{nn::Embedding{.vocabulary = 256, .features = width, .initializer = small},
                             nn::PositionalEmbedding{.length = context}, blocks, nn::LayerNorm{}, nn::Dense{256}};
  gw::Graph graph;
  gw::Scope scope(graph);
  const gw::Value window = scope.Input("text", gw::kInt32, {gw::Dim("batch"), context + 1});
  const gw::Value next = gw::SliceAxis(window, 1, 1, context + 1);
  const gw::Value logits = model(scope, gw::SliceAxis(window, 1, 0, context));  // [batch, context, 256].
  const gw::Value loss = nn::SoftmaxCrossEntropy(logits, next);
  const int64_t batches = (data.train.size() + options.batch_size - 1) / options.batch_size;
  const int64_t steps = options.epochs * batches, warmup = std::clamp<int64_t>(steps / 4, 1, 100);
  const gw::optim::AdamW optimizer{
      .learning_rate = gw::optim::LinearWarmup(
          warmup,
          gw::optim::CosineDecay(flags.learning_rate, std::max<int64_t>(steps - warmup, 1), 0.1 * flags.learning_rate)),
      .beta2 = 0.99,
      .weight_decay = 0.1,
      .clip_norm = 1};
  const gw::Training training{loss, examples::Minimize(flags, optimizer, loss), {gw::metrics::Accuracy(logits, next)}};
  // The next byte after some bytes and those that the cache has seen; dividing by 0.8 prefers
  // likely ones.
  const gw::Dim time("time");
  const gw::Value bytes = scope.Input("bytes", gw::kInt32, {1, time});
  nn::KeyValueCache cache(scope, context);
  const gw::Value of_bytes = model(scope, bytes, {.training = false, .cache = &cache});
  const gw::Value drawn = gw::RandomCategorical(gw::SliceAxis(of_bytes, 1, time - 1, time) / 0.8);
  GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, flags.session));

  // Goes on from the first window of the validation text. When the cache is full, it begins again
  // with the last half.
  const auto write = [&](gw::TrainingState&) -> absl::Status {
    GW_ASSIGN_OR_RETURN(const gw::Tensor first, data.validation.First(1).Find(window));
    std::vector<int32_t> text(first.data<int32_t>(), first.data<int32_t>() + context);
    const int64_t half = std::max<int64_t>(context / 2, 1);
    std::cout << "writes: ";
    for (int64_t i = 0; i < sample; ++i) {
      const int64_t count = i % half == 0 ? half : 1;
      if (count == half) GW_RETURN_IF_ERROR(session.SetVariable("position", gw::Tensor::Scalar(int64_t{0})));
      const gw::Tensor last =
          gw::Tensor::Of<int32_t>({1, count}, absl::MakeConstSpan(&text[text.size() - count], count));
      GW_ASSIGN_OR_RETURN(const auto results, session.Run({{bytes, last}}, {drawn, cache.updates()}));
      text.push_back(static_cast<int32_t>(results[0].data<int64_t>()[0]));
      std::cout << static_cast<char>(text.back());
    }
    std::cout << "\n\n";
    return absl::OkStatus();
  };
  gw::TrainingCurves curves;
  options.validation = data.validation;
  options.callbacks = {gw::PrintProgress(std::cout, false), gw::RecordCurves(curves), {.after_epoch = write}};
  GW_RETURN_IF_ERROR(examples::AddWatchers(session, training, {.samples = data.validation}, options));
  std::cout << "the training has " << steps << " steps\n";
  GW_RETURN_IF_ERROR(gw::Fit(session, training, data.train, options).status());
  return examples::DrawCurves(
      flags,
      {"gpt", "epoch", {{"training loss", curves.train["loss"]}, {"validation loss", curves.validation["loss"]}}});
}

int main(int argc, char** argv) { return examples::Main(argc, argv, Run); }
