// The subcommand that trains models.
#include <filesystem>
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
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Not;

class TrainTest : public CommandTest {
 protected:
  // linear.gw: prediction = x * w + b, with zeros.
  void SaveLinear() const {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
    const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {2, 1})));
    const Value b = scope.Variable("b", scope.Constant(Tensor(kFloat32, {1})));
    graph.SetOutput("prediction", {MatMul(x, w) + b});
    ASSERT_TRUE(SaveModel(*Session::Create(graph), Path("linear.gw")).ok());
  }
  // two.gw: two logits of an image of four pixels.
  void SaveTwo() const {
    Graph graph;
    Scope scope(graph);
    const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 2, 2});
    graph.SetOutput("logits", {nn::Sequential{nn::Flatten{}, nn::Dense{2}}(scope, image)});
    ASSERT_TRUE(SaveModel(*Session::Create(graph), Path("two.gw")).ok());
  }
  // table.csv: y = 2a - 3b + 1.
  void WriteTable() const {
    std::string text = "a,y,b\n";
    for (int i = 0; i < 20; ++i) {
      const int a = i % 5 - 2, b = i / 5 - 1;
      absl::StrAppend(&text, a, ",", 2 * a - 3 * b + 1, ",", b, "\n");
    }
    WriteFile("table.csv", text);
  }
  Tensor Variable(const std::string& model, const std::string& name) const {
    const Model loaded = *LoadModel(Path(model));
    for (const auto& [known, value] : loaded.variables) {
      if (known == name) return value;
    }
    return {};
  }
};

TEST_F(TrainTest, WritesOnnx) {
  SaveLinear();
  WriteTable();
  RunOk("train linear.gw --data table.csv --target=y --loss mean_squared_error --lr 0.1 --epochs 200 -o trained.onnx");
  ASSERT_TRUE(data::WriteNpy(Path("x.npy"), Tensor::Of<float>({1, 2}, {1, 2})).ok());
  EXPECT_THAT(RunOk("inspect trained.onnx"), HasSubstr("an ONNX model"));
  RunOk("run trained.onnx --input x=x.npy -o y.npz");
  EXPECT_NEAR((*data::ReadNpz(Path("y.npz")))[0].values.ToDoubles()[0], 2 * 1 - 3 * 2 + 1, 0.1);
}

TEST_F(TrainTest, FitsATable) {
  SaveLinear();
  WriteTable();
  const std::string text = RunOk(
      "train linear.gw --data table.csv --target=y --loss mean_squared_error --optimizer sgd:momentum=0.5 --lr 0.1 "
      "--epochs 60 --batch_size 10 -o trained.gw --curves=curves.svg");
  EXPECT_THAT(text, ContainsRegex("^linear.gw: trains 'prediction' on 20 samples\nepoch 1/60 .*"));
  EXPECT_THAT(text, ContainsRegex("\ntrained.gw: loss [^\n]*, mae [^\n]*\n$"));
  EXPECT_THAT(Variable("trained.gw", "w").values<float>(), ElementsAre(FloatNear(2, 1e-3), FloatNear(-3, 1e-3)));
  EXPECT_THAT(Variable("trained.gw", "b").values<float>(), ElementsAre(FloatNear(1, 1e-3)));
  EXPECT_THAT(ReadFile("curves.svg"), HasSubstr("train loss"));
  // The graph is that of the file, without loss and update.
  EXPECT_THAT(Run("diff linear.gw trained.gw").out, HasSubstr("graphs: the same, "));
}

// The command does what a program does with Fit: the weights have the same bits.
TEST_F(TrainTest, TrainsAsAProgramDoes) {
  SaveTwo();
  Tensor images(kFloat32, {50, 1, 2, 2}), labels(kInt64, {50}), classes(kInt32, {50});
  for (int i = 0; i < 50; ++i) {
    for (int j = 0; j < 4; ++j) images.mutable_data<float>()[4 * i + j] = static_cast<float>(i * (j + 3) % 7) / 7;
    labels.mutable_data<int64_t>()[i] = classes.mutable_data<int32_t>()[i] = i * 5 % 7 > 3;
  }
  ASSERT_TRUE(data::WriteNpy(Path("images.npy"), images).ok());
  ASSERT_TRUE(data::WriteNpy(Path("labels.npy"), labels).ok());
  RunOk(
      "train two.gw --data images.npy,labels.npy --loss softmax_cross_entropy --optimizer adamw:beta1=0.8 "
      "--lr cosine:0.05 --epochs 3 --batch_size 16 --seed 7 -o trained.gw");

  Model model = *LoadModel(Path("two.gw"));
  Scope scope(model.graph);
  const Value logits = model.graph.Output("logits")[0], label = scope.Input("label", kInt32, {Dim("batch")});
  const Value image = model.graph.value(model.graph.FindNamed("image"));
  const Value loss = nn::SoftmaxCrossEntropy(logits, label);
  const Update step = optim::AdamW{.learning_rate = optim::CosineDecay(0.05, 3 * 4), .beta1 = 0.8}.Minimize(loss);
  Session session = *Session::Create(model.graph, {.seed = 7, .variables = model.variables});
  ASSERT_TRUE(
      Fit(session, {loss, step}, {{image, images}, {label, classes}}, {.epochs = 3, .batch_size = 16, .seed = 7}).ok());
  EXPECT_TRUE(SameBits(Variable("trained.gw", "dense_1/weight"), *session.GetVariable("dense_1/weight")));
  EXPECT_FALSE(SameBits(Variable("trained.gw", "dense_1/weight"), Variable("two.gw", "dense_1/weight")));
}

