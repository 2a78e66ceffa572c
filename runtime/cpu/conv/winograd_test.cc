// Minimal filtering beside plain sums in float64: sizes around tiles, strips and vectors, every
// padding, the stated error, and special numbers. GRADWEAVE_TEST_WITHOUT turns instruction sets
// off, so that each length of vectors is tested on one machine.
#include "gradweave/runtime/cpu/conv/winograd.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/winograd_filter_grad.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"
#include "gtest/gtest.h"
#include "hwy/targets.h"

namespace gradweave {
namespace {

#ifdef GRADWEAVE_TEST_WITHOUT
const bool disabled = [] {
  hwy::DisableTargets(GRADWEAVE_TEST_WITHOUT);
  return true;
}();
#endif

constexpr double kStatedError = 5e-6;

// `top` and `left` are the padding before x, `bottom` and `right` that behind it.
struct Case {
  int64_t samples, channels, height, width, outputs, top, bottom, left, right;
};
constexpr Case kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1},     {1, 1, 3, 3, 1, 0, 0, 0, 0},     {2, 3, 4, 4, 5, 1, 1, 1, 1},
    {1, 16, 5, 9, 16, 0, 0, 1, 1},   {3, 17, 7, 7, 33, 1, 1, 1, 1},   {2, 8, 6, 10, 48, 2, 2, 2, 2},
    {1, 5, 9, 8, 31, 2, 0, 1, 2},    {1, 4, 13, 70, 7, 1, 1, 1, 1},   {1, 2, 3, 130, 3, 0, 1, 2, 0},
    {2, 32, 14, 14, 40, 1, 1, 1, 1}, {1, 64, 14, 28, 17, 1, 1, 1, 1}, {1, 130, 7, 7, 66, 1, 1, 1, 1},
    {1, 3, 40, 2, 2, 1, 1, 1, 1},    {70, 1, 3, 3, 1, 1, 1, 1, 1},    {1, 1024, 4, 4, 20, 1, 1, 1, 1},
    {1, 20, 34, 66, 7, 1, 1, 0, 0},  {2, 32, 30, 30, 5, 1, 1, 1, 1},
};

// The convolution of a case; `flipped` says whether filters are stored like those of an input
// gradient.
Convolution3x3 Sizes(const Case& c, bool flipped) {
  return {.samples = c.samples,
          .channels = c.channels,
          .height = c.height,
          .width = c.width,
          .outputs = c.outputs,
          .output_height = c.height + c.top + c.bottom - 2,
          .output_width = c.width + c.left + c.right - 2,
          .top = c.top,
          .left = c.left,
          .output_step = flipped ? 9 : c.channels * 9,
          .input_step = flipped ? c.outputs * 9 : 9,
          .flipped = flipped};
}

// Returns normally distributed numbers: a few are much larger than most.
std::vector<float> RandomNumbers(int64_t count, bool positive, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = positive ? std::abs(normal(generator)) : normal(generator);
  return numbers;
}

struct Data {
  std::vector<float> x, filter, bias;
};
Data RandomData(const Convolution3x3& c, bool positive, std::mt19937& generator) {
  return {RandomNumbers(c.samples * c.channels * c.height * c.width, positive, generator),
          RandomNumbers(c.outputs * c.channels * 9, positive, generator),
          RandomNumbers(c.outputs, positive, generator)};
}

// Returns memory in which nothing may depend on what is there.
std::shared_ptr<float> Floats(int64_t count) {
  auto memory = std::static_pointer_cast<float>(AllocateAligned(count * sizeof(float)));
  std::fill_n(memory.get(), count, std::numeric_limits<float>::quiet_NaN());
  return memory;
}

// Runs all tasks of a division for that many threads. `times` counts how often an element is passed
// on as complete.
std::vector<float> Compute(const Winograd& winograd, const Convolution3x3& c, const Data& data, int threads,
                           std::vector<int>* times = nullptr) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Winograd::Tasks tasks = winograd.Divide(threads);
  const std::shared_ptr<float> packed = Floats(winograd.packed_floats());
  for (int64_t task = winograd.pack_tasks(); task-- > 0;) winograd.Pack(data.filter.data(), task, packed.get());
  const std::shared_ptr<float> scratch = Floats(winograd.scratch_floats(tasks));
  const int64_t pixels = c.output_height * c.output_width;
  std::vector<float> y(c.samples * c.outputs * pixels, nan);
  for (int64_t task = tasks.number(); task-- > 0;) {
    winograd.Run(data.x.data(), packed.get(), data.bias.empty() ? nullptr : data.bias.data(), y.data(), tasks, task,
                 scratch.get(), [&](const Winograd::Block& block) {
                   if (times == nullptr) return;
                   for (int64_t o = block.channel; o < block.channel + block.channels; ++o) {
                     for (int64_t i = 0; i < block.rows; ++i) {
                       for (int64_t j = 0; j < block.columns; ++j) {
                         const int64_t at =
                             ((block.sample * c.outputs + o) * c.output_height + block.row + i) * c.output_width +
                             block.column + j;
                         EXPECT_EQ(&y[at], block.y + (o - block.channel) * pixels + i * c.output_width + j);
                         ++(*times)[at];
                       }
                     }
                   }
                 });
  }
  return y;
}

