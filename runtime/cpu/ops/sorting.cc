#include <algorithm>
#include <numeric>

#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

// True if place a comes before place b: in the order of the elements, NaN as the largest, and then
// of the places.
template <typename T>
struct Before {
  const T* x;
  bool descending;

  bool operator()(int64_t a, int64_t b) const {
    const bool less = Less(x[a], x[b]), greater = Less(x[b], x[a]);
    return less || greater ? less != descending : a < b;
  }
  static bool Less(T a, T b) { return a < b || (formulas::IsNaN(b) && !formulas::IsNaN(a)); }
};

// Writes the first `count` of `size` places. Where they are not all, they are kept in a heap with
// the last one on top.
template <typename T>
void SortRow(Before<T> before, int64_t size, int64_t* y, int64_t count) {
  std::iota(y, y + count, int64_t{0});
  if (count < size && count > 0) {
    std::make_heap(y, y + count, before);
    for (int64_t i = count; i < size; ++i) {
      if (!before(i, y[0])) continue;
      std::pop_heap(y, y + count, before);
      y[count - 1] = i;
      std::push_heap(y, y + count, before);
    }
  }
  std::sort(y, y + count, before);
}

absl::StatusOr<Kernel> MakeArgSort(const KernelRequest& request) {
  const Shape& shape = request.operand(0).shape;
  const int64_t size = shape[shape.rank() - 1].size(), count = request.output().shape[shape.rank() - 1].size();
  const int64_t rows = size == 0 ? 0 : shape.num_elements().size() / size;
  const bool descending = request.attribute<bool>("descending");
  return VisitDType(request.operand(0).dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    return Kernel{.name = "sort", .run = [=](const KernelArguments& arguments) {
                    const T* x = arguments.operand<T>(0);
                    int64_t* y = arguments.output<int64_t>();
                    const int64_t grain = std::max<int64_t>(1, 2048 / std::max<int64_t>(size, 1));
                    ParallelForRange(*arguments.pool, rows, grain, [&](int64_t begin, int64_t end) {
                      for (int64_t row = begin; row < end; ++row)
                        SortRow(Before<T>{x + row * size, descending}, size, y + row * count, count);
                    });
                    return absl::OkStatus();
                  }};
  });
}

}  // namespace

void RegisterSortingKernels(KernelRegistry& registry) { registry.Add("ArgSort", MakeArgSort); }

}  // namespace gradweave
