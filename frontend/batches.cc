#include "gradweave/frontend/batches.h"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/user_functions.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave::data {
namespace {

// If a data set has lengths, the samples of this many batches are sorted by length.
constexpr int64_t kBatchesOfGroup = 100;

int64_t Product(absl::Span<const int64_t> sizes) {
  int64_t product = 1;
  for (int64_t size : sizes) product *= size;
  return product;
}

// The length to which sequences are cut: the longest, rounded up to a multiple, and at most `most`.
int64_t CutLength(int64_t longest, int64_t multiple, int64_t most) {
  const int64_t above = longest % multiple, more = above == 0 ? 0 : multiple - above;
  return more < most - longest ? longest + more : most;
}

// x = (x - mean)/deviation, for all elements or by the index of the first axis.
template <typename T>
void Standardize(const Standardization& standardization, absl::Span<const int64_t> sizes, T* x) {
  const int64_t rows = sizes.empty() ? 1 : sizes[0], inner = sizes.empty() ? 1 : Product(sizes.subspan(1));
  const std::vector<double>&mean = standardization.mean, &deviation = standardization.deviation;
  for (int64_t row = 0; row < rows; ++row, x += inner) {
    const T m = static_cast<T>(mean[mean.size() == 1 ? 0 : row]);
    const T d = static_cast<T>(deviation[deviation.size() == 1 ? 0 : row]);
    for (int64_t i = 0; i < inner; ++i) x[i] = (x[i] - m) / d;
  }
}

}  // namespace

int64_t NumBatches(int64_t size, int64_t batch_size) { return size / batch_size + (size % batch_size != 0 ? 1 : 0); }

void WriteSample(const Dataset::Array& array, const void* from, DType to_dtype, void* to,
                 absl::Span<const int64_t> sizes, SampleRandom random, absl::Span<float> scratch) {
  const int64_t count = Product(sizes);
  if (array.dtype == to_dtype) {
    if (count > 0) std::memcpy(to, from, count * DTypeSize(to_dtype));
  } else {
    const auto* bytes = static_cast<const uint8_t*>(from);
    auto* floats = static_cast<float*>(to);
    for (int64_t k = 0; k < count; ++k) floats[k] = static_cast<float>(bytes[k]) / 255.0f;
  }
  if (!array.augmentations.empty()) {
    const absl::Span<float> sample(static_cast<float*>(to), count);
    absl::Span<float> now = scratch.subspan(0, count), next = scratch.subspan(count, count);
    std::copy(sample.begin(), sample.end(), now.begin());
    for (size_t i = 0; i < array.augmentations.size(); ++i) {
      const bool is_last = i + 1 == array.augmentations.size();
      array.augmentations[i](now, is_last ? sample : next, sizes, random);
      std::swap(now, next);
    }
  }
  if (array.standardization.mean.empty()) return;
  if (to_dtype == kFloat32) Standardize(array.standardization, sizes, static_cast<float*>(to));
  if (to_dtype == kFloat64) Standardize(array.standardization, sizes, static_cast<double*>(to));
}

// A loader in the process that created it.
class BatchLoader::State {
 public:
  State(Dataset dataset, BatchOptions options);
  ~State();
  void StartEpoch(int64_t epoch, int64_t first_batch);
  const Batch* Next();
  absl::Status status() const;
  int64_t batches_per_epoch() const { return NumBatches(dataset_.size(), options_.batch_size); }

 private:
  absl::Status CheckOptions() const;
  absl::Status Prepare();
  void Work();
  absl::Status Fill(int64_t batch);
  void FillOrder(int64_t epoch);

  // The memory of one batch.
  struct Slot {
    std::vector<Tensor> storage;  // The elements of each array, for the batch size and the longest sequences.
    Batch batch;                  // Views of the storage.
  };
  struct Keyed {
    int64_t length, position, sample;
  };
  static constexpr int kSlots = 3;  // One in use, one ready, one in preparation.

  const Dataset dataset_;
  BatchOptions options_;
  std::vector<int64_t> order_;
  std::vector<Keyed> sorted_;
  std::vector<float> scratch_;
  std::vector<int64_t> sizes_;
  std::vector<Slot> slots_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int64_t epoch_ = -1;    // The requested epoch.
  int64_t first_ = 0;     // Its first batch.
  int64_t prepared_ = 0;  // Batches of the epoch that are ready or taken.
  int64_t taken_ = 0;
  bool idle_ = true;  // True while the thread fills no batch.
  bool stop_ = false;
  absl::Status status_;
  std::thread thread_;
};

BatchLoader::BatchLoader(Dataset dataset, BatchOptions options)
    : state_(std::make_unique<State>(std::move(dataset), std::move(options))), process_(getpid()) {}

BatchLoader::~BatchLoader() {
  // The thread, which the child lacks, may have left inconsistent data.
  if (is_copy()) (void)state_.release();  // NOLINT(bugprone-unused-return-value): it is left to the parent.
}

