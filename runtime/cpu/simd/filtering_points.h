// The points of minimal filtering (Toom-Cook, Winograd).
#ifndef GRADWEAVE_RUNTIME_CPU_SIMD_FILTERING_POINTS_H_
#define GRADWEAVE_RUNTIME_CPU_SIMD_FILTERING_POINTS_H_

namespace gradweave {

// Returns the positive number of a pair of opposite points. Points are 0, infinity and `pairs`
// pairs. They are chosen by measured error: symmetric points halve the work, and points near 1 keep
// the powers and differences of the others small (Barabasz et al., "Error Analysis and Improving
// the Accuracy of Winograd Convolution for Deep Neural Networks", 2020, section 5).
constexpr double FilteringPoint(int pairs, int pair) {
  if (pairs == 1) return 1;
  if (pairs == 2) return pair == 0 ? 0.75 : 1.5;
  return pair == 0 ? 1 : pair == 1 ? 0.5 : 2;
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_FILTERING_POINTS_H_
