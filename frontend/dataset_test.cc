// Data sets of named arrays, and how loaders cut them into batches.
#include "gradweave/frontend/dataset.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/scope.h"
#include "gtest/gtest.h"

namespace gradweave::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Samples 0 to n - 1: "x" float32 [n, 2] has {i, 10 + i}, "y" int64 [n] has 100 + i.
Dataset Counted(int64_t n) {
  Tensor x(kFloat32, {n, 2}), y(kInt64, {n});
  for (int64_t i = 0; i < n; ++i) {
    x.mutable_data<float>()[2 * i] = static_cast<float>(i);
    x.mutable_data<float>()[2 * i + 1] = static_cast<float>(10 + i);
    y.mutable_data<int64_t>()[i] = 100 + i;
  }
  return {{"x", x}, {"y", y}};
}

std::string Error(const Dataset& dataset) { return std::string(dataset.status().message()); }

// The batches of an epoch, copied.
std::vector<Batch> Batches(BatchLoader& loader, int64_t epoch, int64_t first_batch = 0) {
  std::vector<Batch> batches;
  loader.StartEpoch(epoch, first_batch);
  while (const Batch* batch = loader.Next()) {
    batches.push_back(*batch);
    for (Tensor& tensor : batches.back().arrays) tensor = tensor.Clone();
  }
  return batches;
}

TEST(Dataset, HasNamedArraysOfAnyTypeWithOneFirstAxis) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("features", kFloat32, {Dim("batch"), 2});
  const Dataset dataset = {{x, Tensor(kFloat32, {3, 2})}, {"flag", Tensor(kBool, {3})}};
  ASSERT_TRUE(dataset.status().ok()) << dataset.status();
  EXPECT_EQ(dataset.size(), 3);
  EXPECT_EQ(dataset.Find(x)->type().ToString(), "float32[3,2]");
  EXPECT_EQ(dataset.Find("flag")->type().ToString(), "bool[3]");
  EXPECT_EQ(dataset.IndexOf("flag"), 1);
  EXPECT_THAT(std::string(dataset.Find("label").status().message()),
              HasSubstr("no array 'label'; the arrays are 'features', 'flag'"));
  const Dataset one = {{"image", Tensor(kUint8, {2, 1, 4, 4})}};
  EXPECT_EQ(one.size(), 2);
}

TEST(Dataset, KeepsTheErrorOfItsMaking) {
  Graph graph;
  Scope scope(graph);
  const Value sum = scope.Input("a", kFloat32, {3}) + 1;
  EXPECT_THAT(Error({{"x", Tensor(kFloat32, {3, 2})}, {"y", Tensor(kFloat32, {4})}}),
              HasSubstr("'x', float32[3,2], and 'y', float32[4], have to have the same first axis"));
  EXPECT_THAT(Error({{"x", Tensor(kFloat32, {3})}, {"x", Tensor(kFloat32, {3})}}), HasSubstr("two arrays"));
  EXPECT_THAT(Error({{"x", Tensor(kFloat32, {})}}), HasSubstr("'x' is float32[]"));
  EXPECT_THAT(Error({{"x", Tensor(kFloat32, {3})}, {sum, Tensor(kFloat32, {3})}}), HasSubstr("array 1 has no name"));
  EXPECT_THAT(Error(Dataset(std::vector<NamedArray>())), HasSubstr("no arrays"));
  // Data sets made of a failed one have its error, and so have their loaders.
  const Dataset failed = Counted(5).Select({"z"});
  EXPECT_THAT(Error(failed.First(2).Split(0.5, 1).first), HasSubstr("Select: there is no array 'z'"));
  EXPECT_EQ(failed.size(), 0);
  BatchLoader loader(failed, {});
  loader.StartEpoch(0);
  EXPECT_EQ(loader.Next(), nullptr);
  EXPECT_EQ(loader.status(), failed.status());
}

