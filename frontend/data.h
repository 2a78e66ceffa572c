// Data sets and batches for training.
#ifndef GRADWEAVE_FRONTEND_DATA_H_
#define GRADWEAVE_FRONTEND_DATA_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {

// Images in memory and their class labels.
struct Dataset {
  // uint8 or float32 [n, channels, height, width]. Batches scale bytes to [0, 1] and copy floats.
  Tensor images;
  Tensor labels;  // int32 [n]; each label is in [0, classes).
  int64_t classes = 0;

  int64_t size() const { return labels.num_elements(); }
  // Returns the first n samples, or all if there are fewer. Shares the memory.
  Dataset First(int64_t n) const;
};

// Makes a data set of the caller's arrays. Returns InvalidArgument if their sizes do not match or a
// dtype is not one of the above, and OutOfRange if a label is not in [0, classes).
absl::StatusOr<Dataset> FromArrays(Tensor images, Tensor labels, int64_t classes);

// Reads an array of unsigned bytes in the idx format (http://yann.lecun.com/exdb/mnist: two zero
// bytes, a type byte, the number of dimensions, each dimension as 4 bytes big-endian, the
// elements). The file may be compressed with gzip. Returns NotFound if there is no such file, and
// InvalidArgument if it is not a regular file, its magic number is wrong, it has fewer or more
// bytes than its sizes need, or it needs more than `max_bytes`.
absl::StatusOr<Tensor> ReadIdx(const std::string& path, int64_t max_bytes = int64_t{1} << 32);

// The ten class names of Fashion-MNIST (Xiao et al., 2017), by label.
const std::vector<std::string>& FashionMnistClasses();

// The folder in which Debian's package dataset-fashion-mnist installs the data set.
inline constexpr char kFashionMnistFolder[] = "/usr/share/datasets/fashion-mnist";

// The two parts of a data set.
enum class Split { kTrain, kTest };

// Loads Fashion-MNIST's 60,000 training or 10,000 test images of 28 by 28 pixels. The folder has
// the files {train,t10k}-{images-idx3,labels-idx1}-ubyte, with or without .gz. Other data sets in
// this form work too if they have at most ten classes. Returns NotFound for a missing folder or
// file, the errors of ReadIdx, InvalidArgument for other shapes and OutOfRange for a label above 9.
absl::StatusOr<Dataset> LoadFashionMnist(const std::string& folder, Split split);

// Samples in the form that models take.
struct Batch {
  Tensor images;  // float32 [n, channels, height, width]; bytes are scaled to [0, 1].
  Tensor labels;  // int32 [n].
  int64_t size() const { return labels.num_elements(); }
};

// Options of BatchLoader.
struct BatchOptions {
  int64_t batch_size = 256;  // At least 1. The last batch of an epoch may be smaller.
  // Shuffles by (seed, epoch). The order is the same on every machine.
  bool shuffle = true;
  uint64_t seed = 0;
};

// Fills `order` with the sample numbers of an epoch: in order, or shuffled by (seed, epoch). The
// size of `order` is the number of samples.
void FillEpochOrder(std::vector<int64_t>& order, const BatchOptions& options, int64_t epoch);

// Supplies the batches of one epoch after another. A background thread prepares them in advance.
// The loader allocates no memory after its construction.
//
//   gw::data::BatchLoader loader(train, {.batch_size = 256});
//   loader.StartEpoch(0);
//   while (const gw::data::Batch* batch = loader.Next()) ...
class BatchLoader {
 public:
  BatchLoader(Dataset dataset, BatchOptions options);
  ~BatchLoader();
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  // Starts an epoch and drops the remaining batches of the previous one.
  void StartEpoch(int64_t epoch);
  // Returns the next batch, or null at the end of the epoch. Its tensors are valid until the next
  // call.
  const Batch* Next();
  int64_t batches_per_epoch() const { return (dataset_.size() + options_.batch_size - 1) / options_.batch_size; }

 private:
  void Work();
  void Fill(int64_t batch);

  // The memory of one batch, with a view for each of the two batch sizes.
  struct Slot {
    Batch full, last;
  };
  static constexpr int kSlots = 3;  // One in use, one ready, one in preparation.

  const Dataset dataset_;
  const BatchOptions options_;
  std::vector<int64_t> order_;
  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t epoch_ = -1;    // The requested epoch.
  int64_t prepared_ = 0;  // Batches of the epoch that are ready or taken.
  int64_t taken_ = 0;
  bool idle_ = true;  // True while the thread fills no batch.
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_H_
