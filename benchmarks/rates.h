// The machine's peak rate of multiply-adds, with which the models' rates are compared.
#ifndef GRADWEAVE_BENCHMARKS_RATES_H_
#define GRADWEAVE_BENCHMARKS_RATES_H_

#include <vector>

#include "gradweave/runtime/kernel/thread_pool.h"

namespace benchmarks {

// With `sgemm`, one step multiplies two 2048 x 2048 float32 matrices with OpenBLAS; the threads
// share the rows. Otherwise one step runs multiply-adds on registers, without memory access.
class RateProbe {
 public:
  RateProbe(bool sgemm, int threads);
  void Step();
  double flops() const;  // Floating-point operations of one step.

 private:
  const bool sgemm_;
  gradweave::ThreadPool pool_;
  std::vector<float> a_, b_, c_;
};

}  // namespace benchmarks

#endif  // GRADWEAVE_BENCHMARKS_RATES_H_
