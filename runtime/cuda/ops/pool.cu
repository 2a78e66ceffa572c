// Pooling, with one thread for each result. A gradient gathers from the windows that contain its
// element, in the order of the windows.
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/formulas.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

// Sizes of a pooling op. `images` counts all channels of all samples.
struct Geometry {
  uint32_t images;
  int32_t height, width, output_height, output_width;
  int32_t window_y = 0, window_x = 0, stride_y = 0, stride_x = 0, top = 0, left = 0;
  bool count_padding = false;

  Geometry(const Shape& x, const Shape& y)
      : images(static_cast<uint32_t>(x[0].size() * x[1].size())),
        height(static_cast<int32_t>(x[2].size())),
        width(static_cast<int32_t>(x[3].size())),
        output_height(static_cast<int32_t>(y[2].size())),
        output_width(static_cast<int32_t>(y[3].size())) {}

  Geometry(const KernelRequest& request, const Shape& x, const Shape& y) : Geometry(x, y) {
    const Integers& window = request.attribute<Integers>("window");
    const Integers& stride = request.attribute<Integers>("stride");
    const Integers& padding = request.attribute<Integers>("padding");
    window_y = static_cast<int32_t>(window[0]);
    window_x = static_cast<int32_t>(window[1]);
    stride_y = static_cast<int32_t>(stride[0]);
    stride_x = static_cast<int32_t>(stride[1]);
    top = static_cast<int32_t>(padding[0]);
    left = static_cast<int32_t>(padding[2]);
  }

  __host__ __device__ uint32_t image_size() const { return static_cast<uint32_t>(height * width); }
  __host__ __device__ uint32_t output_size() const { return static_cast<uint32_t>(output_height * output_width); }
};

struct Range {
  int32_t begin, end;
};
// Returns the part of a window that lies inside the image.
__device__ inline Range InsideOf(int32_t output, int32_t stride, int32_t window, int32_t padding, int32_t size) {
  const int32_t begin = output * stride - padding, end = begin + window;
  return {begin > 0 ? begin : 0, end < size ? end : size};
}
// Returns the windows that contain an element.
__device__ inline Range WindowsOf(int32_t at, int32_t stride, int32_t window, int32_t padding, int32_t outputs) {
  const int32_t last = (at + padding) / stride + 1, first = at + padding - window + stride;
  return {first > 0 ? first / stride : 0, last < outputs ? last : outputs};
}

// Returns the divisor of a window's average.
template <typename T>
__device__ T DivisorOf(const Geometry& g, Range y, Range x) {
  if (g.count_padding) return static_cast<T>(g.window_y * g.window_x);
  const int32_t count = (y.end - y.begin) * (x.end - x.begin);
  return static_cast<T>(count > 1 ? count : 1);
}

// Position of one element: its image, row and column.
struct Place {
  uint32_t image;
  int32_t y, x;
};
// Converts a linear index over all images to a Place.
struct Places {
  Divider columns, rows;
  Places(int32_t height, int32_t width) : columns(std::max(width, 1)), rows(std::max(height, 1)) {}
  __device__ Place At(uint32_t i) const {
    uint32_t x = i;
    uint32_t y = columns.Split(x);
    const uint32_t image = rows.Split(y);
    return {image, static_cast<int32_t>(y), static_cast<int32_t>(x)};
  }
};

