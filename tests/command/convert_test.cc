// The subcommand that converts models.
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "tests/command/command_runner.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ConvertTest : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    SaveLeNet();
  }
  // other.gw: the graph of lenet.gw with other weights.
  void SaveOther() const {
    Model model = *LoadModel(Path("lenet.gw"));
    for (auto& [name, value] : model.variables) {
      value = value.Clone();
      for (float& number : value.mutable_values<float>()) number = number / 3 + 1;
    }
    ASSERT_TRUE(SaveModel(model, Path("other.gw")).ok());
  }
};

TEST_F(ConvertTest, WeightsGoOutAndIn) {
  SaveOther();
  for (const char* weights : {"weights.safetensors", "weights.npz"}) {
    RunOk(absl::StrCat("convert other.gw ", weights));
    // The content tells the format.
    std::filesystem::rename(Path(weights), Path("weights"));
    EXPECT_EQ(RunOk("convert lenet.gw new.gw --weights weights"), "new.gw: a Gradweave model\n");
    EXPECT_EQ(RunOk("diff other.gw new.gw"), "graphs: the same, 42 nodes\nvariables: the same, 10\n");
  }
  RunOk("convert lenet.gw weights.safetensors");
  const auto arrays = *data::ReadSafetensors(Path("weights.safetensors"));
  ASSERT_EQ(arrays.size(), 10u);
  EXPECT_EQ(arrays[0].name, "conv2d_1/filter");
}

TEST_F(ConvertTest, WeightsOfHalfTypesGoOutAndIn) {
  Graph graph;
  Scope scope(graph);
  scope.Variable("w", scope.Constant(Tensor::Of<float>({2}, {0.1f, -3}).Cast(kBFloat16)));
  ASSERT_TRUE(SaveModel(*Session::Create(graph), Path("half.gw")).ok());
  RunOk("convert half.gw half.safetensors");
  RunOk("convert half.gw again.gw --weights half.safetensors");
  EXPECT_EQ(RunOk("diff half.gw again.gw"), "graphs: the same, 2 nodes\nvariables: the same, 1\n");
}

// The command reads and writes ONNX as it does its own files.
TEST_F(ConvertTest, OnnxGoesOutAndIn) {
  EXPECT_EQ(RunOk("convert lenet.gw model.onnx --outputs=logits"), "model.onnx: an ONNX model\n");
  std::filesystem::rename(Path("model.onnx"), Path("model"));
  EXPECT_THAT(RunOk("inspect model"), HasSubstr("model: an ONNX model"));
  RunOk("convert model back.gw");
  RunOk("run lenet.gw --random --seed 3 --shape image=2,1,28,28 --outputs logits -o a.npz");
  RunOk("run back.gw --random --seed 3 --shape image=2,1,28,28 --outputs logits -o b.npz");
  const auto a = *data::ReadNpz(Path("a.npz")), b = *data::ReadNpz(Path("b.npz"));
  ASSERT_EQ(a.size(), 1u);
  ASSERT_EQ(b.size(), 1u);
  EXPECT_EQ(a[0].values.ToString(), b[0].values.ToString());

  // The new values of a training step.
  SaveLeNetStep();
  RunOk("convert step.gw step.onnx --outputs=loss,train_step");
  EXPECT_THAT(RunOk("inspect step.onnx"), HasSubstr("train_step/conv2d_1/filter"));
  RunOk("run step.gw --random --seed 3 --shape image=2,1,28,28 --outputs loss -o loss.npz");
  RunOk("run step.onnx --random --seed 3 --shape image=2,1,28,28 --outputs loss -o again.npz");
  const auto loss = *data::ReadNpz(Path("loss.npz")), again = *data::ReadNpz(Path("again.npz"));
  EXPECT_NEAR(loss[0].values.ToDoubles()[0], again[0].values.ToDoubles()[0], 1e-5);
  // Without names, all outputs but updates.
  RunOk("convert step.gw forward.onnx");
  EXPECT_THAT(RunOk("inspect forward.onnx"), Not(HasSubstr("train_step")));
}

