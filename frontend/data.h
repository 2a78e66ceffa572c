// Data sets and batches.
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

// Images in memory and the class of each.
struct Dataset {
  Tensor images;  // uint8 [n, channels, height, width], or float32, which batches take as they are.
  Tensor labels;  // int32 [n], in [0, classes).
  int64_t classes = 0;

  int64_t size() const { return labels.num_elements(); }
  // The first n samples, or all where there are fewer; shares the memory.
  Dataset First(int64_t n) const;
};

// A data set of the caller's arrays. InvalidArgument where their sizes disagree, a dtype is none of the above or a
// label is outside [0, classes).
absl::StatusOr<Dataset> FromArrays(Tensor images, Tensor labels, int64_t classes);

// An array in the idx format (http://yann.lecun.com/exdb/mnist: two zero bytes, a type byte, the number of dimensions,
// each dimension as 4 bytes big-endian, the elements), plain or compressed by gzip; elements have to be unsigned bytes.
// NotFound, or InvalidArgument that says what is wrong with the file: another magic number, fewer or more bytes than
// its sizes need, more than max_bytes.
absl::StatusOr<Tensor> ReadIdx(const std::string& path, int64_t max_bytes = int64_t{1} << 32);

// The ten classes of Fashion-MNIST (Xiao et al., 2017) by label.
const std::vector<std::string>& FashionMnistClasses();

// Where Debian's package dataset-fashion-mnist installs it.
inline constexpr char kFashionMnistFolder[] = "/usr/share/datasets/fashion-mnist";

// Fashion-MNIST's 60,000 training or 10,000 test images of 28 by 28 pixels, from the files
// {train,t10k}-{images-idx3,labels-idx1}-ubyte in the folder, with or without .gz. Any data set in these files with up
// to ten classes will do.
enum class Split { kTrain, kTest };
absl::StatusOr<Dataset> LoadFashionMnist(const std::string& folder, Split split);

struct Batch {
  Tensor images;  // float32 [n, channels, height, width]; bytes are scaled to [0, 1].
  Tensor labels;  // int32 [n].
  int64_t size() const { return labels.num_elements(); }
};

struct BatchOptions {
  int64_t batch_size = 256;  // At least 1. The last batch of an epoch may be smaller.
  bool shuffle = true;       // By (seed, epoch): the same order on every machine.
  uint64_t seed = 0;
};

// The order of an epoch's samples: as they are, or shuffled by (seed, epoch). The order holds as many as there are
// samples.
void FillEpochOrder(std::vector<int64_t>& order, const BatchOptions& options, int64_t epoch);

// The batches of one epoch after the other, prepared ahead by a thread of its own. Allocates nothing after its
// construction.
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

  // Begins an epoch; batches of another that were not asked for are dropped.
  void StartEpoch(int64_t epoch);
  // The next batch, whose tensors hold until the next call; null at the end of the epoch.
  const Batch* Next();
  int64_t batches_per_epoch() const { return (dataset_.size() + options_.batch_size - 1) / options_.batch_size; }

 private:
  void Work();
  void Fill(int64_t batch);

  // A place for a batch, and views on it of the two sizes that batches have.
  struct Slot {
    Batch full, last;
  };
  static constexpr int kSlots = 3;  // One in use, one ready, one in the making.

  const Dataset dataset_;
  const BatchOptions options_;
  std::vector<int64_t> order_;
  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t epoch_ = -1;    // Asked for.
  int64_t prepared_ = 0;  // Batches of the epoch that are ready or were taken.
  int64_t taken_ = 0;
  bool idle_ = true;  // The thread works on no batch.
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_H_
