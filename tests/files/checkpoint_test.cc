// Model files: loaded values equal the saved ones bit for bit, training continues, and damaged
// files cause no crash.
#include "gradweave/runtime/model_file/checkpoint.h"

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

std::string TemporaryPath(const std::string& name) { return ::testing::TempDir() + "/" + name; }

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream contents;
  contents << in.rdbuf();
  return contents.str();
}

void WriteFile(const std::string& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary) << contents;
}

// A small classifier. Its dropout makes random numbers matter, and its momentum makes state matter.
struct Classifier {
  Graph graph;
  Value x, label, loss;
  Update step;

  Classifier() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("batch"), 5});
    label = scope.Input("label", kInt32, {Dim("batch")});
    const nn::Sequential model{nn::Dense{8}, nn::Tanh{}, nn::Dropout{0.3}, nn::Dense{3}};
    loss = nn::SoftmaxCrossEntropy(model(scope, x), label);
    step = optim::Sgd{.learning_rate = 0.1, .momentum = 0.9}.Minimize(loss);
    graph.SetOutput("logits", {model(scope, x, {.training = false})});
    graph.SetOutput("loss", {loss});
    graph.SetOutput("train_step", step.assignments);
  }
};

Tensor Points() {
  Tensor points(kFloat32, {4, 5});
  for (int i = 0; i < 20; ++i) points.mutable_data<float>()[i] = static_cast<float>((i * 7) % 11) / 11;
  return points;
}
Tensor Labels() { return Tensor::Of<int32_t>({4}, {0, 2, 1, 2}); }

// Runs training steps with the names in the graph only, and returns the losses.
std::vector<double> TrainByName(Session& session, Graph& graph, int steps) {
  const Value x = graph.value(graph.FindNamed("x")), label = graph.value(graph.FindNamed("label"));
  const Update step{graph.Output("train_step")};
  std::vector<double> losses;
  for (int i = 0; i < steps; ++i) {
    absl::StatusOr<std::vector<Tensor>> results =
        session.Run({{x, Points()}, {label, Labels()}}, {graph.Output("loss")[0], step});
    EXPECT_TRUE(results.ok()) << results.status();
    if (results.ok()) losses.push_back((*results)[0].ToDouble());
  }
  return losses;
}

TEST(Checkpoint, TrainingGoesOnAsIfItHadNotBeenInterrupted) {
  for (int64_t inline_limit : {int64_t{1} << 20, int64_t{0}}) {
    Classifier classifier;
    absl::StatusOr<Session> session = Session::Create(classifier.graph, {.seed = 9});
    ASSERT_TRUE(session.ok()) << session.status();
    TrainByName(*session, classifier.graph, 3);
    const std::string path = TemporaryPath("interrupted.gw");
    ASSERT_TRUE(SaveModel(*session, path, {.source_locations = true, .inline_limit = inline_limit}).ok());
    const std::vector<double> uninterrupted = TrainByName(*session, classifier.graph, 4);

    absl::StatusOr<Model> model = LoadModel(path);
    ASSERT_TRUE(model.ok()) << model.status();
    absl::StatusOr<Session> resumed = CreateSession(*model, {.threads = 3});
    ASSERT_TRUE(resumed.ok()) << resumed.status();
    EXPECT_EQ(TrainByName(*resumed, model->graph, 4), uninterrupted);
    for (const std::string& name : session->VariableNames())
      EXPECT_TRUE(SameBits(*session->GetVariable(name), *resumed->GetVariable(name))) << name;
  }
}