bool BatchLoader::is_copy() const { return process_ != getpid(); }

int64_t BatchLoader::batches_per_epoch() const { return state_->batches_per_epoch(); }

void BatchLoader::StartEpoch(int64_t epoch, int64_t first_batch) {
  if (!is_copy()) state_->StartEpoch(epoch, first_batch);
}

const Batch* BatchLoader::Next() { return is_copy() ? nullptr : state_->Next(); }

absl::Status BatchLoader::status() const {
  if (is_copy()) {
    return absl::FailedPreconditionError(
        "BatchLoader: the loader was created before fork(), and this is the child, which has none of its threads; "
        "create a loader in the child");
  }
  return state_->status();
}

BatchLoader::State::State(Dataset dataset, BatchOptions options)
    : dataset_(std::move(dataset)), options_(std::move(options)) {
  const std::lock_guard lock(mutex_);  // The thread reads the status.
  status_ = Prepare();
}

absl::Status BatchLoader::State::Prepare() try {
  GW_RETURN_IF_ERROR(CheckOptions());
  // A batch is at most the data set, so that no size overflows.
  options_.batch_size = std::clamp<int64_t>(options_.batch_size, 1, std::max<int64_t>(dataset_.size(), 1));
  if (options_.dtypes.empty()) {
    for (const Dataset::Array& array : dataset_.arrays()) options_.dtypes.push_back(array.batch_dtype());
  }
  order_.resize(dataset_.size());
  if (!dataset_.lengths().empty()) sorted_.resize(dataset_.size());
  int64_t most_axes = 1, most_elements = 0;
  for (const Dataset::Array& array : dataset_.arrays()) {
    most_axes = std::max(most_axes, static_cast<int64_t>(array.sizes.size()) + 1);
    if (!array.augmentations.empty()) most_elements = std::max(most_elements, Product(array.sizes));
  }
  sizes_.reserve(most_axes);
  scratch_.resize(2 * most_elements);
  slots_.resize(kSlots);
  for (Slot& slot : slots_) {
    for (size_t i = 0; i < dataset_.arrays().size(); ++i) {
      std::vector<int64_t> sizes = dataset_.arrays()[i].sizes;
      sizes.insert(sizes.begin(), options_.batch_size);
      GW_ASSIGN_OR_RETURN(const Tensor storage, Tensor::Create(options_.dtypes[i], sizes));
      slot.storage.push_back(storage.Reshaped({storage.num_elements()}));
    }
    slot.batch.arrays = slot.storage;
  }
  try {
    thread_ = std::thread([this] { Work(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("BatchLoader: the system has no more threads: ", error.what()));
  }
  return absl::OkStatus();
}
GW_CATCH_OUT_OF_MEMORY("BatchLoader")

BatchLoader::State::~State() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

absl::Status BatchLoader::State::CheckOptions() const {
  GW_RETURN_IF_ERROR(dataset_.status());
  const std::vector<Dataset::Array>& arrays = dataset_.arrays();
  for (const auto& [name, number] : {std::pair<const char*, int64_t>{"batch_size", options_.batch_size},
                                     {"length_multiple", options_.length_multiple}}) {
    if (number >= 1) continue;
    return absl::InvalidArgumentError(absl::StrCat("BatchLoader: ", name, " is ", number, " and has to be at least 1"));
  }
  if (options_.dtypes.empty()) return absl::OkStatus();
  if (options_.dtypes.size() != arrays.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("BatchLoader: there are ", options_.dtypes.size(), " dtypes for ", arrays.size(), " arrays"));
  }
  for (size_t i = 0; i < arrays.size(); ++i) {
    const bool changes = !arrays[i].augmentations.empty() || !arrays[i].standardization.mean.empty();
    if (options_.dtypes[i] == arrays[i].batch_dtype() || (options_.dtypes[i] == arrays[i].dtype && !changes)) continue;
    return absl::InvalidArgumentError(absl::StrCat("BatchLoader: array '", arrays[i].name, "' is ",
                                                   arrays[i].TypeToString(dataset_.size()), " and cannot become ",
                                                   DTypeName(options_.dtypes[i])));
  }
  return absl::OkStatus();
}

void BatchLoader::State::FillOrder(int64_t epoch) {
  FillEpochOrder(absl::MakeSpan(order_), options_.shuffle, options_.seed, epoch);
  if (sorted_.empty() || !options_.shuffle) return;
  const int64_t batch_size = options_.batch_size, size = dataset_.size(), batches = batches_per_epoch();
  for (int64_t i = 0; i < size; ++i) sorted_[i] = {dataset_.lengths()[order_[i]], i, order_[i]};
  for (int64_t first = 0; first < batches; first += kBatchesOfGroup) {
    const int64_t end = std::min(first + kBatchesOfGroup, batches);
    const auto begin = sorted_.begin() + first * batch_size;
    std::sort(begin, end == batches ? sorted_.end() : sorted_.begin() + end * batch_size,
              [](const Keyed& a, const Keyed& b) {
                return a.length != b.length ? a.length < b.length : a.position < b.position;
              });
    // The last batch of the epoch stays in its place if it is smaller.
    SampleRandom random(options_.seed, epoch, -1 - first);
    for (int64_t i = size / batch_size < end ? size / batch_size - first : end - first; i > 1; --i) {
      const auto a = begin + (i - 1) * batch_size, b = begin + random.Below(i) * batch_size;
      if (a != b) std::swap_ranges(a, a + batch_size, b);
    }
  }
  for (int64_t i = 0; i < size; ++i) order_[i] = sorted_[i].sample;
}

void BatchLoader::State::StartEpoch(int64_t epoch, int64_t first_batch) {
  std::unique_lock lock(mutex_);
  if (!status_.ok()) return;
  changed_.wait(lock, [this] { return idle_; });
  FillOrder(epoch);
  epoch_ = epoch;
  first_ = prepared_ = taken_ = std::clamp<int64_t>(first_batch, 0, batches_per_epoch());
  changed_.notify_all();
}

const Batch* BatchLoader::State::Next() {
  std::unique_lock lock(mutex_);
  if (!status_.ok() || epoch_ < 0 || taken_ == batches_per_epoch()) return nullptr;
  changed_.wait(lock, [this] { return prepared_ > taken_ || !status_.ok(); });
  if (prepared_ == taken_) return nullptr;
  const int64_t batch = taken_++;
  changed_.notify_all();
  return &slots_[batch % kSlots].batch;
}

absl::Status BatchLoader::State::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

void BatchLoader::State::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] {
      // The batch that was taken last is still in use, so its slot is not free.
      const int64_t in_use = taken_ > first_ ? 1 : 0;
      return stop_ ||
             (status_.ok() && epoch_ >= 0 && prepared_ < batches_per_epoch() && prepared_ + in_use < taken_ + kSlots);
    });
    if (stop_) return;
    const int64_t batch = prepared_;
    idle_ = false;
    lock.unlock();
    absl::Status status = Fill(batch);
    lock.lock();
    idle_ = true;
    if (status.ok()) {
      ++prepared_;
    } else {
      status_ = std::move(status);
    }
    changed_.notify_all();
  }
}

