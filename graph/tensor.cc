#include "gradweave/graph/tensor.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/convert_elements.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave {
namespace {

std::shared_ptr<void> Allocate(size_t bytes) {
  std::shared_ptr<void> data = AllocateAligned(bytes);
  if (data != nullptr) std::memset(data.get(), 0, bytes);
  return data;
}

}  // namespace

bool Represents(DType dtype, double number) {
  return VisitAnyDType(dtype, [number](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_floating_point_v<T> || kIsHalf<T>) return true;
    return number == std::floor(number) && number >= static_cast<double>(std::numeric_limits<T>::min()) &&
           number < std::ldexp(1.0, std::numeric_limits<T>::digits);
  });
}

std::optional<int64_t> CheckedNumElements(absl::Span<const int64_t> sizes) {
  int64_t product = 1;
  bool empty = false, overflow = false;
  for (int64_t size : sizes) {
    if (size < 0) return std::nullopt;
    if (size == 0) empty = true;
    overflow |= __builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product);
  }
  if (overflow || product > std::numeric_limits<int64_t>::max() / 16) return std::nullopt;
  return empty ? 0 : product;
}

Tensor::Tensor() : Tensor(kFloat32, {0}) {}

Tensor::Tensor(DType dtype, absl::Span<const int64_t> sizes) : dtype_(dtype), sizes_(sizes.begin(), sizes.end()) {
  // The bytes are unknown if the product of the sizes overflows.
  if (CheckedNumElements(sizes_).has_value()) data_ = Allocate(byte_size());
  if (data_ == nullptr) throw std::bad_alloc();
}

absl::StatusOr<Tensor> Tensor::Create(DType dtype, absl::Span<const int64_t> sizes) try {
  if (!CheckedNumElements(sizes)) {
    return absl::InvalidArgumentError(absl::StrCat("a tensor cannot have the shape ", Shape(sizes).ToString()));
  }
  Tensor tensor = View(dtype, sizes, nullptr);
  tensor.data_ = Allocate(tensor.byte_size());
  if (tensor.data_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", tensor.byte_size(), " bytes of ", tensor.type().ToString()));
  }
  return tensor;
}
GW_CATCH_OUT_OF_MEMORY("Tensor::Create")

Tensor Tensor::ScalarOf(DType dtype, double value) { return Scalar(value).Cast(dtype); }

Tensor Tensor::View(DType dtype, absl::Span<const int64_t> sizes, void* data, std::shared_ptr<void> owner) {
  return Tensor(dtype, sizes, std::shared_ptr<void>(std::move(owner), data));
}

int64_t Tensor::num_elements() const {
  int64_t product = 1;
  for (int64_t size : sizes_) product *= size;
  return product;
}

std::vector<double> Tensor::ToDoubles() const {
  std::vector<double> doubles(num_elements());
  VisitAnyDType(dtype_, [&](auto zero) {
    const auto* from = data<decltype(zero)>();
    for (size_t i = 0; i < doubles.size(); ++i) doubles[i] = static_cast<double>(from[i]);
  });
  return doubles;
}

double Tensor::ToDouble() const {
  if (num_elements() != 1) return std::numeric_limits<double>::quiet_NaN();
  return VisitAnyDType(dtype_, [&](auto zero) { return static_cast<double>(*data<decltype(zero)>()); });
}

Tensor Tensor::Rows(int64_t begin, int64_t end) const {
  const int64_t rows = std::max<int64_t>(sizes_[0], 1);
  char* start = static_cast<char*>(data_.get()) + byte_size() / rows * begin;
  absl::InlinedVector<int64_t, 4> sizes = sizes_;
  sizes[0] = end - begin;
  return View(dtype_, sizes, start, data_);
}

Tensor Tensor::Reshaped(absl::Span<const int64_t> sizes) const { return View(dtype_, sizes, data_.get(), data_); }

Tensor Tensor::Clone() const {
  Tensor copy(dtype_, sizes_);
  if (num_elements() > 0) std::memcpy(copy.data_.get(), data_.get(), byte_size());
  return copy;
}

Tensor Tensor::Cast(DType dtype) const {
  Tensor result(dtype, sizes_);
  ConvertElements(dtype_, raw_data(), dtype, result.mutable_raw_data(), num_elements());
  return result;
}

std::string Tensor::ToString(int64_t max_elements) const {
  std::string text = absl::StrCat(type().ToString(), " {");
  const int64_t shown = std::min(max_elements, num_elements());
  VisitAnyDType(dtype_, [&](auto zero) {
    const auto* elements = data<decltype(zero)>();
    for (int64_t i = 0; i < shown; ++i) {
      absl::StrAppend(&text, i == 0 ? "" : ", ");
      if constexpr (kIsHalf<decltype(zero)>) {
        absl::StrAppend(&text, static_cast<float>(elements[i]));
      } else {
        absl::StrAppend(&text, +elements[i]);  // Unary + prints a uint8 or a bool as a number.
      }
    }
  });
  return absl::StrCat(text, shown < num_elements() ? ", ...}" : "}");
}

bool SameBits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.sizes() == b.sizes() &&
         (a.num_elements() == 0 || std::memcmp(a.raw_data(), b.raw_data(), a.byte_size()) == 0);
}

}  // namespace gradweave
