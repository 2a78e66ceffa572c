#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/kernel/axis.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/strided_copy.h"

namespace gradweave {
namespace {

constexpr int64_t kGrainBytes = 65536;

// The elements of an operand of indices. Kernels that read indices through it are compiled once, not
// once for each dtype of indices.
class Indices {
 public:
  Indices(const KernelArguments& arguments, int operand, DType dtype)
      : data_(arguments.operand<std::byte>(operand)), dtype_(dtype) {}

  int64_t operator[](int64_t i) const {
    if (dtype_ == kInt32) return reinterpret_cast<const int32_t*>(data_)[i];
    if (dtype_ == kInt64) return reinterpret_cast<const int64_t*>(data_)[i];
    return reinterpret_cast<const uint8_t*>(data_)[i];
  }

 private:
  const std::byte* data_;
  DType dtype_;
};

bool IsInside(int64_t index, int64_t size) { return index >= 0 && index < size; }

// Checks all indices before anything is written.
absl::Status CheckIndices(absl::string_view op, Indices indices, int64_t count, int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    if (IsInside(indices[i], size)) continue;
    return absl::OutOfRangeError(
        absl::StrCat(op, ": index ", indices[i], " at position ", i, " is outside [0, ", size, ")"));
  }
  return absl::OkStatus();
}

// Makes the kernel of Gather, or of TakeRows if kChecked is false.
template <bool kChecked>
absl::StatusOr<Kernel> MakeGather(const KernelRequest& request) {
  const AxisSizes axis(request.operand(0).shape, kChecked ? request.attribute<int64_t>("axis") : 0);
  const int64_t count = request.operand(1).shape.num_elements().size();
  const int64_t row = axis.inner * static_cast<int64_t>(DTypeSize(request.output().dtype));
  const DType index_dtype = request.operand(1).dtype;
  return Kernel{.name = "memcpy",
                .run =
                    [=](const KernelArguments& arguments) {
                      const Indices indices(arguments, 1, index_dtype);
                      if constexpr (kChecked) {
                        if (absl::Status status = CheckIndices("Gather", indices, count, axis.size); !status.ok())
                          return status;
                      }
                      const char* x = arguments.operand<char>(0);
                      char* y = arguments.output<char>();
                      const int64_t grain = std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(row, 1));
                      ParallelForRange(*arguments.pool, axis.outer * count, grain, [&](int64_t begin, int64_t end) {
                        for (int64_t i = begin; i < end && row > 0; ++i) {
                          const int64_t index = indices[i % count];
                          if (kChecked || IsInside(index, axis.size)) {
                            std::memcpy(y + i * row, x + (i / count * axis.size + index) * row, row);
                          } else {
                            std::memset(y + i * row, 0, row);
                          }
                        }
                      });
                      return absl::OkStatus();
                    },
                .fallible = kChecked};
}

// Makes the kernel of a dtype with numbers: make(T()).
template <typename Make>
absl::StatusOr<Kernel> VisitNumbers(DType dtype, Make make) {
  return VisitDType(dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    if constexpr (std::is_same_v<decltype(zero), bool>) {
      return absl::UnimplementedError("no kernel for this dtype");
    } else {
      return make(zero);
    }
  });
}

// Calls body(part, first, last) for each of `outer` parts, and for strips [first, last) of `strip`
// of the `inner` elements that an index names.
template <typename T, typename Body>
void ForStrips(ThreadPool& pool, int64_t outer, int64_t inner, int64_t count, int64_t strip, Body body) {
  const int64_t strips = (inner + strip - 1) / strip;
  const int64_t grain =
      std::max<int64_t>(1, kGrainBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(count * strip, 1));
  ParallelForRange(pool, outer * strips, grain, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part % strips * strip;
      body(part / strips, first, std::min(first + strip, inner));
    }
  });
}

// Takes the update in place of the element.
struct Last {
  template <typename T>
  T operator()(T, T update) const {
    return update;
  }
};

// Combines each element with the updates at its index, in their order. Runs in parallel over slices
// before the axis, or else over elements after it. Unless it is checked, updates with a bad index
// are left out.
template <typename Combine, bool kChecked = true>
absl::StatusOr<Kernel> MakeScatter(const KernelRequest& request) {
  const AxisSizes axis(request.operand(0).shape, kChecked ? request.attribute<int64_t>("axis") : 0);
  const int64_t count = request.operand(1).shape.num_elements().size();
  const int64_t total = request.output().shape.num_elements().size();
  const char* op = request.node.op->name.c_str();
  const DType index_dtype = request.operand(1).dtype;
  const auto make = [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    return Kernel{.name = kChecked ? "scatter" : "put_rows",
                  .run =
                      [=](const KernelArguments& arguments) {
                        const Indices indices(arguments, 1, index_dtype);
                        if constexpr (kChecked) {
                          if (absl::Status status = CheckIndices(op, indices, count, axis.size); !status.ok())
                            return status;
                        }
                        const T* updates = arguments.operand<T>(2);
                        T* y = arguments.output<T>();
                        if (arguments.operands[0] != arguments.outputs[0])
                          std::memcpy(y, arguments.operands[0], total * sizeof(T));
                        ForStrips<T>(*arguments.pool, axis.outer, axis.inner, count, 64,
                                     [&](int64_t outer, int64_t first, int64_t last) {
                                       for (int64_t i = 0; i < count; ++i) {
                                         if (!kChecked && !IsInside(indices[i], axis.size)) continue;
                                         const T* from = updates + (outer * count + i) * axis.inner;
                                         T* to = y + (outer * axis.size + indices[i]) * axis.inner;
                                         for (int64_t j = first; j < last; ++j) to[j] = Combine()(to[j], from[j]);
                                       }
                                     });
                        return absl::OkStatus();
                      },
                  .fallible = kChecked,
                  .overwrites = {{0, 0}}};
  };
  if constexpr (std::is_same_v<Combine, Last>) {
    return VisitElementSize(request.output().dtype, make);
  } else {
    return VisitNumbers(request.output().dtype, make);
  }
}