// An element of y: the sum in float64, and the sum of absolute terms.
struct Sum {
  double value, size;
};
std::vector<Sum> PlainSums(const Convolution3x3& c, const Data& data) {
  std::vector<Sum> sums;
  for (int64_t s = 0; s < c.samples; ++s) {
    for (int64_t o = 0; o < c.outputs; ++o) {
      for (int64_t row = 0; row < c.output_height; ++row) {
        for (int64_t column = 0; column < c.output_width; ++column) {
          Sum sum = {data.bias.empty() ? 0.0 : data.bias[o], data.bias.empty() ? 0.0 : std::abs(data.bias[o])};
          for (int64_t k = 0; k < 3; ++k) {
            for (int64_t l = 0; l < 3; ++l) {
              const int64_t y = row + k - c.top, x = column + l - c.left;
              if (y < 0 || y >= c.height || x < 0 || x >= c.width) continue;
              const float* w = &data.filter[o * c.output_step + (c.flipped ? 8 - 3 * k - l : 3 * k + l)];
              const float* from = &data.x[(s * c.channels * c.height + y) * c.width + x];
              for (int64_t i = 0; i < c.channels; ++i) {
                const double term = static_cast<double>(w[i * c.input_step]) * from[i * c.height * c.width];
                sum.value += term;
                sum.size += std::abs(term);
              }
            }
          }
          sums.push_back(sum);
        }
      }
    }
  }
  return sums;
}

// Calls body(index of an element, index of its tile).
template <typename Body>
void ForTiles(const Convolution3x3& c, int pairs, Body body) {
  const int64_t size = 2 * pairs, rows = DivideUp(c.output_height, size), columns = DivideUp(c.output_width, size);
  for (int64_t image = 0, at = 0; image < c.samples * c.outputs; ++image) {
    for (int64_t i = 0; i < c.output_height; ++i) {
      for (int64_t j = 0; j < c.output_width; ++j, ++at) body(at, (image * rows + i / size) * columns + j / size);
    }
  }
}

// Returns the largest error as a share of the largest sum of absolute terms in the tile.
double LargestError(const Convolution3x3& c, int pairs, const Data& data, const std::vector<float>& y) {
  const std::vector<Sum> sums = PlainSums(c, data);
  std::vector<double> sizes(sums.size(), 0.0);  // Indexed by tile; there are no more tiles than elements.
  ForTiles(c, pairs, [&](int64_t at, int64_t tile) { sizes[tile] = std::max(sizes[tile], sums[at].size); });
  double error = 0;
  ForTiles(c, pairs, [&](int64_t at, int64_t tile) {
    const double share = std::abs(y[at] - sums[at].value) / sizes[tile];
    error = std::isnan(share) ? std::numeric_limits<double>::infinity() : std::max(error, share);
  });
  return error;
}

class WinogradTest : public testing::TestWithParam<int> {};

TEST_P(WinogradTest, IsTheConvolutionWithinTheStatedError) {
  std::mt19937 generator(1);
  double most = 0;
  for (const Case& each : kCases) {
    for (const bool flipped : {false, true}) {
      const Convolution3x3 c = Sizes(each, flipped);
      ASSERT_TRUE(Winograd::Fits(c));
      for (const bool positive : {false, true}) {
        Data data = RandomData(c, positive, generator);
        if (flipped) data.bias.clear();
        const double error = LargestError(c, GetParam(), data, Compute(Winograd(c, GetParam()), c, data, 1));
        EXPECT_LE(error, kStatedError) << each.channels << " channels of " << each.height << " x " << each.width
                                       << " to " << each.outputs << (flipped ? ", flipped" : "");
        most = std::max(most, error);
      }
    }
  }
  RecordProperty("largest_error", absl::StrCat(most));
}

