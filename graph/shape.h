// Shapes, and tensor types: a dtype and a shape.
#ifndef GRADWEAVE_GRAPH_SHAPE_H_
#define GRADWEAVE_GRAPH_SHAPE_H_

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "gradweave/graph/dim.h"
#include "gradweave/graph/dtype.h"

namespace gradweave {

// The sizes along the axes, outermost first (row-major). A scalar has no axes.
class Shape {
 public:
  using Dims = absl::InlinedVector<Dim, 4>;

  Shape() = default;
  Shape(std::initializer_list<Dim> dims) : dims_(dims) {}
  explicit Shape(absl::Span<const Dim> dims) : dims_(dims.begin(), dims.end()) {}
  explicit Shape(absl::Span<const int64_t> sizes) : dims_(sizes.begin(), sizes.end()) {}
  explicit Shape(const std::vector<int64_t>& sizes) : dims_(sizes.begin(), sizes.end()) {}

  int rank() const { return static_cast<int>(dims_.size()); }
  const Dim& operator[](int axis) const { return dims_[axis]; }
  Dim& operator[](int axis) { return dims_[axis]; }
  const Dims& dims() const { return dims_; }
  Dims::const_iterator begin() const { return dims_.begin(); }
  Dims::const_iterator end() const { return dims_.end(); }
  void Append(Dim dim) { dims_.push_back(std::move(dim)); }
  void Insert(int axis, Dim dim) { dims_.insert(dims_.begin() + axis, std::move(dim)); }
  void Erase(int axis) { dims_.erase(dims_.begin() + axis); }

  // True if every dimension is known.
  bool is_static() const;
  // Returns the sizes. The shape must be static.
  std::vector<int64_t> sizes() const;
  // Returns the product of all dimensions; 1 for a scalar.
  Dim num_elements() const;

  // Replaces each bound symbol by its size.
  Shape Substitute(const DimBindings& bindings) const;
  // Adds the names of all symbols to the set.
  void CollectSymbols(std::set<std::string>& symbols) const;

  // Formats the shape: "[batch,1,28,28]", or "[]" for a scalar.
  std::string ToString() const;

  friend bool operator==(const Shape& a, const Shape& b) { return a.dims_ == b.dims_; }

 private:
  Dims dims_;
};

// A dtype and a shape.
struct TensorType {
  DType dtype = kFloat32;
  Shape shape;

  // Formats the type: "float32[batch,1,28,28]".
  std::string ToString() const;
  // The size in bytes of a tensor of this type. The shape must be static.
  int64_t byte_size() const { return shape.num_elements().size() * static_cast<int64_t>(DTypeSize(dtype)); }

  friend bool operator==(const TensorType& a, const TensorType& b) { return a.dtype == b.dtype && a.shape == b.shape; }
};

// Formats a list of types: "float32[2,3], int32[2]".
std::string ToString(absl::Span<const TensorType> types);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_SHAPE_H_
