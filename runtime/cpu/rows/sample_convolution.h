// Convolutions as the beginning of row regions: one sample after the other.
#ifndef GRADWEAVE_RUNTIME_CPU_ROWS_SAMPLE_CONVOLUTION_H_
#define GRADWEAVE_RUNTIME_CPU_ROWS_SAMPLE_CONVOLUTION_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "gradweave/graph/graph.h"
#include "gradweave/runtime/cpu/product/gemm.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// Returns the name of the kernel that runs a Conv2D of known sizes by itself. Here and below,
// `toom_cook` is KernelRequest::toom_cook.
std::string ConvolutionKernel(const Graph& graph, const Node& node, bool toom_cook);

// A Conv2D that passes on each sample [outputs, pixels] of its result while the sample is in the
// second-level cache. It runs the kernel that the node would run alone, for one sample at a time,
// which gives the same bits. The sizes must be known.
class SampleConvolution {
 public:
  // Returns true if the cost model expects this to be faster than a convolution of all samples
  // whose result is then read from memory.
  static bool Pays(const Graph& graph, const Node& node, bool toom_cook);

  // Requires Pays(graph, node, toom_cook).
  SampleConvolution(const Graph& graph, const Node& node, int threads, bool toom_cook);

  int64_t samples() const { return samples_; }
  int64_t outputs() const { return outputs_; }
  // Bytes of a sample of the result.
  int64_t sample_bytes() const { return y_bytes_; }
  const std::string& name() const { return by_sample_.name; }

  // The needs of a run; see Kernel::scratch_bytes_with_kept, kept_bytes and kept_layout. The filter
  // is the only kept operand.
  size_t scratch_bytes() const { return scratch_bytes_; }
  size_t kept_bytes() const { return by_sample_.kept_bytes; }
  const std::string& kept_layout() const { return by_sample_.kept_layout; }

  // The arguments of a run: the region's arguments, pointers to x, the filter and the bias (or
  // null), scratch_bytes() of scratch and kept_bytes() for the packed filter.
  struct Run {
    const KernelArguments& arguments;
    const std::byte* x;
    const void *filter, *bias;
    std::byte *scratch, *kept;
  };
  // Returns true if the first sample must be computed by ComputeFirst, which packs the filter.
  bool PacksFirst(const KernelArguments& arguments) const { return kept_bytes() > 0 && !arguments.kept_is_current; }
  // Computes the first sample on all threads.
  void ComputeFirst(const Run& run, std::byte* y) const;
  // Computes a sample on the calling thread.
  void Compute(const Run& run, int64_t sample, int thread, std::byte* y) const;
  // Must exist while samples are computed.
  OneBlasThread HoldBlas() const { return {outputs_, pixels_, taps_}; }

 private:
  void RunKernel(const Kernel& kernel, const Run& run, int64_t sample, std::byte* scratch, ThreadPool& pool,
                 bool packed, std::byte* y) const;

  int64_t samples_, outputs_, pixels_, taps_;
  int64_t x_bytes_, y_bytes_;  // Bytes of a sample.
  // The kernel of one sample on one thread, and on all threads.
  Kernel by_sample_, on_all_threads_;
  size_t thread_bytes_, scratch_bytes_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ROWS_SAMPLE_CONVOLUTION_H_
