// The subcommands that run models: run and bench.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/pictures.h"
#include "gradweave/gradweave.h"
#include "tests/command/command_runner.h"

namespace gradweave {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class RunTest : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    SaveLeNet();
  }

  // The probabilities that a program computes.
  Tensor Probabilities(const Tensor& images) const {
    Model model = *LoadModel(Path("lenet.gw"));
    Session session = *CreateSession(model);
    const Value image = model.graph.value(model.graph.FindNamed("image"));
    return (*session.Run({{image, images}}, {model.graph.Output("probabilities")[0]}))[0];
  }
};

// Three different images.
Tensor Bytes() {
  Tensor bytes(kUint8, {3, 1, 28, 28});
  for (int64_t i = 0; i < bytes.num_elements(); ++i)
    bytes.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(i * i % 251);
  return bytes;
}

Tensor Scaled(const Tensor& bytes) {
  Tensor images = bytes.Cast(kFloat32);
  for (float& pixel : images.mutable_values<float>()) pixel /= 255;
  return images;
}

TEST_F(RunTest, ComputesWhatAProgramComputes) {
  const Tensor images = Scaled(Bytes());
  ASSERT_TRUE(data::WriteNpy(Path("images.npy"), images).ok());
  EXPECT_EQ(RunOk("run lenet.gw --input image=images.npy --output_dir out -o all.npz"),
            "logits         float32[3,10]  out/logits.npy\n"
            "probabilities  float32[3,10]  out/probabilities.npy\n"
            "logits         float32[3,10]  all.npz\n"
            "probabilities  float32[3,10]  all.npz\n");
  EXPECT_TRUE(SameBits(*data::ReadNpy(Path("out/probabilities.npy")), Probabilities(images)));
  const auto all = *data::ReadNpz(Path("all.npz"));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].name, "probabilities");
  EXPECT_TRUE(SameBits(all[1].values, Probabilities(images)));
}

TEST_F(RunTest, BytesAreScaledAndOtherNumbersConverted) {
  ASSERT_TRUE(data::WriteNpy(Path("bytes.npy"), Bytes()).ok());
  RunOk("run lenet.gw --input image=bytes.npy --output_dir out");
  EXPECT_TRUE(SameBits(*data::ReadNpy(Path("out/probabilities.npy")), Probabilities(Scaled(Bytes()))));
  // A sample without the first axis.
  ASSERT_TRUE(data::WriteNpy(Path("one.npy"), Scaled(Bytes()).Rows(0, 1).Reshaped({1, 28, 28}).Cast(kFloat64)).ok());
  RunOk("run lenet.gw --input image=one.npy --output_dir out");
  EXPECT_TRUE(SameBits(*data::ReadNpy(Path("out/probabilities.npy")), Probabilities(Scaled(Bytes()).Rows(0, 1))));
}

TEST_F(RunTest, ReadsImages) {
  GrayImage image(28, 28);
  const Tensor bytes = Bytes().Rows(1, 2);
  std::copy_n(bytes.data<uint8_t>(), 28 * 28, image.pixels.begin());
  // The name says nothing; the content does.
  ASSERT_TRUE(WritePng(Path("image.npy"), image).ok());
  RunOk("run lenet.gw --input image=image.npy --output_dir out");
  EXPECT_TRUE(SameBits(*data::ReadNpy(Path("out/probabilities.npy")), Probabilities(Scaled(bytes))));
  ASSERT_TRUE(WritePng(Path("large.png"), GrayImage(56, 40, 128)).ok());
  EXPECT_THAT(RunOk("run lenet.gw --input image=large.png"), HasSubstr("large.png: resized from 56 x 40 to 28 x 28\n"));
}