TEST(Dataset, SelectsSamples) {
  const Dataset dataset = Counted(10);
  EXPECT_EQ(dataset.First(3).size(), 3);
  EXPECT_EQ(dataset.First(3).Find("y")->raw_data(), dataset.Find("y")->raw_data());
  EXPECT_EQ(dataset.First(99).size(), 10);
  EXPECT_EQ(dataset.First(-1).size(), 0);
  EXPECT_EQ(dataset.Subset({7, 2, 7}).Find("y")->ToDoubles(), (std::vector<double>{107, 102, 107}));
  EXPECT_EQ(dataset.Subset({7, 2}).Find("x")->ToDoubles(), (std::vector<double>{7, 17, 2, 12}));
  EXPECT_THAT(Error(dataset.Subset({10})), HasSubstr("sample 10 is outside [0, 10)"));
  EXPECT_EQ(dataset.Select({"y"}).arrays().size(), 1u);
}

TEST(Dataset, SplitsByFractionAndSeed) {
  const Dataset dataset = Counted(10);
  const auto [most, rest] = dataset.Split(0.7, 3);
  const std::vector<double> a = most.Find("y")->ToDoubles(), b = rest.Find("y")->ToDoubles();
  EXPECT_EQ(a.size(), 7u);
  std::vector<double> all = a;
  all.insert(all.end(), b.begin(), b.end());
  EXPECT_EQ(std::set<double>(all.begin(), all.end()).size(), 10u);
  EXPECT_TRUE(std::is_sorted(a.begin(), a.end()) && std::is_sorted(b.begin(), b.end()));
  EXPECT_EQ(dataset.Split(0.7, 3).first.Find("y")->ToDoubles(), a);
  EXPECT_NE(dataset.Split(0.7, 4).first.Find("y")->ToDoubles(), a);
  EXPECT_EQ(dataset.Split(1, 3).second.size(), 0);
  EXPECT_THAT(Error(dataset.Split(std::nan(""), 3).second), HasSubstr("fraction is nan"));
  EXPECT_THAT(Error(dataset.Split(1.5, 3).first), HasSubstr("fraction is 1.5"));
}

// tests/ops/make_random_reference.py computed the numbers of this and the next two tests.
TEST(EpochOrder, IsTheSameOnEveryMachine) {
  std::vector<int64_t> order(12);
  FillEpochOrder(absl::MakeSpan(order), /*shuffle=*/true, 1, 0);
  EXPECT_THAT(order, ElementsAre(2, 3, 8, 10, 1, 9, 6, 0, 4, 5, 7, 11));
  FillEpochOrder(absl::MakeSpan(order), /*shuffle=*/true, 1, 1);
  EXPECT_THAT(order, ElementsAre(1, 3, 10, 5, 4, 6, 0, 7, 11, 8, 2, 9));
  FillEpochOrder(absl::MakeSpan(order), /*shuffle=*/true, uint64_t{1} << 63, 5);
  EXPECT_THAT(order, ElementsAre(10, 0, 2, 9, 1, 6, 4, 7, 3, 5, 8, 11));
  FillEpochOrder(absl::MakeSpan(order), /*shuffle=*/false, 1, 0);
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_EQ(Counted(12).Split(4.0 / 12, 3).first.Find("y")->ToDoubles(), (std::vector<double>{102, 103, 105, 106}));
}

TEST(EpochOrder, OfSequencesIsTheSameOnEveryMachine) {
  const Dataset words = Dataset{{"word", Tensor(kInt32, {11, 4})}, {"y", *Counted(11).Find("y")}}.WithLengths(
      Tensor::Of<int32_t>({11}, {4, 1, 3, 2, 4, 1, 2, 3, 1, 4, 2}), {"word"});
  BatchLoader loader(words, {.batch_size = 2, .seed = 6});
  std::vector<std::vector<double>> samples;
  for (const Batch& batch : Batches(loader, 1)) samples.push_back(batch.arrays[1].ToDoubles());
  EXPECT_EQ(samples,
            (std::vector<std::vector<double>>{{105, 106}, {102, 107}, {100, 104}, {110, 103}, {108, 101}, {109}}));
}

