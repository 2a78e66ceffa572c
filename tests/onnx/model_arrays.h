// The arrays that make_models.py stores beside each model that PyTorch has exported.
#ifndef GRADWEAVE_TESTS_ONNX_MODEL_ARRAYS_H_
#define GRADWEAVE_TESTS_ONNX_MODEL_ARRAYS_H_

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave::onnx {

inline constexpr char kFolder[] = "tests/onnx/models/";

// Returns the operands, outputs and gradients of the model by name. An error fails the test.
inline std::map<std::string, Tensor> Arrays(const std::string& name) {
  std::map<std::string, Tensor> arrays;
  const auto read = data::ReadNpz(absl::StrCat(kFolder, name, ".npz"));
  EXPECT_TRUE(read.ok()) << read.status();
  if (!read.ok()) return arrays;
  for (const auto& array : *read) arrays[array.name] = array.values;
  return arrays;
}

// Returns the largest difference, relative to the largest element.
inline double Difference(const Tensor& got, const Tensor& expected) {
  EXPECT_EQ(got.type(), expected.type());
  const std::vector<double> a = got.ToDoubles(), b = expected.ToDoubles();
  double largest = 1e-3, difference = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(b[i]));
    difference = std::max(difference, std::isnan(a[i]) ? 1e9 : std::abs(a[i] - b[i]));
  }
  return difference / largest;
}

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_TESTS_ONNX_MODEL_ARRAYS_H_