// The counter of seeds is in the file: without it, ops that are added to a loaded graph would
// repeat the numbers of those that are there.
TEST(Checkpoint, RandomOpsThatAreAddedLaterHaveSeedsOfTheirOwn) {
  Graph graph;
  {
    Scope scope(graph);
    graph.SetOutput("first", {RandomUniform(scope, {8}), RandomUniform(scope, {8})});
  }
  const std::string path = TemporaryPath("seeds.gw");
  const absl::StatusOr<Session> session = Session::Create(graph, {.seed = 9});
  ASSERT_TRUE(SaveModel(*session, path).ok());
  absl::StatusOr<Model> model = LoadModel(path);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto numbers_of_next = [](Graph& changed) {
    Scope scope(changed);
    const Value x = RandomUniform(scope, {8}), first = changed.Output("first")[0];
    absl::StatusOr<Session> next = Session::Create(changed, {.seed = 9});
    EXPECT_TRUE(next.ok()) << next.status();
    const absl::StatusOr<std::vector<Tensor>> results = next->Run({}, {x, first});
    EXPECT_TRUE(results.ok()) << results.status();
    EXPECT_FALSE(SameBits((*results)[0], (*results)[1]));
    return (*results)[0].ToDoubles();
  };
  EXPECT_EQ(numbers_of_next(model->graph), numbers_of_next(graph));
}

// Returns the logits of the classifier's points as bytes.
std::string Logits(Session& session, Graph& graph) {
  absl::StatusOr<std::vector<Tensor>> results =
      session.Run({{graph.value(graph.FindNamed("x")), Points()}}, {graph.Output("logits")[0]});
  EXPECT_TRUE(results.ok()) << results.status();
  if (!results.ok()) return "";
  return std::string(static_cast<const char*>((*results)[0].raw_data()), (*results)[0].byte_size());
}

// The second process of the next test. It has the file and the bytes that the first process
// computed.
TEST(Checkpoint, DISABLED_PredictFromFile) {
  ASSERT_NE(std::getenv("GRADWEAVE_TRAINED"), nullptr);
  const std::string path = std::getenv("GRADWEAVE_TRAINED");
  absl::StatusOr<Model> model = LoadModel(path);
  ASSERT_TRUE(model.ok()) << model.status();
  absl::StatusOr<Session> session = CreateSession(*model);
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(Logits(*session, model->graph), ReadFile(path + ".logits"));
}

TEST(Checkpoint, AnotherProcessPredictsTheSameBits) {
  Classifier classifier;
  absl::StatusOr<Session> session = Session::Create(classifier.graph, {.threads = 2, .seed = 4});
  ASSERT_TRUE(session.ok()) << session.status();
  TrainByName(*session, classifier.graph, 20);
  const std::string path = TemporaryPath("trained.gw");
  ASSERT_TRUE(SaveModel(*session, path).ok());
  const std::string logits = Logits(*session, classifier.graph);
  auto other_process = [&](const std::string& expected) {
    WriteFile(path + ".logits", expected);
    setenv("GRADWEAVE_TRAINED", path.c_str(), 1);
    return std::system(
        "\"$(readlink /proc/$PPID/exe)\" --gtest_also_run_disabled_tests --gtest_filter=*PredictFromFile > /dev/null");
  };
  EXPECT_EQ(other_process(logits), 0);
  std::string wrong = logits;
  wrong[0] ^= 1;
  EXPECT_NE(other_process(wrong), 0) << "the other process compares";
}

// The file records which variables are trainable, so a program can choose another optimizer without
// the model's code.
TEST(Checkpoint, ALoadedGraphGetsAnotherOptimizer) {
  Classifier classifier;
  absl::StatusOr<Session> session = Session::Create(classifier.graph);
  const std::string path = TemporaryPath("another.gw");
  ASSERT_TRUE(SaveModel(*session, path).ok());
  absl::StatusOr<Model> model = LoadModel(path);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(optim::TrainableVariables(model->graph).size(), 4u);
  const Value loss = model->graph.Output("loss")[0];
  const Update step = optim::Adam{.learning_rate = 0.05}.Minimize(loss);
  model->graph.SetOutput("train_step", step.assignments);
  absl::StatusOr<Session> tuned = CreateSession(*model);
  ASSERT_TRUE(tuned.ok()) << tuned.status();
  const std::vector<double> losses = TrainByName(*tuned, model->graph, 60);
  EXPECT_LT(losses.back(), 0.7 * losses.front());
}

