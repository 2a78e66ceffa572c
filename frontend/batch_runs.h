// Runs over the batches of a data set, one by one; the inner part of Fit and Evaluate.
#ifndef GRADWEAVE_FRONTEND_BATCH_RUNS_H_
#define GRADWEAVE_FRONTEND_BATCH_RUNS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/frontend/metrics.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// A request to run values and updates on the batches of a data set.
struct BatchRequest {
  const char* caller;  // "Fit", for error messages.
  Session& session;
  const data::Dataset& dataset;
  data::BatchOptions options;
  std::vector<Metric::Sum> sums;     // To add up over the batches.
  std::vector<Value> latest = {};    // To read after the latest batch.
  std::vector<Update> updates = {};  // A run takes one of these; if there are none, it changes nothing.
  bool always_feed = false;          // If true, LatestFeeds is known on every device.
};

// The session keeps the sums where it computes them, so a CUDA device executes runs back to back
// until the sums are read.
class BatchRuns {
 public:
  // Matches the data set's arrays with the inputs of the session's graph. Keeps the arrays in the
  // memory of a CUDA device if they fit. Returns InvalidArgument if the data set has an error or no
  // samples, an array does not fit its input, or an input has no array.
  static absl::StatusOr<std::unique_ptr<BatchRuns>> Make(const BatchRequest& request);
  virtual ~BatchRuns() = default;

  // Starts an epoch at this batch. Sets the sums to 0 unless they go on.
  absl::Status StartEpoch(int64_t epoch, int64_t first_batch, bool keep_sums);
  // Starts the run of the next batch with this update and returns its size, counted over all shards
  // together, or 0 at the end of the epoch.
  virtual absl::StatusOr<int64_t> RunNext(int update = 0) = 0;
  // Waits for the runs and returns the sums, float64.
  absl::StatusOr<std::vector<Tensor>> Sums();
  // After Sums: the latest values of BatchRequest::latest.
  const std::vector<Tensor>& latest() const { return latest_; }
  // Number of samples in the sums.
  int64_t samples() const { return samples_; }
  // Time spent in runs.
  double seconds() const { return seconds_; }
  // The feeds of the latest batch, until the next one. Only with BatchRequest::always_feed.
  virtual std::vector<Feed> LatestFeeds() const { return {}; }

  // Checkpoints keep this state, so that sums go on with the same bits: the sums of each run and
  // the order in which the runs were used. SaveState waits for the runs. RestoreState comes before
  // StartEpoch, and returns InvalidArgument for a state of other sums or updates.
  absl::StatusOr<NamedTensors> SaveState();
  absl::Status RestoreState(const NamedTensors& state);

 protected:
  // An array of the data set, and the input that it feeds.
  struct Feeding {
    Value input;
    DType dtype;  // The dtype of batches.
  };
  struct Run {
    std::unique_ptr<PreparedRun> run;
    bool has_sums = false;  // True if it ran since its sums were set to 0.
    int64_t last_used = 0;
    std::vector<Tensor> restored = {};  // Sums that it begins with when it starts next.
  };

  BatchRuns(const BatchRequest& request, std::vector<Feeding> feedings)
      : request_(request), feedings_(std::move(feedings)) {}
  virtual void StartOrder(int64_t epoch, int64_t first_batch) = 0;
  // Returns the fetches of runs on batches of this size.
  std::vector<Fetch> Fetches(int64_t batch_size, int update) const;
  // Finds the run for an update and the sizes of a batch; one without a PreparedRun is new.
  // `whole_size` counts the samples of all shards together.
  absl::StatusOr<Run*> Find(int update, int64_t batch_size, int64_t whole_size, absl::Span<const int64_t> lengths);
  absl::Status Start(Run& run, int64_t batch_size);

  const BatchRequest request_;
  const std::vector<Feeding> feedings_;

 private:
  static absl::StatusOr<std::vector<Feeding>> Match(const BatchRequest& request);
  absl::StatusOr<std::vector<Tensor>> SumsOf(const Run& run) const;
  absl::Status AddSums(const Run& run, std::vector<Tensor>& to) const;
  absl::StatusOr<std::vector<Tensor>> ReadSums(const NamedTensors& state, absl::string_view prefix) const;

  std::map<std::vector<int64_t>, Run> runs_;  // Indexed by batch size, update and lengths of sequences.
  std::vector<int64_t> key_;
  std::vector<Tensor> dropped_sums_;  // The sums of runs that gave way to others.
  std::vector<Tensor> latest_;
  const Run* latest_run_ = nullptr;
  int64_t samples_ = 0, uses_ = 0;
  double seconds_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_BATCH_RUNS_H_