TEST(SampleRandom, IsTheSameOnEveryMachine) {
  SampleRandom random(5, 2, 9);
  EXPECT_EQ(random(), 0xa9765da4380c141eu);
  EXPECT_EQ(random(), 0xee549bfeab62cfb6u);
  EXPECT_EQ(random(), 0x7b0d6f29e7dd8587u);
}

// Byte b becomes b/255, so that white is 1.
TEST(Bytes, BecomeNumbersFromZeroToOne) {
  Tensor bytes(kUint8, {256, 1});
  for (int b = 0; b < 256; ++b) bytes.mutable_data<uint8_t>()[b] = static_cast<uint8_t>(b);
  BatchLoader loader({{"image", bytes}}, {.batch_size = 256, .shuffle = false});
  const Tensor floats = Batches(loader, 0)[0].arrays[0];
  for (int b = 0; b < 256; ++b) EXPECT_EQ(floats.data<float>()[b], static_cast<float>(b) / 255) << b;
  EXPECT_EQ(floats.data<float>()[255], 1);
}

TEST(Standardization, IsMeasuredForEachIndexOfTheSecondAxis) {
  // Means and deviations by numpy: x.mean((0, 2)), x.std((0, 2)).
  const Tensor x = Tensor::Of<float>({2, 2, 2}, {1, 2, 5, 5, 3, 6, 5, 5});
  const absl::StatusOr<Standardization> measured = MeasureStandardization(x);
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_EQ(measured->mean, (std::vector<double>{3, 5}));
  EXPECT_NEAR(measured->deviation[0], 1.8708286933869707, 1e-15);
  EXPECT_EQ(measured->deviation[1], 1);
  // The mean of many equal numbers is that number.
  Tensor tenths(kFloat64, {1000, 1});
  for (double& t : tenths.mutable_values<double>()) t = 0.1;
  EXPECT_EQ(MeasureStandardization(tenths)->mean[0], 0.1);
  EXPECT_EQ(MeasureStandardization(tenths)->deviation[0], 1);
  // Bytes are scaled before.
  EXPECT_EQ(MeasureStandardization(Tensor::Of<uint8_t>({2, 1}, {0, 255}))->deviation[0], 0.5);
  // An array of a data set is measured by its name.
  const Dataset dataset = {{"x", x}};
  EXPECT_EQ(MeasureStandardization(dataset, "x")->mean, measured->mean);
  EXPECT_EQ(MeasureStandardization(dataset, "x")->deviation, measured->deviation);
  EXPECT_THAT(std::string(MeasureStandardization(dataset, "z").status().message()),
              HasSubstr("there is no array 'z'; the arrays are 'x'"));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(std::string(MeasureStandardization(Tensor::Of<float>({2, 1}, {1, nan})).status().message()),
              HasSubstr("index 0 of the second axis are not finite"));
}

TEST(Standardization, IsDoneInBatches) {
  const Dataset dataset = Counted(3).Standardized("x", {.mean = {1, 12}, .deviation = {0.5, 2}});
  BatchLoader loader(dataset, {.batch_size = 3, .shuffle = false});
  EXPECT_EQ(Batches(loader, 0)[0].arrays[0].ToDoubles(), (std::vector<double>{-2, -1, 0, -0.5, 2, 0}));
  const Dataset bytes = Dataset{{"image", Tensor::Of<uint8_t>({2, 1, 1, 1}, {51, 255})}}.Standardized(
      "image", {.mean = {0.2860}, .deviation = {0.3530}});
  BatchLoader images(bytes, {.shuffle = false});
  const std::vector<double> pixels = Batches(images, 0)[0].arrays[0].ToDoubles();
  EXPECT_NEAR(pixels[0], (0.2 - 0.2860) / 0.3530, 1e-7);
  EXPECT_NEAR(pixels[1], (1 - 0.2860) / 0.3530, 1e-6);
  EXPECT_THAT(Error(Counted(3).Standardized("x", {.mean = {1, 2, 3}, .deviation = {1}})),
              HasSubstr("there are 3 numbers for mean; there has to be 1, or 2"));
  EXPECT_THAT(Error(Counted(3).Standardized("x", {.mean = {1}, .deviation = {0}})), HasSubstr("deviation is 0"));
  EXPECT_THAT(Error(Counted(3).Standardized("x", {.mean = {std::nan("")}, .deviation = {1}})),
              HasSubstr("mean is nan"));
  EXPECT_THAT(Error(Counted(3).Standardized("y", {.mean = {1}, .deviation = {1}})), HasSubstr("'y' is int64[3]"));
}