// Version 1 of the format wrote tests/files/golden/classifier_v1.gw. It has an input x [batch, 2]
// and logits = x W + b, with the numbers below.
TEST(Checkpoint, ReadsTheGoldenFileOfVersionOne) {
  absl::StatusOr<Model> model = LoadModel("tests/files/golden/classifier_v1.gw");
  ASSERT_TRUE(model.ok()) << model.status();
  absl::StatusOr<Session> session = CreateSession(*model);
  ASSERT_TRUE(session.ok()) << session.status();
  const Value x = model->graph.value(model->graph.FindNamed("x"));
  absl::StatusOr<std::vector<Tensor>> results =
      session->Run({{x, Tensor::Of<float>({1, 2}, {1, 2})}}, {model->graph.Output("logits")[0]});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT((*results)[0].ToDoubles(), ::testing::ElementsAre(9.5, 12.25, 15));
  EXPECT_EQ(model->graph.type(model->graph.outputs().at("flat")[0]).shape.ToString(), "[3*batch]");
}

// Version 1 has checksums for the values in a weights file alone. The classifier above was trained
// for three steps.
TEST(Checkpoint, ReadsTheGoldenWeightsOfVersionOne) {
  const std::string golden = "tests/files/golden/v1/interrupted.gw", path = TemporaryPath("interrupted.gw");
  absl::StatusOr<Model> model = LoadModel(golden);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->run_number, 4);
  absl::StatusOr<Session> session = CreateSession(*model);
  ASSERT_TRUE(session.ok()) << session.status();
  const std::vector<double> losses = TrainByName(*session, model->graph, 2);
  EXPECT_NEAR(losses[0], 1.0852480, 1e-6);

  WriteFile(path, ReadFile(golden));
  std::string weights = ReadFile(golden + ".weights");
  weights[70] ^= 1;
  WriteFile(path + ".weights", weights);
  EXPECT_THAT(std::string(LoadModel(path).status().message()), HasSubstr("checksum is wrong"));
}

TEST(Checkpoint, TellsWhatIsWrongWithAFile) {
  const std::string path = TemporaryPath("wrong.gw");
  auto error = [&] { return std::string(LoadModel(path).status().message()); };
  std::remove(path.c_str());
  EXPECT_THAT(error(), HasSubstr("wrong.gw: the file cannot be opened"));
  WriteFile(path, "GIF89a");
  EXPECT_THAT(error(), HasSubstr("wrong.gw: this is not a Gradweave model"));
  WriteFile(path, "");
  EXPECT_THAT(error(), HasSubstr("this is not a Gradweave model"));
  const std::string golden = ReadFile("tests/files/golden/classifier_v1.gw");
  std::string newer = golden;
  newer[18] = 99;  // The format version follows the magic.
  WriteFile(path, newer);
  EXPECT_THAT(error(), HasSubstr("format version 99"));
  EXPECT_THAT(error(), HasSubstr("upgrade Gradweave"));
  WriteFile(path, golden);
  EXPECT_EQ(LoadModel(path, {.memory_limit = 100}).status().code(), absl::StatusCode::kResourceExhausted);

  // The loader detects a damaged byte in the weights.
  Classifier classifier;
  absl::StatusOr<Session> session = Session::Create(classifier.graph);
  ASSERT_TRUE(SaveModel(*session, path, {.inline_limit = 0}).ok());
  const std::string contents = ReadFile(path), weights_name = contents.substr(contents.find("wrong.gw."), 33);
  const std::string weights_path = TemporaryPath(weights_name);
  std::string weights = ReadFile(weights_path);
  weights[70] ^= 1;
  WriteFile(weights_path, weights);
  EXPECT_THAT(error(), HasSubstr(weights_name + ": the checksum is wrong"));
  WriteFile(weights_path, weights.substr(0, 80));
  EXPECT_THAT(error(), HasSubstr(weights_name + ": the file has 80 bytes and should have 960: it is truncated"));
  std::remove(weights_path.c_str());
  EXPECT_THAT(error(), HasSubstr(weights_name + ": the file cannot be opened"));
  EXPECT_THAT(std::string(SaveModel(*session, "/no/such/folder/model.gw").message()),
              HasSubstr("/no/such/folder/model.gw: the file cannot be written"));
}