TEST_F(TrainTest, GoesOnFromACheckpoint) {
  SaveLinear();
  WriteTable();
  const std::string call =
      "train linear.gw --data table.csv --target=y --loss huber --optimizer adam --lr 0.1 --batch_size 7 "
      "--validation 0.2 ";
  EXPECT_THAT(RunOk(call + "--epochs 6 -o whole.gw"), HasSubstr("on 16 samples, validates on 4\n"));
  RunOk(call + "--epochs 2 -o part.gw --checkpoint_dir=saved");
  const CommandResult again = Run(call + "--epochs 6 -o again.gw --checkpoint_dir=saved");
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("gradweave train: "));
  EXPECT_FALSE(Exists("again.gw"));
  const CommandResult rest = Run(call + "--epochs 6 -o rest.gw --checkpoint_dir=saved --resume");
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.out, Not(HasSubstr("epoch 2/6")));
  EXPECT_EQ(Run("diff whole.gw rest.gw").code, 0);
  EXPECT_EQ(Run("diff whole.gw part.gw").code, 1);
}

TEST_F(TrainTest, WritesEventsAndAReport) {
  SaveTwo();
  Tensor images(kFloat32, {8, 1, 2, 2}), classes(kInt32, {8});
  for (int i = 0; i < 8; ++i) classes.mutable_data<int32_t>()[i] = i % 2;
  ASSERT_TRUE(data::WriteNpy(Path("images.npy"), images).ok());
  ASSERT_TRUE(data::WriteNpy(Path("labels.npy"), classes).ok());
  const std::string call =
      "train two.gw --data images.npy,labels.npy --loss softmax_cross_entropy --epochs 2 --seed 1 ";
  RunOk(call + "-o plain.gw");
  RunOk(call + "-o watched.gw --tensorboard=runs/first --report=report.html");
  EXPECT_EQ(Run("diff plain.gw watched.gw").code, 0);
  const std::string html = ReadFile("report.html");
  EXPECT_THAT(html, HasSubstr("<title>two.gw</title>"));
  EXPECT_THAT(html, HasSubstr("of 8 samples are wrong"));
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(Path("runs/first"))) {
    EXPECT_THAT(entry.path().filename().string(), HasSubstr("tfevents"));
    EXPECT_GT(entry.file_size(), 1000u);
    ++files;
  }
  EXPECT_EQ(files, 1);
  ExpectError(call + "-o new.gw --report=none/report.html", 1,
              "train: none/report.html: the file cannot be written: No such file or directory");
  WriteFile("file", "");
  ExpectError(call + "-o new.gw --tensorboard=file/runs", 1,
              "train: file/runs: the folder of the events cannot be made: Not a directory");
  EXPECT_FALSE(Exists("new.gw"));
}

TEST_F(TrainTest, LearnsFoldersOfImagesAndKeepsTheirClasses) {
  SaveTwo();
  for (const char* name : {"data/dark", "data/light"}) std::filesystem::create_directories(Path(name));
  for (int i = 0; i < 6; ++i) {
    const uint8_t shade = static_cast<uint8_t>(10 * i);
    ASSERT_TRUE(WritePng(Path(absl::StrCat("data/dark/", i, ".png")), GrayImage(2, 2, shade)).ok());
    ASSERT_TRUE(WritePng(Path(absl::StrCat("data/light/", i, ".png")), GrayImage(2, 2, 255 - shade)).ok());
  }
  EXPECT_THAT(RunOk("train two.gw --data data --loss softmax_cross_entropy --lr 0.1 --epochs 60 -o trained.gw"),
              ContainsRegex("trained.gw: loss [0-9.e-]+, accuracy 1\n$"));
  EXPECT_THAT(RunOk("run trained.gw --input image=data/light/3.png"), HasSubstr("\n  0  light "));
  EXPECT_THAT(RunOk("run trained.gw --input image=data/dark/3.png"), HasSubstr("\n  0  dark "));
  // Another training starts from these weights.
  RunOk("train trained.gw --data data --loss multi_class_hinge --lr 0 --epochs 1 -o same.gw");
  EXPECT_TRUE(SameBits(Variable("same.gw", "dense_1/weight"), Variable("trained.gw", "dense_1/weight")));
}