absl::StatusOr<Kernel> MakeScatterByReduction(const KernelRequest& request) {
  const std::string& reduction = request.attribute<std::string>("reduction");
  if (reduction == "mul") return MakeScatter<formulas::Mul>(request);
  if (reduction == "max") return MakeScatter<formulas::Maximum>(request);
  if (reduction == "min") return MakeScatter<formulas::Minimum>(request);
  return MakeScatter<Last>(request);
}

// Sets first[i] to the first position with the index indices[i]. The hash table has 2^bits slots,
// at least twice as many as there are indices; it is searched linearly from a multiplicative hash
// (Knuth, "The art of computer programming", volume 3, section 6.4).
void FindFirst(Indices indices, int64_t count, int64_t* table, int bits, int64_t* first) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  std::fill_n(table, mask + 1, int64_t{-1});
  for (int64_t i = 0; i < count; ++i) {
    uint64_t slot = static_cast<uint64_t>(indices[i]) * uint64_t{0x9E3779B97F4A7C15} >> (64 - bits);
    while (table[slot] >= 0 && indices[table[slot]] != indices[i]) slot = (slot + 1) & mask;
    if (table[slot] < 0) table[slot] = i;
    first[i] = table[slot];
  }
}

absl::StatusOr<Kernel> MakeSumRows(const KernelRequest& request) {
  const int64_t count = request.operand(0).shape.num_elements().size();
  const int64_t inner = count == 0 ? 0 : request.output().shape.num_elements().size() / count;
  int bits = 1;
  while ((int64_t{1} << bits) < 2 * count) ++bits;
  const DType index_dtype = request.operand(0).dtype;
  return VisitNumbers(request.output().dtype, [&](auto zero) {
    using T = decltype(zero);
    return Kernel{.name = "sum_rows",
                  .run =
                      [=](const KernelArguments& arguments) {
                        int64_t* first = reinterpret_cast<int64_t*>(arguments.scratch);
                        FindFirst(Indices(arguments, 0, index_dtype), count, first + count, bits, first);
                        const T* rows = arguments.operand<T>(1);
                        T* y = arguments.output<T>();
                        // The output may lie in the rows' memory: a row is overwritten after it has
                        // been added.
                        ForStrips<T>(*arguments.pool, 1, inner, count, 16, [&](int64_t, int64_t begin, int64_t end) {
                          for (int64_t i = 0; i < count; ++i) {
                            const bool adds = first[i] != i;
                            T* to = y + first[i] * inner;
                            for (int64_t j = begin; j < end; ++j)
                              to[j] = formulas::Add()(adds ? to[j] : T(0), rows[i * inner + j]);
                          }
                          for (int64_t i = 0; i < count; ++i) {
                            if (first[i] != i)
                              std::copy(y + first[i] * inner + begin, y + first[i] * inner + end,
                                        y + i * inner + begin);
                          }
                        });
                        return absl::OkStatus();
                      },
                  .scratch_bytes = static_cast<size_t>(count + (int64_t{1} << bits)) * sizeof(int64_t),
                  .overwrites = {{1, 0}}};
  });
}

absl::StatusOr<Kernel> MakeOneHot(const KernelRequest& request) {
  const int64_t count = request.operand(0).shape.num_elements().size();
  const int64_t depth = request.attribute<int64_t>("depth");
  const DType index_dtype = request.operand(0).dtype;
  return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    return Kernel{.name = "one_hot",
                  .run =
                      [=](const KernelArguments& arguments) {
                        const Indices indices(arguments, 0, index_dtype);
                        if (absl::Status status = CheckIndices("OneHot", indices, count, depth); !status.ok())
                          return status;
                        T* y = arguments.output<T>();
                        std::fill(y, y + count * depth, T(0));
                        for (int64_t i = 0; i < count; ++i) y[i * depth + indices[i]] = T(1);
                        return absl::OkStatus();
                      },
                  .fallible = true};
  });
}

}  // namespace

void RegisterIndexingKernels(KernelRegistry& registry) {
  registry.Add("Gather", MakeGather<true>);
  registry.Add("ScatterAdd", MakeScatter<formulas::Add>);
  registry.Add("Scatter", MakeScatterByReduction);
  registry.Add("TakeRows", MakeGather<false>);
  registry.Add("PutRows", MakeScatter<Last, false>);
  registry.Add("SumRows", MakeSumRows);
  registry.Add("OneHot", MakeOneHot);
}

}  // namespace gradweave