TEST(Augmentation, DependsOnSeedEpochAndSampleOnly) {
  // Adds a random number below 1 to each sample, then doubles it.
  const SampleTransform add = [](absl::Span<const float> from, absl::Span<float> to, absl::Span<const int64_t> sizes,
                                 SampleRandom& random) {
    EXPECT_THAT(sizes, ElementsAre(2));
    const auto noise = static_cast<float>(random.Uniform());
    std::transform(from.begin(), from.end(), to.begin(), [&](float x) { return x + noise; });
  };
  const SampleTransform twice = [](absl::Span<const float> from, absl::Span<float> to, absl::Span<const int64_t>,
                                   SampleRandom&) {
    std::transform(from.begin(), from.end(), to.begin(), [](float x) { return 2 * x; });
  };
  const Dataset dataset = Counted(10).Augmented("x", add).Augmented("x", twice);
  // Returns the noise of each sample.
  auto noises = [&](int64_t batch_size, uint64_t seed, int64_t epoch) {
    BatchLoader loader(dataset, {.batch_size = batch_size, .seed = seed});
    std::vector<double> result(10);
    for (const Batch& batch : Batches(loader, epoch)) {
      for (int64_t i = 0; i < batch.size; ++i) {
        const int64_t sample = batch.arrays[1].data<int64_t>()[i] - 100;
        const float* x = batch.arrays[0].data<float>() + 2 * i;
        result[sample] = x[0] / 2 - static_cast<float>(sample);
        EXPECT_NEAR(x[1] / 2 - static_cast<float>(10 + sample), result[sample], 1e-5);
        EXPECT_GE(result[sample], 0);
        EXPECT_LE(result[sample], 1);
      }
    }
    return result;
  };
  const std::vector<double> first = noises(3, 1, 0);
  EXPECT_EQ(std::set<double>(first.begin(), first.end()).size(), 10u);
  EXPECT_EQ(noises(7, 1, 0), first);
  EXPECT_NE(noises(3, 2, 0), first);
  EXPECT_NE(noises(3, 1, 1), first);
  EXPECT_THAT(Error(Counted(3).Augmented("y", add)), HasSubstr("'y' is int64[3] and has to be float32 or uint8"));
}

