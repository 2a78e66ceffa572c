#include "tests/models/reference.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradweave {
namespace {

constexpr int64_t kLargestWhole = 64;  // digest() keeps all elements of arrays up to this size.
constexpr int kPicks = 8;

double Number(uint64_t seed, int64_t index, double low, double high) {
  uint64_t z = (static_cast<uint64_t>(index) + 1 + (seed << 32)) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z = z ^ (z >> 31);
  return low + (high - low) * (static_cast<double>(z >> 11) * 0x1p-53);
}

double Norm(const std::vector<double>& values) {
  double squares = 0;
  for (double value : values) squares += value * value;
  return std::sqrt(squares);
}

// Implements digest() of reference_numbers.py.
std::vector<double> Digest(const std::vector<double>& values) {
  const int64_t count = static_cast<int64_t>(values.size());
  if (count <= kLargestWhole) return values;
  double product = 0;
  for (int64_t i = 0; i < count; ++i) product += values[i] * Number(999, i, -1, 1);
  std::vector<double> digest = {Norm(values), product};
  for (int64_t k = 0; k < kPicks; ++k) digest.push_back(values[(count - 1) * k / (kPicks - 1)]);
  return digest;
}

struct Entry {
  std::string shape;  // "2x3" or "scalar".
  std::vector<double> digest;
};

const std::map<std::string, Entry>& Entries() {
  static const auto* const entries = [] {
    auto* result = new std::map<std::string, Entry>();
    for (const char* path : {"tests/models/reference.txt", "tests/models/layer_reference.txt"}) {
      std::ifstream file(path);
      for (std::string line; std::getline(file, line);) {
        if (line[0] == '#') continue;
        std::istringstream words(line);
        std::string name;
        Entry entry;
        words >> name >> entry.shape;
        for (double number; words >> number;) entry.digest.push_back(number);
        (*result)[name] = entry;
      }
    }
    return result;
  }();
  return *entries;
}

std::string Difference(const Entry& entry, const Tensor& tensor, double tolerance) {
  const std::string shape = tensor.rank() == 0 ? "scalar" : absl::StrJoin(tensor.sizes(), "x");
  if (shape != entry.shape) return absl::StrCat("has shape ", shape, " and the reference ", entry.shape, "\n");
  const std::vector<double> values = tensor.ToDoubles(), digest = Digest(values);
  if (digest.size() != entry.digest.size())
    return absl::StrCat("has a digest of ", digest.size(), " numbers and the reference of ", entry.digest.size(), "\n");
  const double norm = Norm(values),
               mean_square_root = values.empty() ? 0 : norm / std::sqrt(static_cast<double>(values.size()));
  std::string text;
  for (size_t i = 0; i < digest.size(); ++i) {
    // The terms of the product may cancel, so its error is that of all elements.
    const bool is_product = digest.size() < values.size() && i == 1;
    const double allowed = tolerance * (is_product ? norm : std::max(mean_square_root, std::abs(entry.digest[i])));
    if (std::abs(digest[i] - entry.digest[i]) <= allowed) continue;  // False for NaN.
    absl::StrAppend(&text, "number ", i, " of the digest is ", digest[i], " and the reference ", entry.digest[i],
                    ", off by ", std::abs(digest[i] - entry.digest[i]), "; ", allowed, " is allowed\n");
  }
  return text;
}

}  // namespace

Tensor Numbers(DType dtype, uint64_t seed, const std::vector<int64_t>& sizes, double low, double high) {
  Tensor tensor(kFloat64, sizes);
  for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_data<double>()[i] = Number(seed, i, low, high);
  return dtype == kFloat64 ? tensor : tensor.Cast(dtype);
}

Tensor IntegerNumbers(DType dtype, uint64_t seed, const std::vector<int64_t>& sizes, int64_t limit) {
  Tensor tensor(kInt64, sizes);
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    tensor.mutable_data<int64_t>()[i] =
        static_cast<int64_t>(std::floor(Number(seed, i, 0, static_cast<double>(limit))));
  }
  return dtype == kInt64 ? tensor : tensor.Cast(dtype);
}

std::string DifferenceFromReference(const std::string& prefix, const std::map<std::string, Tensor>& tensors,
                                    double tolerance) {
  std::string text;
  size_t found = 0;
  for (const auto& [name, entry] : Entries()) {
    if (name.compare(0, prefix.size(), prefix) != 0) continue;
    ++found;
    auto tensor = tensors.find(name.substr(prefix.size()));
    const std::string difference =
        tensor == tensors.end() ? "is not compared\n" : Difference(entry, tensor->second, tolerance);
    if (!difference.empty()) absl::StrAppend(&text, name, ": ", difference);
  }
  if (found != tensors.size())
    absl::StrAppend(&text, prefix, ": ", found, " lines in the reference, ", tensors.size(), " tensors to compare\n");
  return text;
}

}  // namespace gradweave