// Few terms leave the least room, so the largest errors of random numbers are there.
TEST_P(WinogradTest, MeetsTheStatedErrorForManyRandomShapes) {
  std::mt19937 generator(2);
  auto upto = [&](int64_t most) { return 1 + static_cast<int64_t>(generator() % most); };
  double most = 0;
  for (int i = 0; i < 300; ++i) {
    const Case each = {upto(2),
                       upto(i % 3 == 0 ? 80 : 3),
                       upto(12) + 2,
                       upto(12) + 2,
                       upto(i % 3 == 1 ? 40 : 3),
                       static_cast<int64_t>(generator() % 3),
                       static_cast<int64_t>(generator() % 3),
                       static_cast<int64_t>(generator() % 3),
                       static_cast<int64_t>(generator() % 3)};
    const Convolution3x3 c = Sizes(each, i % 2 == 1);
    const Data data = RandomData(c, i % 5 == 0, generator);
    most = std::max(most, LargestError(c, GetParam(), data, Compute(Winograd(c, GetParam()), c, data, 1)));
  }
  EXPECT_LE(most, kStatedError);
  RecordProperty("largest_error", absl::StrCat(most));
}

// Numbers of very different sizes in one tile: the error is small beside the largest of them.
TEST_P(WinogradTest, MeetsTheStatedErrorOfTheLargestNumbers) {
  std::mt19937 generator(6);
  std::cauchy_distribution<float> heavy;
  double most = 0;
  for (int i = 0; i < 300; ++i) {
    const Convolution3x3 c = Sizes({1, 1 + i % 40, 2 * GetParam(), 2 * GetParam(), 3, 1, 1, 1, 1}, false);  // One tile.
    Data data = RandomData(c, false, generator);
    for (float& value : data.x) value = heavy(generator);
    for (float& value : data.filter) value = heavy(generator);
    const std::vector<float> y = Compute(Winograd(c, GetParam()), c, data, 1);
    const std::vector<Sum> sums = PlainSums(c, data);
    auto largest = [](const float* values, int64_t count) {
      double result = 0;
      for (int64_t k = 0; k < count; ++k) result = std::max(result, std::abs(static_cast<double>(values[k])));
      return result;
    };
    const int64_t pixels = c.output_height * c.output_width;
    for (int64_t o = 0; o < c.outputs; ++o) {
      double size = std::abs(data.bias[o]);
      for (int64_t k = 0; k < c.channels; ++k)
        size += 9 * largest(&data.x[k * pixels], pixels) * largest(&data.filter[(o * c.channels + k) * 9], 9);
      for (int64_t at = o * pixels; at < (o + 1) * pixels; ++at)
        most = std::max(most, std::abs(y[at] - sums[at].value) / size);
    }
  }
  EXPECT_LE(most, kStatedError / 10);
  RecordProperty("largest_error", absl::StrCat(most));
}

TEST_P(WinogradTest, IsTheSameBitsForAnyNumberOfThreadsAndPassesEachElementOnOnce) {
  std::mt19937 generator(3);
  for (const Case& each : kCases) {
    const Convolution3x3 c = Sizes(each, false);
    const Data data = RandomData(c, false, generator);
    const Winograd winograd(c, GetParam());
    std::vector<int> times(c.samples * c.outputs * c.output_height * c.output_width, 0);
    const std::vector<float> one = Compute(winograd, c, data, 1, &times);
    EXPECT_EQ(std::count(times.begin(), times.end(), 1), static_cast<int64_t>(times.size()));
    for (int threads : {2, 3, 64}) {
      const std::vector<float> y = Compute(winograd, c, data, threads);
      EXPECT_EQ(std::memcmp(one.data(), y.data(), y.size() * sizeof(float)), 0)
          << threads << " threads, " << each.channels << " channels of " << each.height << " x " << each.width;
    }
  }
}

// Several threads share one sample.
TEST_P(WinogradTest, DividesOneSample) {
  for (const Case& each : {Case{1, 64, 56, 56, 64, 1, 1, 1, 1}, Case{1, 128, 28, 28, 128, 1, 1, 1, 1},
                           Case{1, 256, 14, 14, 256, 1, 1, 1, 1}, Case{1, 512, 7, 7, 512, 1, 1, 1, 1}}) {
    for (int threads : {2, 3}) EXPECT_GE(Winograd(Sizes(each, false), GetParam()).Divide(threads).number(), 2);
  }
}