// A child of fork() has no thread that would fill batches.
TEST(BatchLoader, AChildDestroysItsCopy) {
  std::optional<BatchLoader> loader(std::in_place, Counted(1000), BatchOptions{.batch_size = 2});
  loader->StartEpoch(0);
  for (int batches : {1, 20}) {
    for (int i = 0; i < batches; ++i) EXPECT_NE(loader->Next(), nullptr);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // Ends a child that waits for the thread.
      const bool fails = loader->Next() == nullptr && loader->status().code() == absl::StatusCode::kFailedPrecondition;
      loader->StartEpoch(1);
      loader.reset();
      _exit(fails ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_TRUE(loader->status().ok());
  }
}

TEST(BatchLoader, StartsInTheMiddleOfAnEpoch) {
  BatchLoader loader(Counted(10), {.batch_size = 3, .seed = 5});
  const std::vector<Batch> all = Batches(loader, 2), rest = Batches(loader, 2, 2);
  ASSERT_EQ(all.size(), 4u);
  ASSERT_EQ(rest.size(), 2u);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(SameBits(rest[i].arrays[1], all[2 + i].arrays[1]));
  EXPECT_EQ(Batches(loader, 2, 4).size(), 0u);
}

TEST(BatchLoader, KeepsTheOrderOfTheDataSetIfAsked) {
  BatchLoader loader(Counted(5), {.batch_size = 2, .shuffle = false});
  const std::vector<Batch> batches = Batches(loader, 3);
  EXPECT_EQ(batches[0].arrays[1].ToDoubles(), (std::vector<double>{100, 101}));
  EXPECT_EQ(batches[2].arrays[1].ToDoubles(), (std::vector<double>{104}));
}

TEST(BatchLoader, TakesBatchSizesNearTheEndOfTheirRange) {
  for (int64_t batch_size : {int64_t{5}, int64_t{6}, std::numeric_limits<int64_t>::max()}) {
    BatchLoader loader(Counted(5), {.batch_size = batch_size});
    EXPECT_EQ(loader.batches_per_epoch(), 1);
    EXPECT_EQ(Batches(loader, 0)[0].size, 5);
  }
  BatchLoader none(Counted(5), {.batch_size = 0});
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("batch_size is 0"));
  EXPECT_EQ(NumBatches(std::numeric_limits<int64_t>::max(), 2), int64_t{1} << 62);
}

// Sequences {1, .., 1, 0, .., 0} of these lengths, padded to the longest.
Dataset Sequences(const std::vector<int64_t>& lengths, int64_t longest) {
  const int64_t n = static_cast<int64_t>(lengths.size());
  Tensor tokens(kInt32, {n, longest}), numbers(kInt32, {n});
  for (int64_t i = 0; i < n; ++i) {
    std::fill_n(tokens.mutable_data<int32_t>() + i * longest, lengths[i], 1);
    numbers.mutable_data<int32_t>()[i] = static_cast<int32_t>(i);
  }
  return Dataset{{"tokens", tokens}, {"number", numbers}}.WithLengths(Tensor::Of<int64_t>({n}, lengths), {"tokens"});
}

TEST(BatchLoader, PutsSequencesOfLikeLengthsTogetherAndCutsThem) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 1050; ++i) lengths.push_back(1 + i * 37 % 100);
  const Dataset dataset = Sequences(lengths, 120);
  ASSERT_TRUE(dataset.status().ok()) << dataset.status();
  BatchLoader loader(dataset, {.batch_size = 20, .seed = 1}),
      coarse(dataset, {.batch_size = 20, .length_multiple = 16});
  std::vector<int64_t> firsts;
  std::set<int> seen;
  double padding = 0;
  for (const Batch& batch : Batches(loader, 0)) {
    int64_t longest = 0;
    for (int64_t i = 0; i < batch.size; ++i) {
      const int number = batch.arrays[1].data<int32_t>()[i];
      seen.insert(number);
      longest = std::max(longest, lengths[number]);
      for (int64_t k = 0; k < batch.arrays[0].size(1); ++k)
        EXPECT_EQ(batch.arrays[0].data<int32_t>()[i * batch.arrays[0].size(1) + k], k < lengths[number] ? 1 : 0);
      padding += static_cast<double>(batch.arrays[0].size(1) - lengths[number]);
    }
    EXPECT_EQ(batch.arrays[0].size(1), longest);
    firsts.push_back(longest);
  }
  EXPECT_EQ(seen.size(), 1050u);
  // All 53 batches are one group, so that lengths in a batch differ by at most 2; batches of random
  // samples would be padded by about 47 elements for each sample.
  EXPECT_LT(padding / 1050, 2);
  EXPECT_FALSE(std::is_sorted(firsts.begin(), firsts.end()));
  for (const Batch& batch : Batches(coarse, 0)) {
    EXPECT_TRUE(batch.arrays[0].size(1) % 16 == 0) << batch.arrays[0].size(1);
  }
  BatchLoader in_order(Sequences({3, 1, 2, 4, 1}, 9), {.batch_size = 2, .shuffle = false, .length_multiple = 6});
  const std::vector<Batch> batches = Batches(in_order, 0);
  EXPECT_EQ(batches[1].arrays[0].type().ToString(), "int32[2,6]");
  BatchLoader exact(Sequences({3, 1, 2, 4, 0}, 9), {.batch_size = 2, .shuffle = false});
  EXPECT_EQ(Batches(exact, 0)[1].arrays[0].type().ToString(), "int32[2,4]");
  // A sequence without elements keeps one.
  EXPECT_EQ(Batches(exact, 0)[2].arrays[0].type().ToString(), "int32[1,1]");
  EXPECT_THAT(Error(Sequences({3}, 9).WithLengths(Tensor::Of<int32_t>({1}, {10}), {"tokens"})),
              HasSubstr("length of sample 0 is 10 and array 'tokens' is int32[1,9]"));
}