TEST_F(ConvertTest, WritesText) {
  EXPECT_EQ(RunOk("convert lenet.gw lenet.txt"), "lenet.txt: the graph as text\n");
  EXPECT_EQ(ReadFile("lenet.txt"), GraphToText(LoadModel(Path("lenet.gw"))->graph));
}

TEST_F(ConvertTest, WritesACHeader) {
  RunOk("convert lenet.gw lenet-5.h");
  const std::string text = ReadFile("lenet-5.h");
  EXPECT_THAT(text, HasSubstr("#ifndef LENET_5_H_\n#define LENET_5_H_\n"));
  const size_t begin = text.find("] = {");
  ASSERT_NE(begin, std::string::npos);
  std::string bytes;
  for (absl::string_view number : absl::StrSplit(text.substr(begin + 5, text.find('}') - begin - 5), ',')) {
    int byte = 0;
    if (absl::SimpleAtoi(number, &byte)) bytes += static_cast<char>(byte);
  }
  EXPECT_THAT(text, HasSubstr(absl::StrCat("unsigned long lenet_5_size = ", bytes.size(), ";\n")));
  WriteFile("again.gw", bytes);
  RunOk("diff lenet.gw again.gw");
}

TEST_F(ConvertTest, RefusesWeightsThatDoNotFit) {
  const Tensor bias(kFloat32, {6});
  const std::pair<std::vector<data::NamedArray>, std::string> rows[] = {
      {{{"conv2d_1/bias", bias}}, "there is no value for the variable 'conv2d_1/filter'"},
      {{{"conv2d_1/biass", bias}}, "the model has no variable 'conv2d_1/biass'; did you mean 'conv2d_1/bias'?"},
      {{{"conv2d_1/bias", Tensor(kFloat32, {7})}},
       "'conv2d_1/bias' is float32[7], and the model's variable is float32[6]"},
      {{{"conv2d_1/bias", Tensor(kInt32, {6})}}, "'conv2d_1/bias' is int32[6], and the model's variable is float32[6]"},
  };
  for (const auto& [arrays, message] : rows) {
    ASSERT_TRUE(data::WriteSafetensors(Path("weights"), arrays).ok());
    ExpectError("convert lenet.gw new.gw --weights weights", 1, absl::StrCat("convert: weights: ", message));
  }
  WriteFile("weights", std::string("\x30\0\0\0\0\0\0\0{\"a\":", 13));
  ExpectError(
      "convert lenet.gw new.gw --weights weights", 1,
      "convert: weights: this is not a file of safetensors: its header would have 48 bytes, and the file has 13");
  ExpectError("convert lenet.gw new.gw --weights lenet.gw", 1,
              "convert: lenet.gw: a file of safetensors or an archive of numpy (.npz) is expected, and this is a "
              "Gradweave model");
  EXPECT_FALSE(Exists("new.gw"));
}

TEST_F(ConvertTest, RefusesOtherFiles) {
  ExpectError("convert lenet.gw lenet.xyz", 2,
              "convert: lenet.xyz: a name that ends in .gw, .onnx, .txt, .h, .safetensors, .npz is expected");
  ExpectError("convert lenet.gw none/lenet.h", 1,
              "convert: none/lenet.h: the file cannot be written: No such file or directory");
  ExpectError("convert none.gw lenet.h", 1, "convert: none.gw: the file cannot be opened: No such file or directory");
  RunOk("convert lenet.gw weights.safetensors");
  ExpectError("convert weights.safetensors new.gw", 1,
              "convert: weights.safetensors: this is not a model but a file of safetensors");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) files += entry.is_regular_file();
  EXPECT_EQ(files, 4);  // lenet.gw, weights.safetensors, .out and .err.
}

}  // namespace
}  // namespace gradweave
