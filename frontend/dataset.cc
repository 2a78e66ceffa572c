#include "gradweave/frontend/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/op.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave::data {
namespace {

std::string NamesOf(const std::vector<Dataset::Array>& arrays) {
  if (arrays.empty()) return "none";
  return absl::StrJoin(
      arrays, ", ", [](std::string* out, const Dataset::Array& array) { absl::StrAppend(out, "'", array.name, "'"); });
}

bool IsFloatingOrBytes(DType dtype) { return IsFloating(dtype) || dtype == kUint8; }

// Checks that the numbers are finite, and above 0 if they are deviations, and that there are 1 or
// `count` of them.
absl::Status CheckNumbers(const char* name, const std::vector<double>& numbers, int64_t count, bool positive) {
  if (numbers.size() != 1 && static_cast<int64_t>(numbers.size()) != count) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", numbers.size(), " numbers for ", name,
                                                   "; there has to be 1, or ", count,
                                                   ", one for each index of the second axis"));
  }
  for (double number : numbers) {
    if (std::isfinite(number) && (!positive || number > 0)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is ", number, " and has to be finite", positive ? " and above 0" : ""));
  }
  return absl::OkStatus();
}

// The rows of the tensor with these numbers, in this order.
absl::StatusOr<Tensor> CopyRows(const Tensor& from, absl::Span<const int64_t> rows) {
  std::vector<int64_t> sizes(from.sizes().begin(), from.sizes().end());
  sizes[0] = static_cast<int64_t>(rows.size());
  GW_ASSIGN_OR_RETURN(Tensor to, Tensor::Create(from.dtype(), sizes));
  const size_t row_bytes = rows.empty() ? 0 : to.byte_size() / rows.size();
  if (row_bytes == 0) return to;
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(static_cast<char*>(to.mutable_raw_data()) + i * row_bytes,
                static_cast<const char*>(from.raw_data()) + rows[i] * row_bytes, row_bytes);
  }
  return to;
}

}  // namespace

ArrayName::ArrayName(const Value& input) {
  if (input.valid() && input.node().op->kind == OpKind::kInput) name_ = input.node().name;
}

std::string Dataset::Array::TypeToString(int64_t samples) const {
  std::vector<int64_t> all = {samples};
  all.insert(all.end(), sizes.begin(), sizes.end());
  return TensorType{dtype, Shape(absl::Span<const int64_t>(all))}.ToString();
}

Dataset::Dataset(std::vector<NamedArray> arrays) {
  for (NamedArray& array : arrays) {
    if (array.values.rank() == 0) {
      *this = Failed(absl::InvalidArgumentError(absl::StrCat("Dataset: array '", array.name, "' is ",
                                                             array.values.type().ToString(),
                                                             " and has to have an axis of samples")));
      return;
    }
    const absl::Span<const int64_t> sizes = array.values.sizes().subspan(1);
    arrays_.push_back({.name = std::move(array.name),
                       .dtype = array.values.dtype(),
                       .sizes = {sizes.begin(), sizes.end()},
                       .values = std::move(array.values)});
  }
  absl::Status status = CheckNames();
  for (size_t i = 1; i < arrays_.size() && status.ok(); ++i) {
    if (arrays_[i].values.size(0) == arrays_[0].values.size(0)) continue;
    status = absl::InvalidArgumentError(absl::StrCat(
        "Dataset: arrays '", arrays_[0].name, "', ", arrays_[0].values.type().ToString(), ", and '", arrays_[i].name,
        "', ", arrays_[i].values.type().ToString(), ", have to have the same first axis, the samples"));
  }
  if (status.ok()) {
    size_ = arrays_[0].values.size(0);
  } else {
    *this = Failed(std::move(status));
  }
}

