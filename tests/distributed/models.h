// Small trainings of several kinds, which groups of threads and of processes repeat.
#ifndef GRADWEAVE_TESTS_DISTRIBUTED_MODELS_H_
#define GRADWEAVE_TESTS_DISTRIBUTED_MODELS_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/gradweave.h"

namespace gradweave {

// A model with its data. All processes make the same.
struct DistributedCase {
  std::string name;
  std::unique_ptr<Graph> graph;
  Training training{.step = Update{}};
  data::Dataset data, validation;
};

// LeNet; a residual net with batch normalization and dropout; a causal transformer with dropout,
// whose gradients are clipped to a global norm; and a generator beside its discriminator, with an
// optimizer each.
std::vector<DistributedCase> DistributedCases();

// 34 samples in batches of 16: the last batch has 2, fewer than the shards.
inline constexpr int64_t kSamples = 34, kBatchSize = 16, kEpochs = 3;

// The result of a training.
struct TrainingResult {
  std::vector<double> losses;  // After each step, over the epoch so far; then the metrics of the validation.
  std::vector<std::pair<std::string, Tensor>> variables;
};

// Trains with the options' group, threads and so on. In a group, all its processes make the call.
absl::StatusOr<TrainingResult> Train(const DistributedCase& of, const SessionOptions& session_options,
                                     FitOptions fit_options = {.epochs = kEpochs});

// The result's bits as a line of text, which tells which variable differs.
std::string BitsOf(const TrainingResult& result);

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_DISTRIBUTED_MODELS_H_
