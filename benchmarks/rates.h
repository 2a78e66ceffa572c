// How fast the machine multiplies and adds: what models are measured against.
#ifndef GRADWEAVE_BENCHMARKS_RATES_H_
#define GRADWEAVE_BENCHMARKS_RATES_H_

#include <vector>

#include "gradweave/runtime/kernel/thread_pool.h"

namespace benchmarks {

// One step is a product of two 2048 x 2048 matrices of float32 by OpenBLAS, its rows divided among the threads; or, with
// no memory in the way, multiply-adds on registers alone.
class RateProbe {
 public:
  RateProbe(bool sgemm, int threads);
  void Step();
  double flops() const;

 private:
  const bool sgemm_;
  gradweave::ThreadPool pool_;
  std::vector<float> a_, b_, c_;
};

}  // namespace benchmarks

#endif  // GRADWEAVE_BENCHMARKS_RATES_H_