TEST(BatchLoader, TakesSamplesFromAGenerator) {
  const Dataset dataset = Dataset::Generated(
      {{"x", kFloat32, {2}}, {"byte", kUint8, {}}}, 5, [](const GeneratorCall& call, absl::Span<Tensor> arrays) {
        if (call.epoch == 7) return absl::DataLossError("no more numbers");
        for (int64_t i = 0; i < call.count; ++i) {
          arrays[0].mutable_data<float>()[2 * i] = static_cast<float>(call.first + i);
          arrays[0].mutable_data<float>()[2 * i + 1] = static_cast<float>(call.epoch);
          arrays[1].mutable_data<uint8_t>()[i] = 200;
        }
        return absl::OkStatus();
      });
  BatchLoader loader(dataset, {.batch_size = 3});
  const std::vector<Batch> batches = Batches(loader, 4);
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[1].arrays[0].ToDoubles(), (std::vector<double>{3, 4, 4, 4}));
  EXPECT_EQ(batches[1].arrays[1].type().ToString(), "uint8[2]");
  EXPECT_EQ(Batches(loader, 7).size(), 0u);
  EXPECT_EQ(loader.status(), absl::DataLossError("no more numbers"));
  EXPECT_EQ(dataset.First(2).size(), 2);
  EXPECT_THAT(Error(dataset.Subset({1})), HasSubstr("generated samples"));
  EXPECT_THAT(Error(Dataset::Generated({{"x", kFloat32, {-1}}}, 5, dataset.generator())), HasSubstr("sizes [-1]"));
  EXPECT_THAT(Error(Dataset::Generated({{"x", kFloat32, {1}}}, 5, nullptr)), HasSubstr("generator is null"));
}

// The functions run in the loader's thread, where an exception would end the program.
TEST(BatchLoader, TurnsExceptionsIntoItsStatus) {
  const Dataset generated = Dataset::Generated(
      {{"x", kFloat32, {1}}}, 5,
      [](const GeneratorCall&, absl::Span<Tensor>) -> absl::Status { throw std::runtime_error("the camera is gone"); });
  const Dataset augmented = Dataset({{"x", Tensor(kFloat32, {5, 1})}})
                                .Augmented("x", [](absl::Span<const float>, absl::Span<float>,
                                                   absl::Span<const int64_t>, SampleRandom&) { throw 7; });
  BatchLoader generator_loader(generated, {.batch_size = 3}), augmentation_loader(augmented, {.batch_size = 3});
  EXPECT_EQ(Batches(generator_loader, 0).size(), 0u);
  EXPECT_EQ(generator_loader.status(),
            absl::UnknownError("Dataset: the generator threw an exception: the camera is gone"));
  EXPECT_EQ(Batches(augmentation_loader, 0).size(), 0u);
  EXPECT_EQ(augmentation_loader.status(),
            absl::UnknownError("Dataset: a function given to Augmented threw something that is not a std::exception"));
}

}  // namespace
}  // namespace gradweave::data