Dataset Dataset::Generated(std::vector<GeneratedArray> arrays, int64_t size, Generator generator) {
  Dataset result;
  for (GeneratedArray& array : arrays) {
    if (!CheckedNumElements(array.sizes).has_value()) {
      return Failed(
          absl::InvalidArgumentError(absl::StrCat("Dataset: samples of array '", array.name.name(),
                                                  "' cannot have the sizes [", absl::StrJoin(array.sizes, ","), "]")));
    }
    result.arrays_.push_back(
        {.name = array.name.name(), .dtype = array.dtype, .sizes = std::move(array.sizes), .is_generated = true});
  }
  if (absl::Status status = result.CheckNames(); !status.ok()) return Failed(std::move(status));
  if (size < 0 || generator == nullptr) {
    return Failed(absl::InvalidArgumentError(absl::StrCat(
        "Dataset: ", size < 0 ? absl::StrCat("the number of samples is ", size) : "the generator is null")));
  }
  result.size_ = size;
  result.generator_ = std::move(generator);
  return result;
}

Dataset Dataset::Failed(absl::Status error) {
  Dataset failed;
  failed.status_ = std::move(error);
  return failed;
}

absl::Status Dataset::CheckNames() const {
  if (arrays_.empty()) return absl::InvalidArgumentError("Dataset: there are no arrays");
  for (size_t i = 0; i < arrays_.size(); ++i) {
    if (arrays_[i].name.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Dataset: array ", i, " has no name; its name is that of the input that it feeds, or that Input itself"));
    }
    if (IndexOf(arrays_[i].name) < static_cast<int>(i)) {
      return absl::InvalidArgumentError(absl::StrCat("Dataset: two arrays have the name '", arrays_[i].name, "'"));
    }
  }
  return absl::OkStatus();
}

int Dataset::IndexOf(absl::string_view name) const {
  const auto found =
      std::find_if(arrays_.begin(), arrays_.end(), [&](const Array& array) { return array.name == name; });
  return found == arrays_.end() ? -1 : static_cast<int>(found - arrays_.begin());
}

absl::StatusOr<Tensor> Dataset::Find(const ArrayName& name) const {
  if (!status_.ok()) return status_;
  const int index = IndexOf(name.name());
  if (index < 0) {
    return absl::NotFoundError(
        absl::StrCat("Dataset: there is no array '", name.name(), "'; the arrays are ", NamesOf(arrays_)));
  }
  if (generator_ != nullptr) {
    return absl::NotFoundError(absl::StrCat("Dataset: array '", name.name(), "' is generated and has no values"));
  }
  return arrays_[index].values;
}

Dataset Dataset::CopyToChange(absl::string_view what, const ArrayName& name, int& index) const {
  if (!status_.ok()) return *this;
  index = IndexOf(name.name());
  if (index >= 0) return *this;
  return Failed(absl::NotFoundError(
      absl::StrCat(what, ": there is no array '", name.name(), "'; the arrays are ", NamesOf(arrays_))));
}

Dataset Dataset::First(int64_t n) const {
  Dataset result = *this;
  result.size_ = std::clamp<int64_t>(n, 0, size_);
  if (!lengths_.empty()) result.lengths_.resize(result.size_);
  if (generator_ != nullptr) return result;
  for (Array& array : result.arrays_) {
    array.values = array.values.Rows(0, result.size_);
    if (array.table != nullptr) array.table = std::make_shared<Array::Table>();
  }
  return result;
}

Dataset Dataset::Subset(absl::Span<const int64_t> samples) const {
  if (!status_.ok()) return *this;
  if (generator_ != nullptr) return Failed(absl::InvalidArgumentError("Subset: generated samples cannot be selected"));
  for (int64_t sample : samples) {
    if (sample >= 0 && sample < size_) continue;
    return Failed(absl::OutOfRangeError(absl::StrCat("Subset: sample ", sample, " is outside [0, ", size_, ")")));
  }
  Dataset result = *this;
  result.size_ = static_cast<int64_t>(samples.size());
  for (Array& array : result.arrays_) {
    absl::StatusOr<Tensor> values = CopyRows(array.values, samples);
    if (!values.ok()) return Failed(values.status());
    array.values = *std::move(values);
    if (array.table != nullptr) array.table = std::make_shared<Array::Table>();
  }
  if (!lengths_.empty()) {
    result.lengths_.clear();
    for (int64_t sample : samples) result.lengths_.push_back(lengths_[sample]);
  }
  return result;
}