TEST_P(WinogradTest, SpecialNumbersSpreadToTheirTilesAlone) {
  std::mt19937 generator(4);
  const Convolution3x3 c = Sizes({2, 3, 20, 20, 2, 1, 1, 1, 1}, false);
  const int64_t size = 2 * GetParam(), tiles = DivideUp(int64_t{20}, size);
  for (const float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Data data = RandomData(c, false, generator);
    data.x[(1 * 20 + 9) * 20 + 10] = special;  // Sample 0, row 9, column 10. Outputs of rows 8 to 10 read it.
    const std::vector<float> y = Compute(Winograd(c, GetParam()), c, data, 1);
    ForTiles(c, GetParam(), [&](int64_t at, int64_t tile) {
      const int64_t row = tile / tiles % tiles * size, column = tile % tiles * size;
      const bool first = tile / tiles / tiles < c.outputs;
      const bool tile_reads = first && row <= 10 && row + size > 8 && column <= 11 && column + size > 9;
      const int64_t i = at / 20 % 20, j = at % 20;
      const bool reads = first && std::abs(i - 9) <= 1 && std::abs(j - 10) <= 1;
      EXPECT_TRUE(reads ? !std::isfinite(y[at]) : tile_reads || std::isfinite(y[at])) << "element " << at;
    });
    data = RandomData(c, false, generator);
    data.filter[9 * 3 + 4] = special;  // Output 1.
    const std::vector<float> filtered = Compute(Winograd(c, GetParam()), c, data, 1);
    for (int64_t at = 0; at < static_cast<int64_t>(filtered.size()); ++at)
      EXPECT_EQ(std::isfinite(filtered[at]), at / 400 % 2 == 0) << "element " << at;
  }
}

TEST_P(WinogradTest, ZerosGiveTheBias) {
  const Convolution3x3 c = Sizes({1, 5, 9, 9, 6, 1, 1, 1, 1}, false);
  std::mt19937 generator(5);
  Data data = RandomData(c, false, generator);
  std::fill(data.x.begin(), data.x.end(), 0.0f);
  const std::vector<float> y = Compute(Winograd(c, GetParam()), c, data, 1);
  for (int64_t at = 0; at < static_cast<int64_t>(y.size()); ++at) EXPECT_EQ(y[at], data.bias[at / 81]);
}

// Runs the tasks of each phase in order, or in the opposite order.
std::vector<float> ComputeFilterGrad(const Convolution3x3& c, int pairs, const std::vector<float>& x,
                                     const std::vector<float>& dy, bool backwards) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const WinogradFilterGrad gradient(c, pairs);
  const std::shared_ptr<float> shared = Floats(gradient.shared_floats()), thread = Floats(gradient.thread_floats());
  std::vector<float> dw(c.outputs * c.channels * 9, nan);
  for (int64_t chunk = 0; chunk < gradient.num_chunks(); ++chunk) {
    const int64_t transforms = gradient.transform_tasks(chunk), products = gradient.multiply_tasks();
    for (int64_t i = 0; i < transforms; ++i)
      gradient.Transform(x.data(), dy.data(), chunk, backwards ? transforms - 1 - i : i, shared.get(), thread.get());
    for (int64_t i = 0; i < products; ++i)
      gradient.Multiply(chunk, backwards ? products - 1 - i : i, shared.get(), thread.get(), dw.data());
  }
  for (int64_t i = gradient.finish_tasks(); i-- > 0;) gradient.Finish(i, shared.get(), dw.data());
  return dw;
}

// Returns the largest error as a share of the largest sum of absolute terms in a 3x3 filter.
double LargestFilterGradError(const Convolution3x3& c, const std::vector<float>& x, const std::vector<float>& dy,
                              const std::vector<float>& dw) {
  double most = 0;
  for (int64_t o = 0; o < c.outputs; ++o) {
    for (int64_t i = 0; i < c.channels; ++i) {
      double size = 0, error = 0;
      for (int64_t k = 0; k < 3; ++k) {
        for (int64_t l = 0; l < 3; ++l) {
          double sum = 0, terms = 0;
          for (int64_t s = 0; s < c.samples; ++s) {
            for (int64_t row = 0; row < c.output_height; ++row) {
              const int64_t y = row + k - c.top;
              if (y < 0 || y >= c.height) continue;
              const float* const from = &x[((s * c.channels + i) * c.height + y) * c.width];
              const float* const by = &dy[((s * c.outputs + o) * c.output_height + row) * c.output_width];
              const int64_t shift = l - c.left;
              for (int64_t j = std::max<int64_t>(0, -shift); j < std::min(c.output_width, c.width - shift); ++j) {
                const double term = static_cast<double>(by[j]) * from[j + shift];
                sum += term;
                terms += std::abs(term);
              }
            }
          }
          const double difference = std::abs(dw[(o * c.channels + i) * 9 + k * 3 + l] - sum);
          error = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(error, difference);
          size = std::max(size, terms);
        }
      }
      most = std::max(most, error / size);
    }
  }
  return most;
}