template <typename T>
__global__ void __launch_bounds__(kBlock) AveragePool(Geometry g, Places places, const T* x, T* y, uint32_t total) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    const Place place = places.At(i);
    const T* image = x + static_cast<size_t>(place.image) * g.image_size();
    const Range rows = InsideOf(place.y, g.stride_y, g.window_y, g.top, g.height);
    const Range columns = InsideOf(place.x, g.stride_x, g.window_x, g.left, g.width);
    T sum = 0;
    for (int32_t row = rows.begin; row < rows.end; ++row) {
      for (int32_t column = columns.begin; column < columns.end; ++column) sum += image[row * g.width + column];
    }
    y[i] = sum / DivisorOf<T>(g, rows, columns);
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock)
    AveragePoolGrad(Geometry g, Places places, const T* dy, T* dx, uint32_t total) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    const Place place = places.At(i);
    const T* image = dy + static_cast<size_t>(place.image) * g.output_size();
    const Range rows = WindowsOf(place.y, g.stride_y, g.window_y, g.top, g.output_height);
    const Range columns = WindowsOf(place.x, g.stride_x, g.window_x, g.left, g.output_width);
    T sum = 0;
    for (int32_t row = rows.begin; row < rows.end; ++row) {
      const Range y = InsideOf(row, g.stride_y, g.window_y, g.top, g.height);
      for (int32_t column = columns.begin; column < columns.end; ++column) {
        sum += image[row * g.output_width + column] /
               DivisorOf<T>(g, y, InsideOf(column, g.stride_x, g.window_x, g.left, g.width));
      }
    }
    dx[i] = sum;
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock)
    MaxPool(Geometry g, Places places, const T* x, T* y, int32_t* indices, uint32_t total) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    const Place place = places.At(i);
    const T* image = x + static_cast<size_t>(place.image) * g.image_size();
    const Range rows = InsideOf(place.y, g.stride_y, g.window_y, g.top, g.height);
    const Range columns = InsideOf(place.x, g.stride_x, g.window_x, g.left, g.width);
    int32_t best = rows.begin * g.width + columns.begin;
    T leader = image[best];
    for (int32_t row = rows.begin; row < rows.end; ++row) {
      for (int32_t column = columns.begin; column < columns.end; ++column) {
        const int32_t at = row * g.width + column;
        const T value = image[at];
        if (value > leader || (formulas::IsNaN(value) && !formulas::IsNaN(leader))) {
          best = at;
          leader = value;
        }
      }
    }
    y[i] = leader;
    indices[i] = best;
  }
}

// Sets dx to zero and adds each dy at its index. Each warp takes one image and handles 32 values of
// dy at a time. The first of the lanes with equal indices adds all their values, in order.
template <typename T>
__global__ void __launch_bounds__(kBlock)
    Unpool(const T* dy, const int32_t* indices, T* dx, uint32_t images, uint32_t image_size, uint32_t output_size,
           int32_t* error, int32_t code) {
  // The number of threads may exceed 32 bits, so GlobalThread() does not serve here.
  const uint32_t image = blockIdx.x * (kBlock / kWarp) + threadIdx.x / kWarp;
  const uint32_t lane = threadIdx.x % kWarp;
  if (image >= images) return;
  dy += static_cast<size_t>(image) * output_size;
  indices += static_cast<size_t>(image) * output_size;
  dx += static_cast<size_t>(image) * image_size;
  for (uint32_t i = lane; i < image_size; i += kWarp) dx[i] = 0;
  for (uint32_t start = 0; start < output_size; start += kWarp) {
    // Orders this chunk's additions behind the zeros and the previous chunk.
    __syncwarp();
    const bool inside = start + lane < output_size;
    int32_t index = inside ? indices[start + lane] : -1;
    if (inside && (index < 0 || static_cast<uint32_t>(index) >= image_size)) {
      ReportError(error, code);
      index = -1;
    }
    const T value = inside ? dy[start + lane] : T(0);
    const unsigned same = __match_any_sync(kAllLanes, index);
    // Usually all indices differ.
    const bool alone = __popc(same) == 1;
    const bool first = static_cast<uint32_t>(__ffs(same)) == lane + 1 && index >= 0;
    T sum = first ? dx[index] : T(0);
    if (__ballot_sync(kAllLanes, !alone && index >= 0) == 0) {
      sum += value;
    } else {
      for (int source = 0; source < kWarp; ++source) {
        const T other = __shfl_sync(kAllLanes, value, source);
        if ((same >> source & 1) != 0) sum += other;
      }
    }
    if (first) dx[index] = sum;
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock)
    PoolGather(const T* x, const int32_t* indices, T* y, uint32_t total, uint32_t image_size, Divider output_size,
               int32_t* error, int32_t code) {
  for (uint32_t i = GlobalThread(); i < total; i += GlobalThreads()) {
    const int32_t index = indices[i];
    if (index < 0 || static_cast<uint32_t>(index) >= image_size) {
      ReportError(error, code);
      continue;
    }
    y[i] = x[static_cast<size_t>(output_size.Quotient(i)) * image_size + index];
  }
}

}  // namespace

