#include <cstring>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/kernel/axis.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

constexpr int64_t kGrainBytes = 65536;

// Checks all indices before anything is written.
template <typename Index>
absl::Status CheckIndices(absl::string_view op, const Index* indices, int64_t count, int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    if (indices[i] >= 0 && static_cast<int64_t>(indices[i]) < size) continue;
    return absl::OutOfRangeError(
        absl::StrCat(op, ": index ", +indices[i], " at position ", i, " is outside [0, ", size, ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Kernel> MakeGather(const KernelRequest& request) {
  const AxisSizes axis(request.operand(0).shape, request.attribute<int64_t>("axis"));
  const int64_t count = request.operand(1).shape.num_elements().size();
  const int64_t row = axis.inner * static_cast<int64_t>(DTypeSize(request.output().dtype));
  return VisitIndices(request.operand(1).dtype, [&](auto zero) -> Kernel {
    using Index = decltype(zero);
    return {.name = "memcpy",
            .run =
                [=](const KernelArguments& arguments) {
                  const Index* indices = arguments.operand<Index>(1);
                  if (absl::Status status = CheckIndices("Gather", indices, count, axis.size); !status.ok())
                    return status;
                  const char* x = arguments.operand<char>(0);
                  char* y = arguments.output<char>();
                  const int64_t grain = std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(row, 1));
                  ParallelForRange(*arguments.pool, axis.outer * count, grain, [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end && row > 0; ++i) {
                      std::memcpy(y + i * row, x + (i / count * axis.size + indices[i % count]) * row, row);
                    }
                  });
                  return absl::OkStatus();
                },
            .fallible = true};
  });
}

// Runs in parallel over slices before the axis, or else over elements after it. Updates with equal
// indices are added in order.
absl::StatusOr<Kernel> MakeScatterAdd(const KernelRequest& request) {
  const AxisSizes axis(request.operand(0).shape, request.attribute<int64_t>("axis"));
  const int64_t count = request.operand(1).shape.num_elements().size();
  const int64_t total = request.output().shape.num_elements().size();
  return VisitIndices(request.operand(1).dtype, [&](auto index_zero) -> absl::StatusOr<Kernel> {
    using Index = decltype(index_zero);
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      if constexpr (std::is_same_v<T, bool>) {
        return absl::UnimplementedError("no kernel for this dtype");
      } else {
        return Kernel{
            .name = "scatter",
            .run =
                [=](const KernelArguments& arguments) {
                  const Index* indices = arguments.operand<Index>(1);
                  if (absl::Status status = CheckIndices("ScatterAdd", indices, count, axis.size); !status.ok())
                    return status;
                  const T* updates = arguments.operand<T>(2);
                  T* y = arguments.output<T>();
                  if (arguments.operands[0] != arguments.outputs[0])
                    std::memcpy(y, arguments.operands[0], total * sizeof(T));
                  constexpr int64_t kStrip = 64;
                  const int64_t strips = (axis.inner + kStrip - 1) / kStrip;
                  const int64_t grain = std::max<int64_t>(
                      1, kGrainBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(count * kStrip, 1));
                  ParallelForRange(*arguments.pool, axis.outer * strips, grain, [&](int64_t begin, int64_t end) {
                    for (int64_t part = begin; part < end; ++part) {
                      const int64_t outer = part / strips, first = part % strips * kStrip,
                                    last = std::min(first + kStrip, axis.inner);
                      for (int64_t i = 0; i < count; ++i) {
                        const T* from = updates + (outer * count + i) * axis.inner;
                        T* to = y + (outer * axis.size + indices[i]) * axis.inner;
                        for (int64_t j = first; j < last; ++j) to[j] = formulas::Add()(to[j], from[j]);
                      }
                    }
                  });
                  return absl::OkStatus();
                },
            .fallible = true,
            .overwrites = {{0, 0}}};
      }
    });
  });
}

absl::StatusOr<Kernel> MakeOneHot(const KernelRequest& request) {
  const int64_t count = request.operand(0).shape.num_elements().size();
  const int64_t depth = request.attribute<int64_t>("depth");
  return VisitIndices(request.operand(0).dtype, [&](auto index_zero) -> absl::StatusOr<Kernel> {
    using Index = decltype(index_zero);
    return VisitDType(request.output().dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
      using T = decltype(zero);
      return Kernel{.name = "one_hot",
                    .run =
                        [=](const KernelArguments& arguments) {
                          const Index* indices = arguments.operand<Index>(0);
                          if (absl::Status status = CheckIndices("OneHot", indices, count, depth); !status.ok())
                            return status;
                          T* y = arguments.output<T>();
                          std::fill(y, y + count * depth, T(0));
                          for (int64_t i = 0; i < count; ++i) y[i * depth + indices[i]] = T(1);
                          return absl::OkStatus();
                        },
                    .fallible = true};
    });
  });
}

}  // namespace

void RegisterIndexingKernels(KernelRegistry& registry) {
  registry.Add("Gather", MakeGather);
  registry.Add("ScatterAdd", MakeScatterAdd);
  registry.Add("OneHot", MakeOneHot);
}

}  // namespace gradweave
