// Batches of a data set.
#ifndef GRADWEAVE_FRONTEND_BATCHES_H_
#define GRADWEAVE_FRONTEND_BATCHES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {

// Samples in the form that models take.
struct Batch {
  // One tensor [size, ...] for each array of the data set, in their order. Bytes are scaled to [0,
  // 1], standardized arrays are standardized, and sequences are cut to the longest of the batch.
  std::vector<Tensor> arrays;
  int64_t size = 0;
  int64_t whole_size = 0;  // The size of the whole batch, if this is a shard; otherwise the size.
};

// Options of BatchLoader.
struct BatchOptions {
  int64_t batch_size = 256;  // At least 1. The last batch of an epoch may be smaller.
  // If true, shuffles by (seed, epoch); the order is the same on every machine. If false, the
  // samples come in the order of the data set.
  bool shuffle = true;
  uint64_t seed = 0;
  // Sequences are cut to the longest of the batch, rounded up to a multiple of this number, at
  // least 1. A session compiles a plan for each length.
  int64_t length_multiple = 1;
  // The dtypes of the batches' arrays; empty means Dataset::Array::batch_dtype. Only bytes may have
  // another dtype than their own, float32.
  std::vector<DType> dtypes = {};
  // With several shards, a batch has only the samples of one shard. Of n samples, these are samples
  // n*shard/shards to n*(shard + 1)/shards, rounded down. The other sizes here are sizes of whole
  // batches.
  int shard = 0, shards = 1;
};

// Returns the number of batches of an epoch: size/batch_size, rounded up.
int64_t NumBatches(int64_t size, int64_t batch_size);

// Writes a sample as batches store it. `from` points to the sample's elements, and `to` to the same
// number of elements of `to_dtype`; `sizes` are the sample's axes. `scratch` has two parts of this
// many floats.
void WriteSample(const Dataset::Array& array, const void* from, DType to_dtype, void* to,
                 absl::Span<const int64_t> sizes, SampleRandom random, absl::Span<float> scratch);

// Supplies the batches of one epoch after another. A background thread prepares them in advance.
// The loader allocates no memory after its construction if the arrays have at most four axes.
//
//   gw::data::BatchLoader loader(train, {.batch_size = 256});
//   loader.StartEpoch(0);
//   while (const gw::data::Batch* batch = loader.Next()) ...
//
// If the data set has lengths and is shuffled, the samples of 100 batches are sorted by length
// before they are cut into batches, and these batches are shuffled.
//
// fork() copies a loader without its thread. In the child the copy has no batches and the status
// FailedPrecondition. The child may destroy it; its memory stays in use until the child ends.
class BatchLoader {
 public:
  BatchLoader(Dataset dataset, BatchOptions options);
  ~BatchLoader();
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  // Starts an epoch at this batch and drops the remaining batches of the previous one.
  void StartEpoch(int64_t epoch, int64_t first_batch = 0);
  // Returns the next batch, or null at the end of the epoch or after an error. Its tensors are
  // valid until the next call.
  const Batch* Next();
  // The error of the data set, of the options (InvalidArgument), of memory that runs out
  // (ResourceExhausted), of the generator, or Unknown with the text of an exception that the
  // generator or an augmentation threw.
  absl::Status status() const;
  int64_t batches_per_epoch() const;

 private:
  class State;

  bool is_copy() const;

  std::unique_ptr<State> state_;
  const int64_t process_;  // The process that has the thread.
};

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_BATCHES_H_
