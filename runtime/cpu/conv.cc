#include <algorithm>
#include <cstring>

#include "gradweave/runtime/cpu/conv_geometry.h"
#include "gradweave/runtime/cpu/gemm.h"
#include "gradweave/runtime/kernel.h"

namespace gradweave {
namespace {

constexpr int64_t kMostChunks = 64;    // Of samples, where they are independent.
constexpr int64_t kMostPartials = 16;  // Of samples, where each chunk has partial sums of its own.

// Calls row(tap row of columns, row of x or -1 outside, begin, end) for each tap and output row: output pixels [begin,
// end) read inside x.
template <typename Row>
void ForTapRows(const ConvGeometry& g, Row row) {
  int64_t tap = 0;
  for (int64_t c = 0; c < g.group_channels(); ++c) {
    for (int64_t k = 0; k < g.kernel_height; ++k) {
      for (int64_t l = 0; l < g.kernel_width; ++l, ++tap) {
        // Column j reads x at j*stride + shift.
        const int64_t shift = l * g.dilation_x - g.left;
        const int64_t begin = std::min(g.output_width, shift >= 0 ? 0 : (-shift + g.stride_x - 1) / g.stride_x);
        const int64_t room = g.width - 1 - shift;
        const int64_t end = std::max(begin, room < 0 ? 0 : std::min(g.output_width, room / g.stride_x + 1));
        for (int64_t i = 0; i < g.output_height; ++i) {
          const int64_t y = i * g.stride_y + k * g.dilation_y - g.top;
          const bool inside = y >= 0 && y < g.height;
          row(tap * g.pixels() + i * g.output_width, inside ? (c * g.height + y) * g.width + shift : -1, inside, begin,
              end);
        }
      }
    }
  }
}

// The matrix of columns [taps, pixels] of one group of a sample (Chellapilla et al., "High performance convolutional
// neural networks for document processing", 2006, section 3).
template <typename T>
void Im2Col(const ConvGeometry& g, const T* x, T* columns) {
  ForTapRows(g, [&](int64_t to, int64_t from, bool inside, int64_t begin, int64_t end) {
    T* row = columns + to;
    if (!inside) {
      std::fill(row, row + g.output_width, T(0));
      return;
    }
    std::fill(row, row + begin, T(0));
    if (g.stride_x == 1) {
      std::memcpy(row + begin, x + from + begin, (end - begin) * sizeof(T));
    } else {
      for (int64_t j = begin; j < end; ++j) row[j] = x[from + j * g.stride_x];
    }
    std::fill(row + end, row + g.output_width, T(0));
  });
}

// Adds columns back to where Im2Col took them from.
template <typename T>
void Col2Im(const ConvGeometry& g, const T* columns, T* x) {
  ForTapRows(g, [&](int64_t from, int64_t to, bool inside, int64_t begin, int64_t end) {
    if (!inside) return;
    const T* row = columns + from;
    if (g.stride_x == 1) {
      T* target = x + to;
      for (int64_t j = begin; j < end; ++j) target[j] += row[j];
    } else {
      for (int64_t j = begin; j < end; ++j) x[to + j * g.stride_x] += row[j];
    }
  });
}

// Each thread has a matrix of columns of its own in scratch.
template <typename T>
size_t ColumnBytes(const KernelRequest& request, const ConvGeometry& g) {
  return request.threads * g.columns_size() * sizeof(T);
}
template <typename T>
T* ColumnsOf(const KernelArguments& arguments, const ConvGeometry& g, int thread) {
  return reinterpret_cast<T*>(arguments.scratch) + thread * g.columns_size();
}

// y = filter * columns, sample by sample and group by group.
template <typename T>
Kernel Conv2DKernel(const KernelRequest& request) {
  const ConvGeometry g(request.node, request.operand(0).shape, request.operand(1).shape, request.output().shape);
  const bool has_bias = request.operands.size() == 3;
  const Chunks chunks(g.samples, 1, kMostChunks);
  return {.name = g.pointwise ? "gemm" : "im2col+gemm",
          .run =
              [=](const KernelArguments& arguments) {
                if (g.output_size() == 0) return absl::OkStatus();
                const T* filter = arguments.operand<T>(1);
                arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
                  T* scratch = ColumnsOf<T>(arguments, g, thread);
                  for (int64_t sample = chunks.begin(chunk); sample < chunks.end(chunk); ++sample) {
                    T* y = arguments.output<T>() + sample * g.output_size();
                    for (int64_t o = 0; has_bias && o < g.outputs; ++o) {
                      std::fill(y + o * g.pixels(), y + (o + 1) * g.pixels(), arguments.operand<T>(2)[o]);
                    }
                    for (int64_t group = 0; group < g.groups; ++group) {
                      const T* x = arguments.operand<T>(0) + sample * g.sample_size() +
                                   group * g.group_channels() * g.height * g.width;
                      if (!g.pointwise) Im2Col(g, x, scratch);
                      Gemm(false, false, g.group_outputs(), g.pixels(), g.taps(), T(1),
                           filter + group * g.group_outputs() * g.taps(), g.taps(), g.pointwise ? x : scratch,
                           g.pixels(), T(has_bias), y + group * g.group_outputs() * g.pixels(), g.pixels());
                    }
                  }
                });
                return absl::OkStatus();
              },
          .scratch_bytes = ColumnBytes<T>(request, g)};
}