std::pair<Dataset, Dataset> Dataset::Split(double fraction, uint64_t seed) const {
  if (!(fraction >= 0 && fraction <= 1)) {
    const Dataset failed = Failed(
        absl::InvalidArgumentError(absl::StrCat("Split: the fraction is ", fraction, " and has to be in [0, 1]")));
    return {failed, failed};
  }
  std::vector<int64_t> order(size_);
  FillEpochOrder(absl::MakeSpan(order), /*shuffle=*/true, seed, 0);
  const auto middle = order.begin() + std::llround(fraction * static_cast<double>(size_));
  std::sort(order.begin(), middle);
  std::sort(middle, order.end());
  const absl::Span<const int64_t> all = order;
  const size_t first = middle - order.begin();
  return {Subset(all.subspan(0, first)), Subset(all.subspan(first))};
}

Dataset Dataset::Select(const std::vector<ArrayName>& names) const {
  Dataset result = *this;
  result.arrays_.clear();
  for (const ArrayName& name : names) {
    int index = -1;
    Dataset found = CopyToChange("Select", name, index);
    if (!found.status_.ok()) return found;
    result.arrays_.push_back(std::move(found.arrays_[index]));
  }
  if (absl::Status status = result.CheckNames(); !status.ok()) return Failed(std::move(status));
  return result;
}

Dataset Dataset::Standardized(const ArrayName& name, Standardization standardization) const {
  int index = -1;
  Dataset result = CopyToChange("Standardized", name, index);
  if (!result.status_.ok()) return result;
  Array& array = result.arrays_[index];
  const int64_t count = array.sizes.empty() ? 1 : array.sizes[0];
  absl::Status status = CheckNumbers("mean", standardization.mean, count, /*positive=*/false);
  status.Update(CheckNumbers("deviation", standardization.deviation, count, /*positive=*/true));
  if (!IsFloatingOrBytes(array.dtype) || array.is_generated)
    status.Update(absl::InvalidArgumentError("it has to be floating or uint8, and not generated"));
  if (!status.ok()) {
    return Failed(absl::InvalidArgumentError(
        absl::StrCat("Standardized: array '", array.name, "' is ", array.TypeToString(size_), ": ", status.message())));
  }
  array.standardization = std::move(standardization);
  array.table = std::make_shared<Array::Table>();
  return result;
}

absl::StatusOr<Tensor> Dataset::TableOf(int array) const {
  const Array& from = arrays_[array];
  if (from.table == nullptr) return from.values;
  std::lock_guard lock(from.table->mutex);
  if (!from.table->values.has_value()) {
    GW_ASSIGN_OR_RETURN(Tensor to, Tensor::Create(from.batch_dtype(), from.values.sizes()));
    const int64_t elements = size_ == 0 ? 0 : to.num_elements() / size_;
    Array without_augmentation = from;
    without_augmentation.augmentations.clear();
    for (int64_t i = 0; i < size_; ++i) {
      WriteSample(without_augmentation,
                  static_cast<const char*>(from.values.raw_data()) + i * elements * DTypeSize(from.dtype), to.dtype(),
                  static_cast<char*>(to.mutable_raw_data()) + i * elements * DTypeSize(to.dtype()), from.sizes,
                  SampleRandom(0, 0, i), {});
    }
    from.table->values = std::move(to);
  }
  return *from.table->values;
}

Dataset Dataset::Augmented(const ArrayName& name, SampleTransform transform) const {
  int index = -1;
  Dataset result = CopyToChange("Augmented", name, index);
  if (!result.status_.ok()) return result;
  Array& array = result.arrays_[index];
  if (array.batch_dtype() != kFloat32 || array.is_generated || transform == nullptr) {
    return Failed(absl::InvalidArgumentError(absl::StrCat(
        "Augmented: array '", array.name, "' is ", array.TypeToString(size_),
        transform == nullptr ? " and its function is null" : " and has to be float32 or uint8, and not generated")));
  }
  array.augmentations.push_back(std::move(transform));
  return result;
}

