// Sorting by counting: the place of an element is the number of elements that come before it.
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/formulas.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

template <typename T>
__device__ bool IsLess(T a, T b) {
  return a < b || (formulas::IsNaN(b) && !formulas::IsNaN(a));
}

// Each thread compares one element of x [rows, size] with all others of its row, and writes its index if it is among
// the first `count` of them. Equal elements keep their order; NaN counts as the largest.
template <typename T>
__global__ void __launch_bounds__(kBlock)
    RankElements(const T* x, int64_t* y, uint32_t total, Divider size, uint32_t count, bool descending) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    uint32_t place = i;
    const uint32_t row = size.Split(place);
    const T* elements = x + static_cast<size_t>(row) * size.divisor;
    const T mine = elements[place];
    uint32_t rank = 0;
    for (uint32_t other = 0; other < size.divisor; ++other) {
      const T element = elements[other];
      const bool less = IsLess(element, mine), greater = IsLess(mine, element);
      rank += (less || greater ? less != descending : other < place) ? 1 : 0;
    }
    if (rank < count) y[static_cast<size_t>(row) * count + rank] = place;
  }
}

absl::StatusOr<Kernel> MakeArgSort(const KernelRequest& request) {
  const Shape& shape = request.operand(0).shape;
  const int64_t size = shape[shape.rank() - 1].size();
  const uint32_t count = static_cast<uint32_t>(request.output().shape[shape.rank() - 1].size());
  const uint32_t total = static_cast<uint32_t>(NumElements(request.operand(0)));
  const bool descending = request.attribute<bool>("descending");
  return VisitDType(request.operand(0).dtype, [&](auto zero) -> absl::StatusOr<Kernel> {
    using T = decltype(zero);
    return Kernel{.name = "rank_elements", .run = [=](const KernelArguments& arguments) {
                    return Launch(arguments.device<CudaContext>(), "rank_elements", RankElements<T>, {BlocksFor(total)},
                                  {kBlock}, 0, arguments.operand<T>(0), arguments.output<int64_t>(), total,
                                  Divider(std::max<int64_t>(size, 1)), count, descending);
                  }};
  });
}

}  // namespace

void RegisterSortingKernels(KernelRegistry& registry) { Add(registry, "ArgSort", MakeArgSort); }

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