// columns = filter^T * dy, added to dx.
template <typename T>
Kernel InputGradKernel(const KernelRequest& request) {
  const ConvGeometry g(request.node, request.output().shape, request.operand(1).shape, request.operand(0).shape);
  const Chunks chunks(g.samples, 1, kMostChunks);
  return {.name = g.pointwise ? "gemm" : "gemm+col2im",
          .run =
              [=](const KernelArguments& arguments) {
                const T* filter = arguments.operand<T>(1);
                arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
                  T* scratch = ColumnsOf<T>(arguments, g, thread);
                  for (int64_t sample = chunks.begin(chunk); sample < chunks.end(chunk); ++sample) {
                    T* dx = arguments.output<T>() + sample * g.sample_size();
                    std::fill(dx, dx + g.sample_size(), T(0));
                    for (int64_t group = 0; group < g.groups && g.output_size() > 0; ++group) {
                      const T* dy =
                          arguments.operand<T>(0) + sample * g.output_size() + group * g.group_outputs() * g.pixels();
                      T* target = dx + group * g.group_channels() * g.height * g.width;
                      Gemm(true, false, g.taps(), g.pixels(), g.group_outputs(), T(1),
                           filter + group * g.group_outputs() * g.taps(), g.taps(), dy, g.pixels(), T(0),
                           g.pointwise ? target : scratch, g.pixels());
                      if (!g.pointwise) Col2Im(g, scratch, target);
                    }
                  }
                });
                return absl::OkStatus();
              },
          .scratch_bytes = ColumnBytes<T>(request, g)};
}

// The sum over samples of dy * columns^T: each chunk of samples has a sum of its own, and these are added in order.
template <typename T>
Kernel FilterGradKernel(const KernelRequest& request) {
  const ConvGeometry g(request.node, request.operand(0).shape, request.output().shape, request.operand(1).shape);
  const Chunks chunks(g.samples, 1, kMostPartials);
  const size_t column_bytes = (ColumnBytes<T>(request, g) + 63) / 64 * 64;
  return {.name = g.pointwise ? "gemm" : "im2col+gemm",
          .run =
              [=](const KernelArguments& arguments) {
                T* partials = reinterpret_cast<T*>(arguments.scratch + column_bytes);
                T* df = arguments.output<T>();
                arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
                  T* scratch = ColumnsOf<T>(arguments, g, thread);
                  T* sum = partials + chunk * g.filter_size();
                  std::fill(sum, sum + g.filter_size(), T(0));
                  for (int64_t sample = chunks.begin(chunk); sample < chunks.end(chunk) && g.output_size() > 0;
                       ++sample) {
                    for (int64_t group = 0; group < g.groups; ++group) {
                      const T* x = arguments.operand<T>(0) + sample * g.sample_size() +
                                   group * g.group_channels() * g.height * g.width;
                      const T* dy =
                          arguments.operand<T>(1) + sample * g.output_size() + group * g.group_outputs() * g.pixels();
                      if (!g.pointwise) Im2Col(g, x, scratch);
                      Gemm(false, true, g.group_outputs(), g.taps(), g.pixels(), T(1), dy, g.pixels(),
                           g.pointwise ? x : scratch, g.pixels(), T(1), sum + group * g.group_outputs() * g.taps(),
                           g.taps());
                    }
                  }
                });
                std::fill(df, df + g.filter_size(), T(0));
                for (int64_t chunk = 0; chunk < chunks.number; ++chunk) {
                  const T* sum = partials + chunk * g.filter_size();
                  for (int64_t i = 0; i < g.filter_size(); ++i) df[i] += sum[i];
                }
                return absl::OkStatus();
              },
          .scratch_bytes = column_bytes + chunks.number * g.filter_size() * sizeof(T)};
}

}  // namespace

void RegisterConvKernels(KernelRegistry& registry) {
  registry.Add("Conv2D", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? Conv2DKernel<float>(request) : Conv2DKernel<double>(request);
  });
  registry.Add("Conv2DInputGrad", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? InputGradKernel<float>(request) : InputGradKernel<double>(request);
  });
  registry.Add("Conv2DFilterGrad", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? FilterGradKernel<float>(request) : FilterGradKernel<double>(request);
  });
}

}  // namespace gradweave
