// Data sets: named arrays of samples.
#ifndef GRADWEAVE_FRONTEND_DATASET_H_
#define GRADWEAVE_FRONTEND_DATASET_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/frontend/transforms.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"

namespace gradweave::data {

// The name of an array, and of the graph's input that it feeds: "image", or the Input itself.
class ArrayName {
 public:
  ArrayName(const char* name) : name_(name) {}             // NOLINT
  ArrayName(std::string name) : name_(std::move(name)) {}  // NOLINT
  ArrayName(absl::string_view name) : name_(name) {}       // NOLINT
  ArrayName(const Value& input);                           // NOLINT
  // Empty for a Value that is not an Input.
  const std::string& name() const { return name_; }

 private:
  std::string name_;
};

// An array [n, ...] of n samples, of any dtype and rank.
struct NamedArray {
  NamedArray(const ArrayName& name, Tensor values) : name(name.name()), values(std::move(values)) {}
  std::string name;
  Tensor values;
};

// An array of a data set whose samples a function makes.
struct GeneratedArray {
  ArrayName name;
  DType dtype;
  std::vector<int64_t> sizes;  // The axes of one sample.
};

// A request to a generator: samples [first, first + count) of an epoch.
struct GeneratorCall {
  uint64_t seed;
  int64_t epoch, first, count;
};
// Fills one tensor [count, ...] for each array, in the order of the data set's. It is called from
// the thread of a loader; an error or an exception ends the training.
using Generator = std::function<absl::Status(const GeneratorCall& call, absl::Span<Tensor> arrays)>;

// Named arrays that share their first axis, the samples. A data set shares the storage of its
// arrays, which must not change any more. Copies are cheap.
//
//   const gw::data::Dataset points = {{x, features}, {y, targets}};
//   const auto [train, validation] = points.Split(0.9, /*seed=*/1);
//
// A data set keeps the error of its construction, such as arrays of different sizes. It is then
// empty, and so are data sets made from it. Fit, Evaluate and loaders return the error.
class Dataset {
 public:
  struct Array {
    std::string name;
    DType dtype = kFloat32;
    std::vector<int64_t> sizes;            // The axes of one sample.
    Tensor values = {};                    // [n, sizes...]; not used if samples are generated.
    Standardization standardization = {};  // No numbers: none.
    std::vector<SampleTransform> augmentations = {};
    bool is_sequence = false;   // Batches cut the first axis of the samples to their longest sequence.
    bool is_generated = false;  // The data set's generator makes the samples.

    // The whole array, standardized; computed at the first request.
    struct Table {
      std::mutex mutex;
      std::optional<Tensor> values;
    };
    std::shared_ptr<Table> table = {};

    // The dtype of batches unless the loader's options name another one: float32 for bytes, which
    // are scaled to [0, 1]; the array's own dtype for other arrays and for generated ones.
    DType batch_dtype() const { return dtype == kUint8 && !is_generated ? kFloat32 : dtype; }
    // The type as messages show it: "uint8[60000,1,28,28]".
    std::string TypeToString(int64_t samples) const;
  };

  Dataset() = default;
  // Errors: no array, an array of rank 0, different first axes, an empty or repeated name, a Value
  // that is not an Input.
  Dataset(std::initializer_list<NamedArray> arrays) : Dataset(std::vector<NamedArray>(arrays)) {}
  explicit Dataset(std::vector<NamedArray> arrays);

  // A data set of `size` samples for each epoch, which a function makes batch by batch. Errors: no
  // array, bad names, negative sizes, a null generator.
  static Dataset Generated(std::vector<GeneratedArray> arrays, int64_t size, Generator generator);
  // A data set with this error.
  static Dataset Failed(absl::Status error);

  const absl::Status& status() const { return status_; }
  int64_t size() const { return size_; }
  const std::vector<Array>& arrays() const { return arrays_; }
  // Returns the index of the array, or -1.
  int IndexOf(absl::string_view name) const;
  // Returns the values [n, ...] of the array, or NotFound with the names that exist.
  absl::StatusOr<Tensor> Find(const ArrayName& name) const;

  // The first n samples, or all if there are fewer. Shares the memory.
  Dataset First(int64_t n) const;
  // The samples with these numbers, in this order, copied. Errors: a number outside [0, size()),
  // generated samples.
  Dataset Subset(absl::Span<const int64_t> samples) const;
  // Two parts: `fraction` of the samples, drawn by the seed, and the others. Both keep the order of
  // the samples. The parts are the same on every machine. Errors: a fraction outside [0, 1],
  // generated samples.
  std::pair<Dataset, Dataset> Split(double fraction, uint64_t seed) const;
  // Only these arrays. Errors: an unknown name.
  Dataset Select(const std::vector<ArrayName>& names) const;

  // The same samples; batches have the array standardized. Errors: an unknown name, an array that
  // is neither floating nor bytes, numbers outside their range, and a count of numbers that is
  // neither 1 nor the size of the array's second axis.
  Dataset Standardized(const ArrayName& name, Standardization standardization) const;
  // The same samples; batches have the array changed by this function after all earlier ones, and
  // before standardization. Errors: an unknown name, an array that is neither float32 nor bytes.
  Dataset Augmented(const ArrayName& name, SampleTransform transform) const;
  // The same samples as sequences of these lengths, int32 or int64 [n]. The arrays are [n, longest,
  // ...], padded behind each sequence's end. Loaders put sequences of like lengths into one batch
  // and cut these arrays to the longest of the batch. Errors: an unknown name, lengths outside [0,
  // longest].
  Dataset WithLengths(Tensor lengths, const std::vector<ArrayName>& sequences) const;

  // All samples of the array as batches have them without augmentation, except that bytes that are
  // not standardized stay bytes. Standardizes them once for all copies of the data set. Returns
  // ResourceExhausted if memory runs out.
  absl::StatusOr<Tensor> TableOf(int array) const;
  // The lengths of the sequences, int64 [n], or no value.
  const std::vector<int64_t>& lengths() const { return lengths_; }
  // The function that makes the samples, or null.
  const Generator& generator() const { return generator_; }

 private:
  // A copy to change, with the index of the array; the copy has failed if there is none.
  Dataset CopyToChange(absl::string_view what, const ArrayName& name, int& index) const;
  absl::Status CheckNames() const;

  absl::Status status_;
  int64_t size_ = 0;
  std::vector<Array> arrays_;
  std::vector<int64_t> lengths_;
  Generator generator_;
};

// The mean and the deviation (divided by n) of the array, one for each index of its second axis;
// bytes are scaled to [0, 1] first. If all numbers are equal, the deviation is 1, so that
// standardized values are 0. Returns InvalidArgument if the array is neither floating nor bytes,
// has rank below 2 or no elements, or has elements that are not finite.
absl::StatusOr<Standardization> MeasureStandardization(const Tensor& values);
// The same for an array of the data set; also returns the errors of Dataset::Find.
//
//   GW_ASSIGN_OR_RETURN(const auto numbers, gw::data::MeasureStandardization(train, "x"));
//   train = train.Standardized("x", numbers);
//   test = test.Standardized("x", numbers);
absl::StatusOr<Standardization> MeasureStandardization(const Dataset& dataset, const ArrayName& name);

// Fills `order` with the sample numbers of an epoch: in order, or shuffled by (seed, epoch). The
// size of `order` is the number of samples. The order is the same on every machine.
void FillEpochOrder(absl::Span<int64_t> order, bool shuffle, uint64_t seed, int64_t epoch);

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATASET_H_