absl::Status BatchLoader::State::Fill(int64_t batch) try {
  Slot& slot = slots_[batch % kSlots];
  const int64_t begin = batch * options_.batch_size;
  const absl::Span<const int64_t> whole = absl::MakeConstSpan(order_).subspan(begin, options_.batch_size);
  slot.batch.whole_size = static_cast<int64_t>(whole.size());
  const int64_t first = slot.batch.whole_size * options_.shard / options_.shards;
  slot.batch.size = slot.batch.whole_size * (options_.shard + 1) / options_.shards - first;
  const absl::Span<const int64_t> samples = whole.subspan(first, slot.batch.size);
  int64_t longest = 1;
  if (!dataset_.lengths().empty()) {
    for (int64_t sample : whole) longest = std::max(longest, dataset_.lengths()[sample]);
  }
  for (size_t i = 0; i < dataset_.arrays().size(); ++i) {
    const Dataset::Array& array = dataset_.arrays()[i];
    sizes_.assign(1, slot.batch.size);
    sizes_.insert(sizes_.end(), array.sizes.begin(), array.sizes.end());
    if (array.is_sequence) sizes_[1] = CutLength(longest, options_.length_multiple, array.sizes[0]);
    const Tensor& storage = slot.storage[i];
    Tensor& to = slot.batch.arrays[i];
    if (to.sizes() != absl::MakeConstSpan(sizes_)) {
      to = storage.Rows(0, Product(sizes_)).Reshaped(sizes_);
    }
    if (array.is_generated) continue;
    const absl::Span<const int64_t> sizes = absl::MakeConstSpan(sizes_).subspan(1);
    const size_t from_stride = Product(array.sizes) * DTypeSize(array.dtype);
    const size_t to_stride = Product(sizes) * DTypeSize(to.dtype());
    GW_RETURN_IF_ERROR(CallUserFunction("Dataset: a function given to Augmented", [&] {
      for (size_t k = 0; k < samples.size(); ++k) {
        WriteSample(array, static_cast<const char*>(array.values.raw_data()) + samples[k] * from_stride, to.dtype(),
                    static_cast<char*>(to.mutable_raw_data()) + k * to_stride, sizes,
                    SampleRandom(options_.seed, epoch_, samples[k]), absl::MakeSpan(scratch_));
      }
      return absl::OkStatus();
    }));
  }
  if (dataset_.generator() == nullptr) return absl::OkStatus();
  return CallUserFunction("Dataset: the generator", [&] {
    return dataset_.generator()({options_.seed, epoch_, begin + first, slot.batch.size},
                                absl::MakeSpan(slot.batch.arrays));
  });
}
GW_CATCH_OUT_OF_MEMORY("BatchLoader")

}  // namespace gradweave::data