Dataset Dataset::WithLengths(Tensor lengths, const std::vector<ArrayName>& sequences) const {
  if (!status_.ok()) return *this;
  Dataset result = *this;
  if (lengths.rank() != 1 || lengths.size(0) != size_ || (lengths.dtype() != kInt32 && lengths.dtype() != kInt64)) {
    return Failed(absl::InvalidArgumentError(absl::StrCat("WithLengths: the lengths are ", lengths.type().ToString(),
                                                          " and have to be int32 or int64[", size_, "]")));
  }
  lengths = lengths.Cast(kInt64);
  result.lengths_.assign(lengths.values<int64_t>().begin(), lengths.values<int64_t>().end());
  for (const ArrayName& name : sequences) {
    int index = -1;
    if (Dataset found = CopyToChange("WithLengths", name, index); !found.status_.ok()) return found;
    Array& array = result.arrays_[index];
    array.is_sequence = true;
    const int64_t longest = array.sizes.empty() ? 0 : array.sizes[0];
    for (int64_t i = 0; i < size_; ++i) {
      if (!array.sizes.empty() && result.lengths_[i] >= 0 && result.lengths_[i] <= longest) continue;
      return Failed(
          absl::InvalidArgumentError(absl::StrCat("WithLengths: the length of sample ", i, " is ", result.lengths_[i],
                                                  " and array '", name.name(), "' is ", array.TypeToString(size_))));
    }
  }
  return result;
}

absl::StatusOr<Standardization> MeasureStandardization(const Tensor& values) try {
  if (!IsFloatingOrBytes(values.dtype()) || values.rank() < 2 || values.num_elements() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("MeasureStandardization: the array is ", values.type().ToString(),
                     " and has to be floating or uint8, with two axes at least and some elements"));
  }
  const int64_t count = values.size(1), inner = values.num_elements() / values.size(0) / count;
  const int64_t of_each = values.size(0) * inner;
  std::vector<double> first(count), mean(count, 0), deviation(count, 0);
  std::vector<bool> differ(count, false);
  // Calls function(index of the second axis, element as a double) for all elements.
  auto visit = [&](auto function) {
    VisitDType(values.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const double scale = std::is_same_v<T, uint8_t> ? 255 : 1;
      const T* at = values.data<T>();
      for (int64_t sample = 0; sample < values.size(0); ++sample) {
        for (int64_t i = 0; i < count; ++i) {
          for (int64_t k = 0; k < inner; ++k) function(i, static_cast<double>(*at++) / scale);
        }
      }
    });
  };
  int64_t visited = 0;
  visit([&](int64_t i, double x) {
    if (visited < count * inner && visited % inner == 0) first[i] = x;
    ++visited;
    differ[i] = differ[i] || x != first[i];
    mean[i] += x;
  });
  // The sum of equal numbers is rounded, and a deviation of rounding errors would blow them up.
  for (int64_t i = 0; i < count; ++i) mean[i] = differ[i] ? mean[i] / static_cast<double>(of_each) : first[i];
  visit([&](int64_t i, double x) { deviation[i] += (x - mean[i]) * (x - mean[i]); });
  for (int64_t i = 0; i < count; ++i) {
    deviation[i] = std::sqrt(deviation[i] / static_cast<double>(of_each));
    if (!std::isfinite(deviation[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("MeasureStandardization: elements at index ", i, " of the second axis are not finite"));
    }
    if (!differ[i]) deviation[i] = 1;
  }
  return Standardization{std::move(mean), std::move(deviation)};
}
GW_CATCH_OUT_OF_MEMORY("MeasureStandardization")

absl::StatusOr<Standardization> MeasureStandardization(const Dataset& dataset, const ArrayName& name) {
  GW_ASSIGN_OR_RETURN(const Tensor values, dataset.Find(name));
  return MeasureStandardization(values);
}

void FillEpochOrder(absl::Span<int64_t> order, bool shuffle, uint64_t seed, int64_t epoch) {
  std::iota(order.begin(), order.end(), 0);
  if (!shuffle) return;
  // Fisher-Yates shuffle. The standard library's distributions differ between implementations, its
  // engines do not.
  std::mt19937_64 random(seed * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(epoch));
  for (int64_t i = static_cast<int64_t>(order.size()) - 1; i > 0; --i) {
    const auto j =
        static_cast<int64_t>((static_cast<unsigned __int128>(random()) * static_cast<uint64_t>(i + 1)) >> 64);
    std::swap(order[i], order[j]);
  }
}

}  // namespace gradweave::data