TEST_F(RunTest, PrintsNumbersAndClasses) {
  const std::string numbers = RunOk("run lenet.gw --random --outputs=logits --shape image=12,1,28,28");
  EXPECT_THAT(numbers, HasSubstr("logits  float32[12,10]\n"));
  EXPECT_THAT(numbers, HasSubstr("\n  ... 12 rows\n"));
  EXPECT_EQ(RunOk("run lenet.gw --random --outputs=logits --shape image=12,1,28,28"), numbers);
  EXPECT_NE(RunOk("run lenet.gw --random --outputs=logits --shape image=12,1,28,28 --seed=1"), numbers);

  Model model = *LoadModel(Path("lenet.gw"));
  const absl::string_view names = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\x1b[2J";
  Tensor bytes(kUint8, {static_cast<int64_t>(names.size())});
  std::copy(names.begin(), names.end(), bytes.mutable_data<uint8_t>());
  model.extra = {{"class_names", bytes}};
  ASSERT_TRUE(SaveModel(model, Path("named.gw")).ok());
  EXPECT_THAT(RunOk("run named.gw --random --outputs=probabilities"),
              ContainsRegex("probabilities  float32.1,10.\n  0  a 0[.][0-9]+  i 0[.][0-9]+  f 0[.][0-9]+\n"));
  EXPECT_THAT(RunOk("inspect named.gw"), HasSubstr("\nclasses\n  a, b, c, d, e, f, g, h, i, j\\x1b[2J\n"));
}

TEST_F(RunTest, ErrorsNameWhatIsExpected) {
  SaveLeNetStep();
  ASSERT_TRUE(data::WriteNpy(Path("wrong.npy"), Tensor(kFloat32, {1, 10})).ok());
  ASSERT_TRUE(data::WriteNpy(Path("width.npy"), Tensor(kFloat32, {2, 1, 28, 27})).ok());
  ASSERT_TRUE(data::WriteNpy(Path("label.npy"), Tensor(kFloat32, {2})).ok());
  ASSERT_TRUE(data::WriteNpy(Path("images.npy"), Tensor(kFloat32, {3, 1, 28, 28})).ok());
  ASSERT_TRUE(data::WriteNpy(Path("labels.npy"), Tensor(kInt64, {2})).ok());
  ExpectError("run lenet.gw", 1,
              "run: output 'logits' needs input 'image', float32[batch,1,28,28]; give --input image=FILE, or --random");
  ExpectError("run lenet.gw --input imge=images.npy", 1, "run: the model has no input 'imge'; did you mean 'image'?");
  ExpectError("run lenet.gw --input image=none.npy", 1,
              "run: none.npy: the file cannot be opened: No such file or directory");
  ExpectError("run lenet.gw --input image=lenet.gw", 1,
              "run: lenet.gw: an array of numpy (.npy) or a PNG image is expected, and this is a Gradweave model");
  ExpectError("run lenet.gw --input image=wrong.npy", 1,
              "run: wrong.npy: the shape [1,10] does not fit input 'image', float32[batch,1,28,28]; 4 sizes are "
              "expected");
  ExpectError("run lenet.gw --input image=width.npy", 1,
              "run: width.npy: the shape [2,1,28,27] does not fit input 'image', float32[batch,1,28,28]; size 3 has to "
              "be 28");
  ExpectError("run step.gw --input image=images.npy --input label=label.npy", 1,
              "run: label.npy: the array is float32[2], and input 'label' is int32[batch]; convert it with astype");
  ExpectError("run step.gw --input image=images.npy --input label=labels.npy", 1,
              "run: labels.npy: the shape [2] does not fit input 'label', int32[batch]; batch is 3 already");
  ExpectError("run step.gw --input image=images.npy --outputs=loss", 1,
              "run: output 'loss' needs input 'label', int32[batch]; give --input label=FILE, or --random");
  ExpectError("run step.gw --random --outputs=train_step", 1,
              "run: output 'train_step' is an update, which has no values; gradweave train trains");
  ExpectError("run lenet.gw --random --outputs=logit", 1,
              "run: the model has no output 'logit'; did you mean 'logits'?");
}

TEST_F(RunTest, NothingIsWrittenAfterAnError) {
  WriteFile("file", "");
  ExpectError("run lenet.gw --random -o none/all.npz", 1,
              "run: none/all.npz: the file cannot be written: No such file or directory");
  ExpectError("run lenet.gw --random -o .", 1, "run: .: this is a folder");
  ExpectError("run lenet.gw --random --output_dir file", 1, "run: file: the folder cannot be made: Not a directory");
  ExpectError("run lenet.gw --random -o all.npz --output_dir file/x", 1,
              "run: file/x: the folder cannot be made: Not a directory");
  EXPECT_FALSE(Exists("all.npz"));
}

TEST_F(RunTest, BenchMeasuresBatchSizesAndThreads) {
  const std::string text =
      RunOk("bench lenet.gw --batch_sizes=1,4 --threads=1,2 --seconds=0.01 --steps --trace=trace.json");
  EXPECT_THAT(text, ContainsRegex("^lenet.gw: logits, probabilities on cpu.0.\n"
                                  "batch  threads +median +fastest  per second  GFLOP/s\n"
                                  " +1 +1 +[0-9.]+ [um]s .*\n +1 +2 .*\n +4 +1 .*\n +4 +2 .*\n\nstep  node "));
  EXPECT_THAT(ReadFile("trace.json"), HasSubstr("{\"traceEvents\":["));
  SaveLeNetStep();
  EXPECT_THAT(RunOk("bench step.gw --outputs=train_step --batch_sizes=2 --seconds=0.01"),
              HasSubstr("step.gw: train_step on cpu(0)\n"));
  // With all sizes known there is one row.
  EXPECT_THAT(RunOk("bench lenet.gw --shape image=2,1,28,28 --seconds=0.01"), HasSubstr("\nruns  threads "));
  EXPECT_THAT(RunOk("bench lenet.gw --seconds=0.01"), Not(HasSubstr("step  node")));
  ExpectError("bench lenet.gw --seconds=0", 1, "bench: --seconds=0 is outside its range, (0, 3600]");
  ExpectError("bench lenet.gw --batch_sizes=1,x", 2,
              "bench: --batch_sizes=1,x has no such value; whole numbers in [1, 2147483648] are expected");
  ExpectError("bench lenet.gw --trace=none/t.json", 1,
              "bench: none/t.json: the file cannot be written: No such file or directory");
}

}  // namespace
}  // namespace gradweave
