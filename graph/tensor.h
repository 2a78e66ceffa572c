// Tensors in host memory: the values of constants, feeds and fetches.
#ifndef GRADWEAVE_GRAPH_TENSOR_H_
#define GRADWEAVE_GRAPH_TENSOR_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/graph/shape.h"

namespace gradweave {

// A dense row-major array. Copies share their storage, like a shared_ptr; Clone() copies the
// elements. Storage that a tensor allocates is aligned to 64 bytes. View() wraps the caller's
// memory without a copy.
//
//   gw::Tensor zeros(gw::kFloat32, {2, 3});
//   gw::Tensor labels = gw::Tensor::Of<int32_t>({3}, {7, 0, 9});
//   gw::Tensor image = gw::Tensor::View(gw::kUint8, {28, 28}, pixels.data());
class Tensor {
 public:
  // A float32 tensor of shape [0].
  Tensor();
  Tensor(const Tensor&) = default;
  Tensor& operator=(const Tensor&) = default;
  // A tensor that was moved from has the type float32[0], and may be used as one.
  Tensor(Tensor&& other) noexcept
      : dtype_(std::exchange(other.dtype_, kFloat32)), sizes_(std::move(other.sizes_)), data_(std::move(other.data_)) {
    other.sizes_.assign(1, 0);
  }
  Tensor& operator=(Tensor&& other) noexcept {
    Tensor moved(std::move(other));
    std::swap(dtype_, moved.dtype_);
    sizes_.swap(moved.sizes_);
    data_.swap(moved.data_);
    return *this;
  }
  // A tensor of zeros. Throws std::bad_alloc if memory runs out. Use Create for sizes that come
  // from outside of the program.
  Tensor(DType dtype, absl::Span<const int64_t> sizes);
  Tensor(DType dtype, std::initializer_list<int64_t> sizes)
      : Tensor(dtype, absl::Span<const int64_t>(sizes.begin(), sizes.size())) {}

  // Returns a tensor of zeros. Returns InvalidArgument for a negative size or an overflowing byte
  // count, and ResourceExhausted if memory runs out.
  static absl::StatusOr<Tensor> Create(DType dtype, absl::Span<const int64_t> sizes);

  // Returns a tensor with these elements in row-major order. Missing elements are zero; surplus
  // ones are ignored.
  template <typename T>
  static Tensor Of(absl::Span<const int64_t> sizes, absl::Span<const T> values);
  template <typename T>
  static Tensor Of(std::initializer_list<int64_t> sizes, std::initializer_list<T> values) {
    return Of<T>(absl::Span<const int64_t>(sizes.begin(), sizes.size()),
                 absl::Span<const T>(values.begin(), values.size()));
  }
  // Returns a tensor of shape [].
  template <typename T>
  static Tensor Scalar(T value) {
    return Of<T>({}, {value});
  }
  // Returns a tensor of shape [] and any dtype, with the value converted to it.
  static Tensor ScalarOf(DType dtype, double value);

  // Returns a tensor over the caller's memory. The memory must live as long as the view and its
  // copies, unless `owner` owns it. It needs the alignment of the element type; 64 bytes is
  // fastest.
  static Tensor View(DType dtype, absl::Span<const int64_t> sizes, void* data, std::shared_ptr<void> owner = nullptr);

  DType dtype() const { return dtype_; }
  absl::Span<const int64_t> sizes() const { return sizes_; }
  int rank() const { return static_cast<int>(sizes_.size()); }
  int64_t size(int axis) const { return sizes_[axis]; }
  int64_t num_elements() const;
  size_t byte_size() const { return num_elements() * DTypeSize(dtype_); }
  Shape shape() const { return Shape(absl::Span<const int64_t>(sizes_)); }
  TensorType type() const { return {dtype_, shape()}; }

  const void* raw_data() const { return data_.get(); }
  void* mutable_raw_data() { return data_.get(); }

  // Returns the elements; null unless T is the C++ type of the dtype.
  template <typename T>
  const T* data() const {
    return DTypeOf<T> == dtype_ ? static_cast<const T*>(data_.get()) : nullptr;
  }
  template <typename T>
  T* mutable_data() {
    return DTypeOf<T> == dtype_ ? static_cast<T*>(data_.get()) : nullptr;
  }
  // Returns the elements; empty unless T is the C++ type of the dtype.
  template <typename T>
  absl::Span<const T> values() const {
    return DTypeOf<T> == dtype_ ? absl::Span<const T>(data<T>(), num_elements()) : absl::Span<const T>();
  }
  template <typename T>
  absl::Span<T> mutable_values() {
    return DTypeOf<T> == dtype_ ? absl::Span<T>(mutable_data<T>(), num_elements()) : absl::Span<T>();
  }

  // Returns all elements, converted to double, for printing and tests.
  std::vector<double> ToDoubles() const;
  // Returns the only element; NaN unless there is exactly one.
  double ToDouble() const;

  // Returns rows [begin, end) along the outermost axis; 0 <= begin <= end <= size(0). Shares the
  // storage.
  Tensor Rows(int64_t begin, int64_t end) const;
  // Returns the same elements with other sizes, which have the same product. Shares the storage.
  Tensor Reshaped(absl::Span<const int64_t> sizes) const;
  // Returns a copy of the elements in new storage. Throws std::bad_alloc if memory runs out, as
  // Cast does.
  Tensor Clone() const;
  // Returns a copy whose elements are converted to another dtype as the op Cast converts them:
  // numbers are rounded to the nearest one of a floating dtype, floating to integer rounds toward
  // zero and saturates, NaN becomes the integer 0, and integers wrap around.
  Tensor Cast(DType dtype) const;

  // Formats the type and at most `max_elements` elements: "float32[2,3] {1, 2, 3, ...}".
  std::string ToString(int64_t max_elements = 16) const;

 private:
  Tensor(DType dtype, absl::Span<const int64_t> sizes, std::shared_ptr<void> data)
      : dtype_(dtype), sizes_(sizes.begin(), sizes.end()), data_(std::move(data)) {}

  DType dtype_ = kFloat32;
  absl::InlinedVector<int64_t, 4> sizes_;
  std::shared_ptr<void> data_;
};

// Returns true if the dtypes, sizes and bytes are equal.
bool SameBits(const Tensor& a, const Tensor& b);

// Returns true if the dtype has this number. Floating dtypes have all numbers, rounded.
bool Represents(DType dtype, double number);

// Returns the number of elements; nullopt if a size is negative or the product overflows.
std::optional<int64_t> CheckedNumElements(absl::Span<const int64_t> sizes);

template <typename T>
Tensor Tensor::Of(absl::Span<const int64_t> sizes, absl::Span<const T> values) {
  Tensor tensor(DTypeOf<T>, sizes);
  const size_t count = std::min<size_t>(values.size(), tensor.num_elements());
  for (size_t i = 0; i < count; ++i) tensor.mutable_data<T>()[i] = values[i];
  return tensor;
}

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_TENSOR_H_