TEST_P(WinogradTest, FilterGradIsTheSumWithinTheStatedErrorInAnyOrderOfTasks) {
  std::mt19937 generator(1);
  double most = 0;
  int64_t least_chunks = 1000, most_chunks = 0;
  for (const Case& each : kCases) {
    const Convolution3x3 c = Sizes(each, false);
    for (const bool positive : {false, true}) {
      const std::vector<float> x = RandomNumbers(c.samples * c.channels * c.height * c.width, positive, generator);
      const std::vector<float> dy =
          RandomNumbers(c.samples * c.outputs * c.output_height * c.output_width, positive, generator);
      const std::vector<float> dw = ComputeFilterGrad(c, GetParam(), x, dy, false);
      const double error = LargestFilterGradError(c, x, dy, dw);
      EXPECT_LE(error, kStatedError) << each.samples << " samples of " << each.channels << " channels of "
                                     << each.height << " x " << each.width << " to " << each.outputs;
      most = std::max(most, error);
      const std::vector<float> backwards = ComputeFilterGrad(c, GetParam(), x, dy, true);
      EXPECT_EQ(std::memcmp(dw.data(), backwards.data(), dw.size() * sizeof(float)), 0);
    }
    const int64_t chunks = WinogradFilterGrad(c, GetParam()).num_chunks();
    least_chunks = std::min(least_chunks, chunks), most_chunks = std::max(most_chunks, chunks);
  }
  EXPECT_EQ(least_chunks, 1);  // These transform the sums back in another place.
  EXPECT_GT(most_chunks, 1);
  RecordProperty("largest_error", absl::StrCat(most));
}

TEST_P(WinogradTest, FilterGradsSpreadSpecialNumbersToTheirChannelAlone) {
  std::mt19937 generator(2);
  const Convolution3x3 c = Sizes({2, 3, 9, 9, 2, 1, 1, 1, 1}, false);
  std::vector<float> x = RandomNumbers(2 * 3 * 81, false, generator);
  const std::vector<float> dy = RandomNumbers(2 * 2 * 81, false, generator);
  x[81 + 40] = std::numeric_limits<float>::quiet_NaN();  // Channel 1.
  const std::vector<float> dw = ComputeFilterGrad(c, GetParam(), x, dy, false);
  for (int64_t at = 0; at < static_cast<int64_t>(dw.size()); ++at)
    EXPECT_EQ(std::isnan(dw[at]), at / 9 % 3 == 1) << "element " << at;
}

INSTANTIATE_TEST_SUITE_P(Tiles, WinogradTest, testing::Values(1, 2),
                         [](const auto& info) { return absl::StrCat(2 * info.param, "x", 2 * info.param); });

TEST(Winograd, FitsNothingEmptyOrUncountable) {
  const Convolution3x3 good = Sizes({2, 3, 4, 4, 5, 1, 1, 1, 1}, false);
  EXPECT_TRUE(Winograd::Fits(good));
  for (int64_t Convolution3x3::*size : {&Convolution3x3::samples, &Convolution3x3::channels, &Convolution3x3::outputs,
                                        &Convolution3x3::output_height, &Convolution3x3::output_width}) {
    for (int64_t value : {int64_t{0}, int64_t{1} << 60}) {
      Convolution3x3 c = good;
      c.*size = value;
      EXPECT_FALSE(Winograd::Fits(c)) << value;
    }
  }
  // An input gradient of a convolution with more padding than the filter can use reads rows of dy
  // that no element of dx needs.
  Convolution3x3 cropped = good;
  cropped.top = -1;
  EXPECT_FALSE(Winograd::Fits(cropped));
}

TEST(Winograd, TestsTheVectorsThatItIsBuiltFor) {
#ifdef GRADWEAVE_TEST_WITHOUT
  EXPECT_LE(GetProductKernels().lanes, 8);
#endif
  EXPECT_GE(GetProductKernels().lanes, 1);
}

}  // namespace
}  // namespace gradweave