TEST_F(TrainTest, ReadsArchivesAndTablesOfClasses) {
  SaveLinear();
  ASSERT_TRUE(
      data::WriteNpz(Path("points.npz"), {{"x", Tensor(kFloat32, {4, 2})}, {"target", Tensor(kFloat64, {4})}}).ok());
  RunOk("train linear.gw --data points.npz --loss mean_squared_error --epochs 1 -o trained.gw");
  ExpectError("train linear.gw --data points.npz --loss softmax_cross_entropy --epochs 1 -o trained2.gw", 1,
              "train: points.npz: the archive has no array 'label'; there are 'x' and 'target'");
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 1});
  graph.SetOutput("logits", {nn::Sequential{nn::Dense{3}}(scope, x)});
  ASSERT_TRUE(SaveModel(*Session::Create(graph), Path("three.gw")).ok());
  WriteFile("iris.csv", "width,species\n1,setosa\n2,virginica\n3,versicolor\n");
  RunOk("train three.gw --data iris.csv --target species --loss softmax_cross_entropy --epochs 1 -o trained.gw");
  EXPECT_THAT(RunOk("inspect trained.gw"), HasSubstr("\nclasses\n  setosa, versicolor, virginica\n"));
}

TEST_F(TrainTest, ErrorsNameTheChoices) {
  SaveLinear();
  WriteTable();
  const std::string call = "train linear.gw --data table.csv --target=y -o new.gw ";
  const std::string mse = call + "--loss mean_squared_error ";
  ExpectError(call + "--loss softmax_cross_entrpy", 1,
              "train: there is no loss 'softmax_cross_entrpy'; did you mean 'softmax_cross_entropy'?");
  ExpectError(mse + "--optimizer adamm", 1, "train: there is no optimizer 'adamm'; did you mean 'adam'?");
  ExpectError(mse + "--optimizer sgd:momentums=1", 1, "train: sgd has no option 'momentums'; did you mean 'momentum'?");
  ExpectError(mse + "--optimizer sgd:momentum=x", 1, "train: sgd:momentum: 'x' is not a finite number");
  ExpectError(mse + "--lr cosin:0.1", 1, "train: there is no schedule 'cosin'; did you mean 'cosine'?");
  ExpectError(mse + "--lr step:0.1", 1, "train: --lr=step:0.1: step:RATE,FACTOR,EPOCHS is expected");
  ExpectError(mse + "--lr nan", 1, "train: --lr=nan: 'nan' is not a finite number");
  EXPECT_THAT(Run(mse + "--lr=-0.1").err, HasSubstr("-0.1"));
  ExpectError(mse + "--epochs 0", 1, "train: --epochs=0 is outside its range, [1, 1000000]");
  ExpectError(mse + "--validation 1", 1, "train: --validation=1 is outside its range, [0, 1)");
  ExpectError(mse + "--resume", 2, "train: --resume needs --checkpoint_dir, the folder of the checkpoints");
  ExpectError(mse + "--prediction y", 1, "train: the model has no output 'y'; there is 'prediction'");
  ExpectError("train linear.gw --data table.csv --loss huber -o new.gw", 2,
              "train: --target=COLUMN is expected, the column of the table to predict");
  ExpectError("train linear.gw --data table.csv --target z --loss huber -o new.gw", 1,
              "train: table.csv: the table has no column 'z'; did you mean 'a'?");
  ExpectError("train linear.gw --data table.csv --target a,b --loss huber -o new.gw", 1,
              "train: table.csv: the shape [20,1] does not fit input 'x', float32[batch,2]; size 1 has to be 2");
  ExpectError("train linear.gw --data none.csv --loss huber -o new.gw", 1,
              "train: none.csv: the file cannot be opened: No such file or directory");
  ExpectError("train linear.gw --data linear.gw --loss huber -o new.gw", 1,
              "train: linear.gw: x.npy,y.npy, a file .npz or .csv, or a folder of images is expected, and this is a "
              "Gradweave model");
  ExpectError("train linear.gw --loss huber -o new.gw", 2, "train: --data=PATH is expected, the samples");
  ExpectError(mse + "-o none/new.gw", 1, "train: none/new.gw: the file cannot be written: No such file or directory");
  ASSERT_TRUE(data::WriteNpy(Path("x.npy"), Tensor(kFloat32, {4, 2})).ok());
  ASSERT_TRUE(data::WriteNpy(Path("y.npy"), Tensor(kFloat32, {3})).ok());
  const CommandResult sizes = Run("train linear.gw --data x.npy,y.npy --loss huber -o new.gw");
  EXPECT_EQ(sizes.code, 1);
  EXPECT_THAT(sizes.err, HasSubstr("gradweave train: x.npy: "));
  EXPECT_FALSE(Exists("new.gw"));
}

}  // namespace
}  // namespace gradweave