void RegisterPoolKernels(KernelRegistry& registry) {
  AddFloating(registry, "AvgPool2D", [](const KernelRequest& request, auto zero) -> Kernel {
    using T = decltype(zero);
    Geometry g(request, request.operand(0).shape, request.output().shape);
    g.count_padding = request.attribute<bool>("count_padding");
    const Places places(g.output_height, g.output_width);
    const uint32_t total = g.images * g.output_size();
    return {.name = "windows", .run = [=](const KernelArguments& arguments) {
              return Launch(arguments.device<CudaContext>(), "average_pool", AveragePool<T>, {BlocksFor(total)},
                            {kBlock}, 0, g, places, arguments.operand<T>(0), arguments.output<T>(), total);
            }};
  });
  AddFloating(registry, "AvgPool2DGrad", [](const KernelRequest& request, auto zero) -> Kernel {
    using T = decltype(zero);
    Geometry g(request, request.output().shape, request.operand(0).shape);
    g.count_padding = request.attribute<bool>("count_padding");
    const Places places(g.height, g.width);
    const uint32_t total = g.images * g.image_size();
    return {.name = "windows", .run = [=](const KernelArguments& arguments) {
              return Launch(arguments.device<CudaContext>(), "average_pool_grad", AveragePoolGrad<T>,
                            {BlocksFor(total)}, {kBlock}, 0, g, places, arguments.operand<T>(0), arguments.output<T>(),
                            total);
            }};
  });
  AddFloating(registry, "MaxPool2D", [](const KernelRequest& request, auto zero) -> Kernel {
    using T = decltype(zero);
    const Geometry g(request, request.operand(0).shape, request.output().shape);
    const Places places(g.output_height, g.output_width);
    const uint32_t total = g.images * g.output_size();
    return {.name = "windows", .run = [=](const KernelArguments& arguments) {
              return Launch(arguments.device<CudaContext>(), "max_pool", MaxPool<T>, {BlocksFor(total)}, {kBlock}, 0, g,
                            places, arguments.operand<T>(0), arguments.output<T>(), arguments.output<int32_t>(1),
                            total);
            }};
  });
  AddFloating(registry, "MaxUnpool2D", [](const KernelRequest& request, auto zero) -> Kernel {
    using T = decltype(zero);
    const Geometry g(request.output().shape, request.operand(0).shape);
    const int32_t code = ErrorCode(request);
    return {.name = "scatter",
            .run =
                [=](const KernelArguments& arguments) {
                  return Launch(arguments.device<CudaContext>(), "unpool", Unpool<T>,
                                {(g.images + 7) / (kBlock / kWarp)}, {kBlock}, 0, arguments.operand<T>(0),
                                arguments.operand<int32_t>(1), arguments.output<T>(), g.images, g.image_size(),
                                g.output_size(), arguments.device<CudaContext>().error, code);
                },
            .fallible = true};
  });
  AddFloating(registry, "MaxPool2DGather", [](const KernelRequest& request, auto zero) -> Kernel {
    using T = decltype(zero);
    const Geometry g(request.operand(0).shape, request.output().shape);
    const uint32_t total = g.images * g.output_size();
    const int32_t code = ErrorCode(request);
    return {.name = "gather",
            .run =
                [=](const KernelArguments& arguments) {
                  return Launch(arguments.device<CudaContext>(), "pool_gather", PoolGather<T>, {BlocksFor(total)},
                                {kBlock}, 0, arguments.operand<T>(0), arguments.operand<int32_t>(1),
                                arguments.output<T>(), total, g.image_size(),
                                Divider(std::max<uint32_t>(g.output_size(), 1)), arguments.device<CudaContext>().error,
                                code);
                },
            .fallible = true};
  });
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
