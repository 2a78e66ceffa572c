// Tensors in host memory: what constants hold, what is fed to a run, and what a run gives back.
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

// A dense row-major array. Copies share the storage, like a shared_ptr; Clone() copies the elements. Storage that a
// tensor allocates is aligned to 64 bytes; View() wraps memory of the caller's without a copy.
//
//   gw::Tensor zeros(gw::kFloat32, {2, 3});
//   gw::Tensor labels = gw::Tensor::Of<int32_t>({3}, {7, 0, 9});
//   gw::Tensor image = gw::Tensor::View(gw::kUint8, {28, 28}, pixels.data());
class Tensor {
 public:
  // A float32 tensor of shape [0].
  Tensor();
  // Zeros. The sizes are the program's own; for sizes that come from outside use Create.
  Tensor(DType dtype, absl::Span<const int64_t> sizes);
  Tensor(DType dtype, std::initializer_list<int64_t> sizes)
      : Tensor(dtype, absl::Span<const int64_t>(sizes.begin(), sizes.size())) {}

  // Zeros; InvalidArgument for a negative size or one whose bytes overflow, ResourceExhausted where memory is short.
  static absl::StatusOr<Tensor> Create(DType dtype, absl::Span<const int64_t> sizes);

  // The elements in row-major order; missing ones are zero, surplus ones are left out.
  template <typename T>
  static Tensor Of(absl::Span<const int64_t> sizes, absl::Span<const T> values);
  template <typename T>
  static Tensor Of(std::initializer_list<int64_t> sizes, std::initializer_list<T> values) {
    return Of<T>(absl::Span<const int64_t>(sizes.begin(), sizes.size()),
                 absl::Span<const T>(values.begin(), values.size()));
  }
  // A tensor of shape [].
  template <typename T>
  static Tensor Scalar(T value) {
    return Of<T>({}, {value});
  }
  // One element of any dtype, the value converted to it.
  static Tensor ScalarOf(DType dtype, double value);

  // The caller's memory, which must live as long as the view and its copies, or be owned by owner. Any alignment of the
  // elements' own type will do; 64 bytes is fastest.
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

  // The elements; null unless the dtype is that of T.
  template <typename T>
  const T* data() const {
    return DTypeOf<T> == dtype_ ? static_cast<const T*>(data_.get()) : nullptr;
  }
  template <typename T>
  T* mutable_data() {
    return DTypeOf<T> == dtype_ ? static_cast<T*>(data_.get()) : nullptr;
  }
  // The elements; empty unless the dtype is that of T.
  template <typename T>
  absl::Span<const T> values() const {
    return DTypeOf<T> == dtype_ ? absl::Span<const T>(data<T>(), num_elements()) : absl::Span<const T>();
  }
  template <typename T>
  absl::Span<T> mutable_values() {
    return DTypeOf<T> == dtype_ ? absl::Span<T>(mutable_data<T>(), num_elements()) : absl::Span<T>();
  }

  // All elements, converted; for printing and tests.
  std::vector<double> ToDoubles() const;
  // The value of the only element; NaN unless there is exactly one.
  double ToDouble() const;

  // Rows begin to end - 1 along the outermost axis, sharing the storage; 0 <= begin <= end <= size(0).
  Tensor Rows(int64_t begin, int64_t end) const;
  // The same elements under other sizes with the same product, sharing the storage.
  Tensor Reshaped(absl::Span<const int64_t> sizes) const;
  // A copy of the elements, in storage of its own.
  Tensor Clone() const;
  // A copy, the elements converted to another dtype as static_cast does.
  Tensor Cast(DType dtype) const;

  // "float32[2,3] {1, 2, 3, ...}"; at most max_elements of them.
  std::string ToString(int64_t max_elements = 16) const;

 private:
  Tensor(DType dtype, absl::Span<const int64_t> sizes, std::shared_ptr<void> data)
      : dtype_(dtype), sizes_(sizes.begin(), sizes.end()), data_(std::move(data)) {}

  DType dtype_ = kFloat32;
  absl::InlinedVector<int64_t, 4> sizes_;
  std::shared_ptr<void> data_;
};

// Same dtype, sizes and bytes.
bool SameBits(const Tensor& a, const Tensor& b);

// The number of elements; nothing where a size is negative or the product overflows.
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