// The limit counts both files: the small one of the model is within it, and its weights are not.
TEST(Checkpoint, TheMemoryLimitHoldsForWeights) {
  Graph graph;
  Scope scope(graph);
  scope.Variable("w", scope.Full(1, {250'000}));
  const absl::StatusOr<Session> session = Session::Create(graph);
  const std::string path = TemporaryPath("limited.gw");
  ASSERT_TRUE(SaveModel(*session, path, {.inline_limit = 0}).ok());
  EXPECT_LT(ReadFile(path).size(), 1000u);
  for (bool map_weights : {false, true}) {
    const absl::Status status = LoadModel(path, {.memory_limit = 999'999, .map_weights = map_weights}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("limited.gw")) << status;
    EXPECT_TRUE(LoadModel(path, {.memory_limit = 10'000'000, .map_weights = map_weights}).ok());
  }
}

// Loads every truncation of a file, and many files with wrong bytes. The result is an error or a
// model, never a crash. A loaded model runs or returns an error.
TEST(Checkpoint, SurvivesDamagedFiles) {
  const std::string path = TemporaryPath("damaged.gw");
  const std::string golden = ReadFile("tests/files/golden/classifier_v1.gw");
  ASSERT_FALSE(golden.empty());
  for (size_t length = 0; length < golden.size(); ++length) {
    WriteFile(path, golden.substr(0, length));
    EXPECT_FALSE(LoadModel(path).ok()) << length;
  }
  std::mt19937 random(1);
  int loaded = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string damaged = golden;
    for (int i = 0; i <= round % 4; ++i) damaged[18 + random() % (damaged.size() - 18)] = static_cast<char>(random());
    WriteFile(path, damaged);
    absl::StatusOr<Model> model = LoadModel(path, {.memory_limit = 1 << 20});
    if (!model.ok()) continue;
    ++loaded;
    absl::StatusOr<Session> session = CreateSession(*model, {.threads = 1});
    const NodeId x = model->graph.FindNamed("x");
    const std::vector<Value> logits = model->graph.Output("logits");
    if (session.ok() && x >= 0 && logits.size() == 1)
      session->Run({{model->graph.value(x), Tensor::Of<float>({1, 2}, {1, 2})}}, {logits[0]}).IgnoreError();
  }
  EXPECT_GT(loaded, 0);
}

// Rewrites the golden file whose path GRADWEAVE_GOLDEN holds; run with
// --gtest_also_run_disabled_tests. Files of released versions must not change.
TEST(Checkpoint, DISABLED_WriteGoldenFile) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2, 3}, {1, 2, 3, 4, 5, 6})));
  const Value b = scope.Variable("b", scope.Constant(Tensor::Of<float>({3}, {0.5, 0.25, 0})));
  const Value logits = MatMul(x, w) + b;
  graph.SetOutput("logits", {logits});
  graph.SetOutput("flat", {Flatten(logits, 0)});
  const Value moments = RandomNormal(scope, {2, 2}, 0, 2) + Pad(Conv2D(scope.Constant(Tensor(kFloat32, {1, 1, 3, 3})),
                                                                       scope.Constant(Tensor(kFloat32, {1, 1, 2, 2}))),
                                                                {.low = {0, 0, 0, 0}, .high = {0, 0, 0, 0}});
  graph.SetOutput("moments", {Cast(moments, kFloat64), OneHot(ArgMax(logits, {.axis = 1, .dtype = kInt32}), 3)});
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_NE(std::getenv("GRADWEAVE_GOLDEN"), nullptr);
  ASSERT_TRUE(SaveModel(*session, std::getenv("GRADWEAVE_GOLDEN"), {.source_locations = true}).ok());
}

}  // namespace
}  // namespace gradweave
